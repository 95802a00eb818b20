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
    /// The idempotency key was used for another request.
    IdempotencyMismatch,
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

/// Whether the same request may do better later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retry {
    /// It will not.
    No,
    /// After reading the item again, and with its new etag.
    Reread,
    /// Once: an OAuth connection gets a new token meanwhile.
    Once,
    /// With a new token.
    AfterMinting,
    /// Yes, after a while: nothing was done.
    Yes,
    /// A write may stand; where doing it twice does harm, look first.
    WithCare,
}

impl Retry {
    /// The word in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Reread => "reread",
            Self::Once => "once",
            Self::AfterMinting => "after minting",
            Self::Yes => "yes",
            Self::WithCare => "with care",
        }
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The word in the error body, in metrics and in audit records.
    pub error: &'static str,
    /// The status for workflows.
    pub distinct: u16,
    /// The status for Cosmos clients when the gateway itself refuses.
    pub cosmos: u16,
    /// Whether the same request may do better later.
    pub retry: Retry,
    /// What has happened, for a person.
    pub means: &'static str,
}

impl Condition {
    /// Every condition, in the order of the table.
    pub const ALL: [Self; 29] = [
        Self::Malformed,
        Self::UnknownOperation,
        Self::CosmosBadRequest,
        Self::IdempotencyMismatch,
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

    /// The row of the condition.
    pub const fn row(self) -> Row {
        use Retry::{AfterMinting, No, Once, Reread, WithCare, Yes};
        const fn row(error: &'static str, distinct: u16, cosmos: u16, retry: Retry, means: &'static str) -> Row {
            Row { error, distinct, cosmos, retry, means }
        }
        match self {
            Self::Malformed => row("request.malformed", 400, 400, No, "not a valid request"),
            Self::UnknownOperation => {
                row("request.unknown_operation", 400, 404, No, "a path or a method that is no operation")
            }
            Self::CosmosBadRequest => row("cosmos.bad_request", 400, 400, No, "Cosmos finds the query or the body bad"),
            Self::IdempotencyMismatch => {
                row("idempotency.mismatch", 400, 400, No, "the idempotency key was used for another request")
            }
            Self::InvalidToken => row(
                "identity.invalid_token",
                401,
                401,
                Once,
                "the bearer token is expired, forged, or not for this gateway",
            ),
            Self::InvalidWorkflowToken => row(
                "identity.invalid_workflow_token",
                498,
                401,
                AfterMinting,
                "no token at all, or a bad `x-stepgate-token`",
            ),
            Self::Human => row("identity.human", 403, 403, No, "the token is not provably a workload's"),
            Self::Revoked => row("identity.revoked", 403, 403, No, "an operator revoked the caller"),
            Self::PolicyDenied => row("policy.denied", 403, 403, No, "no grant allows it, or a deny forbids it"),
            Self::PrefixQuery => row(
                "policy.prefix_query",
                403,
                403,
                No,
                "a query or feed under a grant on a prefix of a hierarchical key",
            ),
            Self::NotFound => {
                row("cosmos.not_found", 404, 404, No, "the item, the container or the database is not there")
            }
            Self::Conflict => row("cosmos.conflict", 409, 409, No, "the id or a unique key exists"),
            Self::PreconditionFailed => row("cosmos.precondition_failed", 412, 412, Reread, "the etag moved"),
            Self::ItemTooLarge => row("cosmos.item_too_large", 413, 413, No, "over 2 MB"),
            Self::ResponseTooLarge => {
                row("response.too_large", 413, 413, No, "more than a state may hold; for workflows only")
            }
            Self::PartitionKeyMismatch => row(
                "cosmos.partition_key_mismatch",
                422,
                400,
                No,
                "the partition key of the header and of the item differ",
            ),
            Self::BatchFailed => {
                row("cosmos.batch_failed", 424, 424, No, "an operation of the batch failed; nothing of it was done")
            }
            Self::SessionNotAvailable => row(
                "cosmos.session_not_available",
                425,
                404,
                Yes,
                "no region has seen yet what the session token speaks of",
            ),
            Self::Throttled => {
                row("cosmos.throttled", 429, 429, Yes, "out of request units, for longer than the deadline")
            }
            Self::LimitExceeded => row("limit.exceeded", 429, 429, Yes, "the limits of the binding are reached"),
            Self::BadAnswer => row(
                "upstream.bad_answer",
                502,
                500,
                Yes,
                "what came back is no answer of Cosmos, or says only that it failed",
            ),
            Self::Unavailable => {
                row("upstream.unavailable", 503, 503, Yes, "Cosmos cannot be reached or does not serve")
            }
            Self::RetryLater => {
                row("cosmos.retry_later", 503, 503, Yes, "Cosmos timed out, moved a partition, or had two writes meet")
            }
            Self::Overloaded => {
                row("gateway.overloaded", 503, 503, Yes, "the gateway has as much in flight as it may hold")
            }
            Self::AuditUnavailable => {
                row("audit.unavailable", 503, 503, Yes, "the audit log cannot be written: no record, no act")
            }
            Self::CredentialUnavailable => row(
                "credential.unavailable",
                503,
                503,
                Yes,
                "Cosmos refuses the gateway's own credential, or none can be had",
            ),
            Self::IdentityUnavailable => {
                row("identity.unavailable", 503, 503, Yes, "the issuer's keys, or who is revoked, cannot be known now")
            }
            Self::Timeout => {
                row("upstream.timeout", 504, 408, WithCare, "the deadline passed, or what came of a write is not known")
            }
            Self::PartitionFull => row("cosmos.partition_full", 507, 403, No, "the logical partition holds 20 GB"),
        }
    }

    /// Whether the same request may do better later, be it with another token.
    pub const fn is_retryable(self) -> bool {
        !matches!(self.row().retry, Retry::No | Retry::Reread)
    }

    /// The word in the error body, in metrics and in audit records.
    pub const fn as_str(self) -> &'static str {
        self.row().error
    }

    /// The condition that an answer of Cosmos stands for; `None` when it is a success (304 included).
    ///
    /// A 401 or 403/0 here is Cosmos refusing the gateway's own credential, never the caller's: the caller has none.
    pub fn of_cosmos(status: u16, substatus: Option<u32>) -> Option<Self> {
        if matches!(status, 200..=206 | 208..=299 | 304) {
            return None;
        }
        let known = OF_COSMOS.iter().find(|(of, substatuses, _)| {
            status == *of && (substatuses.is_empty() || substatuses.contains(&substatus.unwrap_or_default()))
        });
        Some(known.map_or(Self::BadAnswer, |(_, _, condition)| *condition))
    }
}

/// What the answers of Cosmos stand for: status, substatuses (any, where none is named), condition. The first row that fits
/// counts; what stands in no row, and is no success, is a bad answer.
pub const OF_COSMOS: &[(u16, &[u32], Condition)] = &[
    (207, &[], Condition::BatchFailed),
    (400, &[1001], Condition::PartitionKeyMismatch),
    (400, &[], Condition::CosmosBadRequest),
    (401, &[], Condition::CredentialUnavailable),
    (403, &[1014], Condition::PartitionFull),
    (403, &[3, 1008], Condition::Unavailable),
    (403, &[], Condition::CredentialUnavailable),
    (404, &[1002], Condition::SessionNotAvailable),
    (404, &[], Condition::NotFound),
    (408, &[], Condition::RetryLater),
    (409, &[], Condition::Conflict),
    (410, &[], Condition::RetryLater),
    (412, &[], Condition::PreconditionFailed),
    (413, &[], Condition::ItemTooLarge),
    (423, &[], Condition::RetryLater),
    (424, &[], Condition::BatchFailed),
    (429, &[], Condition::Throttled),
    (449, &[], Condition::RetryLater),
    (503, &[], Condition::Unavailable),
];

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
