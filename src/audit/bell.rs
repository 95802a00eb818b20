//! What wakes the writer.
//!
//! A thread that is woken for one record writes one record, and a busy gateway would pay for a switch and a write at every request.
//! So whoever leaves a record first lets those that are ready beside it go first, and then rings for all of them. As long as a turn
//! of the scheduler brings more records, the next one may too. At rest it brings none, and nobody waits for anybody.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

/// Most turns of the scheduler that records come together in.
const MOST_TURNS: usize = 4;

#[derive(Debug, Default)]
pub(super) struct Bell {
    /// The writer, once it rested.
    writer: OnceLock<Thread>,
    /// It was rung since the writer last rested.
    was_rung: AtomicBool,
    /// Records that were left; it only grows.
    left: AtomicUsize,
    /// Somebody is about to ring.
    is_being_rung: AtomicBool,
}

/// Rings when it is dropped: whoever was about to ring may stop waiting at any time.
#[derive(Debug)]
pub(super) struct Ring(pub(super) Arc<Bell>);

impl Drop for Ring {
    fn drop(&mut self) {
        self.0.ring();
    }
}

impl Bell {
    /// Sees to it that the writer looks at what was left for it before.
    pub(super) async fn ring_for_all(self: &Arc<Self>) {
        self.left.fetch_add(1, Ordering::Relaxed);
        if self.is_being_rung.swap(true, Ordering::AcqRel) {
            return;
        }
        let _ring = Ring(Arc::clone(self));
        for _ in 0..MOST_TURNS {
            let before = self.left.load(Ordering::Relaxed);
            tokio::task::yield_now().await;
            if self.left.load(Ordering::Relaxed) == before {
                break;
            }
        }
    }

    /// Lets the writer look now.
    pub(super) fn ring(&self) {
        self.is_being_rung.swap(false, Ordering::AcqRel);
        if !self.was_rung.swap(true, Ordering::AcqRel)
            && let Some(writer) = self.writer.get()
        {
            writer.unpark();
        }
    }

    /// Lets the writer rest until it was rung since the last time, or for so long.
    pub(super) fn rest(&self, most: Duration) {
        self.writer.get_or_init(thread::current);
        let begun = Instant::now();
        while !self.take_ring() {
            let Some(left) = most.checked_sub(begun.elapsed()) else { return };
            thread::park_timeout(left);
        }
    }

    fn take_ring(&self) -> bool {
        self.was_rung.swap(false, Ordering::AcqRel)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn who_comes_second_is_rung_for_by_the_first() {
        let bell = Arc::<Bell>::default();
        let mut first = Box::pin(bell.ring_for_all());
        assert!(first.as_mut().now_or_never().is_none(), "it lets the others go first");
        assert!(bell.ring_for_all().now_or_never().is_some());
        assert!(!bell.take_ring());
        first.await;
        assert!(bell.take_ring());
        assert!(!bell.take_ring(), "once for both");
    }

    #[tokio::test]
    async fn it_is_waited_for_more_while_more_come_and_not_for_ever() {
        let bell = Arc::<Bell>::default();
        let mut first = Box::pin(bell.ring_for_all());
        for _ in 0..MOST_TURNS {
            assert!(first.as_mut().now_or_never().is_none());
            assert!(!bell.take_ring());
            bell.ring_for_all().await;
        }
        assert!(first.as_mut().now_or_never().is_some());
        assert!(bell.take_ring());
    }

    #[tokio::test]
    async fn nobody_waits_when_nobody_comes() {
        let bell = Arc::<Bell>::default();
        let mut first = Box::pin(bell.ring_for_all());
        assert!(first.as_mut().now_or_never().is_none());
        assert!(first.as_mut().now_or_never().is_some());
        assert!(bell.take_ring());
    }

    #[tokio::test]
    async fn who_stops_waiting_has_rung() {
        let bell = Arc::<Bell>::default();
        let mut first = Box::pin(bell.ring_for_all());
        assert!(first.as_mut().now_or_never().is_none());
        drop(first);
        assert!(bell.take_ring());
        assert!(bell.ring_for_all().now_or_never().is_none(), "and the next one rings again");
    }

    #[test]
    fn a_ring_ends_the_rest_whether_it_comes_before_or_after() {
        const LONG: Duration = Duration::from_secs(60);
        let bell = Arc::<Bell>::default();
        let ringer = Arc::clone(&bell);
        let (ended, rests) = std::sync::mpsc::channel();
        let writer = thread::spawn(move || {
            for _ in 0..100 {
                bell.rest(LONG);
                ended.send(()).unwrap();
            }
        });
        for _ in 0..100 {
            ringer.ring();
            rests.recv_timeout(LONG / 2).unwrap();
        }
        writer.join().unwrap();
    }
}
