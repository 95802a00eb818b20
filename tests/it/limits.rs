//! Bounds: how large, how many, how long, how much a binding may ask for, and how the gateway stops.

use std::{fs, sync::Arc, time::Duration};

use serde_json::json;
use stepgate::{
    audit::{Phase, Verdict},
    dev::cosmos::{Effect, Fault, Operation},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::rig::{Rig, TASK, soon};

const DOCS: &str = "/dbs/shop/colls/orders/docs";
const ITEM: &str = "/dbs/shop/colls/orders/docs/o-1001";

async fn connect(rig: &Rig) -> TcpStream {
    TcpStream::connect(rig.server.gateway_url().trim_start_matches("http://")).await.unwrap()
}

/// Waits until Cosmos has seen the request that the fault was meant for.
async fn struck(rig: &Rig) {
    soon(async || rig.cosmos().waiting_faults().is_empty().then_some(())).await;
}

#[tokio::test]
async fn a_body_over_two_mebibytes_is_refused() {
    let rig = super::start().await;
    let item = |size: usize| json!({"id": "large", "tenant": "t1", "filler": "x".repeat(size)});
    let post = |size: usize| rig.task("fulfilment", "POST", DOCS).json(&item(size)).send();
    post(2 << 20).await.refused(413, "cosmos.item_too_large");
    assert!(rig.data_requests().is_empty());
    post(1 << 20).await.expect(201);

    // Without a length the body is counted as it comes.
    let mut stream = connect(&rig).await;
    let token = rig.token("fulfilment");
    let head = format!(
        "POST {DOCS} HTTP/1.1\r\nhost: gateway\r\nuser-agent: {TASK}\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("{:x}\r\n{}\r\n", 1 << 16, "x".repeat(1 << 16));
    let (mut from, mut to) = stream.split();
    let mut answer = [0; 12];
    let sending = async {
        // The gateway stops reading once it has seen enough, so the last writes may fail.
        while to.write_all(chunk.as_bytes()).await.is_ok() {}
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = sending => {}
        read = from.read_exact(&mut answer) => assert_eq!(read.unwrap(), 12),
    }
    assert_eq!(&answer, b"HTTP/1.1 413");
}

#[tokio::test]
async fn one_more_than_may_be_in_flight_is_told_to_come_back() {
    let rig = Arc::new(super::with(|raw| raw.limits.concurrency = 1).await);
    rig.cosmos().add_fault(Fault::once(Effect::Delay { ms: 500 }).operation(Operation::Read));
    let slow = tokio::spawn({
        let rig = rig.clone();
        async move { rig.task("fulfilment", "GET", ITEM).send().await.expect(200) }
    });
    struck(&rig).await;
    let refused = rig.task("fulfilment", "GET", ITEM).send().await.refused(503, "gateway.overloaded");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(refused.json()["retryable"], true);
    slow.await.unwrap();
    rig.task("fulfilment", "GET", ITEM).send().await.expect(200);
}

/// Takes in a policy that binds `client` to all of shop/orders with these limits.
async fn bind(rig: &Rig, client: &str, limits: &str) {
    let text = format!(
        "roles: {{ limited: {{ grants: [{{ container: shop/orders, partition_key: [t1], operations: ['*'] }}] }} }}\n\
         bindings:\n  - role: limited\n    workloads: [{{ issuer: local, claims: {{ client_id: {client} }} }}]\n    \
         limits: {{ {limits} }}\n"
    );
    fs::write(rig.file("policies/limited.yaml"), text).unwrap();
    rig.server.reload().await;
    assert_eq!(rig.admin("GET", "/readyz", None).await.0, 200);
}

#[tokio::test]
async fn a_binding_over_its_requests_is_told_when_to_come_back() {
    let rig = super::start().await;
    bind(&rig, "nobody", "requests_per_second: 1").await;
    rig.task("nobody", "GET", ITEM).send().await.expect(200);
    let answer = rig.task("nobody", "GET", ITEM).send().await;
    let outcome = rig.outcome(&answer);
    let answer = answer.refused(429, "limit.exceeded");
    assert_eq!((answer.header("retry-after"), answer.json()["retryable"].as_bool()), (Some("1"), Some(true)));
    let wait: u64 = answer.header("x-ms-retry-after-ms").unwrap().parse().unwrap();
    assert!((1..=1000).contains(&wait), "{wait}");
    let decision = outcome.decision.unwrap();
    assert_eq!((decision.verdict, &*decision.clauses[0].name), (Verdict::Reject, "limited"));
    assert!(decision.revision.is_some() && outcome.credential.is_none() && outcome.upstream.is_none());
    assert_eq!(outcome.answer.unwrap().error.as_deref(), Some("limit.exceeded"));

    // Policy comes first: who is denied is not told of limits.
    rig.task("nobody", "GET", ITEM).partition("t2").send().await.refused(403, "policy.denied");
    rig.sdk("nobody", "GET", ITEM).send().await.expect(429);
    // Another binding has its own.
    rig.task("fulfilment", "GET", ITEM).send().await.expect(200);
    let (_, metrics) = rig.admin("GET", "/metrics", None).await;
    let line = r#"stepgate_limited_requests_total{binding="limited (limited.yaml:3)"} 2"#;
    assert!(metrics.contains(line), "{metrics}");
    assert!(metrics.contains(r#"decision="reject",status="429""#), "{metrics}");
    assert_eq!(rig.data_requests().len(), 2);
    soon(async || (rig.task("nobody", "GET", ITEM).send().await.status() == 200).then_some(())).await;
}

#[tokio::test]
async fn what_cosmos_charged_is_paid_back() {
    let rig = super::start().await;
    bind(&rig, "nobody", "request_units_per_second: 1").await;
    let item = json!({"id": "large", "tenant": "t1", "filler": "x".repeat(100_000)});
    let answer = rig.task("nobody", "POST", DOCS).json(&item).send().await.expect(201);
    let charge: f64 = answer.header("x-ms-request-charge").unwrap().parse().unwrap();
    let answer = rig.task("nobody", "GET", ITEM).send().await.refused(429, "limit.exceeded");
    let wait: f64 = answer.header("x-ms-retry-after-ms").unwrap().parse().unwrap();
    assert!(charge > 1.0 && wait <= (charge - 1.0) * 1000.0 + 1.0, "charged {charge}, wait {wait}");
    assert!(answer.json()["detail"].as_str().unwrap().contains("1 request units per second"), "{}", answer.text());
}

#[tokio::test]
async fn a_binding_has_its_places_in_flight() {
    let rig = Arc::new(super::start().await);
    bind(&rig, "nobody", "concurrency: 1").await;
    rig.cosmos().add_fault(Fault::once(Effect::Delay { ms: 500 }).operation(Operation::Read));
    let slow = tokio::spawn({
        let rig = rig.clone();
        async move { rig.task("nobody", "GET", ITEM).send().await.expect(200) }
    });
    struck(&rig).await;
    let refused = rig.task("nobody", "GET", ITEM).send().await.refused(429, "limit.exceeded");
    assert_eq!(refused.header("retry-after"), Some("1"));
    slow.await.unwrap();
    soon(async || (rig.task("nobody", "GET", ITEM).send().await.status() == 200).then_some(())).await;
}

#[tokio::test]
async fn a_reload_refills_no_bucket() {
    let rig = super::start().await;
    // A debt that lasts longer than the test.
    bind(&rig, "nobody", "request_units_per_second: 1").await;
    let item = json!({"id": "large", "tenant": "t1", "filler": "x".repeat(1 << 20)});
    rig.task("nobody", "POST", DOCS).json(&item).send().await.expect(201);
    let refused = || async { rig.task("nobody", "GET", ITEM).send().await.refused(429, "limit.exceeded") };
    refused().await;
    fs::write(rig.file("policies/another.yaml"), "deny: []\n").unwrap();
    rig.server.reload().await;
    refused().await;
    let file = rig.file("policies/limited.yaml");
    fs::write(&file, format!("# moved down a line\n{}", fs::read_to_string(&file).unwrap())).unwrap();
    rig.server.reload().await;
    refused().await;
    bind(&rig, "nobody", "request_units_per_second: 2").await;
    rig.task("nobody", "GET", ITEM).send().await.expect(200);
}

#[tokio::test]
async fn bodies_in_flight_share_their_memory() {
    let rig = super::with(|raw| raw.limits.body_memory = raw.limits.request_body).await;
    let mut stream = connect(&rig).await;
    let token = rig.token("fulfilment");
    let length = 2 << 20;
    let head = format!(
        "POST {DOCS} HTTP/1.1\r\nhost: gateway\r\nuser-agent: {TASK}\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let item = json!({"id": "m-1", "tenant": "t1"});
    let post = || rig.task("fulfilment", "POST", DOCS).header("x-ms-documentdb-is-upsert", "true").json(&item).send();
    // Once the head is read the slow body holds all there is, and for an answer there is no room either.
    soon(async || (post().await.status() == 503).then_some(())).await;
    rig.task("fulfilment", "GET", ITEM).send().await.refused(503, "gateway.overloaded");
    drop(stream);
    soon(async || (post().await.status() == 200).then_some(())).await;
}

#[tokio::test]
async fn a_slow_caller_keeps_nobody_waiting_beyond_the_deadline() {
    let rig = super::with(|raw| raw.limits.deadline = Duration::from_millis(300)).await;
    let mut stream = connect(&rig).await;
    let token = rig.token("fulfilment");
    let head = format!(
        "POST {DOCS} HTTP/1.1\r\nhost: gateway\r\nuser-agent: {TASK}\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: 100\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    tokio::time::timeout(crate::rig::PATIENCE, stream.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer, b"HTTP/1.1 504");
}

#[tokio::test]
async fn a_stop_finishes_what_is_in_flight_and_takes_nothing_new() {
    let rig = Arc::new(super::start().await);
    rig.cosmos().add_fault(Fault::once(Effect::Delay { ms: 500 }).operation(Operation::Create));
    let writing = tokio::spawn({
        let rig = rig.clone();
        let item = json!({"id": "d-1", "tenant": "t1"});
        async move { rig.task("fulfilment", "POST", DOCS).json(&item).send().await.expect(201) }
    });
    struck(&rig).await;
    rig.begin_stop();
    let address = rig.server.gateway_url().trim_start_matches("http://").to_owned();
    soon(async || TcpStream::connect(&address).await.is_err().then_some(())).await;
    let answer = writing.await.unwrap();
    assert_eq!(rig.outcome(&answer).answer.unwrap().status, 201);

    let mut rig = Arc::into_inner(rig).unwrap();
    rig.stop().await;
    let report =
        stepgate::audit::verify(&rig.log(), &stepgate::audit::Evidence::default(), stepgate::audit::Range::ALL)
            .unwrap();
    assert_eq!((report.ok, report.records, report.signed), (true, 2, 2), "the log was closed after the last answer");
}

#[tokio::test]
async fn a_drain_ends() {
    let mut rig = super::with(|raw| raw.limits.drain = Duration::from_millis(200)).await;
    rig.cosmos().add_fault(Fault::once(Effect::Delay { ms: 1_000 }).operation(Operation::Create));
    let mut stream = connect(&rig).await;
    let token = rig.token("fulfilment");
    let body = r#"{"id":"d-1","tenant":"t1"}"#;
    let length = body.len();
    let request = format!(
        "POST {DOCS} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    struck(&rig).await;
    // Whoever waits beyond the drain is cut off. The intent stands in the log, and the next start says what is known of it.
    rig.stop().await;
    assert_eq!(rig.records().pop().unwrap().entry.phase, Phase::Intent);
    let rig = rig.restart().await;
    assert_eq!(rig.records().pop().unwrap().entry.phase, Phase::Recovered);
}
