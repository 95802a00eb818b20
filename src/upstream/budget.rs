//! The retry budget: repeats are at most a share of the requests, and a few a second beside.
//!
//! When everything fails at once, every caller repeating its request is what keeps a service down. So a repeat is paid for
//! from a bucket that requests fill. A repeat that the service asked for by naming a wait, and a move to a region where the
//! request has not been, are free: the first is the service's own control, the second bounded by the number of regions.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::clock::Clock;

/// What a request puts in, in repeats.
const SHARE: f64 = 0.2;
/// What a second puts in, in repeats: without requests there would be nothing to repeat with.
const FLOOR: f64 = 10.0;
/// How long the bucket takes to fill by time alone, and thus what it holds.
const WINDOW: Duration = Duration::from_secs(10);

/// The bucket.
#[derive(Debug)]
pub(super) struct Budget {
    clock: Clock,
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    repeats: f64,
    at: Duration,
}

impl Budget {
    /// A full bucket.
    pub(super) fn new(clock: Clock) -> Self {
        let bucket = Bucket { repeats: FLOOR * WINDOW.as_secs_f64(), at: clock.running() };
        Self { clock, bucket: Mutex::new(bucket) }
    }

    /// Counts a request. What the bucket does not hold runs over when somebody pays.
    pub(super) fn deposit(&self) {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner).repeats += SHARE;
    }

    /// Pays for a repeat; `false` when there is not enough left.
    pub(super) fn pay(&self) -> bool {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.running();
        let passed = now.saturating_sub(bucket.at).as_secs_f64();
        bucket.repeats = (bucket.repeats + FLOOR * passed).min(FLOOR * WINDOW.as_secs_f64());
        bucket.at = now;
        let enough = bucket.repeats >= 1.0;
        if enough {
            bucket.repeats -= 1.0;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, Timestamp};

    #[test]
    fn repeats_are_a_share_of_the_requests_and_a_floor() {
        let clock = ManualClock::new(Timestamp::from_secs(1_795_375_762));
        let budget = Budget::new(Clock::Manual(clock.clone()));
        let repeats = || std::iter::repeat_with(|| budget.pay()).take_while(|paid| *paid).count();
        assert_eq!(repeats(), 100);
        for _ in 0..101 {
            budget.deposit();
        }
        assert_eq!(repeats(), 20);
        for _ in 0..10_000 {
            budget.deposit();
        }
        assert_eq!(repeats(), 100, "it holds no more, however many requests there were");
        clock.advance(Duration::from_secs(1));
        assert_eq!(repeats(), 10);
        clock.advance(Duration::from_secs(600));
        assert_eq!(repeats(), 100, "what is not used does not heap up");
    }
}
