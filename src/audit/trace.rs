//! One execution out of the log, as a tree: the states it entered, the attempts at each, and the requests of each attempt.
//!
//! An intent and its outcome are one request here. The tree is in the order of the log, which is the order in which
//! things became durable.

use std::{collections::HashMap, path::Path};

use serde::{Serialize, Serializer};

use super::{
    display,
    journal::AuditError,
    reader::Reader,
    record::{Answer, Entry, Phase, Record, Telling, Upstream, Verdict},
};
use crate::{
    access::{Assurance, Execution},
    clock::Timestamp,
};

/// An execution that cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] AuditError),
    /// No record names it.
    #[error("no record names the execution {0}: give its ARN, or the last part of it")]
    NotFound(String),
    /// The name is that of several executions.
    #[error("{} executions have that name; give one of the ARNs:\n  {}", .0.len(), .0.join("\n  "))]
    Ambiguous(Vec<String>),
}

/// An execution.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Trace {
    /// Its ARN.
    pub execution: String,
    /// How sure that is; the least sure of its records.
    pub assurance: Assurance,
    /// Who acted, as issuer/subject.
    pub workloads: Vec<String>,
    /// The policy revisions that decided.
    pub policy_revisions: Vec<String>,
    /// The first record.
    #[serde(serialize_with = "rfc3339")]
    pub first: Timestamp,
    /// The last record.
    #[serde(serialize_with = "rfc3339")]
    pub last: Timestamp,
    /// The states, in the order of their first request.
    pub states: Vec<Visit>,
    /// Sums over all requests.
    pub totals: Totals,
}

/// A state that was entered.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Visit {
    /// Its name, if the requests say so.
    pub state: Option<String>,
    /// When it was entered, as the requests say.
    pub entered: Option<String>,
    /// How sure the name is.
    pub assurance: Option<Assurance>,
    /// The attempts.
    pub attempts: Vec<Try>,
}

/// An attempt at a state.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct TryKey {
    /// `State.RetryCount`
    pub attempt: Option<u32>,
    /// `Execution.RedriveCount`
    pub redrive: Option<u32>,
    /// `Map.Item.Index`
    pub item: Option<u32>,
}

/// An attempt with its requests.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Try {
    /// Which attempt.
    #[serde(flatten)]
    pub key: TryKey,
    /// The requests, in order.
    pub requests: Vec<Call>,
}

/// What is known of how a request ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It was answered.
    Answered,
    /// Its intent is there and nothing more yet.
    Pending,
    /// The journal found its intent without an outcome.
    Unknown,
}

/// A request.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Call {
    /// Its id.
    pub request_id: String,
    /// The sequence of its first record.
    pub sequence: u64,
    /// The time of its first record.
    #[serde(serialize_with = "rfc3339")]
    pub time: Timestamp,
    /// The operation; `None` for a path that names none.
    pub operation: Option<&'static str>,
    /// Container, partition key, item, and what is inside a batch.
    pub target: String,
    /// The decision.
    pub decision: Option<Verdict>,
    /// The clauses that decided, with their places.
    pub clauses: Vec<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// The status the caller got.
    pub status: Option<u16>,
    /// The error code the caller got.
    pub error: Option<String>,
    /// Of a write that is done once, whose answer that was.
    #[serde(rename = "idempotency", skip_serializing_if = "Option::is_none")]
    pub told: Option<Telling>,
    /// The members that were masked in the answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub masked: Vec<String>,
    /// How often it was sent to Cosmos.
    pub sent: u32,
    /// Request units.
    pub request_units: Option<f64>,
    /// Milliseconds in Cosmos.
    pub latency_ms: Option<f64>,
}

/// Sums over all requests of an execution.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Totals {
    /// Requests.
    pub requests: u64,
    /// Allowed ones.
    pub allowed: u64,
    /// Denied ones.
    pub denied: u64,
    /// Rejected ones.
    pub rejected: u64,
    /// Those whose outcome is unknown.
    pub unknown: u64,
    /// Request units.
    pub request_units: f64,
    /// Milliseconds in Cosmos.
    pub latency_ms: f64,
}

fn rfc3339<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time.rfc3339())
}

/// The execution called `execution`, by its ARN or the last part of it (the run's name), out of the log in `directory`.
pub fn trace(directory: &Path, execution: &str) -> Result<Trace, TraceError> {
    let mut reader = Reader::from_start(directory)?;
    let mut found: HashMap<Execution, Vec<Record>> = HashMap::new();
    while let Some(record) = reader.next(|line| may_hold(line, execution))? {
        if let Some(fact) = &record.entry.context.execution
            && is_called(&fact.value, execution)
        {
            found.entry(fact.value.clone()).or_default().push(record);
        }
    }
    if found.len() > 1 {
        let mut arns: Vec<String> = found.into_keys().map(|arn| arn.to_string()).collect();
        arns.sort();
        return Err(TraceError::Ambiguous(arns));
    }
    let (arn, records) = found.into_iter().next().ok_or_else(|| TraceError::NotFound(execution.to_owned()))?;
    Ok(Trace::of(&arn, &records))
}

/// Whether the name is the ARN, or the run in it (also the last part of an express execution's ARN).
pub(super) fn is_called(arn: &Execution, name: &str) -> bool {
    let mut parts = arn.as_str().split(':').skip(7);
    arn.as_str() == name || parts.any(|part| part == name)
}

/// Whether a line can speak of the execution: cheaper than reading it.
fn may_hold(line: &[u8], name: &str) -> bool {
    // A name that JSON writes in another way is looked for in every line.
    name.contains(['"', '\\']) || std::str::from_utf8(line).is_ok_and(|line| line.contains(name))
}

impl Trace {
    fn of(arn: &Execution, records: &[Record]) -> Self {
        let start = records.first().map_or(Timestamp::from_millis(0), |record| record.time);
        let mut trace = Self {
            execution: arn.to_string(),
            assurance: Assurance::Proven,
            workloads: Vec::new(),
            policy_revisions: Vec::new(),
            first: start,
            last: start,
            states: Vec::new(),
            totals: Totals::default(),
        };
        // Requests are few per execution, but a Map state can make thousands: found by id, not by searching.
        let mut places = HashMap::new();
        for record in records {
            trace.see(record, &mut places);
        }
        trace.totals = trace.sum();
        trace
    }

    fn see(&mut self, record: &Record, places: &mut HashMap<String, (usize, usize, usize)>) {
        let entry = &record.entry;
        self.last = self.last.max(record.time);
        if let Some(fact) = &entry.context.execution {
            self.assurance = self.assurance.min(fact.assurance);
        }
        if let Some(who) = &entry.who {
            note(&mut self.workloads, &who.subject.to_string());
        }
        if let Some(revision) = entry.decision.as_ref().and_then(|ruling| ruling.revision.as_deref()) {
            note(&mut self.policy_revisions, revision);
        }
        let (visit, attempt, call) = *places.entry(entry.request_id.to_string()).or_insert_with(|| self.place(record));
        let call = self.states.get_mut(visit).and_then(|visit| visit.attempts.get_mut(attempt)?.requests.get_mut(call));
        if let Some(call) = call {
            call.complete(entry);
        }
    }

    /// Puts a new request into its state and attempt.
    fn place(&mut self, record: &Record) -> (usize, usize, usize) {
        let context = &record.entry.context;
        let state = context.state.as_ref().map(|fact| fact.value.as_str().to_owned());
        let entered = context.entered.as_ref().map(|fact| fact.value.to_string());
        let visit = self.states.iter().position(|visit| visit.state == state && visit.entered == entered);
        let visit = visit.unwrap_or(self.states.len());
        if visit == self.states.len() {
            let assurance = context.state.as_ref().map(|fact| fact.assurance);
            self.states.push(Visit { state, entered, assurance, attempts: Vec::new() });
        }
        let key = TryKey {
            attempt: context.attempt.as_ref().map(|fact| fact.value.0),
            redrive: context.redrive.as_ref().map(|fact| fact.value),
            item: context.item.as_ref().map(|fact| fact.value),
        };
        let Some(attempts) = self.states.get_mut(visit).map(|visit| &mut visit.attempts) else { return (0, 0, 0) };
        let attempt = attempts.iter().position(|attempt| attempt.key == key).unwrap_or(attempts.len());
        if attempt == attempts.len() {
            attempts.push(Try { key, requests: Vec::new() });
        }
        let Some(calls) = attempts.get_mut(attempt).map(|attempt| &mut attempt.requests) else { return (0, 0, 0) };
        calls.push(Call::new(record));
        (visit, attempt, calls.len() - 1)
    }

    /// Every request, in the order of the tree.
    pub fn calls(&self) -> impl Iterator<Item = &Call> {
        self.states.iter().flat_map(|visit| &visit.attempts).flat_map(|attempt| &attempt.requests)
    }

    fn sum(&self) -> Totals {
        self.calls().fold(Totals::default(), |mut totals, call| {
            totals.requests += 1;
            match call.decision {
                Some(Verdict::Allow) => totals.allowed += 1,
                Some(Verdict::Deny) => totals.denied += 1,
                Some(Verdict::Reject) => totals.rejected += 1,
                None => {}
            }
            totals.unknown += u64::from(call.outcome == Outcome::Unknown);
            totals.request_units += call.request_units.unwrap_or(0.0);
            totals.latency_ms += call.latency_ms.unwrap_or(0.0);
            totals
        })
    }
}

impl Call {
    fn new(record: &Record) -> Self {
        Self {
            request_id: record.entry.request_id.to_string(),
            sequence: record.sequence.0,
            time: record.time,
            operation: None,
            target: String::new(),
            decision: None,
            clauses: Vec::new(),
            outcome: Outcome::Pending,
            status: None,
            error: None,
            told: None,
            masked: Vec::new(),
            sent: 0,
            request_units: None,
            latency_ms: None,
        }
    }

    /// Takes over what a later record knows more.
    fn complete(&mut self, entry: &Entry) {
        self.outcome = match entry.phase {
            Phase::Recovered => Outcome::Unknown,
            Phase::Intent => self.outcome,
            _ => Outcome::Answered,
        };
        self.operation = entry.question.action.map(|action| action.as_str());
        self.target = display::target(&entry.question);
        if let Some(ruling) = &entry.decision {
            self.decision = Some(ruling.verdict);
            self.clauses = ruling.clauses.iter().map(display::clause).collect();
        }
        if let Some(Upstream { attempts, request_units, latency, .. }) = &entry.upstream {
            self.sent = *attempts;
            self.request_units = Some(*request_units);
            self.latency_ms = Some(latency.as_secs_f64() * 1000.0);
        }
        if let Some(Answer { status, error, .. }) = &entry.answer {
            self.status = Some(*status);
            self.error = error.as_deref().map(str::to_owned);
        }
        self.told = entry.told;
        self.masked = entry.masked.iter().map(ToString::to_string).collect();
    }
}

/// Adds `text` where it is not there yet.
fn note(texts: &mut Vec<String>, text: &str) {
    if !texts.iter().any(|known| known == text) {
        texts.push(text.to_owned());
    }
}
