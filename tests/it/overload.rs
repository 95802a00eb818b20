//! More than there is room for: a binding that asks for ten times its share, callers that dawdle, and heads without end.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;
use stepgate::dev::cosmos::{Effect, Fault, Operation};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

use crate::rig::{PATIENCE, Rig, TASK, soon};

const DOCS: &str = "/dbs/shop/colls/orders/docs";
const ITEM: &str = "/dbs/shop/colls/orders/docs/o-1001";

/// A container of 400 request units a second, and a binding for each of four clients, of which one is noisy.
async fn crowded() -> Rig {
    let rig = Rig::with(|raw| {
        raw.dev.as_mut().unwrap().cosmos.seed.databases[0].containers[0].throughput = Some(400);
    })
    .await;
    let mut text =
        "roles: { all: { grants: [{ container: shop/orders, operations: ['*'] }] } }\nbindings:\n".to_owned();
    for client in ["ledger", "reporter", "auditor", "nobody"] {
        text += &format!("  - {{ role: all, workloads: [{{ issuer: local, claims: {{ client_id: {client} }} }}] }}\n");
    }
    fs::write(rig.file("policies/crowd.yaml"), text).unwrap();
    rig.server.reload().await;
    rig
}

/// Asks `times` times, once every `pace`, whatever comes of those before; how many succeeded within ten seconds each.
async fn ask(rig: &Arc<Rig>, client: &'static str, pace: Duration, times: u32) -> u32 {
    let done = Arc::new(AtomicU32::new(0));
    let mut asked = JoinSet::new();
    let mut clock = tokio::time::interval(pace);
    for n in 0..times {
        clock.tick().await;
        let (rig, done) = (rig.clone(), done.clone());
        asked.spawn(async move {
            let item = json!({"id": format!("{client}-{}", n % 50), "tenant": client});
            let call = rig.task(client, "POST", DOCS).partition(client).header("x-ms-documentdb-is-upsert", "True");
            let answer = call.header("x-stepgate-deadline", "10s").json(&item).send().await;
            if answer.0.status().is_success() {
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    while let Some(ended) = asked.join_next().await {
        ended.unwrap();
    }
    done.load(Ordering::Relaxed)
}

#[tokio::test]
async fn a_noisy_binding_does_not_take_the_others_goodput() {
    let rig = Arc::new(crowded().await);
    // A write costs about seven units: the container takes some fifty a second, and each of four bindings has a share of twelve.
    let quiet = Duration::from_millis(160);
    let times = 40;
    let (noise, one, two, three) = tokio::join!(
        ask(&rig, "nobody", quiet / 20, times * 20),
        ask(&rig, "ledger", quiet, times),
        ask(&rig, "reporter", quiet, times),
        ask(&rig, "auditor", quiet, times),
    );
    let (_, metrics) = rig.admin("GET", "/metrics", None).await;
    let shown: Vec<_> = metrics
        .lines()
        .filter(|line| line.contains("container=\"shop/orders\"") && !line.contains("requests_total{op"))
        .collect();
    assert!(noise < times * 20, "the noise was too much for the container: {noise}");
    for (client, done) in [("ledger", one), ("reporter", two), ("auditor", three)] {
        assert!(done * 100 >= times * 95, "{client} {done} of {times}, noise {noise}: {shown:#?}");
    }
}

#[tokio::test]
async fn who_would_wait_in_vain_is_told_to_come_back() {
    let rig = Arc::new(Rig::with(|raw| raw.limits.concurrency = 8).await);
    // At most half of what may be in flight is at one container.
    rig.cosmos().add_fault(Fault::once(Effect::Delay { ms: 1_500 }).operation(Operation::Read).times(100));
    let mut held = JoinSet::new();
    for _ in 0..4 {
        let rig = rig.clone();
        held.spawn(async move { rig.task("fulfilment", "GET", ITEM).send().await.expect(200) });
    }
    let status =
        async || serde_json::from_str::<serde_json::Value>(&rig.admin("GET", "/status", None).await.1).unwrap();
    soon(async || (status().await["containers"][0]["in_flight"] == 4).then_some(())).await;
    let began = Instant::now();
    let wait = rig.task("fulfilment", "GET", ITEM).header("x-stepgate-deadline", "300ms").send().await;
    let wait = wait.refused(503, "gateway.overloaded");
    assert_eq!(wait.header("retry-after"), Some("1"));
    assert!(began.elapsed() < Duration::from_millis(1_400), "{:?}", began.elapsed());
    assert!(rig.outcome(&wait).upstream.is_none() && rig.records_of(&wait).len() == 1, "nothing was sent");
    while let Some(ended) = held.join_next().await {
        ended.unwrap();
    }
    assert_eq!(status().await["containers"][0]["shed"], 1);
}

async fn connect(rig: &Rig) -> TcpStream {
    TcpStream::connect(rig.server.gateway_url().trim_start_matches("http://")).await.unwrap()
}

/// All that comes until the other side closes.
async fn to_end(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset ends it as well as a close.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("it is closed");
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn a_head_that_does_not_come_is_not_waited_for() {
    let rig = Rig::with(|raw| raw.limits.read_timeout = Duration::from_millis(300)).await;
    let began = Instant::now();
    let mut slow = Vec::new();
    for _ in 0..50 {
        let mut stream = connect(&rig).await;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: gateway\r\nx-slow: ").await.unwrap();
        slow.push(stream);
    }
    rig.task("fulfilment", "GET", ITEM).send().await.expect(200);
    for stream in slow {
        let answer = to_end(stream).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    }
    assert!(began.elapsed() < Duration::from_secs(10));
    assert!(rig.cosmos().recorded().iter().filter(|request| request.operation.is_some()).count() == 1);
}

#[tokio::test]
async fn a_head_without_end_is_refused() {
    let rig = Rig::start().await;
    let mut large = connect(&rig).await;
    let head = format!("GET {ITEM} HTTP/1.1\r\nhost: gateway\r\nx-large: {}\r\n\r\n", "x".repeat(80 * 1024));
    // It may be refused before all of it is sent.
    let _ = large.write_all(head.as_bytes()).await;
    let answer = to_end(large).await;
    assert!(answer.starts_with("HTTP/1.1 431") || answer.is_empty(), "{answer}");
    // With `host` and `connection` a hundred headers, of which none is a token; and one more.
    for (more, status) in [(98, 401), (99, 431)] {
        let mut many = connect(&rig).await;
        let headers: String = (0..more).map(|n| format!("x-many-{n}: 1\r\n")).collect();
        let head = format!("GET {ITEM} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n{headers}\r\n");
        let _ = many.write_all(head.as_bytes()).await;
        let answer = to_end(many).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
    rig.task("fulfilment", "GET", ITEM).send().await.expect(200);
}

#[tokio::test]
async fn a_body_that_dawdles_is_refused() {
    let rig = Rig::with(|raw| raw.limits.read_timeout = Duration::from_millis(300)).await;
    let token = rig.token("fulfilment");
    let mut stream = connect(&rig).await;
    let head = format!(
        "POST {DOCS} HTTP/1.1\r\nhost: gateway\r\nuser-agent: {TASK}\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: 100\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 400");
}

#[tokio::test]
async fn answers_in_flight_share_the_memory() {
    let rig = Rig::with(|raw| raw.limits.body_memory = raw.limits.request_body).await;
    let large = json!({"id": "large", "tenant": "t1", "filler": "x".repeat(700_000)});
    rig.sdk("fulfilment", "POST", DOCS).json(&large).send().await.expect(201);
    let read = || rig.sdk("fulfilment", "GET", &format!("{DOCS}/large")).send();
    read().await.expect(200);
    // A caller that has begun to send a body, and does not go on, holds a part of what there is.
    let mut stream = connect(&rig).await;
    let token = rig.token("fulfilment");
    let head = format!(
        "POST {DOCS} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: 1700000\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    soon(async || (read().await.status() == 503).then_some(())).await;
    read().await.refused(503, "gateway.overloaded");
    rig.task("fulfilment", "GET", ITEM).send().await.expect(200);
    drop(stream);
    soon(async || (read().await.status() == 200).then_some(())).await;
}
