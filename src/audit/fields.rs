//! The member `stepgate` of a record: the names that scripts rely on, and the way there and back.

use std::{net::SocketAddr, str::FromStr, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::record::{
    Answer, Asked, Credential, Entry, Inside, Phase, Question, Reading, Revocation, Ruling, Suppressed, Telling,
    Upstream, UserAgentKind, Verdict, Who,
};
use crate::{
    access::{
        Action, Assurance, Attempt, ContainerName, Enforcer, Execution, ExecutionContext, Fact, IssuerName, ItemId,
        MalformedContext, MalformedName, MalformedPartitionKey, Operation, PartitionKey, PermissionMode, RunId,
        StateName, Subject, UnknownOperation, WorkloadKind,
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

/// What is said of an outcome that never became durable.
const OUTCOME_UNKNOWN: &str = "unknown";

#[derive(Serialize, Deserialize, Debug)]
pub(super) struct Fields {
    phase: Phase,
    #[serde(default, skip_serializing_if = "str::is_empty")]
    request_id: Arc<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    outcome: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    issuer: Option<IssuerName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    workload_kind: Option<WorkloadKind>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    execution: Option<StoredFact<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    run: Option<StoredFact<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state: Option<StoredFact<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    entered: Option<StoredFact<Arc<str>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attempt: Option<StoredFact<u32>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    redrive: Option<StoredFact<u32>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    item: Option<StoredFact<u32>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    operation: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    database: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    container: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    partition_key: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    item_id: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    batch: Vec<StoredInside>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    decision: Option<Verdict>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    clauses: Vec<StoredClause>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    policy_revision: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    credential: Option<StoredCredential>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    upstream: Option<StoredUpstream>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answer: Option<StoredAnswer>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    idempotency: Option<Telling>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    masked: Vec<Arc<str>>,
    bytes_in: u64,
    bytes_out: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    peer: Option<String>,
    user_agent: UserAgentKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    suppressed: Option<StoredSuppressed>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revocation: Option<Revocation>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reading: Option<StoredReading>,
}

#[derive(Serialize, Deserialize, Debug)]
struct StoredFact<T> {
    value: T,
    assurance: Assurance,
}

#[derive(Serialize, Deserialize, Debug)]
struct StoredInside {
    operation: Arc<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    container: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    item_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    partition_key: Option<Value>,
}

#[derive(Serialize, Deserialize, Debug)]
struct StoredClause {
    kind: StoredClauseKind,
    name: Arc<str>,
    index: usize,
    place: Arc<str>,
}

#[derive(Serialize, Deserialize, Debug)]
#[serde(rename_all = "lowercase")]
enum StoredClauseKind {
    Grant,
    Deny,
}

#[derive(Serialize, Deserialize, Debug)]
struct StoredCredential {
    scope: StoredScope,
    mode: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    permission_id: Option<Arc<str>>,
    enforced_by: Enforcer,
}

#[derive(Serialize, Deserialize, Debug)]
struct StoredScope {
    database: String,
    container: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    partition_key: Option<Value>,
}

#[derive(Serialize, Deserialize, Debug)]
struct StoredUpstream {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    substatus: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    activity_id: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    region: Option<Arc<str>>,
    attempts: u32,
    request_units: f64,
    latency_ms: f64,
}

#[derive(Serialize, Deserialize, Debug)]
struct StoredAnswer {
    status: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<Arc<str>>,
    duration_ms: f64,
}

#[derive(Serialize, Deserialize, Debug)]
struct StoredReading {
    command: String,
    selection: String,
    uid: u32,
    time: i64,
}

#[derive(Serialize, Deserialize, Debug)]
struct StoredSuppressed {
    count: u64,
    since: i64,
}

impl From<&Entry> for Fields {
    fn from(entry: &Entry) -> Self {
        let (context, question) = (&entry.context, &entry.question);
        let ruling = entry.decision.as_ref();
        Self {
            phase: entry.phase,
            request_id: Arc::clone(&entry.request_id),
            outcome: (entry.phase == Phase::Recovered).then(|| OUTCOME_UNKNOWN.into()),
            issuer: entry.who.as_ref().map(|who| who.subject.issuer.clone()),
            subject: entry.who.as_ref().map(|who| Arc::clone(&who.subject.id)),
            client: entry.who.as_ref().and_then(|who| who.client.clone()),
            workload_kind: entry.who.as_ref().and_then(|who| who.kind),
            execution: context.execution.as_ref().map(|fact| store(fact, |e| e.as_str().to_owned())),
            run: context.run.as_ref().map(|fact| store(fact, |run| run.as_str().to_owned())),
            state: context.state.as_ref().map(|fact| store(fact, |s| s.as_str().to_owned())),
            entered: context.entered.as_ref().map(|fact| store(fact, Arc::clone)),
            attempt: context.attempt.as_ref().map(|fact| store(fact, |attempt| attempt.0)),
            redrive: context.redrive.as_ref().map(|fact| store(fact, |n| *n)),
            item: context.item.as_ref().map(|fact| store(fact, |n| *n)),
            operation: question.action.map(|action| action.as_str().into()),
            database: question.container.as_ref().map(|c| c.database().to_owned()),
            container: question.container.as_ref().map(|c| c.container().to_owned()),
            partition_key: question.partition_key.as_ref().map(PartitionKey::to_json),
            item_id: question.item.as_ref().map(|id| id.as_str().to_owned()),
            batch: question.batch.iter().map(StoredInside::from).collect(),
            decision: ruling.map(|ruling| ruling.verdict),
            clauses: ruling.map(|r| r.clauses.iter().map(StoredClause::from).collect()).unwrap_or_default(),
            policy_revision: ruling.and_then(|ruling| ruling.revision.clone()),
            credential: entry.credential.as_ref().map(StoredCredential::from),
            upstream: entry.upstream.as_ref().map(StoredUpstream::from),
            answer: entry.answer.as_ref().map(StoredAnswer::from),
            idempotency: entry.told,
            masked: entry.masked.clone(),
            bytes_in: entry.bytes_in,
            bytes_out: entry.bytes_out,
            peer: entry.peer.map(|peer| peer.to_string()),
            user_agent: entry.user_agent,
            suppressed: entry
                .suppressed
                .map(|suppressed| StoredSuppressed { count: suppressed.count, since: suppressed.since.as_millis() }),
            revocation: entry.revocation.clone(),
            reading: entry.reading.as_ref().map(StoredReading::from),
        }
    }
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

fn store<T, S>(fact: &Fact<T>, value: impl FnOnce(&T) -> S) -> StoredFact<S> {
    StoredFact { value: value(&fact.value), assurance: fact.assurance }
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

impl From<&Inside> for StoredInside {
    fn from(inside: &Inside) -> Self {
        Self {
            operation: inside.operation.as_str().into(),
            container: inside.container.as_ref().map(ToString::to_string),
            item_id: inside.item.as_ref().map(|id| id.as_str().to_owned()),
            partition_key: inside.partition_key.as_ref().map(PartitionKey::to_json),
        }
    }
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

impl From<&Clause> for StoredClause {
    fn from(clause: &Clause) -> Self {
        let kind = match clause.kind {
            ClauseKind::Grant => StoredClauseKind::Grant,
            ClauseKind::Deny => StoredClauseKind::Deny,
        };
        Self { kind, name: Arc::clone(&clause.name), index: clause.index, place: Arc::clone(&clause.place) }
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

impl From<&Credential> for StoredCredential {
    fn from(credential: &Credential) -> Self {
        let scope = &credential.scope;
        Self {
            scope: StoredScope {
                database: scope.container.database().to_owned(),
                container: scope.container.container().to_owned(),
                partition_key: scope.partition_key.as_ref().map(PartitionKey::to_json),
            },
            mode: scope.mode.as_str().to_owned(),
            permission_id: credential.permission_id.clone(),
            enforced_by: credential.enforced_by,
        }
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

impl From<&Upstream> for StoredUpstream {
    fn from(upstream: &Upstream) -> Self {
        Self {
            status: upstream.status,
            substatus: upstream.substatus,
            activity_id: upstream.activity_id.clone(),
            region: upstream.region.clone(),
            attempts: upstream.attempts,
            request_units: upstream.request_units,
            latency_ms: millis(upstream.latency),
        }
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

impl From<&Answer> for StoredAnswer {
    fn from(answer: &Answer) -> Self {
        Self { status: answer.status, error: answer.error.clone(), duration_ms: millis(answer.duration) }
    }
}

impl From<StoredAnswer> for Answer {
    fn from(stored: StoredAnswer) -> Self {
        Self { status: stored.status, error: stored.error, duration: duration(stored.duration_ms) }
    }
}

impl From<&Reading> for StoredReading {
    fn from(reading: &Reading) -> Self {
        Self {
            command: reading.command.clone(),
            selection: reading.selection.clone(),
            uid: reading.uid,
            time: reading.time.as_millis(),
        }
    }
}

impl From<StoredReading> for Reading {
    fn from(stored: StoredReading) -> Self {
        let time = Timestamp::from_millis(stored.time);
        Self { command: stored.command, selection: stored.selection, uid: stored.uid, time }
    }
}

/// Milliseconds with three decimals: what a person reads, and exact to the microsecond.
fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

fn duration(millis: f64) -> Duration {
    Duration::from_micros((millis * 1000.0).round() as u64)
}
