//! When the same request may be sent once more, and after how long.
//!
//! The causes are those of Cosmos' own retry tables (REST reference, "HTTP status codes"; the SDKs' policies agree on them).
//! One rule is stepgate's: a write is repeated only where the first had no effect for certain.

use std::time::Duration;

use http::{HeaderMap, StatusCode};

use crate::transport::TransportError;

/// Why a request may be sent again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cause {
    /// 429: not enough request units; the service may say how long to wait.
    Throttled(Option<Duration>),
    /// 449: two writes met in the store, and this one was not done.
    WriteConflict,
    /// 503 by the service itself: guaranteed not to have been processed.
    Unavailable,
    /// 404/1002: the replica has not yet seen what the session token speaks of.
    SessionBehind,
    /// 408, 410, 500, a broken connection or no answer, on a request that changes nothing.
    ReadFailed,
    /// No connection was made; nothing was sent.
    NotConnected,
}

impl Cause {
    /// Why `answer` need not be the last, if so.
    pub(super) fn of_answer(status: StatusCode, headers: &HeaderMap, is_write: bool) -> Option<Self> {
        match (status.as_u16(), number(headers, "x-ms-substatus")) {
            (429, _) => {
                Some(Self::Throttled(number(headers, "x-ms-retry-after-ms").map(u64::from).map(Duration::from_millis)))
            }
            (449, _) => Some(Self::WriteConflict),
            (404, Some(1002)) => Some(Self::SessionBehind),
            (503, _) if is_by_cosmos(headers) => Some(Self::Unavailable),
            (408 | 410 | 500 | 503, _) if !is_write => Some(Self::ReadFailed),
            _ => None,
        }
    }

    /// Why the request may be sent again after `error`, if so.
    pub(super) fn of_error(error: &TransportError, is_write: bool) -> Option<Self> {
        match error {
            TransportError::Connect(_) => Some(Self::NotConnected),
            TransportError::Broken(_) | TransportError::Deadline(_) if !is_write => Some(Self::ReadFailed),
            _ => None,
        }
    }

    /// How often a request is repeated for this cause, counting every repeat it had.
    const fn repeats(self) -> u32 {
        match self {
            Self::Throttled(_) => 9,
            Self::WriteConflict => 5,
            Self::Unavailable | Self::ReadFailed | Self::NotConnected => 3,
            Self::SessionBehind => 2,
        }
    }

    /// The longest wait before the first repeat; it doubles with each.
    const fn first_wait(self) -> Duration {
        match self {
            Self::WriteConflict | Self::SessionBehind => Duration::from_millis(20),
            _ => Duration::from_millis(100),
        }
    }

    /// How long to wait before the next attempt after `attempts`; `None` when there shall be no more. `dice` is anywhere
    /// in 0..=1: waits are spread over the whole range (full jitter), so that callers that failed together do not come
    /// back together.
    pub(super) fn wait(self, attempts: u32, dice: f64) -> Option<Duration> {
        if attempts > self.repeats() {
            return None;
        }
        let doubled = self.first_wait() * 2_u32.pow(attempts.saturating_sub(1));
        let jitter = doubled.min(LONGEST_WAIT).mul_f64(dice);
        match self {
            // What the service asks for is the least; the jitter comes on top, but small.
            Self::Throttled(Some(least)) => Some(least + jitter / 10),
            _ => Some(jitter),
        }
    }
}

/// No backoff is longer, however often it doubled.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Whether Cosmos itself answered, and not a proxy on the way, which cannot know what happened behind it.
fn is_by_cosmos(headers: &HeaderMap) -> bool {
    headers.contains_key("x-ms-activity-id") || headers.contains_key("x-ms-substatus")
}

/// A header that holds a number.
pub(super) fn number(headers: &HeaderMap, name: &str) -> Option<u32> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

/// A number in 0..=1, evenly spread.
pub(super) fn dice() -> f64 {
    let mut bytes = [0; 4];
    // Without randomness (the generator failed) every wait is the longest, which is safe.
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(status: u16, headers: &[(&'static str, &'static str)], is_write: bool) -> Option<Cause> {
        let headers = headers.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect();
        Cause::of_answer(StatusCode::from_u16(status).unwrap(), &headers, is_write)
    }

    #[test]
    fn what_passes_is_repeated_and_writes_only_where_they_had_no_effect() {
        let throttled = Some(Cause::Throttled(Some(Duration::from_millis(12))));
        let session = [("x-ms-substatus", "1002")];
        let by_cosmos = [("x-ms-activity-id", "a")];
        for is_write in [false, true] {
            assert_eq!(cause(429, &[("x-ms-retry-after-ms", "12")], is_write), throttled);
            assert_eq!(cause(429, &[], is_write), Some(Cause::Throttled(None)));
            assert_eq!(cause(449, &[], is_write), Some(Cause::WriteConflict));
            assert_eq!(cause(404, &session, is_write), Some(Cause::SessionBehind));
            assert_eq!(cause(503, &by_cosmos, is_write), Some(Cause::Unavailable));
            for status in [200, 201, 304, 400, 401, 403, 404, 409, 412, 413, 423, 424] {
                assert_eq!(cause(status, &[], is_write), None, "{status}");
            }
        }
        for status in [408, 410, 500, 503] {
            assert_eq!(cause(status, &[], false), Some(Cause::ReadFailed), "{status}");
            assert_eq!(cause(status, &[], true), None, "{status}");
        }
    }

    #[test]
    fn a_write_is_not_repeated_once_it_may_have_left() {
        let broken = TransportError::Broken("reset".into());
        let deadline = TransportError::Deadline(Duration::from_secs(1));
        for error in [broken, deadline] {
            assert_eq!(Cause::of_error(&error, true), None);
            assert_eq!(Cause::of_error(&error, false), Some(Cause::ReadFailed));
        }
        let connect = TransportError::Connect("refused".into());
        assert_eq!(Cause::of_error(&connect, true), Some(Cause::NotConnected));
        assert_eq!(Cause::of_error(&TransportError::TooLarge(1), false), None);
    }

    #[test]
    fn waits_grow_are_spread_and_end() {
        let ms = Duration::from_millis;
        let longest = |attempts| Cause::Unavailable.wait(attempts, 1.0);
        assert_eq!([1, 2, 3, 4].map(longest), [Some(ms(100)), Some(ms(200)), Some(ms(400)), None]);
        assert_eq!(Cause::Unavailable.wait(3, 0.0), Some(ms(0)));
        assert_eq!(Cause::Throttled(None).wait(9, 1.0), Some(LONGEST_WAIT));
        assert_eq!(Cause::Throttled(Some(ms(500))).wait(1, 1.0), Some(ms(510)));
        assert_eq!(Cause::Throttled(Some(ms(500))).wait(1, 0.0), Some(ms(500)));
        assert!((0..100).map(|_| dice()).all(|dice| (0.0..=1.0).contains(&dice)));
    }
}
