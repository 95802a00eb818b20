//! What operators see: the log and the metrics.
//!
//! Field and metric names stand here as constants or struct members, once. Labels are bounded: a container is named only
//! when policy granted something on it, so that no caller can make time series at will.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet, text::encode},
    metrics::{MetricType, counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use tracing_subscriber::{EnvFilter, fmt::writer::BoxMakeWriter};

/// Starts the log: JSON lines on standard error, filtered by `filter` (such as `info` or `stepgate=debug`).
/// Does nothing when a log is running already.
pub fn start_log(filter: &str) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(filter)
        .with_writer(BoxMakeWriter::new(std::io::stderr))
        .finish();
    // A second gateway in the same process (tests, `dev`) keeps the first one's log.
    let _ = tracing::subscriber::set_global_default(log);
}

/// The labels of a finished request.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct RequestLabels {
    /// The operation's word, or `-` when the request was refused before it was known.
    pub operation: &'static str,
    /// `database/container`, or `-` when nothing on it was granted.
    pub container: String,
    /// `allow`, `deny` or `reject`.
    pub decision: &'static str,
    /// The status answered.
    pub status: u16,
}

/// The labels of a finished request's duration.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct OperationLabel {
    /// The operation's word, or `-`.
    pub operation: &'static str,
}

/// The label of an issuer.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct IssuerLabel {
    /// The issuer's configured name.
    pub issuer: String,
}

/// The label of an anchor of the audit log.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct AnchorLabel {
    /// Its kind and place.
    pub anchor: String,
}

/// What an anchor of the audit log has done since the start.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AnchorCounts {
    /// Its kind and place.
    pub name: String,
    /// Checkpoints it took.
    pub anchored: u64,
    /// Tries that failed.
    pub failures: u64,
    /// Checkpoints that wait for it.
    pub waiting: usize,
}

/// The label of a binding.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct BindingLabel {
    /// Its role and place, such as `order-writer (shop.yaml:31)`; `other` once there are many.
    pub binding: String,
}

/// How many bindings have a series of their own. Their places move when files are edited, so there is no end of them.
const MOST_BINDINGS: usize = 200;

/// The label of a reload.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct ReloadLabel {
    /// `applied` or `rejected`.
    pub result: &'static str,
}

const APPLIED: &str = "applied";
const REJECTED: &str = "rejected";

/// The metrics of one gateway.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Family<OperationLabel, Histogram>,
    request_units: Family<OperationLabel, Counter<f64, std::sync::atomic::AtomicU64>>,
    reloads: Family<ReloadLabel, Counter>,
    limited: Family<BindingLabel, Counter>,
    limited_bindings: Mutex<HashSet<String>>,
    jwks_fetches: Family<IssuerLabel, Counter>,
    jwks_age: Family<IssuerLabel, Gauge>,
    issuer_usable: Family<IssuerLabel, Gauge>,
    mints: Counter,
    metadata_units: Counter<f64, std::sync::atomic::AtomicU64>,
    metadata_throttles: Counter,
    audit_records: Counter,
    revocations: Gauge,
    anchored: Family<AnchorLabel, Counter>,
    anchor_failures: Family<AnchorLabel, Counter>,
    anchor_waiting: Family<AnchorLabel, Gauge>,
    audit_sync: Arc<SyncHistogram>,
}

/// What the rooms count themselves.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Counts {
    /// Resource tokens minted.
    pub mints: u64,
    /// Request units spent on users and permissions.
    pub metadata_units: f64,
    /// How often Cosmos throttled those.
    pub metadata_throttles: u64,
    /// Audit records written.
    pub audit_records: u64,
    /// Revocations in force.
    pub revocations: usize,
    /// How each issuer's keys stand.
    pub issuers: Vec<IssuerCounts>,
    /// What each anchor of the audit log has done.
    pub anchors: Vec<AnchorCounts>,
    /// The times of the audit log's syncs.
    pub audit_sync: SyncTimes,
}

/// How an issuer's keys stand.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IssuerCounts {
    /// Its name.
    pub issuer: String,
    /// How often its keys were asked for.
    pub fetches: u64,
    /// Seconds since they were last had; `None` when they never were.
    pub age: Option<u64>,
    /// Whether its tokens can be judged.
    pub usable: bool,
}

/// The times of the audit log's syncs, as the log counts them.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct SyncTimes {
    /// Seconds in all.
    pub sum: f64,
    /// Upper bound of each bucket in seconds, and how many syncs fell into it; the last bound is infinite.
    pub buckets: Vec<(f64, u64)>,
}

#[derive(Debug, Default)]
struct SyncHistogram(Mutex<SyncTimes>);

impl Collector for SyncHistogram {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let times = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let count = times.buckets.iter().map(|(_, count)| count).sum();
        let help = "Time of one sync of the audit log";
        let mut metric = encoder.encode_descriptor("audit_sync", help, Some(&Unit::Seconds), MetricType::Histogram)?;
        metric.encode_histogram::<NoLabelSet>(times.sum, count, &times.buckets, None)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("stepgate");
        let requests = Family::default();
        registry.register("requests", "Requests answered", requests.clone());
        let durations = Family::new_with_constructor(request_buckets as fn() -> Histogram);
        let help = "Time from request head to answer";
        registry.register_with_unit("request_duration", help, Unit::Seconds, durations.clone());
        let request_units = Family::default();
        registry.register("request_units", "Request units Cosmos charged", request_units.clone());
        let reloads: Family<ReloadLabel, Counter> = Family::default();
        registry.register("policy_reloads", "Policy reloads", reloads.clone());
        // A series that begins at its first event hides that event from `rate`.
        for result in [APPLIED, REJECTED] {
            drop(reloads.get_or_create(&ReloadLabel { result }));
        }
        let limited = Family::default();
        registry.register("limited_requests", "Requests refused over the limits of their binding", limited.clone());
        let jwks_fetches = Family::default();
        registry.register("jwks_fetches", "Key sets asked of issuers", jwks_fetches.clone());
        let jwks_age = Family::default();
        let help = "Time since the issuer's keys were last fetched";
        registry.register_with_unit("jwks_age", help, Unit::Seconds, jwks_age.clone());
        let issuer_usable = Family::default();
        registry.register("issuer_usable", "Whether the issuer's tokens can be judged", issuer_usable.clone());
        let mints = Counter::default();
        registry.register("mints", "Resource tokens minted", mints.clone());
        let metadata_units = Counter::default();
        let help = "Request units spent on users and permissions";
        registry.register("metadata_request_units", help, metadata_units.clone());
        let metadata_throttles = Counter::default();
        let help = "Requests for users and permissions that Cosmos throttled";
        registry.register("metadata_throttled", help, metadata_throttles.clone());
        let revocations = Gauge::default();
        registry.register("revocations", "Revocations in force", revocations.clone());
        let audit_records = Counter::default();
        registry.register("audit_records", "Audit records written", audit_records.clone());
        let (anchored, anchor_failures, anchor_waiting) = (Family::default(), Family::default(), Family::default());
        registry.register("audit_anchored_checkpoints", "Checkpoints an anchor took", anchored.clone());
        registry.register("audit_anchor_failures", "Tries to anchor that failed", anchor_failures.clone());
        registry.register("audit_anchor_waiting", "Checkpoints that wait for an anchor", anchor_waiting.clone());
        let audit_sync = Arc::<SyncHistogram>::default();
        registry.register_collector(Box::new(audit_sync.clone()));
        Self {
            registry,
            requests,
            durations,
            request_units,
            reloads,
            limited,
            limited_bindings: Mutex::default(),
            jwks_fetches,
            jwks_age,
            issuer_usable,
            mints,
            metadata_units,
            metadata_throttles,
            audit_records,
            revocations,
            anchored,
            anchor_failures,
            anchor_waiting,
            audit_sync,
        }
    }
}

fn request_buckets() -> Histogram {
    Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0])
}

impl Metrics {
    /// Counts a finished request.
    pub fn request(&self, labels: RequestLabels, took: Duration, request_units: Option<f64>) {
        let operation = OperationLabel { operation: labels.operation };
        self.durations.get_or_create(&operation).observe(took.as_secs_f64());
        if let Some(charge) = request_units {
            self.request_units.get_or_create(&operation).inc_by(charge);
        }
        self.requests.get_or_create(&labels).inc();
    }

    /// Counts a policy reload.
    pub fn policy_reload(&self, applied: bool) {
        let result = if applied { APPLIED } else { REJECTED };
        self.reloads.get_or_create(&ReloadLabel { result }).inc();
    }

    /// Counts a request over the limits of its binding.
    pub fn limited(&self, role: &str, place: &str) {
        let mut binding = format!("{role} ({place})");
        let mut known = self.limited_bindings.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() < MOST_BINDINGS {
            known.insert(binding.clone());
        } else if !known.contains(&binding) {
            "other".clone_into(&mut binding);
        }
        self.limited.get_or_create(&BindingLabel { binding }).inc();
    }

    /// Takes over what the rooms count themselves.
    pub fn observe(&self, counts: Counts) {
        self.mints.inner().store(counts.mints, Ordering::Relaxed);
        self.metadata_units.inner().store(counts.metadata_units.to_bits(), Ordering::Relaxed);
        self.metadata_throttles.inner().store(counts.metadata_throttles, Ordering::Relaxed);
        self.revocations.set(i64::try_from(counts.revocations).unwrap_or(i64::MAX));
        self.audit_records.inner().store(counts.audit_records, Ordering::Relaxed);
        for IssuerCounts { issuer, fetches, age, usable } in counts.issuers {
            let label = IssuerLabel { issuer };
            self.jwks_fetches.get_or_create(&label).inner().store(fetches, Ordering::Relaxed);
            self.issuer_usable.get_or_create(&label).set(usable.into());
            if let Some(age) = age {
                self.jwks_age.get_or_create(&label).set(i64::try_from(age).unwrap_or(i64::MAX));
            }
        }
        for AnchorCounts { name, anchored, failures, waiting } in counts.anchors {
            let label = AnchorLabel { anchor: name };
            self.anchored.get_or_create(&label).inner().store(anchored, Ordering::Relaxed);
            self.anchor_failures.get_or_create(&label).inner().store(failures, Ordering::Relaxed);
            self.anchor_waiting.get_or_create(&label).set(i64::try_from(waiting).unwrap_or(i64::MAX));
        }
        *self.audit_sync.0.lock().unwrap_or_else(PoisonError::into_inner) = counts.audit_sync;
    }

    /// The metrics in the Prometheus text format (OpenMetrics 1.0).
    pub fn render(&self) -> String {
        let mut text = String::new();
        match encode(&mut text, &self.registry) {
            Ok(()) => text,
            Err(_) => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_have_the_names_that_dashboards_use() {
        let metrics = Metrics::default();
        let labels =
            RequestLabels { operation: "query", container: "shop/orders".into(), decision: "allow", status: 200 };
        metrics.request(labels, Duration::from_millis(3), Some(2.5));
        metrics.policy_reload(true);
        for i in 0..1_000 {
            metrics.limited("r", &format!("p.yaml:{i}"));
        }
        metrics.observe(Counts {
            mints: 7,
            metadata_units: 12.5,
            metadata_throttles: 4,
            audit_records: 9,
            revocations: 3,
            issuers: vec![IssuerCounts { issuer: "cognito".to_owned(), fetches: 2, age: Some(30), usable: true }],
            anchors: vec![AnchorCounts { name: "file /x".to_owned(), anchored: 5, failures: 1, waiting: 2 }],
            audit_sync: SyncTimes { sum: 0.5, buckets: vec![(0.1, 1), (f64::INFINITY, 2)] },
        });
        let text = metrics.render();
        for line in [
            r#"stepgate_requests_total{operation="query",container="shop/orders",decision="allow",status="200"} 1"#,
            r#"stepgate_request_duration_seconds_bucket{le="0.005",operation="query"} 1"#,
            r#"stepgate_request_units_total{operation="query"} 2.5"#,
            r#"stepgate_policy_reloads_total{result="applied"} 1"#,
            r#"stepgate_limited_requests_total{binding="r (p.yaml:0)"} 1"#,
            r#"stepgate_limited_requests_total{binding="other"} 800"#,
            r#"stepgate_jwks_fetches_total{issuer="cognito"} 2"#,
            r#"stepgate_jwks_age_seconds{issuer="cognito"} 30"#,
            r#"stepgate_issuer_usable{issuer="cognito"} 1"#,
            "stepgate_mints_total 7",
            "stepgate_metadata_request_units_total 12.5",
            "stepgate_metadata_throttled_total 4",
            "stepgate_audit_records_total 9",
            r#"stepgate_audit_anchored_checkpoints_total{anchor="file /x"} 5"#,
            r#"stepgate_audit_anchor_failures_total{anchor="file /x"} 1"#,
            r#"stepgate_audit_anchor_waiting{anchor="file /x"} 2"#,
            "stepgate_revocations 3",
            "stepgate_audit_sync_seconds_sum 0.5",
            "stepgate_audit_sync_seconds_count 3",
            r#"stepgate_audit_sync_seconds_bucket{le="0.1"} 1"#,
            r#"stepgate_audit_sync_seconds_bucket{le="+Inf"} 3"#,
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}
