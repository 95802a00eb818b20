//! The table: each condition with its word, its statuses, and whether trying again can help.

/// Why a request was not carried out, or what Cosmos said of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Condition {
    /// Not a valid request.
    Malformed,
    /// A path or method that is no operation.
    UnknownOperation,
    /// Cosmos found the request bad (SQL, body).
    CosmosBadRequest,
    /// A bearer token was there and is expired, forged or not for us.
    InvalidToken,
    /// No token at all, or a bad `x-stepgate-token`.
    InvalidWorkflowToken,
    /// The token is not provably a workload's.
    Human,
    /// An operator revoked the caller.
    Revoked,
    /// Policy says no.
    PolicyDenied,
    /// A query or feed under a grant on a prefix of a hierarchical key.
    PrefixQuery,
    /// The item, container or database is not there.
    NotFound,
    /// The id or a unique key exists.
    Conflict,
    /// The etag moved.
    PreconditionFailed,
    /// Over 2 MB.
    ItemTooLarge,
    /// Over what a state may hold.
    ResponseTooLarge,
    /// Cosmos 400/1001: header and item disagree on the partition key.
    PartitionKeyMismatch,
    /// Another operation of the atomic batch failed.
    BatchFailed,
    /// Cosmos 404/1002 after retries.
    SessionNotAvailable,
    /// Cosmos 429 beyond the deadline.
    Throttled,
    /// The limits of the binding are reached.
    LimitExceeded,
    /// Cosmos (or what stands before it) answered what cannot be an answer.
    BadAnswer,
    /// Cosmos cannot be reached.
    Unavailable,
    /// Cosmos 408, 410, 449 after retries.
    RetryLater,
    /// Too many requests in flight here.
    Overloaded,
    /// The audit log cannot be written: no record, no act.
    AuditUnavailable,
    /// The gateway has no credential that Cosmos accepts.
    CredentialUnavailable,
    /// The keys of an issuer cannot be had, or who is revoked is not known: nothing can be said of the token.
    IdentityUnavailable,
    /// The deadline passed; a write may or may not have happened.
    Timeout,
    /// Cosmos 403/1014: the logical partition holds 20 GB.
    PartitionFull,
}

/// One row of the table.
pub(super) struct Row {
    /// The word in the error body, in metrics and in audit records.
    pub(super) error: &'static str,
    /// The status for workflows.
    pub(super) distinct: u16,
    /// The status for Cosmos clients when the gateway itself refuses.
    pub(super) cosmos: u16,
    /// Whether the same request may succeed later.
    pub(super) retryable: bool,
}

impl Condition {
    /// Every condition, in the order of the table.
    pub const ALL: [Self; 28] = [
        Self::Malformed,
        Self::UnknownOperation,
        Self::CosmosBadRequest,
        Self::InvalidToken,
        Self::InvalidWorkflowToken,
        Self::Human,
        Self::Revoked,
        Self::PolicyDenied,
        Self::PrefixQuery,
        Self::NotFound,
        Self::Conflict,
        Self::PreconditionFailed,
        Self::ItemTooLarge,
        Self::ResponseTooLarge,
        Self::PartitionKeyMismatch,
        Self::BatchFailed,
        Self::SessionNotAvailable,
        Self::Throttled,
        Self::LimitExceeded,
        Self::BadAnswer,
        Self::Unavailable,
        Self::RetryLater,
        Self::Overloaded,
        Self::AuditUnavailable,
        Self::CredentialUnavailable,
        Self::IdentityUnavailable,
        Self::Timeout,
        Self::PartitionFull,
    ];

    pub(super) const fn row(self) -> Row {
        const fn row(error: &'static str, distinct: u16, cosmos: u16, retryable: bool) -> Row {
            Row { error, distinct, cosmos, retryable }
        }
        match self {
            Self::Malformed => row("request.malformed", 400, 400, false),
            Self::UnknownOperation => row("request.unknown_operation", 400, 404, false),
            Self::CosmosBadRequest => row("cosmos.bad_request", 400, 400, false),
            Self::InvalidToken => row("identity.invalid_token", 401, 401, true),
            Self::InvalidWorkflowToken => row("identity.invalid_workflow_token", 498, 401, true),
            Self::Human => row("identity.human", 403, 403, false),
            Self::Revoked => row("identity.revoked", 403, 403, false),
            Self::PolicyDenied => row("policy.denied", 403, 403, false),
            Self::PrefixQuery => row("policy.prefix_query", 403, 403, false),
            Self::NotFound => row("cosmos.not_found", 404, 404, false),
            Self::Conflict => row("cosmos.conflict", 409, 409, false),
            Self::PreconditionFailed => row("cosmos.precondition_failed", 412, 412, false),
            Self::ItemTooLarge => row("cosmos.item_too_large", 413, 413, false),
            Self::ResponseTooLarge => row("response.too_large", 413, 413, false),
            Self::PartitionKeyMismatch => row("cosmos.partition_key_mismatch", 422, 400, false),
            Self::BatchFailed => row("cosmos.batch_failed", 424, 424, false),
            Self::SessionNotAvailable => row("cosmos.session_not_available", 425, 404, true),
            Self::Throttled => row("cosmos.throttled", 429, 429, true),
            Self::LimitExceeded => row("limit.exceeded", 429, 429, true),
            Self::BadAnswer => row("upstream.bad_answer", 502, 500, true),
            Self::Unavailable => row("upstream.unavailable", 503, 503, true),
            Self::RetryLater => row("cosmos.retry_later", 503, 503, true),
            Self::Overloaded => row("gateway.overloaded", 503, 503, true),
            Self::AuditUnavailable => row("audit.unavailable", 503, 503, true),
            Self::CredentialUnavailable => row("credential.unavailable", 503, 503, true),
            Self::IdentityUnavailable => row("identity.unavailable", 503, 503, true),
            Self::Timeout => row("upstream.timeout", 504, 408, true),
            Self::PartitionFull => row("cosmos.partition_full", 507, 403, false),
        }
    }

    /// The word in the error body, in metrics and in audit records.
    pub const fn as_str(self) -> &'static str {
        self.row().error
    }

    /// The condition that an answer of Cosmos stands for; `None` when it is a success (304 included).
    ///
    /// A 401 or 403/0 here is Cosmos refusing the gateway's own credential, never the caller's: the caller has none.
    pub const fn of_cosmos(status: u16, substatus: Option<u32>) -> Option<Self> {
        let substatus = match substatus {
            Some(substatus) => substatus,
            None => 0,
        };
        Some(match (status, substatus) {
            (207, _) => Self::BatchFailed,
            (200..=299 | 304, _) => return None,
            (400, 1001) => Self::PartitionKeyMismatch,
            (400, _) => Self::CosmosBadRequest,
            (403, 1014) => Self::PartitionFull,
            (403, 3 | 1008) => Self::Unavailable,
            (401 | 403, _) => Self::CredentialUnavailable,
            (404, 1002) => Self::SessionNotAvailable,
            (404, _) => Self::NotFound,
            (408 | 410 | 423 | 449, _) => Self::RetryLater,
            (409, _) => Self::Conflict,
            (412, _) => Self::PreconditionFailed,
            (413, _) => Self::ItemTooLarge,
            (424, _) => Self::BatchFailed,
            (429, _) => Self::Throttled,
            (503, _) => Self::Unavailable,
            _ => Self::BadAnswer,
        })
    }
}

/// The word Cosmos uses for a status in the `code` of its error bodies.
pub(super) const fn cosmos_code(status: u16) -> &'static str {
    match status {
        400 => "BadRequest",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        408 => "RequestTimeout",
        409 => "Conflict",
        412 => "PreconditionFailed",
        413 => "RequestEntityTooLarge",
        424 => "FailedDependency",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        _ => "InternalServerError",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_condition_has_a_word_of_its_own() {
        let words: HashSet<_> = Condition::ALL.map(Condition::as_str).into_iter().collect();
        assert_eq!(words.len(), Condition::ALL.len());
    }

    #[test]
    fn each_answer_of_cosmos_has_its_status_for_workflows() {
        for (status, substatus, word, distinct) in [
            (400, 0, "cosmos.bad_request", 400),
            (400, 1001, "cosmos.partition_key_mismatch", 422),
            (400, 1004, "cosmos.bad_request", 400),
            (401, 5001, "credential.unavailable", 503),
            (403, 0, "credential.unavailable", 503),
            (403, 3, "upstream.unavailable", 503),
            (403, 1014, "cosmos.partition_full", 507),
            (404, 0, "cosmos.not_found", 404),
            (404, 1002, "cosmos.session_not_available", 425),
            (408, 0, "cosmos.retry_later", 503),
            (409, 0, "cosmos.conflict", 409),
            (410, 1002, "cosmos.retry_later", 503),
            (412, 0, "cosmos.precondition_failed", 412),
            (413, 0, "cosmos.item_too_large", 413),
            (429, 3200, "cosmos.throttled", 429),
            (449, 0, "cosmos.retry_later", 503),
            (500, 0, "upstream.bad_answer", 502),
            (503, 0, "upstream.unavailable", 503),
            (207, 0, "cosmos.batch_failed", 424),
            (302, 0, "upstream.bad_answer", 502),
        ] {
            let condition = Condition::of_cosmos(status, Some(substatus)).unwrap();
            assert_eq!((condition.as_str(), condition.row().distinct), (word, distinct), "{status}/{substatus}");
        }
        for status in [200, 201, 204, 304] {
            assert_eq!(Condition::of_cosmos(status, None), None);
        }
    }
}
