//! Whether a region answers well, and who goes to look when it did not.
//!
//! Closed: requests go there. When of the last ten seconds fewer than half succeeded, and there were a few, it opens: requests go
//! elsewhere for a while. Then one request is let through as a probe; it closes the breaker again, or opens it for twice as long.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::clock::Clock;

/// How far back outcomes count, in seconds.
const WINDOW: u64 = 10;
/// Fewest failures in that time that open it: one broken connection is no sign of anything.
const FEWEST: u32 = 5;
/// How long it stays open at first; twice as long after each probe that failed.
const FIRST_REST: Duration = Duration::from_secs(5);
/// The longest it stays open without a probe.
const LONGEST_REST: Duration = Duration::from_secs(60);
/// How long a probe has; then another may go.
const PROBE: Duration = Duration::from_secs(15);

/// The breaker of one region.
#[derive(Debug)]
pub(super) struct Breaker {
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    seconds: VecDeque<Second>,
}

/// What came back in one second.
#[derive(Debug, Default)]
struct Second {
    at: u64,
    good: u32,
    bad: u32,
}

#[derive(Clone, Copy, Debug, Default)]
enum Phase {
    #[default]
    Closed,
    Open {
        until: Duration,
        rest: Duration,
    },
    Probing {
        since: Duration,
        rest: Duration,
    },
}

/// How a breaker stands, in a word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BreakerState {
    /// Requests go there.
    Closed,
    /// Left alone for a while.
    Open,
    /// One request is looking.
    HalfOpen,
}

impl BreakerState {
    /// The word in `/status`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

impl Breaker {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, state: Mutex::default() }
    }

    /// Whether a request may go there now. After a rest the first one that may be a probe is let through as one.
    pub(super) fn admits(&self, may_probe: bool) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (due, rest) = match state.phase {
            Phase::Closed => return true,
            Phase::Open { until, rest } => (until, rest),
            Phase::Probing { since, rest } => (since + PROBE, rest),
        };
        let now = self.clock.running();
        if now < due {
            return false;
        }
        if may_probe {
            state.phase = Phase::Probing { since: now, rest };
        }
        may_probe
    }

    /// Counts what came back.
    pub(super) fn heard(&self, good: bool) {
        let now = self.clock.running();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.phase = match (state.phase, good) {
            (Phase::Closed, _) => {
                state.count(now.as_secs(), good);
                if !good && state.is_bad() {
                    Phase::Open { until: now + FIRST_REST, rest: FIRST_REST }
                } else {
                    Phase::Closed
                }
            }
            (Phase::Probing { .. }, true) => {
                state.seconds.clear();
                Phase::Closed
            }
            // One that was sent there after the rest because everything was open.
            (Phase::Open { until, .. }, true) if now >= until => {
                state.seconds.clear();
                Phase::Closed
            }
            (Phase::Probing { rest, .. }, false) => {
                let rest = (rest * 2).min(LONGEST_REST);
                Phase::Open { until: now + rest, rest }
            }
            // What left before it opened says nothing new.
            (open @ Phase::Open { .. }, _) => open,
        };
    }

    pub(super) fn state(&self) -> BreakerState {
        match self.state.lock().unwrap_or_else(PoisonError::into_inner).phase {
            Phase::Closed => BreakerState::Closed,
            Phase::Open { .. } => BreakerState::Open,
            Phase::Probing { .. } => BreakerState::HalfOpen,
        }
    }
}

impl State {
    fn count(&mut self, second: u64, good: bool) {
        if self.seconds.back().is_none_or(|last| last.at != second) {
            self.seconds.retain(|of| of.at + WINDOW > second);
            self.seconds.push_back(Second { at: second, ..Second::default() });
        }
        if let Some(last) = self.seconds.back_mut() {
            let count = if good { &mut last.good } else { &mut last.bad };
            *count = count.saturating_add(1);
        }
    }

    fn is_bad(&self) -> bool {
        let (good, bad) = self
            .seconds
            .iter()
            .fold((0_u64, 0_u64), |(good, bad), second| (good + u64::from(second.good), bad + u64::from(second.bad)));
        bad >= u64::from(FEWEST) && bad > good
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, Timestamp};

    fn breaker() -> (Breaker, ManualClock) {
        let clock = ManualClock::new(Timestamp::from_secs(1_795_375_762));
        (Breaker::new(Clock::Manual(clock.clone())), clock)
    }

    fn fail(breaker: &Breaker, times: u32) {
        (0..times).for_each(|_| breaker.heard(false));
    }

    #[test]
    fn it_opens_when_most_of_the_last_seconds_failed() {
        let (breaker, clock) = breaker();
        fail(&breaker, 4);
        assert!(breaker.admits(false));
        clock.advance(Duration::from_secs(11));
        fail(&breaker, 4);
        assert!(breaker.admits(false), "what is long ago does not count");
        (0..20).for_each(|_| breaker.heard(true));
        fail(&breaker, 10);
        assert!(breaker.admits(false), "most succeeded");
        fail(&breaker, 10);
        assert!(!breaker.admits(true));
        assert_eq!(breaker.state(), BreakerState::Open);
        breaker.heard(true);
        assert!(!breaker.admits(true), "what left before it opened says nothing new");
        clock.advance(Duration::from_secs(5));
        breaker.heard(true);
        assert_eq!(breaker.state(), BreakerState::Closed, "what was sent there all the same came back");
    }

    #[test]
    fn no_success_opens_it() {
        let (breaker, clock) = breaker();
        (0..20).for_each(|_| breaker.heard(true));
        clock.advance(Duration::from_secs(5));
        fail(&breaker, 10);
        clock.advance(Duration::from_secs(6));
        breaker.heard(true);
        assert!(breaker.admits(false), "those that succeeded are long ago, but this did as well");
        fail(&breaker, 1);
        assert!(!breaker.admits(true));
    }

    #[test]
    fn one_request_looks_after_a_rest_that_grows() {
        let (breaker, clock) = breaker();
        fail(&breaker, 5);
        let mut rest = 5;
        for _ in 0..6 {
            clock.advance(Duration::from_secs(rest - 1));
            assert!(!breaker.admits(true), "{rest}");
            clock.advance(Duration::from_secs(1));
            assert!(!breaker.admits(false), "not with a request that may not be lost");
            assert!(breaker.admits(true));
            assert_eq!(breaker.state(), BreakerState::HalfOpen);
            assert!(!breaker.admits(true), "one at a time");
            breaker.heard(false);
            rest = (rest * 2).min(60);
        }
        clock.advance(Duration::from_secs(60));
        assert!(breaker.admits(true));
        breaker.heard(true);
        assert_eq!(breaker.state(), BreakerState::Closed);
        fail(&breaker, 4);
        assert!(breaker.admits(false), "it begins anew");
    }

    #[test]
    fn a_probe_that_never_comes_back_is_replaced() {
        let (breaker, clock) = breaker();
        fail(&breaker, 5);
        clock.advance(Duration::from_secs(5));
        assert!(breaker.admits(true));
        clock.advance(Duration::from_secs(14));
        assert!(!breaker.admits(true));
        clock.advance(Duration::from_secs(1));
        assert!(breaker.admits(true));
    }
}
