//! Bounds: how large, how many, how long, and how the gateway stops.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use stepgate::{
    audit::Phase,
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
    let rig = Rig::start().await;
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
    let rig = Arc::new(Rig::with(|raw| raw.limits.concurrency = 1).await);
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

#[tokio::test]
async fn bodies_in_flight_share_their_memory() {
    let rig = Rig::with(|raw| raw.limits.body_memory = raw.limits.request_body).await;
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
    // Once the head is read the slow body holds all there is; who has no body is not concerned.
    soon(async || (post().await.status() == 503).then_some(())).await;
    rig.task("fulfilment", "GET", ITEM).send().await.expect(200);
    drop(stream);
    soon(async || (post().await.status() == 200).then_some(())).await;
}

#[tokio::test]
async fn a_slow_caller_keeps_nobody_waiting_beyond_the_deadline() {
    let rig = Rig::with(|raw| raw.limits.deadline = Duration::from_millis(300)).await;
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
    let rig = Arc::new(Rig::start().await);
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
    let report = stepgate::audit::verify(&rig.log(), &stepgate::audit::Evidence::default()).unwrap();
    assert_eq!((report.ok, report.records, report.signed), (true, 2, 2), "the log was closed after the last answer");
}

#[tokio::test]
async fn a_drain_ends() {
    let mut rig = Rig::with(|raw| raw.limits.drain = Duration::from_millis(200)).await;
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
