//! The way back: the members of a line, and what they must be to make an entry.

use std::{net::SocketAddr, str::FromStr, sync::Arc, time::Duration};

use serde::Deserialize;
use serde_json::Value;

use crate::{
    access::{
        Action, Assurance, Attempt, ContainerName, Enforcer, Execution, ExecutionContext, Fact, IssuerName, ItemId,
        MalformedContext, MalformedName, MalformedPartitionKey, Operation, PartitionKey, PermissionMode, RunId,
        StateName, Subject, UnknownOperation, WorkloadKind,
    },
    audit::record::{
        Answer, Asked, Credential, Entry, Inside, Phase, Question, Reading, Revocation, Ruling, Suppressed, Telling,
        Upstream, UserAgentKind, Verdict, Who,
    },
    clock::Timestamp,
    policy::{Clause, ClauseKind, Scope},
};

/// A line that is no record of this version.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// Not JSON, or not with these members.
    #[error("not a record: {0}")]
    Json(#[from] serde_json::Error),
    /// A fact about the execution.
    #[error("not a record: {0}")]
    Context(#[from] MalformedContext),
    /// A database, container or item.
    #[error("not a record: {0}")]
    Name(#[from] MalformedName),
    /// A partition key.
    #[error("not a record: {0}")]
    PartitionKey(#[from] MalformedPartitionKey),
    /// An operation.
    #[error("not a record: {0}")]
    Operation(#[from] UnknownOperation),
    /// The peer's address.
    #[error("not a record: {0}")]
    Peer(#[from] std::net::AddrParseError),
    /// A credential's mode.
    #[error("not a record: a mode is Read or All")]
    Mode,
}

#[derive(Deserialize, Debug)]
pub(in crate::audit) struct Fields {
    phase: Phase,
    #[serde(default)]
    request_id: Arc<str>,
    #[serde(default)]
    issuer: Option<IssuerName>,
    #[serde(default)]
    subject: Option<Arc<str>>,
    #[serde(default)]
    client: Option<Arc<str>>,
    #[serde(default)]
    workload_kind: Option<WorkloadKind>,
    #[serde(default)]
    execution: Option<StoredFact<String>>,
    #[serde(default)]
    run: Option<StoredFact<String>>,
    #[serde(default)]
    state: Option<StoredFact<String>>,
    #[serde(default)]
    entered: Option<StoredFact<Arc<str>>>,
    #[serde(default)]
    attempt: Option<StoredFact<u32>>,
    #[serde(default)]
    redrive: Option<StoredFact<u32>>,
    #[serde(default)]
    item: Option<StoredFact<u32>>,
    #[serde(default)]
    operation: Option<Arc<str>>,
    #[serde(default)]
    database: Option<String>,
    #[serde(default)]
    container: Option<String>,
    #[serde(default)]
    partition_key: Option<Value>,
    #[serde(default)]
    item_id: Option<String>,
    #[serde(default)]
    batch: Vec<StoredInside>,
    #[serde(default)]
    decision: Option<Verdict>,
    #[serde(default)]
    clauses: Vec<StoredClause>,
    #[serde(default)]
    policy_revision: Option<Arc<str>>,
    #[serde(default)]
    credential: Option<StoredCredential>,
    #[serde(default)]
    upstream: Option<StoredUpstream>,
    #[serde(default)]
    answer: Option<StoredAnswer>,
    #[serde(default)]
    idempotency: Option<Telling>,
    #[serde(default)]
    masked: Vec<Arc<str>>,
    bytes_in: u64,
    bytes_out: u64,
    #[serde(default)]
    peer: Option<String>,
    user_agent: UserAgentKind,
    #[serde(default)]
    suppressed: Option<StoredSuppressed>,
    #[serde(default)]
    revocation: Option<Revocation>,
    #[serde(default)]
    reading: Option<StoredReading>,
}

#[derive(Deserialize, Debug)]
struct StoredFact<T> {
    value: T,
    assurance: Assurance,
}

#[derive(Deserialize, Debug)]
struct StoredInside {
    operation: Arc<str>,
    #[serde(default)]
    container: Option<String>,
    #[serde(default)]
    item_id: Option<String>,
    #[serde(default)]
    partition_key: Option<Value>,
}

#[derive(Deserialize, Debug)]
struct StoredClause {
    kind: StoredClauseKind,
    name: Arc<str>,
    index: usize,
    place: Arc<str>,
}

#[derive(Deserialize, Debug)]
#[serde(rename_all = "lowercase")]
enum StoredClauseKind {
    Grant,
    Deny,
}

#[derive(Deserialize, Debug)]
struct StoredCredential {
    scope: StoredScope,
    mode: String,
    #[serde(default)]
    permission_id: Option<Arc<str>>,
    enforced_by: Enforcer,
}

#[derive(Deserialize, Debug)]
struct StoredScope {
    database: String,
    container: String,
    #[serde(default)]
    partition_key: Option<Value>,
}

#[derive(Deserialize, Debug)]
struct StoredUpstream {
    #[serde(default)]
    status: Option<u16>,
    #[serde(default)]
    substatus: Option<u32>,
    #[serde(default)]
    activity_id: Option<Arc<str>>,
    #[serde(default)]
    region: Option<Arc<str>>,
    attempts: u32,
    request_units: f64,
    latency_ms: f64,
}

#[derive(Deserialize, Debug)]
struct StoredAnswer {
    status: u16,
    #[serde(default)]
    error: Option<Arc<str>>,
    duration_ms: f64,
}

#[derive(Deserialize, Debug)]
struct StoredReading {
    command: String,
    selection: String,
    uid: u32,
    time: i64,
}

#[derive(Deserialize, Debug)]
struct StoredSuppressed {
    count: u64,
    since: i64,
}

impl TryFrom<Fields> for Entry {
    type Error = Unreadable;

    fn try_from(fields: Fields) -> Result<Self, Unreadable> {
        let who = match (fields.issuer, fields.subject) {
            (Some(issuer), Some(id)) => {
                Some(Who { subject: Subject { issuer, id }, client: fields.client, kind: fields.workload_kind })
            }
            _ => None,
        };
        let context = ExecutionContext {
            execution: fields.execution.map(|fact| recall(fact, |text| text.parse::<Execution>())).transpose()?,
            run: fields.run.map(|fact| recall(fact, |text| text.parse::<RunId>())).transpose()?,
            state: fields.state.map(|fact| recall(fact, |text| text.parse::<StateName>())).transpose()?,
            entered: fields.entered.map(|fact| Fact { value: fact.value, assurance: fact.assurance }),
            attempt: fields.attempt.map(|fact| Fact { value: Attempt(fact.value), assurance: fact.assurance }),
            redrive: fields.redrive.map(|fact| Fact { value: fact.value, assurance: fact.assurance }),
            item: fields.item.map(|fact| Fact { value: fact.value, assurance: fact.assurance }),
        };
        let container = match (fields.database, fields.container) {
            (Some(database), Some(container)) => Some(ContainerName::new(&database, &container)?),
            _ => None,
        };
        let question = Question {
            action: fields.operation.map(|word| asked(&word)).transpose()?,
            container,
            partition_key: fields.partition_key.map(|json| PartitionKey::from_json(&json)).transpose()?,
            item: fields.item_id.map(|id| ItemId::new(&id)).transpose()?,
            batch: fields.batch.into_iter().map(Inside::try_from).collect::<Result<_, _>>()?,
        };
        Ok(Self {
            phase: fields.phase,
            request_id: fields.request_id,
            who,
            context,
            question,
            decision: fields.decision.map(|verdict| Ruling {
                verdict,
                clauses: fields.clauses.into_iter().map(Clause::from).collect(),
                revision: fields.policy_revision,
            }),
            credential: fields.credential.map(Credential::try_from).transpose()?,
            upstream: fields.upstream.map(Upstream::from),
            answer: fields.answer.map(Answer::from),
            told: fields.idempotency,
            masked: fields.masked,
            bytes_in: fields.bytes_in,
            bytes_out: fields.bytes_out,
            peer: fields.peer.map(|peer| SocketAddr::from_str(&peer)).transpose()?,
            user_agent: fields.user_agent,
            revocation: fields.revocation,
            reading: fields.reading.map(Reading::from),
            suppressed: fields
                .suppressed
                .map(|stored| Suppressed { count: stored.count, since: Timestamp::from_millis(stored.since) }),
        })
    }
}

fn recall<S, T>(
    fact: StoredFact<S>,
    value: impl FnOnce(S) -> Result<T, MalformedContext>,
) -> Result<Fact<T>, MalformedContext> {
    Ok(Fact { value: value(fact.value)?, assurance: fact.assurance })
}

fn asked(word: &str) -> Result<Asked, UnknownOperation> {
    let (plan, metadata) = (Asked::Action(Action::QueryPlan), Asked::Action(Action::Metadata));
    [plan, metadata, Asked::Preflight, Asked::TokenExchange, Asked::Grants, Asked::Explain]
        .into_iter()
        .find(|asked| asked.as_str() == word)
        .map_or_else(|| word.parse().map(Action::Operation).map(Asked::Action), Ok)
}

impl TryFrom<StoredInside> for Inside {
    type Error = Unreadable;

    fn try_from(stored: StoredInside) -> Result<Self, Unreadable> {
        Ok(Self {
            operation: stored.operation.parse::<Operation>()?,
            container: stored.container.map(|name| name.parse::<ContainerName>()).transpose()?,
            item: stored.item_id.map(|id| ItemId::new(&id)).transpose()?,
            partition_key: stored.partition_key.map(|json| PartitionKey::from_json(&json)).transpose()?,
        })
    }
}

impl From<StoredClause> for Clause {
    fn from(stored: StoredClause) -> Self {
        let kind = match stored.kind {
            StoredClauseKind::Grant => ClauseKind::Grant,
            StoredClauseKind::Deny => ClauseKind::Deny,
        };
        Self { kind, name: stored.name, index: stored.index, place: stored.place }
    }
}

impl TryFrom<StoredCredential> for Credential {
    type Error = Unreadable;

    fn try_from(stored: StoredCredential) -> Result<Self, Unreadable> {
        let mode = [PermissionMode::Read, PermissionMode::All]
            .into_iter()
            .find(|mode| mode.as_str() == stored.mode)
            .ok_or(Unreadable::Mode)?;
        Ok(Self {
            scope: Scope {
                container: ContainerName::new(&stored.scope.database, &stored.scope.container)?,
                partition_key: stored.scope.partition_key.map(|json| PartitionKey::from_json(&json)).transpose()?,
                mode,
            },
            permission_id: stored.permission_id,
            enforced_by: stored.enforced_by,
        })
    }
}

impl From<StoredUpstream> for Upstream {
    fn from(stored: StoredUpstream) -> Self {
        Self {
            status: stored.status,
            substatus: stored.substatus,
            activity_id: stored.activity_id,
            region: stored.region,
            attempts: stored.attempts,
            request_units: stored.request_units,
            latency: duration(stored.latency_ms),
        }
    }
}

impl From<StoredAnswer> for Answer {
    fn from(stored: StoredAnswer) -> Self {
        Self { status: stored.status, error: stored.error, duration: duration(stored.duration_ms) }
    }
}

impl From<StoredReading> for Reading {
    fn from(stored: StoredReading) -> Self {
        let time = Timestamp::from_millis(stored.time);
        Self { command: stored.command, selection: stored.selection, uid: stored.uid, time }
    }
}

fn duration(millis: f64) -> Duration {
    Duration::from_micros((millis * 1000.0).round() as u64)
}
