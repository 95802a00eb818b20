//! From what the rooms can refuse to what the caller is told: one place, so that no room needs to know a status.

use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;

use super::{Condition, CosmosAnswer, Form, Refusal};
use crate::{
    access::{
        Action, PartitionKey,
        headers::{RETRY_AFTER_MS, number},
    },
    audit::Unavailable,
    context::ContextError,
    exchange::{EntraError, ExchangeError},
    idempotency::IdempotencyError,
    identity::{Carrier, Class, IdentityError},
    limits::Exceeded,
    mask::{Exposed, Unreadable},
    overload::Shed,
    policy::Reasons,
    question::Rejection,
    revocation::Unwelcome,
    upstream::{Doubt, Outside, UpstreamAnswer, UpstreamError},
};

/// Longest text of Cosmos' own that is shown to a caller, in characters.
const LONGEST_DETAIL: usize = 600;

impl Refusal {
    /// Too many requests, or too many bytes, in flight.
    pub fn overloaded() -> Self {
        Self::new(Condition::Overloaded, "the gateway has as many requests in flight as it may hold")
    }

    /// The deadline passed.
    pub fn deadline() -> Self {
        Self::new(Condition::Timeout, "no answer within the deadline; a write may or may not have happened")
    }

    /// The caller could mean one of several partitions.
    pub fn ambiguous(candidates: &[PartitionKey]) -> Self {
        let names: Vec<String> = candidates.iter().map(PartitionKey::to_string).collect();
        let detail = format!("the grant covers several partitions; name one of {}", names.join(", "));
        Self::new(Condition::Malformed, detail)
    }
}

impl From<IdentityError> for Refusal {
    fn from(error: IdentityError) -> Self {
        let condition = match (error.class(), error.carrier) {
            (Class::Rejected, _) => Condition::Malformed,
            (Class::InvalidToken, Carrier::Authorization) => Condition::InvalidToken,
            (Class::InvalidToken, Carrier::None | Carrier::WorkflowHeader) => Condition::InvalidWorkflowToken,
            (Class::Human, _) => Condition::Human,
            (Class::Unavailable, _) => Condition::IdentityUnavailable,
        };
        Self::new(condition, error.to_string())
    }
}

impl From<Unwelcome> for Refusal {
    fn from(unwelcome: Unwelcome) -> Self {
        let detail = unwelcome.to_string();
        match unwelcome {
            Unwelcome::Revoked(_) => Self::new(Condition::Revoked, detail),
            Unwelcome::Unknown => Self::new(Condition::IdentityUnavailable, detail),
        }
    }
}

impl From<Exposed> for Refusal {
    fn from(exposed: Exposed) -> Self {
        Self::new(Condition::PolicyDenied, exposed.to_string())
    }
}

impl From<Unreadable> for Refusal {
    fn from(unreadable: Unreadable) -> Self {
        Self::new(Condition::BadAnswer, unreadable.to_string())
    }
}

impl From<ContextError> for Refusal {
    fn from(error: ContextError) -> Self {
        let condition = match error {
            ContextError::Malformed { .. }
            | ContextError::NotOneText(_)
            | ContextError::Deadline
            | ContextError::Session => Condition::Malformed,
            ContextError::Contradiction(_) => Condition::PolicyDenied,
        };
        Self::new(condition, error.to_string())
    }
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        let condition = match rejection {
            Rejection::UnknownOperation { .. } => Condition::UnknownOperation,
            _ => Condition::Malformed,
        };
        Self::new(condition, rejection.to_string())
    }
}

impl From<Reasons> for Refusal {
    fn from(reasons: Reasons) -> Self {
        let condition = if reasons.prefix_query { Condition::PrefixQuery } else { Condition::PolicyDenied };
        Self::new(condition, reasons.sentence)
    }
}

impl From<Exceeded> for Refusal {
    fn from(exceeded: Exceeded) -> Self {
        // How long requests in flight will take is not known.
        let retry_after = exceeded.retry_after;
        Self { retry_after, ..Self::new(Condition::LimitExceeded, exceeded.to_string()) }
    }
}

impl From<Shed> for Refusal {
    fn from(shed: Shed) -> Self {
        Self::new(Condition::Overloaded, shed.to_string()).after(shed.retry_after)
    }
}

impl From<Unavailable> for Refusal {
    fn from(error: Unavailable) -> Self {
        tracing::error!(%error, "the audit log cannot be written");
        Self::new(Condition::AuditUnavailable, "the audit log cannot be written, and nothing is done without a record")
    }
}

impl From<ExchangeError> for Refusal {
    fn from(error: ExchangeError) -> Self {
        tracing::warn!(%error, "no credential for Cosmos");
        match error {
            // Users and permissions live in the database; without it there is nothing to make a token for.
            ExchangeError::BadAnswer { status: StatusCode::NOT_FOUND } => {
                Self::new(Condition::NotFound, "the database or the container is not there")
            }
            ExchangeError::Throttled { retry_after } | ExchangeError::Entra(EntraError::Throttled { retry_after }) => {
                Self::new(Condition::CredentialUnavailable, "minting a credential must wait").after(retry_after)
            }
            _ => Self::new(Condition::CredentialUnavailable, "the gateway has no credential at the moment"),
        }
    }
}

impl From<UpstreamError> for Refusal {
    fn from(error: UpstreamError) -> Self {
        tracing::warn!(%error, "no answer from Cosmos");
        match error {
            UpstreamError::Unavailable { .. } => {
                Self::new(Condition::Unavailable, "Cosmos cannot be reached; nothing was done")
            }
            UpstreamError::OutcomeUnknown { cause: Doubt::Lost(_), .. } => Self::new(
                Condition::Timeout,
                "the request left for Cosmos and no answer came back; the write may or may not have happened",
            ),
            UpstreamError::OutcomeUnknown { cause: Doubt::Answered(answer), attempts } => {
                let (status, before) = (answer.status.as_u16(), if attempts > 1 { "in the end " } else { "" });
                let detail = format!("Cosmos {before}answered {status}; the write may or may not have happened");
                Self { cosmos: Some(Box::new((*answer).into())), ..Self::new(Condition::Timeout, detail) }
            }
            UpstreamError::Timeout { .. } => Self::deadline(),
            UpstreamError::NoRoom { .. } => Self::overloaded(),
            UpstreamError::Withdrawn { .. } => Self::new(
                Condition::InvalidToken,
                "the token ended before the request could be tried again; nothing was done",
            ),
            UpstreamError::Outside(Outside::Continuation(foreign)) => {
                Self::new(Condition::Malformed, foreign.to_string())
            }
            UpstreamError::Outside(Outside::Prefix { .. }) => Self::new(Condition::PrefixQuery, error.to_string()),
            UpstreamError::UnknownKey { status: StatusCode::NOT_FOUND, .. } => {
                Self::new(Condition::NotFound, "the database or the container is not there")
            }
            UpstreamError::UnknownKey { status: StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, .. } => {
                Self::new(Condition::CredentialUnavailable, "Cosmos refused the gateway's own credential")
            }
            UpstreamError::UnknownKey { .. } => Self::new(Condition::Unavailable, error.to_string()),
            UpstreamError::Outside(_) => Self::new(Condition::PolicyDenied, error.to_string()),
            UpstreamError::TooLarge { .. } | UpstreamError::BadAnswer { .. } | UpstreamError::Unsendable(_) => {
                Self::new(Condition::BadAnswer, "Cosmos' answer cannot be passed on")
            }
        }
    }
}

impl From<IdempotencyError> for Refusal {
    fn from(error: IdempotencyError) -> Self {
        let condition = match &error {
            IdempotencyError::Mismatch => Condition::IdempotencyMismatch,
            IdempotencyError::Unbelievable | IdempotencyError::Unreadable(_) => Condition::BadAnswer,
            IdempotencyError::Restless => Condition::RetryLater,
            IdempotencyError::NoSecret(_) => Condition::CredentialUnavailable,
            IdempotencyError::NoKey
            | IdempotencyError::MalformedKey
            | IdempotencyError::NotForProcedures
            | IdempotencyError::TooMany
            | IdempotencyError::PartitionKey(_)
            | IdempotencyError::NoPlace { .. }
            | IdempotencyError::NotUnique { .. } => Condition::Malformed,
        };
        match condition {
            Condition::CredentialUnavailable => {
                tracing::warn!(%error, "no marker can be sealed");
                Self::new(condition, "the gateway has no key to seal a marker with at the moment")
            }
            _ => Self::new(condition, error.to_string()),
        }
    }
}

impl From<UpstreamAnswer> for CosmosAnswer {
    fn from(answer: UpstreamAnswer) -> Self {
        Self { status: answer.status, headers: answer.headers, body: answer.body }
    }
}

/// What Cosmos answered, as a success or as the condition it stands for. For a workflow, a success that no state could
/// hold is cut to a stub (a write: it stands) or refused (a read).
pub fn settle(form: Form, action: Action, mut answer: CosmosAnswer) -> Result<CosmosAnswer, Refusal> {
    if let Some(condition) = Condition::of_cosmos(answer.status.as_u16(), answer.substatus()) {
        // For a Cosmos client a failed batch is the 207 that its SDK reads.
        return if condition == Condition::BatchFailed && form == Form::Cosmos {
            Ok(answer)
        } else {
            Err(told(condition, answer))
        };
    }
    if form.is_workflow() && !answer.fits_a_state(form) {
        if !action.is_write() {
            let detail = "the answer is larger than a state may hold (262,144 bytes); ask for less, with x-stepgate-select or a \
                          narrower query";
            return Err(Refusal::new(Condition::ResponseTooLarge, detail));
        }
        let stub = format!(r#"{{"stepgate":{{"bodyDropped":true,"bytes":{}}}}}"#, answer.body.len());
        answer.body = stub.into();
    }
    Ok(answer)
}

/// A refusal by Cosmos, in Cosmos' own words where they are about the caller's request.
fn told(condition: Condition, answer: CosmosAnswer) -> Refusal {
    let detail = match condition {
        Condition::CredentialUnavailable => "Cosmos refused the gateway's own credential".to_owned(),
        Condition::BatchFailed => failed_operation(&answer.body),
        _ => message(&answer.body).unwrap_or_else(|| format!("Cosmos answered {}", answer.status.as_u16())),
    };
    let wait = number(&answer.headers, &RETRY_AFTER_MS);
    let mut refusal = Refusal::new(condition, detail);
    refusal.retry_after = wait.map(Duration::from_millis);
    refusal.cosmos = Some(Box::new(answer));
    refusal
}

fn message(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Error {
        message: String,
    }
    let Error { message } = serde_json::from_slice(body).ok()?;
    Some(message.chars().take(LONGEST_DETAIL).collect())
}

/// Names the operation that made an atomic batch fail; the others carry 424.
fn failed_operation(body: &[u8]) -> String {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Result {
        status_code: u16,
    }
    let results: Vec<Result> = serde_json::from_slice(body).unwrap_or_default();
    match results.iter().enumerate().find(|(_, result)| result.status_code >= 400 && result.status_code != 424) {
        Some((index, result)) => {
            format!("operation {index} of the batch failed with {}; nothing of the batch was done", result.status_code)
        }
        None => "an operation of the batch failed; nothing of the batch was done".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::access::Operation;

    fn answer(status: u16, body: String) -> CosmosAnswer {
        CosmosAnswer { status: StatusCode::from_u16(status).unwrap(), headers: HeaderMap::new(), body: body.into() }
    }

    #[test]
    fn a_failed_batch_names_the_operation_that_failed() {
        let body = r#"[{"statusCode":424},{"statusCode":409},{"statusCode":424}]"#;
        let batch = Action::Operation(Operation::Batch);
        let refusal = settle(Form::Distinct, batch, answer(207, body.into())).unwrap_err();
        assert_eq!(refusal.condition, Condition::BatchFailed);
        assert!(refusal.detail.starts_with("operation 1 of the batch failed with 409"), "{}", refusal.detail);
        assert_eq!(settle(Form::Cosmos, batch, answer(207, body.into())).unwrap().status, 207);
    }

    #[test]
    fn what_no_state_can_hold_never_leaves_for_a_workflow() {
        let large = format!("{{\"id\":\"{}\"}}", "x".repeat(262_144));
        let read = settle(Form::Distinct, Action::Operation(Operation::ItemsRead), answer(200, large.clone()));
        assert_eq!(read.unwrap_err().condition, Condition::ResponseTooLarge);
        let write = settle(Form::Distinct, Action::Operation(Operation::ItemsUpsert), answer(200, large.clone()));
        assert!(write.unwrap().body.len() < 100, "the write stands, its echo does not");
        let sdk = settle(Form::Cosmos, Action::Operation(Operation::ItemsRead), answer(200, large.clone()));
        assert_eq!(sdk.unwrap().body.len(), large.len());
    }
}
