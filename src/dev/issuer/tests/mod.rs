//! The local issuer and the identity room against each other, through real sockets.
//!
//! They stand here rather than in `identity`, which must not know that the stand-ins exist.

mod attacks;
mod endpoints;
mod freshness;
mod kinds;

use std::{net::Ipv4Addr, time::Duration};

use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use serde_json::{Map, Value, json};
use tokio::{net::TcpListener, task::JoinSet};

use super::{Issuer, Mint, serve};
use crate::{
    access::{IssuerName, WorkloadKind},
    clock::{Clock, ManualClock, Timestamp},
    config::dev::{Client, Issuer as Config, Kind, SigningAlgorithm},
    identity::{Expect, Identity, IdentityError, IssuerConfig, Reason, VerifiedSubject},
    secret::Secret,
    transport::Transport,
};

/// An issuer behind a socket, on a clock that is moved by hand. Its task ends with it.
struct Stage {
    issuer: Issuer,
    hand: ManualClock,
    tasks: JoinSet<()>,
}

impl Stage {
    async fn open() -> Self {
        let hand = ManualClock::new(Timestamp::from_secs(1_795_375_762));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let issuer = Issuer::new(config(), url, Clock::Manual(hand.clone())).unwrap();
        let mut tasks = JoinSet::new();
        let served = issuer.clone();
        tasks.spawn(async move { serve(listener, served, std::future::pending()).await.unwrap() });
        Self { issuer, hand, tasks }
    }

    /// How the gateway's dev config trusts the issuer.
    fn trust(&self) -> IssuerConfig {
        IssuerConfig {
            audiences: vec!["stepgate".to_owned()],
            workload: [("token_kind".to_owned(), Expect::from(json!("workload")))].into(),
            human: [("email".to_owned(), Expect::from(json!("*")))].into(),
            ..IssuerConfig::new(IssuerName::new("local"), WorkloadKind::Oidc, self.issuer.url().to_owned())
        }
    }

    /// A gateway's identity room that trusts `issuers`; its keys are kept fresh for as long as the stage stands.
    fn identity(&mut self, issuers: Vec<IssuerConfig>) -> std::sync::Arc<Identity> {
        let transport = Transport::new(None).unwrap();
        let identity = Identity::new(issuers, transport, Clock::Manual(self.hand.clone())).unwrap();
        let identity = std::sync::Arc::new(identity);
        let kept = identity.clone();
        self.tasks.spawn(async move { kept.keep_fresh().await });
        identity
    }

    fn mint(&self, claims: Value) -> String {
        self.issuer.mint(Mint { claims: members(claims), ..Mint::default() }).unwrap()
    }
}

fn config() -> Config {
    let client = |id: &str, kind, claims: Value, algorithm| Client {
        client_id: id.to_owned(),
        client_secret: Secret::new(format!("{id}-secret")),
        kind,
        claims: members(claims),
        algorithm,
    };
    Config {
        clients: vec![
            client("orders", Kind::Workload, json!({"tenant": "t1"}), None),
            client("elliptic", Kind::Workload, json!({}), Some(SigningAlgorithm::ES256)),
            client("jo", Kind::Human, json!({}), None),
        ],
        ..Config::default()
    }
}

fn members(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        other => panic!("{other} is no object"),
    }
}

fn bearer(token: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::from_bytes(format!("Bearer {token}").as_bytes()).unwrap());
    headers
}

async fn ask(identity: &Identity, token: &str) -> Result<VerifiedSubject, IdentityError> {
    identity.authenticate(&bearer(token)).await
}

async fn refusal(identity: &Identity, token: &str) -> Option<Reason> {
    ask(identity, token).await.err().map(|error| error.reason)
}

/// Far longer than anything here takes; a test that meets it hangs for a reason.
const PATIENCE: Duration = Duration::from_secs(30);
