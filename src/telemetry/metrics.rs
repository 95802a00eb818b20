//! Every metric, on one page.
//!
//! To add one: a field, and the line in [`Metrics::default`] that names it; `docs/operations.md` wants a row saying which alert
//! it is for, and a test compares the two. Events are counted where they happen, by the field; what a room counts by itself is
//! copied when somebody asks (`server::metrics`).

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet, text::encode},
    metrics::{
        MetricType, TypedMetric, counter::Counter, exemplar::HistogramWithExemplars, family::Family, gauge::Gauge,
        histogram::Histogram,
    },
    registry::{Metric, Registry, Unit},
};

use super::{
    exposition::{Exposition, as_text},
    labels::{
        AnchorLabel, AttemptLabels, BindingLabel, CauseLabel, ClauseLabels, ContainerLabel, DependencyLabel,
        DurationLabels, IssuerLabel, Names, RegionLabel, RequestLabels, ResultLabel, RevisionLabel, TraceLabel,
        UnitsLabels,
    },
    request::Finished,
};
use crate::{audit::Telling, overload::GateStatus};

type Amount = Counter<f64, AtomicU64>;
type Exemplified = HistogramWithExemplars<TraceLabel>;
type Durations<L, H> = Family<L, H, fn() -> H>;

/// The metrics of one gateway.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    names: Vec<String>,
    containers: Names,
    clauses: Names,
    bindings: Names,
    workloads: Names,

    requests: Family<RequestLabels, Counter>,
    request_duration: Durations<DurationLabels, Exemplified>,
    clause_requests: Family<ClauseLabels, Counter>,
    request_units: Family<UnitsLabels, Amount>,
    upstream_duration: Histogram,
    once: Family<ResultLabel, Counter>,
    limited: Family<BindingLabel, Counter>,
    container_limit: Family<ContainerLabel, Gauge>,
    container_in_flight: Family<ContainerLabel, Gauge>,
    container_waiting: Family<ContainerLabel, Gauge>,
    shed: Family<ContainerLabel, Counter>,
    reloads: Family<ResultLabel, Counter>,

    /// Requests in flight.
    pub requests_in_flight: Gauge,
    /// Most requests in flight.
    pub requests_in_flight_limit: Gauge,
    /// How often each cause led to another attempt at Cosmos.
    pub upstream_retries: Family<CauseLabel, Counter>,
    /// What came of attempts at Cosmos.
    pub attempts: Family<AttemptLabels, Counter>,
    /// Whether each region is left alone.
    pub region_open: Family<RegionLabel, Gauge>,
    /// Sessions kept for executions.
    pub sessions: Gauge,
    /// Memory taken by bodies, requests and answers.
    pub body_memory: Gauge,
    /// Most memory for bodies.
    pub body_memory_limit: Gauge,
    /// How each dependency is.
    pub dependencies: Family<DependencyLabel, Gauge>,
    /// The policy revision that decides; its value is 1.
    pub policy: Family<RevisionLabel, Gauge>,
    /// When it began to.
    pub policy_since: Gauge<f64, AtomicU64>,
    /// Whether newer policy files were not taken.
    pub policy_rejected: Gauge,
    /// Key sets asked of each issuer.
    pub jwks_fetches: Family<IssuerLabel, Counter>,
    /// The age of each issuer's keys.
    pub jwks_age: Family<IssuerLabel, Gauge>,
    /// How many keys each issuer has.
    pub issuer_keys: Family<IssuerLabel, Gauge>,
    /// Whether each issuer's tokens can be judged.
    pub issuer_usable: Family<IssuerLabel, Gauge>,
    /// Resource tokens minted.
    pub mints: Counter,
    /// Request units spent on users and permissions.
    pub metadata_units: Counter<f64, AtomicU64>,
    /// How often Cosmos throttled those.
    pub metadata_throttled: Counter,
    /// Resource tokens at hand.
    pub resource_tokens: Gauge,
    /// When the account key in use began to be.
    pub account_key_since: Gauge<f64, AtomicU64>,
    /// Revocations in force.
    pub revocations: Gauge,
    /// What became of spans.
    pub spans: Family<ResultLabel, Counter>,
    /// Lines of the log that were lost.
    pub log_lines_dropped: Counter,
    /// Audit records written.
    pub audit_records: Counter,
    /// Audit records that wait to be written.
    pub audit_waiting: Gauge,
    /// Refusals counted instead of written.
    pub audit_suppressed: Counter,
    /// Checkpoints signed.
    pub audit_checkpoints: Counter,
    /// Checkpoints each anchor took.
    pub anchored: Family<AnchorLabel, Counter>,
    /// Tries to anchor that failed.
    pub anchor_failures: Family<AnchorLabel, Counter>,
    /// Checkpoints that wait for each anchor.
    pub anchor_waiting: Family<AnchorLabel, Gauge>,
    /// The times of the audit log's syncs.
    pub audit_sync: Times,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut new = New { registry: Registry::with_prefix(PREFIX), names: Vec::new() };
        let metrics = Self {
            containers: Names::default(),
            clauses: Names::default(),
            bindings: Names::default(),
            workloads: Names::default(),

            requests: new.metric("requests", "Requests answered"),
            request_duration: new.register(
                "request_duration",
                "Time from request head to answer",
                Some(Unit::Seconds),
                Family::new_with_constructor(exemplified as fn() -> Exemplified),
            ),
            clause_requests: new.metric("clause_requests", "Requests by the grant or deny that decided them"),
            request_units: new.metric("request_units", "Request units Cosmos charged"),
            upstream_duration: new.register(
                "upstream_duration",
                "Time Cosmos took, over all attempts of a request",
                Some(Unit::Seconds),
                Histogram::new(DURATIONS),
            ),
            once: new.metric("idempotent_writes", "Writes that are done once, by whose answer they got"),
            upstream_retries: new.metric("upstream_retries", "Attempts at Cosmos that came after another"),
            attempts: new.metric("upstream_attempts", "Attempts at Cosmos"),
            region_open: new.metric("region_open", "Whether a region is left alone for answering badly"),
            sessions: new.metric("sessions", "Sessions kept for executions"),
            limited: new.metric("limited_requests", "Requests refused over the limits of their binding"),
            container_limit: new.metric("container_limit", "Requests a container takes at once, as found out"),
            container_in_flight: new.metric("container_in_flight", "Requests at a container"),
            container_waiting: new.metric("container_waiting", "Requests that wait for their turn at a container"),
            shed: new.metric("shed_requests", "Requests whose turn at a container would not have come in time"),
            reloads: new.metric("policy_reloads", "Policy reloads"),

            requests_in_flight: new.metric("requests_in_flight", "Requests on their walk"),
            requests_in_flight_limit: new.metric("requests_in_flight_limit", "Most requests that may be on their walk"),
            body_memory: new.bytes("body_memory", "Memory taken by bodies, requests and answers"),
            body_memory_limit: new.bytes("body_memory_limit", "Most memory that bodies may take"),
            dependencies: new.metric("dependency_condition", "How a dependency is: 0 ok, 1 degraded, 2 down"),
            policy: new.metric("policy_info", "The policy revision that decides"),
            policy_since: new.seconds("policy_since_timestamp", "When the running policy began to decide"),
            policy_rejected: new.metric("policy_rejected", "Whether newer policy files were not taken"),
            jwks_fetches: new.metric("jwks_fetches", "Key sets asked of issuers"),
            jwks_age: new.seconds("jwks_age", "Time since the issuer's keys were last fetched"),
            issuer_keys: new.metric("issuer_keys", "Keys the issuer signs with, as fetched last"),
            issuer_usable: new.metric("issuer_usable", "Whether the issuer's tokens can be judged"),
            mints: new.metric("mints", "Resource tokens minted"),
            metadata_units: new.metric("metadata_request_units", "Request units spent on users and permissions"),
            metadata_throttled: new
                .metric("metadata_throttled", "Requests for users and permissions that Cosmos throttled"),
            resource_tokens: new.metric("resource_tokens", "Resource tokens at hand"),
            account_key_since: new.seconds("account_key_since_timestamp", "When the account key in use was taken in"),
            revocations: new.metric("revocations", "Revocations in force"),
            spans: new.metric("spans", "Spans by what became of them"),
            log_lines_dropped: new.metric("log_lines_dropped", "Lines of the log that nobody read in time"),
            audit_records: new.metric("audit_records", "Audit records written"),
            audit_waiting: new.metric("audit_waiting", "Audit records that wait to be written"),
            audit_suppressed: new.metric("audit_suppressed_refusals", "Refusals of strangers counted, not written"),
            audit_checkpoints: new.metric("audit_checkpoints", "Checkpoints of the audit log signed"),
            anchored: new.metric("audit_anchored_checkpoints", "Checkpoints an anchor took"),
            anchor_failures: new.metric("audit_anchor_failures", "Tries to anchor that failed"),
            anchor_waiting: new.metric("audit_anchor_waiting", "Checkpoints that wait for an anchor"),
            audit_sync: new.seconds("audit_sync", "Time of one sync of the audit log"),
            registry: new.registry,
            names: new.names,
        };
        // A series that begins at its first event hides that event from `rate`.
        for result in [APPLIED, REJECTED] {
            drop(metrics.reloads.get_or_create(&ResultLabel { result }));
        }
        for told in [Telling::First, Telling::Repeated, Telling::Changed] {
            drop(metrics.once.get_or_create(&ResultLabel { result: told.as_str() }));
        }
        metrics
    }
}

/// What every name begins with.
const PREFIX: &str = "stepgate";
const APPLIED: &str = "applied";
const REJECTED: &str = "rejected";
/// Upper bounds of the durations of requests, in seconds.
const DURATIONS: [f64; 15] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Makes metrics, and registers them under their names.
struct New {
    registry: Registry,
    names: Vec<String>,
}

impl New {
    /// A count or a state.
    fn metric<M: Metric + Clone + Default>(&mut self, name: &str, help: &str) -> M {
        self.register(name, help, None, M::default())
    }

    /// An amount of seconds; the unit becomes part of the name.
    fn seconds<M: Metric + Clone + Default>(&mut self, name: &str, help: &str) -> M {
        self.register(name, help, Some(Unit::Seconds), M::default())
    }

    /// An amount of bytes; the unit becomes part of the name.
    fn bytes<M: Metric + Clone + Default>(&mut self, name: &str, help: &str) -> M {
        self.register(name, help, Some(Unit::Bytes), M::default())
    }

    /// A metric as it is, under the name that its samples have.
    fn register<M: Metric + Clone>(&mut self, name: &str, help: &str, unit: Option<Unit>, metric: M) -> M {
        let end = if matches!(metric.metric_type(), MetricType::Counter) { "_total" } else { "" };
        let unit_part = unit.as_ref().map(|unit| format!("_{}", unit.as_str())).unwrap_or_default();
        self.names.push(format!("{PREFIX}_{name}{unit_part}{end}"));
        match unit {
            Some(unit) => self.registry.register_with_unit(name, help, unit, metric.clone()),
            None => self.registry.register(name, help, metric.clone()),
        }
        metric
    }
}

fn exemplified() -> Exemplified {
    HistogramWithExemplars::new(DURATIONS.into_iter())
}

impl Metrics {
    /// Counts a finished request.
    pub fn request(&self, finished: &Finished) {
        let operation = finished.operation;
        let container = match &finished.container {
            Some(container) => self.containers.bound(container.as_str()),
            None => "-".into(),
        };
        let sampled = finished.trace.filter(|trace| trace.sampled);
        let exemplar = sampled.map(|trace| TraceLabel { trace_id: trace.id.to_string() });
        let labels = DurationLabels { operation, container: container.clone() };
        self.request_duration.get_or_create(&labels).observe(finished.took.as_secs_f64(), exemplar, None);
        if let Some(clause) = &finished.clause {
            let class = class(finished.status);
            self.clause_requests.get_or_create(&ClauseLabels { clause: self.clauses.bound(clause), class }).inc();
        }
        if let Some(upstream) = &finished.upstream {
            let workload = self.workloads.bound(finished.workload.as_deref().unwrap_or_default());
            self.request_units.get_or_create(&UnitsLabels { operation, workload }).inc_by(upstream.request_units);
            self.upstream_duration.observe(upstream.latency.as_secs_f64());
        }
        if let Some(told) = finished.told {
            self.once.get_or_create(&ResultLabel { result: told.as_str() }).inc();
        }
        let (decision, status) = (finished.decision, finished.status);
        self.requests.get_or_create(&RequestLabels { operation, container, decision, status }).inc();
    }

    /// Counts a policy reload.
    pub fn policy_reload(&self, applied: bool) {
        let result = if applied { APPLIED } else { REJECTED };
        self.reloads.get_or_create(&ResultLabel { result }).inc();
    }

    /// Counts a request over the limits of its binding.
    pub fn limited(&self, role: &str, place: &str) {
        let binding = self.bindings.bound(&format!("{role} ({place})"));
        self.limited.get_or_create(&BindingLabel { binding }).inc();
    }

    /// Takes over how the gates of all containers stand.
    pub fn gates(&self, gates: Vec<GateStatus>) {
        let numbers = [&self.container_limit, &self.container_in_flight, &self.container_waiting];
        numbers.into_iter().for_each(Family::clear);
        self.shed.clear();
        // Those that share a label are added up.
        for gate in gates {
            let label = ContainerLabel { container: self.containers.bound(gate.container.as_str()) };
            for (family, number) in numbers.into_iter().zip([gate.limit, gate.in_flight, gate.waiting]) {
                family.get_or_create(&label).inc_by(number.try_into().unwrap_or(i64::MAX));
            }
            self.shed.get_or_create(&label).inc_by(gate.shed);
        }
    }

    /// The names of all metrics, also of those that have no series yet.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// The metrics in one of their forms.
    pub fn render(&self, exposition: Exposition) -> String {
        let mut text = String::new();
        match (encode(&mut text, &self.registry), exposition) {
            (Err(_), _) => String::new(),
            (Ok(()), Exposition::OpenMetrics) => text,
            (Ok(()), Exposition::Text) => as_text(&text),
        }
    }
}

const fn class(status: u16) -> &'static str {
    match status {
        ..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        500.. => "5xx",
    }
}

/// Sets a counter that a room keeps.
pub fn copy(counter: &Counter, count: u64) {
    counter.inner().store(count, Ordering::Relaxed);
}

/// Sets an amount that a room keeps.
pub fn copy_amount(counter: &Counter<f64, AtomicU64>, amount: f64) {
    counter.inner().store(amount.to_bits(), Ordering::Relaxed);
}

/// Sets a gauge to a number of things.
pub fn set(gauge: &Gauge, number: impl TryInto<i64>) {
    gauge.set(number.try_into().unwrap_or(i64::MAX));
}

/// A histogram that a room keeps.
#[derive(Clone, Debug, Default)]
pub struct Times(Arc<Mutex<Buckets>>);

#[derive(Clone, Debug, Default)]
struct Buckets {
    sum: f64,
    /// The upper bound of each, in seconds, and how many fell into it.
    counts: Vec<(f64, u64)>,
}

impl Times {
    /// Takes over the seconds in all, and each bucket: its upper bound in seconds, and how many fell into it. The last bound
    /// is infinite.
    pub fn set(&self, sum: f64, counts: Vec<(f64, u64)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Buckets { sum, counts };
    }
}

impl TypedMetric for Times {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Times {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Buckets { sum, counts } = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let count = counts.iter().map(|(_, count)| count).sum();
        encoder.encode_histogram::<NoLabelSet>(sum, count, &counts, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests;
