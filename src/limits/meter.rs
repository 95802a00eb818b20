//! What one binding has asked for of late.

use std::{
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::Clock as _,
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Limit;
use crate::{clock::Clock, policy::BindingLimits};

/// The meter of one binding.
#[derive(Debug)]
pub(super) struct Meter {
    requests: Option<Requests>,
    /// Those of a second, and those of an hour.
    request_units: Vec<RequestUnits>,
    places: Option<Places>,
}

impl Meter {
    pub(super) fn new(limits: &BindingLimits, clock: Clock) -> Self {
        let clock = Running(clock);
        Self {
            requests: limits.requests_per_second.map(|limit| Requests::new(limit, clock.clone())),
            request_units: [
                limits.request_units_per_second.map(|limit| RequestUnits::new(limit, SECOND, clock.clone())),
                limits.request_units_per_hour.map(|limit| RequestUnits::new(limit, HOUR, clock.clone())),
            ]
            .into_iter()
            .flatten()
            .collect(),
            places: limits.concurrency.map(Places::new),
        }
    }

    /// Takes a place and counts a request, or says which limit is reached and for how long. Requests are counted last, so that
    /// one refused for another reason is not.
    pub(super) fn enter(&self) -> Result<Option<OwnedSemaphorePermit>, (Limit, Option<Duration>)> {
        let place = self.places.as_ref().map(Places::take).transpose().map_err(|limit| (limit, None))?;
        for units in &self.request_units {
            units.check().map_err(|(limit, wait)| (limit, Some(wait)))?;
        }
        if let Some(requests) = &self.requests {
            requests.count().map_err(|(limit, wait)| (limit, Some(wait)))?;
        }
        Ok(place)
    }

    pub(super) fn charge(&self, request_units: f64) {
        self.request_units.iter().for_each(|units| units.charge(request_units));
    }

    /// Whether a new meter would allow no more than this one.
    pub(super) fn is_as_new(&self) -> bool {
        // Every rate is full again, and every place free.
        self.requests.as_ref().is_none_or(Requests::is_full)
            && self.request_units.iter().all(RequestUnits::is_full)
            && self.places.as_ref().is_none_or(Places::are_free)
    }
}

/// Requests per second.
#[derive(Debug)]
struct Requests {
    limit: u32,
    limiter: RateLimiter<NotKeyed, InMemoryState, Running, NoOpMiddleware<Duration>>,
    /// When the last one was let through.
    last: Mutex<Duration>,
}

impl Requests {
    fn new(limit: NonZeroU32, clock: Running) -> Self {
        let last = Mutex::new(Duration::ZERO);
        Self { limit: limit.get(), limiter: RateLimiter::direct_with_clock(Quota::per_second(limit), clock), last }
    }

    fn count(&self) -> Result<(), (Limit, Duration)> {
        let now = self.limiter.clock().now();
        match self.limiter.check() {
            Ok(()) => {
                *self.last.lock().unwrap_or_else(PoisonError::into_inner) = now;
                Ok(())
            }
            Err(until) => Err((Limit::Requests(self.limit), until.wait_time_from(now))),
        }
    }

    fn is_full(&self) -> bool {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        self.limiter.clock().now().saturating_sub(last) > Duration::from_secs(1)
    }
}

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Request units of a second or an hour: what is left of them, less than nothing where a request cost more than was left.
#[derive(Debug)]
struct RequestUnits {
    limit: u32,
    /// In which they come back.
    period: Duration,
    clock: Running,
    account: Mutex<Account>,
}

#[derive(Debug)]
struct Account {
    balance: f64,
    at: Duration,
}

impl RequestUnits {
    fn new(limit: NonZeroU32, period: Duration, clock: Running) -> Self {
        let account = Account { balance: f64::from(limit.get()), at: clock.now() };
        Self { limit: limit.get(), period, clock, account: Mutex::new(account) }
    }

    /// How many come back in a second.
    fn rate(&self) -> f64 {
        f64::from(self.limit) / self.period.as_secs_f64()
    }

    /// Does something with the account as it is now.
    fn with_account<T>(&self, work: impl FnOnce(&mut Account) -> T) -> T {
        let mut account = self.account.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        let earned = self.rate() * now.saturating_sub(account.at).as_secs_f64();
        account.balance = (account.balance + earned).min(f64::from(self.limit));
        account.at = account.at.max(now);
        work(&mut account)
    }

    fn check(&self) -> Result<(), (Limit, Duration)> {
        let balance = self.with_account(|account| account.balance);
        if balance > 0.0 {
            return Ok(());
        }
        // The clock counts milliseconds: one more than the debt takes, so that there is something left.
        let wait = Duration::try_from_secs_f64(-balance / self.rate()).unwrap_or(Duration::MAX);
        let limit = match self.period {
            SECOND => Limit::RequestUnits(self.limit),
            _ => Limit::RequestUnitsAnHour(self.limit),
        };
        Err((limit, wait.saturating_add(Duration::from_millis(1))))
    }

    fn charge(&self, request_units: f64) {
        // A charge comes from a header: a number that is none is no charge.
        if request_units.is_finite() && request_units > 0.0 {
            self.with_account(|account| account.balance -= request_units);
        }
    }

    fn is_full(&self) -> bool {
        self.with_account(|account| account.balance) >= f64::from(self.limit)
    }
}

/// Places among the requests in flight.
#[derive(Debug)]
struct Places {
    limit: u32,
    free: Arc<Semaphore>,
}

impl Places {
    fn new(limit: NonZeroU32) -> Self {
        let limit = limit.get();
        Self { limit, free: Arc::new(Semaphore::new(usize::try_from(limit).unwrap_or(Semaphore::MAX_PERMITS))) }
    }

    fn take(&self) -> Result<OwnedSemaphorePermit, Limit> {
        self.free.clone().try_acquire_owned().map_err(|_| Limit::Concurrency(self.limit))
    }

    fn are_free(&self) -> bool {
        u32::try_from(self.free.available_permits()).is_ok_and(|free| free == self.limit)
    }
}

/// The time that only runs forward: a system clock that is put back must not stop a binding.
#[derive(Clone, Debug)]
struct Running(Clock);

impl governor::clock::Clock for Running {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.running()
    }
}
