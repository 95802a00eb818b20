//! `POST /preflight`: the list of what would work, or the code of the first thing that would not.

use serde_json::{Value, json};
use stepgate::{
    audit::Verdict,
    dev::cosmos::{Effect, Fault, Operation},
};

use crate::rig::Account;

fn need(operation: &str, container: &str, key: Value) -> Value {
    json!({ "operation": operation, "container": container, "partition_key": key })
}

#[tokio::test]
async fn what_would_work_is_listed() {
    let rig = super::start().await;
    let needs = json!([
        need("items/read", "shop/orders", json!(["t1"])),
        { "operation": "items/upsert", "container": "shop/orders" },
        need("query", "shop/orders", json!(["t1"])),
        need("batch", "shop/orders", json!("t1")),
    ]);
    let answer = rig.task("fulfilment", "POST", "/preflight").json(&needs).send().await.expect(200);
    let list = answer.json();
    let list = list.as_array().unwrap();
    assert_eq!(list.len(), 4);
    assert_eq!((&list[0]["operation"], &list[0]["mode"]), (&json!("items/read"), &json!("Read")));
    assert_eq!((&list[1]["operation"], &list[1]["mode"]), (&json!("items/upsert"), &json!("All")));
    assert_eq!(list[1]["partition_key"], json!(["t1"]), "the grant's own key is told");
    assert!(list[0]["granted_by"][0].as_str().unwrap().starts_with("order-writer ("), "{}", list[0]);

    let (mints, enforcer) = match rig.account() {
        Account::Keys => (2, "cosmos"),
        Account::Entra => (0, "stepgate"),
    };
    assert_eq!(rig.mints(), mints, "one token for reading and one for writing, where there are any");
    assert!(list.iter().all(|entry| entry["enforced_by"] == enforcer), "{list:?}");
    let reads = rig.data_requests();
    assert_eq!(reads.len(), 2, "one quick read with each: {reads:?}");
    for read in &reads {
        assert_eq!((read.operation, read.partition_key.as_deref()), (Some(Operation::Read), Some(r#"["t1"]"#)));
    }
    let records = rig.records_of(&answer);
    assert_eq!(records.len(), 1, "nothing is written, so there is no intent");
    let entry = &records[0].entry;
    assert_eq!(entry.question.action.unwrap().as_str(), "preflight");
    assert_eq!(entry.question.batch.len(), 4);
    assert_eq!(entry.question.batch[1].container.as_ref().unwrap().to_string(), "shop/orders");
    assert_eq!(entry.decision.as_ref().unwrap().verdict, Verdict::Allow);
    assert!(entry.upstream.as_ref().unwrap().request_units > 0.0);
    assert!(entry.credential.is_some());
}

#[tokio::test]
async fn an_empty_list_means_everything_held_by_name() {
    let rig = super::start().await;
    for body in ["[]", ""] {
        let answer = rig.task("fulfilment", "POST", "/preflight").body(body).send().await.expect(200).json();
        let held: Vec<&str> = answer.as_array().unwrap().iter().map(|e| e["container"].as_str().unwrap()).collect();
        assert!(held.contains(&"shop/orders") && held.contains(&"shop/audit"), "{answer}");
    }
    let two = rig.task("tenants", "POST", "/preflight").send().await.expect(200).json();
    let keys: Vec<&Value> = two.as_array().unwrap().iter().map(|entry| &entry["partition_key"]).collect();
    assert_eq!(keys, [&json!(["t1"]), &json!(["t2"]), &json!(["t1"]), &json!(["t2"])]);
    let prefix = rig.task("lines", "POST", "/preflight").send().await.expect(200).json();
    assert_eq!(
        prefix.as_array().unwrap().len(),
        2,
        "the outer part of a key names no item, and that is fine: {prefix}"
    );
    let shut = rig.task("operator", "POST", "/preflight").send().await.expect(200).json();
    let containers = shut.as_array().unwrap().iter().filter(|entry| entry["container"] == "shop/vault").count();
    assert_eq!(containers, 0, "what is denied is not held");
    rig.task("nobody", "POST", "/preflight").send().await.refused(403, "policy.denied");
}

#[tokio::test]
async fn the_first_thing_that_is_broken_is_told_as_the_request_itself_would_be() {
    let rig = super::start().await;
    let ask = async |client: &str, needs: Value| rig.task(client, "POST", "/preflight").json(&needs).send().await;
    let good = need("items/read", "shop/orders", json!(["t1"]));

    rig.call("POST", "/preflight").of_task().send().await.refused(498, "identity.invalid_workflow_token");
    rig.task("alice", "POST", "/preflight").send().await.refused(403, "identity.human");
    rig.task("fulfilment", "GET", "/preflight").send().await.refused(400, "request.unknown_operation");
    ask("fulfilment", json!({})).await.refused(400, "request.malformed");
    ask("fulfilment", json!([{ "operation": "items/*", "container": "shop/orders" }]))
        .await
        .refused(400, "request.malformed");
    ask("fulfilment", Value::Array(vec![good.clone(); 51])).await.refused(400, "request.malformed");

    let denied = ask("fulfilment", json!([good, need("items/read", "shop/orders", json!(["t2"]))])).await;
    let denied = denied.refused(403, "policy.denied");
    assert!(denied.json()["detail"].as_str().unwrap().starts_with("entry 1 of the preflight: "), "{}", denied.text());
    assert_eq!(rig.outcome(&denied).decision.unwrap().verdict, Verdict::Deny);
    ask("operator", json!([need("query", "shop/vault", json!(["t1"]))])).await.refused(403, "policy.denied");
    ask("tenants", json!([{ "operation": "query", "container": "shop/orders" }]))
        .await
        .refused(400, "request.malformed");
    ask("lines", json!([need("query", "shop/lines", json!(["t1", "l1"]))])).await.refused(403, "policy.prefix_query");
    assert_eq!((rig.mints(), rig.data_requests().len()), (0, 0), "nothing was fetched for what is denied");

    let deep = ask("operator", json!([need("items/read", "shop/orders", json!(["t1", "x"]))])).await;
    let deep = deep.refused(400, "request.malformed");
    assert!(deep.text().contains("has 2 levels, and the container's has 1"), "{}", deep.text());
    rig.cosmos().add_fault(Fault::once(Effect::Any { status: 403, substatus: None }).times(50));
    ask("fulfilment", json!([good])).await.refused(503, "credential.unavailable");
    rig.cosmos().clear_faults();
    let sdk = rig.sdk("nobody", "POST", "/preflight").send().await.expect(403);
    assert_eq!(sdk.header("x-ms-substatus"), Some("0"), "everyone else sees the status Cosmos would have sent");
    let envelope = rig.task("nobody", "POST", "/preflight").header("x-stepgate-errors", "envelope").send().await;
    assert_eq!(envelope.expect(200).json()["error"], "policy.denied");
}

#[tokio::test]
async fn a_container_that_is_not_there_is_a_404() {
    let rig = super::start().await;
    let policy = "roles: { r: { grants: [{ container: shop/absent, operations: [items/read] }] } }\n\
                  bindings: [{ role: r, workloads: [{ issuer: local, claims: { client_id: nobody } }] }]\n";
    std::fs::write(rig.file("policies/absent.yaml"), policy).unwrap();
    rig.server.reload().await;
    rig.task("nobody", "POST", "/preflight").send().await.refused(404, "cosmos.not_found");
}
