//! Segments that are closed, packed and removed; and readings of the log, which are records too.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use super::{samples::entry, *};
use crate::clock::{Clock, ManualClock, Timestamp};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

struct Log {
    journal: Journal,
    hand: ManualClock,
}

impl Log {
    fn open(config: Config) -> Self {
        let hand = ManualClock::new(Timestamp::from_millis(1_795_375_762_123));
        Self { journal: Journal::open(config, Anchors::default(), Clock::Manual(hand.clone())).unwrap(), hand }
    }

    async fn outcome(&self, request: &str) {
        self.journal.append(entry(Phase::Outcome, request)).await.unwrap();
    }

    /// A segment for each of `days`, since each is a day old when the next begins.
    async fn write_days(&self, days: u64) {
        for day in 0..days {
            for n in 0..3 {
                self.outcome(&format!("day-{day}-{n}")).await;
            }
            self.hand.advance(DAY);
        }
    }
}

fn files(directory: &Path, ending: &str) -> Vec<String> {
    let names = std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.ends_with(ending)).collect();
    names.sort();
    names
}

fn whole(directory: &Path, evidence: &Evidence) -> Report {
    verify(directory, evidence, Range::ALL).unwrap()
}

/// Waits for something that another thread does.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_segment_ends_when_it_is_a_day_old() {
    let directory = tempfile::tempdir().unwrap();
    let log = Log::open(Config::in_directory(directory.path()));
    log.write_days(3).await;
    log.journal.close().await.unwrap();
    let report = whole(directory.path(), &Evidence::default());
    assert!(report.ok, "{report:?}");
    assert_eq!((report.segments, report.records, report.signed), (4, 9, 9));
}

#[tokio::test]
async fn packed_segments_are_read_as_if_they_were_not() {
    let directory = tempfile::tempdir().unwrap();
    let log = Log::open(Config { pack: true, ..Config::in_directory(directory.path()) });
    log.write_days(3).await;
    log.outcome("last").await;
    log.journal.close().await.unwrap();
    drop(log);
    // What was being packed when the last segment closed is packed at the next start at the latest.
    Log::open(Config { pack: true, ..Config::in_directory(directory.path()) }).journal.close().await.unwrap();
    assert_eq!(files(directory.path(), ".jsonl"), ["0000000004-10.jsonl"], "what is written is never packed");
    assert_eq!(files(directory.path(), ".jsonl.gz").len(), 3);
    let report = whole(directory.path(), &Evidence::default());
    assert!(report.ok, "{report:?}");
    assert_eq!((report.segments, report.records), (4, 10));

    let mut reader = Reader::from_start(directory.path()).unwrap();
    let mut read = 0;
    while reader.next(|_| true).unwrap().is_some() {
        read += 1;
    }
    assert_eq!(read, 10);
    assert_eq!(prove(directory.path(), "day-1-1").unwrap().records.len(), 1);

    let packed = directory.path().join("0000000002-4.jsonl.gz");
    let bytes = std::fs::read(&packed).unwrap();
    for at in (0..bytes.len()).step_by(61) {
        let mut changed = bytes.clone();
        changed[at] ^= 4;
        std::fs::write(&packed, changed).unwrap();
        // A bit of gzip's own header (its time, its system) is no bit of the log; all others are.
        let verified = verify(directory.path(), &Evidence::default(), Range::ALL);
        assert!(at < 10 || !matches!(verified, Ok(report) if report.ok), "byte {at}");
    }
}

#[tokio::test]
async fn what_retention_removes_it_signs_for() {
    let directory = tempfile::tempdir().unwrap();
    let log = Log::open(Config { retain: Some(DAY * 2), ..Config::in_directory(directory.path()) });
    let elsewhere = tempfile::tempdir().unwrap();
    log.write_days(2).await;
    let early = directory.path().join("0000000002-4.checkpoints");
    until("the second segment begins", || early.exists()).await;
    std::fs::copy(&early, elsewhere.path().join("early.checkpoints")).unwrap();
    log.write_days(4).await;
    log.journal.close().await.unwrap();

    let report = whole(directory.path(), &Evidence::default());
    assert!(report.ok, "{report:?}");
    assert!(report.removed >= 6 && report.from == report.removed + 1, "{report:?}");
    assert_eq!(report.records, 18);
    assert!(report.promise.contains("were removed by retention, which signed for them"), "{}", report.promise);
    let last = files(directory.path(), ".checkpoints").pop().unwrap();
    std::fs::copy(directory.path().join(last), elsewhere.path().join("late.checkpoints")).unwrap();
    let evidence = Evidence { anchors: vec![elsewhere.path().to_owned()], ..Evidence::default() };
    let held = whole(directory.path(), &evidence);
    assert!(held.ok && held.anchored >= 1 && held.anchored_before >= 1, "{held:?}");

    let log = Log::open(Config::in_directory(directory.path()));
    log.outcome("goes on").await;
    log.journal.close().await.unwrap();
    assert!(whole(directory.path(), &Evidence::default()).ok);

    let first = files(directory.path(), ".jsonl").remove(0);
    let aside = std::fs::read(directory.path().join(&first)).unwrap();
    std::fs::remove_file(directory.path().join(&first)).unwrap();
    assert!(!whole(directory.path(), &Evidence::default()).ok, "more is gone than was signed for");
    std::fs::write(directory.path().join(&first), aside).unwrap();
    let note = directory.path().join("removed.note");
    let text = std::fs::read_to_string(&note).unwrap();
    std::fs::write(&note, text.replacen("segments 4", "segments 5", 1).replacen("segments 3", "segments 4", 1))
        .unwrap();
    assert!(!whole(directory.path(), &Evidence::default()).ok, "the statement is signed");
    std::fs::remove_file(&note).unwrap();
    let bad = whole(directory.path(), &Evidence::default()).first_bad.unwrap();
    assert_eq!(bad.wrong, Wrong::SegmentMissing(1).to_string());
}

#[tokio::test]
async fn a_range_is_verified_from_the_checkpoint_before_it() {
    let directory = tempfile::tempdir().unwrap();
    let log = Log::open(Config::in_directory(directory.path()));
    log.write_days(4).await;
    log.journal.close().await.unwrap();
    let range = |from, to| verify(directory.path(), &Evidence::default(), Range { from, to }).unwrap();
    let report = range(5, 8);
    assert_eq!((report.ok, report.from, report.records, report.segments), (true, 4, 9, 2));
    assert!(report.promise.ends_with("only records 4 to 9 were read"), "{}", report.promise);

    let first = directory.path().join("0000000001-1.jsonl");
    let text = std::fs::read_to_string(&first).unwrap();
    std::fs::write(&first, text.replace("o-17", "o-18")).unwrap();
    assert!(range(5, 8).ok, "it says nothing about what it did not read");
    assert!(!range(1, 2).ok);
}

#[tokio::test]
async fn an_export_has_the_lines_of_its_time() {
    let directory = tempfile::tempdir().unwrap();
    let log = Log::open(Config { pack: true, ..Config::in_directory(directory.path()) });
    let start = log.hand_time();
    log.write_days(3).await;
    log.journal.close().await.unwrap();
    let mut out = Vec::new();
    let exported = export(directory.path(), start.plus(DAY), start.plus(DAY * 2), &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert_eq!((exported, text.lines().count()), (3, 3));
    assert!(text.lines().all(|line| line.contains("day-1-")), "{text}");
}

impl Log {
    fn hand_time(&self) -> Timestamp {
        Clock::Manual(self.hand.clone()).now()
    }
}

#[tokio::test]
async fn whoever_reads_the_log_is_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let nowhere = directory.path().join("nowhere");
    let now = Timestamp::from_millis(1_795_375_762_123);
    assert!(matches!(note_reading(&nowhere, "trace", "run-1", now), Err(AuditError::NoLog(_))));
    let log = Log::open(Config::in_directory(directory.path()));
    note_reading(directory.path(), "trace", "run-1", now).unwrap();
    let place = directory.path().join("readings");
    std::os::unix::fs::symlink("/etc/passwd", place.join("link.json")).unwrap();
    std::fs::write(place.join("odd.json"), "not a note").unwrap();
    std::fs::create_dir(place.join("directory.json")).unwrap();
    log.outcome("1").await;
    log.journal.close().await.unwrap();

    assert_eq!(files(&place, ".json"), ["directory.json"], "what is in the log is no note any more");
    let mut reader = Reader::from_start(directory.path()).unwrap();
    let mut readings = Vec::new();
    while let Some(record) = reader.next(|_| true).unwrap() {
        readings.extend(record.entry.reading);
    }
    assert_eq!(readings.len(), 3, "{readings:?}");
    let noted = readings.iter().find(|reading| reading.command == "trace").unwrap();
    assert_eq!((noted.selection.as_str(), noted.uid, noted.time), ("run-1", rustix::process::getuid().as_raw(), now));
    assert!(readings.iter().filter(|reading| reading.command == "unreadable").count() == 2);
    let report = whole(directory.path(), &Evidence::default());
    assert!(report.ok && report.records == 4, "{report:?}");
}
