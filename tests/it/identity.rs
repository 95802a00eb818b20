//! Whom the gateway believes: one good token of a workload, in any of three places, and nobody else.

use serde_json::{Value, json};
use stepgate::dev::issuer::{Mint, MintAlgorithm, MintKey};

use crate::rig::{Answer, Call, members};

const ITEM: &str = "/dbs/shop/colls/orders/docs/o-1001";

/// Where a token can be.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Carrier {
    Bearer,
    CosmosSdk,
    Own,
}

const CARRIERS: [Carrier; 3] = [Carrier::Bearer, Carrier::CosmosSdk, Carrier::Own];

fn carry<'a>(call: Call<'a>, carrier: Carrier, token: &str) -> Call<'a> {
    match carrier {
        Carrier::Bearer => call.bearer(token),
        Carrier::CosmosSdk => call.header("authorization", &format!("type%3Daad%26ver%3D1.0%26sig%3D{token}")),
        Carrier::Own => call.header("x-stepgate-token", token),
    }
}

/// A token of the workload `fulfilment`, changed as told.
fn order(claims: Value) -> Mint {
    let mut all = members(json!({"sub": "fulfilment", "client_id": "fulfilment", "tenant": "t1"}));
    all.extend(members(claims));
    Mint { claims: all, ..Mint::default() }
}

#[tokio::test]
async fn a_good_token_passes_in_each_place() {
    let rig = super::start().await;
    let token = rig.token("fulfilment");
    for carrier in CARRIERS {
        carry(rig.call("GET", ITEM).of_task(), carrier, &token).send().await.expect(200);
        carry(rig.call("GET", ITEM), carrier, &token).send().await.expect(200);
    }
    // An `Authorization` that is not a token belongs to the connection.
    let call = rig.call("GET", ITEM).of_task().header("authorization", "Basic dTpw").header("x-stepgate-token", &token);
    call.send().await.expect(200);
    rig.call("GET", ITEM).of_task().bearer(&rig.mint(order(json!({})))).send().await.expect(200);
}

#[tokio::test]
async fn a_bad_token_is_refused_in_each_place() {
    let rig = super::start().await;
    let later = stepgate::clock::Clock::System.now().as_secs() + 3_600;
    let bad = [
        ("expired", Mint { ttl: Some(-60), ..order(json!({})) }),
        ("not valid yet", order(json!({"nbf": later}))),
        ("for somebody else", order(json!({"aud": "another-service"}))),
        ("for nobody", order(json!({"aud": null}))),
        ("without an end", order(json!({"exp": null}))),
        ("of a stranger", order(json!({"iss": "https://issuer.example"}))),
        ("of nobody", order(json!({"iss": null}))),
        ("of almost the issuer", order(json!({"iss": format!("{}/", rig.issuer().url())}))),
        ("unsigned", Mint { alg: Some(MintAlgorithm::None), ..order(json!({})) }),
        ("signed with the public key", Mint { alg: Some(MintAlgorithm::HmacWithPem), ..order(json!({})) }),
        ("signed with the public key as DER", Mint { alg: Some(MintAlgorithm::HmacWithDer), ..order(json!({})) }),
        ("signed with a key of nobody", Mint { key: MintKey::Rogue, ..order(json!({})) }),
        ("with an extension", Mint { header: members(json!({"crit": ["x"], "x": 1})), ..order(json!({})) }),
        ("that is an id token", Mint { header: members(json!({"typ": "id+jwt"})), ..order(json!({})) }),
    ];
    let bad = bad.map(|(what, order)| (what, rig.mint(order)));
    let good = rig.token("fulfilment");
    let (head, _) = good.rsplit_once('.').unwrap();
    let broken =
        [("cut", head.to_owned()), ("of another signature", format!("{head}.AAAA")), ("no token", "hello".into())];
    for (what, token) in bad.into_iter().chain(broken) {
        for carrier in CARRIERS {
            let expected = match carrier {
                Carrier::Own => (498, "identity.invalid_workflow_token"),
                Carrier::Bearer | Carrier::CosmosSdk => (401, "identity.invalid_token"),
            };
            let task = carry(rig.call("GET", ITEM).of_task(), carrier, &token).send().await;
            assert_eq!(task.error(), (expected.0, expected.1.to_owned()), "a token {what}, {carrier:?}");
            assert_eq!(task.header("www-authenticate").is_some(), expected.0 == 401);
            assert!(!task.text().contains(&token), "the token is not repeated");
            let sdk = carry(rig.call("GET", ITEM), carrier, &token).send().await;
            assert_eq!(sdk.error(), (401, expected.1.to_owned()), "a token {what}, {carrier:?}");
        }
    }
    assert!(rig.asked_for_callers().is_empty());
}

#[tokio::test]
async fn no_token_is_498_for_a_task_and_401_for_others() {
    let rig = super::start().await;
    let none = |answer: Answer, status| answer.refused(status, "identity.invalid_workflow_token");
    none(rig.call("GET", ITEM).of_task().send().await, 498);
    none(rig.call("GET", ITEM).send().await, 401);
    none(rig.call("GET", ITEM).of_task().header("authorization", "Basic dTpw").send().await, 498);
    none(rig.call("GET", ITEM).header("x-stepgate-errors", "distinct").send().await, 498);
    // What an account key or a resource token would look like opens nothing here.
    let master = "type%3Dmaster%26ver%3D1.0%26sig%3DAAAA";
    none(rig.call("GET", ITEM).of_task().header("authorization", master).send().await, 498);
}

#[tokio::test]
async fn two_tokens_are_a_bad_request() {
    let rig = super::start().await;
    let token = rig.token("fulfilment");
    for (one, other) in [
        (Carrier::Bearer, Carrier::Own),
        (Carrier::CosmosSdk, Carrier::Own),
        (Carrier::Bearer, Carrier::Bearer),
        (Carrier::Own, Carrier::Own),
        (Carrier::Bearer, Carrier::CosmosSdk),
    ] {
        let both = |call| carry(carry(call, one, &token), other, &token);
        both(rig.call("GET", ITEM).of_task()).send().await.refused(400, "request.malformed");
        both(rig.call("GET", ITEM)).send().await.refused(400, "request.malformed");
    }
}

#[tokio::test]
async fn a_human_is_refused_whatever_the_policy_says() {
    let rig = super::start().await;
    let sheets = [
        rig.token("alice"),
        rig.mint(order(json!({"email": "alice@example.test"}))),
        rig.mint(order(json!({"token_kind": "human"}))),
        rig.mint(order(json!({"token_kind": null}))),
    ];
    for token in sheets {
        for carrier in CARRIERS {
            let call = carry(rig.call("GET", ITEM).of_task(), carrier, &token).partition("t1");
            call.send().await.refused(403, "identity.human");
            carry(rig.call("GET", ITEM), carrier, &token).send().await.refused(403, "identity.human");
        }
    }
}

#[tokio::test]
async fn an_issuer_that_is_out_leaves_known_keys_in_use() {
    let rig = super::start().await;
    rig.issuer().set_outage(stepgate::dev::issuer::Outage::On);
    rig.task("fulfilment", "GET", ITEM).send().await.expect(200);
    let unknown = Mint { header: members(json!({"kid": "published-since"})), ..order(json!({})) };
    let answer = rig.call("GET", ITEM).of_task().bearer(&rig.mint(unknown)).send().await;
    answer.refused(503, "identity.unavailable");
    let (code, ready) = rig.admin("GET", "/readyz", None).await;
    assert_eq!(code, 200);
    assert!(ready.contains("\"degraded\""), "{ready}");
}
