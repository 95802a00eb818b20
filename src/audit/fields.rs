//! The member `stepgate` of a record: the names that scripts rely on, and the way there and back.

use std::{net::SocketAddr, str::FromStr, sync::Arc, time::Duration};

use serde::Deserialize;
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
    json::Object,
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

#[derive(Deserialize, Debug)]
pub(super) struct Fields {
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

/// Writes the members of `stepgate`; what is not known is left out. [`Fields`] reads them back.
pub(super) fn write(it: &mut Object<'_>, entry: &Entry) {
    it.text("phase", entry.phase.as_str());
    if !entry.request_id.is_empty() {
        it.text("request_id", &entry.request_id);
    }
    if entry.phase == Phase::Recovered {
        it.text("outcome", OUTCOME_UNKNOWN);
    }
    if let Some(who) = &entry.who {
        write_who(it, who);
    }
    write_context(it, &entry.context);
    write_question(it, &entry.question);
    if let Some(ruling) = &entry.decision {
        write_ruling(it, ruling);
    }
    if let Some(credential) = &entry.credential {
        it.object("credential", |it| write_credential(it, credential));
    }
    if let Some(upstream) = &entry.upstream {
        it.object("upstream", |it| write_upstream(it, upstream));
    }
    if let Some(answer) = &entry.answer {
        it.object("answer", |it| {
            it.value("status", &answer.status);
            it.maybe_text("error", answer.error.as_deref());
            it.value("duration_ms", &millis(answer.duration));
        });
    }
    if let Some(told) = entry.told {
        it.text("idempotency", told.as_str());
    }
    if !entry.masked.is_empty() {
        it.value("masked", &entry.masked);
    }
    it.value("bytes_in", &entry.bytes_in);
    it.value("bytes_out", &entry.bytes_out);
    it.maybe("peer", entry.peer.as_ref());
    it.text("user_agent", entry.user_agent.as_str());
    write_rare(it, entry);
}

fn write_who(it: &mut Object<'_>, who: &Who) {
    it.text("issuer", who.subject.issuer.as_str());
    it.text("subject", &who.subject.id);
    it.maybe_text("client", who.client.as_deref());
    it.maybe_text("workload_kind", who.kind.map(WorkloadKind::as_str));
}

fn write_context(it: &mut Object<'_>, context: &ExecutionContext) {
    let ExecutionContext { execution, run, state, entered, attempt, redrive, item } = context;
    write_fact(it, "execution", execution, |it, execution| it.text("value", execution.as_str()));
    write_fact(it, "run", run, |it, run| it.text("value", run.as_str()));
    write_fact(it, "state", state, |it, state| it.text("value", state.as_str()));
    write_fact(it, "entered", entered, |it, entered| it.text("value", entered));
    write_fact(it, "attempt", attempt, |it, Attempt(number)| it.value("value", number));
    write_fact(it, "redrive", redrive, |it, number| it.value("value", number));
    write_fact(it, "item", item, |it, number| it.value("value", number));
}

fn write_fact<T>(
    it: &mut Object<'_>,
    name: &'static str,
    fact: &Option<Fact<T>>,
    value: impl FnOnce(&mut Object<'_>, &T),
) {
    if let Some(fact) = fact {
        it.object(name, |it| {
            value(it, &fact.value);
            it.text("assurance", fact.assurance.as_str());
        });
    }
}

fn write_question(it: &mut Object<'_>, question: &Question) {
    it.maybe_text("operation", question.action.map(Asked::as_str));
    if let Some(container) = &question.container {
        it.text("database", container.database());
        it.text("container", container.container());
    }
    it.maybe("partition_key", question.partition_key.as_ref());
    it.maybe_text("item_id", question.item.as_ref().map(ItemId::as_str));
    if !question.batch.is_empty() {
        it.objects("batch", &question.batch, |it, inside| {
            it.text("operation", inside.operation.as_str());
            if let Some(container) = &inside.container {
                it.value("container", &format_args!("{container}"));
            }
            it.maybe_text("item_id", inside.item.as_ref().map(ItemId::as_str));
            it.maybe("partition_key", inside.partition_key.as_ref());
        });
    }
}

fn write_ruling(it: &mut Object<'_>, ruling: &Ruling) {
    it.text("decision", ruling.verdict.as_str());
    if !ruling.clauses.is_empty() {
        it.objects("clauses", &*ruling.clauses, |it, clause| {
            it.text("kind", clause.kind.as_str());
            it.text("name", &clause.name);
            it.value("index", &clause.index);
            it.text("place", &clause.place);
        });
    }
    it.maybe_text("policy_revision", ruling.revision.as_deref());
}

fn write_credential(it: &mut Object<'_>, credential: &Credential) {
    let scope = &credential.scope;
    it.object("scope", |it| {
        it.text("database", scope.container.database());
        it.text("container", scope.container.container());
        it.maybe("partition_key", scope.partition_key.as_ref());
    });
    it.text("mode", scope.mode.as_str());
    it.maybe_text("permission_id", credential.permission_id.as_deref());
    it.text("enforced_by", credential.enforced_by.as_str());
}

fn write_upstream(it: &mut Object<'_>, upstream: &Upstream) {
    it.maybe("status", upstream.status.as_ref());
    it.maybe("substatus", upstream.substatus.as_ref());
    it.maybe_text("activity_id", upstream.activity_id.as_deref());
    it.maybe_text("region", upstream.region.as_deref());
    it.value("attempts", &upstream.attempts);
    it.value("request_units", &upstream.request_units);
    it.value("latency_ms", &millis(upstream.latency));
}

/// What only a record has that tells of no request.
fn write_rare(it: &mut Object<'_>, entry: &Entry) {
    if let Some(suppressed) = entry.suppressed {
        it.object("suppressed", |it| {
            it.value("count", &suppressed.count);
            it.value("since", &suppressed.since.as_millis());
        });
    }
    it.maybe("revocation", entry.revocation.as_ref());
    if let Some(reading) = &entry.reading {
        it.object("reading", |it| {
            it.text("command", &reading.command);
            it.text("selection", &reading.selection);
            it.value("uid", &reading.uid);
            it.value("time", &reading.time.as_millis());
        });
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

/// Milliseconds with three decimals: what a person reads, and exact to the microsecond.
fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

fn duration(millis: f64) -> Duration {
    Duration::from_micros((millis * 1000.0).round() as u64)
}
