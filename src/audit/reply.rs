//! What those hear who wait for a record.
//!
//! Waking a task from another thread costs a system call. So of all whose records were written together one is told, and tells the
//! others: within their own runtime that costs next to nothing.

use std::mem;

use tokio::sync::oneshot;

use super::{journal::Unavailable, record::Sequence};

type Written = Result<Sequence, Unavailable>;

/// Somebody who waits for a record.
#[derive(Debug)]
pub(super) struct Waiter(oneshot::Sender<Reply>);

/// Where the one hears it.
#[derive(Debug)]
pub(super) struct Waiting(oneshot::Receiver<Reply>);

#[derive(Debug)]
struct Reply {
    written: Written,
    _others: Others,
}

/// Those who are told when this is dropped: by the one who was told of them, or at once where that one waits no longer.
#[derive(Default, Debug)]
struct Others(Vec<(Waiter, Sequence)>);

impl Drop for Others {
    fn drop(&mut self) {
        for (waiter, sequence) in mem::take(&mut self.0) {
            waiter.tell(Ok(sequence));
        }
    }
}

/// One who waits, and where it hears.
pub(super) fn waiter() -> (Waiter, Waiting) {
    let (told, hears) = oneshot::channel();
    (Waiter(told), Waiting(hears))
}

impl Waiter {
    /// Whether nobody waits any longer.
    pub(super) fn is_gone(&self) -> bool {
        self.0.is_closed()
    }

    /// Tells this one alone.
    pub(super) fn tell(self, written: Written) {
        let _ = self.0.send(Reply { written, _others: Others::default() });
    }
}

/// Tells all whose records were written together.
pub(super) fn tell_all(mut waiters: Vec<(Waiter, Sequence)>) {
    if let Some((first, sequence)) = waiters.pop() {
        let _ = first.0.send(Reply { written: Ok(sequence), _others: Others(waiters) });
    }
}

impl Waiting {
    /// Resolves when it is known what became of the record.
    pub(super) async fn written(self) -> Written {
        self.0.await.map_or(Err(Unavailable::Closed), |reply| reply.written)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn three() -> (Vec<(Waiter, Sequence)>, Vec<Waiting>) {
        (1..=3).map(|number| (waiter(), Sequence(number))).map(|((tell, hear), at)| ((tell, at), hear)).unzip()
    }

    fn heard(waiting: Waiting) -> Option<u64> {
        waiting.written().now_or_never().map(|written| written.unwrap().0)
    }

    #[test]
    fn one_is_told_and_tells_the_others() {
        let (waiters, mut waiting) = three();
        tell_all(waiters);
        let last = waiting.pop().unwrap();
        let first = waiting.remove(0);
        assert_eq!(heard(last), Some(3), "who was told");
        assert_eq!(heard(first), Some(1));
        assert_eq!(waiting.pop().and_then(heard), Some(2));
    }

    #[test]
    fn the_others_hear_it_when_the_one_waits_no_longer() {
        let (waiters, mut waiting) = three();
        waiting.pop();
        tell_all(waiters);
        assert_eq!(waiting.into_iter().filter_map(heard).collect::<Vec<_>>(), [1, 2]);

        let (waiters, mut waiting) = three();
        tell_all(waiters);
        waiting.pop();
        assert_eq!(waiting.into_iter().filter_map(heard).collect::<Vec<_>>(), [1, 2], "told, and left before it heard");
    }

    #[test]
    fn a_writer_that_is_gone_has_closed() {
        let (waiter, waiting) = waiter();
        drop(waiter);
        assert!(matches!(waiting.written().now_or_never(), Some(Err(Unavailable::Closed))));
    }
}
