//! `/revoke` and `/revocations`: who may no longer ask.

use axum::{
    Extension, Json, Router,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use serde::Serialize;
use serde_json::json;

use super::{
    admin::{Desk, unauthorized},
    listen::Connection,
};
use crate::{
    audit::Phase,
    clock::Timestamp,
    revocation::{Malformed, Revocation, Target},
};

/// What the answer says of an execution, since it is easily taken for more than it is.
const CLAIMED: &str = "this stops requests that say they are of the execution; a caller that leaves the header out is not stopped: \
                       to stop a workload, revoke its subject or its client";

pub(super) fn routes() -> Router<Desk> {
    Router::new()
        .route("/revoke", post(revoke))
        .route("/revocations", get(list).delete(lift_target))
        .route("/revocations/{id}", delete(lift_id))
}

async fn revoke(
    State(desk): State<Desk>,
    Extension(connection): Extension<Connection>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if !desk.is_authorized(&headers) {
        return unauthorized();
    }
    let order = match desk.gateway.rooms.revocations.read(&body) {
        Ok(order) => order,
        Err(malformed) => return reject(&malformed),
    };
    let (revocation, saved) = match desk.gateway.rooms.revocations.revoke(order).await {
        Ok(revoked) => revoked,
        Err(full) => {
            return (StatusCode::INSUFFICIENT_STORAGE, Json(json!({"detail": full.to_string()}))).into_response();
        }
    };
    tracing::warn!(%revocation, "revoked");
    let recorded = desk.gateway.record_change(Phase::Revoke, &revocation, connection.peer).await;
    let trouble = saved.err().map(|error| error.to_string()).or(recorded.err().map(|refusal| refusal.detail));
    let is_execution = matches!(revocation.target, Target::Execution { .. });
    let answer = Shown {
        note: is_execution.then_some(CLAIMED),
        detail: trouble
            .as_ref()
            .map(|trouble| format!("in force at this gateway; not yet kept and recorded as it should be: {trouble}")),
        ..Shown::of(&revocation, true)
    };
    let code = if trouble.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(answer)).into_response()
}

async fn list(State(desk): State<Desk>, headers: HeaderMap) -> Response {
    if !desk.may_read(&headers) {
        return unauthorized();
    }
    let all = desk.gateway.rooms.revocations.list();
    let all: Vec<Shown<'_>> = all.iter().map(|revocation| Shown::of(revocation, true)).collect();
    let status = desk.gateway.rooms.revocations.status();
    Json(json!({"revocations": all, "store": status.store, "unsaved": status.unsaved})).into_response()
}

async fn lift_target(
    State(desk): State<Desk>,
    Extension(connection): Extension<Connection>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if !desk.is_authorized(&headers) {
        return unauthorized();
    }
    match desk.gateway.rooms.revocations.read(&body) {
        Ok(order) => desk.lift(&order.target.id(), connection).await,
        Err(malformed) => reject(&malformed),
    }
}

async fn lift_id(
    State(desk): State<Desk>,
    Extension(connection): Extension<Connection>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Response {
    if desk.is_authorized(&headers) { desk.lift(&id, connection).await } else { unauthorized() }
}

impl Desk {
    /// Lifts a revocation: first the record, then the store, and only then is the caller let in again.
    async fn lift(&self, id: &str, connection: Connection) -> Response {
        let Some(revocation) = self.gateway.rooms.revocations.get(id) else {
            let detail = format!("there is no revocation `{id}`; `GET /revocations` lists them");
            return (StatusCode::NOT_FOUND, Json(json!({"detail": detail}))).into_response();
        };
        let stays = |trouble: String| {
            let detail = format!("still in force: {trouble}");
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"id": id, "in_force": true, "detail": detail})))
                .into_response()
        };
        if let Err(refusal) = self.gateway.record_change(Phase::Lift, &revocation, connection.peer).await {
            return stays(refusal.detail);
        }
        match self.gateway.rooms.revocations.lift(id).await {
            Ok(_) => {
                tracing::warn!(%revocation, "revocation lifted");
                Json(Shown::of(&revocation, false)).into_response()
            }
            Err(error) => {
                // The log said that it was lifted, and it was not: say so there too.
                let _ = self.gateway.record_change(Phase::Revoke, &revocation, connection.peer).await;
                stays(error.to_string())
            }
        }
    }
}

/// A revocation as the operator sees it: the target's own members, so that what was posted is what is shown.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    target: &'a Target,
    id: &'a str,
    since: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    in_force: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

impl<'a> Shown<'a> {
    fn of(revocation: &'a Revocation, in_force: bool) -> Self {
        Self {
            target: &revocation.target,
            id: &revocation.id,
            since: revocation.since.rfc3339(),
            until: revocation.until.map(Timestamp::rfc3339),
            reason: revocation.reason.as_deref(),
            in_force,
            note: None,
            detail: None,
        }
    }
}

fn reject(malformed: &Malformed) -> Response {
    (StatusCode::BAD_REQUEST, Json(json!({"detail": malformed.to_string()}))).into_response()
}
