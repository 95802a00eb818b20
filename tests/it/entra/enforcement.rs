//! What Cosmos enforces of a resource token, stepgate enforces alone here.

use std::fs;

use serde_json::{Value, json};
use stepgate::{
    access::Enforcer,
    config::Credential,
    dev::{
        cosmos::{Authorization, Effect, Fault},
        issuer::Outage,
    },
};

use crate::rig::{Account, Call, Rig};

const DOCS: &str = "/dbs/shop/colls/orders/docs";
const ITEM: &str = "/dbs/shop/colls/orders/docs/o-1001";

async fn start() -> Rig {
    Rig::on(Account::Entra, |_| {}).await
}

#[tokio::test]
async fn everything_travels_under_the_gateways_own_token_and_says_who_enforces() {
    let rig = start().await;
    let read = rig.task("fulfilment", "GET", ITEM).send().await.expect(200);
    rig.task("auditor", "POST", DOCS).query("SELECT * FROM c").partition("t2").send().await.expect(200);
    rig.sdk("fulfilment", "GET", "/dbs/shop/colls/orders").send().await.expect(200);
    for request in rig.cosmos().recorded() {
        assert_eq!(request.authorization, Authorization::Aad, "{request:?}");
    }
    assert_eq!(rig.entra().stats().token, 1, "one token serves all");
    let credential = rig.outcome(&read).credential.unwrap();
    assert_eq!((credential.enforced_by, credential.permission_id), (Enforcer::Stepgate, None));
    assert_eq!(credential.scope.partition_key.unwrap().to_string(), r#"["t1"]"#);
    let (_, status) = rig.admin("GET", "/status", None).await;
    let status: Value = serde_json::from_str(&status).unwrap();
    let credential = &status["credential"];
    assert_eq!((&credential["kind"], &credential["enforced_by"]), (&json!("entra"), &json!("stepgate")));
    assert!(credential["expires"].is_string() && credential["error"].is_null(), "{credential}");
}

#[tokio::test]
async fn no_request_reaches_past_its_partition() {
    let rig = start().await;
    let ids = |answer: Value| -> Vec<String> {
        answer["Documents"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
    };
    let across = [("x-ms-documentdb-query-enablecrosspartition", "True"), ("x-ms-documentdb-partitionkeyrangeid", "0")];
    for headers in [&across[..], &across[..1], &[("x-ms-start-epk", ""), ("x-ms-end-epk", "FF")]] {
        let with = |call| headers.iter().fold(call, |call: Call<'_>, (n, v)| call.header(n, v));
        let query = with(rig.task("fulfilment", "POST", DOCS)).query("SELECT * FROM c");
        assert_eq!(ids(query.send().await.expect(200).json()), ["o-1001", "o-1002"], "{headers:?}");
        let feed = with(rig.task("fulfilment", "GET", DOCS)).send().await.expect(200).json();
        assert_eq!(ids(feed), ["o-1001", "o-1002"], "{headers:?}");
        let changes = with(rig.task("fulfilment", "GET", DOCS)).header("a-im", "Incremental feed");
        assert_eq!(ids(changes.send().await.expect(200).json()), ["o-1001", "o-1002"], "{headers:?}");
    }
    for request in rig.data_requests() {
        assert_eq!(request.partition_key.as_deref(), Some(r#"["t1"]"#), "{request:?}");
    }
    rig.task("fulfilment", "GET", &format!("{DOCS}/o-2001")).partition("t2").send().await.refused(403, "policy.denied");
    let other = json!({ "id": "o-9", "tenant": "t2" });
    rig.task("fulfilment", "POST", DOCS).json(&other).send().await.refused(422, "cosmos.partition_key_mismatch");
}

#[tokio::test]
async fn each_operation_of_a_batch_stays_where_the_batch_is() {
    let rig = start().await;
    let batch = |client: &str, key: Value| {
        let operations = json!([
            { "operationType": "Read", "id": "o-1001" },
            { "operationType": "Read", "id": "o-2001", "partitionKey": key },
        ]);
        let call = rig.task(client, "POST", DOCS).header("x-ms-cosmos-is-batch-request", "True").partition("t1");
        call.json(&operations)
    };
    batch("fulfilment", json!(["t2"])).send().await.refused(403, "policy.denied");
    // Granted in each of the two partitions, by policy; but one token would not have opened both.
    let policy = "roles: { two: { grants: [\n\
        { container: shop/orders, partition_key: [t1], operations: [items/read, batch] },\n\
        { container: shop/orders, partition_key: [t2], operations: [items/read, batch] }] } }\n\
        bindings: [{ role: two, workloads: [{ issuer: local, claims: { client_id: nobody } }] }]\n";
    fs::write(rig.file("policies/two.yaml"), policy).unwrap();
    rig.server.reload().await;
    let answer = batch("nobody", json!(["t2"])).send().await.refused(403, "policy.denied");
    assert!(answer.text().contains("operation 1 of the batch"), "{}", answer.text());
    batch("nobody", json!(["t1"])).send().await.refused(424, "cosmos.batch_failed");
    assert_eq!(rig.data_requests().len(), 1, "only the last left");
}

#[tokio::test]
async fn queries_in_the_outer_part_of_a_hierarchical_key_are_refused() {
    let rig = start().await;
    let docs = "/dbs/shop/colls/lines/docs";
    rig.task("lines", "POST", docs).query("SELECT * FROM c").send().await.refused(403, "policy.prefix_query");
    let whole = rig.task("lines", "POST", docs).header("x-ms-documentdb-partitionkey", r#"["t1","l1"]"#);
    whole.query("SELECT * FROM c").send().await.refused(403, "policy.prefix_query");
    let item = rig.task("lines", "GET", &format!("{docs}/a")).header("x-ms-documentdb-partitionkey", r#"["t1","l1"]"#);
    item.send().await.refused(404, "cosmos.not_found");
}

#[tokio::test]
async fn a_continuation_of_another_or_made_up_is_a_400() {
    let rig = start().await;
    let page = |client: &str, text: &str| {
        rig.task(client, "POST", DOCS).partition("t1").header("x-ms-max-item-count", "1").query(text)
    };
    let all = "SELECT * FROM c";
    let first = page("fulfilment", all).send().await.expect(200);
    let continuation = first.header("x-ms-continuation").expect("there is more").to_owned();
    assert!(continuation.starts_with("stepgate1."), "{continuation}");
    let second = page("fulfilment", all).header("x-ms-continuation", &continuation).send().await.expect(200);
    assert_ne!(first.json()["Documents"][0]["id"], second.json()["Documents"][0]["id"]);
    for (client, text, continuation) in [
        ("operator", all, continuation.as_str()),
        ("fulfilment", "SELECT c.id FROM c", &continuation),
        ("fulfilment", all, "-RID:~made#up"),
        ("fulfilment", all, &continuation.replace("stepgate1.", "stepgate1.A")),
    ] {
        let answer = page(client, text).header("x-ms-continuation", continuation).send().await;
        answer.refused(400, "request.malformed");
    }
    let seen = rig.data_requests().len();
    assert_eq!(seen, 2, "a foreign continuation never leaves");
}

#[tokio::test]
async fn a_fleet_continues_what_another_gateway_began() {
    let rig = Rig::on(Account::Entra, |raw| {
        // Any long text will do; this one lies beside the configuration already.
        let key = json!({ "kind": "file", "path": "emulator-account-key" });
        let Credential::Entra { continuation_key, .. } = &mut raw.cosmos.credential else { panic!("no Entra") };
        *continuation_key = Some(serde_json::from_value(key).unwrap());
    })
    .await;
    let other = rig.try_another().await.unwrap();
    let page = || {
        let call = rig.task("fulfilment", "POST", DOCS).header("x-ms-max-item-count", "1");
        call.query("SELECT * FROM c")
    };
    let first = page().send().await.expect(200);
    let continuation = first.header("x-ms-continuation").unwrap();
    page().at(&other).header("x-ms-continuation", continuation).send().await.expect(200);
}

#[tokio::test]
async fn an_outage_of_entra_is_not_noticed_and_a_refused_token_is_a_503() {
    let rig = start().await;
    let read = async || rig.task("fulfilment", "GET", ITEM).send().await;
    read().await.expect(200);
    rig.entra().set_outage(Outage::On);
    read().await.expect(200);
    rig.cosmos().add_fault(Fault::once(Effect::Any { status: 401, substatus: Some(5006) }).times(50));
    read().await.refused(503, "credential.unavailable");
    rig.cosmos().clear_faults();
    read().await.expect(200);
}
