//! Several regions, on a socket each: where requests go, what happens when one is taken away, and whose session is whose.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use stepgate::{
    config::{Raw, dev},
    dev::cosmos::{Effect, Fault, Operation, RegionChange},
};
use tokio::task::JoinSet;

use crate::rig::{Answer, Call, EXECUTION, Rig, soon};

const DOCS: &str = "/dbs/shop/colls/orders/docs";
const ITEM: &str = "/dbs/shop/colls/orders/docs/o-1001";
const WEST: &str = "West Europe";
const NORTH: &str = "North Europe";

/// West takes writes; reads prefer the regions as they are named.
async fn regional(preferred: &[&str]) -> Rig {
    let rig = Rig::with(|raw: &mut Raw| {
        let cosmos = &mut raw.dev.as_mut().unwrap().cosmos;
        let listen = cosmos.listen;
        cosmos.regions = [WEST, NORTH].map(|name| dev::Region { name: name.into(), listen }).into();
        raw.cosmos.preferred_regions = preferred.iter().map(|name| (*name).to_owned()).collect();
    })
    .await;
    soon(async || (!status(&rig).await["regions_read"].is_null()).then_some(())).await;
    rig
}

/// What `/status` says of Cosmos.
async fn status(rig: &Rig) -> Value {
    let (code, text) = rig.admin("GET", "/status", None).await;
    assert_eq!(code, 200);
    serde_json::from_str::<Value>(&text).unwrap()["cosmos"].clone()
}

async fn breaker(rig: &Rig, name: &str) -> String {
    let status = status(rig).await;
    let region = status["regions"].as_array().unwrap().iter().find(|region| region["name"] == name);
    region.unwrap_or_else(|| panic!("no {name} in {status}"))["breaker"].as_str().unwrap().to_owned()
}

fn read(rig: &Rig) -> Call<'_> {
    rig.task("fulfilment", "GET", ITEM)
}

fn upsert<'a>(rig: &'a Rig, id: &str) -> Call<'a> {
    let call = rig.task("fulfilment", "POST", DOCS).header("x-ms-documentdb-is-upsert", "True");
    call.json(&json!({"id": id, "tenant": "t1"}))
}

/// The region that answered, and how often the request was sent.
fn sent(rig: &Rig, answer: &Answer) -> (String, u32) {
    let upstream = rig.outcome(answer).upstream.unwrap();
    (upstream.region.as_deref().unwrap_or("-").to_owned(), upstream.attempts)
}

fn to(region: &str, attempts: u32) -> (String, u32) {
    (region.to_owned(), attempts)
}

#[tokio::test]
async fn reads_go_where_they_are_preferred_and_writes_where_they_are_taken() {
    let rig = regional(&["northeurope", WEST]).await;
    assert_eq!(sent(&rig, &read(&rig).send().await.expect(200)), to(NORTH, 1));
    assert_eq!(sent(&rig, &upsert(&rig, "w-1").send().await.expect(201)), to(WEST, 1));
    let query = rig.task("fulfilment", "POST", DOCS).query("SELECT * FROM c").send().await.expect(200);
    assert_eq!(sent(&rig, &query), to(NORTH, 1));
    let regions = status(&rig).await["regions"].clone();
    let seen: Vec<_> = regions.as_array().unwrap().iter().map(|r| (&r["name"], &r["reads"], &r["writes"])).collect();
    let (yes, no) = (json!(true), json!(false));
    assert_eq!(seen, [(&json!(NORTH), &yes, &no), (&json!(WEST), &yes, &yes)], "{regions}");
    let (_, metrics) = rig.admin("GET", "/metrics", None).await;
    let line = r#"stepgate_upstream_attempts_total{region="North Europe",result="good"} 2"#;
    assert!(metrics.contains(line), "{metrics}");
    assert_eq!(rig.admin("GET", "/readyz", None).await.0, 200);
}

#[tokio::test]
async fn without_preferred_regions_everything_goes_to_the_endpoint() {
    let rig = Rig::with(|raw| {
        let cosmos = &mut raw.dev.as_mut().unwrap().cosmos;
        let listen = cosmos.listen;
        cosmos.regions = [WEST, NORTH].map(|name| dev::Region { name: name.into(), listen }).into();
    });
    let rig = rig.await;
    assert_eq!(sent(&rig, &read(&rig).send().await.expect(200)), to("-", 1));
    assert_eq!(sent(&rig, &upsert(&rig, "w-1").send().await.expect(201)), to("-", 1));
    assert!(rig.cosmos().recorded().iter().all(|request| request.region.is_none()));
}

#[tokio::test]
async fn a_region_that_refuses_is_passed_by() {
    let rig = regional(&[WEST, NORTH]).await;
    rig.cosmos().add_fault(Fault::once(Effect::Unavailable).at(WEST));
    assert_eq!(sent(&rig, &read(&rig).send().await.expect(200)), to(NORTH, 2));
    assert_eq!(sent(&rig, &read(&rig).send().await.expect(200)), to(WEST, 1), "once is no reason to leave it alone");
    rig.cosmos().change_region(NORTH, RegionChange::Gone).unwrap();
    rig.cosmos().add_fault(Fault::once(Effect::Unavailable).at(WEST));
    assert_eq!(sent(&rig, &read(&rig).send().await.expect(200)), to(WEST, 3), "the other left the account");
    rig.cosmos().add_fault(Fault::once(Effect::CutAfterCommit).at(WEST));
    let lost = rig.task("operator", "POST", DOCS).partition("t1").json(&json!({"id": "r-1", "tenant": "t1"}));
    assert_eq!(sent(&rig, &lost.send().await.expect(504)), to(WEST, 1), "where it was tried, though no answer came");
}

#[tokio::test]
async fn writes_follow_the_region_that_takes_them() {
    let rig = regional(&[WEST, NORTH]).await;
    assert_eq!(sent(&rig, &upsert(&rig, "w-1").send().await.expect(201)), to(WEST, 1));
    rig.cosmos().change_region(NORTH, RegionChange::TakesWrites).unwrap();
    // Nobody told the gateway: the old region does, and the account says which one is new. Even a create is sent again.
    let create = rig.task("fulfilment", "POST", DOCS).json(&json!({"id": "c-1", "tenant": "t1"}));
    let (region, attempts) = sent(&rig, &create.send().await.expect(201));
    assert!(region == NORTH && attempts > 1, "{region} {attempts}");
    assert_eq!(sent(&rig, &upsert(&rig, "w-2").send().await.expect(201)), to(NORTH, 1));
    assert_eq!(sent(&rig, &read(&rig).send().await.expect(200)), to(WEST, 1));
}

#[tokio::test]
async fn a_region_is_taken_away_under_load() {
    let rig = Arc::new(regional(&[WEST, NORTH]).await);
    let (done, reads, writes) = (Arc::new(AtomicBool::new(false)), Arc::default(), Arc::<AtomicUsize>::default());
    let reads: Arc<AtomicUsize> = reads;
    let mut load = JoinSet::new();
    for worker in 0..12 {
        let (rig, done, reads, writes) = (rig.clone(), done.clone(), reads.clone(), writes.clone());
        load.spawn(async move {
            while !done.load(Ordering::Relaxed) {
                if worker < 8 {
                    read(&rig).send().await.expect(200);
                    reads.fetch_add(1, Ordering::Relaxed);
                } else {
                    let answer = upsert(&rig, &format!("w-{worker}")).send().await;
                    assert!(answer.0.status().is_success(), "{}", answer.text());
                    writes.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    let more = async |count: &AtomicUsize, than: usize| {
        let before = count.load(Ordering::Relaxed);
        // Each look is a request, so nothing spins.
        soon(async || {
            rig.admin("GET", "/livez", None).await;
            (count.load(Ordering::Relaxed) > before + than).then_some(())
        })
        .await;
    };
    more(&reads, 100).await;
    more(&writes, 10).await;
    // The region that takes the writes, and that reads prefer, with everything in flight to it; and nobody takes over yet.
    rig.cosmos().change_region(WEST, RegionChange::Away).unwrap();
    more(&reads, 200).await;
    assert_eq!(breaker(&rig, WEST).await, "open");
    assert!(rig.admin("GET", "/readyz", None).await.1.contains("degraded"));
    // The next region takes over: the writes that waited are done, and none was lost on the way.
    rig.cosmos().change_region(NORTH, RegionChange::TakesWrites).unwrap();
    more(&writes, 20).await;
    more(&reads, 100).await;
    let writing = upsert(&rig, "w-new").send().await.expect(201);
    assert_eq!(sent(&rig, &writing).0, NORTH);
    done.store(true, Ordering::Relaxed);
    while let Some(ended) = load.join_next().await {
        ended.unwrap();
    }
    // Back again, a probe finds it, and what prefers it returns.
    rig.cosmos().change_region(WEST, RegionChange::Back).unwrap();
    soon(async || {
        let answer = read(&rig).send().await.expect(200);
        (sent(&rig, &answer).0 == WEST).then_some(())
    })
    .await;
    let (reads, writes) = (reads.load(Ordering::Relaxed), writes.load(Ordering::Relaxed));
    assert!(reads > 400 && writes > 30, "{reads} reads and {writes} writes, none of which failed");
}

#[tokio::test]
async fn a_region_that_leaves_the_account_is_forgotten() {
    let rig = regional(&[WEST, NORTH]).await;
    rig.cosmos().change_region(WEST, RegionChange::Offline).unwrap();
    assert_eq!(sent(&rig, &upsert(&rig, "w-1").send().await.expect(201)).0, NORTH);
    soon(async || (status(&rig).await["regions"].as_array().unwrap().len() == 1).then_some(())).await;
    assert_eq!(sent(&rig, &read(&rig).send().await.expect(200)), to(NORTH, 1));
    // It is heard of again when the account is asked again: every five minutes, or when a region answers badly.
    rig.cosmos().change_region(WEST, RegionChange::Back).unwrap();
    rig.cosmos().add_fault(Fault::once(Effect::Unavailable).at(NORTH));
    soon(async || {
        let answer = read(&rig).send().await.expect(200);
        (sent(&rig, &answer).0 == WEST).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_write_that_nobody_takes_is_told_within_its_deadline() {
    let rig = regional(&[WEST, NORTH]).await;
    upsert(&rig, "w-1").send().await.expect(201);
    rig.cosmos().change_region(WEST, RegionChange::Away).unwrap();
    let create = rig.task("fulfilment", "POST", DOCS).json(&json!({"id": "c-1", "tenant": "t1"}));
    let began = std::time::Instant::now();
    // A pooled connection may be lost in the middle; a write that may have left on it is in doubt.
    let answer = create.header("x-stepgate-deadline", "2s").send().await;
    assert!([503, 504].contains(&answer.status()), "{}", answer.text());
    let upsert = upsert(&rig, "w-2").header("x-stepgate-deadline", "2s").send().await;
    let upsert = upsert.refused(503, "upstream.unavailable");
    let (_, attempts) = sent(&rig, &upsert);
    assert!(attempts > 2 && began.elapsed() < Duration::from_secs(6), "{attempts} in {:?}", began.elapsed());
}

/// In the session of an execution.
fn in_session<'a>(call: Call<'a>, execution: &str) -> Call<'a> {
    call.set("x-stepgate-execution", execution).header("x-stepgate-session", "execution")
}

#[tokio::test]
async fn an_execution_reads_its_own_writes() {
    let rig = regional(&[NORTH, WEST]).await;
    let item = format!("{DOCS}/w-1");
    let get = |client: &str| rig.task(client, "GET", &item).partition("t1");
    read(&rig).send().await.expect(200);
    rig.cosmos().change_region(NORTH, RegionChange::Behind).unwrap();

    let written = in_session(upsert(&rig, "w-1"), EXECUTION).send().await.expect(201);
    let token = written.header("x-ms-session-token").unwrap().to_owned();
    assert_eq!(sent(&rig, &written), to(WEST, 1));
    // Nearby nothing is known of it; who has seen it is led to where it is.
    get("fulfilment").send().await.refused(404, "cosmos.not_found");
    let own = in_session(get("fulfilment"), EXECUTION).send().await.expect(200);
    assert_eq!(sent(&rig, &own), to(WEST, 2));
    let carried = get("fulfilment").header("x-ms-session-token", &token).send().await.expect(200);
    assert_eq!(sent(&rig, &carried), to(WEST, 2));
    // Another execution has not seen it, nor has another subject that names the same execution.
    let other = EXECUTION.replace("run-1", "run-2");
    in_session(get("fulfilment"), &other).send().await.refused(404, "cosmos.not_found");
    let stranger = in_session(get("operator"), EXECUTION).send().await.refused(404, "cosmos.not_found");
    assert_eq!(sent(&rig, &stranger), to(NORTH, 1));
    let (_, metrics) = rig.admin("GET", "/metrics", None).await;
    assert!(metrics.contains(r#"stepgate_upstream_retries_total{cause="session_behind"} 2"#), "{metrics}");

    rig.cosmos().change_region(NORTH, RegionChange::CaughtUp).unwrap();
    soon(async || {
        let answer = in_session(get("fulfilment"), EXECUTION).send().await.expect(200);
        (sent(&rig, &answer) == to(NORTH, 1)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_session_wants_an_execution() {
    let rig = Rig::start().await;
    let answer = read(&rig).header("x-stepgate-session", "mine").send().await.refused(400, "request.malformed");
    assert!(answer.json()["detail"].as_str().unwrap().contains("x-stepgate-session"), "{}", answer.text());
    let nameless = rig.call("GET", ITEM).header("user-agent", crate::rig::TASK).token("fulfilment");
    nameless.header("x-stepgate-session", "execution").send().await.refused(400, "request.malformed");
    in_session(read(&rig), EXECUTION).send().await.expect(200);
    let faults = Fault::once(Effect::Session).operation(Operation::Read).times(100);
    rig.cosmos().add_fault(faults);
    in_session(read(&rig), EXECUTION).send().await.refused(425, "cosmos.session_not_available");
}
