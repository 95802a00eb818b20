//! Where a request goes: the account's own endpoint, or one of its regions.
//!
//! Without `preferred_regions` everything goes to the configured endpoint, which Azure points at the write region. With them,
//! reads go to the first preferred region that answers well, and from one that fails to the next; writes go where the account
//! takes them. Until the regions were read once, and when none was ever told, it is the configured endpoint all the same.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use url::Url;

use super::{
    breaker::{Breaker, BreakerState},
    retry::Safety,
    topology::{Account, Location, TopologyError, TopologyStatus},
};
use crate::clock::{Clock, Timestamp};

/// Somewhere a request can be sent.
#[derive(Debug)]
pub(super) struct Place {
    /// The region's name; `None` at the account's own endpoint, which chooses by itself.
    pub(super) name: Option<Arc<str>>,
    pub(super) endpoint: Url,
    pub(super) breaker: Breaker,
    good: AtomicU64,
    bad: AtomicU64,
}

impl Place {
    fn new(name: Option<&str>, endpoint: Url, clock: Clock) -> Arc<Self> {
        let (good, bad) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { name: name.map(Into::into), endpoint, breaker: Breaker::new(clock), good, bad })
    }

    /// Counts an attempt there.
    pub(super) fn heard(&self, good: bool) {
        if good { &self.good } else { &self.bad }.fetch_add(1, Ordering::Relaxed);
        self.breaker.heard(good);
    }
}

/// The places of the account, as it told them last.
#[derive(Debug)]
struct Topology {
    /// Where reads go, the most preferred first.
    readable: Vec<Arc<Place>>,
    /// Where writes go, the same way; of an account with one write region that one is the first.
    writable: Vec<Arc<Place>>,
    /// Whether every region takes writes.
    all_write: bool,
}

/// The places, and what is known of them.
#[derive(Debug)]
pub(super) struct Regions {
    configured: Url,
    preferred: Vec<String>,
    clock: Clock,
    topology: ArcSwap<Topology>,
    status: Mutex<TopologyStatus>,
    wanted: Notify,
}

/// A region, for `/status` and the metrics.
#[derive(Clone, PartialEq, Debug)]
pub struct RegionStatus {
    /// Its name; `None` for the account's own endpoint.
    pub name: Option<Arc<str>>,
    /// Its address.
    pub endpoint: Url,
    /// Whether reads may go there.
    pub reads: bool,
    /// Whether writes may go there.
    pub writes: bool,
    /// Whether it answers well.
    pub breaker: BreakerState,
    /// Attempts that were answered.
    pub good: u64,
    /// Attempts that spoke against it.
    pub bad: u64,
}

/// Which way one errand has gone.
#[derive(Debug, Default)]
pub(super) struct Way {
    tried: Vec<Arc<Place>>,
    to_write_region: bool,
}

impl Regions {
    pub(super) fn new(configured: Url, preferred: Vec<String>, clock: Clock) -> Self {
        let own = Place::new(None, configured.clone(), clock.clone());
        let topology = Topology { readable: vec![own.clone()], writable: vec![own], all_write: false };
        Self {
            configured,
            preferred,
            clock,
            topology: ArcSwap::from_pointee(topology),
            status: Mutex::default(),
            wanted: Notify::new(),
        }
    }

    /// Whether the gateway chooses the region.
    pub(super) fn are_chosen(&self) -> bool {
        !self.preferred.is_empty()
    }

    pub(super) fn configured(&self) -> &Url {
        &self.configured
    }

    /// Where the next attempt goes: the first place in order that was not tried and answers well, then the first that was not
    /// tried, and when all were, anew.
    pub(super) fn choose(&self, safety: Safety, way: &mut Way) -> Arc<Place> {
        let topology = self.topology.load();
        let places = topology.places(safety, way);
        let may_probe = safety != Safety::Once;
        let untried = |place: &&Arc<Place>| !way.tried.iter().any(|tried| Arc::ptr_eq(tried, place));
        let well = places.iter().filter(untried).find(|place| place.breaker.admits(may_probe));
        if let Some(place) = well.or_else(|| places.iter().find(untried)) {
            return place.clone();
        }
        way.tried.clear();
        let anew = places.iter().find(|place| place.breaker.admits(may_probe)).or(places.first());
        anew.cloned().unwrap_or_else(|| Place::new(None, self.configured.clone(), self.clock.clone()))
    }

    /// Whether there is a place for the errand where it was not.
    pub(super) fn has_another(&self, safety: Safety, way: &Way) -> bool {
        let topology = self.topology.load();
        let places = topology.places(safety, way);
        places.iter().any(|place| !way.tried.iter().any(|tried| Arc::ptr_eq(tried, place)))
    }

    /// Whether another region could take over the writes.
    pub(super) fn may_be_taken_over(&self) -> bool {
        self.topology.load().readable.len() > 1
    }

    /// Whether all regions take writes, which such an account wants to be told on each.
    pub(super) fn all_write(&self) -> bool {
        self.topology.load().all_write
    }

    /// Asks for the topology to be read again.
    pub(super) fn ask(&self) {
        self.wanted.notify_one();
    }

    /// Waits until somebody asks.
    pub(super) async fn asked(&self) {
        self.wanted.notified().await;
    }

    /// Where the account can be asked: at its own endpoint, and at each region that is known.
    pub(super) fn endpoints(&self) -> Vec<Url> {
        let topology = self.topology.load();
        let mut endpoints = vec![self.configured.clone()];
        for place in topology.writable.iter().chain(&topology.readable) {
            if !endpoints.contains(&place.endpoint) {
                endpoints.push(place.endpoint.clone());
            }
        }
        endpoints
    }

    /// Takes in what the account told. A place that was known before keeps its breaker.
    pub(super) fn learn(&self, account: Account, now: Timestamp) {
        let before = self.topology.load_full();
        let known: Vec<_> = before.writable.iter().chain(&before.readable).cloned().collect();
        let place = |made: &[Arc<Place>], location: &Location| {
            let same = |place: &&Arc<Place>| {
                place.name.as_deref() == Some(&location.name) && place.endpoint == location.database_account_endpoint
            };
            made.iter().chain(&known).find(same).cloned().unwrap_or_else(|| {
                Place::new(Some(&location.name), location.database_account_endpoint.clone(), self.clock.clone())
            })
        };
        let mut readable = Vec::new();
        for location in &account.readable_locations {
            let next = place(&readable, location);
            readable.push(next);
        }
        let mut writable: Vec<_> =
            account.writable_locations.iter().map(|location| place(&readable, location)).collect();
        let rank = |place: &Arc<Place>| {
            self.preferred.iter().position(|name| is_same_region(name, place.name.as_deref().unwrap_or_default()))
        };
        // A stable order: what is not preferred stays behind, as the account has it.
        let by_preference = |place: &Arc<Place>| rank(place).unwrap_or(usize::MAX);
        readable.sort_by_key(by_preference);
        if account.enable_multiple_write_locations {
            writable.sort_by_key(by_preference);
        }
        for name in &self.preferred {
            if !readable.iter().any(|place| is_same_region(name, place.name.as_deref().unwrap_or_default())) {
                tracing::warn!(region = %name, "a preferred region is none of the account's");
            }
        }
        let topology = Topology { readable, writable, all_write: account.enable_multiple_write_locations };
        self.topology.store(Arc::new(topology));
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = TopologyStatus { read: Some(now), trouble: None };
    }

    /// Notes that the account could not be asked.
    pub(super) fn note(&self, error: TopologyError, now: Timestamp) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.trouble = Some((now, Arc::new(error)));
    }

    pub(super) fn topology_status(&self) -> TopologyStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How the places stand, in the order of preference.
    pub(super) fn status(&self) -> Vec<RegionStatus> {
        let topology = self.topology.load();
        let is_in = |list: &[Arc<Place>], place: &Arc<Place>| list.iter().any(|other| Arc::ptr_eq(other, place));
        let only_writable = topology.writable.iter().filter(|place| !is_in(&topology.readable, place));
        let status = |place: &Arc<Place>| RegionStatus {
            name: place.name.clone(),
            endpoint: place.endpoint.clone(),
            reads: is_in(&topology.readable, place),
            writes: is_in(&topology.writable, place),
            breaker: place.breaker.state(),
            good: place.good.load(Ordering::Relaxed),
            bad: place.bad.load(Ordering::Relaxed),
        };
        topology.readable.iter().chain(only_writable).map(status).collect()
    }
}

impl Topology {
    /// The places an errand may go to, in order.
    fn places(&self, safety: Safety, way: &Way) -> &[Arc<Place>] {
        match safety {
            Safety::Read if !way.to_write_region => &self.readable,
            // Of an account with one write region the others named beside it are on their way in or out.
            _ if !self.all_write => self.writable.get(..1).unwrap_or(&self.writable),
            _ => &self.writable,
        }
    }
}

impl Way {
    /// The errand was there.
    pub(super) fn tried(&mut self, place: &Arc<Place>) {
        if !self.tried.iter().any(|tried| Arc::ptr_eq(tried, place)) {
            self.tried.push(place.clone());
        }
    }

    /// From now on the region that is behind in nothing.
    pub(super) fn turn_to_write_region(&mut self) {
        self.to_write_region = true;
    }
}

/// Whether two names mean the same region: `West Europe` and `westeurope`.
pub fn is_same_region(one: &str, other: &str) -> bool {
    let letters =
        |name: &str| name.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_ascii_lowercase()).collect::<String>();
    letters(one) == letters(other)
}
