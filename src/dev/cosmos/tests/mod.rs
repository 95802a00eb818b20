//! The stand-in through a real socket, asked by a small client that signs by itself.

mod admin;
mod authorization;
mod enforcement;
mod entra;
mod items;
mod permissions;

use std::{net::SocketAddr, time::Duration};

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::{self, Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

use super::{Config, Cosmos, WELL_KNOWN_KEY, request::header, serve};
use crate::{
    clock::{Clock, ManualClock, Timestamp},
    config::dev::Seed,
};

/// An answer, read whole.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    fn substatus(&self) -> u32 {
        self.header(header::SUBSTATUS).map_or(0, |value| value.parse().unwrap())
    }

    fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }

    #[track_caller]
    fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{:?} {}", self.headers, self.body);
        self
    }

    /// Insufficient permissions, in the words users have reported.
    #[track_caller]
    fn expect_denied(self) {
        let answer = self.expect(403);
        assert_eq!(answer.substatus(), 0);
        assert_eq!(
            answer.message(),
            "Insufficient permissions provided in the authorization header for the corresponding request. Please retry \
             with another authorization header."
        );
        assert_eq!(answer.body["code"], "Forbidden");
    }
}

/// How a request of the tests is authorized.
#[derive(Clone, Copy)]
enum By<'a> {
    Key,
    /// An `Authorization` value, encoded here.
    Header(&'a str),
    Nothing,
}

/// The stand-in on a port of its own, on a clock that the test moves.
struct Stand {
    cosmos: Cosmos,
    clock: ManualClock,
    address: SocketAddr,
    client: Client<HttpConnector, Full<Bytes>>,
    _stop: oneshot::Sender<()>,
    _served: JoinHandle<()>,
}

const NOW: Timestamp = Timestamp::from_secs(1_795_375_762);

fn seed() -> Seed {
    serde_json::from_value(json!({ "databases": [
        { "id": "shop", "containers": [
            { "id": "orders", "partition_key": ["/tenant"], "procedures": ["echo"], "items": [
                { "id": "1", "tenant": "a", "total": 10 },
                { "id": "2", "tenant": "b", "total": 20 },
            ] },
            { "id": "deep", "partition_key": ["/tenant", "/user"], "items": [
                { "id": "1", "tenant": "a", "user": "x" },
                { "id": "2", "tenant": "a", "user": "y" },
                { "id": "3", "tenant": "b", "user": "x" },
            ] },
        ] },
        { "id": "other", "containers": [{ "id": "orders", "partition_key": ["/tenant"] }] },
    ] }))
    .unwrap()
}

impl Stand {
    async fn new() -> Self {
        Self::with(Config { seed: seed(), ..Config::default() }).await
    }

    async fn with(config: Config) -> Self {
        let clock = ManualClock::new(NOW);
        let cosmos = Cosmos::new(config, Clock::Manual(clock.clone())).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = serve(listener, cosmos.clone(), async {
            let _ = stopped.await;
        });
        let served = tokio::spawn(async { serving.await.unwrap() });
        let client = Client::builder(TokioExecutor::new()).retry_canceled_requests(false).build_http();
        Self { cosmos, clock, address, client, _stop: stop, _served: served }
    }

    fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    fn date(&self) -> String {
        Clock::Manual(self.clock.clone()).now().http_date()
    }

    async fn ask(&self, by: By<'_>, method: &str, path: &str, headers: &[(&str, &str)], body: Value) -> Answer {
        self.try_ask(by, method, path, headers, body).await.unwrap()
    }

    async fn try_ask(
        &self,
        by: By<'_>,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Value,
    ) -> Result<Answer, legacy::Error> {
        let date = self.date();
        let authorization = match by {
            By::Key => Some(encoded(&signed(WELL_KNOWN_KEY, method, path, &date))),
            By::Header(value) => Some(encoded(value)),
            By::Nothing => None,
        };
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(header::DATE)) {
            request = request.header(header::DATE, date);
        }
        for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
            request = request.header(*name, *value);
        }
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let request = request.body(Full::new(body)).unwrap();
        self.send(request).await
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Answer, legacy::Error> {
        let (parts, body) = self.client.request(request).await?.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&body).unwrap_or_default();
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(By::Key, "GET", path, &[], Value::Null).await
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.ask(By::Key, "POST", path, &[], body).await
    }

    /// A token of a permission made for it, of a user of its own.
    async fn token(&self, permission: Value) -> String {
        let made = self.cosmos.mints().len();
        let user = format!("u{made}");
        if made % 20 == 19 {
            // A second's budget is spent.
            self.advance(1);
        }
        self.post("/dbs/shop/users", json!({ "id": user })).await.expect(201);
        let mut body = permission;
        body["id"] = "p".into();
        let made = self.post(&format!("/dbs/shop/users/{user}/permissions"), body).await.expect(201);
        made.body["_token"].as_str().unwrap().to_owned()
    }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// The master authorization, built from the REST reference alone.
fn signed(key: &str, method: &str, path: &str, date: &str) -> String {
    let path = path.trim_matches('/');
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let (kind, link) = match segments.len() {
        0 => ("", String::new()),
        n if n % 2 == 0 => (segments[n - 2], segments.join("/")),
        n => (segments[n - 1], segments[..n - 1].join("/")),
    };
    let text = format!("{}\n{kind}\n{link}\n{}\n\n", method.to_lowercase(), date.to_lowercase());
    let key = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(key).unwrap());
    format!("type=master&ver=1.0&sig={}", STANDARD.encode(hmac::sign(&key, text.as_bytes())))
}

/// Headers of a query with a partition key.
const QUERY: [(&str, &str); 2] = [("x-ms-documentdb-isquery", "True"), ("content-type", "application/query+json")];

fn partition(key: &str) -> (&str, &str) {
    (header::PARTITION_KEY, key)
}
