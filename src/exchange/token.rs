//! The resource token, in the form in which it leaves for Cosmos.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::HeaderValue;

use super::scope::TokenScope;
use crate::{clock::Timestamp, transport::percent_encode};

/// A key to one scope, for a while. Made by the broker alone; it never leaves the process except to Cosmos.
#[derive(Debug)]
pub struct ResourceToken {
    pub(super) authorization: HeaderValue,
    pub(super) permission_id: Arc<str>,
    pub(super) scope: TokenScope,
    pub(super) expires: Timestamp,
    /// When it was minted and when it ends, by the running clock: a clock that is moved ends no token and lengthens none.
    pub(super) minted: Duration,
    pub(super) ends: Duration,
    /// The broker's own count: tells which of two tokens is newer, even where a clock stands still.
    pub(super) serial: u64,
    /// How many refusals in quick succession led to this token, under one account key; 0 when it came of none.
    pub(super) quick_remints: u32,
    /// The keyring's count when it was minted: a token refused since the key changed is refused for that.
    pub(super) turns: u64,
    /// Not before this moment (in milliseconds of the running clock) does a request start a renewal; whoever moves it on starts
    /// one.
    pub(super) next_renewal: AtomicU64,
}

impl ResourceToken {
    /// The value of `Authorization`: percent-encoded and marked sensitive, so that it does not print.
    pub fn authorization(&self) -> &HeaderValue {
        &self.authorization
    }

    /// The id of the permission, as Azure's diagnostic log shows it (`resourceTokenPermissionId`).
    pub fn permission_id(&self) -> &Arc<str> {
        &self.permission_id
    }

    /// What the token opens, and for whom it was minted.
    pub fn scope(&self) -> &TokenScope {
        &self.scope
    }

    /// When the token ends by the gateway's own clock. (Azure adds up to 15 minutes of skew, and nothing here uses them.)
    pub fn expires(&self) -> Timestamp {
        self.expires
    }

    /// Whether the caller, at `now`, is the one to start a renewal. Then nobody else is until `pause` has passed.
    pub(super) fn claim_renewal(&self, now: Duration, pause: Duration) -> bool {
        let due = self.next_renewal.load(Ordering::Relaxed);
        let next = millis(now + pause);
        millis(now) >= due
            && self.next_renewal.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// A time of the running clock, in milliseconds.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// `text` as a header value: percent-encoded, so always ASCII, and marked sensitive.
pub(super) fn header_value(text: &str) -> HeaderValue {
    let encoded = percent_encode(text).to_string();
    // An encoded text has letters, digits and `-._~%` only, all of which a header value takes.
    let mut value = HeaderValue::try_from(encoded).unwrap_or_else(|_| HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

#[cfg(test)]
impl ResourceToken {
    /// A token as the broker would make it, for tests of the rooms that demand one.
    pub(crate) fn for_test(token: &str, scope: TokenScope) -> Self {
        Self {
            authorization: header_value(token),
            permission_id: scope.id().into(),
            scope,
            expires: Timestamp::from_millis(i64::MAX),
            minted: Duration::ZERO,
            ends: Duration::MAX,
            serial: 0,
            quick_remints: 0,
            turns: 0,
            next_renewal: AtomicU64::new(u64::MAX),
        }
    }
}
