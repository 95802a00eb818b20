//! Revocation: who was revoked is refused from the next request on, here and at every replica, and stays refused.

use std::{fs, time::Duration};

use serde_json::{Value, json};
use stepgate::{
    audit::Phase,
    config::{Raw, dev::ContainerSeed},
    dev::cosmos::{Effect, Fault, Operation},
};

use crate::rig::{ADMIN_TOKEN, EXECUTION, Rig, Serving, soon};

const ITEM: &str = "/dbs/shop/colls/orders/docs/o-1001";
/// A replica must refuse within this long of a revocation at another.
const WITHIN: Duration = Duration::from_secs(2);

/// The code and the JSON of a changing call at the admin listener of `gateway`.
async fn order(rig: &Rig, gateway: &Serving, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let (code, text) = rig.admin_of(gateway, method, path, Some(ADMIN_TOKEN), &body.to_string()).await;
    (code, serde_json::from_str(&text).unwrap_or(Value::Null))
}

async fn revoke(rig: &Rig, body: Value) -> Value {
    let (code, answer) = order(rig, &rig.server, "POST", "/revoke", &body).await;
    assert_eq!(code, 200, "{answer}");
    answer
}

fn file_store(raw: &mut Raw) {
    raw.state = Some(serde_json::from_value(json!({"kind": "file", "path": "state"})).unwrap());
}

fn cosmos_store(raw: &mut Raw) {
    raw.state =
        Some(serde_json::from_value(json!({"kind": "cosmos", "database": "shop", "container": "state"})).unwrap());
    let containers = &mut raw.dev.as_mut().unwrap().cosmos.seed.databases[0].containers;
    let partition_key = vec!["/id".to_owned()];
    containers.push(ContainerSeed {
        id: "state".into(),
        partition_key,
        throughput: None,
        items: Vec::new(),
        procedures: Vec::new(),
    });
}

#[tokio::test]
async fn each_kind_of_revocation_stops_the_next_request_and_can_be_lifted() {
    let rig = super::start().await;
    let token = rig.mint(stepgate::dev::issuer::Mint {
        claims: crate::rig::members(json!({
            "sub": "fulfilment", "client_id": "fulfilment", "tenant": "t1", "token_kind": "workload", "jti": "t-1",
        })),
        ..Default::default()
    });
    let ask = async || rig.call("GET", ITEM).of_task().bearer(&token).send().await;
    ask().await.expect(200);
    for target in [
        json!({"issuer": "local", "subject": "fulfilment"}),
        json!({"issuer": "local", "client": "fulfilment"}),
        json!({"issuer": "local", "token_id": "t-1"}),
        json!({"execution": EXECUTION}),
    ] {
        let mut said = target.clone();
        said["reason"] = "a token was found in a log".into();
        let revoked = revoke(&rig, said).await;
        assert_eq!((&revoked["in_force"], &revoked["reason"]), (&json!(true), &json!("a token was found in a log")));
        assert_eq!(
            revoked.get("note").is_some(),
            target.get("execution").is_some(),
            "an execution is a claim: {revoked}"
        );

        // The token is in the cache of verified tokens, and is refused all the same.
        let refused = ask().await;
        let entry = rig.outcome(&refused);
        refused.refused(403, "identity.revoked");
        assert_eq!(entry.revocation.unwrap().id, revoked["id"].as_str().unwrap());
        assert_eq!(entry.who.unwrap().subject.to_string(), "local/fulfilment");
        rig.task("auditor", "GET", ITEM)
            .partition("t1")
            .set("x-stepgate-execution", &EXECUTION.replace("run-1", "run-2"))
            .send()
            .await
            .expect(200);

        let (code, listed) = order(&rig, &rig.server, "GET", "/revocations", &Value::Null).await;
        assert_eq!((code, listed["revocations"].as_array().unwrap().len()), (200, 1));
        let (code, lifted) = order(&rig, &rig.server, "DELETE", "/revocations", &target).await;
        assert_eq!((code, &lifted["in_force"]), (200, &json!(false)), "{lifted}");
        ask().await.expect(200);
    }
    let phases: Vec<_> = rig.records().into_iter().map(|record| record.entry.phase).collect();
    assert_eq!(phases.iter().filter(|phase| **phase == Phase::Revoke).count(), 4);
    assert_eq!(phases.iter().filter(|phase| **phase == Phase::Lift).count(), 4);
}

#[tokio::test]
async fn changing_calls_want_the_token_and_a_body_that_means_one_thing() {
    let rig = super::start().await;
    let body = json!({"issuer": "local", "subject": "fulfilment"});
    for token in [None, Some("another-token")] {
        for (method, path) in [("POST", "/revoke"), ("DELETE", "/revocations"), ("DELETE", "/revocations/1f")] {
            let (code, _) = rig.admin_of(&rig.server, method, path, token, &body.to_string()).await;
            assert_eq!(code, 401, "{method} {path} with {token:?}");
        }
    }
    rig.task("fulfilment", "GET", ITEM).send().await.expect(200);
    for (body, culprit) in [
        (json!({}), "exactly one"),
        (json!({"issuer": "local", "subject": "a", "client": "b"}), "exactly one"),
        (json!({"issuer": "local", "subject": ""}), "`subject`"),
        (json!({"issuer": "local", "subject": 7}), "`subject`"),
        (json!({"subject": "a"}), "needs `issuer`"),
        (json!({"issuer": "elsewhere", "subject": "a"}), "no issuer `elsewhere`"),
        (json!({"issuer": "local", "execution": EXECUTION}), "leave `issuer` out"),
        (json!({"execution": "run-1"}), "`execution`"),
        (json!({"issuer": "local", "subject": "a", "until": "2020-01-01T00:00:00Z"}), "`until`"),
        (json!({"issuer": "local", "subjekt": "a"}), "`subjekt`"),
        (json!([]), "JSON object"),
    ] {
        let (code, answer) = order(&rig, &rig.server, "POST", "/revoke", &body).await;
        let detail = answer["detail"].as_str().unwrap();
        assert!(code == 400 && detail.contains(culprit), "{body}: {code} {detail}");
    }
    assert_eq!(order(&rig, &rig.server, "DELETE", "/revocations", &body).await.0, 404);
    let silent = super::with(|raw| raw.admin_token = None).await;
    assert_eq!(
        order(&silent, &silent.server, "POST", "/revoke", &body).await.0,
        401,
        "without `admin_token` it is off"
    );
}

#[tokio::test]
async fn a_request_that_waits_for_another_attempt_is_not_sent_again() {
    let rig = super::start().await;
    rig.task("fulfilment", "GET", ITEM).send().await.expect(200);
    let before = rig.data_requests().len();
    let throttle = Fault::once(Effect::Throttle { retry_after_ms: 1_000 }).operation(Operation::Upsert).times(20);
    rig.cosmos().add_fault(throttle);
    let write = rig.task("fulfilment", "POST", "/dbs/shop/colls/orders/docs");
    let write = write.header("x-ms-documentdb-is-upsert", "true").json(&json!({"id": "o-1", "tenant": "t1"}));
    let revoking = async {
        soon(async || (rig.data_requests().len() > before).then_some(())).await;
        revoke(&rig, json!({"issuer": "local", "client": "fulfilment"})).await;
    };
    let (answer, ()) = tokio::join!(write.send(), revoking);
    assert_eq!(rig.data_requests().len(), before + 1, "no second attempt");
    assert!(rig.outcome(&answer).revocation.is_some());
    answer.refused(403, "identity.revoked");
}

#[tokio::test]
async fn a_file_keeps_revocations_over_a_restart() {
    let rig = super::with(file_store).await;
    revoke(&rig, json!({"issuer": "local", "subject": "fulfilment"})).await;
    let rig = rig.restart().await;
    rig.task("fulfilment", "GET", ITEM).send().await.refused(403, "identity.revoked");
    let (_, status) = rig.admin("GET", "/status", None).await;
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!((&status["revocations"]["store"], &status["revocations"]["in_force"]), (&json!("file"), &json!(1)));
    let (_, metrics) = rig.admin("GET", "/metrics", None).await;
    assert!(metrics.contains("stepgate_revocations 1"), "{metrics}");
}

#[tokio::test]
async fn a_file_that_cannot_be_understood_refuses_the_start_and_one_that_cannot_be_written_changes_nothing() {
    let mut rig = super::with(file_store).await;
    revoke(&rig, json!({"issuer": "local", "subject": "fulfilment"})).await;
    let state = rig.file("config/state");

    // A directory in the place of the file that is written beside it: nothing can be written any more.
    fs::create_dir(rig.file("config/state.new")).unwrap();
    let target = json!({"issuer": "local", "client": "auditor"});
    let (code, answer) = order(&rig, &rig.server, "POST", "/revoke", &target).await;
    assert_eq!((code, &answer["in_force"]), (503, &json!(true)), "it holds here: {answer}");
    rig.task("auditor", "GET", ITEM).send().await.refused(403, "identity.revoked");
    let first = json!({"issuer": "local", "subject": "fulfilment"});
    let (code, answer) = order(&rig, &rig.server, "DELETE", "/revocations", &first).await;
    assert_eq!((code, &answer["in_force"]), (503, &json!(true)), "nothing opens that is not written: {answer}");
    rig.task("fulfilment", "GET", ITEM).send().await.refused(403, "identity.revoked");
    let (code, ready) = rig.admin("GET", "/readyz", None).await;
    assert!(code == 200 && ready.contains("degraded") && ready.contains("revocations in"), "{ready}");

    // What could not be written is written when it can be.
    fs::remove_dir(rig.file("config/state.new")).unwrap();
    soon(async || fs::read_to_string(&state).unwrap().contains("auditor").then_some(())).await;

    rig.stop().await;
    fs::write(&state, "{\"id\":\"revocations\",\"revocations\":").unwrap();
    let refused = rig.try_again().await.unwrap_err().to_string();
    assert!(refused.contains("config/state") && refused.contains("restore the file"), "{refused}");
}

#[tokio::test]
async fn two_gateways_do_not_share_a_file() {
    let rig = super::with(file_store).await;
    let refused = rig.try_another().await.unwrap_err().to_string();
    assert!(refused.contains("another gateway's"), "{refused}");
}

#[tokio::test]
async fn every_replica_refuses_within_two_seconds() {
    let rig = super::with(cosmos_store).await;
    let other = rig.try_another().await.unwrap();
    rig.task("fulfilment", "GET", ITEM).at(&other).send().await.expect(200);
    revoke(&rig, json!({"issuer": "local", "subject": "fulfilment"})).await;
    let refused = soon(async || {
        let answer = rig.task("fulfilment", "GET", ITEM).at(&other).send().await;
        (answer.status() == 403).then_some(answer)
    });
    tokio::time::timeout(WITHIN, refused).await.expect("within two seconds").refused(403, "identity.revoked");

    // And the other way round: the other replica lifts it.
    let target = json!({"issuer": "local", "subject": "fulfilment"});
    let (code, _) = order(&rig, &other, "DELETE", "/revocations", &target).await;
    assert_eq!(code, 200);
    let allowed = soon(async || {
        let answer = rig.task("fulfilment", "GET", ITEM).send().await;
        (answer.status() == 200).then_some(())
    });
    tokio::time::timeout(WITHIN, allowed).await.expect("within two seconds");

    // A gateway that starts later knows it too.
    revoke(&rig, json!({"issuer": "local", "client": "fulfilment"})).await;
    let late = rig.try_another().await.unwrap();
    let refused = soon(async || {
        let answer = rig.task("fulfilment", "GET", ITEM).at(&late).send().await;
        (answer.status() == 403).then_some(answer)
    });
    tokio::time::timeout(WITHIN, refused).await.expect("within two seconds");
}

#[tokio::test]
async fn an_unreachable_container_opens_nothing() {
    let rig = super::with(cosmos_store).await;
    revoke(&rig, json!({"issuer": "local", "subject": "fulfilment"})).await;
    let effect = Effect::Any { status: 503, substatus: None };
    let path = Some("/dbs/shop/colls/state".to_owned());
    rig.cosmos().add_fault(Fault { path, ..Fault::once(effect).times(10_000) });
    soon(async || {
        let (code, ready) = rig.admin("GET", "/readyz", None).await;
        (code == 200 && ready.contains("degraded")).then_some(())
    })
    .await;
    rig.task("fulfilment", "GET", ITEM).send().await.refused(403, "identity.revoked");
    let target = json!({"issuer": "local", "client": "auditor"});
    let (code, answer) = order(&rig, &rig.server, "POST", "/revoke", &target).await;
    assert_eq!((code, &answer["in_force"]), (503, &json!(true)), "{answer}");
    rig.task("auditor", "GET", ITEM).send().await.refused(403, "identity.revoked");

    // A gateway that never read the store lets nobody in.
    let blind = rig.try_another_unready().await.unwrap();
    let blind_ready = rig.admin_of(&blind, "GET", "/readyz", None, "").await;
    assert_eq!(blind_ready.0, 503, "{}", blind_ready.1);
    soon(async || {
        let answer = rig.task("operator", "GET", ITEM).partition("t1").at(&blind).send().await;
        assert_eq!(answer.status(), 503);
        (answer.error().1 == "identity.unavailable").then_some(())
    })
    .await;

    rig.cosmos().clear_faults();
    soon(async || (rig.admin_of(&blind, "GET", "/readyz", None, "").await.0 == 200).then_some(())).await;
    rig.task("operator", "GET", ITEM).partition("t1").at(&blind).send().await.expect(200);
    let other = rig.try_another().await.unwrap();
    soon(async || {
        let answer = rig.task("auditor", "GET", ITEM).at(&other).send().await;
        (answer.status() == 403).then_some(())
    })
    .await;
    soon(async || rig.admin("GET", "/readyz", None).await.1.contains("\"ready\"").then_some(())).await;
}
