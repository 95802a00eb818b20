//! Whose turn it is: how many requests are at Cosmos at once for one container, and which of those that wait goes next.
//!
//! **What this room decides.** Whether a permitted request goes now, waits a moment, or is sent away at once because its turn would
//! not come in time. Each container has a gate. How many a gate lets through is found out, not configured: it grows while Cosmos
//! answers as usual, and shrinks when Cosmos throttles, slows down or does not answer (additive increase, multiplicative
//! decrease). A place is held through a request's waits between attempts, so a throttled container holds its callers back here
//! instead of having each of them knock again.
//!
//! **What it refuses to know.** Who asks, what for, and what an answer says: it is told the binding that a permit rests on, how long
//! Cosmos took, and whether it was throttled.
//!
//! **Why this shape.** When places are short, the next free one goes to the binding that holds the fewest; so a binding that asks
//! for ten times its share waits behind its own requests, and the others do not notice. A queue is short and its wait is bounded:
//! who would wait in vain is told so while it can still do something about it.

mod gate;
mod pace;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

pub use self::gate::Place;
use self::gate::{Arrival, Gate};
use crate::{
    access::{ContainerName, Operation},
    clock::Clock,
    policy::Permit,
};

/// The longest that a request waits for its turn.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// From how many gates on the idle ones are looked for.
const MANY: usize = 1024;

/// The gates of all containers.
#[derive(Debug)]
pub struct Overload {
    clock: Clock,
    most: usize,
    gates: Mutex<Gates>,
}

#[derive(Debug)]
struct Gates {
    of: HashMap<ContainerName, Arc<Gate>>,
    /// At this many the idle ones are dropped.
    sweep_at: usize,
}

/// Its turn would not come in time.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("as many requests on {container} are under way, or wait, as it can take")]
pub struct Shed {
    /// The container.
    pub container: ContainerName,
    /// When to come back.
    pub retry_after: Duration,
}

/// What became of a request at Cosmos, as far as it tells how the container is doing.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Signal {
    /// Answered; the last attempt took this long.
    Answered(Duration),
    /// An attempt was throttled.
    Throttled,
    /// Not answered in a time in which Cosmos answers everything.
    Stuck,
    /// Nothing that says anything.
    Nothing,
}

/// What kind of work a request is: a point read and a query take different times, whatever the load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// One item, read.
    Point,
    /// Something is written.
    Write,
    /// A query, a feed, a batch or a procedure: as long as it takes.
    Long,
}

impl Work {
    /// The kind of work of a permit.
    fn of(permit: &Permit) -> Self {
        use crate::access::Action;
        match permit.action() {
            Action::Operation(Operation::ItemsRead) | Action::Metadata => Self::Point,
            Action::Operation(operation) if operation.is_item_write() => Self::Write,
            _ => Self::Long,
        }
    }
}

/// How the gates stand, for `/status` and the metrics.
#[derive(Clone, PartialEq, Debug)]
pub struct GateStatus {
    /// The container.
    pub container: ContainerName,
    /// How many it lets through at once.
    pub limit: usize,
    /// How many are through.
    pub in_flight: usize,
    /// How many wait.
    pub waiting: usize,
    /// How many were sent away.
    pub shed: u64,
}

impl Overload {
    /// No gates yet; none ever lets more than `most` through at once.
    pub fn new(most: usize, clock: Clock) -> Self {
        Self { clock, most: most.max(1), gates: Mutex::new(Gates { of: HashMap::new(), sweep_at: MANY }) }
    }

    /// Waits for the permitted request's turn, but no longer than `patience`.
    pub async fn enter(&self, permit: &Permit, patience: Duration) -> Result<Place, Shed> {
        let container = &permit.scope().container;
        let patience = patience.min(LONGEST_WAIT);
        let gate = self.gate(container);
        let shed = |retry_after| Shed { container: container.clone(), retry_after };
        match gate.arrive(permit.binding(), Work::of(permit), patience) {
            Arrival::Now(place) => Ok(place),
            Arrival::Hopeless(retry_after) => Err(shed(retry_after)),
            Arrival::Waits(turn) => match tokio::time::timeout(patience, turn).await {
                Ok(Ok(place)) => Ok(place),
                _ => Err(shed(gate.give_up())),
            },
        }
    }

    /// How the gates stand.
    pub fn status(&self) -> Vec<GateStatus> {
        let gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = gates.of.iter().map(|(container, gate)| gate.status(container)).collect();
        all.sort_by(|one, other| one.container.cmp(&other.container));
        all
    }

    fn gate(&self, container: &ContainerName) -> Arc<Gate> {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gate) = gates.of.get(container) {
            return gate.clone();
        }
        if gates.of.len() >= gates.sweep_at {
            // Whoever holds a gate besides this map is about to go through it, or has.
            gates.of.retain(|_, gate| Arc::strong_count(gate) > 1);
            gates.sweep_at = MANY.max(gates.of.len() * 2);
        }
        let gate = Gate::new(self.most, self.clock.clone());
        gates.of.insert(container.clone(), gate.clone());
        gate
    }
}
