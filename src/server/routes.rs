//! Every route of the gateway listener, and every layer around it, on one page.
//!
//! The layers are few on purpose: limits and deadlines belong to the walk, since a request they refuse still gets an
//! answer in its caller's form and a record.

use std::sync::Arc;

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header::Entry},
    middleware::map_response,
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;
use tokio_util::task::TaskTracker;
use tower_http::catch_panic::CatchPanicLayer;

use super::listen::Connection;
use crate::{answer::REQUEST_ID, context::RequestId, gateway::Gateway};

/// What the routes share.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) gateway: Arc<Gateway>,
    /// Requests on their walk: they finish, and are recorded, even when their caller leaves.
    pub(super) walks: TaskTracker,
}

pub(super) fn routes(door: Door) -> Router {
    Router::new()
        .route("/.well-known/oauth-protected-resource", get(protected_resource))
        .fallback(walk)
        .layer(CatchPanicLayer::new())
        .layer(map_response(identify))
        .with_state(door)
}

/// RFC 9728: whom to ask for a token.
async fn protected_resource(
    State(door): State<Door>,
    Extension(connection): Extension<Connection>,
    request: Request,
) -> Response {
    let Some(resource) = door.gateway.address(&request, connection.encrypted) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let issuers: Vec<String> = door.gateway.rooms.identity.status().into_iter().map(|issuer| issuer.url).collect();
    let metadata = json!({
        "resource": resource.as_str(),
        "authorization_servers": issuers,
        "bearer_methods_supported": ["header"],
        "resource_name": "stepgate",
    });
    Json(metadata).into_response()
}

/// Every answer has a request id: the walk's own, or one for an answer that no walk made.
async fn identify(mut response: Response) -> Response {
    let id = HeaderValue::try_from(RequestId::new().as_str());
    if let (Entry::Vacant(place), Ok(id)) = (response.headers_mut().entry(REQUEST_ID), id) {
        place.insert(id);
    }
    response
}

async fn walk(State(door): State<Door>, Extension(connection): Extension<Connection>, request: Request) -> Response {
    let gateway = door.gateway.clone();
    let walk = door.walks.spawn(async move { gateway.answer(connection.peer, connection.encrypted, request).await });
    match walk.await {
        Ok(response) => response.map(Body::from),
        Err(error) => {
            tracing::error!(%error, "a walk did not end");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
