//! The face for agents: `/mcp`, where the gateway speaks the Model Context Protocol.
//!
//! Decided here: which tools there are, what their arguments mean, how an answer of the walk looks as a tool's result, and from
//! which pages and under which names the face may be called. An agent finds four tools, all of which read. A tool that touches data
//! is made into the request that a workflow would have sent, with the caller's own token and context, and given to the gateway;
//! so there is no second way to the data, and identity, revocation, policy, limits and audit are the same.
//!
//! This room refuses to know who asks and what they may. It keeps nothing between two requests: there are no sessions, each
//! message is a POST with a token and is answered by one JSON object.
//!
//! The protocol itself is rmcp's. It sees neither the caller's token (which waits in the request's extensions) nor a request
//! of somebody whom the gateway does not let in.

mod call;
mod caller;
mod origin;
mod outcome;
mod tools;

use std::{net::SocketAddr, sync::Arc};

use axum::body::Body;
use bytes::Bytes;
use http::{
    HeaderValue, Request, Response, StatusCode,
    header::{CONTENT_TYPE, WWW_AUTHENTICATE},
};
use http_body_util::{BodyExt as _, Full};
use rmcp::transport::streamable_http_server::{
    StreamableHttpServerConfig, StreamableHttpService, session::never::NeverSessionManager,
};
use serde_json::json;
use tokio_util::task::TaskTracker;
use url::Url;

pub use self::origin::{AllowedHost, AllowedOrigin, Config};
use self::{caller::Caller, tools::Tools};
use crate::{answer::REQUEST_ID, gateway::Gateway};

/// Where the face is, below the gateway's address.
pub const PATH: &str = "mcp";
/// Where RFC 9728 puts the metadata of what is at [`PATH`].
pub const METADATA: &str = ".well-known/oauth-protected-resource/mcp";

/// The face for agents.
pub struct Face {
    config: Config,
    gateway: Arc<Gateway>,
    protocol: StreamableHttpService<Tools, NeverSessionManager>,
}

impl Face {
    /// The face of a gateway. `walks` owns the walks that tools begin: an agent that leaves does not end them.
    pub fn new(config: Config, gateway: Arc<Gateway>, walks: TaskTracker) -> Self {
        let tools = Tools::new(gateway.clone(), walks);
        // Hosts and origins are looked at here, before anything else, and bodies are read by the gateway, within its own bounds.
        let protocol = StreamableHttpServerConfig::default()
            .with_legacy_session_mode(false)
            .with_json_response(true)
            .with_max_request_body_bytes(usize::MAX)
            .disable_allowed_hosts();
        let protocol = StreamableHttpService::new(move || Ok(tools.clone()), Arc::default(), protocol);
        Self { config, gateway, protocol }
    }

    /// Answers one message. The caller must come from an allowed page and under an allowed name, and be let in by the gateway; then
    /// the protocol reads the message.
    pub async fn answer(&self, peer: SocketAddr, encrypted: bool, request: Request<Body>) -> Response<Body> {
        if let Err(stranger) = self.config.check(request.uri(), request.headers()) {
            return refuse(StatusCode::FORBIDDEN, &stranger.to_string());
        }
        let (mut head, body) = request.into_parts();
        let address = self.gateway.address(&head, encrypted);
        let body = match self.gateway.receive(peer, &head, body).await {
            Ok(body) => body,
            Err(refused) => return with_metadata(*refused, address).map(Body::from),
        };
        let walked = Caller::step_aside(&mut head, peer, encrypted);
        let (mut head, body) = self.protocol.handle(Request::from_parts(head, Full::new(body))).await.into_parts();
        head.headers.extend(walked.get().map(|id| (REQUEST_ID, id.clone())));
        let Ok(body) = body.collect().await;
        match self.gateway.hold(body.to_bytes()) {
            Some(body) => Response::from_parts(head, Body::from(body)),
            None => refuse(StatusCode::SERVICE_UNAVAILABLE, "the gateway has as many bytes in flight as it may hold"),
        }
    }
}

impl std::fmt::Debug for Face {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Face").field("config", &self.config).finish_non_exhaustive()
    }
}

/// A refusal that no walk made.
fn refuse(status: StatusCode, detail: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(json!({ "status": status.as_u16(), "detail": detail }).to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Says beside a 401 where a client finds out whom to ask for a token (RFC 9728, section 5.1).
fn with_metadata(mut refused: Response<Bytes>, address: Option<Url>) -> Response<Bytes> {
    let place = address.and_then(|address| address.join(METADATA).ok());
    if let (StatusCode::UNAUTHORIZED, Some(place)) = (refused.status(), place)
        && let Ok(challenge) =
            HeaderValue::try_from(format!(r#"Bearer resource_metadata="{place}", error="invalid_token""#))
    {
        refused.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    refused
}
