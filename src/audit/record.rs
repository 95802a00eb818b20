//! What one record says: an [`Entry`] as the gateway fills it, and a [`Record`] as the journal numbered it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    access::{
        Action, ContainerName, Enforcer, ExecutionContext, ItemId, Operation, PartitionKey, Subject, WorkloadKind,
    },
    clock::Timestamp,
    identity::VerifiedSubject,
    policy::{Clause, Permit, Reasons, Scope},
};

/// Where in a request's life a record was written.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Before a write leaves for Cosmos.
    Intent,
    /// Before an answer leaves for the caller.
    Outcome,
    /// Refused before an identity was known; written rate-limited.
    Refusal,
    /// How many refusals were counted instead of written.
    Suppressed,
    /// The journal found an intent without an outcome: whether Cosmos acted is unknown.
    Recovered,
    /// An operator revoked somebody.
    Revoke,
    /// An operator lifted a revocation.
    Lift,
    /// Somebody read the log.
    Reading,
}

impl Phase {
    /// The word of the record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Intent => "intent",
            Self::Outcome => "outcome",
            Self::Refusal => "refusal",
            Self::Suppressed => "suppressed",
            Self::Recovered => "recovered",
            Self::Revoke => "revoke",
            Self::Lift => "lift",
            Self::Reading => "reading",
        }
    }
}

/// One record's content, opened once and completed as the request walks on. It has no room for bodies, query values,
/// tokens or keys.
#[derive(Clone, PartialEq, Debug)]
pub struct Entry {
    /// Where in the request's life.
    pub phase: Phase,
    /// The request id, which is also the activity id that Cosmos sees. Empty for a count of suppressed refusals.
    pub request_id: Arc<str>,
    /// Who asks; `None` before an identity is known.
    pub who: Option<Who>,
    /// In which execution, with the assurance of each fact.
    pub context: ExecutionContext,
    /// What is asked.
    pub question: Question,
    /// What was decided, and by which clauses; `None` before a decision.
    pub decision: Option<Ruling>,
    /// Which credential carries the request.
    pub credential: Option<Credential>,
    /// What Cosmos answered.
    pub upstream: Option<Upstream>,
    /// What the caller is answered.
    pub answer: Option<Answer>,
    /// Of a write that is done once, whose answer that is.
    pub told: Option<Telling>,
    /// The members that were masked in the answer, as JSON pointers; never what they hold.
    pub masked: Vec<Arc<str>>,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// The other end of the connection.
    pub peer: Option<SocketAddr>,
    /// The kind of client: the door it came by, or what its `User-Agent` says.
    pub user_agent: UserAgentKind,
    /// For [`Phase::Suppressed`] alone.
    pub suppressed: Option<Suppressed>,
    /// The revocation that refused the request, or that an operator made or lifted.
    pub revocation: Option<Revocation>,
    /// For [`Phase::Reading`] alone.
    pub reading: Option<Reading>,
}

impl Entry {
    /// An entry in which nothing is known yet but the request id.
    pub fn new(phase: Phase, request_id: impl Into<Arc<str>>) -> Self {
        Self {
            phase,
            request_id: request_id.into(),
            who: None,
            context: ExecutionContext::default(),
            question: Question::default(),
            decision: None,
            credential: None,
            upstream: None,
            answer: None,
            told: None,
            masked: Vec::new(),
            bytes_in: 0,
            bytes_out: 0,
            peer: None,
            user_agent: UserAgentKind::Other,
            suppressed: None,
            revocation: None,
            reading: None,
        }
    }

    /// The record of an entry whose outcome never became durable. What the entry knew is kept; the answer is not, since
    /// none left.
    pub(super) fn recovered(self) -> Self {
        Self { phase: Phase::Recovered, answer: None, told: None, masked: Vec::new(), bytes_out: 0, ..self }
    }
}

/// A revocation as a record tells of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Revocation {
    /// What it is called.
    pub id: String,
    /// Whose requests it refuses, in words.
    pub target: String,
    /// Why, in the operator's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// That somebody read the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reading {
    /// The command, such as `trace`.
    pub command: String,
    /// What was asked for, in the command's own words.
    pub selection: String,
    /// The user that read, as the system knows it.
    pub uid: u32,
    /// When.
    pub time: Timestamp,
}

/// Who asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Who {
    /// Issuer and identifier.
    pub subject: Subject,
    /// The OAuth client, where the issuer names one.
    pub client: Option<Arc<str>>,
    /// The profile that proved it a workload; `None` for a human, who was refused.
    pub kind: Option<WorkloadKind>,
}

impl From<&VerifiedSubject> for Who {
    fn from(verified: &VerifiedSubject) -> Self {
        Self {
            subject: verified.subject().clone(),
            client: verified.client().map(Into::into),
            kind: Some(verified.kind()),
        }
    }
}

/// What is asked, as far as the request could be read.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Question {
    /// What is wanted; `None` for a path that names nothing.
    pub action: Option<Asked>,
    /// The container.
    pub container: Option<ContainerName>,
    /// The partition key the request runs under.
    pub partition_key: Option<PartitionKey>,
    /// The item, or the stored procedure of an `execute`.
    pub item: Option<ItemId>,
    /// The operations inside a batch, or the entries of a preflight, in order.
    pub batch: Vec<Inside>,
}

/// What a request wants of the gateway.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Asked {
    /// An action on a container.
    Action(Action),
    /// Whether what a workflow needs is granted, and works.
    Preflight,
    /// A resource token that leaves the gateway.
    TokenExchange,
    /// What the caller is granted.
    Grants,
    /// Whether something would be granted, and why.
    Explain,
}

impl Asked {
    /// The word of the record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Action(action) => action.as_str(),
            Self::Preflight => "preflight",
            Self::TokenExchange => "token-exchange",
            Self::Grants => "grants",
            Self::Explain => "explain",
        }
    }

    /// Whether it can change data.
    pub const fn is_write(self) -> bool {
        match self {
            Self::Action(action) => action.is_write(),
            Self::Preflight | Self::TokenExchange | Self::Grants | Self::Explain => false,
        }
    }
}

/// One operation inside a batch.
#[derive(Clone, PartialEq, Debug)]
pub struct Inside {
    /// The operation.
    pub operation: Operation,
    /// The container, where it is not the request's.
    pub container: Option<ContainerName>,
    /// The item, where the operation names one.
    pub item: Option<ItemId>,
    /// Its own partition key, where it names one.
    pub partition_key: Option<PartitionKey>,
}

/// Allowed, denied by policy, or rejected as malformed or unproven.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Policy granted it.
    Allow,
    /// Policy did not grant it, or denied it.
    Deny,
    /// It never reached policy, or went over the limits of the binding under which policy granted it.
    Reject,
}

impl Verdict {
    /// The word of the record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Reject => "reject",
        }
    }
}

/// A decision as the record keeps it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ruling {
    /// Which way.
    pub verdict: Verdict,
    /// The clauses that decided; empty when nothing granted.
    pub clauses: Arc<[Clause]>,
    /// The policy revision that decided; `None` when policy was not asked.
    pub revision: Option<Arc<str>>,
}

impl Ruling {
    /// A request that never reached policy.
    pub fn reject() -> Self {
        Self { verdict: Verdict::Reject, clauses: Arc::new([]), revision: None }
    }
}

impl From<&Permit> for Ruling {
    fn from(permit: &Permit) -> Self {
        Self {
            verdict: Verdict::Allow,
            clauses: Arc::clone(permit.clauses()),
            revision: Some(permit.revision().into()),
        }
    }
}

impl From<&Reasons> for Ruling {
    fn from(reasons: &Reasons) -> Self {
        Self {
            verdict: Verdict::Deny,
            clauses: Arc::clone(&reasons.clauses),
            revision: Some((&reasons.revision).into()),
        }
    }
}

/// The credential that carries a request to Cosmos.
#[derive(Clone, PartialEq, Debug)]
pub struct Credential {
    /// What it opens.
    pub scope: Scope,
    /// The id of the Cosmos permission, which Azure's diagnostic log carries too.
    pub permission_id: Option<Arc<str>>,
    /// Who holds the request to the scope.
    pub enforced_by: Enforcer,
}

/// What Cosmos answered.
#[derive(Clone, PartialEq, Debug)]
pub struct Upstream {
    /// The HTTP status; `None` when no answer came.
    pub status: Option<u16>,
    /// `x-ms-substatus`
    pub substatus: Option<u32>,
    /// `x-ms-activity-id` of the answer.
    pub activity_id: Option<Arc<str>>,
    /// The region that answered, or that was tried last where none did.
    pub region: Option<Arc<str>>,
    /// How many times the request was sent.
    pub attempts: u32,
    /// `x-ms-request-charge`, summed over the attempts.
    pub request_units: f64,
    /// From the first byte sent to the whole answer read, over all attempts; kept in whole microseconds.
    pub latency: Duration,
}

/// What the caller is answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The `error` code, such as `policy.denied`; `None` for a success.
    pub error: Option<Arc<str>>,
    /// The whole walk, from the request's head to this record; kept in whole microseconds.
    pub duration: Duration,
}

/// Whose answer a write got that is done once.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Telling {
    /// Its own: this request did the write.
    First,
    /// The first one's, from the marker: the write was done before, and this request did nothing.
    Repeated,
    /// As much as is known of the first one's, which was lost, while somebody else has written the item since.
    Changed,
}

impl Telling {
    /// The word of the record, and of `x-stepgate-idempotency`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Repeated => "repeated",
            Self::Changed => "changed",
        }
    }
}

/// The kind of client.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserAgentKind {
    /// `Amazon|StepFunctions|…`
    StepFunctions,
    /// A Cosmos SDK.
    CosmosSdk,
    /// An agent, through the Model Context Protocol.
    Mcp,
    /// Anything else, or none.
    Other,
}

impl UserAgentKind {
    /// The word of the record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::StepFunctions => "step_functions",
            Self::CosmosSdk => "cosmos_sdk",
            Self::Mcp => "mcp",
            Self::Other => "other",
        }
    }
}

/// Refusals that were counted instead of written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Suppressed {
    /// How many.
    pub count: u64,
    /// When the first of them came.
    pub since: Timestamp,
}

/// The place of a record in the log, from 1, without gaps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Sequence(pub u64);

/// An entry in its place.
#[derive(Clone, PartialEq, Debug)]
pub struct Record {
    /// Its place.
    pub sequence: Sequence,
    /// When the entry was given to the journal.
    pub time: Timestamp,
    /// What it says.
    pub entry: Entry,
}
