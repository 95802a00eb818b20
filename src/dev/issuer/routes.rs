//! What the issuer answers: OpenID Connect on the usual paths, and `/_stepgate/` for tests.

use std::{future::Future, io, time::Duration};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderMap, StatusCode, Uri};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use url::form_urlencoded;

use super::{
    Issuer, Outage, Rotation, Stats,
    grant::{self, GrantError},
};
use crate::config::dev::SigningAlgorithm;

/// Serves `issuer` on `listener` until `shutdown` resolves.
pub async fn serve(
    listener: TcpListener,
    issuer: Issuer,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    axum::serve(listener, routes(issuer)).with_graceful_shutdown(shutdown).await
}

fn routes(issuer: Issuer) -> Router {
    let provider = Router::new()
        .route("/.well-known/openid-configuration", get(discovery))
        .route("/jwks", get(jwks))
        .route("/token", post(token))
        // Where Entra's is.
        .route("/{tenant}/oauth2/v2.0/token", post(token))
        .layer(from_fn_with_state(issuer.clone(), unless_out));
    let controls = Router::new()
        .route("/_stepgate/rotate", post(rotate))
        .route("/_stepgate/mint", post(mint))
        .route("/_stepgate/outage", post(outage))
        .route("/_stepgate/stats", get(stats));
    provider.merge(controls).with_state(issuer)
}

async fn unless_out(State(issuer): State<Issuer>, request: Request, next: Next) -> Response {
    if issuer.is_out() {
        return (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"error": "temporarily_unavailable"}))).into_response();
    }
    next.run(request).await
}

async fn discovery(State(issuer): State<Issuer>) -> Json<Value> {
    issuer.count(|stats| stats.discovery += 1);
    let url = issuer.url();
    Json(json!({
        "issuer": url,
        "jwks_uri": format!("{url}/jwks"),
        "token_endpoint": format!("{url}/token"),
        "grant_types_supported": ["client_credentials"],
        "response_types_supported": [],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256", "ES256"],
        "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"],
    }))
}

async fn jwks(State(issuer): State<Issuer>) -> Json<Value> {
    issuer.count(|stats| stats.jwks += 1);
    Json(issuer.keys().document())
}

async fn token(State(issuer): State<Issuer>, headers: HeaderMap, body: Bytes) -> Result<Response, GrantError> {
    issuer.count(|stats| stats.token += 1);
    grant::grant(&issuer, &headers, &body)
}

/// A control was not understood, or could not be obeyed.
enum Refused {
    Malformed(String),
    Failed,
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        match self {
            Self::Malformed(detail) => {
                (StatusCode::BAD_REQUEST, Json(json!({"error": "malformed", "detail": detail}))).into_response()
            }
            Self::Failed => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        }
    }
}

fn read<'a, T: Deserialize<'a> + Default>(body: &'a [u8]) -> Result<T, Refused> {
    if body.trim_ascii().is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(body).map_err(|error| Refused::Malformed(error.to_string()))
}

async fn rotate(State(issuer): State<Issuer>, uri: Uri) -> Result<Json<Value>, Refused> {
    let mut rotation = Rotation::default();
    for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        match (name.as_ref(), value.as_ref()) {
            ("drop", "old") => rotation.drop_old = true,
            ("alg", "RS256") => rotation.algorithm = Some(SigningAlgorithm::RS256),
            ("alg", "ES256") => rotation.algorithm = Some(SigningAlgorithm::ES256),
            _ => return Err(Refused::Malformed("the parameters are drop=old and alg=RS256 or alg=ES256".to_owned())),
        }
    }
    let signing = issuer.rotate(rotation).map_err(|_| Refused::Failed)?;
    Ok(Json(json!({ "signing": signing })))
}

async fn mint(State(issuer): State<Issuer>, body: Bytes) -> Result<Json<Value>, Refused> {
    let token = issuer.mint(read(&body)?).map_err(|_| Refused::Failed)?;
    Ok(Json(json!({ "access_token": token })))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct OutageOrder {
    ms: Option<u64>,
    on: Option<bool>,
}

async fn outage(State(issuer): State<Issuer>, body: Bytes) -> Result<StatusCode, Refused> {
    let outage = match read(&body)? {
        OutageOrder { ms: Some(ms), on: None } => Outage::For(Duration::from_millis(ms)),
        OutageOrder { ms: None, on: Some(true) } => Outage::On,
        OutageOrder { ms: None, on: Some(false) } => Outage::Off,
        _ => return Err(Refused::Malformed("send either {\"ms\": 5000} or {\"on\": true}".to_owned())),
    };
    issuer.set_outage(outage);
    Ok(StatusCode::NO_CONTENT)
}

async fn stats(State(issuer): State<Issuer>) -> Json<Stats> {
    Json(issuer.stats())
}
