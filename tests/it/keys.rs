//! Keys change under a running gateway, and no workflow notices.

use std::fs;

use serde_json::{Value, json};
use stepgate::dev::{
    cosmos::{Effect, Fault, Which},
    issuer::Rotation,
};

use crate::rig::{ADMIN_TOKEN, Rig, soon};

const ITEM: &str = "/dbs/shop/colls/orders/docs/o-1001";
const DROP_OLD: Rotation = Rotation { algorithm: None, drop_old: true };

impl Rig {
    async fn reads(&self) {
        self.task("fulfilment", "GET", ITEM).send().await.expect(200);
    }

    /// A token of a key that the issuer never had is refused.
    async fn forge(&self, number: usize) {
        let header = crate::rig::members(json!({ "kid": format!("forged-{number}") }));
        let token = self.mint(stepgate::dev::issuer::Mint { header, ..Default::default() });
        self.call("GET", ITEM).of_task().bearer(&token).send().await.refused(401, "identity.invalid_token");
    }

    /// Rotates the account key, and puts the new one where the gateway reads it.
    fn rotate_account_key(&self) {
        let key = self.cosmos().rotate_key().unwrap();
        fs::write(self.file("config/emulator-account-key"), key.expose()).unwrap();
    }

    async fn status(&self) -> Value {
        serde_json::from_str(&self.admin("GET", "/status", None).await.1).unwrap()
    }

    /// How often Cosmos has refused an account key.
    fn refused_signatures(&self) -> usize {
        self.cosmos().recorded().iter().filter(|request| request.status == 401).count()
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
        rig.forge(n).await;
    }
    assert_eq!(rig.issuer().stats().jwks, 2, "one at the start, one for the first forgery");
}

/// What a scan or a broken client sends: rubbish in great numbers, between requests that are good.
#[tokio::test]
async fn a_thousand_unknown_keys_cost_the_issuer_one_fetch_and_good_requests_nothing() {
    let rig = Rig::start().await;
    let good = rig.token("fulfilment");
    let rubbish = async |n: usize| {
        rig.forge(n % 250).await;
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
            soon(async || {
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
async fn rotations_in_quick_succession_are_followed_one_by_one() {
    let rig = Rig::start().await;
    rig.reads().await;
    for _ in 0..6 {
        rig.rotate_account_key();
        rig.reads().await;
    }
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

#[tokio::test]
async fn a_request_waits_out_the_gap_between_the_account_and_the_source_of_its_key() {
    let rig = Rig::start().await;
    rig.reads().await;
    let key = rig.cosmos().rotate_key().unwrap();
    let source = async {
        soon(async || (rig.refused_signatures() > 0).then_some(())).await;
        fs::write(rig.file("config/emulator-account-key"), key.expose()).unwrap();
    };
    tokio::join!(rig.reads(), rig.reads(), source);
    assert_eq!(rig.mints(), 2, "one before, one after");
}

/// What Azure lists, kept in one secret: a rotation replaces one of the two.
#[tokio::test]
async fn the_other_key_of_the_secret_carries_on_when_one_is_replaced() {
    let rig = Rig::with(|raw| {
        let account_key = json!({"kind": "file", "path": "emulator-account-key", "field": "primaryMasterKey"});
        raw.cosmos.credential =
            serde_json::from_value(json!({"kind": "resource_token", "account_key": account_key})).unwrap();
    });
    let rig = rig.await;
    rig.task("fulfilment", "GET", ITEM).send().await.refused(503, "credential.unavailable");
    let store = || {
        let [primary, secondary] = rig.cosmos().keys();
        let keys = json!({"primaryMasterKey": primary.expose(), "secondaryMasterKey": secondary.expose()});
        fs::write(rig.file("config/emulator-account-key"), keys.to_string()).unwrap();
    };
    let in_use = async |field: &str| {
        soon(async || (rig.status().await["credential"]["account_key"]["field"] == field).then_some(())).await;
    };
    store();
    in_use("primaryMasterKey").await;
    rig.reads().await;

    rig.cosmos().rotate(Which::Primary).unwrap();
    rig.reads().await;
    in_use("secondaryMasterKey").await;
    store();
    in_use("primaryMasterKey").await;
    rig.cosmos().rotate(Which::Secondary).unwrap();
    rig.reads().await;
}

#[tokio::test]
async fn a_reload_reads_the_account_key_and_says_when_it_cannot() {
    let rig = Rig::start().await;
    rig.reads().await;
    let reload = async || rig.admin("POST", "/reload", Some(ADMIN_TOKEN)).await.0;
    assert_eq!(reload().await, 200);
    let file = rig.file("config/emulator-account-key");
    let key = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    assert_eq!(reload().await, 422);
    let (code, ready) = rig.admin("GET", "/readyz", None).await;
    assert_eq!(code, 200);
    assert!(ready.contains("degraded") && ready.contains("emulator-account-key"), "{ready}");
    rig.reads().await;
    fs::write(&file, key).unwrap();
    soon(async || rig.admin("GET", "/readyz", None).await.1.contains("\"ready\"").then_some(())).await;
}
