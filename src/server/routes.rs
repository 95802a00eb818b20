//! Every route of the gateway listener, and what every request passes, on one page.
//!
//! It is a `match` and no router: nearly every request is a walk, and a router in front of it cost as much as policy and limits
//! together. What stands around it is little on purpose: limits and deadlines belong to the walk, since a request they refuse still
//! gets an answer in its caller's form and a record.

use std::{
    any::Any,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    Json,
    body::Body,
    extract::Request,
    http::{HeaderValue, Method, StatusCode, header, header::Entry},
    response::{IntoResponse, Response},
};
use futures_util::FutureExt as _;
use hyper::body::Incoming;
use serde_json::json;
use tokio_util::task::TaskTracker;

use super::listen::{Connection, Routes};
use crate::{
    answer::REQUEST_ID,
    context::RequestId,
    gateway::Gateway,
    mcp::{self, Face},
};

/// RFC 9728, section 3: where a client asks for whom it should get a token from.
const METADATA: &str = ".well-known/oauth-protected-resource";

/// The gateway listener.
pub(super) struct Front {
    pub(super) gateway: Arc<Gateway>,
    /// Requests on their walk: they finish, and are recorded, even when their caller leaves.
    pub(super) walks: TaskTracker,
    /// The face for agents, where there is one.
    pub(super) face: Option<Face>,
}

impl Routes for Arc<Front> {
    type Body = Body;

    fn answer(
        self,
        connection: Connection,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response> + Send + 'static {
        whole(self.route(connection, request.map(Body::new)))
    }
}

impl Front {
    async fn route(self: Arc<Self>, connection: Connection, request: Request) -> Response {
        match (request.uri().path().strip_prefix('/'), &self.face) {
            (Some(METADATA), _) => self.protected_resource("", connection, request),
            (Some(mcp::METADATA), Some(_)) => self.protected_resource(mcp::PATH, connection, request),
            (Some(mcp::PATH), Some(face)) => {
                Box::pin(face.answer(connection.peer, connection.encrypted, request)).await
            }
            _ => self.walk(connection, request).await,
        }
    }

    /// RFC 9728: whom to ask for a token, for the gateway as a whole or for its face for agents, which is `below` it.
    fn protected_resource(&self, below: &str, connection: Connection, request: Request) -> Response {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET, HEAD")]).into_response();
        }
        let (head, _) = request.into_parts();
        let address = self.gateway.address(&head, connection.encrypted);
        let Some(resource) = address.and_then(|address| address.join(below).ok()) else {
            return StatusCode::NOT_FOUND.into_response();
        };
        let issuers: Vec<String> = self.gateway.rooms.identity.status().into_iter().map(|issuer| issuer.url).collect();
        let metadata = json!({
            "resource": resource.as_str(),
            "authorization_servers": issuers,
            "bearer_methods_supported": ["header"],
            "resource_name": "stepgate",
        });
        let answer = Json(metadata).into_response();
        // Over HTTP/2 hyper would send the body.
        if head.method == Method::HEAD { answer.map(|_| Body::empty()) } else { answer }
    }

    async fn walk(&self, connection: Connection, request: Request) -> Response {
        let gateway = Arc::clone(&self.gateway);
        let walk = async move { gateway.answer(connection.peer, connection.encrypted, request).await };
        ToTheEnd { walk: Some(Box::pin(walk)), walks: self.walks.clone() }.await.map(Body::from)
    }
}

/// What every request passes: one that panics is answered, and every answer has a request id.
async fn whole(answer: impl Future<Output = Response>) -> Response {
    identify(AssertUnwindSafe(answer).catch_unwind().await.unwrap_or_else(|panic| broken(&*panic)))
}

fn broken(panic: &(dyn Any + Send)) -> Response {
    let said = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(panic = said, "a request could not be answered");
    StatusCode::INTERNAL_SERVER_ERROR.into_response()
}

/// Every answer has a request id: the walk's own, or one for an answer that no walk made.
fn identify(mut response: Response) -> Response {
    if let Entry::Vacant(place) = response.headers_mut().entry(REQUEST_ID)
        && let Ok(id) = HeaderValue::try_from(RequestId::new().as_str())
    {
        place.insert(id);
    }
    response
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
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_answer_with_a_request_id() {
        let response = whole(async { panic!("of this test") }).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(response.headers().contains_key(REQUEST_ID));
    }
}
