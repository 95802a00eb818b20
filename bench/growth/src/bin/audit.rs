//! What the audit log adds to a request: an intent and an outcome appended through the journal at a steady rate, beside what the
//! same disk takes for a bare sync; how many records it takes from one, ten, a hundred and a thousand who append at once; and
//! how fast a log is verified.
//!
//!     cargo run --locked --release -p stepgate-bench-growth [DIRECTORY [SECONDS]]
//!
//! The directory is where the log goes, so that the disk is the one that is asked about.

use std::{
    fs::OpenOptions,
    io::Write as _,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use stepgate::{
    access::{
        Action, Assurance, Attempt, Enforcer, ExecutionContext, Fact, IssuerName, ItemId, Operation, PartitionKey,
        PermissionMode, Subject, WorkloadKind,
    },
    audit::{
        self, Anchors, Answer, Asked, Config, Credential, Durability, Entry, Evidence, Journal, Phase, Question, Range,
        Ruling, Upstream, Verdict, Who,
    },
    clock::Clock,
    policy::{Clause, ClauseKind, Scope},
};
use tokio::{task::JoinSet, time::Instant as Moment};

const RATES: [u32; 2] = [300, 3_000];
/// How many append at once, each the next record when the last is written.
const CROWDS: [u32; 4] = [1, 10, 100, 1_000];
/// A log of this many bytes is verified.
const VERIFIED: u64 = 1 << 30;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let parent = arguments.next().unwrap_or_else(|| ".".to_owned());
    let seconds = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(20);
    let directory = tempfile::tempdir_in(parent).expect("a directory on the disk");
    println!("{:<34} {:>8} {:>9} {:>9} {:>9} {:>12}", "", "records", "p50 ms", "p99 ms", "max ms", "syncs/record");
    let bare = bare(directory.path(), Duration::from_secs(5));
    row("bare: 1.5 KB written and synced", bare, None);
    for rate in RATES {
        paced(&directory.path().join(rate.to_string()), rate, seconds).await;
    }
    for durability in [Durability::Fsync, Durability::Write] {
        for together in CROWDS {
            let name = format!("{durability:?}, {together} at once").to_lowercase();
            crowd(&directory.path().join(&name), &name, durability, together, Duration::from_secs(3)).await;
        }
    }
    verified(&directory.path().join("verified")).await;
}

/// As many records as `together` who append without a pause can write in this time.
async fn crowd(directory: &Path, name: &str, durability: Durability, together: u32, time: Duration) {
    let config = Config { durability, ..Config::in_directory(directory) };
    let journal = Arc::new(Journal::open(config, Anchors::default(), Clock::System).expect("a log"));
    let mut crowd = JoinSet::new();
    for n in 0..together {
        let journal = Arc::clone(&journal);
        crowd.spawn(async move {
            let (begun, mut took) = (Instant::now(), Vec::new());
            while begun.elapsed() < time {
                let started = Instant::now();
                journal.append(entry(Phase::Outcome, n)).await.expect("an outcome");
                took.push(started.elapsed());
            }
            took
        });
    }
    let took = crowd.join_all().await.concat();
    let counters = journal.counters();
    journal.close().await.expect("a clean end");
    row(name, took, Some(counters.syncs as f64 / counters.records as f64));
}

/// One write and one sync after another, by nobody but this thread.
fn bare(directory: &Path, time: Duration) -> Vec<Duration> {
    let path = directory.join("bare");
    let mut file = OpenOptions::new().create(true).append(true).open(path).expect("a file");
    let (line, begun) = ([b'x'; 1500], Instant::now());
    let mut took = Vec::new();
    while begun.elapsed() < time {
        let started = Instant::now();
        file.write_all(&line).and_then(|()| file.sync_data()).expect("a sync");
        took.push(started.elapsed());
    }
    took
}

/// Writes at `rate` a second: each appends its intent, and then its outcome. Begun by the clock, whatever the others do.
async fn paced(directory: &Path, rate: u32, seconds: u32) {
    let journal =
        Arc::new(Journal::open(Config::in_directory(directory), Anchors::default(), Clock::System).expect("a log"));
    let start = Moment::now();
    let mut writes = JoinSet::new();
    for n in 0..rate * seconds {
        tokio::time::sleep_until(start + Duration::from_secs(1) * n / rate).await;
        let journal = Arc::clone(&journal);
        writes.spawn(async move {
            let started = Instant::now();
            journal.append(entry(Phase::Intent, n)).await.expect("an intent");
            let intent = started.elapsed();
            let started = Instant::now();
            journal.append(entry(Phase::Outcome, n)).await.expect("an outcome");
            (intent, started.elapsed())
        });
    }
    let took = writes.join_all().await;
    let counters = journal.counters();
    journal.close().await.expect("a clean end");
    let syncs = counters.syncs as f64 / counters.records as f64;
    row(&format!("{rate} writes/s: intent"), took.iter().map(|(intent, _)| *intent).collect(), Some(syncs));
    row(&format!("{rate} writes/s: outcome"), took.iter().map(|(_, outcome)| *outcome).collect(), Some(syncs));
    let both = took.iter().map(|(intent, outcome)| *intent + *outcome).collect();
    row(&format!("{rate} writes/s: both, as a write waits"), both, Some(syncs));
}

fn row(name: &str, mut took: Vec<Duration>, syncs: Option<f64>) {
    took.sort_unstable();
    let at = |share: f64| {
        let index = ((took.len() - 1) as f64 * share) as usize;
        took.get(index).map_or(0.0, |took| took.as_secs_f64() * 1000.0)
    };
    let syncs = syncs.map(|syncs| format!("{syncs:.2}")).unwrap_or_else(|| "1".to_owned());
    println!("{name:<34} {:>8} {:>9.2} {:>9.2} {:>9.2} {syncs:>12}", took.len(), at(0.5), at(0.99), at(1.0));
}

/// Writes a large log without syncing it, and verifies it.
async fn verified(directory: &Path) {
    let config = Config { durability: Durability::Write, ..Config::in_directory(directory) };
    let journal = Arc::new(Journal::open(config, Anchors::default(), Clock::System).expect("a log"));
    let mut n = 0;
    while size(directory) < VERIFIED {
        let mut appends = JoinSet::new();
        for _ in 0..4096 {
            n += 1;
            let journal = Arc::clone(&journal);
            appends.spawn(async move { journal.append(entry(Phase::Outcome, n)).await.expect("a record") });
        }
        appends.join_all().await;
    }
    journal.close().await.expect("a clean end");
    let bytes = size(directory);
    for pass in ["first", "second"] {
        let started = Instant::now();
        let report = audit::verify(directory, &Evidence::default(), Range::ALL).expect("a log");
        let took = started.elapsed().as_secs_f64();
        assert!(report.ok, "{report:?}");
        let speed = bytes as f64 / 1e6 / took;
        println!(
            "verify, {pass} pass: {} records, {} MB in {took:.2} s: {speed:.0} MB/s",
            report.records,
            bytes / 1_000_000
        );
    }
}

fn size(directory: &Path) -> u64 {
    let files = directory.read_dir().expect("a directory").flatten();
    files.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum()
}

/// An upsert as an HTTP Task sends it, with everything that is known of it.
fn entry(phase: Phase, n: u32) -> Entry {
    let partition_key: PartitionKey = r#"["t1"]"#.parse().expect("a key");
    let mut entry = Entry::new(phase, format!("019a8c1e-8f5b-7c60-b5a5-{n:012x}"));
    entry.peer = Some(SocketAddr::from(([10, 0, 0, 1], 40_000)));
    entry.who = Some(Who {
        subject: Subject { issuer: IssuerName::new("cognito"), id: "7h2kexample".into() },
        client: Some("7h2kexample".into()),
        kind: Some(WorkloadKind::Cognito),
    });
    entry.context = ExecutionContext {
        run: None,
        execution: Some(claimed(
            "arn:aws:states:us-east-1:111122223333:execution:Fulfil:run-1".parse().expect("an ARN"),
        )),
        state: Some(claimed("SaveOrder".parse().expect("a state"))),
        entered: Some(claimed("2026-11-22T19:29:22.000Z".into())),
        attempt: Some(claimed(Attempt(0))),
        redrive: Some(claimed(0)),
        item: None,
    };
    entry.question = Question {
        action: Some(Asked::Action(Action::Operation(Operation::ItemsUpsert))),
        container: Some("shop/orders".parse().expect("a container")),
        partition_key: Some(partition_key.clone()),
        item: Some(ItemId::new("o-1001").expect("an id")),
        batch: Vec::new(),
    };
    let clause = Clause { kind: ClauseKind::Grant, name: "order-writer".into(), index: 0, place: "shop.yaml:9".into() };
    entry.decision = Some(Ruling {
        verdict: Verdict::Allow,
        clauses: Arc::new([clause]),
        revision: Some("sha256:6d467af2a228e88c1d1ee82de83756ede05e13bd92e8229a67e7ea1fffd3db40".into()),
    });
    entry.bytes_in = 1200;
    if phase == Phase::Outcome {
        entry.credential = Some(Credential {
            scope: Scope {
                container: "shop/orders".parse().expect("a container"),
                partition_key: Some(partition_key),
                mode: PermissionMode::All,
            },
            permission_id: Some("cognito~7h2kexample~orders".into()),
            enforced_by: Enforcer::Cosmos,
        });
        entry.upstream = Some(Upstream {
            status: Some(200),
            substatus: Some(0),
            activity_id: Some(Arc::clone(&entry.request_id)),
            region: Some("West Europe".into()),
            attempts: 1,
            request_units: 10.29,
            latency: Duration::from_millis(7),
        });
        entry.answer = Some(Answer { status: 200, error: None, duration: Duration::from_millis(9) });
        entry.bytes_out = 1200;
    }
    entry
}

fn claimed<T>(value: T) -> Fact<T> {
    Fact { value, assurance: Assurance::Claimed }
}
