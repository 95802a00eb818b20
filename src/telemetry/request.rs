//! What metrics and the log tell of one finished request.

use std::{sync::Arc, time::Duration};

use super::trace::Trace;
use crate::{
    access::{ContainerName, Execution, StateName},
    audit::{Asked, Entry, Telling, Upstream, Verdict},
};

/// A finished request, read from its audit entry once that has its answer.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The request id.
    pub request_id: Arc<str>,
    /// The trace it belongs to.
    pub trace: Option<Trace>,
    /// The execution it says it is of.
    pub execution: Option<Execution>,
    /// The state it says it is sent from.
    pub state: Option<StateName>,
    /// The operation's word, or `-` when the request was refused before it was known.
    pub operation: &'static str,
    /// The container, named only once policy allowed something on it.
    pub container: Option<ContainerName>,
    /// `allow`, `deny` or `reject`.
    pub decision: &'static str,
    /// The first clause that decided, with its place.
    pub clause: Option<String>,
    /// `issuer/client`, or `issuer/subject` where the issuer names no client.
    pub workload: Option<String>,
    /// What came back from Cosmos, where it was asked.
    pub upstream: Option<Upstream>,
    /// Of a write that is done once, whose answer it got.
    pub told: Option<Telling>,
    /// The error code, for what is no success.
    pub error: Option<Arc<str>>,
    /// The status answered.
    pub status: u16,
    /// From request head to answer.
    pub took: Duration,
}

impl Finished {
    /// What the entry says.
    pub fn of(entry: &Entry, trace: Option<Trace>) -> Self {
        let verdict = entry.decision.as_ref().map_or(Verdict::Allow, |ruling| ruling.verdict);
        let container = entry.question.container.as_ref().filter(|_| verdict == Verdict::Allow);
        let clause = entry.decision.as_ref().and_then(|ruling| ruling.clauses.first());
        let workload = entry.who.as_ref().map(|who| match &who.client {
            Some(client) => format!("{}/{client}", who.subject.issuer),
            None => who.subject.to_string(),
        });
        Self {
            request_id: entry.request_id.clone(),
            trace,
            execution: entry.context.execution.as_ref().map(|fact| fact.value.clone()),
            state: entry.context.state.as_ref().map(|fact| fact.value.clone()),
            operation: entry.question.action.map_or("-", Asked::as_str),
            container: container.cloned(),
            decision: verdict.as_str(),
            clause: clause.map(ToString::to_string),
            workload,
            upstream: entry.upstream.clone(),
            told: entry.told,
            error: entry.answer.as_ref().and_then(|answer| answer.error.clone()),
            status: entry.answer.as_ref().map_or(0, |answer| answer.status),
            took: entry.answer.as_ref().map_or(Duration::ZERO, |answer| answer.duration),
        }
    }
}

/// The line of a finished request; what is missing is left out.
macro_rules! line {
    ($level:ident, $request:expr, $trace:expr, $ms:expr) => {
        tracing::$level!(
            target: "stepgate::request",
            request_id = &*$request.request_id,
            trace_id = $trace,
            operation = $request.operation,
            container = $request.container.as_ref().map(ContainerName::as_str),
            decision = $request.decision,
            clause = $request.clause,
            workload = $request.workload,
            execution = $request.execution.as_ref().map(Execution::as_str),
            state = $request.state.as_ref().map(StateName::as_str),
            status = $request.status,
            error = $request.error.as_deref(),
            idempotency = $request.told.map(Telling::as_str),
            request_units = $request.upstream.as_ref().map(|upstream| upstream.request_units),
            attempts = $request.upstream.as_ref().map(|upstream| upstream.attempts),
            ms = $ms,
            "answered"
        )
    };
}

impl Finished {
    /// Writes the request's line into the log: as a warning when the gateway or Cosmos failed, for information otherwise.
    pub fn log(&self) {
        let trace = self.trace.map(|trace| trace.id.to_string());
        let ms = self.took.as_secs_f64() * 1_000.0;
        if self.status >= 500 {
            line!(warn, self, trace.as_deref(), ms);
        } else {
            line!(info, self, trace.as_deref(), ms);
        }
    }
}
