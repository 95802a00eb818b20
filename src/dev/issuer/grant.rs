//! The token endpoint: client credentials (RFC 6749, section 4.4).
//!
//! How EventBridge sends a connection's credentials is not documented, so all three ways are understood: a form body, a
//! JSON body, and HTTP Basic.

use std::collections::HashMap;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{
    HeaderMap, StatusCode,
    header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE},
};
use serde_json::{Value, json};
use url::form_urlencoded;

use super::Issuer;

/// The errors of RFC 6749, section 5.2 that can happen here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum GrantError {
    #[error("send grant_type, client_id and client_secret, each once, as a form, as JSON, or with HTTP Basic")]
    InvalidRequest,
    #[error("the client is unknown or its secret is wrong")]
    InvalidClient { basic: bool },
    #[error("only client_credentials is granted here")]
    UnsupportedGrantType,
    #[error("the token could not be signed")]
    ServerError,
}

impl GrantError {
    fn code(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidClient { .. } => "invalid_client",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::ServerError => "server_error",
        }
    }
}

impl IntoResponse for GrantError {
    fn into_response(self) -> Response {
        let body = Json(json!({"error": self.code(), "error_description": self.to_string()}));
        let status = match self {
            Self::InvalidRequest | Self::UnsupportedGrantType => StatusCode::BAD_REQUEST,
            Self::InvalidClient { .. } => StatusCode::UNAUTHORIZED,
            Self::ServerError => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let mut response = (status, [(CACHE_CONTROL, "no-store")], body).into_response();
        if matches!(self, Self::InvalidClient { basic: true }) {
            let challenge = http::HeaderValue::from_static("Basic realm=\"stepgate dev issuer\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

/// Answers a token request.
pub(super) fn grant(issuer: &Issuer, headers: &HeaderMap, body: &[u8]) -> Result<Response, GrantError> {
    let parameters = parameters(headers, body)?;
    let parameter = |name: &str| parameters.get(name).map(String::as_str).filter(|value| !value.is_empty());
    let basic = basic(headers)?;
    let (id, secret) = match (&basic, parameter("client_id"), parameter("client_secret")) {
        (None, Some(id), Some(secret)) => (id, secret),
        (Some((id, secret)), other, None) if other.is_none_or(|other| other == id) => (id.as_str(), secret.as_str()),
        _ => return Err(GrantError::InvalidRequest),
    };
    match parameter("grant_type") {
        Some("client_credentials") => {}
        Some(_) => return Err(GrantError::UnsupportedGrantType),
        None => return Err(GrantError::InvalidRequest),
    }
    let client = issuer
        .client(id)
        .filter(|client| client.client_secret.matches(secret))
        .ok_or(GrantError::InvalidClient { basic: basic.is_some() })?;
    let token = issuer.token_of(client).map_err(|_| GrantError::ServerError)?;
    let answer = json!({
        "access_token": token,
        "token_type": "Bearer",
        "expires_in": issuer.config().lifetime.as_secs(),
    });
    Ok(([(CACHE_CONTROL, "no-store")], Json(answer)).into_response())
}

/// The parameters of the body; none may occur twice (RFC 6749, section 3.2).
fn parameters(headers: &HeaderMap, body: &[u8]) -> Result<HashMap<String, String>, GrantError> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let pairs: Vec<(String, String)> = if content_type.starts_with("application/json") {
        let members: HashMap<String, Value> = serde_json::from_slice(body).map_err(|_| GrantError::InvalidRequest)?;
        members.into_iter().filter_map(|(name, value)| Some((name, value.as_str()?.to_owned()))).collect()
    } else {
        form_urlencoded::parse(body).into_owned().collect()
    };
    let mut parameters = HashMap::new();
    for (name, value) in pairs {
        if parameters.insert(name, value).is_some() {
            return Err(GrantError::InvalidRequest);
        }
    }
    Ok(parameters)
}

/// The client and secret of HTTP Basic, each form-encoded by itself (RFC 6749, section 2.3.1).
fn basic(headers: &HeaderMap) -> Result<Option<(String, String)>, GrantError> {
    let Some(value) = headers.get(AUTHORIZATION) else { return Ok(None) };
    let read = || -> Option<(String, String)> {
        let (scheme, credentials) = value.to_str().ok()?.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let decoded = String::from_utf8(STANDARD.decode(credentials.trim()).ok()?).ok()?;
        let (id, secret) = decoded.split_once(':')?;
        Some((form_decoded(id), form_decoded(secret)))
    };
    read().map(Some).ok_or(GrantError::InvalidClient { basic: true })
}

fn form_decoded(text: &str) -> String {
    // A form body of one name and no value.
    form_urlencoded::parse(text.as_bytes()).map(|(name, _)| name.into_owned()).next().unwrap_or_default()
}
