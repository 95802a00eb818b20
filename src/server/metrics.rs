//! `/metrics`: what the rooms count by themselves is copied when somebody asks.

use axum::{
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};

use super::admin::Desk;
use crate::{
    audit::SYNC_BUCKETS,
    clock::Timestamp,
    exchange::ExchangeStatus,
    telemetry::{
        AnchorLabel, AttemptLabels, CauseLabel, DependencyLabel, Exposition, IssuerLabel, RegionLabel, ResultLabel,
        RevisionLabel, Telemetry, copy, copy_amount, set,
    },
    upstream::BreakerState,
};

/// The metrics, in the form the scraper asks for.
pub(super) async fn read(State(desk): State<Desk>, headers: HeaderMap) -> Response {
    desk.observe().await;
    let wanted = Exposition::wanted(&headers);
    ([(header::CONTENT_TYPE, wanted.content_type())], desk.gateway.metrics.render(wanted)).into_response()
}

impl Desk {
    async fn observe(&self) {
        self.gateway.observe();
        self.observe_dependencies().await;
        self.observe_policy();
        self.observe_issuers();
        self.observe_credential().await;
        self.observe_upstream();
        self.observe_audit();
        self.observe_telemetry();
        let revocations = self.gateway.rooms.revocations.status().revocations;
        set(&self.gateway.metrics.revocations, revocations);
    }

    async fn observe_dependencies(&self) {
        for dependency in self.dependencies().await {
            let label = DependencyLabel { dependency: dependency.name };
            self.gateway.metrics.dependencies.get_or_create(&label).set(dependency.condition as i64);
        }
    }

    fn observe_policy(&self) {
        let (metrics, status) = (&self.gateway.metrics, self.gateway.rooms.policy.status());
        metrics.policy.clear();
        metrics.policy.get_or_create(&RevisionLabel { revision: status.running.revision.clone() }).set(1);
        metrics.policy_since.set(seconds(status.running.since));
        metrics.policy_rejected.set(status.rejected.is_some().into());
    }

    fn observe_issuers(&self) {
        let (metrics, now) = (&self.gateway.metrics, self.gateway.rooms.clock.now());
        for status in self.gateway.rooms.identity.status() {
            let label = IssuerLabel { issuer: status.name.to_string() };
            copy(&metrics.jwks_fetches.get_or_create(&label), status.fetches);
            set(&metrics.issuer_keys.get_or_create(&label), status.keys.len());
            metrics.issuer_usable.get_or_create(&label).set(status.usable.into());
            if let Some(fetched) = status.fetched {
                set(&metrics.jwks_age.get_or_create(&label), now.since(fetched).as_secs());
            }
        }
    }

    async fn observe_credential(&self) {
        let metrics = &self.gateway.metrics;
        let ExchangeStatus::ResourceToken(status) = self.gateway.rooms.exchange.status().await else { return };
        copy(&metrics.mints, status.mints);
        copy_amount(&metrics.metadata_units, status.budget.spent);
        copy(&metrics.metadata_throttled, status.budget.throttled);
        set(&metrics.resource_tokens, status.cached_tokens);
        if let Some(since) = status.key.since {
            metrics.account_key_since.set(seconds(since));
        }
    }

    fn observe_upstream(&self) {
        let (metrics, status) = (&self.gateway.metrics, self.gateway.rooms.upstream.status());
        for (cause, count) in status.retries {
            copy(&metrics.upstream_retries.get_or_create(&CauseLabel { cause }), count);
        }
        // A region that the account no longer tells of is not open for good.
        metrics.region_open.clear();
        for place in status.regions {
            let region = place.name.map_or_else(|| "account".to_owned(), |name| name.to_string());
            for (result, count) in [("good", place.good), ("bad", place.bad)] {
                copy(&metrics.attempts.get_or_create(&AttemptLabels { region: region.clone(), result }), count);
            }
            let is_open = place.breaker != BreakerState::Closed;
            metrics.region_open.get_or_create(&RegionLabel { region }).set(is_open.into());
        }
        set(&metrics.sessions, status.sessions);
        metrics.gates(self.gateway.rooms.overload.status());
    }

    fn observe_audit(&self) {
        let (metrics, counted) = (&self.gateway.metrics, self.gateway.rooms.journal.counters());
        copy(&metrics.audit_records, counted.records);
        set(&metrics.audit_waiting, self.gateway.rooms.journal.waiting());
        copy(&metrics.audit_suppressed, counted.suppressed);
        copy(&metrics.audit_checkpoints, counted.checkpoints);
        for anchor in self.gateway.rooms.journal.status().anchors {
            let label = AnchorLabel { anchor: anchor.name };
            copy(&metrics.anchored.get_or_create(&label), anchor.anchored);
            copy(&metrics.anchor_failures.get_or_create(&label), anchor.failures);
            set(&metrics.anchor_waiting.get_or_create(&label), anchor.waiting);
        }
        let bounds = SYNC_BUCKETS.into_iter().chain([f64::INFINITY]);
        metrics.audit_sync.set(counted.sync_seconds, bounds.zip(counted.sync_buckets).collect());
    }

    fn observe_telemetry(&self) {
        let (metrics, delivery) = (&self.gateway.metrics, Telemetry::delivery());
        let became = [
            ("exported", delivery.spans_exported),
            ("failed", delivery.spans_failed),
            ("dropped", delivery.spans_dropped),
        ];
        for (result, count) in became {
            copy(&metrics.spans.get_or_create(&ResultLabel { result }), count);
        }
        copy(&metrics.log_lines_dropped, delivery.lines_dropped);
    }
}

fn seconds(time: Timestamp) -> f64 {
    time.as_millis() as f64 / 1_000.0
}
