//! The journal on a real disk: what it promises, and what happens to those who break it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use proptest::prelude::*;

use super::{samples::entry, *};
use crate::clock::{Clock, ManualClock, Timestamp};

fn clock() -> (Clock, ManualClock) {
    let hand = ManualClock::new(Timestamp::from_millis(1_795_375_762_123));
    (Clock::Manual(hand.clone()), hand)
}

fn open(directory: &Path) -> Journal {
    Journal::open(Config::in_directory(directory), Anchors::default(), clock().0).unwrap()
}

fn lines(directory: &Path) -> Vec<String> {
    files(directory, ".jsonl")
        .iter()
        .flat_map(|path| fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

fn files(directory: &Path, ending: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|path| path.to_string_lossy().ends_with(ending));
    files.sort();
    files
}

/// The directory as a crash would leave it: copied while its writer still has it open.
fn crash(directory: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in fs::read_dir(directory).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    copy
}

fn verified(directory: &Path) -> Report {
    let report = verify(directory, &Evidence::default(), Range::ALL).unwrap();
    assert!(report.ok, "{report:?}");
    report
}

fn refused(directory: &Path) -> FirstBad {
    let report = verify(directory, &Evidence::default(), Range::ALL).unwrap();
    assert!(!report.ok, "{report:?}");
    report.first_bad.unwrap()
}

/// A reader who trusts his own copy of the key.
fn with_key(key: &Path) -> Evidence {
    Evidence { public_key: Some(key.to_owned()), ..Evidence::default() }
}

/// A closed log of `records` outcomes, in segments of `segment_bytes`.
async fn written(records: u64, segment_bytes: u64) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let config = Config { segment_bytes, ..Config::in_directory(directory.path()) };
    let journal = Journal::open(config, Anchors::default(), clock().0).unwrap();
    for n in 1..=records {
        let sequence = journal.append(entry(Phase::Outcome, &format!("request-{n}"))).await.unwrap();
        assert_eq!(sequence, Sequence(n));
    }
    journal.close().await.unwrap();
    directory
}

#[tokio::test]
async fn a_closed_log_verifies_and_is_signed_to_its_end() {
    let directory = written(5, 1 << 20).await;
    let report = verified(directory.path());
    assert_eq!((report.records, report.signed, report.segments), (5, 5, 1));
    assert_eq!(report.promise, "consistent, key self-asserted, signed up to record 5");
    assert!(lines(directory.path())[2].contains("\"request-3\""));
}

#[tokio::test]
async fn two_hundred_appends_share_syncs_and_are_all_there() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Arc::new(open(directory.path()));
    let mut appends = tokio::task::JoinSet::new();
    for n in 0..200 {
        let journal = Arc::clone(&journal);
        appends.spawn(async move { journal.append(entry(Phase::Outcome, &format!("request-{n}"))).await.unwrap() });
    }
    let mut sequences: Vec<u64> = appends.join_all().await.into_iter().map(|sequence| sequence.0).collect();
    sequences.sort_unstable();
    assert_eq!(sequences, (1..=200).collect::<Vec<_>>());

    let counters = journal.counters();
    assert_eq!(counters.records, 200);
    assert!(counters.syncs <= 50, "{} syncs for 200 records", counters.syncs);
    assert_eq!(verified(crash(directory.path()).path()).records, 200, "durable before anything was closed");
}

#[tokio::test]
async fn segments_rotate_and_the_chain_crosses_them() {
    let directory = written(40, 8 * 1024).await;
    let report = verified(directory.path());
    assert!(report.segments > 3, "{report:?}");
    assert_eq!((report.records, report.signed), (40, 40));

    let journal = open(directory.path());
    assert_eq!(journal.append(entry(Phase::Outcome, "after")).await.unwrap(), Sequence(41));
    journal.close().await.unwrap();
    assert_eq!(verified(directory.path()).records, 41);
}

#[tokio::test]
async fn checkpoints_come_by_time_and_by_count() {
    let directory = tempfile::tempdir().unwrap();
    let (clock, hand) = clock();
    let config = Config { checkpoint_records: 3, ..Config::in_directory(directory.path()) };
    let journal = Journal::open(config, Anchors::default(), clock).unwrap();
    for n in 0..3 {
        journal.append(entry(Phase::Outcome, &n.to_string())).await.unwrap();
    }
    // The third append is answered before it is signed; the fourth is behind both.
    journal.append(entry(Phase::Outcome, "3")).await.unwrap();
    assert_eq!(verified(crash(directory.path()).path()).signed, 3);
    hand.advance(Duration::from_secs(61));
    journal.append(entry(Phase::Outcome, "4")).await.unwrap();
    journal.append(entry(Phase::Outcome, "5")).await.unwrap();
    assert_eq!(verified(crash(directory.path()).path()).signed, 5);
}

#[tokio::test]
async fn closing_twice_is_closing_once_and_nothing_is_written_after() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(directory.path());
    journal.append(entry(Phase::Outcome, "1")).await.unwrap();
    let (first, second) = tokio::join!(journal.close(), journal.close());
    first.unwrap();
    second.unwrap();
    journal.close().await.unwrap();
    assert!(matches!(journal.append(entry(Phase::Outcome, "2")).await, Err(Unavailable::Closed)));
    assert_eq!(verified(directory.path()).records, 1);
}

#[tokio::test]
async fn a_second_writer_is_refused_until_the_first_has_closed() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path());
    let second = Journal::open(Config::in_directory(directory.path()), Anchors::default(), clock().0);
    assert!(matches!(second, Err(AuditError::InUse(_))), "{second:?}");
    first.close().await.unwrap();
    drop(first);
    open(directory.path()).close().await.unwrap();
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Journal::open(Config::in_directory(file.join("audit")), Anchors::default(), clock().0).unwrap_err();
    assert!(error.to_string().contains("file/audit"), "{error}");
}

#[tokio::test]
async fn every_durability_writes_everything() {
    for durability in [Durability::Fsync, Durability::Write, Durability::Memory] {
        let directory = tempfile::tempdir().unwrap();
        let config = Config { durability, ..Config::in_directory(directory.path()) };
        let journal = Journal::open(config, Anchors::default(), clock().0).unwrap();
        for n in 0..10 {
            journal.append(entry(Phase::Outcome, &n.to_string())).await.unwrap();
        }
        assert_eq!(journal.counters().syncs > 0, durability == Durability::Fsync);
        journal.close().await.unwrap();
        assert_eq!(verified(directory.path()).records, 10, "{durability:?}");
    }
}

#[tokio::test]
async fn a_torn_tail_is_cut_and_the_chain_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(directory.path());
    for n in 0..3 {
        journal.append(entry(Phase::Outcome, &n.to_string())).await.unwrap();
    }
    let crashed = crash(directory.path());
    let segment = &files(crashed.path(), ".jsonl")[0];
    let text = fs::read_to_string(segment).unwrap();
    fs::write(segment, &text.as_bytes()[..text.len() - 10]).unwrap();
    let report = verified(crashed.path());
    assert!(report.unfinished);
    assert_eq!(report.records, 2);

    let journal = open(crashed.path());
    assert_eq!(journal.append(entry(Phase::Outcome, "again")).await.unwrap(), Sequence(3));
    journal.close().await.unwrap();
    assert_eq!(verified(crashed.path()).records, 3);
}

#[tokio::test]
async fn a_tail_that_was_signed_is_never_cut() {
    let directory = written(3, 1 << 20).await;
    let segment = &files(directory.path(), ".jsonl")[0];
    let text = fs::read_to_string(segment).unwrap();
    fs::write(segment, &text.as_bytes()[..text.len() - 10]).unwrap();
    let error = Journal::open(Config::in_directory(directory.path()), Anchors::default(), clock().0).unwrap_err();
    let AuditError::Damaged(damage) = error else { panic!("{error}") };
    assert_eq!(damage.wrong, Wrong::CutBack { signed: 3, found: 2 });
    assert_eq!(fs::read_to_string(segment).unwrap().len(), text.len() - 10, "evidence stays as it is");
}

#[tokio::test]
async fn other_damage_refuses_the_start_and_is_named() {
    let directory = written(3, 1 << 20).await;
    let segment = &files(directory.path(), ".jsonl")[0];
    let text = fs::read_to_string(segment).unwrap().replacen("request-2", "request-9", 1);
    fs::write(segment, text).unwrap();
    let error = Journal::open(Config::in_directory(directory.path()), Anchors::default(), clock().0).unwrap_err();
    assert!(error.to_string().contains(".jsonl:2: its content does not match its hash"), "{error}");
}

#[tokio::test]
async fn a_crash_while_a_segment_was_being_born_is_tidied() {
    for torn in [0, 20] {
        let directory = tempfile::tempdir().unwrap();
        let journal = open(directory.path());
        journal.append(entry(Phase::Outcome, "1")).await.unwrap();
        let crashed = crash(directory.path());
        let opening = fs::read(&files(directory.path(), ".checkpoints")[0]).unwrap();
        fs::write(crashed.path().join("0000000002-2.checkpoints"), &opening[..torn]).unwrap();
        let journal = open(crashed.path());
        assert_eq!(journal.append(entry(Phase::Outcome, "2")).await.unwrap(), Sequence(2));
        journal.close().await.unwrap();
        assert_eq!(verified(crashed.path()).records, 2);
    }
}

#[tokio::test]
async fn an_intent_without_outcome_shows_as_unknown() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config { segment_bytes: 4096, ..Config::in_directory(directory.path()) };
    let journal = Journal::open(config, Anchors::default(), clock().0).unwrap();
    journal.append(entry(Phase::Intent, "lost")).await.unwrap();
    journal.append(entry(Phase::Intent, "answered")).await.unwrap();
    for n in 0..10 {
        journal.append(entry(Phase::Outcome, &n.to_string())).await.unwrap();
    }
    journal.append(entry(Phase::Outcome, "answered")).await.unwrap();

    let crashed = crash(directory.path());
    open(crashed.path()).close().await.unwrap();
    let unknown: Vec<String> =
        lines(crashed.path()).into_iter().filter(|line| line.contains("\"outcome\":\"unknown\"")).collect();
    assert_eq!(unknown.len(), 1);
    assert!(unknown[0].contains("\"lost\"") && unknown[0].contains("\"recovered\""), "{unknown:?}");

    open(crashed.path()).close().await.unwrap();
    assert_eq!(verified(crashed.path()).records, 14, "recovered once, not at each start");
}

#[tokio::test]
async fn a_start_reads_what_is_recent_and_leaves_the_rest_to_verify() {
    let directory = tempfile::tempdir().unwrap();
    let (clock, hand) = clock();
    let config = Config { segment_bytes: 1, ..Config::in_directory(directory.path()) };
    let journal = Journal::open(config.clone(), Anchors::default(), clock.clone()).unwrap();
    for n in 0..4 {
        journal.append(entry(Phase::Outcome, &n.to_string())).await.unwrap();
        hand.advance(Duration::from_secs(8 * 60));
    }
    journal.close().await.unwrap();
    drop(journal);

    let spoil = |segment: usize| {
        let path = files(directory.path(), ".jsonl").remove(segment);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replacen("shop", "ship", 1)).unwrap();
        (path, text)
    };
    // The last record is in the fourth segment, at minute 24: the second, at minute 8, is the first within its window.
    let (path, text) = spoil(0);
    Journal::open(config.clone(), Anchors::default(), clock.clone()).unwrap().close().await.unwrap();
    assert_eq!(refused(directory.path()).sequence, Some(1));
    fs::write(path, text).unwrap();
    spoil(1);
    assert!(matches!(Journal::open(config, Anchors::default(), clock), Err(AuditError::Damaged(_))));
}

#[tokio::test]
async fn a_removed_segment_refuses_appends_until_it_is_back() {
    let directory = tempfile::tempdir().unwrap();
    let (clock, hand) = clock();
    let journal = Journal::open(Config::in_directory(directory.path()), Anchors::default(), clock).unwrap();
    journal.append(entry(Phase::Intent, "act")).await.unwrap();

    let segment = files(directory.path(), ".jsonl").remove(0);
    let aside = directory.path().join("aside");
    fs::rename(&segment, &aside).unwrap();
    let refused = journal.append(entry(Phase::Outcome, "act")).await;
    assert!(
        matches!(&refused, Err(Unavailable::Failed(error)) if matches!(**error, AuditError::Gone(_))),
        "{refused:?}"
    );
    assert!(matches!(journal.status().health, Health::Failed { .. }));

    fs::rename(&aside, &segment).unwrap();
    assert!(journal.append(entry(Phase::Intent, "too soon")).await.is_err(), "tried at most once a second");
    hand.advance(Duration::from_secs(2));
    journal.append(entry(Phase::Intent, "again")).await.unwrap();
    assert!(matches!(journal.status().health, Health::Ok));
    assert!(journal.status().last_error.is_some());
    journal.append(entry(Phase::Outcome, "again")).await.unwrap();
    journal.close().await.unwrap();

    let report = verified(directory.path());
    let text = lines(directory.path()).join("\n");
    assert_eq!((report.segments, report.records), (2, 4), "{text}");
    assert!(lines(directory.path())[1].contains("\"outcome\":\"unknown\""));
}

#[tokio::test]
async fn a_segment_somebody_else_wrote_to_refuses_appends() {
    let directory = tempfile::tempdir().unwrap();
    let journal = open(directory.path());
    journal.append(entry(Phase::Outcome, "1")).await.unwrap();
    let segment = files(directory.path(), ".jsonl").remove(0);
    fs::OpenOptions::new().write(true).open(&segment).unwrap().set_len(10).unwrap();
    let refused = journal.append(entry(Phase::Outcome, "2")).await;
    assert!(
        matches!(&refused, Err(Unavailable::Failed(error)) if matches!(**error, AuditError::Changed(_))),
        "{refused:?}"
    );
}

/// The next segment's name is taken by a directory, so the rotation fails; then it is not.
#[tokio::test]
async fn a_rotation_that_fails_poisons_and_heals() {
    let directory = tempfile::tempdir().unwrap();
    let (clock, hand) = clock();
    let config = Config { segment_bytes: 1, ..Config::in_directory(directory.path()) };
    let journal = Journal::open(config, Anchors::default(), clock).unwrap();
    let in_the_way = directory.path().join("0000000002-2.jsonl");
    fs::create_dir(&in_the_way).unwrap();
    journal.append(entry(Phase::Outcome, "1")).await.unwrap();
    assert!(journal.append(entry(Phase::Outcome, "2")).await.is_err());
    fs::remove_dir(&in_the_way).unwrap();
    hand.advance(Duration::from_secs(2));
    journal.append(entry(Phase::Outcome, "3")).await.unwrap();
    journal.close().await.unwrap();
    let text = lines(directory.path()).join("\n");
    assert_eq!(verified(directory.path()).records, 3, "{text}");
    assert!(text.contains("\"recovered\""), "{text}");
}

#[tokio::test]
async fn refusals_are_limited_and_counted_and_never_block() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config { refusals_per_second: 5, ..Config::in_directory(directory.path()) };
    let journal = Journal::open(config, Anchors::default(), clock().0).unwrap();
    for n in 0..1000 {
        journal.refuse(entry(Phase::Refusal, &format!("refused-{n}")));
    }
    journal.append(entry(Phase::Outcome, "authenticated")).await.unwrap();
    journal.close().await.unwrap();
    let lines = lines(directory.path());
    assert_eq!(lines.iter().filter(|line| line.contains("\"phase\":\"refusal\"")).count(), 5);
    let suppressed: Vec<_> = lines.iter().filter(|line| line.contains("\"phase\":\"suppressed\"")).collect();
    assert_eq!(suppressed.len(), 1);
    assert!(suppressed[0].contains("\"count\":995"), "{suppressed:?}");
    assert_eq!(journal.counters().suppressed, 995);
    assert_eq!(verified(directory.path()).records, 7);
}

#[tokio::test]
async fn refusals_have_a_share_of_a_segment_and_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config { refusals_per_second: 100, refusal_bytes: 10_000, ..Config::in_directory(directory.path()) };
    let journal = Journal::open(config, Anchors::default(), clock().0).unwrap();
    for n in 0..100 {
        journal.refuse(entry(Phase::Refusal, &n.to_string()));
    }
    journal.append(entry(Phase::Outcome, "authenticated")).await.unwrap();
    journal.close().await.unwrap();
    let refusals: Vec<_> =
        lines(directory.path()).into_iter().filter(|line| line.contains("\"phase\":\"refusal\"")).collect();
    let bytes: usize = refusals.iter().map(String::len).sum();
    assert!(bytes < 10_000 + refusals[0].len() * 2, "{bytes}");
    assert_eq!(refusals.len() as u64 + journal.counters().suppressed, 100);
}

#[tokio::test]
async fn a_deleted_line_and_swapped_lines_are_found() {
    let directory = written(6, 1 << 20).await;
    let segment = &files(directory.path(), ".jsonl")[0];
    let original = fs::read_to_string(segment).unwrap();
    let lines: Vec<&str> = original.lines().collect();

    let mut deleted = lines.clone();
    deleted.remove(2);
    fs::write(segment, deleted.join("\n") + "\n").unwrap();
    let bad = refused(directory.path());
    assert_eq!((bad.line, bad.sequence), (3, Some(3)));
    assert_eq!(bad.wrong, "sequence 4 stands where 3 belongs");

    let mut swapped = lines.clone();
    swapped.swap(3, 4);
    fs::write(segment, swapped.join("\n") + "\n").unwrap();
    assert_eq!(refused(directory.path()).line, 4);
}

#[tokio::test]
async fn a_log_cut_back_below_a_checkpoint_is_found() {
    let directory = written(6, 1 << 20).await;
    let segment = &files(directory.path(), ".jsonl")[0];
    let lines = lines(directory.path());
    fs::write(segment, lines[..4].join("\n") + "\n").unwrap();
    let bad = refused(directory.path());
    assert_eq!(bad.sequence, Some(5));
    assert_eq!(bad.wrong, "the log was cut back: 6 records are signed, 4 are here");
}

#[tokio::test]
async fn a_chain_computed_anew_without_the_key_is_found() {
    let directory = written(6, 1 << 20).await;
    let segment = &files(directory.path(), ".jsonl")[0];
    let (mut prev, mut forged) = (Hash::GENESIS, Vec::new());
    for (line, sequence) in lines(directory.path()).iter().zip(1..) {
        let mut record = ocsf::parse(line.as_bytes()).unwrap();
        if sequence == 4 {
            record.entry.bytes_out = 0;
        }
        let mut line = samples::line(&record, prev);
        prev = chain::seal(prev, &mut line, 0);
        forged.extend_from_slice(&line);
    }
    fs::write(segment, forged).unwrap();
    assert_eq!(refused(directory.path()).wrong, Wrong::CheckpointHash(6).to_string());
}

#[tokio::test]
async fn a_removed_file_is_found() {
    let directory = written(40, 8 * 1024).await;
    let all: Vec<PathBuf> = [".jsonl", ".checkpoints", "checkpoint.pub"]
        .iter()
        .flat_map(|ending| files(directory.path(), ending))
        .collect();
    assert!(all.len() > 8);
    let last = files(directory.path(), ".jsonl").pop().unwrap();
    for path in all {
        let content = fs::read(&path).unwrap();
        if path == last && content.is_empty() {
            continue;
        }
        fs::remove_file(&path).unwrap();
        refused(directory.path());
        fs::write(&path, content).unwrap();
    }
    verified(directory.path());
}

#[tokio::test]
async fn a_planted_segment_is_found() {
    let directory = written(2, 1 << 20).await;
    fs::write(directory.path().join("extra.jsonl"), "{}\n").unwrap();
    assert_eq!(refused(directory.path()).wrong, Wrong::Stranger.to_string());
}

#[tokio::test]
async fn a_log_written_anew_under_another_key_does_not_pass_the_reader_s_own() {
    let (ours, theirs) = (written(3, 1 << 20).await, written(3, 1 << 20).await);
    let key = ours.path().join("checkpoint.pub");
    let report = verify(ours.path(), &with_key(&key), Range::ALL).unwrap();
    assert_eq!(report.promise, "consistent, unchanged by anyone without the given key, signed up to record 3");
    assert!(verified(theirs.path()).ok);
    let report = verify(theirs.path(), &with_key(&key), Range::ALL).unwrap();
    assert_eq!(report.first_bad.unwrap().wrong, Wrong::Signature.to_string());
}

/// The checkpoints of a log at some moment, kept elsewhere.
fn anchor(directory: &Path) -> tempfile::TempDir {
    let elsewhere = tempfile::tempdir().unwrap();
    for file in files(directory, ".checkpoints") {
        fs::copy(&file, elsewhere.path().join(file.file_name().unwrap())).unwrap();
    }
    elsewhere
}

#[tokio::test]
async fn a_log_cut_back_head_and_tail_together_is_found_by_an_anchor_alone() {
    let directory = written(4, 1 << 20).await;
    let earlier = crash(directory.path());
    let journal = open(directory.path());
    for n in 0..3 {
        journal.append(entry(Phase::Outcome, &n.to_string())).await.unwrap();
    }
    journal.close().await.unwrap();
    let elsewhere = anchor(directory.path());
    let evidence = Evidence { anchors: vec![elsewhere.path().to_owned()], ..Evidence::default() };

    let report = verify(directory.path(), &evidence, Range::ALL).unwrap();
    let promise = "consistent, key self-asserted, signed up to record 7; nothing anchored was cut back or changed";
    assert_eq!((report.ok, report.anchored, &*report.promise), (true, 3, promise));

    assert!(verified(earlier.path()).ok, "by itself the earlier log is whole");
    let bad = verify(earlier.path(), &evidence, Range::ALL).unwrap().first_bad.unwrap();
    assert_eq!(bad.wrong, "the log was cut back: 7 records are signed, 4 are here");
    assert!(bad.file.starts_with(elsewhere.path().to_str().unwrap()), "{}", bad.file);

    // The same key, as many records, and others: what only the owner of the key can write.
    let config = Config { signing_key: directory.path().join("signing.key"), ..Config::in_directory(earlier.path()) };
    let journal = Journal::open(config, Anchors::default(), clock().0).unwrap();
    for n in 0..3 {
        journal.append(entry(Phase::Outcome, &format!("other {n}"))).await.unwrap();
    }
    journal.close().await.unwrap();
    assert!(verified(earlier.path()).ok);
    let bad = verify(earlier.path(), &evidence, Range::ALL).unwrap().first_bad.unwrap();
    assert_eq!(bad.wrong, Wrong::Anchor(7).to_string());
}

#[tokio::test]
async fn an_anchor_may_be_a_single_note_and_must_be_signed() {
    let directory = written(3, 1 << 20).await;
    let notes = fs::read_to_string(&files(directory.path(), ".checkpoints")[0]).unwrap();
    let last = notes.trim_end().rsplit_once("\n\nstepgate/audit\n").unwrap().1;
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("note");
    let evidence = Evidence { anchors: vec![file.clone()], ..Evidence::default() };
    fs::write(&file, format!("stepgate/audit\n{last}\n")).unwrap();
    assert_eq!(verify(directory.path(), &evidence, Range::ALL).unwrap().anchored, 1);
    for (text, wrong) in [
        (String::new(), Wrong::CheckpointUnfinished),
        (format!("stepgate/audit\n{}\n", last.replacen('3', "2", 1)), Wrong::Signature),
        ("nothing of the kind\n".to_owned(), Wrong::CheckpointUnfinished),
    ] {
        fs::write(&file, &text).unwrap();
        let bad = verify(directory.path(), &evidence, Range::ALL).unwrap().first_bad.unwrap();
        assert_eq!(bad.wrong, wrong.to_string(), "{text:?}");
    }
    fs::remove_file(&file).unwrap();
    assert!(matches!(verify(directory.path(), &evidence, Range::ALL), Err(AuditError::File { .. })));
}

#[tokio::test]
async fn a_changed_signing_key_leaves_the_old_checkpoints_valid() {
    let directory = written(3, 1 << 20).await;
    let config = Config { signing_key: directory.path().join("second.key"), ..Config::in_directory(directory.path()) };
    let journal = Journal::open(config, Anchors::default(), clock().0).unwrap();
    journal.append(entry(Phase::Outcome, "4")).await.unwrap();
    journal.close().await.unwrap();
    assert_eq!(verified(directory.path()).signed, 4);
}

#[test]
fn an_empty_directory_is_no_log() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(refused(directory.path()).wrong, Wrong::NoLog.to_string());
}

/// A small closed log of two segments, made once: each case flips one bit of a copy.
fn small_log() -> &'static Path {
    static LOG: std::sync::OnceLock<tempfile::TempDir> = std::sync::OnceLock::new();
    LOG.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let directory = runtime.block_on(written(6, 6 * 1024));
        fs::remove_file(directory.path().join("lock")).unwrap();
        fs::remove_file(directory.path().join("signing.key")).unwrap();
        directory
    })
    .path()
}

proptest! {
    #[test]
    fn a_single_flipped_bit_is_found(file: prop::sample::Index, byte: prop::sample::Index, bit in 0..8_u8) {
        let copy = crash(small_log());
        let files = files(copy.path(), "");
        let path = file.get(&files);
        let mut content = fs::read(path).unwrap();
        prop_assume!(!content.is_empty());
        let at = byte.index(content.len());
        content[at] ^= 1 << bit;
        fs::write(path, content).unwrap();
        prop_assert!(!verify(copy.path(), &Evidence::default(), Range::ALL).unwrap().ok, "{}:{at} bit {bit}", path.display());
    }
}
