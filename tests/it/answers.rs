//! What callers get: one status per condition, the fixed order of refusals, and Cosmos' bad days.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stepgate::dev::cosmos::{Effect, Fault, Operation};

use crate::rig::{Answer, Call, Rig, soon};

const DOCS: &str = "/dbs/shop/colls/orders/docs";
const ITEM: &str = "/dbs/shop/colls/orders/docs/o-1001";

#[tokio::test]
async fn the_three_forms_of_a_refusal() {
    let rig = super::start().await;
    let missing = format!("{DOCS}/missing");
    let task = rig.task("fulfilment", "GET", &missing).send().await.refused(404, "cosmos.not_found");
    let body = task.json();
    assert_eq!(body["requestId"], task.request_id().as_str());
    assert_eq!(body["activityId"], task.request_id().as_str());
    assert_eq!((&body["status"], &body["retryable"], &body["code"]), (&json!(404), &json!(false), &json!("NotFound")));
    assert_eq!(body["message"], body["detail"]);

    let sdk = rig.sdk("fulfilment", "GET", &missing).send().await.expect(404);
    assert_eq!(sdk.json()["code"], "NotFound");
    assert!(sdk.json().get("error").is_none(), "an SDK sees Cosmos' own body");

    let in_envelope =
        |method: &str, path: &str| rig.task("fulfilment", method, path).header("x-stepgate-errors", "envelope");
    let failed = in_envelope("GET", &missing).send().await.expect(200).json();
    assert_eq!(
        (&failed["ok"], &failed["status"], &failed["error"]),
        (&json!(false), &json!(404), &json!("cosmos.not_found"))
    );
    let item = json!({"id": "e-1", "tenant": "t1"});
    let done = in_envelope("POST", DOCS).json(&item).send().await.expect(200).json();
    assert_eq!((&done["ok"], &done["status"], &done["body"]["id"]), (&json!(true), &json!(201), &json!("e-1")));
    assert_eq!(done["headers"]["etag"], done["body"]["_etag"]);
    let deleted = in_envelope("DELETE", &format!("{DOCS}/e-1")).send().await.expect(200).json();
    assert_eq!((&deleted["status"], &deleted["body"]), (&json!(204), &Value::Null));
    rig.call("GET", ITEM)
        .header("x-stepgate-errors", "envelope")
        .send()
        .await
        .refused(498, "identity.invalid_workflow_token");
    let call = rig.call("GET", ITEM).header("x-stepgate-errors", "envelope").bearer("not-a-jwt");
    call.send().await.refused(401, "identity.invalid_token");
}

#[tokio::test]
async fn the_order_of_refusals_is_fixed() {
    let rig = super::start().await;
    // Each request mends the first thing that is wrong with the one before.
    fn bad_form(call: Call<'_>) -> Call<'_> {
        call.set("x-stepgate-errors", "loud")
    }
    fn bad_context(call: Call<'_>) -> Call<'_> {
        call.set("x-stepgate-execution", "run-1")
    }
    let bad_route = "/dbs/shop/colls/orders/triggers";

    let answer = bad_form(bad_context(rig.call("POST", bad_route).of_task())).send().await;
    answer.refused(400, "request.malformed");
    let answer = bad_context(rig.call("POST", bad_route).of_task()).send().await;
    answer.refused(498, "identity.invalid_workflow_token");
    let answer = bad_context(rig.call("POST", bad_route).of_task()).bearer("forged").send().await;
    answer.refused(401, "identity.invalid_token");
    let answer = bad_context(rig.task("alice", "POST", bad_route)).send().await;
    answer.refused(403, "identity.human");
    let answer = bad_context(rig.task("ledger", "POST", bad_route)).send().await.refused(400, "request.malformed");
    assert!(answer.json()["detail"].as_str().unwrap().contains("x-stepgate-execution"), "{}", answer.text());
    let answer = rig.task("ledger", "POST", bad_route).send().await;
    answer.refused(400, "request.unknown_operation");
    let answer = rig.task("ledger", "POST", DOCS).body("{").send().await.refused(400, "request.malformed");
    assert!(answer.json()["detail"].as_str().unwrap().contains("body"), "{}", answer.text());
    rig.task("ledger", "POST", DOCS).json(&json!({"id": "a"})).send().await.refused(403, "policy.denied");
    assert!(rig.asked_for_callers().is_empty());
}

#[tokio::test]
async fn what_could_change_the_operation_is_refused_and_not_dropped() {
    let rig = super::start().await;
    let item = json!({"id": "a", "tenant": "t1"});
    for headers in [
        &[("x-http-method", "DELETE")][..],
        &[("x-http-method-override", "DELETE")],
        &[("x-ms-documentdb-pre-trigger-include", "t")],
        &[("x-ms-documentdb-post-trigger-include", "t")],
        &[("x-ms-documentdb-is-upsert", "True"), ("x-ms-documentdb-is-upsert", "False")],
        &[("x-ms-documentdb-is-upsert", "yes")],
        &[("x-ms-documentdb-is-upsert", "True"), ("x-ms-documentdb-isquery", "True")],
        &[("x-ms-documentdb-is-upsert", "True"), ("x-ms-cosmos-is-batch-request", "True")],
        &[("content-type", "application/query+json")],
        &[("x-ms-documentdb-partitionkey", r#"["t1"]"#), ("x-ms-documentdb-partitionkey", r#"["t2"]"#)],
        &[("x-ms-documentdb-partitionkey", "t1")],
        &[("if-match", "\"1\""), ("x-stepgate-if-match", "\"2\"")],
    ] {
        let call = headers.iter().fold(rig.task("operator", "POST", DOCS), |call, (n, v)| call.header(n, v));
        call.json(&item).send().await.refused(400, "request.malformed");
    }
    for path in [
        "/dbs/shop/colls/orders/docs/%2e%2e",
        "/dbs/shop/colls/orders/docs/a%2Fb",
        "/dbs/shop//colls/orders/docs",
        "/dbs/shop/colls/or%ff/docs",
    ] {
        let answer = rig.task("operator", "GET", path).send().await.expect(400);
        assert!(answer.text().contains("request."), "{path}");
    }
    let two = format!("{ITEM}?partitionKey=t2");
    rig.task("operator", "GET", &two).partition("t1").send().await.refused(400, "request.malformed");
    let bulk = rig.task("operator", "POST", DOCS).header("x-ms-cosmos-is-batch-request", "True");
    let bulk = bulk.header("x-ms-cosmos-batch-atomic", "False").header("x-ms-cosmos-batch-continue-on-error", "True");
    let create = json!([{"operationType": "Create", "resourceBody": item}]);
    bulk.json(&create).send().await.refused(400, "request.malformed");
    let twice = r#"[{"operationType":"Read","operationType":"Delete","id":"o-1001"}]"#;
    let batch = rig.task("operator", "POST", DOCS).header("x-ms-cosmos-is-batch-request", "True").partition("t1");
    batch.body(twice).send().await.refused(400, "request.malformed");
    assert!(rig.data_requests().is_empty());
}

async fn read(rig: &Rig) -> Answer {
    rig.task("fulfilment", "GET", ITEM).send().await
}

async fn write(rig: &Rig, id: &str) -> Answer {
    let call = rig.task("fulfilment", "POST", DOCS).header("x-ms-documentdb-is-upsert", "True");
    call.json(&json!({"id": id, "tenant": "t1"})).send().await
}

async fn create(rig: &Rig, id: &str) -> Answer {
    rig.task("fulfilment", "POST", DOCS).json(&json!({"id": id, "tenant": "t1"})).send().await
}

fn attempts(rig: &Rig, answer: &Answer) -> u32 {
    rig.outcome(answer).upstream.unwrap().attempts
}

#[tokio::test]
async fn what_passes_is_waited_out_and_counted() {
    let rig = super::start().await;
    for effect in [Effect::Throttle { retry_after_ms: 5 }, Effect::RetryWith, Effect::Session, Effect::Unavailable] {
        rig.cosmos().add_fault(Fault::once(effect).times(2));
        let answer = read(&rig).await.expect(200);
        assert_eq!(attempts(&rig, &answer), 3, "{effect:?}");
        rig.cosmos().add_fault(Fault::once(effect).times(2));
        let answer = write(&rig, "w-1").await;
        assert!(answer.0.status().is_success(), "none of these did the write: {answer:?}");
        assert_eq!(attempts(&rig, &answer), 3, "{effect:?}");
    }
    let mut sent: Vec<_> = rig.data_requests().into_iter().map(|request| request.activity_id).collect();
    sent.dedup();
    assert_eq!(sent.len(), 8, "every attempt of a request has the request's id");
}

#[tokio::test]
async fn what_does_not_pass_has_a_status_of_its_own() {
    let rig = super::with(|raw| raw.limits.deadline = Duration::from_secs(3)).await;
    let strike = |effect| rig.cosmos().add_fault(Fault::once(effect).times(30));
    let any = |status, substatus| Effect::Any { status, substatus: Some(substatus) };
    for (effect, status, error, sdk) in [
        (Effect::Throttle { retry_after_ms: 60_000 }, 429, "cosmos.throttled", (429, Some("3200"))),
        (Effect::RetryWith, 503, "cosmos.retry_later", (449, None)),
        (Effect::Session, 425, "cosmos.session_not_available", (404, Some("1002"))),
        (Effect::Unavailable, 503, "upstream.unavailable", (503, None)),
        (any(403, 1014), 507, "cosmos.partition_full", (403, Some("1014"))),
        (any(413, 0), 413, "cosmos.item_too_large", (413, Some("0"))),
        (any(400, 1001), 422, "cosmos.partition_key_mismatch", (400, Some("1001"))),
        (any(400, 0), 400, "cosmos.bad_request", (400, Some("0"))),
        (any(410, 0), 503, "cosmos.retry_later", (410, Some("0"))),
        (any(500, 0), 502, "upstream.bad_answer", (500, Some("0"))),
    ] {
        strike(effect);
        let task = read(&rig).await.refused(status, error);
        assert_eq!(task.json()["retryable"], json!([425, 429, 502, 503].contains(&status)), "{error}");
        if status == 429 {
            assert_eq!((task.header("retry-after"), task.header("x-ms-retry-after-ms")), (Some("60"), Some("60000")));
            assert_eq!(attempts(&rig, &task), 1, "the deadline is nearer than the wait");
        }
        let answer = rig.sdk("fulfilment", "GET", ITEM).send().await;
        assert_eq!((answer.status(), answer.header("x-ms-substatus")), sdk, "{error}");
        rig.cosmos().clear_faults();
    }
    for status in [408, 410, 500] {
        strike(any(status, 0));
        let answer = create(&rig, "c-1").await.refused(504, "upstream.timeout");
        assert!(answer.json()["detail"].as_str().unwrap().contains("may or may not have happened"));
        let upstream = rig.outcome(&answer).upstream.unwrap();
        assert_eq!((upstream.status, upstream.attempts), (Some(status), 1), "what may have happened is not repeated");
        rig.cosmos().clear_faults();
    }
}

#[tokio::test]
async fn a_write_in_doubt_is_a_504_unless_it_may_be_repeated() {
    let rig = super::start().await;
    rig.cosmos().add_fault(Fault::once(Effect::CutAfterCommit).operation(Operation::Create));
    let answer = create(&rig, "w-1").await.refused(504, "upstream.timeout");
    assert!(answer.json()["detail"].as_str().unwrap().contains("may or may not have happened"));
    let item = format!("{DOCS}/w-1");
    let outcome = rig.outcome(&answer);
    assert_eq!(outcome.upstream.map(|upstream| (upstream.status, upstream.attempts)), Some((None, 1)));
    rig.task("fulfilment", "GET", &item).send().await.expect(200);

    rig.cosmos().add_fault(Fault::once(Effect::CutAfterCommit).operation(Operation::Read));
    let answer = read(&rig).await.expect(200);
    assert_eq!(attempts(&rig, &answer), 2, "a read is safe to repeat");

    rig.cosmos().add_fault(Fault::once(Effect::CutAfterCommit).operation(Operation::Upsert));
    let answer = write(&rig, "w-1").await.expect(200);
    assert_eq!(attempts(&rig, &answer), 2, "an upsert leaves the same, however often");
    let delete = || rig.task("operator", "DELETE", &item).partition("t1");
    let item_etag = rig.task("operator", "GET", &item).partition("t1").send().await.header("etag").unwrap().to_owned();
    rig.cosmos().add_fault(Fault::once(Effect::CutAfterCommit).operation(Operation::Delete));
    let answer = delete().header("x-stepgate-if-match", &item_etag).send().await.refused(504, "upstream.timeout");
    assert_eq!(attempts(&rig, &answer), 2, "what the repeat no longer finds, the first may have deleted");
    delete().send().await.refused(404, "cosmos.not_found");
}

#[tokio::test]
async fn the_deadline_holds_and_is_told() {
    let rig = super::with(|raw| raw.limits.deadline = Duration::from_millis(400)).await;
    rig.cosmos().add_fault(Fault::once(Effect::Delay { ms: 3_000 }).operation(Operation::Upsert));
    let answer = write(&rig, "w-1").await.refused(504, "upstream.timeout");
    assert_eq!(rig.outcome(&answer).answer.unwrap().status, 504);
    rig.cosmos().add_fault(Fault::once(Effect::Delay { ms: 3_000 }).operation(Operation::Read));
    rig.sdk("fulfilment", "GET", ITEM).send().await.refused(408, "upstream.timeout");
}

#[tokio::test]
async fn a_caller_may_wait_less_long() {
    let rig = super::start().await;
    rig.cosmos().add_fault(Fault::once(Effect::Delay { ms: 5_000 }).operation(Operation::Read));
    let began = Instant::now();
    let read = |wait: &str| rig.task("fulfilment", "GET", ITEM).header("x-stepgate-deadline", wait).send();
    read("300ms").await.refused(504, "upstream.timeout");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    rig.cosmos().add_fault(Fault::once(Effect::Throttle { retry_after_ms: 4_000 }).operation(Operation::Read));
    let answer = read("2s").await.refused(429, "cosmos.throttled");
    assert_eq!(answer.header("retry-after"), Some("4"));
    let answer = read("soon").await.refused(400, "request.malformed");
    assert!(answer.json()["detail"].as_str().unwrap().contains("x-stepgate-deadline"), "{}", answer.text());
    read("55").await.expect(200);
}

#[tokio::test]
async fn cosmos_that_is_not_there_is_a_503_and_nothing_was_done() {
    let rig = super::start().await;
    read(&rig).await.expect(200);
    write(&rig, "w-1").await.expect(201);
    rig.stack.cosmos.stop().await;
    // A pooled connection may break once; a fresh one is refused.
    soon(async || (write(&rig, "w-2").await.error() == (503, "upstream.unavailable".into())).then_some(())).await;
    read(&rig).await.refused(503, "upstream.unavailable");
}

#[tokio::test]
async fn what_no_state_can_hold_never_leaves_for_a_workflow() {
    let rig = super::start().await;
    let item = |id: String, size: usize| json!({"id": id, "tenant": "big", "filler": "x".repeat(size)});
    let upsert = |item: &Value| rig.sdk("operator", "POST", DOCS).partition("big").json(item);
    for n in 0..10 {
        upsert(&item(format!("s-{n}"), 30 * 1024)).send().await.expect(201);
    }
    fn list(call: Call<'_>) -> Call<'_> {
        call.partition("big").query("SELECT * FROM c")
    }
    let sdk = list(rig.sdk("operator", "POST", DOCS)).send().await.expect(200);
    assert_eq!(sdk.json()["_count"], 10);
    assert!(sdk.0.body().len() > 300 * 1024, "others get the page they asked for");

    let mut seen = 0;
    let mut continuation: Option<String> = None;
    loop {
        let call = list(rig.task("operator", "POST", DOCS));
        let call = continuation.iter().fold(call, |call, token| call.header("x-ms-continuation", token));
        let page = call.send().await.expect(200);
        assert!(page.0.body().len() < 262_144);
        seen += page.json()["Documents"].as_array().unwrap().len();
        continuation = page.header("x-ms-continuation").map(str::to_owned);
        if continuation.is_none() {
            break;
        }
    }
    assert_eq!(seen, 10, "in smaller pages, but all of it");
    let feed = rig.task("operator", "GET", DOCS).partition("big").send().await.expect(200);
    assert!(feed.0.body().len() < 262_144 && feed.header("x-ms-continuation").is_some());

    let large = item("l-1".into(), 300 * 1024);
    let echo = rig.task("operator", "POST", DOCS).partition("big").json(&large).send().await.expect(201);
    assert!(echo.0.body().len() < 1024 && echo.header("etag").is_some(), "{}", echo.text());
    let path = format!("{DOCS}/l-1");
    rig.task("operator", "GET", &path).partition("big").send().await.refused(413, "response.too_large");
    let whole = rig.sdk("operator", "GET", &path).partition("big").send().await.expect(200);
    assert!(whole.0.body().len() > 300 * 1024, "the write stands");
    let envelope = rig.call("GET", &path).token("operator").partition("big").header("x-stepgate-errors", "envelope");
    let envelope = envelope.send().await.expect(200).json();
    assert_eq!((&envelope["ok"], &envelope["status"]), (&json!(false), &json!(413)));
}
