//! Policies at work: what is denied never reaches Cosmos, and a new policy is taken whole or not at all.

use std::{collections::BTreeSet, fs, os::unix::fs::symlink, path::Path, sync::Arc};

use serde_json::{Value, json};
use stepgate::{
    audit::Verdict,
    dev::cosmos::{Effect, Fault, Operation},
};

use crate::rig::{ADMIN_TOKEN, EXECUTION, Rig, soon};

const DOCS: &str = "/dbs/shop/colls/orders/docs";
const ITEM: &str = "/dbs/shop/colls/orders/docs/o-1001";

#[tokio::test]
async fn what_nobody_granted_is_denied_and_never_sent() {
    let rig = super::start().await;
    let denied = [
        rig.task("fulfilment", "GET", "/dbs/finance/colls/ledger/docs/l-1").partition("a1").send().await,
        rig.task("fulfilment", "GET", "/dbs/shop/colls/orders/docs/o-2001").partition("t2").send().await,
        rig.task("fulfilment", "GET", "/dbs/shop/colls/orders/docs/o-2001?partitionKey=t2").send().await,
        rig.task("fulfilment", "POST", DOCS).partition("t2").query("SELECT * FROM c").send().await,
        rig.task("auditor", "DELETE", ITEM).partition("t1").send().await,
        rig.task("operator", "GET", "/dbs/shop/colls/vault/docs/v-1").partition("t1").send().await,
        rig.task("ledger", "PUT", "/dbs/finance/colls/ledger/docs/l-1")
            .partition("a1")
            .json(&json!({"id": "l-1"}))
            .send()
            .await,
        rig.task("nobody", "GET", ITEM).send().await,
    ];
    for answer in denied {
        let outcome = rig.outcome(&answer);
        let answer = answer.refused(403, "policy.denied");
        assert_eq!(outcome.decision.as_ref().unwrap().verdict, Verdict::Deny);
        assert!(outcome.credential.is_none() && outcome.upstream.is_none(), "{answer:?}");
    }
    let sdk = rig.sdk("fulfilment", "GET", ITEM).partition("t2").send().await.refused(403, "policy.denied");
    assert_eq!(sdk.header("x-ms-substatus"), Some("0"), "or an SDK looks for another region");
    assert!(rig.asked_for_callers().is_empty());
}

#[tokio::test]
async fn a_deny_beats_a_grant_and_is_named() {
    let rig = super::start().await;
    let answer = rig.task("operator", "GET", "/dbs/shop/colls/vault/docs/v-1").partition("t1").send().await;
    let clauses = rig.outcome(&answer).decision.unwrap().clauses;
    assert_eq!(clauses.iter().map(|clause| &*clause.name).collect::<Vec<_>>(), ["the-vault-is-shut"]);
    assert!(answer.json()["detail"].as_str().unwrap().contains("the-vault-is-shut"), "{}", answer.text());
}

#[tokio::test]
async fn a_binding_holds_a_workload_to_its_state_machine_and_states() {
    let rig = super::start().await;
    let feed = |execution: &str, state: &str| {
        let call = rig.task("reporter", "GET", DOCS).set("x-stepgate-execution", execution);
        call.set("x-stepgate-state", state).send()
    };
    let nightly = "arn:aws:states:us-east-1:111122223333:execution:ReportNightly:2026-11-22";
    feed(nightly, "CollectOrders").await.expect(200);
    feed(nightly, "DropOrders").await.refused(403, "policy.denied");
    feed(EXECUTION, "CollectOrders").await.refused(403, "policy.denied");
    let express = "arn:aws:states:us-east-1:111122223333:express:ReportNightly:run:7f3c";
    feed(express, "SumOrders").await.expect(200);
    rig.call("GET", DOCS).token("reporter").send().await.refused(403, "policy.denied");
}

#[tokio::test]
async fn a_batch_is_decided_operation_by_operation() {
    let rig = super::start().await;
    let own = json!({"operationType": "Read", "id": "o-1001"});
    let other = json!({"operationType": "Read", "id": "o-2001", "partitionKey": ["t2"]});
    let as_text = json!({"operationType": "Read", "id": "o-2001", "partitionKey": "[\"t2\"]"});
    let batch = |client: &str, operations: &Value| {
        let call = rig.task(client, "POST", DOCS).header("x-ms-cosmos-is-batch-request", "True");
        call.json(operations).send()
    };
    batch("fulfilment", &json!([own])).await.expect(200);
    for hidden in [other, as_text] {
        let answer = batch("fulfilment", &json!([own, hidden])).await.refused(403, "policy.denied");
        assert_eq!(rig.outcome(&answer).question.batch.len(), 2);
    }
    assert_eq!(rig.data_requests().len(), 1);
}

#[tokio::test]
async fn the_partition_is_filled_in_unless_it_could_be_several() {
    let rig = super::start().await;
    let answer = rig.task("tenants", "GET", ITEM).send().await.refused(400, "request.malformed");
    assert!(answer.json()["detail"].as_str().unwrap().contains(r#"["t2"]"#), "{}", answer.text());
    rig.task("tenants", "GET", ITEM).partition("t1").send().await.expect(200);
    rig.task("tenants", "GET", "/dbs/shop/colls/orders/docs/o-2001?partitionKey=t2").send().await.expect(200);
    rig.task("tenants", "GET", ITEM).partition("t3").send().await.refused(403, "policy.denied");
    rig.task("fulfilment", "GET", ITEM).send().await.expect(200);
    let sent: Vec<_> = rig.data_requests().into_iter().map(|request| request.partition_key.unwrap()).collect();
    assert_eq!(sent, [r#"["t1"]"#, r#"["t2"]"#, r#"["t1"]"#]);
}

#[tokio::test]
async fn a_grant_on_a_prefix_is_never_widened_for_a_query() {
    let rig = super::start().await;
    let docs = "/dbs/shop/colls/lines/docs";
    let query = rig.task("lines", "POST", docs).header("x-ms-documentdb-partitionkey", r#"["t1","o1"]"#);
    query.query("SELECT * FROM c").send().await.refused(403, "policy.prefix_query");
    let read = rig.task("lines", "GET", &format!("{docs}/x")).header("x-ms-documentdb-partitionkey", r#"["t1","o1"]"#);
    read.send().await.refused(404, "cosmos.not_found");
    let other = rig.task("lines", "GET", &format!("{docs}/x")).header("x-ms-documentdb-partitionkey", r#"["t2","o1"]"#);
    other.send().await.refused(403, "policy.denied");
}

/// The part `policy` of `/status`.
async fn policy(rig: &Rig) -> Value {
    let (_, status) = rig.admin("GET", "/status", None).await;
    serde_json::from_str::<Value>(&status).unwrap()["policy"].take()
}

async fn ready(rig: &Rig) -> Value {
    let (code, ready) = rig.admin("GET", "/readyz", None).await;
    assert_eq!(code, 200);
    serde_json::from_str::<Value>(&ready).unwrap()["status"].take()
}

#[tokio::test]
async fn a_reload_takes_a_good_policy_and_keeps_the_last_good_one() {
    let rig = super::start().await;
    let read = || rig.task("fulfilment", "GET", ITEM).send();
    let revision = async |answer| rig.outcome(&answer).decision.unwrap().revision.unwrap();
    let file = rig.file("policies/emergency.yaml");
    let first = revision(read().await.expect(200)).await;

    let deny = "deny:\n  - { name: stop-fulfilment, container: shop/orders, operations: [\"*\"], workloads: all }\n";
    fs::write(&file, deny).unwrap();
    rig.server.reload().await;
    let answer = read().await.refused(403, "policy.denied");
    let second = revision(answer).await;
    assert_ne!(first, second);
    assert_eq!(policy(&rig).await["running"]["revision"], &*second);

    fs::write(
        &file,
        "deny:\n  - { name: stop, container: shop/orders, operations: [items/explode], workloads: all }\n",
    )
    .unwrap();
    rig.server.reload().await;
    let answer = read().await.refused(403, "policy.denied");
    assert_eq!(revision(answer).await, second, "the last good one decides");
    let status = policy(&rig).await;
    assert_eq!(status["running"]["revision"], &*second);
    let rejected = &status["rejected"];
    assert!(rejected["error"].as_str().unwrap().contains("emergency.yaml:2:"), "{rejected}");
    assert!(rejected["since"].is_string() && rejected["revision"].is_string());
    assert_eq!(ready(&rig).await, "degraded");

    fs::remove_file(&file).unwrap();
    let (code, reloaded) = rig.admin("POST", "/reload", Some(ADMIN_TOKEN)).await;
    assert_eq!(code, 200);
    assert_eq!(serde_json::from_str::<Value>(&reloaded).unwrap()["revision"], &*first);
    assert_eq!(revision(read().await.expect(200)).await, first, "the same files are the same revision");
    assert_eq!(policy(&rig).await["rejected"], Value::Null);
    assert_eq!(ready(&rig).await, "ready");
    let (_, metrics) = rig.admin("GET", "/metrics", None).await;
    for line in [
        r#"stepgate_policy_reloads_total{result="applied"} 2"#,
        r#"stepgate_policy_reloads_total{result="rejected"} 1"#,
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
}

#[tokio::test]
async fn a_changed_directory_is_taken_in_without_being_told() {
    let rig = super::start().await;
    let deny = "deny:\n  - { name: stop-fulfilment, container: shop/orders, operations: [\"*\"], workloads: all }\n";
    fs::write(rig.file("policies/emergency.yaml"), deny).unwrap();
    soon(async || (rig.task("fulfilment", "GET", ITEM).send().await.status() == 403).then_some(())).await;
}

#[tokio::test]
async fn a_request_ends_under_the_policy_it_began_with() {
    let rig = Arc::new(super::start().await);
    rig.cosmos().add_fault(Fault::once(Effect::Delay { ms: 500 }).operation(Operation::Read));
    let held = tokio::spawn({
        let rig = rig.clone();
        async move { rig.task("fulfilment", "GET", ITEM).send().await.expect(200) }
    });
    soon(async || rig.cosmos().waiting_faults().is_empty().then_some(())).await;
    let before = policy(&rig).await["running"]["revision"].clone();
    let deny = "deny:\n  - { name: stop-fulfilment, container: shop/orders, operations: [\"*\"], workloads: all }\n";
    fs::write(rig.file("policies/emergency.yaml"), deny).unwrap();
    rig.server.reload().await;
    assert_ne!(policy(&rig).await["running"]["revision"], before);
    rig.task("fulfilment", "GET", ITEM).send().await.refused(403, "policy.denied");
    let held = rig.outcome(&held.await.unwrap()).decision.unwrap();
    assert_eq!((held.verdict, held.revision.as_deref()), (Verdict::Allow, before.as_str()));
}

/// Two files that need each other: a binding to the other set's role, or a grant under it, would show.
fn write_set(directory: &Path, name: &str) {
    fs::create_dir_all(directory).unwrap();
    let grant = |role: &str, operations: &str| {
        format!(
            "  {name}-{role}: {{ grants: [{{ container: shop/orders, partition_key: [t1], operations: [{operations}] }}] }}\n"
        )
    };
    let bind = |role: &str| {
        format!("  - {{ role: {name}-{role}, workloads: [{{ issuer: local, claims: {{ client_id: nobody }} }}] }}\n")
    };
    fs::write(directory.join("a.yaml"), format!("roles:\n{}bindings:\n{}", grant("batch", "batch"), bind("read")))
        .unwrap();
    fs::write(directory.join("b.yaml"), format!("roles:\n{}bindings:\n{}", grant("read", "items/read"), bind("batch")))
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_request_sees_a_mixture_of_two_policies() {
    let home = tempfile::tempdir().unwrap();
    for name in ["v1", "v2"] {
        write_set(&home.path().join(name), name);
    }
    let link = home.path().join("policies");
    symlink("v1", &link).unwrap();
    let rig = Arc::new(super::with(|raw| raw.policies.directory.clone_from(&link)).await);
    let done = tokio_util::sync::CancellationToken::new();
    let callers: Vec<_> = (0..4).map(|_| tokio::spawn(calls(rig.clone(), done.clone()))).collect();
    let reloading = async {
        for _ in 0..200 {
            rig.server.reload().await;
        }
        done.cancel();
    };
    tokio::join!(reloading, swaps(&rig, &link, &done));
    let mut seen = BTreeSet::new();
    for caller in callers {
        seen.extend(caller.await.unwrap());
    }
    let sets: BTreeSet<_> = seen.iter().map(|(names, _)| names.as_str()).collect();
    assert_eq!(sets, BTreeSet::from(["v1-batch v1-read", "v2-batch v2-read"]), "each under one set");
    assert_eq!(seen.len(), 2, "each set has its own revision: {seen:?}");
    let (_, metrics) = rig.admin("GET", "/metrics", None).await;
    assert!(metrics.contains(r#"stepgate_policy_reloads_total{result="rejected"} 0"#), "{metrics}");
}

/// Swaps the link to one set and the other, also while the directory is read; a round trip apart, until told to stop.
async fn swaps(rig: &Rig, link: &Path, done: &tokio_util::sync::CancellationToken) {
    for target in ["v2", "v1"].into_iter().cycle() {
        let new = link.with_file_name("new");
        symlink(target, &new).unwrap();
        fs::rename(new, link).unwrap();
        if done.is_cancelled() {
            break;
        }
        rig.admin("GET", "/livez", None).await;
    }
}

/// Sends batches, which are decided operation by operation, until told to stop; gives the clauses and the revision of each.
async fn calls(rig: Arc<Rig>, done: tokio_util::sync::CancellationToken) -> BTreeSet<(String, String)> {
    let mut answers = Vec::new();
    while !done.is_cancelled() {
        let call = rig.task("nobody", "POST", DOCS).header("x-ms-cosmos-is-batch-request", "True");
        answers.push(call.json(&json!([{"operationType": "Read", "id": "o-1001"}])).send().await.expect(200));
    }
    let records = rig.records();
    let ids: BTreeSet<_> = answers.iter().map(|answer| answer.request_id()).collect();
    let of_these = records.into_iter().filter(|record| ids.contains(&*record.entry.request_id));
    let decisions = of_these.filter_map(|record| record.entry.decision);
    decisions
        .map(|decision| {
            let names: Vec<_> = decision.clauses.iter().map(|clause| clause.name.to_string()).collect();
            (names.join(" "), decision.revision.unwrap().to_string())
        })
        .collect()
}
