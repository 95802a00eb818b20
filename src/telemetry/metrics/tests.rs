use std::time::Duration;

use super::*;
use crate::{
    audit::Upstream,
    telemetry::trace::{Trace, TraceId},
};

fn finished() -> Finished {
    Finished {
        request_id: "request-1".into(),
        trace: Some(Trace { id: TraceId::from_bytes([0xab; 16]), sampled: true }),
        execution: None,
        state: None,
        error: None,
        operation: "query",
        container: Some("shop/orders".parse().unwrap()),
        decision: "allow",
        clause: Some("order-writer (shop.yaml:4)".into()),
        workload: Some("cognito/7h2kexample".into()),
        told: None,
        upstream: Some(Upstream {
            status: Some(200),
            substatus: None,
            activity_id: None,
            region: None,
            attempts: 3,
            request_units: 2.5,
            latency: Duration::from_millis(2),
        }),
        status: 200,
        took: Duration::from_millis(3),
    }
}

#[test]
fn metrics_have_the_names_that_dashboards_use() {
    let metrics = Metrics::default();
    metrics.request(&finished());
    metrics.policy_reload(true);
    for i in 0..1_000 {
        metrics.limited("r", &format!("p.yaml:{i}"));
    }
    copy(&metrics.mints, 7);
    copy(&metrics.upstream_retries.get_or_create(&CauseLabel { cause: "throttled" }), 2);
    metrics.audit_sync.set(0.5, vec![(0.1, 1), (f64::INFINITY, 2)]);
    let text = metrics.render(Exposition::Text);
    for line in [
        "# TYPE stepgate_requests_total counter",
        r#"stepgate_requests_total{operation="query",container="shop/orders",decision="allow",status="200"} 1"#,
        r#"stepgate_request_duration_seconds_bucket{le="0.005",operation="query",container="shop/orders"} 1"#,
        r#"stepgate_clause_requests_total{clause="order-writer (shop.yaml:4)",class="2xx"} 1"#,
        r#"stepgate_request_units_total{operation="query",workload="cognito/7h2kexample"} 2.5"#,
        r#"stepgate_upstream_retries_total{cause="throttled"} 2"#,
        r#"stepgate_policy_reloads_total{result="applied"} 1"#,
        r#"stepgate_limited_requests_total{binding="r (p.yaml:0)"} 1"#,
        r#"stepgate_limited_requests_total{binding="other"} 800"#,
        "stepgate_mints_total 7",
        "stepgate_audit_sync_seconds_sum 0.5",
        "stepgate_audit_sync_seconds_count 3",
        r#"stepgate_audit_sync_seconds_bucket{le="0.1"} 1"#,
        r#"stepgate_audit_sync_seconds_bucket{le="+Inf"} 3"#,
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    let open = metrics.render(Exposition::OpenMetrics);
    assert!(open.ends_with("# EOF\n"));
    assert!(open.contains(r#"} 1 # {trace_id="abababababababababababababababab"} 0.003"#), "{open}");
    let unsampled =
        Finished { trace: Some(Trace { id: TraceId::from_bytes([0xcd; 16]), sampled: false }), ..finished() };
    metrics.request(&unsampled);
    assert!(!metrics.render(Exposition::OpenMetrics).contains("cdcd"), "an exemplar leads to spans that exist");
}

#[test]
fn callers_cannot_make_series_at_will() {
    let metrics = Metrics::default();
    for i in 0..1_000 {
        metrics.request(&Finished {
            container: Some(format!("shop/{i}").parse().unwrap()),
            clause: Some(format!("r (p.yaml:{i})")),
            workload: Some(format!("github/{i}")),
            ..finished()
        });
    }
    let text = metrics.render(Exposition::Text);
    for family in ["requests_total", "request_duration_seconds_count", "clause_requests_total", "request_units_total"] {
        let series = text.lines().filter(|line| line.starts_with(&format!("stepgate_{family}{{"))).count();
        assert_eq!(series, 201, "{family}");
    }
}
