//! The admin listener: health, metrics, status, and a token for what changes something.

use serde_json::{Value, json};

use crate::rig::ADMIN_TOKEN;

const ITEM: &str = "/dbs/shop/colls/orders/docs/o-1001";

#[tokio::test]
async fn health_is_for_machines() {
    let rig = super::start().await;
    assert_eq!(rig.admin("GET", "/livez", None).await.0, 200);
    assert_eq!(rig.admin("GET", "/startupz", None).await.0, 200);
    let (code, body) = rig.admin("GET", "/readyz", None).await;
    let ready: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((code, &ready["status"]), (200, &json!("ready")));
    let dependencies = ready["dependencies"].as_array().unwrap();
    for name in ["audit", "policy", "credential", "issuer local"] {
        let dependency = dependencies.iter().find(|dependency| dependency["name"] == name);
        let dependency = dependency.unwrap_or_else(|| panic!("{name} is missing in {body}"));
        assert_eq!(dependency["state"], "ok");
        assert!(dependency.get("since").is_some() && dependency["error"].is_null(), "{dependency}");
    }
}

#[tokio::test]
async fn metrics_have_their_promised_names() {
    let rig = super::start().await;
    rig.task("fulfilment", "GET", ITEM).send().await.expect(200);
    rig.task("fulfilment", "GET", ITEM).partition("t2").send().await.expect(403);
    rig.call("GET", ITEM).of_task().send().await.expect(498);
    let (code, metrics) = rig.admin("GET", "/metrics", None).await;
    assert_eq!(code, 200);
    for line in [
        r#"stepgate_requests_total{operation="items/read",container="shop/orders",decision="allow",status="200"} 1"#,
        r#"stepgate_requests_total{operation="items/read",container="-",decision="deny",status="403"} 1"#,
        r#"stepgate_requests_total{operation="-",container="-",decision="reject",status="498"} 1"#,
        r#"stepgate_request_duration_seconds_count{operation="items/read",container="shop/orders"} 1"#,
        r#"stepgate_request_units_total{operation="items/read",workload="local/fulfilment"} "#,
        r#"stepgate_clause_requests_total{clause="order-writer (shop.yaml:9)",class="2xx"} 1"#,
        r#"stepgate_dependency_condition{dependency="audit"} 0"#,
        r#"stepgate_policy_info{revision="sha256:"#,
        "stepgate_requests_in_flight_limit 1024",
        "stepgate_resource_tokens ",
        "stepgate_mints_total 1",
        r#"stepgate_jwks_fetches_total{issuer="local"} 1"#,
        "stepgate_audit_records_total ",
    ] {
        assert!(metrics.contains(line), "{line} is missing in\n{metrics}");
    }
    let syncs = metrics.lines().find_map(|line| line.strip_prefix("stepgate_audit_sync_seconds_count "));
    assert!(syncs.unwrap().parse::<u64>().unwrap() >= 2, "{metrics}");
}

#[tokio::test]
async fn status_tells_how_things_stand_and_no_secret() {
    let rig = super::start().await;
    rig.task("fulfilment", "GET", ITEM).send().await.expect(200);
    let (code, body) = rig.admin("GET", "/status", None).await;
    let status: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(code, 200);
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["config_digest"].as_str().unwrap().len(), 64);
    assert!(status["policy"]["running"]["revision"].as_str().unwrap().starts_with("sha256:"), "{status}");
    assert!(status["policy"]["running"]["since"].is_string() && status["policy"]["rejected"].is_null());
    let issuer = &status["issuers"][0];
    assert_eq!((&issuer["name"], &issuer["usable"]), (&json!("local"), &json!(true)));
    assert!(issuer["keys"][0]["kid"].is_string() && issuer["keys"][0]["age_seconds"].is_u64(), "{issuer}");
    assert_eq!(status["credential"]["enforced_by"], "cosmos");
    assert_eq!(status["credential"]["mints"], 1);
    for secret in [stepgate::dev::cosmos::WELL_KNOWN_KEY, ADMIN_TOKEN, "type=resource"] {
        assert!(!body.contains(secret));
    }
}

#[tokio::test]
async fn what_changes_something_needs_the_token() {
    let rig = super::start().await;
    for token in
        [None, Some(""), Some("wrong"), Some(ADMIN_TOKEN.trim_start_matches("an-")), Some(&*rig.token("fulfilment"))]
    {
        assert_eq!(rig.admin("POST", "/reload", token).await.0, 401, "{token:?}");
    }
    assert_eq!(rig.admin("POST", "/reload", Some(ADMIN_TOKEN)).await.0, 200);
    assert_eq!(rig.admin("GET", "/reload", Some(ADMIN_TOKEN)).await.0, 405);
    let (_, metrics) = rig.admin("GET", "/metrics", None).await;
    assert!(metrics.contains(r#"stepgate_policy_reloads_total{result="applied"} 1"#), "{metrics}");

    let off = super::with(|raw| raw.admin_token = None).await;
    assert_eq!(
        off.admin("POST", "/reload", Some(ADMIN_TOKEN)).await.0,
        401,
        "without a token in the configuration it is off"
    );
}

#[tokio::test]
async fn without_keys_the_gateway_must_not_be_sent_traffic() {
    let rig = super::unready(|raw| raw.issuers[0].url = "http://127.0.0.1:1".into()).await;
    let (code, body) = rig.admin("GET", "/readyz", None).await;
    let ready: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((code, &ready["status"]), (503, &json!("unready")));
    assert_eq!(rig.admin("GET", "/livez", None).await.0, 200, "alive all the same");
    assert_eq!(rig.admin("GET", "/startupz", None).await.0, 503, "and not started");
}
