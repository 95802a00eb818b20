use std::sync::atomic::AtomicU32;

use http::HeaderMap;

use super::*;
use crate::{
    access::{Action, ContainerName, Enforcer, IssuerName, Operation, PermissionMode, Subject},
    clock::{ManualClock, Timestamp},
    exchange::scripted::{Reply, Scripted, Seen},
    policy::{Permit, Scope},
    upstream::RangeAddressing,
};

const READ: Action = Action::Operation(Operation::ItemsRead);
const UPSERT: Action = Action::Operation(Operation::ItemsUpsert);
const CREATE: Action = Action::Operation(Operation::ItemsCreate);
const DELETE: Action = Action::Operation(Operation::ItemsDelete);

fn warrant() -> Warrant {
    let subject = Subject { issuer: IssuerName::new("cognito"), id: "w1".into() };
    let container = ContainerName::new("shop", "orders").unwrap();
    let scope = Scope { container, partition_key: None, mode: PermissionMode::All };
    let permit = Permit::for_test(subject, None, UPSERT, scope);
    Warrant::for_test(&permit, Enforcer::Cosmos)
}

fn upstream_with(endpoint: &Url, largest_answer: usize, attempt_timeout: Duration) -> Upstream {
    let clock = Clock::Manual(ManualClock::new(Timestamp::from_secs(1_795_375_762)));
    let config = Config {
        endpoint: endpoint.clone(),
        preferred_regions: Vec::new(),
        largest_answer,
        attempt_timeout,
        continuation_key: None,
    };
    let account = AccountReader::new(|_| Box::pin(async { Err("nobody reads in this test".into()) }));
    Upstream::new(config, Transport::new(None).unwrap(), account, BodyMemory::new(1 << 20), clock)
}

fn upstream(server: &Scripted) -> Upstream {
    upstream_with(server.url(), 1_000, Duration::from_secs(5))
}

fn errand(action: Action) -> Errand<'static> {
    let method = if action.is_write() { Method::POST } else { Method::GET };
    Errand {
        method,
        path: "/dbs/shop/colls/orders/docs".into(),
        headers: RequestHeaders::default(),
        body: Bytes::from_static(b"{}"),
        safety: Safety::of(action, false),
        session: None,
        activity_id: "request-1",
        deadline: Instant::now() + Duration::from_secs(20),
    }
}

async fn forward(server: &Scripted, action: Action) -> Result<UpstreamAnswer, Failure> {
    upstream(server).forward(&errand(action), &warrant(), || true, || {}).await
}

fn reply(status: u16) -> Reply {
    Reply::new(StatusCode::from_u16(status).unwrap()).header("x-ms-activity-id", "a")
}

#[tokio::test]
async fn the_token_is_the_only_credential_that_leaves() {
    let server = Scripted::start(|_| {
        reply(201)
            .header("x-ms-request-charge", "6.29")
            .header("x-ms-session-token", "0:1#2")
            .header("etag", "\"e\"")
            .header("set-cookie", "a=b")
            .header("x-ms-internal", "x")
            .body("{\"id\":\"1\"}")
    });
    let server = server.await;
    let mut downstream = HeaderMap::new();
    for (name, value) in [
        ("authorization", "Bearer workflow"),
        ("x-stepgate-token", "workflow"),
        ("x-ms-date", "yesterday"),
        ("x-ms-activity-id", "forged"),
        ("host", "gateway.example"),
        ("x-ms-documentdb-is-upsert", "true"),
        ("range", "bytes=0-262144"),
    ] {
        downstream.insert(name, value.parse().unwrap());
    }
    let mut errand = errand(UPSERT);
    errand.headers = RequestHeaders::allow(&downstream, RangeAddressing::Drop);
    errand.headers.set_partition_key(&"[\"t1\"]".parse().unwrap());
    let answer = upstream(&server).forward(&errand, &warrant(), || true, || {}).await.unwrap();

    let seen = &server.seen()[0];
    let mut sent: Vec<(&str, &str)> =
        seen.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    sent.sort_unstable();
    let host = server.url().authority().to_owned();
    assert_eq!(
        sent,
        [
            ("authorization", "type%3Dresource%26ver%3D1%26sig%3Dabc%3Bpayload%3B"),
            ("content-length", "2"),
            ("host", host.as_str()),
            ("user-agent", concat!("stepgate/", env!("CARGO_PKG_VERSION"))),
            ("x-ms-activity-id", "request-1"),
            ("x-ms-date", "Sun, 22 Nov 2026 19:29:22 GMT"),
            ("x-ms-documentdb-is-upsert", "true"),
            ("x-ms-documentdb-partitionkey", "[\"t1\"]"),
            ("x-ms-version", "2020-07-15"),
        ]
    );
    assert_eq!((seen.line().as_str(), &seen.body[..]), ("POST /dbs/shop/colls/orders/docs", &b"{}"[..]));

    assert_eq!((answer.status, answer.attempts), (StatusCode::CREATED, 1));
    assert_eq!((answer.request_charge, answer.activity_id.as_deref()), (Some(6.29), Some("a")));
    assert_eq!(&answer.body[..], b"{\"id\":\"1\"}");
    assert_eq!(answer.headers["etag"], "\"e\"");
    assert!(!answer.headers.contains_key("set-cookie") && !answer.headers.contains_key("x-ms-internal"));
}

#[tokio::test]
async fn the_callers_api_version_is_kept() {
    let server = Scripted::start(|_| reply(200)).await;
    let mut downstream = HeaderMap::new();
    downstream.insert("x-ms-version", "2018-12-31".parse().unwrap());
    let headers = RequestHeaders::allow(&downstream, RangeAddressing::Drop);
    let errand = Errand { headers, ..errand(READ) };
    upstream(&server).forward(&errand, &warrant(), || true, || {}).await.unwrap();
    assert_eq!(server.seen()[0].headers["x-ms-version"], "2018-12-31");
}

#[tokio::test]
async fn each_status_is_tried_as_often_as_its_row_allows() {
    let session: &[(&'static str, &'static str)] = &[("x-ms-substatus", "1002")];
    let throttled: &[(&'static str, &'static str)] = &[("x-ms-retry-after-ms", "1")];
    // For what reads, and for a write that is refused, or done, only once.
    let cases = [
        (429, throttled, 10, 10),
        (449, &[], 6, 6),
        (503, &[], 4, 4),
        (404, session, 3, 3),
        (403, &[("x-ms-substatus", "3")], 4, 4),
        (403, &[("x-ms-substatus", "1008")], 4, 4),
        (410, &[("x-ms-substatus", "1002")], 4, 4),
        (408, &[], 4, 1),
        (410, &[], 4, 1),
        (500, &[], 4, 1),
        (404, &[], 1, 1),
        (409, &[], 1, 1),
        (403, &[], 1, 1),
        (401, &[], 1, 1),
    ];
    let tried = async |status: u16, headers: Vec<(&'static str, &'static str)>, action: Action, attempts: u32| {
        let script = move |_: &_| headers.iter().fold(reply(status), |reply, &(n, v)| reply.header(n, v));
        let server = Scripted::start(script).await;
        let ended = match forward(&server, action).await {
            Ok(answer) => (answer.status.as_u16(), answer.attempts),
            Err(Failure { error, .. }) => (error.answer().unwrap().status.as_u16(), error.attempts()),
        };
        assert_eq!(ended, (status, attempts), "{action}");
        assert_eq!(server.seen().len(), attempts as usize, "{status} {action}");
    };
    let all = cases.iter().flat_map(|&(status, headers, reads, writes)| {
        [(READ, reads), (Action::QueryPlan, reads), (UPSERT, reads), (CREATE, writes)]
            .map(|(action, attempts)| tried(status, headers.to_vec(), action, attempts))
    });
    futures_util::future::join_all(all).await;
}

#[tokio::test]
async fn an_answer_that_leaves_a_write_open_is_no_answer() {
    for status in [408, 410, 500] {
        let server = Scripted::start(move |_| reply(status)).await;
        let error = forward(&server, CREATE).await.unwrap_err().error;
        assert!(matches!(error, UpstreamError::OutcomeUnknown { attempts: 1, .. }), "{error}");
        assert_eq!(error.answer().unwrap().status.as_u16(), status);
        assert_eq!(forward(&server, READ).await.unwrap().status.as_u16(), status, "a read changes nothing");
    }
}

#[tokio::test]
async fn a_write_in_doubt_is_repeated_where_twice_is_no_more_than_once() {
    let lost_then = async |status: u16, action: Action| {
        let script = move |request: &_| {
            let Seen { index, .. } = request;
            if *index == 0 { Reply::hang_up() } else { reply(status) }
        };
        let server = Scripted::start(script).await;
        forward(&server, action).await
    };
    assert_eq!(lost_then(200, UPSERT).await.unwrap().attempts, 2);
    assert_eq!(lost_then(204, DELETE).await.unwrap().attempts, 2);
    // The first attempt may have deleted what the second no longer finds.
    let error = lost_then(404, DELETE).await.unwrap_err().error;
    assert!(matches!(error, UpstreamError::OutcomeUnknown { attempts: 2, .. }), "{error}");
    // Another refusal of the repeat says nothing of the first either.
    let error = lost_then(403, UPSERT).await.unwrap_err().error;
    assert!(matches!(error, UpstreamError::OutcomeUnknown { attempts: 2, .. }), "{error}");
    // Without a doubt a 404 is what it says.
    let server = Scripted::start(|_| reply(404)).await;
    assert_eq!(forward(&server, DELETE).await.unwrap().status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn doubt_outlasts_what_comes_after_it() {
    let script = |request: &Seen| match request.index {
        0 => Reply::hang_up(),
        _ => reply(429).header("x-ms-retry-after-ms", "60000"),
    };
    let server = Scripted::start(script).await;
    let error = forward(&server, UPSERT).await.unwrap_err().error;
    assert!(matches!(error, UpstreamError::OutcomeUnknown { attempts: 2, .. }), "{error}");
    let server = Scripted::start(script).await;
    let error = upstream(&server).forward(&errand(UPSERT), &warrant(), || false, || {}).await.unwrap_err().error;
    assert!(matches!(error, UpstreamError::OutcomeUnknown { attempts: 1, .. }), "not only withdrawn: {error}");
}

#[tokio::test]
async fn repeats_are_paid_for_from_a_budget() {
    let server = Scripted::start(|_| reply(503)).await;
    let upstream = upstream(&server);
    while upstream.budget.pay() {}
    assert_eq!(upstream.forward(&errand(READ), &warrant(), || true, || {}).await.unwrap().attempts, 1);
    let server = Scripted::start(|_| reply(429).header("x-ms-retry-after-ms", "1")).await;
    let upstream = upstream_with(server.url(), 1_000, Duration::from_secs(5));
    while upstream.budget.pay() {}
    let answer = upstream.forward(&errand(READ), &warrant(), || true, || {}).await.unwrap();
    assert_eq!(answer.attempts, 10, "the service itself says when");
}

#[tokio::test]
async fn a_write_that_was_throttled_succeeds_later_with_the_same_body() {
    let server = Scripted::start(|request| match request.index {
        0 => reply(429).header("x-ms-retry-after-ms", "40"),
        1 => reply(449),
        _ => reply(201),
    });
    let server = server.await;
    let began = Instant::now();
    let answer = forward(&server, UPSERT).await.unwrap();
    assert_eq!((answer.status, answer.attempts), (StatusCode::CREATED, 3));
    assert!(began.elapsed() >= Duration::from_millis(40));
    assert!(server.seen().iter().all(|seen| &seen.body[..] == b"{}"));
}

#[tokio::test]
async fn a_proxy_that_is_unavailable_is_not_believed_about_a_write() {
    let server = Scripted::start(|_| Reply::new(StatusCode::SERVICE_UNAVAILABLE)).await;
    let error = forward(&server, CREATE).await.unwrap_err().error;
    assert!(matches!(error, UpstreamError::OutcomeUnknown { attempts: 1, .. }), "{error}");
    assert_eq!(forward(&server, READ).await.unwrap().attempts, 4);
}

#[tokio::test]
async fn a_write_whose_connection_broke_has_an_unknown_outcome() {
    let server = Scripted::start(|_| Reply::hang_up()).await;
    let error = forward(&server, CREATE).await.unwrap_err().error;
    assert!(matches!(error, UpstreamError::OutcomeUnknown { attempts: 1, cause: Doubt::Lost(_) }), "{error}");
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_read_whose_connection_broke_is_sent_again() {
    let server = Scripted::start(|request| if request.index < 2 { Reply::hang_up() } else { reply(200) }).await;
    assert_eq!(forward(&server, READ).await.unwrap().attempts, 3);
    let server = Scripted::start(|_| Reply::hang_up()).await;
    let error = forward(&server, READ).await.unwrap_err().error;
    assert!(matches!(error, UpstreamError::Unavailable { attempts: 4, .. }), "{error}");
}

#[tokio::test]
async fn what_was_never_sent_is_tried_again_and_then_unavailable() {
    let closed = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = Url::parse(&format!("http://{}/", closed.local_addr().unwrap())).unwrap();
    drop(closed);
    let upstream = upstream_with(&url, 1_000, Duration::from_secs(5));
    let error = upstream.forward(&errand(UPSERT), &warrant(), || true, || {}).await.unwrap_err().error;
    assert!(matches!(error, UpstreamError::Unavailable { attempts: 4, .. }), "{error}");
}

#[tokio::test]
async fn silence_is_a_timeout_for_a_read_and_doubt_for_a_write() {
    let server = Scripted::start(|_| reply(200).after(Duration::from_secs(60))).await;
    let upstream = upstream(&server);
    let began = Instant::now();
    let soon = |action| Errand { deadline: Instant::now() + Duration::from_millis(150), ..errand(action) };
    let error = upstream.forward(&soon(READ), &warrant(), || true, || {}).await.unwrap_err().error;
    assert!(matches!(error, UpstreamError::Timeout { attempts: 1 }), "{error}");
    let error = upstream.forward(&soon(UPSERT), &warrant(), || true, || {}).await.unwrap_err().error;
    assert!(matches!(error, UpstreamError::OutcomeUnknown { attempts: 1, .. }), "{error}");
    assert!(began.elapsed() < Duration::from_secs(2));

    let past = Errand { deadline: Instant::now(), ..errand(UPSERT) };
    let error = upstream.forward(&past, &warrant(), || true, || {}).await.unwrap_err().error;
    assert!(matches!(error, UpstreamError::Timeout { attempts: 0 }), "{error}");
}

#[tokio::test]
async fn a_slow_attempt_leaves_time_for_another_read() {
    let server = Scripted::start(|request| match request.index {
        0 => reply(200).after(Duration::from_secs(60)),
        _ => reply(200),
    });
    let server = server.await;
    let upstream = upstream_with(server.url(), 1_000, Duration::from_millis(100));
    assert_eq!(upstream.forward(&errand(READ), &warrant(), || true, || {}).await.unwrap().attempts, 2);
}

#[tokio::test]
async fn a_wait_that_would_pass_the_deadline_is_not_begun() {
    let server = Scripted::start(|_| reply(429).header("x-ms-retry-after-ms", "10000")).await;
    let began = Instant::now();
    let errand = Errand { deadline: began + Duration::from_secs(5), ..errand(UPSERT) };
    let answer = upstream(&server).forward(&errand, &warrant(), || true, || {}).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.attempts), (429, 1));
    assert_eq!(answer.retry_after(), Some(Duration::from_secs(10)));
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn leave_is_asked_for_before_every_further_attempt() {
    let server = Scripted::start(|_| reply(503)).await;
    let asked = AtomicU32::new(0);
    let once = || asked.fetch_add(1, Ordering::Relaxed) == 0;
    let error = upstream(&server).forward(&errand(UPSERT), &warrant(), once, || {}).await.unwrap_err().error;
    assert!(matches!(error, UpstreamError::Withdrawn { attempts: 2 }), "{error}");
    assert_eq!((asked.into_inner(), server.seen().len()), (2, 2));
}

#[tokio::test]
async fn answers_that_are_too_long_or_not_of_cosmos_are_not_passed_on() {
    let server = Scripted::start(|_| reply(200).body(vec![b' '; 1_001])).await;
    let error = forward(&server, READ).await.unwrap_err().error;
    assert!(matches!(error, UpstreamError::TooLarge { attempts: 1, largest: 1_000 }), "{error}");
    let error = forward(&server, UPSERT).await.unwrap_err().error;
    assert!(matches!(error, UpstreamError::OutcomeUnknown { .. }), "the write may stand: {error}");

    let server = Scripted::start(|_| reply(302).header("location", "http://elsewhere.example/")).await;
    let error = forward(&server, READ).await.unwrap_err().error;
    assert!(matches!(error, UpstreamError::BadAnswer { status: StatusCode::FOUND, .. }), "{error}");
    let server = Scripted::start(|_| reply(304)).await;
    assert_eq!(forward(&server, READ).await.unwrap().status, StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn answers_share_their_memory() {
    let server = Scripted::start(|_| reply(200).body(vec![b' '; 600_000])).await;
    let upstream = upstream_with(server.url(), 1_000_000, Duration::from_secs(5));
    let first = upstream.forward(&errand(READ), &warrant(), || true, || {}).await.unwrap();
    let error = upstream.forward(&errand(READ), &warrant(), || true, || {}).await.unwrap_err().error;
    assert!(matches!(error, UpstreamError::NoRoom { attempts: 1 }), "{error}");
    let _most = upstream.memory.take(400_000).unwrap();
    let error = upstream.forward(&errand(CREATE), &warrant(), || true, || {}).await.unwrap_err().error;
    assert!(matches!(error, UpstreamError::NoRoom { attempts: 0 }), "a write has room before it leaves: {error}");
    drop(first.body);
    upstream.forward(&errand(READ), &warrant(), || true, || {}).await.unwrap();
}

#[tokio::test]
async fn a_path_cannot_name_another_host() {
    let server = Scripted::start(|_| reply(200)).await;
    for path in ["@elsewhere.example/", ".elsewhere.example/", "http://elsewhere.example/", "/a b"] {
        let errand = Errand { path: path.into(), ..errand(READ) };
        let error = upstream(&server).forward(&errand, &warrant(), || true, || {}).await.unwrap_err().error;
        assert!(matches!(error, UpstreamError::Unsendable(_)), "{error}");
    }
    let errand = Errand { path: "//elsewhere.example/".into(), ..errand(READ) };
    upstream(&server).forward(&errand, &warrant(), || true, || {}).await.unwrap();
    assert_eq!(server.lines(), ["GET //elsewhere.example/"]);
}

#[test]
fn a_refused_credential_is_told_from_a_refused_request() {
    let answer = |status, substatus| UpstreamAnswer {
        status: StatusCode::from_u16(status).unwrap(),
        substatus,
        headers: HeaderMap::new(),
        body: Bytes::new(),
        activity_id: None,
        request_charge: None,
        attempts: 1,
        took: Duration::ZERO,
        region: None,
    };
    for (status, substatus) in [(401, None), (401, Some(5001)), (403, None), (403, Some(0))] {
        assert!(answer(status, substatus).refused_credential(), "{status} {substatus:?}");
    }
    for (status, substatus) in [(403, Some(3)), (403, Some(1014)), (404, None), (200, None)] {
        assert!(!answer(status, substatus).refused_credential(), "{status} {substatus:?}");
    }
}
