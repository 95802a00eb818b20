//! How many at once: additive increase while all is well, multiplicative decrease when it is not.

use std::time::Duration;

use super::{Signal, Work};

/// How many a gate lets through before anything is known.
const FIRST: f64 = 64.0;
/// A gate never closes further: with none through, nothing would be learned.
const FEWEST: f64 = 4.0;
/// What is left of the limit after a sign of pressure.
const DECREASE: f64 = 0.8;
/// The least time between two decreases: those who are through already say the same thing all at once.
const APART: Duration = Duration::from_millis(100);
/// Of a limit that is not used nothing can be learned: it grows only from this share of use on.
const USED: f64 = 0.75;

/// How many may be through, and what that rests on.
#[derive(Debug)]
pub(super) struct Pace {
    limit: f64,
    most: f64,
    decreased: Option<Duration>,
    usual: [Usual; 3],
}

/// How long one kind of work usually takes, and takes of late; in seconds.
#[derive(Clone, Copy, Debug, Default)]
struct Usual {
    long: f64,
    short: f64,
    seen: u32,
}

impl Usual {
    /// Whether it takes much longer of late: more than twice as long, and by more than a tenth of a second, which no jitter does.
    fn slows(&mut self, took: Duration) -> bool {
        const SETTLED: u32 = 50;
        let took = took.as_secs_f64();
        self.seen = self.seen.saturating_add(1);
        if self.seen == 1 {
            (self.long, self.short) = (took, took);
        }
        self.long += (took - self.long) / 500.0_f64.min(f64::from(self.seen));
        self.short += (took - self.short) / 10.0;
        self.seen > SETTLED && self.short > 2.0 * self.long + 0.1
    }
}

impl Pace {
    pub(super) fn new(most: usize) -> Self {
        let most = u32::try_from(most).map_or(f64::from(u32::MAX), f64::from);
        Self { limit: FIRST.min(most), most, decreased: None, usual: [Usual::default(); 3] }
    }

    /// How many may be through.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 1 to `most`, which was a usize")]
    pub(super) fn limit(&self) -> usize {
        self.limit as usize
    }

    /// Takes in what became of one of `in_flight` requests.
    pub(super) fn hear(&mut self, signal: Signal, work: Work, in_flight: usize, now: Duration) {
        let is_pressed = match signal {
            Signal::Nothing => return,
            Signal::Throttled | Signal::Stuck => true,
            Signal::Answered(took) => self.usual.get_mut(work as usize).is_some_and(|usual| usual.slows(took)),
        };
        if is_pressed {
            if self.decreased.is_none_or(|at| now >= at + APART) {
                self.limit = (self.limit * DECREASE).max(FEWEST.min(self.most));
                self.decreased = Some(now);
            }
        } else if u32::try_from(in_flight).map_or(true, |in_flight| f64::from(in_flight) >= self.limit * USED) {
            self.limit = (self.limit + 1.0 / self.limit).min(self.most);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn well(pace: &mut Pace, times: u32, in_flight: usize) {
        for _ in 0..times {
            pace.hear(Signal::Answered(5 * MS), Work::Point, in_flight, Duration::ZERO);
        }
    }

    #[test]
    fn it_grows_while_it_is_used_and_all_is_well() {
        let mut pace = Pace::new(1_000);
        well(&mut pace, 1_000, 10);
        assert_eq!(pace.limit(), 64, "what is not used teaches nothing");
        well(&mut pace, 64, 64);
        assert_eq!(pace.limit(), 64 + 1 - 1, "one more for each round, about");
        well(&mut pace, 100_000, 1_000);
        assert!((300..=1_000).contains(&pace.limit()), "{}", pace.limit());
        assert_eq!(Pace::new(1).limit(), 1);
    }

    #[test]
    fn it_shrinks_once_for_what_comes_all_at_once() {
        let mut pace = Pace::new(1_000);
        for _ in 0..60 {
            pace.hear(Signal::Throttled, Work::Point, 60, MS);
        }
        assert_eq!(pace.limit(), 51);
        for second in 1..60 {
            pace.hear(Signal::Stuck, Work::Point, 60, Duration::from_secs(second));
        }
        assert_eq!(pace.limit(), 4);
        pace.hear(Signal::Nothing, Work::Point, 60, Duration::from_secs(100));
        assert_eq!(pace.limit(), 4);
    }

    #[test]
    fn it_shrinks_when_the_same_work_takes_much_longer() {
        let mut pace = Pace::new(1_000);
        well(&mut pace, 200, 1);
        for n in 0..50 {
            // Another kind of work has a time of its own.
            pace.hear(Signal::Answered(900 * MS), Work::Long, 1, Duration::from_secs(n));
        }
        assert_eq!(pace.limit(), 64);
        for n in 100..120 {
            pace.hear(Signal::Answered(900 * MS), Work::Point, 64, Duration::from_secs(n));
        }
        assert!(pace.limit() < 64, "{}", pace.limit());
    }
}
