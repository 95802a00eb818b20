//! The way there: an entry's members, straight into the line.

use std::time::Duration;

use crate::{
    access::{Attempt, ContainerName, ExecutionContext, Fact, ItemId, WorkloadKind},
    audit::record::{Asked, Credential, Entry, Phase, Question, Ruling, Telling, Upstream, Who},
    json::Object,
};

/// What is said of an outcome that never became durable.
const OUTCOME_UNKNOWN: &str = "unknown";

/// Writes the members of `stepgate`; what is not known is left out. `Fields` reads them back.
pub(in crate::audit) fn write(it: &mut Object<'_>, entry: &Entry) {
    it.text("phase", entry.phase.as_str());
    if !entry.request_id.is_empty() {
        it.text("request_id", &entry.request_id);
    }
    if entry.phase == Phase::Recovered {
        it.text("outcome", OUTCOME_UNKNOWN);
    }
    if let Some(who) = &entry.who {
        self::who(it, who);
    }
    context(it, &entry.context);
    question(it, &entry.question);
    if let Some(ruling) = &entry.decision {
        self::ruling(it, ruling);
    }
    if let Some(credential) = &entry.credential {
        it.object("credential", |it| self::credential(it, credential));
    }
    if let Some(upstream) = &entry.upstream {
        it.object("upstream", |it| self::upstream(it, upstream));
    }
    if let Some(answer) = &entry.answer {
        it.object("answer", |it| {
            it.value("status", &answer.status);
            it.maybe_text("error", answer.error.as_deref());
            it.value("duration_ms", &millis(answer.duration));
        });
    }
    it.maybe_text("idempotency", entry.told.map(Telling::as_str));
    if !entry.masked.is_empty() {
        it.value("masked", &entry.masked);
    }
    it.value("bytes_in", &entry.bytes_in);
    it.value("bytes_out", &entry.bytes_out);
    if let Some(peer) = &entry.peer {
        it.display("peer", peer);
    }
    it.text("user_agent", entry.user_agent.as_str());
    rare(it, entry);
}

fn who(it: &mut Object<'_>, who: &Who) {
    it.text("issuer", who.subject.issuer.as_str());
    it.text("subject", &who.subject.id);
    it.maybe_text("client", who.client.as_deref());
    it.maybe_text("workload_kind", who.kind.map(WorkloadKind::as_str));
}

fn context(it: &mut Object<'_>, context: &ExecutionContext) {
    let ExecutionContext { execution, run, state, entered, attempt, redrive, item } = context;
    fact(it, "execution", execution, |it, execution| it.text("value", execution.as_str()));
    fact(it, "run", run, |it, run| it.text("value", run.as_str()));
    fact(it, "state", state, |it, state| it.text("value", state.as_str()));
    fact(it, "entered", entered, |it, entered| it.text("value", entered));
    fact(it, "attempt", attempt, |it, Attempt(number)| it.value("value", number));
    fact(it, "redrive", redrive, |it, number| it.value("value", number));
    fact(it, "item", item, |it, number| it.value("value", number));
}

fn fact<T>(it: &mut Object<'_>, name: &'static str, fact: &Option<Fact<T>>, value: impl FnOnce(&mut Object<'_>, &T)) {
    if let Some(fact) = fact {
        it.object(name, |it| {
            value(it, &fact.value);
            it.text("assurance", fact.assurance.as_str());
        });
    }
}

fn question(it: &mut Object<'_>, question: &Question) {
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
            it.maybe_text("container", inside.container.as_ref().map(ContainerName::as_str));
            it.maybe_text("item_id", inside.item.as_ref().map(ItemId::as_str));
            it.maybe("partition_key", inside.partition_key.as_ref());
        });
    }
}

fn ruling(it: &mut Object<'_>, ruling: &Ruling) {
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

fn credential(it: &mut Object<'_>, credential: &Credential) {
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

fn upstream(it: &mut Object<'_>, upstream: &Upstream) {
    it.maybe("status", upstream.status.as_ref());
    it.maybe("substatus", upstream.substatus.as_ref());
    it.maybe_text("activity_id", upstream.activity_id.as_deref());
    it.maybe_text("region", upstream.region.as_deref());
    it.value("attempts", &upstream.attempts);
    it.value("request_units", &upstream.request_units);
    it.value("latency_ms", &millis(upstream.latency));
}

/// What only a record has that tells of no request.
fn rare(it: &mut Object<'_>, entry: &Entry) {
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

/// Milliseconds with three decimals: what a person reads, and exact to the microsecond.
fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}
