//! A local OIDC issuer: discovery, key set, and a token endpoint for client credentials, on a real socket.
//!
//! The gateway meets it as it meets Cognito or AWS STS: it is configured with the issuer's url, fetches its keys, and
//! verifies what it signed. Beside that it does on request what no real issuer would be talked into: it rotates its keys
//! while somebody watches, goes away for a while, and signs tokens that must be refused ([`Mint`]).

mod grant;
mod keys;
mod mint;
mod routes;
mod signing;
#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use self::keys::Keys;
pub use self::{
    keys::Rotation,
    mint::{Mint, MintAlgorithm, MintKey},
    routes::serve,
    signing::SigningError,
};
use crate::{
    clock::{Clock, Timestamp},
    config::dev::{self, Client, Kind},
};

/// The issuer; clones are the same one.
#[derive(Clone, Debug)]
pub struct Issuer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: dev::Issuer,
    url: String,
    clock: Clock,
    keys: Keys,
    /// Until when it is out, in milliseconds since the epoch.
    out_until: AtomicI64,
    stats: watch::Sender<Stats>,
}

/// How often the issuer was asked for what.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Stats {
    /// For the discovery document.
    pub discovery: u64,
    /// For the key set.
    pub jwks: u64,
    /// For tokens, granted or not.
    pub token: u64,
}

/// Whether the issuer answers; while it is out, everything but `/_stepgate/` is a 503.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outage {
    /// It answers.
    Off,
    /// It does not.
    On,
    /// It does not for this long.
    For(Duration),
}

impl Issuer {
    /// An issuer that calls itself `url` (no slash at the end), with fresh keys.
    pub fn new(config: dev::Issuer, url: String, clock: Clock) -> Result<Self, SigningError> {
        let keys = Keys::generate()?;
        let out_until = AtomicI64::new(i64::MIN);
        Ok(Self(Arc::new(Inner { config, url, clock, keys, out_until, stats: watch::Sender::default() })))
    }

    /// Its `iss`.
    pub fn url(&self) -> &str {
        &self.0.url
    }

    /// A token of the client called `client_id`, as the token endpoint would give; `None` when there is no such client.
    pub fn token(&self, client_id: &str) -> Option<String> {
        self.token_of(self.client(client_id)?).ok()
    }

    /// New signing keys; gives their ids.
    pub fn rotate(&self, rotation: Rotation) -> Result<Vec<String>, SigningError> {
        self.keys().rotate(rotation)
    }

    /// Makes it go away or come back.
    pub fn set_outage(&self, outage: Outage) {
        let until = match outage {
            Outage::Off => i64::MIN,
            Outage::On => i64::MAX,
            Outage::For(duration) => self.0.clock.now().plus(duration).as_millis(),
        };
        self.0.out_until.store(until, Ordering::Relaxed);
    }

    /// How often it was asked for what.
    pub fn stats(&self) -> Stats {
        *self.0.stats.borrow()
    }

    /// The same as it changes.
    pub fn watch_stats(&self) -> watch::Receiver<Stats> {
        self.0.stats.subscribe()
    }

    fn config(&self) -> &dev::Issuer {
        &self.0.config
    }

    fn clock(&self) -> &Clock {
        &self.0.clock
    }

    fn keys(&self) -> &Keys {
        &self.0.keys
    }

    fn client(&self, id: &str) -> Option<&Client> {
        self.0.config.clients.iter().find(|client| client.client_id == id)
    }

    fn is_out(&self) -> bool {
        self.0.clock.now() < Timestamp::from_millis(self.0.out_until.load(Ordering::Relaxed))
    }

    fn count(&self, add: impl FnOnce(&mut Stats)) {
        self.0.stats.send_modify(add);
    }

    fn token_of(&self, client: &Client) -> Result<String, SigningError> {
        let key = self.keys().signing(client.algorithm);
        let lifetime = i64::try_from(self.config().lifetime.as_secs()).unwrap_or(i64::MAX);
        let mut claims = self.usual_claims(&client.client_id, lifetime);
        claims.extend(claims_of_kind(client));
        let claims = mint::with(claims, client.claims.clone());
        key.token(&mint::header(key.algorithm().as_str(), &key.kid), &claims, signing::Signature::Proper)
    }
}

fn claims_of_kind(client: &Client) -> Map<String, Value> {
    let id = &client.client_id;
    let claims = match client.kind {
        Kind::Workload => json!({"token_kind": "workload"}),
        Kind::Human => json!({"token_kind": "human", "email": format!("{id}@example.test"), "name": id}),
    };
    match claims {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}
