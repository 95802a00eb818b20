//! The list, its document, and the order in which a change takes hold.

use std::{sync::Arc, time::Duration};

use serde_json::json;

use super::{
    list::{List, Revocation},
    *,
};
use crate::clock::ManualClock;

const ARN: &str = "arn:aws:states:us-east-1:111122223333:execution:Fulfil:run-1";

fn room(config: Config) -> (Revocations, ManualClock) {
    let hand = ManualClock::new(Timestamp::from_secs(1_795_375_762));
    let no_key = AccountKeyReader::new(|_| Box::pin(async { Err("no key in this test".into()) }));
    let issuers = vec![IssuerName::new("local")];
    (Revocations::open(config, issuers, no_key, Clock::Manual(hand.clone())).unwrap(), hand)
}

async fn revoke(room: &Revocations, body: serde_json::Value) -> Arc<Revocation> {
    let order = room.read(body.to_string().as_bytes()).unwrap();
    let (revocation, saved) = room.revoke(order).await.unwrap();
    saved.unwrap();
    revocation
}

fn is_revoked(room: &Revocations, execution: &str) -> bool {
    let fact = crate::access::Fact { value: execution.parse().unwrap(), assurance: crate::access::Assurance::Claimed };
    let context = ExecutionContext { execution: Some(fact), ..ExecutionContext::default() };
    room.check_execution(&context).is_err()
}

#[tokio::test]
async fn a_revocation_ends_when_it_says_so_and_is_then_forgotten() {
    let (room, hand) = room(Config::Memory);
    revoke(&room, json!({"execution": ARN, "until": "2026-11-22T21:25:22Z"})).await;
    hand.advance(Duration::from_secs(1_795_382_722 - 1_795_375_762 - 1));
    assert!(is_revoked(&room, ARN));
    hand.advance(Duration::from_secs(1));
    assert!(!is_revoked(&room, ARN));
    assert!(room.list().is_empty());
    revoke(&room, json!({"issuer": "local", "subject": "a"})).await;
    assert_eq!(room.status().revocations, 1);
}

#[tokio::test]
async fn revoking_twice_is_revoking_once_from_the_first_time_on() {
    let (room, hand) = room(Config::Memory);
    let first = revoke(&room, json!({"execution": ARN, "reason": "first"})).await;
    hand.advance(Duration::from_secs(60));
    let second = revoke(&room, json!({"execution": ARN, "reason": "second"})).await;
    assert_eq!((&first.id, first.since), (&second.id, second.since));
    assert_eq!(second.reason.as_deref(), Some("second"));
    assert_eq!(room.list().len(), 1);
    assert!(room.lift(&first.id).await.unwrap().is_some());
    assert!(!is_revoked(&room, ARN));
    assert!(room.lift(&first.id).await.unwrap().is_none());
}

#[tokio::test]
async fn what_the_store_cannot_take_is_in_force_and_what_it_cannot_give_up_stays_so() {
    let (room, _) = room(Config::Cosmos {
        endpoint: "http://127.0.0.1:9/".parse().unwrap(),
        database: "stepgate".into(),
        container: "state".into(),
    });
    let order = room.read(json!({"execution": ARN}).to_string().as_bytes()).unwrap();
    let (revocation, saved) = room.revoke(order).await.unwrap();
    assert!(saved.is_err() && is_revoked(&room, ARN));
    assert!(room.lift(&revocation.id).await.is_err() && is_revoked(&room, ARN));
    let status = room.status();
    assert_eq!((status.unsaved, status.trouble.is_some(), status.synced), (1, true, None));
}

#[test]
fn a_full_list_says_so_and_loses_nothing() {
    let (mut list, now) = (List::default(), Timestamp::from_secs(1_795_375_762));
    let order = |token_id: String| Order {
        target: Target::Token { issuer: IssuerName::new("local"), token_id },
        reason: None,
        until: None,
    };
    for n in 0..MOST {
        list.add(order(n.to_string()), now).unwrap();
    }
    assert_eq!(list.add(order("one more".into()), now), Err(Full));
    assert_eq!(list.len(), MOST);
    list.add(order("7".into()), now).unwrap();
}

#[tokio::test]
async fn a_file_holds_what_was_written_and_nothing_else_passes_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let (first, _) = room(Config::File(path.clone()));
    let revocation = revoke(&first, json!({"execution": ARN, "reason": "r", "until": "2030-01-01T00:00:00Z"})).await;
    first.close().await;
    let (second, _) = room(Config::File(path.clone()));
    assert_eq!(second.list(), [revocation]);
    second.close().await;
    for text in ["", "{}", "[]", r#"{"id":"other","revocations":[]}"#, r#"{"id":"revocations","revocations":[{}]}"#] {
        assert!(List::parse(text.as_bytes()).is_err(), "{text}");
        std::fs::write(&path, text).unwrap();
        let no_key = AccountKeyReader::new(|_| Box::pin(async { Err("no key in this test".into()) }));
        let clock = Clock::System;
        assert!(Revocations::open(Config::File(path.clone()), Vec::new(), no_key, clock).is_err(), "{text}");
    }
}
