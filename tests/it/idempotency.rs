//! Writes that are done once: each operation, sent again with its key, through real sockets.

use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};
use stepgate::{
    access::{ExecutionContext, IssuerName, Subject},
    audit::Telling,
    dev::cosmos::{Effect, Fault, Operation},
    idempotency::{IDEMPOTENCY_KEY, marker_id},
};

use crate::rig::{Answer, Call, EXECUTION, MARKERS, Rig};

const DOCS: &str = "/dbs/shop/colls/orders/docs";

fn item(id: &str) -> String {
    format!("{DOCS}/{id}")
}

/// A write of the client whose grant says `idempotency: on`.
fn write<'a>(rig: &'a Rig, method: &str, path: &str, key: &str) -> Call<'a> {
    rig.task("once", method, path).partition("t1").header("idempotency-key", key)
}

/// A write past all this, which nothing keeps from being done twice.
fn meddle<'a>(rig: &'a Rig, method: &str, path: &str) -> Call<'a> {
    rig.task("operator", method, path).partition("t1")
}

async fn create(rig: &Rig) -> Answer {
    write(rig, "POST", DOCS, "k").json(&json!({ "id": "o-1", "tenant": "t1" })).send().await
}

async fn read(rig: &Rig, id: &str) -> Value {
    meddle(rig, "GET", &item(id)).send().await.expect(200).json()
}

/// What of two answers must be the same.
fn told(answer: &Answer) -> (u16, Option<&str>, String) {
    (answer.status(), answer.header("etag"), answer.text())
}

/// The writes there are, on items of their own that exist where they must.
async fn writes(rig: &Rig, tag: &str) -> Vec<(&'static str, String)> {
    let names = ["create", "upsert-new", "upsert-old", "replace", "patch", "delete", "batch"];
    for name in &names[2..] {
        let body = json!({ "id": format!("{name}-{tag}"), "tenant": "t1", "n": 10 });
        meddle(rig, "POST", DOCS).json(&body).send().await.expect(201);
    }
    names.into_iter().map(|name| (name, format!("{name}-{tag}"))).collect()
}

fn send<'a>(rig: &'a Rig, name: &str, id: &str, key: &str) -> Call<'a> {
    let body = json!({ "id": id, "tenant": "t1", "n": 11 });
    let incr = json!([{ "op": "incr", "path": "/n", "value": 1 }]);
    match name {
        "create" => write(rig, "POST", DOCS, key).json(&body),
        "upsert-new" | "upsert-old" => {
            write(rig, "POST", DOCS, key).header("x-ms-documentdb-is-upsert", "True").json(&body)
        }
        "replace" => write(rig, "PUT", &item(id), key).json(&body),
        "patch" => write(rig, "PATCH", &item(id), key).json(&incr),
        "delete" => write(rig, "DELETE", &item(id), key),
        _ => write(rig, "POST", DOCS, key).header("x-ms-cosmos-is-batch-request", "True").json(&json!([
            { "operationType": "Patch", "id": id, "resourceBody": { "operations": incr } },
            { "operationType": "Upsert", "resourceBody": { "id": format!("{id}-more"), "tenant": "t1" } },
        ])),
    }
}

/// The status each of them has the first time.
fn status(name: &str) -> u16 {
    match name {
        "create" | "upsert-new" => 201,
        "delete" => 204,
        _ => 200,
    }
}

#[tokio::test]
async fn a_write_that_is_sent_again_is_answered_as_the_first_time() {
    let rig = Rig::start().await;
    let other = rig.try_another().await.unwrap();
    for (name, id) in writes(&rig, "again").await {
        let first = send(&rig, name, &id, &id).send().await.expect(status(name));
        assert_eq!(first.header("x-stepgate-idempotency"), Some("first"), "{name}");
        // What others did since changes nothing of what the first answer was.
        if name == "delete" {
            let body = json!({ "id": id, "tenant": "t1", "n": 99 });
            meddle(&rig, "POST", DOCS).json(&body).send().await.expect(201);
        } else {
            let incr = json!([{ "op": "incr", "path": "/n", "value": 100 }]);
            meddle(&rig, "PATCH", &item(&id)).json(&incr).send().await.expect(200);
        }
        let left = read(&rig, &id).await;
        for again in [send(&rig, name, &id, &id), send(&rig, name, &id, &id).at(&other)] {
            let again = again.send().await;
            assert_eq!(told(&again), told(&first), "{name}");
            assert_eq!(again.header("x-stepgate-idempotency"), Some("repeated"), "{name}");
        }
        let again = send(&rig, name, &id, &id).send().await;
        assert_eq!(rig.outcome(&first).told, Some(Telling::First), "{name}");
        assert_eq!(rig.outcome(&again).told, Some(Telling::Repeated), "{name}");
        assert_eq!(read(&rig, &id).await, left, "{name} was done once");
    }
    let (_, metrics) = rig.admin("GET", "/metrics", None).await;
    for line in [r#"{result="first"} 7"#, r#"{result="repeated"} 14"#, r#"{result="changed"} 0"#] {
        assert!(metrics.contains(&format!("stepgate_idempotent_writes_total{line}")), "{line} in {metrics}");
    }
    let trace = stepgate::audit::trace(&rig.log(), EXECUTION).unwrap().render_text(false);
    assert_eq!(trace.matches(" repeated").count(), 14, "{trace}");
}

#[tokio::test]
async fn a_first_answer_is_what_a_point_operation_is_answered() {
    let rig = Rig::start().await;
    for (name, id) in writes(&rig, "plain").await {
        let once = send(&rig, name, &id, &id).send().await.expect(status(name));
        if name != "batch" && name != "delete" {
            assert_eq!(once.json(), read(&rig, &id).await, "{name}");
            assert_eq!(once.json()["_etag"].as_str(), once.header("etag"), "{name}");
        }
        if name == "batch" {
            assert_eq!(once.json().as_array().unwrap().len(), 2, "the marker's result is not the caller's");
            assert_eq!(once.json()[0]["resourceBody"]["n"], 11);
        }
        assert!(once.header("x-ms-session-token").is_some() && once.header("x-ms-request-charge").is_some());
        assert!(!once.text().contains("~stepgate~"), "{}", once.text());
    }
}

#[tokio::test]
async fn an_answer_that_was_lost_after_the_commit_is_found_again() {
    // Most of the time goes into the waits between repeats. STEPGATE_LOST=1000 for the figure in docs/writes.md.
    let rounds = std::env::var_os("STEPGATE_LOST").map_or(3, |rounds| rounds.to_str().unwrap().parse().unwrap());
    let rig = Rig::start().await;
    for round in 0..rounds {
        for (name, id) in writes(&rig, &format!("lost-{round}")).await {
            rig.cosmos().add_fault(Fault::once(Effect::CutAfterCommit).operation(Operation::Batch));
            let first = loop {
                let answer = send(&rig, name, &id, &id).send().await;
                // The gateway's own budget for repeats may be spent; then the workflow repeats.
                if answer.status() != 504 {
                    break answer.expect(status(name));
                }
            };
            assert_eq!(rig.cosmos().waiting_faults(), [], "the answer of {name} was lost");
            assert_eq!(first.header("x-stepgate-idempotency"), Some("repeated"), "{name}");
            match name {
                "delete" => drop(meddle(&rig, "GET", &item(&id)).send().await.expect(404)),
                "batch" => {
                    let results = first.json();
                    let told: Vec<_> = results.as_array().unwrap().iter().map(|r| r["statusCode"].clone()).collect();
                    assert_eq!(told, [200, 201]);
                    assert_eq!(results[0]["resourceBody"], read(&rig, &id).await);
                    assert_eq!(results[0]["resourceBody"]["n"], 11);
                }
                _ => {
                    assert_eq!(first.json(), read(&rig, &id).await, "{name}");
                    assert_eq!(first.json()["n"], 11, "{name} was done once");
                    assert_eq!(first.header("etag"), first.json()["_etag"].as_str(), "{name}");
                }
            }
            let again = send(&rig, name, &id, &id).send().await;
            assert_eq!(told(&again), told(&first), "{name}");
        }
    }
}

#[tokio::test]
async fn a_write_that_failed_is_not_remembered() {
    let rig = Rig::start().await;
    let body = json!({ "id": "there", "tenant": "t1" });
    meddle(&rig, "POST", DOCS).json(&body).send().await.expect(201);
    let create = || write(&rig, "POST", DOCS, "k-there").json(&body);
    create().send().await.refused(409, "cosmos.conflict");
    create().send().await.refused(409, "cosmos.conflict");
    meddle(&rig, "DELETE", &item("there")).send().await.expect(204);
    let first = create().send().await.expect(201);
    assert_eq!(told(&create().send().await), told(&first));

    let replace =
        |etag: &str| write(&rig, "PUT", &item("there"), "k-replace").header("x-stepgate-if-match", etag).json(&body);
    replace("\"none\"").send().await.refused(412, "cosmos.precondition_failed");
    let etag = read(&rig, "there").await["_etag"].as_str().unwrap().to_owned();
    replace(&etag).send().await.expect(200);
    assert_eq!(replace(&etag).send().await.expect(200).header("x-stepgate-idempotency"), Some("repeated"));
    write(&rig, "PATCH", &item("none"), "k-none")
        .json(&json!([{ "op": "set", "path": "/n", "value": 1 }]))
        .send()
        .await
        .refused(404, "cosmos.not_found");
    let batch = || {
        write(&rig, "POST", DOCS, "k-batch").header("x-ms-cosmos-is-batch-request", "True").json(&json!([
            { "operationType": "Create", "resourceBody": { "id": "new", "tenant": "t1" } },
            { "operationType": "Create", "resourceBody": body },
        ]))
    };
    let refused = batch().send().await.refused(424, "cosmos.batch_failed");
    assert!(refused.json()["detail"].as_str().unwrap().contains("operation 1 of the batch failed with 409"));
    let sdk = batch().set("user-agent", "azsdk-python-cosmos/4.9.0").send().await.expect(207);
    assert_eq!(sdk.json().as_array().unwrap().len(), 2);
    meddle(&rig, "GET", &item("new")).send().await.expect(404);
}

#[tokio::test]
async fn a_key_stands_for_one_request() {
    let rig = Rig::start().await;
    let body = |n: u32| json!({ "id": "o-1", "tenant": "t1", "n": n });
    let upsert = |n: u32| write(&rig, "POST", DOCS, "k").header("x-ms-documentdb-is-upsert", "True").json(&body(n));
    upsert(1).send().await.expect(201);
    upsert(2).send().await.refused(400, "idempotency.mismatch");
    write(&rig, "PUT", &item("o-1"), "k").json(&body(1)).send().await.refused(400, "idempotency.mismatch");
    upsert(1).header("x-stepgate-if-match", "*").send().await.refused(400, "idempotency.mismatch");
    assert_eq!(read(&rig, "o-1").await["n"], 1);
    // Another subject's key is another key.
    meddle(&rig, "DELETE", &item("o-1")).header("idempotency-key", "k").send().await.expect(204);
}

#[tokio::test]
async fn a_state_is_a_key_for_all_its_attempts() {
    let rig = Rig::start().await;
    let incr = json!([{ "op": "incr", "path": "/n", "value": 1 }]);
    meddle(&rig, "POST", DOCS).json(&json!({ "id": "c", "tenant": "t1", "n": 0 })).send().await.expect(201);
    let attempt = |headers: &[(&str, &str)]| {
        let call = rig.task("once", "PATCH", &item("c")).partition("t1").json(&incr);
        headers.iter().fold(call, |call, (name, value)| call.set(name, value)).send()
    };
    let first = attempt(&[]).await.expect(200);
    assert_eq!(told(&attempt(&[("x-stepgate-attempt", "1")]).await), told(&first));
    for (name, value) in [
        ("x-stepgate-entered", "2026-11-22T21:30:00Z"),
        ("x-stepgate-item", "0"),
        ("x-stepgate-state", "Other"),
        ("x-stepgate-execution", "arn:aws:states:eu-west-1:111122223333:execution:Fulfil:run-2"),
    ] {
        let other = attempt(&[(name, value)]).await.expect(200);
        assert_eq!(other.header("x-stepgate-idempotency"), Some("first"), "{name}");
    }
    assert_eq!(read(&rig, "c").await["n"], 5);
    let keyless = rig.sdk("once", "PATCH", &item("c")).partition("t1").json(&incr);
    let refused = keyless.send().await.expect(400);
    assert!(refused.text().contains("idempotency-key"), "{}", refused.text());
    assert_eq!(read(&rig, "c").await["n"], 5);
}

#[tokio::test]
async fn what_cannot_be_done_once_is_refused() {
    let rig = Rig::start().await;
    let delete = |at: u32| json!({ "operationType": "Delete", "id": format!("o-{at}") });
    let batch = |size: u32| {
        let operations: Vec<_> = (0..size).map(delete).collect();
        write(&rig, "POST", DOCS, "big").header("x-ms-cosmos-is-batch-request", "True").json(&json!(operations)).send()
    };
    batch(99).await.refused(424, "cosmos.batch_failed");
    batch(100).await.refused(400, "request.malformed");
    let settle = "/dbs/shop/colls/orders/sprocs/settle";
    write(&rig, "POST", settle, "k").json(&json!([1])).send().await.refused(400, "request.malformed");
    rig.task("once", "POST", settle).partition("t1").json(&json!([1])).send().await.expect(200);
    let single = json!({ "id": "s-1" });
    let refused = rig
        .task("once", "POST", "/dbs/shop/colls/singles/docs")
        .partition("s-1")
        .header("idempotency-key", "k")
        .json(&single)
        .send()
        .await
        .refused(400, "request.malformed");
    assert!(refused.text().contains("partitioned by /id"), "{}", refused.text());
    let line = json!({ "id": "l-1", "tenant": "t1", "order": 7 });
    let lines = |key: &'static str| {
        rig.task("once", "POST", "/dbs/shop/colls/lines/docs")
            .header("x-ms-documentdb-partitionkey", key)
            .header("idempotency-key", "k")
            .json(&line)
            .send()
    };
    lines(r#"["t1"]"#).await.refused(400, "request.malformed");
    lines(r#"["t1",7]"#).await.expect(201);
    assert_eq!(lines(r#"["t1",7]"#).await.expect(201).header("x-stepgate-idempotency"), Some("repeated"));
}

#[tokio::test]
async fn a_marker_is_neither_written_nor_read_by_callers() {
    let rig = Rig::start().await;
    write(&rig, "POST", DOCS, "k").json(&json!({ "id": "o-1", "tenant": "t1" })).send().await.expect(201);
    let id = format!("~stepgate~{}", "0".repeat(64));
    let marker = json!({ "id": id, "tenant": "t1" });
    let path = format!("{DOCS}/{}", id.replace('~', "%7E"));
    for call in [
        meddle(&rig, "GET", &path),
        meddle(&rig, "PUT", &path).json(&marker),
        meddle(&rig, "PUT", &item("o-1")).json(&marker),
        meddle(&rig, "PATCH", &path).json(&json!([{ "op": "set", "path": "/n", "value": 1 }])),
        meddle(&rig, "DELETE", &path),
        meddle(&rig, "POST", DOCS).json(&marker),
        meddle(&rig, "POST", DOCS).header("x-ms-documentdb-is-upsert", "True").json(&marker),
        meddle(&rig, "POST", DOCS)
            .header("x-ms-cosmos-is-batch-request", "True")
            .json(&json!([{ "operationType": "Delete", "id": id }])),
        meddle(&rig, "POST", DOCS)
            .header("x-ms-cosmos-is-batch-request", "True")
            .json(&json!([{ "operationType": "Replace", "id": "o-1", "resourceBody": marker }])),
    ] {
        call.send().await.refused(400, "request.malformed");
    }
    let rename = json!([{ "op": "set", "path": "/id", "value": id }]);
    meddle(&rig, "PATCH", &item("o-1")).json(&rename).send().await.expect(400);
}

#[tokio::test]
async fn a_marker_is_in_no_page() {
    let rig = Rig::start().await;
    for at in 0..5 {
        let body = json!({ "id": format!("p-{at}"), "tenant": "t1", "kind": "page" });
        write(&rig, "POST", DOCS, &format!("k-{at}")).json(&body).send().await.expect(201);
    }
    let ids = |answer: &Answer| -> Vec<String> {
        let page = answer.json();
        let rows: Vec<_> = page["Documents"].as_array().unwrap().iter().map(|row| row.to_string()).collect();
        assert_eq!(page["_count"], rows.len(), "the count is of what is there");
        rows
    };
    let of_page = |answer: &Answer| ids(answer).iter().filter(|row| row.contains("p-")).count();
    let query = |text: &str| meddle(&rig, "POST", DOCS).query(text).send();
    for text in ["SELECT * FROM c", "SELECT VALUE c.id FROM c", "SELECT c.id AS name FROM c ORDER BY c.id"] {
        let answer = query(text).await.expect(200);
        assert_eq!(of_page(&answer), 5, "{text}");
        assert!(!answer.text().contains("~stepgate~"), "{}", answer.text());
    }
    let feed = meddle(&rig, "GET", DOCS).send().await.expect(200);
    assert!(of_page(&feed) == 5 && !feed.text().contains("~stepgate~"), "{}", feed.text());
    let changes = meddle(&rig, "GET", DOCS).header("a-im", "Incremental Feed").send().await.expect(200);
    assert!(of_page(&changes) == 5 && !changes.text().contains("~stepgate~"), "{}", changes.text());
    // Two items are seeded in the partition; an aggregate counts the five markers, and this is how it does not.
    let count = async |text: &str| query(text).await.expect(200).json()["Documents"][0].clone();
    assert_eq!(count("SELECT VALUE COUNT(1) FROM c").await, 12);
    assert_eq!(count("SELECT VALUE COUNT(1) FROM c WHERE NOT STARTSWITH(c.id, '~stepgate~')").await, 7);
}

#[tokio::test]
async fn a_marker_that_was_not_sealed_here_is_not_believed() {
    let key = HeaderMap::from_iter([(IDEMPOTENCY_KEY, HeaderValue::from_static("forged"))]);
    let subject = Subject { issuer: IssuerName::new("local"), id: "once".into() };
    let id = marker_id(&subject, &key, &ExecutionContext::default()).unwrap();
    let answer = json!({ "status": 201, "body": "{\"paid\":true}" });
    let forged = json!({ "id": id.as_str(), "tenant": "t1", "stepgate": {
        "version": 1, "key": "0000000000000000", "fingerprint": "00", "answer": answer, "mac": "00",
    } });
    let rig = Rig::with(|raw| {
        let seed = &mut raw.dev.as_mut().unwrap().cosmos.seed;
        seed.databases[0].containers[0].items.push(forged);
    })
    .await;
    let create = write(&rig, "POST", DOCS, "forged").json(&json!({ "id": "o-1", "tenant": "t1" }));
    let refused = create.send().await.refused(502, "upstream.bad_answer");
    assert!(!refused.text().contains("paid"));
    meddle(&rig, "GET", &item("o-1")).send().await.expect(404);
}

#[tokio::test]
async fn a_marker_outlives_the_account_key_that_sealed_it() {
    let mut rig = Rig::start().await;
    let first = create(&rig).await.expect(201);
    let key = rig.cosmos().rotate_key().unwrap();
    std::fs::write(rig.file("config/emulator-account-key"), key.expose()).unwrap();
    rig.cosmos().expire_tokens();
    assert_eq!(told(&create(&rig).await), told(&first), "the process remembers the key");
    rig = rig.restart().await;
    create(&rig).await.refused(502, "upstream.bad_answer");
    assert_eq!(read(&rig, "o-1").await["id"], "o-1", "it was neither done again nor undone");
}

#[tokio::test]
async fn a_fleet_with_a_key_of_its_own_believes_its_markers_through_every_rotation() {
    let mut rig = Rig::with(|raw| {
        raw.idempotency =
            serde_json::from_value(json!({ "ttl": "2h", "key": { "kind": "file", "path": "markers" } })).unwrap();
    })
    .await;
    let first = create(&rig).await.expect(201);
    let key = rig.cosmos().rotate_key().unwrap();
    std::fs::write(rig.file("config/emulator-account-key"), key.expose()).unwrap();
    std::fs::write(rig.file("config/markers"), format!("{}\n{MARKERS}", "n".repeat(40))).unwrap();
    rig = rig.restart().await;
    assert_eq!(told(&create(&rig).await), told(&first));
}
