//! What the walk writes into the audit entry, and what metrics read from it.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response, header::USER_AGENT};

use crate::{
    access::Operation,
    answer::{Condition, Refusal, is_http_task},
    audit::{self, Asked, Entry, Ruling, UserAgentKind, Verdict, Who},
    exchange::Warrant,
    identity::{IdentityError, VerifiedSubject},
    overload::Signal,
    policy::{Decision, Permit},
    question::{Need, Question, TokenRequest},
    revocation::{Revocation, Unwelcome},
    upstream::{Failure, UpstreamAnswer, UpstreamError},
};

/// The kind of client.
pub(super) fn user_agent(headers: &HeaderMap, by_tool: bool) -> UserAgentKind {
    let agent = headers.get(USER_AGENT).map_or(&b""[..], |value| value.as_bytes());
    if by_tool {
        UserAgentKind::Mcp
    } else if is_http_task(headers) {
        UserAgentKind::StepFunctions
    } else if agent.to_ascii_lowercase().windows(6).any(|window| window == b"cosmos") {
        UserAgentKind::CosmosSdk
    } else {
        UserAgentKind::Other
    }
}

/// Who asks; also who was refused, where the token says it truly.
pub(super) fn who(authenticated: &Result<VerifiedSubject, IdentityError>) -> Option<Who> {
    match authenticated {
        Ok(subject) => Some(subject.into()),
        Err(error) => {
            error.subject.as_deref().map(|subject| Who { subject: subject.clone(), client: None, kind: None })
        }
    }
}

/// Notes in the record which revocation refuses the caller, if one does.
pub(super) fn noted(entry: &mut Entry, checked: Result<(), Unwelcome>) -> Result<(), Unwelcome> {
    if let Err(Unwelcome::Revoked(revocation)) = &checked {
        entry.revocation = Some(recorded(revocation));
    }
    checked
}

/// A revocation as a record tells of it.
pub(super) fn recorded(revocation: &Revocation) -> audit::Revocation {
    audit::Revocation {
        id: revocation.id.clone(),
        target: revocation.target.to_string(),
        reason: revocation.reason.clone(),
    }
}

/// What policy said, noted in the record: the permit, or why there is none.
pub(super) fn ruled(entry: &mut Entry, decision: Decision) -> Result<Permit, Refusal> {
    match decision {
        Decision::Allow(permit) => {
            entry.decision = Some((&permit).into());
            Ok(permit)
        }
        Decision::Deny(reasons) => {
            entry.decision = Some((&reasons).into());
            Err(reasons.into())
        }
        Decision::Ambiguous(candidates) => {
            entry.decision = Some(Ruling::reject());
            Err(Refusal::ambiguous(&candidates))
        }
    }
}

/// What a preflight asks about.
pub(super) fn needed(needs: &[Need]) -> audit::Question {
    let inside = |need: &Need| audit::Inside {
        operation: need.operation,
        container: Some(need.container.clone()),
        item: None,
        partition_key: need.partition_key.clone(),
    };
    audit::Question {
        action: Some(Asked::Preflight),
        batch: needs.iter().map(inside).collect(),
        ..audit::Question::default()
    }
}

/// What a caller asks to have explained.
pub(super) fn explained(need: &Need) -> audit::Question {
    audit::Question {
        action: Some(Asked::Explain),
        container: Some(need.container.clone()),
        partition_key: need.partition_key.clone(),
        batch: vec![audit::Inside { operation: need.operation, container: None, item: None, partition_key: None }],
        ..audit::Question::default()
    }
}

/// What a token exchange asks for.
pub(super) fn exchanged(wanted: &TokenRequest) -> audit::Question {
    let inside = |operation: &Operation| audit::Inside {
        operation: *operation,
        container: None,
        item: None,
        partition_key: None,
    };
    audit::Question {
        action: Some(Asked::TokenExchange),
        container: Some(wanted.container.clone()),
        partition_key: wanted.partition_key.clone(),
        batch: wanted.operations.iter().map(inside).collect(),
        ..audit::Question::default()
    }
}

/// What is asked.
pub(super) fn asked(question: &Question) -> audit::Question {
    let inside = |inside: &crate::question::BatchOperation| audit::Inside {
        operation: inside.operation,
        container: None,
        item: inside.item.clone(),
        partition_key: inside.partition_key.clone(),
    };
    audit::Question {
        action: Some(Asked::Action(question.action)),
        container: Some(question.container.clone()),
        partition_key: question.partition_key.clone(),
        item: question.item.clone(),
        batch: question.batch.iter().map(inside).collect(),
    }
}

/// Which credential carries the request.
pub(super) fn credential(permit: &Permit, warrant: &Warrant) -> audit::Credential {
    audit::Credential {
        scope: permit.scope().clone(),
        permission_id: warrant.permission_id().cloned(),
        enforced_by: warrant.enforcer(),
    }
}

/// What came back from Cosmos, added to what earlier errands of the same request brought.
pub(super) fn upstream(entry: &mut Entry, forwarded: &Result<UpstreamAnswer, Failure>, took: Duration) {
    let before = entry.upstream.take();
    let (attempts, charge, latency) =
        before.map_or((0, 0.0, took), |before| (before.attempts, before.request_units, before.latency + took));
    let (answer, attempted, region) = match forwarded {
        Ok(answer) => (Some(answer), answer.attempts, &answer.region),
        Err(Failure { error, region }) => (error.answer(), error.attempts(), region),
    };
    entry.upstream = Some(audit::Upstream {
        status: answer.map(|answer| answer.status.as_u16()),
        substatus: answer.and_then(|answer| answer.substatus),
        activity_id: answer.and_then(|answer| answer.activity_id.clone()),
        region: region.clone(),
        attempts: attempts + attempted,
        request_units: charge + answer.and_then(|answer| answer.request_charge).unwrap_or_default(),
        latency,
    });
}

/// Puts back how an errand fared; of what was asked beside it since, the record keeps the cost.
pub(super) fn aside(entry: &mut Entry, fared: Option<audit::Upstream>) {
    if let (Some(now), Some(fared)) = (&mut entry.upstream, fared) {
        let audit::Upstream { status, substatus, activity_id, region, .. } = fared;
        (now.status, now.substatus, now.activity_id, now.region) = (status, substatus, activity_id, region);
    }
}

/// From when on silence is a sign: Cosmos gives an operation five seconds, and what a caller does not wait for says nothing.
const STUCK: Duration = Duration::from_secs(5);

/// What an errand says of how its container is doing.
pub(super) fn signal(forwarded: &Result<UpstreamAnswer, Failure>, took: Duration) -> Signal {
    match forwarded {
        Ok(answer) if answer.status.is_success() => Signal::Answered(answer.took),
        Err(Failure { error: UpstreamError::Timeout { .. } | UpstreamError::OutcomeUnknown { .. }, .. })
            if took >= STUCK =>
        {
            Signal::Stuck
        }
        _ => Signal::Nothing,
    }
}

/// What the caller is answered. A request that ended before policy was asked was rejected; one that names no operation
/// counts as denied, since no policy could have granted it.
pub(super) fn answered(entry: &mut Entry, response: &Response<Bytes>, refused: Option<Condition>, duration: Duration) {
    if let (None, Some(condition)) = (&entry.decision, refused) {
        let mut ruling = Ruling::reject();
        if condition == Condition::UnknownOperation {
            ruling.verdict = Verdict::Deny;
        }
        entry.decision = Some(ruling);
    }
    entry.bytes_out = response.body().len() as u64;
    let error = refused.map(|condition| condition.as_str().into());
    entry.answer = Some(audit::Answer { status: response.status().as_u16(), error, duration });
}
