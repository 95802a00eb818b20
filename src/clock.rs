//! What time it is. Two real clocks: the system's, and one that a test (or the stand-ins' admin path) moves by hand.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// A point in time, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From milliseconds since the Unix epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// From seconds since the Unix epoch (a JWT NumericDate).
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the Unix epoch.
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// This long after.
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// This long before.
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// How long from `earlier` until this; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// RFC 3339 with milliseconds, in UTC: `2026-11-22T21:24:18.123Z`.
    pub fn rfc3339(self) -> String {
        jiff::Timestamp::from_millisecond(self.0).map(|t| format!("{t:.3}")).unwrap_or_default()
    }

    /// The HTTP date (RFC 9110, section 5.6.7): `Sun, 22 Nov 2026 19:29:22 GMT`. Times before 1970 read as 1970.
    pub fn http_date(self) -> String {
        httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(u64::try_from(self.0).unwrap_or(0)))
    }
}

/// What the running time is counted from.
static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The clock that everything which compares times is given.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The system's clock.
    System,
    /// A clock that stands still until it is moved.
    Manual(ManualClock),
}

impl Clock {
    /// Now.
    pub fn now(&self) -> Timestamp {
        match self {
            #[allow(clippy::disallowed_methods, reason = "the one place that reads the system clock")]
            Self::System => Timestamp(
                i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis())
                    .unwrap_or(i64::MAX),
            ),
            Self::Manual(clock) => clock.now(),
        }
    }

    /// Time that only runs forward, from a beginning of its own: for what measures how long, where the system's clock may be put
    /// back.
    pub fn running(&self) -> Duration {
        match self {
            Self::System => BEGINNING.elapsed(),
            Self::Manual(clock) => clock.running(),
        }
    }
}

/// A clock moved by hand; clones share the time.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<Hands>);

#[derive(Debug)]
struct Hands {
    wall: AtomicI64,
    /// In milliseconds, counted from the same beginning.
    running: AtomicI64,
}

impl ManualClock {
    /// A clock that shows `start`.
    pub fn new(start: Timestamp) -> Self {
        Self(Arc::new(Hands { wall: AtomicI64::new(start.0), running: AtomicI64::new(start.0) }))
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.0.wall.fetch_add(by, Ordering::Relaxed);
        self.0.running.fetch_add(by, Ordering::Relaxed);
    }

    /// Sets the clock, while no time passes.
    pub fn set(&self, to: Timestamp) {
        self.0.wall.store(to.0, Ordering::Relaxed);
    }

    fn now(&self) -> Timestamp {
        Timestamp(self.0.wall.load(Ordering::Relaxed))
    }

    fn running(&self) -> Duration {
        Timestamp(self.0.running.load(Ordering::Relaxed)).since(Timestamp(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_the_protocols_write_them() {
        let t = Timestamp::from_millis(1_795_375_762_123);
        assert_eq!(t.rfc3339(), "2026-11-22T19:29:22.123Z");
        assert_eq!(t.http_date(), "Sun, 22 Nov 2026 19:29:22 GMT");
    }

    #[test]
    fn a_manual_clock_moves_only_by_hand() {
        let hand = ManualClock::new(Timestamp::from_secs(100));
        let clock = Clock::Manual(hand.clone());
        assert_eq!(clock.now(), Timestamp::from_secs(100));
        hand.advance(Duration::from_secs(5));
        assert_eq!(clock.now().since(Timestamp::from_secs(100)), Duration::from_secs(5));
        let running = clock.running();
        hand.set(Timestamp::from_secs(50));
        assert_eq!((clock.now(), clock.running()), (Timestamp::from_secs(50), running));
    }
}
