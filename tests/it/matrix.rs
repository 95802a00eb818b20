//! Every fault that the stand-in can make, on every operation: what the caller hears, how often Cosmos was asked, and what the log
//! says of it. `tests/golden/matrix.txt` is the table.

use std::{fmt::Write as _, time::Duration};

use serde_json::json;
use stepgate::{
    audit::Phase,
    dev::cosmos::{Effect, Fault, Operation},
};

use crate::{
    golden::is_golden,
    rig::{Answer, Call, Rig},
};

const DOCS: &str = "/dbs/shop/colls/orders/docs";
const ITEM: &str = "/dbs/shop/colls/orders/docs/m-1";

/// An operation, whether it is a write, and a request for it that succeeds.
type Row = (Operation, bool, for<'a> fn(&'a Rig, &str) -> Call<'a>);

fn at<'a>(rig: &'a Rig, method: &str, path: &str) -> Call<'a> {
    rig.task("operator", method, path).partition("t1")
}

const OPERATIONS: [Row; 12] = [
    (Operation::Create, true, |rig, id| at(rig, "POST", DOCS).json(&json!({"id": id, "tenant": "t1"}))),
    (Operation::Upsert, true, |rig, _| {
        let call = at(rig, "POST", DOCS).header("x-ms-documentdb-is-upsert", "True");
        call.json(&json!({"id": "m-1", "tenant": "t1"}))
    }),
    (Operation::Read, false, |rig, _| at(rig, "GET", ITEM)),
    (Operation::Replace, true, |rig, _| at(rig, "PUT", ITEM).json(&json!({"id": "m-1", "tenant": "t1"}))),
    (Operation::Replace, true, |rig, _| {
        // The etag of another time: what is asked for with it is refused, and was perhaps done before.
        let call = at(rig, "PUT", ITEM).header("x-stepgate-if-match", "\"stale\"");
        call.json(&json!({"id": "m-1", "tenant": "t1"}))
    }),
    (Operation::Patch, true, |rig, _| {
        at(rig, "PATCH", ITEM).json(&json!({"operations": [{"op": "add", "path": "/seen", "value": true}]}))
    }),
    (Operation::Delete, true, |rig, _| at(rig, "DELETE", &format!("{DOCS}/gone"))),
    (Operation::Query, false, |rig, _| at(rig, "POST", DOCS).query("SELECT * FROM c")),
    (Operation::QueryPlan, false, |rig, _| {
        let call = at(rig, "POST", DOCS).header("x-ms-cosmos-is-query-plan-request", "True");
        let call = call.header("x-ms-cosmos-supported-query-features", "Aggregate, OrderBy, Top");
        call.header("x-ms-cosmos-query-version", "1.0").query("SELECT * FROM c")
    }),
    (Operation::Feed, false, |rig, _| at(rig, "GET", DOCS)),
    (Operation::Batch, true, |rig, id| {
        let batch = at(rig, "POST", DOCS).header("x-ms-cosmos-is-batch-request", "True");
        batch.json(&json!([{"operationType": "Create", "resourceBody": {"id": id, "tenant": "t1"}}]))
    }),
    (Operation::Execute, true, |rig, _| at(rig, "POST", "/dbs/shop/colls/orders/sprocs/settle").json(&json!(["m-1"]))),
];

const fn any(status: u16, substatus: u32) -> Effect {
    Effect::Any { status, substatus: Some(substatus) }
}

const EFFECTS: [(&str, Effect); 17] = [
    ("throttle", Effect::Throttle { retry_after_ms: 1 }),
    ("delay", Effect::Delay { ms: 5 }),
    ("unavailable", Effect::Unavailable),
    ("retry_with", Effect::RetryWith),
    ("session", Effect::Session),
    ("cut_after_commit", Effect::CutAfterCommit),
    ("any 400/0", any(400, 0)),
    ("any 401/0", any(401, 0)),
    ("any 403/0", any(403, 0)),
    ("any 403/3", any(403, 3)),
    ("any 403/1008", any(403, 1008)),
    ("any 403/1014", any(403, 1014)),
    ("any 408/0", any(408, 0)),
    ("any 410/0", any(410, 0)),
    ("any 410/1002", any(410, 1002)),
    ("any 413/0", any(413, 0)),
    ("any 500/0", any(500, 0)),
];

/// What was heard, and how often Cosmos was asked; the log must say the same.
fn heard(rig: &Rig, answer: &Answer, is_write: bool) -> String {
    let asked = rig.data_requests().iter().filter(|request| request.activity_id == answer.request_id()).count();
    let records = rig.records_of(answer);
    let phases: Vec<_> = records.iter().map(|record| record.entry.phase).collect();
    let expected: &[Phase] = if is_write { &[Phase::Intent, Phase::Outcome] } else { &[Phase::Outcome] };
    assert_eq!(phases, expected, "{}", answer.text());
    let outcome = rig.outcome(answer);
    let error = outcome.answer.as_ref().unwrap().error.clone();
    assert_eq!(outcome.answer.unwrap().status, answer.status());
    assert_eq!(outcome.upstream.unwrap().attempts as usize, asked, "{}", answer.text());
    format!("{} {} x{asked}", answer.status(), error.as_deref().unwrap_or("-"))
}

async fn stack() -> Rig {
    let rig = Rig::with(|raw| raw.limits.deadline = Duration::from_secs(20)).await;
    at(&rig, "POST", DOCS).json(&json!({"id": "m-1", "tenant": "t1"})).send().await.expect(201);
    rig
}

async fn row((operation, is_write, ask): Row, conditional: bool) -> String {
    let mut rig = stack().await;
    let mut text = format!("{operation:?}{}\n", if conditional { " with a stale etag" } else { "" });
    let mut fresh = 0;
    for (name, effect) in EFFECTS {
        let mut line = format!("  {name:<18}");
        if matches!(effect, Effect::Any { status: 401 | 403, substatus: Some(0) }) {
            // How often a token is minted again depends on those before it.
            rig = stack().await;
        }
        for (when, count) in [("once", 1), ("always", 1_000)] {
            if operation == Operation::Delete {
                let gone = json!({"id": "gone", "tenant": "t1"});
                let make = at(&rig, "POST", DOCS).header("x-ms-documentdb-is-upsert", "True").json(&gone);
                assert!(make.send().await.0.status().is_success());
            }
            rig.cosmos().add_fault(Fault::once(effect).times(count).operation(operation));
            fresh += 1;
            let answer = ask(&rig, &format!("fresh-{fresh}")).send().await;
            rig.cosmos().clear_faults();
            let _ = write!(line, "  {when}: {:<38}", heard(&rig, &answer, is_write));
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[tokio::test]
async fn every_fault_on_every_operation() {
    let mut text = String::new();
    // A stack for each, so that none spends another's budget of repeats; a few at a time.
    for (chunk, some) in OPERATIONS.chunks(4).enumerate() {
        let rows = some.iter().enumerate().map(|(index, operation)| row(*operation, chunk * 4 + index == 4));
        for row in futures_util::future::join_all(rows).await {
            text += &row;
            text.push('\n');
        }
    }
    is_golden("matrix.txt", &text);
}
