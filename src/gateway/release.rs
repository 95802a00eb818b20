//! `POST /oauth2/token`: a workflow's token for a resource token that leaves the gateway (RFC 8693). Off unless the configuration
//! says otherwise, since what has left outlives every revocation.
//!
//! The walk is the same as for any request (identity, revocations, context, policy, limits, exchange, audit), but the workflow's
//! token stands in the form, and refusals have the words of OAuth: whoever sends this is an OAuth client.

use std::time::Duration;

use axum::body::Body;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts};
use serde_json::{Value, json};
use tracing::Instrument as _;

use super::{Gateway, ledger, preflight::bearer};
use crate::{
    access::{Operation, PartitionKey},
    answer::{Condition, CosmosAnswer, Refusal},
    audit::{Asked, Entry, Ruling, Verdict},
    context::RequestContext,
    policy::{self, Bearer, NotReleased, Permit},
    question::{self, ISSUED_TYPE, TokenRejection, TokenRequest},
    telemetry::trace::room,
};

/// How long Azure lets a resource token live beyond its end.
const SKEW: Duration = Duration::from_secs(15 * 60);

/// Why no token is released, in OAuth's words.
struct Denial {
    error: &'static str,
    description: String,
    status: StatusCode,
}

impl Denial {
    fn new(error: &'static str, description: impl Into<String>) -> Self {
        Self { error, description: description.into(), status: StatusCode::BAD_REQUEST }
    }
}

impl From<TokenRejection> for Denial {
    fn from(rejection: TokenRejection) -> Self {
        let error = match rejection {
            TokenRejection::InvalidRequest(_) => "invalid_request",
            TokenRejection::UnsupportedGrantType => "unsupported_grant_type",
            TokenRejection::InvalidTarget(_) => "invalid_target",
            TokenRejection::InvalidScope(_) => "invalid_scope",
        };
        Self::new(error, rejection.to_string())
    }
}

/// RFC 8693, section 2.2.2: a subject token that is invalid, or unacceptable by policy, is `invalid_request`.
impl From<Refusal> for Denial {
    fn from(refusal: Refusal) -> Self {
        match refusal.condition {
            Condition::Human | Condition::Revoked => Self::new("unauthorized_client", refusal.detail),
            Condition::InvalidToken
            | Condition::InvalidWorkflowToken
            | Condition::Malformed
            | Condition::ItemTooLarge
            | Condition::PolicyDenied => Self::new("invalid_request", refusal.detail),
            Condition::NotFound => Self::new("invalid_target", refusal.detail),
            _ => {
                let status = StatusCode::SERVICE_UNAVAILABLE;
                Self { status, ..Self::new("temporarily_unavailable", refusal.detail) }
            }
        }
    }
}

impl From<NotReleased> for Denial {
    fn from(refused: NotReleased) -> Self {
        match refused {
            NotReleased::NotGranted(reasons) => Self::new("invalid_scope", reasons.sentence),
            NotReleased::Ambiguous(candidates) => Self::new("invalid_target", Refusal::ambiguous(&candidates).detail),
            NotReleased::Masked(mask) => {
                let pointers: Vec<_> = mask.pointers().iter().map(ToString::to_string).collect();
                let description = format!("{} is masked, and a token for this would show it", pointers.join(", "));
                Self::new("invalid_scope", description)
            }
            NotReleased::Limited => {
                let description = "the binding has limits, which nobody keeps once a token has left";
                Self::new("invalid_scope", description.to_owned())
            }
            NotReleased::Wider { operation } => {
                let description =
                    format!("a token for this could also do {operation}, which is not granted on all of its scope");
                Self::new("invalid_scope", description)
            }
        }
    }
}

impl Gateway {
    /// Whether the request is for the token endpoint, and tokens are released at all.
    pub(super) fn is_release(&self, head: &Parts) -> bool {
        self.rooms.exchange.releases() && head.method == Method::POST && head.uri.path() == "/oauth2/token"
    }

    /// Answers a token exchange: a token, or why there is none.
    pub(super) async fn release(
        &self,
        request: &RequestContext,
        head: &Parts,
        body: Body,
        entry: &mut Entry,
    ) -> CosmosAnswer {
        entry.question.action = Some(Asked::TokenExchange);
        match self.exchange_token(request, head, body, entry).await {
            Ok(token) => answer(StatusCode::OK, &token),
            Err(denial) => {
                entry.decision.get_or_insert_with(Ruling::reject);
                let Denial { error, description, status } = denial;
                answer(status, &json!({ "error": error, "error_description": description }))
            }
        }
    }

    async fn exchange_token(
        &self,
        request: &RequestContext,
        head: &Parts,
        body: Body,
        entry: &mut Entry,
    ) -> Result<Value, Denial> {
        let _place = self.in_flight.try_acquire().map_err(|_| Refusal::overloaded())?;
        let body = self.read(body, entry).await?;
        let wanted = question::token_request(&head.headers, &body)?;
        let authenticating = self.rooms.identity.authenticate_token(&wanted.subject_token);
        let authenticated = authenticating.instrument(room!("identity")).await;
        let (subject, context) = self.let_in(authenticated, &head.headers, entry)?;
        entry.question = ledger::exchanged(&wanted);
        let permit = self.releasable(bearer(&subject, &context), &wanted, entry)?;
        let released = self.rooms.exchange.release(&subject, &permit, request.id.as_str()).await;
        let released = released.map_err(Refusal::from)?;
        entry.credential = Some(ledger::credential(&permit, &released.warrant));
        let now = self.rooms.clock.now();
        if subject.expires() < released.expires.plus(SKEW) {
            entry.decision = Some(Ruling { verdict: Verdict::Reject, ..(&permit).into() });
            let description = format!(
                "the subject token ends in {} s, and the token to be released may be used for {} s; ask with a fresh one",
                subject.expires().since(now).as_secs(),
                released.expires.plus(SKEW).since(now).as_secs(),
            );
            return Err(Denial::new("invalid_request", description));
        }
        Ok(json!({
            "access_token": released.token.expose(),
            "issued_token_type": ISSUED_TYPE,
            "token_type": "N_A",
            "expires_in": released.expires.since(now).as_secs(),
            "scope": wanted.operations.iter().map(|operation| operation.as_str()).collect::<Vec<_>>().join(" "),
        }))
    }

    fn releasable(&self, bearer: Bearer<'_>, wanted: &TokenRequest, entry: &mut Entry) -> Result<Permit, Denial> {
        let policies = self.rooms.policy.current();
        let key: Option<&PartitionKey> = wanted.partition_key.as_ref();
        let operations: &[Operation] = &wanted.operations;
        match policy::release(&policies, bearer, &wanted.container, key, operations) {
            Ok(permit) => {
                entry.decision = Some((&permit).into());
                entry.question.partition_key = permit.partition_key().cloned();
                Ok(permit)
            }
            Err(refused) => {
                entry.decision = Some(match &refused {
                    NotReleased::NotGranted(reasons) => reasons.into(),
                    NotReleased::Ambiguous(_) => Ruling::reject(),
                    NotReleased::Wider { .. } | NotReleased::Masked(_) | NotReleased::Limited => {
                        Ruling { verdict: Verdict::Deny, ..Ruling::reject() }
                    }
                });
                Err(refused.into())
            }
        }
    }
}

/// RFC 6749, section 5.1: nobody on the way keeps it.
fn answer(status: StatusCode, body: &Value) -> CosmosAnswer {
    let headers = HeaderMap::from_iter([
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::PRAGMA, HeaderValue::from_static("no-cache")),
    ]);
    CosmosAnswer { status, headers, body: body.to_string().into() }
}
