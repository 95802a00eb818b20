//! The trace and the tail of one story, as a person reads them: compared with the files in `tests/golden`.

use std::{path::Path, sync::Arc, time::Duration};

use super::{
    samples::{self, EXECUTION, answer, clause, upstream},
    *,
};
use crate::{
    access::{Action, ItemId, Operation},
    clock::{Clock, ManualClock, Timestamp},
    policy::ClauseKind,
};

struct Story {
    journal: Journal,
    hand: ManualClock,
}

impl Story {
    async fn tell(&self, entry: Entry) {
        self.hand.advance(Duration::from_millis(137));
        self.journal.append(entry).await.unwrap();
    }

    async fn write(&self, intent: Entry, upstream: Upstream, answer: Answer) {
        self.tell(Entry { phase: Phase::Intent, ..intent.clone() }).await;
        let outcome = Entry { upstream: Some(upstream), answer: Some(answer), ..intent };
        self.tell(Entry { phase: Phase::Outcome, ..outcome }).await;
    }
}

fn asks(request: &str, state: &str, attempt: u32, operation: Operation, container: &str, item: &str) -> Entry {
    let mut entry = Entry {
        who: Some(samples::who()),
        context: samples::context(state, attempt),
        decision: Some(samples::allowed()),
        ..Entry::new(Phase::Outcome, request)
    };
    entry.context.item = None;
    entry.question = Question {
        action: Some(Asked::Action(Action::Operation(operation))),
        container: Some(container.parse().unwrap()),
        partition_key: Some(r#"["t1"]"#.parse().unwrap()),
        item: Some(ItemId::new(item).unwrap()),
        batch: Vec::new(),
    };
    entry
}

/// An order workflow that loads, saves after a throttled try, is denied a write to the ledger, and loses an outcome.
async fn story(directory: &Path) {
    let hand = ManualClock::new(Timestamp::from_millis(1_795_375_762_123));
    let journal =
        Journal::open(Config::in_directory(directory), Anchors::default(), Clock::Manual(hand.clone())).unwrap();
    let story = Story { journal, hand };
    let orders = "shop/orders";

    let load = asks("r-1", "LoadOrder", 0, Operation::ItemsRead, orders, "o-17");
    story.tell(Entry { upstream: Some(upstream(200, 1.0, 4)), answer: Some(answer(200, None)), ..load }).await;

    let save = asks("r-2", "SaveOrder", 0, Operation::ItemsUpsert, orders, "o-17");
    let throttled = Upstream { attempts: 3, ..upstream(429, 0.0, 61) };
    story.write(save, throttled, answer(429, Some("cosmos.throttled"))).await;
    let save = asks("r-3", "SaveOrder", 1, Operation::ItemsUpsert, orders, "o-17");
    story.write(save, upstream(201, 6.29, 12), answer(201, None)).await;

    let deny = clause(ClauseKind::Deny, "ledger-is-append-only", "finance.yaml:9");
    let denied = Ruling { verdict: Verdict::Deny, clauses: Arc::new([deny]), revision: Some("sha256:abc".into()) };
    let purge = asks("r-4", "Purge", 0, Operation::ItemsDelete, "finance/ledger", "e-1");
    let refusal = answer(403, Some("policy.denied"));
    story.tell(Entry { decision: Some(denied), answer: Some(refusal), ..purge }).await;

    let items = ["i-0", "i-1"].map(|item| {
        let mut entry = asks(&format!("r-{item}"), "EachLine", 0, Operation::ItemsCreate, "shop/lines", item);
        entry.context.item = samples::context("EachLine", 0).item;
        entry
    });
    for (mut item, index) in items.into_iter().zip(0..) {
        if let Some(fact) = &mut item.context.item {
            fact.value = index;
        }
        if index == 0 {
            story.write(item, upstream(201, 5.5, 9), answer(201, None)).await;
        } else {
            story.tell(Entry { phase: Phase::Intent, ..item }).await;
        }
    }
    let mut other = asks("r-9", "LoadOrder", 0, Operation::ItemsRead, orders, "o-18");
    if let Some(fact) = &mut other.context.execution {
        fact.value = EXECUTION.replace("run-1", "run-2").parse().unwrap();
    }
    story.tell(other).await;
    story.journal.refuse(samples::entry(Phase::Refusal, "r-10"));
    story.journal.close().await.unwrap();
    // The last intent never had an outcome: the next start finds it.
    let clock = Clock::Manual(story.hand.clone());
    let journal = Journal::open(Config::in_directory(directory), Anchors::default(), clock).unwrap();
    journal.close().await.unwrap();
}

async fn told() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    story(directory.path()).await;
    directory
}

#[tokio::test]
async fn a_trace_reads_as_a_tree() {
    let directory = told().await;
    let trace = trace(directory.path(), "run-1").unwrap();
    assert_eq!(trace.render_text(false), include_str!("../../tests/golden/audit-trace.txt"));
    assert_eq!(trace.render_mermaid(), include_str!("../../tests/golden/audit-trace.mmd"));
    let json = serde_json::to_string_pretty(&trace).unwrap() + "\n";
    assert_eq!(json, include_str!("../../tests/golden/audit-trace.json"));
    let uncolored: String = {
        let colored = trace.render_text(true);
        assert!(colored.contains("\u{1b}[1;31m"));
        ["1", "2", "31", "32", "1;31", "33", "0"]
            .iter()
            .fold(colored, |text, code| text.replace(&format!("\u{1b}[{code}m"), ""))
    };
    assert_eq!(uncolored, trace.render_text(false), "colours change no column");
}

#[tokio::test]
async fn an_execution_is_found_by_its_arn_and_not_by_a_part_of_its_name() {
    let directory = told().await;
    assert_eq!(trace(directory.path(), EXECUTION).unwrap().totals.requests, 6);
    assert!(matches!(trace(directory.path(), "run"), Err(TraceError::NotFound(_))));
}

#[tokio::test]
async fn a_tail_has_one_line_a_record_and_follows() {
    let directory = told().await;
    let mut reader = Reader::from_recent(directory.path()).unwrap();
    let mut text = String::new();
    while let Some(record) = reader.next(|_| true).unwrap() {
        text.push_str(&record.render_line(false));
        text.push('\n');
    }
    assert_eq!(text, include_str!("../../tests/golden/audit-tail.txt"));

    let hand = ManualClock::new(Timestamp::from_millis(1_795_375_772_123));
    let config = Config { segment_bytes: 1, ..Config::in_directory(directory.path()) };
    let journal = Journal::open(config, Anchors::default(), Clock::Manual(hand)).unwrap();
    for n in 0..3 {
        let request = format!("followed-{n}");
        journal.append(samples::entry(Phase::Outcome, &request)).await.unwrap();
        let record = reader.next(|_| true).unwrap().unwrap();
        assert_eq!(&*record.entry.request_id, request);
        assert!(reader.next(|_| true).unwrap().is_none());
    }
    journal.close().await.unwrap();
}

#[test]
fn a_reader_waits_for_the_rest_of_a_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("0000000001-1.jsonl");
    let entry = samples::entry(Phase::Outcome, "r-1");
    let record = Record { sequence: Sequence(1), time: Timestamp::from_secs(1), entry };
    let line = samples::line(&record, Hash::GENESIS);
    let (head, rest) = line.split_at(100);
    std::fs::write(&path, head).unwrap();
    let mut reader = Reader::from_start(directory.path()).unwrap();
    assert!(reader.next(|_| true).unwrap().is_none());
    std::fs::write(&path, [head, rest, b"\n"].concat()).unwrap();
    assert_eq!(reader.next(|_| true).unwrap(), Some(record));
}

#[test]
fn a_filter_admits_what_matches_all_of_it() {
    let record = Record {
        sequence: Sequence(1),
        time: Timestamp::from_secs(1),
        entry: asks("r-1", "LoadOrder", 0, Operation::ItemsRead, "shop/orders", "o-17"),
    };
    let text = |text: &str| Some(text.to_owned());
    let matching = Filter {
        execution: text("run-1"),
        decision: Some(Verdict::Allow),
        phase: Some(Phase::Outcome),
        operation: text("items/read"),
        container: text("shop/orders"),
        subject: text("cognito/7h2kexample"),
        request: text("r-1"),
    };
    assert!(matching.admits(&record));
    for other in [
        Filter { execution: text("run-2"), ..matching.clone() },
        Filter { decision: Some(Verdict::Deny), ..matching.clone() },
        Filter { phase: Some(Phase::Intent), ..matching.clone() },
        Filter { operation: text("query"), ..matching.clone() },
        Filter { container: text("shop/lines"), ..matching.clone() },
        Filter { subject: text("other"), ..matching.clone() },
        Filter { request: text("r-2"), ..matching.clone() },
    ] {
        assert!(!other.admits(&record), "{other:?}");
    }
}
