//! The master partition, where users and permissions live: 240 request units a second for the whole account, whatever it pays.
//!
//! A request is let through while anything is left, and charged what its answer says; then it is the next ones that wait.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};

use super::{
    refusal::error_answer,
    request::{Asked, Target, header},
};

/// What the account has for metadata.
const UNITS_PER_SECOND: f64 = 240.0;

/// What it costs to find out that there is nothing to be done.
const NOTHING_DONE: HeaderValue = HeaderValue::from_static("1");

/// What is left of a second's worth, and what was asked of it.
#[derive(Debug)]
pub(super) struct Master {
    units: f64,
    at: Duration,
    usage: MasterUsage,
}

/// What was asked of the master partition since the start.
#[derive(Clone, Copy, PartialEq, Debug, Default, serde::Serialize)]
pub struct MasterUsage {
    /// Request units spent.
    pub request_units: f64,
    /// Requests throttled.
    pub throttled: u64,
}

impl Master {
    pub(super) fn new(now: Duration) -> Self {
        Self { units: UNITS_PER_SECOND, at: now, usage: MasterUsage::default() }
    }

    pub(super) fn usage(&self) -> MasterUsage {
        self.usage
    }

    /// The answer to a request that comes when nothing is left: 429/3210.
    pub(super) fn throttle(&mut self, asked: &Asked, now: Duration) -> Option<Response<Bytes>> {
        let earned = UNITS_PER_SECOND * now.saturating_sub(self.at).as_secs_f64();
        self.units = (self.units + earned).min(UNITS_PER_SECOND);
        self.at = now;
        if self.units > 0.0 || !is_kept_here(asked) {
            return None;
        }
        self.usage.throttled += 1;
        let message = "Request rate is large. More Request Units may be needed, so no changes were made. Please retry this request later.";
        let mut response = error_answer(StatusCode::TOO_MANY_REQUESTS, Some(3210), message);
        let wait = Duration::try_from_secs_f64(-self.units / UNITS_PER_SECOND).unwrap_or_default();
        let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait));
        Some(response)
    }

    /// Charges a request that was let through, and says so in its answer.
    pub(super) fn charge(&mut self, asked: &Asked, answer: &mut Response<Bytes>) {
        if !is_kept_here(asked) {
            return;
        }
        let charge = answer.headers_mut().entry(header::REQUEST_CHARGE).or_insert(NOTHING_DONE);
        let charge = charge.to_str().ok().and_then(|charge| charge.parse().ok()).unwrap_or(0.0);
        self.units -= charge;
        self.usage.request_units += charge;
    }
}

fn is_kept_here(asked: &Asked) -> bool {
    matches!(
        asked.target,
        Target::Users { .. } | Target::User { .. } | Target::Permissions { .. } | Target::Permission { .. }
    )
}
