use std::{collections::HashSet, fs, sync::Mutex};

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::*;
use crate::{
    access::{Action, ContainerName, IssuerName, Operation, PermissionMode, Subject},
    clock::ManualClock,
    exchange::{
        AccountKey, ToSign,
        scripted::{Reply, Scripted, Seen},
    },
    policy::Scope,
    secret::Secret,
};

const LIFETIME: Duration = Duration::from_secs(3_600);
const START: Timestamp = Timestamp::from_secs(1_795_375_762);
const KEY: &str = "b25l";

/// Users and permissions as Cosmos keeps them; every answer that carries a permission carries another token.
#[derive(Default)]
struct Account {
    users: HashSet<String>,
    permissions: Vec<Value>,
    tokens: u32,
}

impl Account {
    fn answer(&mut self, request: &Seen) -> Reply {
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let segments: Vec<&str> = request.path.split('/').skip(1).collect();
        match (request.method.clone(), segments.as_slice()) {
            (Method::POST, ["dbs", "shop", "users"]) => {
                let new = self.users.insert(body["id"].as_str().unwrap().to_owned());
                Reply::new(if new { StatusCode::CREATED } else { StatusCode::CONFLICT }).body("{}")
            }
            (Method::POST, ["dbs", "shop", "users", user, "permissions"]) => {
                assert!(self.users.contains(*user), "a permission needs its user");
                if self.find(body["id"].as_str().unwrap()).is_some() {
                    return Reply::new(StatusCode::CONFLICT).body("{}");
                }
                self.permissions.push(body.clone());
                self.permission(StatusCode::CREATED, body)
            }
            (Method::GET, ["dbs", "shop", "users", _, "permissions", id]) => match self.find(id).cloned() {
                Some(permission) => self.permission(StatusCode::OK, permission),
                None => Reply::new(StatusCode::NOT_FOUND).body("{}"),
            },
            (Method::PUT, ["dbs", "shop", "users", _, "permissions", id]) => {
                self.permissions.retain(|permission| permission["id"] != *id);
                self.permissions.push(body.clone());
                self.permission(StatusCode::OK, body)
            }
            other => panic!("{other:?}"),
        }
    }

    fn find(&self, id: &str) -> Option<&Value> {
        self.permissions.iter().find(|permission| permission["id"] == id)
    }

    fn permission(&mut self, status: StatusCode, mut permission: Value) -> Reply {
        self.tokens += 1;
        permission["_token"] = json!(format!("type=resource&ver=1&sig={};payload;", self.tokens));
        Reply::new(status).body(permission.to_string())
    }
}

async fn account() -> Scripted {
    let account = Mutex::new(Account::default());
    Scripted::start(move |request| account.lock().unwrap().answer(request)).await
}

fn subject() -> Subject {
    Subject { issuer: IssuerName::new("cognito"), id: "w1".into() }
}

fn verified() -> VerifiedSubject {
    VerifiedSubject::for_test(subject(), Some("app"))
}

fn permit() -> Permit {
    let scope = Scope {
        container: ContainerName::new("shop", "orders").unwrap(),
        partition_key: Some(r#"["t1"]"#.parse().unwrap()),
        mode: PermissionMode::All,
    };
    Permit::for_test(subject(), Some("app"), Action::Operation(Operation::ItemsUpsert), scope)
}

fn env_key(key: &str) -> KeySource {
    KeySource::Env { variable: "KEY".into(), value: Secret::new(key.into()), field: None }
}

fn config(server: &Scripted, key: KeySource) -> Config {
    let (endpoint, unused_for) = (server.url().clone(), Duration::from_secs(7 * 86_400));
    Config { endpoint, key, lifetime: LIFETIME, cache_capacity: 100, units_per_second: 240, unused_for }
}

/// A broker of `server`'s account, and the hand that moves its clock.
fn broker_with(server: &Scripted, key: KeySource) -> (Broker, ManualClock) {
    let hand = ManualClock::new(START);
    let config = config(server, key);
    (Broker::new(config, Transport::new(None).unwrap(), Clock::Manual(hand.clone())), hand)
}

fn broker(server: &Scripted) -> (Broker, ManualClock) {
    broker_with(server, env_key(KEY))
}

async fn exchange(broker: &Broker) -> Result<Arc<ResourceToken>, ExchangeError> {
    broker.exchange(&verified(), &permit(), "request-1").await
}

/// Waits for the renewals under way.
async fn settle(broker: &Broker) {
    broker.renewals.close();
    broker.renewals.wait().await;
    broker.renewals.reopen();
}

fn id() -> String {
    TokenScope::of(&permit()).id()
}

#[tokio::test]
async fn a_new_scope_gets_a_user_a_permission_and_a_token() {
    let server = account().await;
    let (broker, _) = broker(&server);
    let token = exchange(&broker).await.unwrap();
    let id = id();
    assert_eq!(token.authorization().to_str().unwrap(), "type%3Dresource%26ver%3D1%26sig%3D1%3Bpayload%3B");
    assert_eq!((&**token.permission_id(), token.expires()), (id.as_str(), START.plus(LIFETIME)));
    assert!(!format!("{token:?}").contains("payload"), "{token:?}");
    assert_eq!(
        server.lines(),
        [
            format!("GET /dbs/shop/users/{id}/permissions/{id}"),
            "POST /dbs/shop/users".to_owned(),
            format!("POST /dbs/shop/users/{id}/permissions"),
        ]
    );
    let create = &server.seen()[2];
    let expected = json!({
        "id": id, "permissionMode": "All", "resource": "dbs/shop/colls/orders", "resourcePartitionKey": ["t1"],
    });
    assert_eq!(serde_json::from_slice::<Value>(&create.body).unwrap(), expected);
    assert_eq!(create.headers["x-ms-documentdb-expiry-seconds"], "3600");
    assert_eq!(create.headers["x-ms-version"], "2020-07-15");
    assert_eq!(create.headers["x-ms-activity-id"], "request-1");
    let (method, date, link) = (Method::POST, START.http_date(), format!("dbs/shop/users/{id}"));
    let to_sign = ToSign { method: &method, resource_type: "permissions", link: &link, date: &date };
    let key = AccountKey::from_base64(KEY).unwrap();
    assert_eq!(create.headers["authorization"], to_sign.authorization(&key));
    assert_eq!(create.headers["x-ms-date"].to_str().unwrap(), date);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_first_requests_are_one_mint() {
    let account = Mutex::new(Account::default());
    let slow = Duration::from_millis(50);
    let server = Scripted::start(move |request| account.lock().unwrap().answer(request).after(slow)).await;
    let broker = Arc::new(broker(&server).0);
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let broker = Arc::clone(&broker);
        callers.spawn(async move { exchange(&broker).await.unwrap() });
    }
    let tokens = callers.join_all().await;
    assert!(tokens.iter().all(|token| Arc::ptr_eq(token, &tokens[0])));
    assert_eq!((broker.mints(), server.seen().len()), (1, 3));
}

#[tokio::test]
async fn a_caller_who_leaves_does_not_hold_up_the_next() {
    let account = Mutex::new(Account::default());
    let server = Scripted::start(move |request| match request.index {
        0 => Reply::hang_up().after(Duration::from_secs(60)),
        _ => account.lock().unwrap().answer(request),
    });
    let server = server.await;
    let (broker, _) = broker(&server);
    tokio::time::timeout(Duration::from_millis(50), exchange(&broker)).await.unwrap_err();
    exchange(&broker).await.unwrap();
    assert_eq!(broker.mints(), 1);
}

#[tokio::test]
async fn a_restart_finds_the_permission_with_one_read() {
    let server = account().await;
    exchange(&broker(&server).0).await.unwrap();
    let before = server.seen().len();
    let token = exchange(&broker(&server).0).await.unwrap();
    assert_eq!(server.lines()[before..], [format!("GET /dbs/shop/users/{0}/permissions/{0}", id())]);
    assert!(token.authorization().to_str().unwrap().contains("sig%3D2"), "a fresh token");
}

#[tokio::test]
async fn a_permission_made_meanwhile_is_read() {
    let account = Mutex::new(Account::default());
    let server = Scripted::start(move |request| {
        let mut account = account.lock().unwrap();
        let other_gateway = request.index == 1;
        if other_gateway {
            let user = id();
            account.users.insert(user.clone());
            let made = json!({
                "id": user, "permissionMode": "All", "resource": "dbs/shop/colls/orders/", "resourcePartitionKey": ["t1"],
            });
            account.permissions.push(made);
        }
        account.answer(request)
    });
    let server = server.await;
    let (broker, _) = broker(&server);
    exchange(&broker).await.unwrap();
    let methods: Vec<_> = server.seen().into_iter().map(|seen| seen.method.to_string()).collect();
    assert_eq!(methods, ["GET", "POST", "POST", "GET"]);
    assert_eq!(broker.mints(), 1);
}

#[tokio::test]
async fn a_permission_that_opens_something_else_is_replaced() {
    let right = json!({"permissionMode": "All", "resource": "dbs/shop/colls/orders", "resourcePartitionKey": ["t1"]});
    let wrong = [
        ("permissionMode", json!("Read")),
        ("resource", json!("dbs/shop/colls/ledger")),
        ("resourcePartitionKey", json!(["t2"])),
        ("resourcePartitionKey", Value::Null),
    ];
    for (member, value) in wrong {
        let mut there = right.clone();
        there["id"] = json!(id());
        there[member] = value;
        let account = Mutex::new(Account { permissions: vec![there], ..Account::default() });
        let server = Scripted::start(move |request| account.lock().unwrap().answer(request)).await;
        exchange(&broker(&server).0).await.unwrap();
        let seen = server.seen();
        assert_eq!((seen.len(), &seen[1].method), (2, &Method::PUT), "{member}");
        let put: Value = serde_json::from_slice(&seen[1].body).unwrap();
        assert_eq!(put["resourcePartitionKey"], json!(["t1"]));
    }
}

#[tokio::test]
async fn a_refused_account_key_is_read_again_and_the_call_signed_once_more() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    fs::write(&path, "b25l").unwrap();
    let account = Mutex::new(Account::default());
    let new_key = AccountKey::from_base64("dHdv").unwrap();
    let server = Scripted::start(move |request| {
        let link = format!("dbs/shop/users/{0}/permissions/{0}", id());
        let date = request.headers["x-ms-date"].to_str().unwrap();
        let to_sign = ToSign { method: &Method::GET, resource_type: "permissions", link: &link, date };
        if request.method == Method::GET && request.headers["authorization"] != to_sign.authorization(&new_key) {
            return Reply::new(StatusCode::UNAUTHORIZED);
        }
        account.lock().unwrap().answer(request)
    });
    let server = server.await;
    let (broker, hand) = broker_with(&server, KeySource::File { path: path.clone(), field: None });
    let refused = exchange(&broker).await.unwrap_err();
    assert!(matches!(refused, ExchangeError::CosmosRefusedKey { status: StatusCode::UNAUTHORIZED, .. }), "{refused}");
    assert_eq!(server.seen().len(), 1, "the same key is not tried twice");

    fs::write(&path, "dHdv").unwrap();
    hand.advance(FAILURE_HOLDS);
    exchange(&broker).await.unwrap();
    assert_eq!(server.seen().len(), 1 + 4, "refused, read, user, permission");
}

#[tokio::test]
async fn a_token_is_renewed_in_the_background_before_it_ends() {
    let server = account().await;
    let (broker, hand) = broker(&server);
    let first = exchange(&broker).await.unwrap();
    hand.advance(LIFETIME * 4 / 5 - Duration::from_secs(1));
    assert_eq!(exchange(&broker).await.unwrap().serial, first.serial);
    settle(&broker).await;
    assert_eq!(broker.mints(), 1, "not yet");

    hand.advance(Duration::from_secs(1));
    for _ in 0..20 {
        assert_eq!(exchange(&broker).await.unwrap().serial, first.serial, "the old one serves meanwhile");
    }
    settle(&broker).await;
    assert_eq!(broker.mints(), 2);
    let second = exchange(&broker).await.unwrap();
    assert_eq!((second.serial, second.expires()), (2, START.plus(LIFETIME * 9 / 5)));
}

#[tokio::test]
async fn a_failed_renewal_leaves_the_old_token_until_shortly_before_its_end() {
    let account = Mutex::new(Account::default());
    let server = Scripted::start(move |request| match request.index {
        0..3 => account.lock().unwrap().answer(request),
        _ => Reply::new(StatusCode::BAD_REQUEST),
    });
    let server = server.await;
    let (broker, hand) = broker(&server);
    exchange(&broker).await.unwrap();
    hand.advance(LIFETIME * 4 / 5);
    for _ in 0..3 {
        exchange(&broker).await.unwrap();
        settle(&broker).await;
    }
    assert_eq!(server.seen().len(), 4, "one renewal was tried, the next is not due");
    hand.advance(LIFETIME / 5 - MARGIN - Duration::from_millis(1));
    exchange(&broker).await.unwrap();
    settle(&broker).await;
    hand.advance(Duration::from_millis(1));
    let error = exchange(&broker).await.unwrap_err();
    assert!(matches!(error, ExchangeError::BadAnswer { status: StatusCode::BAD_REQUEST }), "{error}");
    assert!(broker.status().await.last_error.is_some());
}

#[tokio::test]
async fn a_failure_answers_for_its_scope_for_a_moment() {
    let refusal = || Reply::new(StatusCode::FORBIDDEN).header("x-ms-substatus", "5300");
    let server = Scripted::start(move |_| refusal().header("date", &START.http_date())).await;
    let (broker, hand) = broker(&server);
    let (one, other) = tokio::join!(exchange(&broker), exchange(&broker));
    for error in [one.unwrap_err(), other.unwrap_err(), exchange(&broker).await.unwrap_err()] {
        assert!(matches!(error, ExchangeError::CosmosRefusedKey { substatus: Some(5300), .. }), "{error}");
    }
    assert_eq!(server.seen().len(), 1);
    hand.advance(FAILURE_HOLDS);
    exchange(&broker).await.unwrap_err();
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn a_refused_token_is_minted_anew_at_once_but_not_again_and_again() {
    let server = account().await;
    let (broker, hand) = broker(&server);
    let remint = async |stale: &ResourceToken| broker.remint(&verified(), &permit(), stale, "request-2").await;
    let first = exchange(&broker).await.unwrap();
    let (one, other) = tokio::join!(remint(&first), remint(&first));
    assert_eq!((one.unwrap().serial, other.unwrap().serial, broker.mints()), (2, 2, 2));
    let second = remint(&first).await.unwrap();
    assert_eq!((second.serial, broker.mints()), (2, 2), "the newer one is at hand");

    hand.advance(REMINT_PAUSE - Duration::from_millis(1));
    let third = remint(&second).await.unwrap();
    let fruitless = remint(&third).await.unwrap_err();
    assert!(
        matches!(fruitless, ExchangeError::Throttled { retry_after } if retry_after == REMINT_PAUSE),
        "{fruitless}"
    );
    assert_eq!(exchange(&broker).await.unwrap().serial, third.serial);
    hand.advance(REMINT_PAUSE);
    assert_eq!(remint(&third).await.unwrap().serial, 4);
}

#[tokio::test]
async fn a_throttled_mint_waits_as_long_as_cosmos_says_or_says_so() {
    let account = Mutex::new(Account::default());
    let server = Scripted::start(move |request| match request.index {
        0 => Reply::new(StatusCode::TOO_MANY_REQUESTS).header("x-ms-retry-after-ms", "30"),
        _ => account.lock().unwrap().answer(request),
    });
    let server = server.await;
    let began = Instant::now();
    exchange(&broker(&server).0).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(30));
    assert_eq!(server.seen().len(), 4);

    let server =
        Scripted::start(|_| Reply::new(StatusCode::TOO_MANY_REQUESTS).header("x-ms-retry-after-ms", "60000")).await;
    let error = exchange(&broker(&server).0).await.unwrap_err();
    assert!(matches!(error, ExchangeError::Throttled { retry_after } if retry_after.as_secs() > 50), "{error}");
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_broken_connection_is_tried_again() {
    let account = Mutex::new(Account::default());
    let server = Scripted::start(move |request| match request.index {
        0 => Reply::hang_up(),
        _ => account.lock().unwrap().answer(request),
    });
    exchange(&broker(&server.await).0).await.unwrap();
}

#[tokio::test]
async fn a_permit_is_not_traded_for_another_subject() {
    let server = account().await;
    let (broker, _) = broker(&server);
    let strangers = [
        VerifiedSubject::for_test(Subject { id: "w2".into(), ..subject() }, Some("app")),
        VerifiedSubject::for_test(Subject { issuer: IssuerName::new("okta"), ..subject() }, Some("app")),
        VerifiedSubject::for_test(subject(), Some("app2")),
        VerifiedSubject::for_test(subject(), None),
    ];
    for stranger in strangers {
        let answer = broker.exchange(&stranger, &permit(), "request-1").await;
        assert!(matches!(answer, Err(ExchangeError::Mismatch)));
    }
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_clock_that_is_moved_ends_no_token_and_stops_no_mint() {
    // Cosmos' clock goes on as it did, and takes no signature of another day.
    let account = Mutex::new(Account::default());
    let server = Scripted::start(move |request| {
        let date = httpdate::parse_http_date(request.headers["x-ms-date"].to_str().unwrap()).unwrap();
        let date = date.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        if date.abs_diff(START.as_secs().unsigned_abs()) > 1_800 {
            return Reply::new(StatusCode::FORBIDDEN).header("date", &START.http_date());
        }
        account.lock().unwrap().answer(request).header("date", &START.http_date())
    });
    let server = server.await;
    let (broker, hand) = broker(&server);
    let first = exchange(&broker).await.unwrap();
    for moved in [START.plus(LIFETIME * 2), START.minus(LIFETIME * 2)] {
        hand.set(moved);
        assert_eq!(exchange(&broker).await.unwrap().serial, first.serial);
    }
    let before = server.seen().len();
    let second = broker.remint(&verified(), &permit(), &first, "request-2").await.unwrap();
    assert_eq!(server.seen().len(), before + 2, "refused for its date, and dated by Cosmos' clock");
    let third = broker.remint(&verified(), &permit(), &second, "request-2").await.unwrap();
    assert_eq!(server.seen().len(), before + 3, "the next is right at once");
    hand.set(START);
    broker.remint(&verified(), &permit(), &third, "request-2").await.unwrap_err();
    hand.advance(REMINT_PAUSE);
    broker.remint(&verified(), &permit(), &third, "request-2").await.unwrap();
    assert_eq!(server.seen().len(), before + 5, "and found out again when the clock is set right");
}

#[tokio::test]
async fn a_scope_in_use_is_written_anew_now_and_then() {
    let written = |ago: Duration| {
        let there = json!({
            "id": id(), "permissionMode": "All", "resource": "dbs/shop/colls/orders", "resourcePartitionKey": ["t1"],
            "_ts": START.minus(ago).as_secs(),
        });
        Mutex::new(Account { permissions: vec![there], ..Account::default() })
    };
    let half_a_day = super::super::permission::WRITTEN_ANEW;
    for (ago, methods) in [(half_a_day, &["GET"][..]), (half_a_day + Duration::from_secs(1), &["GET", "PUT"])] {
        let account = written(ago);
        let server = Scripted::start(move |request| account.lock().unwrap().answer(request)).await;
        let token = exchange(&broker(&server).0).await.unwrap();
        assert_eq!(server.seen().iter().map(|seen| seen.method.as_str()).collect::<Vec<_>>(), methods);
        let newest = format!("sig%3D{}%3B", methods.len());
        assert!(token.authorization().to_str().unwrap().contains(&newest), "the token of the last answer");
    }
    // Where it cannot be written, the token that was read will do.
    let account = written(half_a_day * 2);
    let server = Scripted::start(move |request| match request.method {
        Method::PUT => Reply::new(StatusCode::BAD_REQUEST),
        _ => account.lock().unwrap().answer(request),
    });
    exchange(&broker(&server.await).0).await.unwrap();
}

#[tokio::test]
async fn a_user_that_a_sweep_took_away_in_between_is_made_again() {
    let account = Mutex::new(Account::default());
    let server = Scripted::start(move |request| match request.index {
        2 => Reply::new(StatusCode::NOT_FOUND),
        _ => account.lock().unwrap().answer(request),
    });
    let server = server.await;
    exchange(&broker(&server).0).await.unwrap();
    assert_eq!(server.seen().len(), 5);
}

#[tokio::test]
async fn a_failure_from_before_another_key_was_found_says_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    fs::write(&path, "b25l").unwrap();
    let account = Mutex::new(Account::default());
    let open = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let is_open = Arc::clone(&open);
    let server = Scripted::start(move |request| match is_open.load(Ordering::Relaxed) {
        true => account.lock().unwrap().answer(request),
        false => Reply::new(StatusCode::FORBIDDEN).header("date", &START.http_date()),
    });
    let server = server.await;
    let (broker, _) = broker_with(&server, KeySource::File { path: path.clone(), field: None });
    exchange(&broker).await.unwrap_err();
    open.store(true, Ordering::Relaxed);
    exchange(&broker).await.unwrap_err();
    assert_eq!(server.seen().len(), 1, "the failure holds");
    fs::write(&path, "dHdv").unwrap();
    broker.reload().await.unwrap();
    exchange(&broker).await.unwrap();
}

#[tokio::test]
async fn a_full_cache_takes_newcomers() {
    let server = account().await;
    let config = Config { cache_capacity: 2, ..config(&server, env_key(KEY)) };
    let broker = Broker::new(config, Transport::new(None).unwrap(), Clock::Manual(ManualClock::new(START)));
    for holder in ["a", "b", "c", "d"] {
        let (subject, permit) = (VerifiedSubject::for_test(subject(), Some(holder)), permit());
        let permit = Permit::for_test(self::subject(), Some(holder), permit.action(), permit.scope().clone());
        broker.exchange(&subject, &permit, "request-1").await.unwrap();
        broker.mint.tokens.run_pending_tasks().await;
        broker.exchange(&subject, &permit, "request-1").await.unwrap();
    }
    assert_eq!((broker.mints(), broker.status().await.cached_tokens), (4, 2));
}
