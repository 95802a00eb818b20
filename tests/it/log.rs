//! The audit log: what is written when, what is never written, and what happens when nothing can be written.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use futures_util::future::join_all;
use serde_json::json;
use stepgate::{
    access::Enforcer,
    audit::{self, Phase, UserAgentKind, Verdict},
    dev::cosmos::{Effect, Fault, Operation, WELL_KNOWN_KEY},
};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::rig::{Account, EXECUTION, Rig, TASK, soon};

const DOCS: &str = "/dbs/shop/colls/orders/docs";
const ITEM: &str = "/dbs/shop/colls/orders/docs/o-1001";
const DELAY: Effect = Effect::Delay { ms: 400 };

/// Waits until the fault has struck: Cosmos has then seen the request.
async fn struck(rig: &Rig) {
    soon(async || rig.cosmos().waiting_faults().is_empty().then_some(())).await;
}

fn phases(records: &[audit::Record]) -> Vec<Phase> {
    records.iter().map(|record| record.entry.phase).collect()
}

#[tokio::test]
async fn the_intent_of_a_write_is_on_disk_before_cosmos_sees_it() {
    let rig = Arc::new(super::start().await);
    rig.cosmos().add_fault(Fault::once(DELAY).operation(Operation::Upsert));
    let writing = tokio::spawn({
        let rig = rig.clone();
        async move {
            let call = rig.task("fulfilment", "POST", DOCS).header("x-ms-documentdb-is-upsert", "True");
            call.json(&json!({"id": "a-1", "tenant": "t1"})).send().await.expect(201)
        }
    });
    struck(&rig).await;
    let meanwhile = rig.records();
    let intent = &meanwhile.last().unwrap().entry;
    assert_eq!(phases(&meanwhile), [Phase::Intent], "and no outcome yet");
    assert_eq!(intent.question.item.as_ref().unwrap().as_str(), "a-1");
    assert_eq!(intent.decision.as_ref().unwrap().verdict, Verdict::Allow);

    let answer = writing.await.unwrap();
    let records = rig.records_of(&answer);
    assert_eq!(phases(&records), [Phase::Intent, Phase::Outcome]);
    assert_eq!(records[1].entry.answer.as_ref().unwrap().status, 201);
}

#[tokio::test]
async fn every_answer_has_one_outcome_and_every_write_one_intent() {
    let rig = super::start().await;
    let item = json!({"id": "a-1", "tenant": "t1"});
    let task = |method: &str, path: &str| rig.task("fulfilment", method, path);
    let answers = [
        (task("GET", ITEM).send().await, false),
        (task("POST", DOCS).json(&item).send().await, true),
        (task("POST", DOCS).json(&item).send().await, true),
        (task("DELETE", &format!("{DOCS}/a-1")).send().await, true),
        (task("GET", ITEM).partition("t2").send().await, false),
        (task("GET", "/dbs/shop/colls/orders").send().await, false),
        (task("GET", "/nowhere").send().await, false),
        (task("GET", ITEM).set("x-stepgate-attempt", "soon").send().await, false),
        (task("POST", DOCS).query("SELECT * FROM c").send().await, false),
        (rig.task("alice", "GET", ITEM).send().await, false),
    ];
    let known = answers.iter().filter(|(answer, _)| answer.status() != 403 || !answer.text().contains("human"));
    for (answer, is_write) in known {
        let expected: &[Phase] = if *is_write { &[Phase::Intent, Phase::Outcome] } else { &[Phase::Outcome] };
        assert_eq!(phases(&rig.records_of(answer)), expected, "{answer:?}");
        let outcome = rig.outcome(answer);
        assert_eq!(outcome.answer.unwrap().status, answer.status());
        assert_eq!(outcome.bytes_out, answer.0.body().len() as u64);
        assert_eq!(outcome.user_agent, UserAgentKind::StepFunctions);
    }
    let read = rig.outcome(&answers[0].0);
    assert_eq!(&*read.who.unwrap().subject.id, "fulfilment");
    assert_eq!(read.context.execution.unwrap().value.as_str(), EXECUTION);
    assert_eq!(read.context.state.unwrap().value.as_str(), "SaveOrder");
    assert_eq!(read.question.partition_key.unwrap().to_json(), json!(["t1"]), "as it was filled in");
    assert_eq!(&*read.decision.unwrap().clauses[0].name, "order-writer");
    let upstream = read.upstream.unwrap();
    assert_eq!((upstream.status, upstream.attempts), (Some(200), 1));
    assert!(upstream.request_units > 0.0);
    let (credential, permission) = (read.credential.unwrap(), rig.data_requests()[0].permission.clone());
    match rig.account() {
        Account::Keys => {
            assert_eq!(credential.enforced_by, Enforcer::Cosmos);
            assert!(permission.unwrap().ends_with(credential.permission_id.as_deref().unwrap()));
        }
        Account::Entra => {
            assert_eq!(
                (credential.enforced_by, credential.permission_id, permission),
                (Enforcer::Stepgate, None, None)
            );
        }
    }
}

#[tokio::test]
async fn nothing_secret_and_no_data_is_in_the_log() {
    let mut rig = super::start().await;
    let token = rig.token("fulfilment");
    let call = |method: &str, path: &str| rig.call(method, path).of_task().bearer(&token);
    let item = json!({"id": "a-1", "tenant": "t1", "note": "canary-in-a-body"});
    call("POST", DOCS).json(&item).send().await.expect(201);
    call("PUT", &format!("{DOCS}/a-1?canary-in-a-parameter=1")).json(&item).send().await.expect(200);
    let query = json!({"query": "SELECT * FROM c WHERE c.note = 'canary-in-a-query' OR c.note = @n",
        "parameters": [{"name": "@n", "value": "canary-in-a-value"}]});
    call("POST", DOCS).header("x-ms-documentdb-isquery", "True").json(&query).send().await.expect(200);
    let patch = json!([{"op": "set", "path": "/canary-in-a-path", "value": "canary-in-a-patch"}]);
    call("PATCH", &format!("{DOCS}/a-1")).json(&patch).send().await.expect(200);
    let batch = json!([{"operationType": "Upsert", "resourceBody": item}]);
    call("POST", DOCS).header("x-ms-cosmos-is-batch-request", "True").json(&batch).send().await.expect(200);
    rig.call("GET", ITEM).header("x-stepgate-token", "canary-in-a-token").send().await.expect(401);
    call("GET", ITEM).header("x-canary", "canary-in-a-header").send().await.expect(200);
    call("GET", ITEM).set("user-agent", "canary-in-an-agent").send().await.expect(200);
    rig.stop().await;

    let signature = token.rsplit('.').next().unwrap();
    for entry in fs::read_dir(rig.log()).unwrap() {
        let file = entry.unwrap().path();
        let text = String::from_utf8_lossy(&fs::read(&file).unwrap()).into_owned();
        for secret in ["canary", token.as_str(), signature, WELL_KNOWN_KEY, "type=resource", "type%3Dresource"] {
            assert!(!text.contains(secret), "{secret} is in {}", file.display());
        }
    }
}

#[tokio::test]
async fn a_caller_that_hangs_up_still_has_an_outcome() {
    let rig = super::start().await;
    rig.cosmos().add_fault(Fault::once(DELAY).operation(Operation::Create));
    let mut stream = TcpStream::connect(rig.server.gateway_url().trim_start_matches("http://")).await.unwrap();
    let body = json!({"id": "a-1", "tenant": "t1"}).to_string();
    let (token, length) = (rig.token("fulfilment"), body.len());
    let head =
        format!("POST {DOCS} HTTP/1.1\r\nhost: gateway\r\nuser-agent: {TASK}\r\nauthorization: Bearer {token}\r\n");
    let rest = format!("content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}");
    stream.write_all((head + &rest).as_bytes()).await.unwrap();
    struck(&rig).await;
    drop(stream);
    let outcome = soon(async || rig.records().into_iter().find(|record| record.entry.phase == Phase::Outcome)).await;
    assert_eq!(outcome.entry.answer.unwrap().status, 201, "the write stands, and the log says so");
}

#[tokio::test]
async fn refusals_of_strangers_are_noted_and_cannot_flood_the_log() {
    let mut rig = super::start().await;
    let strangers = join_all((0..200).map(|_| rig.call("GET", ITEM).of_task().send())).await;
    assert!(strangers.iter().all(|answer| answer.status() == 498));
    let known = rig.task("fulfilment", "GET", ITEM).send().await.expect(200);
    rig.stop().await;

    let records = rig.records();
    let of = |phase: Phase| records.iter().filter(move |record| record.entry.phase == phase);
    let counted: u64 = of(Phase::Suppressed).map(|record| record.entry.suppressed.unwrap().count).sum();
    let written = of(Phase::Refusal).count() as u64;
    assert_eq!(written + counted, 200);
    assert!((1..=60).contains(&written), "{written} written, the rest counted");
    let refusal = &of(Phase::Refusal).next().unwrap().entry;
    assert!(refusal.who.is_none() && refusal.peer.is_some());
    assert_eq!(refusal.answer.as_ref().unwrap().error.as_deref(), Some("identity.invalid_workflow_token"));
    assert_eq!(rig.outcome(&known).answer.unwrap().status, 200);
}

#[tokio::test]
async fn no_record_no_act() {
    let rig = super::start().await;
    rig.task("fulfilment", "GET", ITEM).send().await.expect(200);
    let segment = segment(&rig.log());
    fs::rename(&segment, rig.file("taken-away")).unwrap();
    let before = rig.data_requests().len();
    let item = json!({"id": "a-1", "tenant": "t1"});
    let write = rig.task("fulfilment", "POST", DOCS).json(&item).send().await.refused(503, "audit.unavailable");
    assert_eq!(write.header("retry-after"), Some("1"));
    assert_eq!(rig.data_requests().len(), before, "Cosmos saw nothing of it");
    rig.sdk("fulfilment", "GET", ITEM).send().await.refused(503, "audit.unavailable");
    let (code, ready) = rig.admin("GET", "/readyz", None).await;
    assert_eq!(code, 503);
    let ready: serde_json::Value = serde_json::from_str(&ready).unwrap();
    let audit = ready["dependencies"].as_array().unwrap().iter().find(|d| d["name"] == "audit").unwrap();
    assert_eq!(audit["state"], "down");
    assert!(audit["error"].as_str().unwrap().contains("is gone"), "{audit}");

    fs::rename(rig.file("taken-away"), &segment).unwrap();
    soon(async || (rig.task("fulfilment", "GET", ITEM).send().await.status() == 200).then_some(())).await;
    assert_eq!(rig.admin("GET", "/readyz", None).await.0, 200);
}

fn segment(log: &Path) -> std::path::PathBuf {
    let files = fs::read_dir(log).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|file| file.extension().is_some_and(|ending| ending == "jsonl")).max().unwrap()
}

#[tokio::test]
async fn the_log_verifies_and_tells_the_execution() {
    let mut rig = super::start().await;
    let task = |state: &str, attempt: &str, method: &str, path: &str| {
        let call = rig.task("fulfilment", method, path);
        call.set("x-stepgate-state", state).set("x-stepgate-attempt", attempt)
    };
    task("LoadOrder", "0", "GET", ITEM).send().await.expect(200);
    task("SaveOrder", "0", "DELETE", ITEM).partition("t2").send().await.expect(403);
    task("SaveOrder", "1", "DELETE", ITEM).send().await.expect(204);
    let other = EXECUTION.replace("run-1", "run-2");
    task("LoadOrder", "0", "GET", ITEM).set("x-stepgate-execution", &other).send().await.expect(404);
    rig.stop().await;

    let report = audit::verify(&rig.log(), &audit::Evidence::default(), audit::Range::ALL).unwrap();
    assert!(report.ok, "{:?}", report.first_bad);
    assert_eq!((report.records, report.signed), (5, 5), "a clean stop signs all");

    let trace = audit::trace(&rig.log(), "run-1").unwrap();
    assert_eq!(trace.execution, EXECUTION);
    assert_eq!(trace.workloads, ["local/fulfilment"]);
    let states: BTreeMap<_, _> =
        trace.states.iter().map(|visit| (visit.state.as_deref().unwrap(), visit.attempts.len())).collect();
    assert_eq!(states, BTreeMap::from([("LoadOrder", 1), ("SaveOrder", 2)]));
    assert_eq!((trace.totals.requests, trace.totals.allowed, trace.totals.denied), (3, 2, 1));
}

#[tokio::test]
async fn a_restart_goes_on_with_the_same_chain() {
    let rig = super::start().await;
    rig.task("fulfilment", "GET", ITEM).send().await.expect(200);
    let mut rig = rig.restart().await;
    rig.task("fulfilment", "GET", ITEM).send().await.expect(200);
    rig.stop().await;
    let report = audit::verify(&rig.log(), &audit::Evidence::default(), audit::Range::ALL).unwrap();
    assert!(report.ok, "{:?}", report.first_bad);
    let sequences: Vec<u64> = rig.records().iter().map(|record| record.sequence.0).collect();
    assert_eq!(sequences, [1, 2]);
}
