//! What the account allows is found out and said: at the start, when it refuses, and by `stepgate preflight`.

use serde_json::{Value, json};
use stepgate::{
    dev::{
        cosmos::{Effect, Fault},
        issuer::Outage,
    },
    server::{Check, State},
};

use crate::{
    commands::run,
    rig::{Account, Rig, soon},
};

const ITEM: &str = "/dbs/shop/colls/orders/docs/o-1001";

/// The text that `/readyz` has for the account, once it has one.
async fn said(rig: &Rig) -> String {
    soon(async || {
        let (code, body) = rig.admin("GET", "/readyz", None).await;
        assert_eq!(code, 200, "the gateway still serves");
        let ready: Value = serde_json::from_str(&body).unwrap();
        let account =
            ready["dependencies"].as_array().unwrap().iter().find(|d| d["name"] == "account").unwrap().clone();
        account["error"].as_str().map(str::to_owned)
    })
    .await
}

#[tokio::test]
async fn a_gateway_with_a_key_says_that_the_account_takes_none() {
    let rig = Rig::with(|raw| raw.dev.as_mut().unwrap().cosmos.disable_local_auth = true).await;
    let text = said(&rig).await;
    assert!(text.contains("401/5202") && text.contains("set cosmos.credential.kind to entra"), "{text}");
    let (_, status) = rig.admin("GET", "/status", None).await;
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["account"]["error"], text);
    rig.task("fulfilment", "GET", ITEM).send().await.refused(503, "credential.unavailable");
    rig.task("fulfilment", "POST", "/preflight").send().await.refused(503, "credential.unavailable");
}

#[tokio::test]
async fn a_missing_role_and_a_firewall_are_told_apart_when_they_refuse() {
    let rig = Rig::on(Account::Entra, |_| {}).await;
    let strike = |substatus| {
        rig.cosmos().add_fault(Fault::once(Effect::Any { status: 403, substatus: Some(substatus) }).times(50));
    };
    strike(5302);
    rig.task("fulfilment", "POST", "/preflight").send().await.refused(503, "credential.unavailable");
    assert!(said(&rig).await.contains("az cosmosdb sql role assignment create"));
    rig.cosmos().clear_faults();
    strike(5307);
    rig.task("fulfilment", "GET", ITEM).send().await.refused(503, "credential.unavailable");
    let text = soon(async || Some(said(&rig).await).filter(|text| text.contains("firewall"))).await;
    assert!(text.contains("private endpoint"), "{text}");
}

fn failed(checks: &[Check]) -> Vec<&Check> {
    checks.iter().filter(|check| check.state == State::Failed).collect()
}

#[tokio::test]
async fn preflight_looks_at_everything_and_finds_only_that_markers_would_stay() {
    for account in [Account::Keys, Account::Entra] {
        let rig = Rig::on(account, |_| {}).await;
        let checks = rig.preflight(|_| {}).await;
        // The stand-in's containers have no time to live, and three of them have a grant whose writes leave markers.
        let stay = failed(&checks);
        assert!(stay.iter().all(|check| check.detail.contains("never expire in this container")), "{checks:#?}");
        let stay: Vec<&str> = stay.iter().map(|check| check.check.as_str()).collect();
        assert_eq!(stay, ["container shop/lines", "container shop/orders", "container shop/singles"]);
        let names: Vec<&str> = checks.iter().map(|check| check.check.as_str()).collect();
        for name in ["issuer local", "policies", "audit directory", "audit signing key", "account"] {
            assert!(names.contains(&name), "{name} is not among {names:?}");
        }
        assert!(names.contains(&"container shop/orders"), "{names:?}");
        rig.task("fulfilment", "GET", ITEM).send().await.expect(200);
    }
}

#[tokio::test]
async fn preflight_says_of_each_thing_what_to_mend() {
    let rig = Rig::start().await;
    let policy = "roles: { r: { grants: [\n\
        { container: shop/absent, operations: [query] },\n\
        { container: shop/audit, partition_key: [a, b], operations: [query] }] } }\n\
        bindings: [{ role: r, workloads: [{ issuer: local, claims: { client_id: nobody } }] }]\n";
    std::fs::write(rig.file("policies/wrong.yaml"), policy).unwrap();
    rig.issuer().set_outage(Outage::On);
    let checks = rig.preflight(|raw| raw.audit.directory = "/proc/nowhere".into()).await;
    let mended = |name: &str| {
        let check = failed(&checks).into_iter().find(|check| check.check == name);
        let check = check.unwrap_or_else(|| panic!("{name} has not failed: {checks:#?}"));
        assert!(check.mend.is_some(), "{check:?}");
        check.detail.clone()
    };
    mended("issuer local");
    mended("audit directory");
    assert!(mended("container shop/absent").contains("there is no container shop/absent"));
    assert!(mended("container shop/audit").contains("fixes 2 levels of the partition key, and the container's has 1"));

    rig.cosmos().rotate_key().unwrap();
    let checks = rig.preflight(|_| {}).await;
    let account =
        failed(&checks).into_iter().find(|check| check.check == "account").expect("the key is another").clone();
    assert!(account.mend.unwrap().contains("current"));
    let container = checks.iter().find(|check| check.check == "container shop/orders").unwrap();
    assert_eq!(container.state, State::Skipped, "the account could not be asked");
}

#[test]
fn the_command_exits_with_4_and_prints_what_a_program_reads() {
    let wrong = run(&["preflight", "--config", "nowhere.yaml", "--format", "json"]);
    assert_eq!(wrong.status.code(), Some(4));
    let report: Value = serde_json::from_slice(&wrong.stdout).unwrap();
    assert_eq!((&report["ok"], &report["failed"]), (&json!(false), &json!(1)));
    assert_eq!(
        (&report["checks"][0]["check"], &report["checks"][0]["state"]),
        (&json!("configuration"), &json!("failed"))
    );
    let text = run(&["preflight", "--config", "nowhere.yaml"]);
    assert_eq!(text.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&text.stdout).contains("mend: "), "{text:?}");
}
