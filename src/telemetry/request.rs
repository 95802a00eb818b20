//! What metrics and the log tell of one finished request.

use std::time::Duration;

use crate::{
    access::Action,
    audit::{Entry, Upstream, Verdict},
};

/// A finished request, read from its audit entry once that has its answer.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The operation's word, or `-` when the request was refused before it was known.
    pub operation: &'static str,
    /// The container, named only once policy allowed something on it.
    pub container: Option<String>,
    /// `allow`, `deny` or `reject`.
    pub decision: &'static str,
    /// The first clause that decided, with its place.
    pub clause: Option<String>,
    /// `issuer/client`, or `issuer/subject` where the issuer names no client.
    pub workload: Option<String>,
    /// What came back from Cosmos, where it was asked.
    pub upstream: Option<Upstream>,
    /// The status answered.
    pub status: u16,
    /// From request head to answer.
    pub took: Duration,
}

impl Finished {
    /// What the entry says.
    pub fn of(entry: &Entry) -> Self {
        let verdict = entry.decision.as_ref().map_or(Verdict::Allow, |ruling| ruling.verdict);
        let container = entry.question.container.as_ref().filter(|_| verdict == Verdict::Allow);
        let clause = entry.decision.as_ref().and_then(|ruling| ruling.clauses.first());
        let workload = entry.who.as_ref().map(|who| match &who.client {
            Some(client) => format!("{}/{client}", who.subject.issuer),
            None => who.subject.to_string(),
        });
        Self {
            operation: entry.question.action.map_or("-", Action::as_str),
            container: container.map(ToString::to_string),
            decision: verdict.as_str(),
            clause: clause.map(ToString::to_string),
            workload,
            upstream: entry.upstream.clone(),
            status: entry.answer.as_ref().map_or(0, |answer| answer.status),
            took: entry.answer.as_ref().map_or(Duration::ZERO, |answer| answer.duration),
        }
    }
}
