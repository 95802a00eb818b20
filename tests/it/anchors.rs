//! Checkpoints on their way to where the log's owner cannot change them, on real sockets.

use std::{
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, extract::State, http::HeaderMap, http::StatusCode, routing::post};
use azure_data_cosmos::{AccountReference, CosmosClient, FeedScope, Query, RoutingStrategy};
use futures_util::TryStreamExt as _;
use serde_json::{Value, json};
use stepgate::{
    audit::{self, Evidence, Range, Report},
    config::{Raw, dev::ContainerSeed},
    dev::cosmos::WELL_KNOWN_KEY,
};

use crate::rig::{Rig, soon};

const ITEM: &str = "/dbs/shop/colls/orders/docs/o-1001";

/// Somebody who keeps checkpoints, and cannot at first.
#[derive(Clone, Default)]
struct Notary {
    refusals: Arc<AtomicUsize>,
    kept: Arc<Mutex<Vec<(HeaderMap, String)>>>,
}

impl Notary {
    async fn keep(State(notary): State<Self>, headers: HeaderMap, body: String) -> (StatusCode, &'static str) {
        if notary.refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            return (StatusCode::SERVICE_UNAVAILABLE, "the notary is out");
        }
        notary.kept.lock().unwrap().push((headers, body));
        (StatusCode::CREATED, "")
    }

    /// Serves, and gives the address.
    async fn open(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new().route("/checkpoints", post(Self::keep)).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        format!("http://{address}/checkpoints")
    }
}

fn anchored(raw: &mut Raw, anchor: Value) {
    raw.audit.anchors = vec![serde_json::from_value(anchor).unwrap()];
    raw.audit.checkpoint_interval = Some(Duration::from_secs(1));
}

/// What `/readyz` says of the one anchor.
async fn anchor(rig: &Rig) -> (String, Value) {
    let (_, ready) = rig.admin("GET", "/readyz", None).await;
    let ready: Value = serde_json::from_str(&ready).unwrap();
    let all = ready["dependencies"].as_array().unwrap();
    let anchor = all.iter().find(|one| one["name"].as_str().unwrap().starts_with("audit anchor")).unwrap().clone();
    (ready["status"].as_str().unwrap().to_owned(), anchor)
}

fn held(rig: &Rig, anchors: &std::path::Path) -> Report {
    let evidence = Evidence { anchors: vec![anchors.to_owned()], ..Evidence::default() };
    audit::verify(&rig.log(), &evidence, Range::ALL).unwrap()
}

#[tokio::test]
async fn a_webhook_gets_every_checkpoint_and_costs_no_request_when_it_does_not() {
    let notary = Notary::default();
    notary.refusals.store(2, Ordering::SeqCst);
    let url = notary.open().await;
    let mut rig = Rig::with(|raw| {
        let token = json!({"kind": "file", "path": "admin-token"});
        anchored(raw, json!({"kind": "webhook", "url": url, "authorization": token}));
    })
    .await;
    assert_eq!(anchor(&rig).await.1["state"], "ok");
    rig.task("fulfilment", "GET", ITEM).send().await.expect(200);
    let (status, trouble) = soon(async || {
        let (status, anchor) = anchor(&rig).await;
        (anchor["state"] == "degraded").then_some((status, anchor))
    })
    .await;
    assert_eq!(status, "degraded");
    assert!(trouble["error"].as_str().unwrap().contains("503: the notary is out"), "{trouble}");
    rig.task("fulfilment", "GET", ITEM).send().await.expect(200);

    soon(async || (anchor(&rig).await.1["state"] == "ok").then_some(())).await;
    let (_, metrics) = rig.admin("GET", "/metrics", None).await;
    let host = url.split('/').nth(2).unwrap().split(':').next().unwrap();
    let failed = format!("stepgate_audit_anchor_failures_total{{anchor=\"webhook {host}\"}} 2");
    assert!(metrics.contains(&failed), "{metrics}");
    rig.task("fulfilment", "GET", ITEM).send().await.expect(200);
    rig.stop().await;

    let kept = notary.kept.lock().unwrap().clone();
    assert!(kept.iter().all(|(headers, _)| headers["authorization"] == crate::rig::ADMIN_TOKEN));
    let elsewhere = tempfile::tempdir().unwrap();
    for (number, (_, body)) in kept.iter().enumerate() {
        fs::write(elsewhere.path().join(format!("{number}.checkpoint")), body).unwrap();
    }
    let report = held(&rig, elsewhere.path());
    assert!(report.ok, "{report:?}");
    assert_eq!(report.anchored, kept.len() as u64);
    let last = kept.last().unwrap().1.lines().nth(1).unwrap().to_owned();
    assert_eq!(last, report.records.to_string(), "a clean stop anchors all");
}

#[tokio::test]
async fn a_cosmos_container_keeps_checkpoints_as_documents() {
    let mut rig = Rig::with(|raw| {
        anchored(raw, json!({"kind": "cosmos", "database": "shop", "container": "anchors"}));
        let partition_key = vec!["/id".to_owned()];
        let container = ContainerSeed {
            id: "anchors".into(),
            partition_key,
            throughput: None,
            items: Vec::new(),
            procedures: Vec::new(),
        };
        raw.dev.as_mut().unwrap().cosmos.seed.databases[0].containers.push(container);
    })
    .await;
    rig.task("fulfilment", "GET", ITEM).send().await.expect(200);
    rig.task("fulfilment", "GET", ITEM).send().await.expect(200);
    rig.stop().await;
    assert!(rig.data_requests().iter().any(|request| request.path.contains("colls/anchors/docs")));

    let account = AccountReference::with_authentication_key(rig.stack.cosmos.url().parse().unwrap(), WELL_KNOWN_KEY);
    let client = CosmosClient::builder().build(account, RoutingStrategy::PreferredRegions(Vec::new())).await.unwrap();
    let anchors = client.database_client("shop").container_client("anchors", None).await.unwrap();
    let found = anchors.query_items::<Value>(Query::from("SELECT * FROM c"), FeedScope::full_container(), None);
    let documents: Vec<Value> = found.await.unwrap().try_collect().await.unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("all.json"), serde_json::to_string(&documents).unwrap()).unwrap();
    let report = held(&rig, elsewhere.path());
    assert!(report.ok, "{report:?}");
    assert_eq!(report.anchored, documents.len() as u64);
    assert!(documents.iter().any(|document| document["size"] == report.records), "{documents:?}");
}

#[tokio::test]
async fn a_directory_keeps_checkpoints_and_a_log_cut_back_does_not_pass_it() {
    let elsewhere = tempfile::tempdir().unwrap();
    let path = elsewhere.path().to_owned();
    let mut rig = Rig::with(|raw| anchored(raw, json!({"kind": "file", "path": path}))).await;
    rig.task("fulfilment", "GET", ITEM).send().await.expect(200);
    rig.stop().await;
    let earlier = tempfile::tempdir().unwrap();
    for file in fs::read_dir(rig.log()).unwrap() {
        let file = file.unwrap().path();
        fs::copy(&file, earlier.path().join(file.file_name().unwrap())).unwrap();
    }
    let mut rig = rig.restart().await;
    rig.task("fulfilment", "GET", ITEM).send().await.expect(200);
    rig.stop().await;
    assert!(held(&rig, elsewhere.path()).ok);

    // Head and tail together: the log, its checkpoints and its key as they were.
    for file in fs::read_dir(earlier.path()).unwrap() {
        let file = file.unwrap().path();
        fs::copy(&file, rig.log().join(file.file_name().unwrap())).unwrap();
    }
    assert!(audit::verify(&rig.log(), &Evidence::default(), Range::ALL).unwrap().ok, "by itself it is whole");
    let report = held(&rig, elsewhere.path());
    assert_eq!(report.first_bad.unwrap().wrong, "the log was cut back: 2 records are signed, 1 are here");
}
