//! The admin listener: health, metrics, status, reload. Every route on this page.
//!
//! Reading is open on loopback. What changes something wants the admin token on any address, since the containers of a pod
//! share loopback; so does `/status` off loopback.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};

use super::tls::Certificate;
use crate::{
    audit::{Health, SYNC_BUCKETS},
    clock::Timestamp,
    gateway::Gateway,
    secret::Secret,
    telemetry::{Counts, SyncTimes},
};

/// What the admin routes share.
#[derive(Clone)]
pub(super) struct Desk {
    pub(super) gateway: Arc<Gateway>,
    pub(super) certificates: Arc<[Certificate]>,
    pub(super) token: Option<Secret>,
    /// Whether the listener is on loopback, so that reading is open.
    pub(super) open: bool,
    pub(super) config_digest: Arc<str>,
    pub(super) started: Timestamp,
}

pub(super) fn routes(desk: Desk) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .route("/reload", post(reload))
        .with_state(desk)
}

/// How a dependency is. The order is the order of trouble.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Condition {
    /// It works.
    Ok,
    /// The gateway still serves, on what it has.
    Degraded,
    /// Without it the gateway must not be sent traffic.
    Down,
}

impl Condition {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Down => "down",
        }
    }
}

/// One dependency of `/readyz`.
struct Dependency {
    name: String,
    condition: Condition,
    since: Option<String>,
    error: Option<String>,
}

impl Dependency {
    fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "state": self.condition.as_str(),
            "since": self.since,
            "error": self.error,
        })
    }
}

impl Desk {
    /// Reads policies and certificates again; what cannot be used leaves the running one in place. Says whether all could.
    pub(super) fn reload(&self) -> bool {
        let policies = self.gateway.policy.reload().is_ok();
        self.gateway.metrics.policy_reload(policies);
        self.certificates.iter().all(reload_certificate) && policies
    }

    /// Takes in what changes on disk, looking every so often.
    pub(super) async fn watch(&self, every: Duration) {
        tokio::join!(self.watch_policies(every), self.watch_certificates(every));
    }

    async fn watch_policies(&self, every: Duration) {
        loop {
            let reloaded = self.gateway.policy.next_reload(every).await;
            self.gateway.metrics.policy_reload(reloaded.is_ok());
        }
    }

    async fn watch_certificates(&self, every: Duration) {
        let mut seen: Vec<_> = self.certificates.iter().map(Certificate::modified).collect();
        loop {
            tokio::time::sleep(every).await;
            for (certificate, seen) in self.certificates.iter().zip(&mut seen) {
                let modified = certificate.modified();
                if *seen != modified && reload_certificate(certificate) {
                    *seen = modified;
                }
            }
        }
    }

    fn is_authorized(&self, headers: &HeaderMap) -> bool {
        let sent = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        matches!((&self.token, sent), (Some(token), Some(sent)) if token.matches(sent))
    }

    async fn dependencies(&self) -> Vec<Dependency> {
        let mut all = vec![self.audit(), self.policy(), self.credential().await];
        all.extend(self.issuers());
        all
    }

    fn audit(&self) -> Dependency {
        let (condition, since, error) = match self.gateway.journal.status().health {
            Health::Ok => (Condition::Ok, None, None),
            Health::Failed { since, error } => (Condition::Down, Some(since.rfc3339()), Some(error.to_string())),
        };
        Dependency { name: "audit".into(), condition, since, error }
    }

    fn policy(&self) -> Dependency {
        let status = self.gateway.policy.status();
        let (condition, since, error) = match &status.rejected {
            None => (Condition::Ok, &status.running.since, None),
            Some(rejected) => (Condition::Degraded, &rejected.since, Some(rejected.error.clone())),
        };
        Dependency { name: "policy".into(), condition, since: Some(since.clone()), error }
    }

    /// Tokens that are at hand keep working while none can be minted.
    async fn credential(&self) -> Dependency {
        let trouble = self.gateway.broker.status().await.last_error;
        Dependency {
            name: "credential".into(),
            condition: if trouble.is_some() { Condition::Degraded } else { Condition::Ok },
            since: trouble.as_ref().map(|trouble| trouble.at.rfc3339()),
            error: trouble.map(|trouble| trouble.error.to_string()),
        }
    }

    /// One issuer without keys concerns its own workflows only; when none has keys, nobody can pass.
    fn issuers(&self) -> impl Iterator<Item = Dependency> {
        let issuers = self.gateway.identity.status();
        let none_is_usable = issuers.iter().all(|issuer| !issuer.usable);
        issuers.into_iter().map(move |issuer| Dependency {
            name: format!("issuer {}", issuer.name),
            condition: match (issuer.usable, &issuer.error) {
                (true, None) => Condition::Ok,
                (false, _) if none_is_usable => Condition::Down,
                _ => Condition::Degraded,
            },
            since: issuer.fetched.map(Timestamp::rfc3339),
            error: issuer.error.map(|error| error.to_string()),
        })
    }
}

fn reload_certificate(certificate: &Certificate) -> bool {
    match certificate.reload() {
        Ok(()) => {
            tracing::info!("certificate reloaded");
            true
        }
        Err(error) => {
            tracing::error!(%error, "certificate not reloaded; the last good one stays");
            false
        }
    }
}

async fn ready(State(desk): State<Desk>) -> Response {
    let dependencies = desk.dependencies().await;
    let worst = dependencies.iter().map(|dependency| dependency.condition).max().unwrap_or(Condition::Ok);
    let (code, status) = match worst {
        Condition::Ok => (StatusCode::OK, "ready"),
        Condition::Degraded => (StatusCode::OK, "degraded"),
        Condition::Down => (StatusCode::SERVICE_UNAVAILABLE, "unready"),
    };
    let dependencies: Vec<Value> = dependencies.iter().map(Dependency::to_json).collect();
    (code, Json(json!({"status": status, "dependencies": dependencies}))).into_response()
}

async fn metrics(State(desk): State<Desk>) -> Response {
    let gateway = &desk.gateway;
    let (audit, issuers) = (gateway.journal.counters(), gateway.identity.status());
    let bounds = SYNC_BUCKETS.into_iter().chain([f64::INFINITY]);
    gateway.metrics.observe(Counts {
        mints: gateway.broker.mints(),
        audit_records: audit.records,
        jwks_fetches: issuers.into_iter().map(|issuer| (issuer.name.to_string(), issuer.fetches)).collect(),
        audit_sync: SyncTimes { sum: audit.sync_seconds, buckets: bounds.zip(audit.sync_buckets).collect() },
    });
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], gateway.metrics.render())
        .into_response()
}

async fn status(State(desk): State<Desk>, headers: HeaderMap) -> Response {
    if !desk.open && !desk.is_authorized(&headers) {
        return unauthorized();
    }
    let gateway = &desk.gateway;
    let (policy, broker, now) = (gateway.policy.status(), gateway.broker.status().await, gateway.clock.now());
    let age = |since: Timestamp| now.since(since).as_secs();
    let issuers: Vec<Value> = gateway
        .identity
        .status()
        .into_iter()
        .map(|issuer| {
            let keys: Vec<Value> =
                issuer.keys.iter().map(|key| json!({"kid": key.id, "age_seconds": age(key.first_seen)})).collect();
            json!({
                "name": issuer.name, "kind": issuer.kind, "url": issuer.url, "usable": issuer.usable, "keys": keys,
                "fetched": issuer.fetched.map(Timestamp::rfc3339),
                "error": issuer.error.map(|error| error.to_string()),
            })
        })
        .collect();
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "started": desk.started.rfc3339(),
        "config_digest": desk.config_digest,
        "policy": *policy,
        "issuers": issuers,
        "credential": {
            "kind": "resource_token",
            "enforced_by": "cosmos",
            "account_key": {
                "source": broker.key.source,
                "since": broker.key.since.map(Timestamp::rfc3339),
                "error": broker.key.last_error.map(|trouble| trouble.error.to_string()),
            },
            "cached_tokens": broker.cached_tokens,
            "mints": broker.mints,
        },
    }))
    .into_response()
}

async fn reload(State(desk): State<Desk>, headers: HeaderMap) -> Response {
    if !desk.is_authorized(&headers) {
        return unauthorized();
    }
    let at_work = desk.clone();
    // Reading policies blocks on files and on git.
    let applied = tokio::task::spawn_blocking(move || at_work.reload()).await.unwrap_or(false);
    let code = if applied { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    (code, Json(json!({"applied": applied, "revision": desk.gateway.policy.current().revision().as_str()})))
        .into_response()
}

fn unauthorized() -> Response {
    let detail = "send `Authorization: Bearer` with the admin token; without `admin_token` in the configuration such calls are off";
    (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], Json(json!({"detail": detail}))).into_response()
}
