use std::num::NonZeroU32;

use super::*;
use crate::clock::{ManualClock, Timestamp};

struct Bench {
    hand: ManualClock,
    limits: Limits,
}

impl Bench {
    fn new() -> Self {
        let hand = ManualClock::new(Timestamp::from_secs(1_000));
        Self { limits: Limits::new(Clock::Manual(hand.clone())), hand }
    }

    fn wait(&self, millis: u64) {
        self.hand.advance(Duration::from_millis(millis));
    }
}

fn binding(written: &str) -> BindingLimits {
    BindingLimits::none("r", &"p.yaml:1".into(), written)
}

fn requests(limit: u32) -> Arc<BindingLimits> {
    Arc::new(BindingLimits { requests_per_second: NonZeroU32::new(limit), ..binding("r") })
}

fn units(limit: u32) -> Arc<BindingLimits> {
    Arc::new(BindingLimits { request_units_per_second: NonZeroU32::new(limit), ..binding("u") })
}

#[test]
fn the_units_of_an_hour_come_back_evenly() {
    let limits = BindingLimits { request_units_per_hour: NonZeroU32::new(3600), ..binding("h") };
    let (bench, limits) = (Bench::new(), Arc::new(limits));
    bench.limits.enter(&limits).unwrap().charge(3600.0 + 9.0);
    let exceeded = bench.limits.enter(&limits).unwrap_err();
    let wait = Duration::from_millis(9_001);
    assert_eq!((exceeded.limit, exceeded.retry_after), (Limit::RequestUnitsAnHour(3600), Some(wait)));
    bench.wait(9_001);
    bench.limits.enter(&limits).unwrap();
}

#[test]
fn requests_come_at_the_rate_and_the_wait_is_true() {
    let (bench, limits) = (Bench::new(), requests(10));
    for _ in 0..10 {
        bench.limits.enter(&limits).unwrap();
    }
    for _ in 0..3 {
        let exceeded = bench.limits.enter(&limits).unwrap_err();
        assert_eq!((exceeded.limit, exceeded.retry_after), (Limit::Requests(10), Some(Duration::from_millis(100))));
    }
    bench.wait(99);
    assert_eq!(bench.limits.enter(&limits).unwrap_err().retry_after, Some(Duration::from_millis(1)));
    bench.wait(1);
    bench.limits.enter(&limits).unwrap();
    bench.limits.enter(&limits).unwrap_err();
    bench.wait(60_000);
    assert_eq!(
        (0..100).filter(|_| bench.limits.enter(&limits).is_ok()).count(),
        10,
        "what is not used is not saved up"
    );
}

#[test]
fn a_debt_wears_off_before_the_next_request_goes() {
    let (bench, limits) = (Bench::new(), units(400));
    bench.limits.enter(&limits).unwrap().charge(1_400.0);
    let exceeded = bench.limits.enter(&limits).unwrap_err();
    assert_eq!((exceeded.limit, exceeded.retry_after), (Limit::RequestUnits(400), Some(Duration::from_millis(2_501))));
    bench.wait(2_500);
    bench.limits.enter(&limits).unwrap_err();
    bench.wait(1);
    let admission = bench.limits.enter(&limits).unwrap();
    for nonsense in [f64::NAN, f64::INFINITY, -1e9, 0.0] {
        admission.charge(nonsense);
    }
    bench.limits.enter(&limits).unwrap();
    bench.wait(60_000);
    bench.limits.enter(&limits).unwrap().charge(399.0);
    bench.limits.enter(&limits).unwrap().charge(2.0);
    bench.limits.enter(&limits).unwrap_err();
}

#[test]
fn a_place_is_held_until_the_admission_ends() {
    let bench = Bench::new();
    let limits = Arc::new(BindingLimits { concurrency: NonZeroU32::new(2), ..binding("c") });
    let (first, _second) = (bench.limits.enter(&limits).unwrap(), bench.limits.enter(&limits).unwrap());
    let exceeded = bench.limits.enter(&limits).unwrap_err();
    assert_eq!((exceeded.limit, exceeded.retry_after), (Limit::Concurrency(2), None));
    assert_eq!(
        exceeded.to_string(),
        "the limit of 2 requests in flight for all workloads of a binding of `r` is reached"
    );
    drop(first);
    bench.limits.enter(&limits).unwrap();
}

#[test]
fn a_refused_request_counts_for_nothing() {
    let bench = Bench::new();
    let limits =
        BindingLimits { requests_per_second: NonZeroU32::new(1), concurrency: NonZeroU32::new(1), ..binding("b") };
    let limits = Arc::new(limits);
    let first = bench.limits.enter(&limits).unwrap();
    bench.wait(1_000);
    assert_eq!(bench.limits.enter(&limits).unwrap_err().limit, Limit::Concurrency(1));
    drop(first);
    bench.limits.enter(&limits).unwrap();
    // The place that the refused one had taken is free again.
    assert_eq!(bench.limits.enter(&limits).unwrap_err().limit, Limit::Requests(1));
    bench.wait(1_000);
    bench.limits.enter(&limits).unwrap();
}

#[test]
fn a_meter_outlives_a_reload_and_ends_with_its_numbers() {
    let bench = Bench::new();
    let moved = |limit| {
        let place = BindingLimits { place: "q.yaml:9".into(), ..BindingLimits::clone(&requests(limit)) };
        Arc::new(place)
    };
    bench.limits.enter(&requests(1)).unwrap();
    bench.limits.enter(&moved(1)).unwrap_err();
    bench.limits.enter(&moved(2)).unwrap();
    bench.limits.enter(&units(1)).unwrap();
}

#[test]
fn idle_meters_are_dropped_and_others_kept() {
    let bench = Bench::new();
    let of = |i: usize| Arc::new(BindingLimits { requests_per_second: NonZeroU32::new(1), ..binding(&i.to_string()) });
    let count = || bench.limits.meters.lock().unwrap().of.len();
    let owing = units(1);
    bench.limits.enter(&owing).unwrap().charge(1e6);
    for i in 0..MANY {
        bench.limits.enter(&of(i)).unwrap();
    }
    assert_eq!(count(), MANY + 1, "none is idle yet");
    bench.wait(1_001);
    for i in 0..2 * MANY {
        bench.limits.enter(&of(MANY + i)).unwrap();
    }
    assert!(count() <= 2 * MANY + 2, "{}", count());
    bench.limits.enter(&owing).unwrap_err();
}
