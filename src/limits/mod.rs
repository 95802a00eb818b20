//! How much: whether a request that policy permitted may go now, or must come back later.
//!
//! A limit is of a binding, and counts all of its callers together: it protects the container's throughput from a role, not one
//! caller from another. This room knows the numbers of a permit's binding and what Cosmos charged; it refuses to know who asks,
//! and for what. It is no part of `policy`, which is pure and is asked hypothetical questions; and no part of the gateway's own
//! bounds, which are for all callers and need no identity.
//!
//! Three things are counted. Requests, by the generic cell rate algorithm (governor): as many at once as in a second. Request
//! units, which are known only once Cosmos has answered: a request goes when nothing is owed, is charged what it cost, and what
//! it cost too much is a debt that wears off before the next one goes. Requests in flight: a place is held from here to the end
//! of the walk. A refused request counts for nothing.
//!
//! Counts outlive a reload of the policy: a binding that is written as before, wherever it stands in its file, and has the same
//! numbers keeps its meter. A meter that is as good as new (nothing counted that a new one would not allow too) may be dropped at
//! any time, and is when there are many; so there are never more than the bindings of a second's policies, twice over.

mod meter;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::OwnedSemaphorePermit;

use self::meter::Meter;
use crate::{
    clock::Clock,
    policy::{BindingLimits, Hours, Permit},
};

/// From how many meters on the idle ones are looked for.
const MANY: usize = 1024;

/// The meters of all bindings.
#[derive(Debug)]
pub struct Limits {
    clock: Clock,
    meters: Mutex<Meters>,
}

#[derive(Debug)]
struct Meters {
    of: HashMap<Arc<BindingLimits>, Arc<Meter>>,
    /// At this many the idle ones are dropped.
    sweep_at: usize,
}

/// Leave to go now. The place among the requests in flight is given back when it is dropped.
#[derive(Debug)]
pub struct Admission {
    meter: Option<Arc<Meter>>,
    _place: Option<OwnedSemaphorePermit>,
}

/// The binding has had what it may ask for.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the limit of {limit} for all workloads of a binding of `{}` is reached", binding.role)]
pub struct Exceeded {
    /// The binding and its limits.
    pub binding: Arc<BindingLimits>,
    /// The limit, with its unit.
    pub limit: Limit,
    /// When the same request would go, if nothing else came before it; `None` where that depends on requests in flight.
    pub retry_after: Option<Duration>,
}

/// Which of the limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limit {
    /// Requests in a second.
    Requests(u32),
    /// Request units in a second.
    RequestUnits(u32),
    /// Request units in an hour.
    RequestUnitsAnHour(u32),
    /// Requests in flight.
    Concurrency(u32),
    /// The part of the day in which something may be asked for.
    Hours(Hours),
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Requests(limit) => write!(f, "{limit} requests per second"),
            Self::RequestUnits(limit) => write!(f, "{limit} request units per second"),
            Self::RequestUnitsAnHour(limit) => write!(f, "{limit} request units per hour"),
            Self::Concurrency(limit) => write!(f, "{limit} requests in flight"),
            Self::Hours(hours) => write!(f, "the hours {hours}"),
        }
    }
}

impl Limits {
    /// No meters yet.
    pub fn new(clock: Clock) -> Self {
        Self { clock, meters: Mutex::new(Meters { of: HashMap::new(), sweep_at: MANY }) }
    }

    /// Lets the permitted request go, or says when it may.
    pub fn admit(&self, permit: &Permit) -> Result<Admission, Exceeded> {
        match permit.limits() {
            Some(limits) => self.enter(limits),
            None => Ok(Admission { meter: None, _place: None }),
        }
    }

    fn enter(&self, limits: &Arc<BindingLimits>) -> Result<Admission, Exceeded> {
        if let Some((hours, wait)) = limits.hours.and_then(|hours| Some((hours, hours.begin_in(self.clock.now())?))) {
            return Err(Exceeded { binding: limits.clone(), limit: Limit::Hours(hours), retry_after: Some(wait) });
        }
        let meter = self.meter(limits);
        match meter.enter() {
            Ok(place) => Ok(Admission { meter: Some(meter), _place: place }),
            Err((limit, retry_after)) => Err(Exceeded { binding: limits.clone(), limit, retry_after }),
        }
    }

    fn meter(&self, limits: &Arc<BindingLimits>) -> Arc<Meter> {
        let mut meters = self.meters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(meter) = meters.of.get(limits) {
            return meter.clone();
        }
        if meters.of.len() >= meters.sweep_at {
            // Whoever holds a meter besides this map is about to count on it.
            meters.of.retain(|_, meter| Arc::strong_count(meter) > 1 || !meter.is_as_new());
            meters.sweep_at = MANY.max(meters.of.len() * 2);
        }
        let meter = Arc::new(Meter::new(limits, self.clock.clone()));
        meters.of.insert(limits.clone(), meter.clone());
        meter
    }
}

impl Admission {
    /// Counts what Cosmos charged.
    pub fn charge(&self, request_units: f64) {
        if let Some(meter) = &self.meter {
            meter.charge(request_units);
        }
    }
}

#[cfg(test)]
mod tests;
