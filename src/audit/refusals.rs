//! Refusals of callers nobody knows: anyone can cause them at any rate, so they get a queue, a rate and a share of the
//! disk of their own, and the rest are counted.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::record::Suppressed;
use crate::{audit::record::Entry, clock::Timestamp};

/// Refusals that may wait for the next commit.
const WAITING: usize = 256;

/// The gate before the log.
#[derive(Debug)]
pub(super) struct Refusals {
    per_second: f64,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    waiting: VecDeque<(Timestamp, Entry)>,
    /// What the token bucket holds; it never holds more than one second's worth.
    tokens: f64,
    filled: Timestamp,
    suppressed: Option<Suppressed>,
}

impl Refusals {
    pub(super) fn new(per_second: u32, now: Timestamp) -> Self {
        let per_second = f64::from(per_second);
        let inner = Inner { waiting: VecDeque::new(), tokens: per_second, filled: now, suppressed: None };
        Self { per_second, inner: Mutex::new(inner) }
    }

    /// Lets a refusal in, or counts it.
    pub(super) fn offer(&self, entry: Entry, now: Timestamp) {
        let mut inner = self.inner();
        let earned = now.since(inner.filled).as_secs_f64() * self.per_second;
        inner.tokens = (inner.tokens + earned).min(self.per_second);
        inner.filled = now;
        if inner.tokens >= 1.0 && inner.waiting.len() < WAITING {
            inner.tokens -= 1.0;
            inner.waiting.push_back((now, entry));
        } else {
            inner.suppress(1, now);
        }
    }

    /// Counts refusals that were let in and then not written.
    pub(super) fn suppress(&self, count: u64, since: Timestamp) {
        self.inner().suppress(count, since);
    }

    /// Takes what waits.
    pub(super) fn take(&self) -> VecDeque<(Timestamp, Entry)> {
        std::mem::take(&mut self.inner().waiting)
    }

    /// Takes the count.
    pub(super) fn take_suppressed(&self) -> Option<Suppressed> {
        self.inner().suppressed.take()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Every change under the lock is complete before anything could panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn suppress(&mut self, count: u64, since: Timestamp) {
        if count == 0 {
            return;
        }
        let suppressed = self.suppressed.get_or_insert(Suppressed { count: 0, since });
        suppressed.count += count;
        suppressed.since = suppressed.since.min(since);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::audit::record::Phase;

    #[test]
    fn what_is_over_the_rate_is_counted() {
        let start = Timestamp::from_secs(100);
        let refusals = Refusals::new(10, start);
        for n in 0..1000 {
            refusals.offer(Entry::new(Phase::Refusal, n.to_string()), start);
        }
        assert_eq!(refusals.take().len(), 10);
        assert_eq!(refusals.take_suppressed(), Some(Suppressed { count: 990, since: start }));
        assert_eq!(refusals.take_suppressed(), None);
        refusals.offer(Entry::new(Phase::Refusal, "later"), start.plus(Duration::from_millis(100)));
        assert_eq!(refusals.take().len(), 1, "a tenth of a second earns one");
    }

    #[test]
    fn a_full_queue_counts_too() {
        let refusals = Refusals::new(10_000, Timestamp::from_secs(100));
        for n in 0..1000 {
            refusals.offer(Entry::new(Phase::Refusal, n.to_string()), Timestamp::from_secs(100));
        }
        assert_eq!(refusals.take().len(), WAITING);
        assert_eq!(refusals.take_suppressed().map(|s| s.count), Some(1000 - WAITING as u64));
    }
}
