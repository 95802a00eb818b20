//! Every route of the gateway listener, and every layer around it, on one page.
//!
//! The layers are few on purpose: limits and deadlines belong to the walk, since a request they refuse still gets an
//! answer in its caller's form and a record.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header::Entry},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use bytes::Bytes;
use serde_json::json;
use tokio_util::task::TaskTracker;
use tower::{BoxError, util::MapResponse};
use tower_http::{
    body::UnsyncBoxBody,
    catch_panic::{CatchPanic, DefaultResponseForPanic},
};

use super::listen::{Connection, Routes};
use crate::{
    answer::REQUEST_ID,
    context::RequestId,
    gateway::Gateway,
    mcp::{self, Face},
};

/// What the routes share.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) gateway: Arc<Gateway>,
    /// Requests on their walk: they finish, and are recorded, even when their caller leaves.
    pub(super) walks: TaskTracker,
}

/// The routes, with the face for agents where there is one.
pub(super) fn routes(door: Door, face: Option<Face>) -> impl Routes {
    let routes = Router::new().route("/.well-known/oauth-protected-resource", get(protected_resource));
    let routes = match face {
        Some(face) => routes
            .route(&format!("/{}", mcp::METADATA), get(protected_resource))
            .route(&format!("/{}", mcp::PATH), any(agent).with_state(Arc::new(face))),
        None => routes,
    };
    around(routes.fallback(walk).with_state(door))
}

/// What every request passes. It stands around the router and not in it, where each layer is a box and a copy of the service for every
/// request.
fn around<S>(routes: S) -> MapResponse<CatchPanic<S, DefaultResponseForPanic>, fn(Caught) -> Caught> {
    MapResponse::new(CatchPanic::new(routes), identify)
}

type Caught = Response<UnsyncBoxBody<Bytes, BoxError>>;

/// RFC 9728: whom to ask for a token, for the gateway as a whole or for its face for agents.
async fn protected_resource(
    State(door): State<Door>,
    Extension(connection): Extension<Connection>,
    request: Request,
) -> Response {
    let (head, _) = request.into_parts();
    let below = if head.uri.path().ends_with(mcp::PATH) { mcp::PATH } else { "" };
    let address = door.gateway.address(&head, connection.encrypted);
    let Some(resource) = address.and_then(|address| address.join(below).ok()) else {
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

/// A message of an agent.
async fn agent(
    State(face): State<Arc<Face>>,
    Extension(connection): Extension<Connection>,
    request: Request,
) -> Response {
    face.answer(connection.peer, connection.encrypted, request).await
}

/// Every answer has a request id: the walk's own, or one for an answer that no walk made.
fn identify(mut response: Caught) -> Caught {
    if let Entry::Vacant(place) = response.headers_mut().entry(REQUEST_ID)
        && let Ok(id) = HeaderValue::try_from(RequestId::new().as_str())
    {
        place.insert(id);
    }
    response
}

async fn walk(State(door): State<Door>, Extension(connection): Extension<Connection>, request: Request) -> Response {
    let Door { gateway, walks } = door;
    let walk = async move { gateway.answer(connection.peer, connection.encrypted, request).await };
    ToTheEnd { walk: Some(Box::pin(walk)), walks }.await.map(Body::from)
}

/// A walk that goes on when its caller leaves: then a task of its own finishes it. As long as the caller stays, the task of the
/// connection walks, which spares every request the way through the scheduler.
struct ToTheEnd<F: Future<Output: Send> + Send + 'static> {
    walk: Option<Pin<Box<F>>>,
    walks: TaskTracker,
}

impl<F: Future<Output: Send> + Send + 'static> Future for ToTheEnd<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        // Taken, so that a walk that panics ends there.
        let Some(mut walk) = self.walk.take() else { return Poll::Pending };
        let polled = walk.as_mut().poll(cx);
        if polled.is_pending() {
            self.walk = Some(walk);
        }
        polled
    }
}

impl<F: Future<Output: Send> + Send + 'static> Drop for ToTheEnd<F> {
    fn drop(&mut self) {
        // Outside a runtime it has nowhere to go on.
        if let Some(walk) = self.walk.take()
            && tokio::runtime::Handle::try_current().is_ok()
        {
            self.walks.spawn(walk);
        }
    }
}

#[cfg(test)]
mod tests {
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_answer_with_a_request_id() {
        async fn broken() -> StatusCode {
            panic!("of this test")
        }
        let routes = around(Router::new().route("/", get(broken)));
        let response = routes.oneshot(Request::new(Body::empty())).await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(response.headers().contains_key(REQUEST_ID));
    }
}
