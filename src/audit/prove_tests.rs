//! Proofs from logs of one and of many segments, and what does not pass for one.

use super::{
    chain::{self, Hash},
    prove::{NotProven, ProveError, Proven, prove, public_keys},
    samples::entry,
    *,
};
use crate::clock::{Clock, ManualClock, Timestamp};

/// A log of `requests` writes in segments of `segment_bytes`; closed, so that all of it is signed.
async fn written(requests: u64, segment_bytes: u64) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let journal = opened(directory.path(), segment_bytes);
    for n in 0..requests {
        journal.append(entry(Phase::Intent, &format!("request-{n:02}"))).await.unwrap();
        journal.append(entry(Phase::Outcome, &format!("request-{n:02}"))).await.unwrap();
    }
    journal.close().await.unwrap();
    directory
}

fn opened(directory: &std::path::Path, segment_bytes: u64) -> Journal {
    let clock = Clock::Manual(ManualClock::new(Timestamp::from_millis(1_795_375_762_123)));
    Journal::open(Config { segment_bytes, ..Config::in_directory(directory) }, Anchors::default(), clock).unwrap()
}

#[tokio::test]
async fn every_record_of_every_segment_is_proven_to_a_stranger() {
    let directory = written(20, 8 * 1024).await;
    assert!(verify(directory.path(), &Evidence::default(), Range::ALL).unwrap().segments > 3);
    let keys = public_keys(&directory.path().join("checkpoint.pub")).unwrap();
    for n in 0..20 {
        let proven = prove(directory.path(), &format!("request-{n:02}")).unwrap();
        assert_eq!(proven.records.len(), 2, "intent and outcome");
        assert!(proven.check(&keys).unwrap() >= 2 * (n + 1));
        let read: Proven = serde_json::from_str(&serde_json::to_string(&proven).unwrap()).unwrap();
        assert_eq!(read, proven);
    }
}

/// The line with the hash that belongs to what now stands in it.
fn reseal(line: &str) -> String {
    let content = line.rsplit_once(",\"hash\"").unwrap().0;
    let prev = content.rsplit('"').nth(1).unwrap();
    let mut line = format!("{content}}}").into_bytes();
    chain::seal(Hash::from_digits(prev.as_bytes()).unwrap(), &mut line, 0);
    assert_eq!(line.pop(), Some(b'\n'));
    String::from_utf8(line).unwrap()
}

#[tokio::test]
async fn what_was_changed_is_not_proven() {
    let (directory, other) = (written(5, 1 << 20).await, written(5, 1 << 20).await);
    let keys = public_keys(&directory.path().join("checkpoint.pub")).unwrap();
    let proven = prove(directory.path(), "request-03").unwrap();
    let changed = |change: fn(&mut Proven)| {
        let mut proven = proven.clone();
        change(&mut proven);
        proven.check(&keys)
    };
    assert_eq!(changed(|_| {}), Ok(10));
    let lie = |proven: &mut Proven| proven.records[0].line = proven.records[0].line.replace("o-17", "o-18");
    assert_eq!(changed(lie), Err(NotProven::Path));
    let resealed =
        |proven: &mut Proven| proven.records[0].line = reseal(&proven.records[0].line.replace("o-17", "o-18"));
    assert_eq!(changed(resealed), Err(NotProven::Path));
    let moved = |proven: &mut Proven| proven.records[0].proof = proven.records[0].proof.replace("index 6", "index 7");
    assert_eq!(changed(moved), Err(NotProven::Path));
    assert_eq!(changed(|proven| proven.request_id = "request-04".into()), Err(NotProven::Request));
    assert_eq!(changed(|proven| proven.records.clear()), Err(NotProven::Form));
    let resized = |proven: &mut Proven| proven.records[0].proof = proven.records[0].proof.replace("\n10\n", "\n11\n");
    assert_eq!(changed(resized), Err(NotProven::Signature));
    assert_eq!(changed(|proven| proven.records[0].proof.truncate(40)), Err(NotProven::Form));
    let theirs = public_keys(&other.path().join("checkpoint.pub")).unwrap();
    assert_eq!(proven.check(&theirs), Err(NotProven::Signature));
}

#[tokio::test]
async fn a_record_is_proven_only_when_it_is_signed_and_the_log_fits() {
    let directory = tempfile::tempdir().unwrap();
    let journal = opened(directory.path(), 1 << 20);
    journal.append(entry(Phase::Outcome, "early")).await.unwrap();
    assert!(matches!(prove(directory.path(), "early"), Err(ProveError::Unsigned(1))));
    assert!(matches!(prove(directory.path(), "absent"), Err(ProveError::NoRecord(_))));
    journal.close().await.unwrap();
    prove(directory.path(), "early").unwrap();

    let segment = directory.path().join("0000000001-1.jsonl");
    let text = std::fs::read_to_string(&segment).unwrap();
    std::fs::write(&segment, text.replace("o-17", "o-18")).unwrap();
    assert!(matches!(prove(directory.path(), "early"), Err(ProveError::Log(AuditError::Damaged(_)))));
}
