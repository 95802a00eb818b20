//! `POST /oauth2/token`: what leaves the gateway, and what does not.

use std::time::Duration;

use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use stepgate::{
    access::Enforcer,
    audit::Verdict,
    dev::issuer::{Mint, MintKey},
};
use url::form_urlencoded;

use crate::rig::{Answer, Rig, members};

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

/// A stack that releases tokens, and whose workflow tokens live long enough for it.
pub(crate) async fn releasing() -> Rig {
    Rig::with(|raw| {
        raw.exchange.release_tokens = true;
        raw.dev.as_mut().unwrap().issuer.lifetime = Duration::from_secs(3_600);
    })
    .await
}

/// Asks for a token that leaves the gateway.
pub(crate) async fn ask(rig: &Rig, token: &str, resource: &str, scope: &str) -> Answer {
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("grant_type", EXCHANGE)
        .append_pair("subject_token", token)
        .append_pair("subject_token_type", JWT)
        .append_pair("resource", resource)
        .append_pair("scope", scope)
        .finish();
    let call = rig.call("POST", "/oauth2/token").header("content-type", "application/x-www-form-urlencoded");
    call.body(form).send().await
}

#[tokio::test]
async fn without_the_switch_there_is_no_such_route() {
    let rig = Rig::start().await;
    rig.task("auditor", "POST", "/oauth2/token").send().await.refused(400, "request.unknown_operation");
}

#[tokio::test]
async fn a_released_token_opens_what_was_granted_and_nothing_else() {
    let rig = releasing().await;
    let token = rig.token("operator");
    let answer = ask(&rig, &token, "cosmos:///shop/orders", "items/read query").await.expect(200);
    assert_eq!((answer.header("cache-control"), answer.header("pragma")), (Some("no-store"), Some("no-cache")));
    let body = answer.json();
    assert_eq!(body["issued_token_type"], "urn:ietf:params:oauth:token-type:access_token");
    assert_eq!((&body["token_type"], &body["scope"]), (&json!("N_A"), &json!("items/read query")));
    let life = body["expires_in"].as_u64().unwrap();
    assert!((590..=600).contains(&life), "{life} s");

    let released: String = form_urlencoded::byte_serialize(body["access_token"].as_str().unwrap().as_bytes()).collect();
    let read = async |method: &str| {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}/dbs/shop/colls/orders/docs/o-1001", rig.stack.cosmos.url()))
            .header("authorization", &released)
            .header("x-ms-date", stepgate::clock::Clock::System.now().http_date())
            .header("x-ms-version", "2020-07-15")
            .header("x-ms-documentdb-partitionkey", r#"["t1"]"#);
        rig.exchange(request.body(Full::default()).unwrap()).await.status().as_u16()
    };
    assert_eq!((read("GET").await, read("DELETE").await), (200, 403), "it reads, and does not write");

    let entry = rig.outcome(&answer);
    assert_eq!(entry.question.action.unwrap().as_str(), "token-exchange");
    assert_eq!(entry.decision.unwrap().verdict, Verdict::Allow);
    let credential = entry.credential.unwrap();
    assert!(credential.permission_id.is_some() && credential.enforced_by == Enforcer::Cosmos);
    let log =
        std::fs::read_dir(rig.log()).unwrap().filter_map(|file| std::fs::read_to_string(file.unwrap().path()).ok());
    let secret = body["access_token"].as_str().unwrap();
    assert!(log.into_iter().all(|text| !text.contains(secret)), "the record names the permission, not the token");
}

fn of_operator(ttl: Option<i64>, key: MintKey) -> Mint {
    Mint { claims: members(json!({ "client_id": "operator", "sub": "operator" })), ttl, key, ..Mint::default() }
}

#[tokio::test]
async fn every_refusal_has_its_word() {
    let rig = releasing().await;
    let operator = rig.token("operator");
    let word = async |token: &str, resource: &str, scope: &str| {
        let answer = ask(&rig, token, resource, scope).await;
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let body: Value = answer.json();
        assert!(body["error_description"].is_string(), "{body}");
        (answer.status(), body["error"].as_str().unwrap().to_owned())
    };
    let said = |status, word: &str| (status, word.to_owned());
    let orders = "cosmos:///shop/orders";
    assert_eq!(word("forged", orders, "query").await, said(400, "invalid_request"));
    let expired = rig.mint(of_operator(Some(-3_600), MintKey::Current));
    assert_eq!(word(&expired, orders, "query").await, said(400, "invalid_request"));
    let foreign = rig.mint(of_operator(None, MintKey::Rogue));
    assert_eq!(word(&foreign, orders, "query").await, said(400, "invalid_request"));
    assert_eq!(word(&rig.token("alice"), orders, "query").await, said(400, "unauthorized_client"));
    assert_eq!(word(&operator, "cosmos:///shop", "query").await, said(400, "invalid_target"));
    assert_eq!(word(&operator, orders, "everything").await, said(400, "invalid_scope"));
    assert_eq!(word(&operator, "cosmos:///finance/ledger", "query").await, said(400, "invalid_scope"));
    assert_eq!(word(&operator, "cosmos:///shop/vault", "query").await, said(400, "invalid_scope"), "a deny touches it");
    assert_eq!(
        word(&rig.token("tenants"), "cosmos:///shop/orders?partition_key=t1", "query").await,
        said(400, "invalid_scope"),
        "feed is not granted"
    );
    assert_eq!(word(&rig.token("tenants"), orders, "query").await, said(400, "invalid_target"), "two partitions");
    let short = rig.mint(of_operator(Some(1_200), MintKey::Current));
    assert_eq!(
        word(&short, orders, "query").await,
        said(400, "invalid_request"),
        "it ends before the released one would"
    );
    let call = rig.call("POST", "/oauth2/token").json(&json!({ "grant_type": EXCHANGE }));
    assert_eq!(call.send().await.json()["error"], "invalid_request", "a form, not JSON");
}
