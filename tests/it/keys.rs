//! Keys change under a running gateway, and no workflow notices.

use std::fs;

use stepgate::dev::{
    cosmos::{Effect, Fault},
    issuer::Rotation,
};

use crate::rig::Rig;

const ITEM: &str = "/dbs/shop/colls/orders/docs/o-1001";
const DROP_OLD: Rotation = Rotation { algorithm: None, drop_old: true };

impl Rig {
    async fn reads(&self) {
        self.task("fulfilment", "GET", ITEM).send().await.expect(200);
    }

    /// Rotates the account key, and puts the new one where the gateway reads it.
    fn rotate_account_key(&self) {
        let key = self.cosmos().rotate_key().unwrap();
        fs::write(self.file("config/emulator-account-key"), key.expose()).unwrap();
    }
}

#[tokio::test]
async fn a_token_signed_with_a_new_key_works_at_once() {
    let rig = Rig::start().await;
    rig.reads().await;
    rig.issuer().rotate(Rotation::default()).unwrap();
    rig.reads().await;
    rig.issuer().rotate(DROP_OLD).unwrap();
    rig.reads().await;
    assert_eq!(rig.issuer().stats().jwks, 3, "one fetch for each change");
}

#[tokio::test]
async fn a_dropped_key_takes_its_tokens_with_it() {
    let rig = Rig::start().await;
    let old = rig.token("fulfilment");
    let read = async || rig.call("GET", ITEM).of_task().bearer(&old).send().await;
    read().await.expect(200);
    rig.issuer().rotate(DROP_OLD).unwrap();
    rig.reads().await;
    read().await.refused(401, "identity.invalid_token");
}

#[tokio::test]
async fn unknown_keys_cannot_make_the_gateway_hammer_the_issuer() {
    let rig = Rig::start().await;
    for n in 0..20 {
        let header = crate::rig::members(serde_json::json!({ "kid": format!("forged-{n}") }));
        let token = rig.mint(stepgate::dev::issuer::Mint { header, ..Default::default() });
        rig.call("GET", ITEM).of_task().bearer(&token).send().await.refused(401, "identity.invalid_token");
    }
    assert_eq!(rig.issuer().stats().jwks, 2, "one at the start, one for the first forgery");
}

/// What a scan or a broken client sends: rubbish in great numbers, between requests that are good.
#[tokio::test]
async fn a_thousand_unknown_keys_cost_the_issuer_one_fetch_and_good_requests_nothing() {
    let rig = Rig::start().await;
    let good = rig.token("fulfilment");
    let rubbish = async |n: usize| {
        let header = crate::rig::members(serde_json::json!({ "kid": format!("forged-{}", n % 250) }));
        let token = rig.mint(stepgate::dev::issuer::Mint { header, ..Default::default() });
        rig.call("GET", ITEM).of_task().bearer(&token).send().await.refused(401, "identity.invalid_token");
        if n.is_multiple_of(10) {
            rig.call("GET", ITEM).of_task().bearer(&good).send().await.expect(200);
        }
    };
    for batch in 0..20 {
        futures_util::future::join_all((0..50).map(|n| rubbish(batch * 50 + n))).await;
    }
    // One at the start, one for the first of the forgeries, and one more for each interval that the run may have taken.
    let fetches = rig.issuer().stats().jwks;
    assert!(fetches <= 4, "{fetches} fetches");
}

#[tokio::test]
async fn no_good_token_is_refused_while_the_issuer_rotates() {
    let rig = Rig::start().await;
    let reading = async {
        for _ in 0..40 {
            // A token of its own each time: the newest key signs it, perhaps before the gateway knows of it.
            futures_util::future::join_all((0..4).map(|_| rig.reads())).await;
        }
    };
    let rotating = async {
        for _ in 0..10 {
            rig.issuer().rotate(Rotation::default()).unwrap();
            let fetched = rig.issuer().stats().jwks;
            crate::rig::soon(async || {
                rig.reads().await;
                (rig.issuer().stats().jwks > fetched).then_some(())
            })
            .await;
        }
    };
    tokio::join!(reading, rotating);
}

#[tokio::test]
async fn a_rotated_account_key_is_found_without_a_failure() {
    let rig = Rig::start().await;
    rig.reads().await;
    rig.rotate_account_key();
    // The token at hand was minted a moment ago, and the key read a moment ago: neither may delay what mends this.
    rig.reads().await;
    let minted = rig.mints();
    rig.reads().await;
    assert_eq!(rig.mints(), minted, "the new token stays");
    rig.rotate_account_key();
    rig.reads().await;
}

#[tokio::test]
async fn expired_resource_tokens_are_minted_anew_without_a_failure() {
    let rig = Rig::start().await;
    rig.reads().await;
    rig.cosmos().expire_tokens();
    let answer = rig.task("fulfilment", "GET", ITEM).send().await.expect(200);
    assert_eq!(rig.mints(), 2);
    assert_eq!(rig.outcome(&answer).upstream.unwrap().attempts, 2);
}

#[tokio::test]
async fn a_credential_that_stays_refused_is_a_503_and_costs_few_mints() {
    let rig = Rig::start().await;
    rig.cosmos().add_fault(Fault::once(Effect::Any { status: 403, substatus: None }).times(50));
    for _ in 0..10 {
        rig.task("fulfilment", "GET", ITEM).send().await.refused(503, "credential.unavailable");
        rig.sdk("fulfilment", "GET", ITEM).send().await.refused(503, "credential.unavailable");
    }
    assert!(rig.mints() <= 4, "{} mints", rig.mints());
    rig.cosmos().clear_faults();
    rig.reads().await;
}

#[tokio::test]
async fn an_account_key_that_is_not_there_yet_is_a_503_until_it_is() {
    let rig = Rig::start().await;
    let key = rig.cosmos().rotate_key().unwrap();
    rig.task("fulfilment", "GET", ITEM).send().await.refused(503, "credential.unavailable");
    let (_, metrics) = rig.admin("GET", "/status", None).await;
    assert!(!metrics.contains(key.expose()));
}
