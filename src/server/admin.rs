//! The admin listener: health, metrics, status, reload; revocations are on a page of their own.
//!
//! Reading is open on loopback. What changes something wants the admin token on any address, since the containers of a pod
//! share loopback; so does `/status` off loopback.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::json;

use super::{health, metrics, revocation, tls::Certificate};
use crate::{clock::Timestamp, gateway::Gateway, secret::Secret};

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
    /// Whether it has been ready since its start.
    pub(super) was_ready: Arc<AtomicBool>,
}

pub(super) fn routes(desk: Desk) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(health::ready))
        .route("/startupz", get(health::started))
        .route("/metrics", get(metrics::read))
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
        let (files, key) = tokio::join!(files, self.gateway.rooms.exchange.reload());
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
