use super::*;
use crate::dev::cosmos::{Effect, Fault, On, Operation};

const FAULTS: &str = "/_stepgate/faults";
const DOCS: &str = "/dbs/shop/colls/orders/docs";
const ONE: &str = "/dbs/shop/colls/orders/docs/1";
const A: (&str, &str) = (header::PARTITION_KEY, r#"["a"]"#);

async fn order(stand: &Stand, body: Value) -> Answer {
    stand.ask(By::Nothing, "POST", FAULTS, &[], body).await
}

async fn read(stand: &Stand) -> Answer {
    stand.ask(By::Key, "GET", ONE, &[A], Value::Null).await
}

#[tokio::test]
async fn a_throttle_strikes_as_often_as_it_was_asked_to() {
    let stand = Stand::new().await;
    order(&stand, json!({ "kind": "throttle", "count": 2, "retry_after_ms": 7 })).await.expect(200);
    stand.get("/dbs/shop/colls/orders").await.expect(200);
    for _ in 0..2 {
        let answer = read(&stand).await.expect(429);
        assert_eq!((answer.substatus(), answer.header(header::RETRY_AFTER)), (3200, Some("7")));
    }
    read(&stand).await.expect(200);
}

#[tokio::test]
async fn a_fault_never_hides_a_refusal() {
    let stand = Stand::new().await;
    stand.cosmos.add_fault(Fault::once(Effect::Unavailable));
    stand.ask(By::Nothing, "GET", ONE, &[A], Value::Null).await.expect(401);
    read(&stand).await.expect(503);
}

#[tokio::test]
async fn faults_choose_their_requests() {
    let stand = Stand::new().await;
    stand.cosmos.add_fault(Fault::once(Effect::Session).operation(Operation::Query));
    stand.cosmos.add_fault(Fault::once(Effect::RetryWith).on(On::Permissions));
    stand.cosmos.add_fault(Fault::once(Effect::Any { status: 410, substatus: Some(1002) }).on(On::Metadata));
    order(&stand, json!({ "kind": "any", "status": 403, "substatus": 1014, "path": "/dbs/shop/colls/deep" }))
        .await
        .expect(200);
    read(&stand).await.expect(200);
    let headers: Vec<_> = QUERY.iter().copied().chain([A]).collect();
    let query = json!({ "query": "SELECT * FROM c" });
    assert_eq!(stand.ask(By::Key, "POST", DOCS, &headers, query).await.expect(404).substatus(), 1002);
    stand.get("/dbs/shop/users").await.expect(449);
    assert_eq!(stand.get("/").await.expect(410).substatus(), 1002);
    let key = [partition(r#"["a","x"]"#)];
    let full = stand.ask(By::Key, "GET", "/dbs/shop/colls/deep/docs/1", &key, Value::Null).await.expect(403);
    assert_eq!(full.substatus(), 1014);
    assert!(stand.cosmos.waiting_faults().is_empty());
}

#[tokio::test]
async fn a_cut_after_commit_leaves_the_write_and_no_answer() {
    let stand = Stand::new().await;
    order(&stand, json!({ "kind": "cut_after_commit", "operation": "create" })).await.expect(200);
    let item = json!({ "id": "cut", "tenant": "a" });
    let cut = stand.try_ask(By::Key, "POST", DOCS, &[A], item).await;
    assert!(cut.is_err_and(|error| !error.is_connect()));
    stand.ask(By::Key, "GET", "/dbs/shop/colls/orders/docs/cut", &[A], Value::Null).await.expect(200);
    assert!(stand.cosmos.recorded().iter().any(|seen| seen.status == 0 && seen.operation == Some(Operation::Create)));
}

#[tokio::test]
async fn faults_are_listed_and_called_off() {
    let stand = Stand::new().await;
    order(&stand, json!({ "kind": "delay", "ms": 3_600_000 })).await.expect(200);
    let list = stand.ask(By::Nothing, "GET", FAULTS, &[], Value::Null).await.expect(200);
    assert_eq!(list.body["faults"], json!([{ "kind": "delay", "ms": 3_600_000, "count": 1, "on": "data" }]));
    stand.ask(By::Nothing, "DELETE", FAULTS, &[], Value::Null).await.expect(200);
    read(&stand).await.expect(200);
    order(&stand, json!({ "kind": "throttel" })).await.expect(400);
    order(&stand, json!({ "kind": "throttle", "oeration": "query" })).await.expect(400);
    stand.ask(By::Nothing, "GET", "/_stepgate/nothing", &[], Value::Null).await.expect(404);
}

#[tokio::test]
async fn the_admin_paths_turn_the_clock_the_key_and_the_tokens() {
    let stand = Stand::new().await;
    let token = stand.token(json!({ "permissionMode": "Read", "resource": "dbs/shop/colls/orders" })).await;
    order(&stand, json!({ "kind": "expire_tokens" })).await.expect(200);
    stand.ask(By::Header(&token), "GET", ONE, &[A], Value::Null).await.expect(403);
    let moved = stand.ask(By::Nothing, "POST", "/_stepgate/clock", &[], json!({ "advance_s": 60 })).await.expect(200);
    assert_eq!(moved.body["now"], "2026-11-22T19:30:22.000Z");
    let key = order(&stand, json!({ "kind": "rotate_key" })).await.expect(200).body["account_key"].clone();
    read(&stand).await.expect(401);
    let header = signed(key.as_str().unwrap(), "GET", ONE, &stand.date());
    stand.ask(By::Header(&header), "GET", ONE, &[A], Value::Null).await.expect(200);
    let seen = stand.ask(By::Nothing, "GET", "/_stepgate/requests", &[], Value::Null).await.expect(200);
    assert_eq!(seen.body["requests"].as_array().unwrap().len(), stand.cosmos.recorded().len());
    assert_eq!(seen.body["mints"], json!([{ "user": "u0", "permission": "p", "count": 1 }]));
}
