//! The admin listener: health, metrics, status, reload; revocations are on a page of their own.
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
use serde_json::json;

use super::{health, revocation, tls::Certificate};
use crate::{
    audit::{AnchorStatus, SYNC_BUCKETS},
    clock::Timestamp,
    gateway::Gateway,
    secret::Secret,
    telemetry::{AnchorCounts, Counts, IssuerCounts, SyncTimes},
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
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .route("/reload", post(reload))
        .merge(revocation::routes())
        .with_state(desk)
}

impl Desk {
    /// Reads policies, certificates and the account key again; what cannot be used leaves the running one in place. Says
    /// whether all could. Reading files blocks, and git too, so that is done away from the runtime.
    pub(super) async fn reload(&self) -> bool {
        let desk = self.clone();
        let files = tokio::task::spawn_blocking(move || desk.read_again());
        let (files, key) = tokio::join!(files, self.gateway.rooms.broker.reload());
        files.unwrap_or(false) && key.is_ok()
    }

    fn read_again(&self) -> bool {
        let policies = self.gateway.rooms.policy.reload().is_ok();
        self.gateway.metrics.policy_reload(policies);
        let failed = self.certificates.iter().filter(|certificate| !reload_certificate(certificate)).count();
        policies && failed == 0
    }

    /// Takes in what changes on disk: policies when the file system says so, certificates looking every so often.
    pub(super) async fn watch(&self, every: Duration) {
        tokio::join!(self.watch_policies(), self.watch_certificates(every));
    }

    async fn watch_policies(&self) {
        let mut watch = self.gateway.rooms.policy.watch();
        loop {
            let reloaded = watch.next_reload().await;
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

    /// Whether what the gateway knows of its callers may be read: by anyone on loopback, else with the admin token.
    pub(super) fn may_read(&self, headers: &HeaderMap) -> bool {
        self.open || self.is_authorized(headers)
    }

    pub(super) fn is_authorized(&self, headers: &HeaderMap) -> bool {
        let sent = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        matches!((&self.token, sent), (Some(token), Some(sent)) if token.matches(sent))
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

async fn metrics(State(desk): State<Desk>) -> Response {
    let gateway = &desk.gateway;
    let (audit, now) = (gateway.rooms.journal.counters(), gateway.rooms.clock.now());
    let issuers = gateway.rooms.identity.status().into_iter().map(|status| IssuerCounts {
        issuer: status.name.to_string(),
        fetches: status.fetches,
        age: status.fetched.map(|fetched| now.since(fetched).as_secs()),
        usable: status.usable,
    });
    let budget = gateway.rooms.broker.budget();
    let bounds = SYNC_BUCKETS.into_iter().chain([f64::INFINITY]);
    gateway.metrics.observe(Counts {
        mints: gateway.rooms.broker.mints(),
        metadata_units: budget.spent,
        metadata_throttles: budget.throttled,
        audit_records: audit.records,
        revocations: gateway.rooms.revocations.status().revocations,
        issuers: issuers.collect(),
        anchors: gateway.rooms.journal.status().anchors.into_iter().map(anchor_counts).collect(),
        audit_sync: SyncTimes { sum: audit.sync_seconds, buckets: bounds.zip(audit.sync_buckets).collect() },
    });
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], gateway.metrics.render())
        .into_response()
}

fn anchor_counts(anchor: AnchorStatus) -> AnchorCounts {
    let AnchorStatus { name, anchored, failures, waiting, .. } = anchor;
    AnchorCounts { name, anchored, failures, waiting }
}

async fn status(State(desk): State<Desk>, headers: HeaderMap) -> Response {
    if desk.may_read(&headers) { Json(desk.status().await).into_response() } else { unauthorized() }
}

async fn reload(State(desk): State<Desk>, headers: HeaderMap) -> Response {
    if !desk.is_authorized(&headers) {
        return unauthorized();
    }
    let applied = desk.reload().await;
    let code = if applied { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    (code, Json(json!({"applied": applied, "revision": desk.gateway.rooms.policy.current().revision().as_str()})))
        .into_response()
}

pub(super) fn unauthorized() -> Response {
    let detail = "send `Authorization: Bearer` with the admin token; without `admin_token` in the configuration such calls are off";
    (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], Json(json!({"detail": detail}))).into_response()
}
