//! What it costs to say whose a token is: one that was verified before, one that was not, and one that is refused.

use std::{
    cell::LazyCell,
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::HeaderMap;
use serde_json::json;
use stepgate::transport::Transport;
use stepgate_bench_growth::{Algorithm, Issuer, Room, Upstream, claims, request};
use tokio::runtime::Runtime;

/// How many tokens a room sees before another takes its place, which has seen none of them.
const UNSEEN: usize = 500;

/// Tokens in turn are this many apart, so that no cache of a processor foresees the next. Prime, so that each has its turn.
const STRIDE: usize = 7_919;

/// An issuer, and where rooms that trust it are opened.
struct House {
    runtime: Runtime,
    transport: Transport,
    issuer: Issuer,
}

impl House {
    fn new() -> Self {
        Self::of(Issuer::new())
    }

    fn of(issuer: Issuer) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { runtime, transport: Transport::new(None).expect("a client"), issuer }
    }

    fn room(&self, keys: &Upstream) -> Room {
        self.runtime.block_on(Room::open(keys, &self.transport))
    }

    /// As many requests as `tokens` has, each with a token that no other has.
    fn requests(&self, algorithm: Algorithm, tokens: usize) -> Vec<HeaderMap> {
        (0..tokens).map(|number| self.issuer.request(algorithm, &claims(number))).collect()
    }

    /// The time for judging each of `requests`; all must pass, or none.
    fn judge<'a>(&self, room: &Room, requests: impl Iterator<Item = &'a HeaderMap>, pass: bool) -> Duration {
        self.runtime.block_on(async {
            let started = Instant::now();
            for request in requests {
                assert_eq!(black_box(room.identity.authenticate(request).await).is_ok(), pass);
            }
            started.elapsed()
        })
    }

    /// The time for judging `count` tokens that were never seen.
    fn judge_unseen(&self, keys: &Upstream, requests: &[HeaderMap], mut count: usize) -> Duration {
        let mut took = Duration::ZERO;
        while count > 0 {
            let now = count.min(requests.len());
            took += self.judge(&self.room(keys), requests.iter().take(now), true);
            count -= now;
        }
        took
    }
}

/// Tokens that were verified before: one beside others, and all in turn.
fn seen(criterion: &mut Criterion) {
    let house = House::new();
    let keys = Upstream::start(&house.issuer.jwks(0));
    let one = house.issuer.request(Algorithm::RS256, &claims(usize::MAX));
    // Their signatures take longer to make than all the rest, so they are made only if the command line asks for these benches.
    let all = LazyCell::new(|| house.requests(Algorithm::ES256, 100_000));
    let mut group = criterion.benchmark_group("seen");
    for count in [1, 10, 100, 1_000, 10_000, 100_000] {
        let room = LazyCell::new(|| {
            let room = house.room(&keys);
            house.judge(&room, all.iter().take(count).chain([&one]), true);
            room
        });
        group.bench_function(BenchmarkId::new("one beside", count), |b| {
            let room: &Room = &room;
            b.iter_custom(|times| house.judge(room, (0..times).map(|_| &one), true));
        });
        let mut turn = 0..;
        group.bench_function(BenchmarkId::new("in turn", count), |b| {
            let (room, all): (&Room, &[HeaderMap]) = (&room, &all);
            b.iter_custom(|times| {
                let turns = turn.by_ref().take(times as usize);
                house.judge(room, turns.map(|turn: usize| &all[turn * STRIDE % count]), true)
            });
        });
    }
    group.finish();
}

/// Tokens that were never seen, by their algorithm.
fn unseen(criterion: &mut Criterion) {
    let house = House::new();
    let keys = Upstream::start(&house.issuer.jwks(0));
    let mut group = criterion.benchmark_group("unseen");
    for algorithm in [Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA] {
        let requests = house.requests(algorithm, UNSEEN);
        group.bench_function(algorithm.as_str(), |b| {
            b.iter_custom(|times| house.judge_unseen(&keys, &requests, times as usize));
        });
    }
    group.finish();
}

/// The same, and a token seen before, by how many keys the issuer publishes.
fn key_sets(criterion: &mut Criterion) {
    let house = House::new();
    let requests = house.requests(Algorithm::RS256, UNSEEN);
    let mut group = criterion.benchmark_group("keys");
    for count in [4, 10, 100, 500] {
        let keys = Upstream::start(&house.issuer.jwks(count - 4));
        group.bench_function(BenchmarkId::new("unseen", count), |b| {
            b.iter_custom(|times| house.judge_unseen(&keys, &requests, times as usize));
        });
        let room = house.room(&keys);
        group.bench_function(BenchmarkId::new("seen", count), |b| {
            b.iter_custom(|times| house.judge(&room, requests.iter().take(1).cycle().take(times as usize), true));
        });
    }
    group.finish();
}

/// Tokens that are refused, however often they come.
fn refused(criterion: &mut Criterion) {
    let (issuer, rogue) = Issuer::and_a_rogue();
    let house = House::of(issuer);
    let keys = Upstream::start(&house.issuer.jwks(0));
    let room = house.room(&keys);
    let signed = |claims| house.issuer.request(Algorithm::RS256, &claims);
    let changed = |name: &str, value| {
        let mut claims = claims(0);
        claims[name] = value;
        claims
    };
    let good = house.issuer.token(Algorithm::RS256, "RSA", &claims(0));
    let (message, signature) = good.rsplit_once('.').expect("a signature");
    let forged = |number: usize| {
        // Another workload's claims under a signature that was made for the first.
        let token = house.issuer.token(Algorithm::ES256, "RSA", &claims(number)).replace("ES256", "RS256");
        let header = message.split_once('.').expect("claims").0;
        let claims = token.split('.').nth(1).expect("claims").to_owned();
        request(&format!("{header}.{claims}.{signature}"))
    };
    let rows: [(&str, Vec<HeaderMap>); 8] = [
        ("forged", (1..1_000).map(forged).collect()),
        ("of a rogue key", vec![request(&rogue.token(Algorithm::RS256, "RSA", &claims(0)))]),
        ("of an unknown key", vec![request(&rogue.token(Algorithm::RS256, "rogue", &claims(0)))]),
        (
            "of ever other unknown keys",
            (0..10_000).map(|n| request(&rogue.token(Algorithm::ES256, &format!("rogue-{n}"), &claims(0)))).collect(),
        ),
        ("of an unknown issuer", vec![signed(changed("iss", json!("https://rogue.example")))]),
        ("ended", vec![signed(changed("exp", json!(0)))]),
        ("for another", vec![signed(changed("aud", json!("another")))]),
        ("a human's", vec![signed(changed("email", json!("a@example.org")))]),
    ];
    let mut group = criterion.benchmark_group("refused");
    for (name, requests) in &rows {
        let mut turn = requests.iter().cycle();
        group.bench_function(*name, |b| {
            b.iter_custom(|times| house.judge(&room, (0..times).filter_map(|_| turn.next()), false));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(2)).sample_size(50);
    targets = seen, unseen, key_sets, refused
}
criterion_main!(benches);
