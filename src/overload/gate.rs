//! The gate of one container: who is through, who waits, and who is next.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::oneshot;

use super::{GateStatus, Signal, Work, pace::Pace};
use crate::{access::ContainerName, clock::Clock};

/// Most requests of one binding that wait at one gate: a burst of an account's state machines (300) finds room.
const MOST_WAITING: usize = 256;
/// The least that whoever is sent away is told to wait.
const SOON: Duration = Duration::from_secs(1);
/// The most, since a gate can recover.
const LATER: Duration = Duration::from_secs(30);

/// The gate.
#[derive(Debug)]
pub(super) struct Gate {
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    pace: Pace,
    in_flight: usize,
    bindings: HashMap<Arc<str>, Turns>,
    arrivals: u64,
    shed: u64,
    /// How long a place is held, of late, in seconds.
    held: f64,
}

/// The requests of one binding.
#[derive(Debug, Default)]
struct Turns {
    in_flight: usize,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    arrival: u64,
    work: Work,
    turn: oneshot::Sender<Place>,
}

/// What becomes of a request that arrives.
pub(super) enum Arrival {
    /// It is through.
    Now(Place),
    /// Its turn comes.
    Waits(oneshot::Receiver<Place>),
    /// Its turn would not come in time; come back after this long.
    Hopeless(Duration),
}

/// A place among those who are through; it is given back when dropped, also by a walk that is cut short.
#[derive(Debug)]
pub struct Place {
    gate: Arc<Gate>,
    binding: Arc<str>,
    work: Work,
    since: Duration,
}

impl Place {
    /// Tells what became of the request, or of one of its errands.
    pub fn hear(&self, signal: Signal) {
        let now = self.gate.clock.running();
        let mut state = self.gate.state.lock().unwrap_or_else(PoisonError::into_inner);
        let in_flight = state.in_flight;
        state.pace.hear(signal, self.work, in_flight, now);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gate.leave(&self.binding, self.since);
    }
}

impl Gate {
    pub(super) fn new(most: usize, clock: Clock) -> Arc<Self> {
        let (bindings, pace) = (HashMap::new(), Pace::new(most));
        let state = State { pace, in_flight: 0, bindings, arrivals: 0, shed: 0, held: 0.0 };
        Arc::new(Self { clock, state: Mutex::new(state) })
    }

    /// A request of `binding` that waits no longer than `patience`.
    pub(super) fn arrive(self: &Arc<Self>, binding: &Arc<str>, work: Work, patience: Duration) -> Arrival {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.in_flight < state.pace.limit() {
            state.through(binding);
            return Arrival::Now(self.place(binding, work));
        }
        let wait = state.guess(binding);
        let turns = state.bindings.entry(binding.clone()).or_default();
        turns.waiting.retain(|waiting| !waiting.turn.is_closed());
        if turns.waiting.len() >= MOST_WAITING || wait > patience {
            state.shed += 1;
            return Arrival::Hopeless(wait.clamp(SOON, LATER));
        }
        state.arrivals += 1;
        let (turn, comes) = oneshot::channel();
        let waiting = Waiting { arrival: state.arrivals, work, turn };
        state.bindings.entry(binding.clone()).or_default().waiting.push_back(waiting);
        Arrival::Waits(comes)
    }

    /// A request whose patience ended; gives when to come back.
    pub(super) fn give_up(&self) -> Duration {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.shed += 1;
        SOON
    }

    pub(super) fn status(&self, container: &ContainerName) -> GateStatus {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        GateStatus {
            container: container.clone(),
            limit: state.pace.limit(),
            in_flight: state.in_flight,
            waiting: state.bindings.values().map(|turns| turns.waiting.len()).sum(),
            shed: state.shed,
        }
    }

    fn place(self: &Arc<Self>, binding: &Arc<str>, work: Work) -> Place {
        Place { gate: self.clone(), binding: binding.clone(), work, since: self.clock.running() }
    }

    /// Gives a place back, and free ones to those whose turn it is.
    fn leave(self: &Arc<Self>, binding: &Arc<str>, since: Duration) {
        let held = self.clock.running().saturating_sub(since).as_secs_f64();
        let mut next = Vec::new();
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.held += (held - state.held) / 20.0;
            state.in_flight = state.in_flight.saturating_sub(1);
            if let Some(turns) = state.bindings.get_mut(binding) {
                turns.in_flight = turns.in_flight.saturating_sub(1);
            }
            while state.in_flight < state.pace.limit()
                && let Some((binding, waiting)) = state.next()
            {
                state.through(&binding);
                next.push((waiting.turn, self.place(&binding, waiting.work)));
            }
            state.bindings.retain(|_, turns| turns.in_flight > 0 || !turns.waiting.is_empty());
        }
        for (turn, place) in next {
            // Who left meanwhile gives the place back by dropping it, which needs the lock.
            drop(turn.send(place));
        }
    }
}

impl State {
    fn through(&mut self, binding: &Arc<str>) {
        self.in_flight += 1;
        self.bindings.entry(binding.clone()).or_default().in_flight += 1;
    }

    /// How long a request of `binding` would wait: as many rounds as its own requests before it take, at its share of the places.
    fn guess(&self, binding: &Arc<str>) -> Duration {
        let asking = self.bindings.values().filter(|turns| !turns.waiting.is_empty()).count().max(1);
        let before = self.bindings.get(binding).map_or(0, |turns| turns.waiting.len()) + 1;
        let count = |n: usize| u32::try_from(n).map_or(f64::MAX, f64::from);
        let rounds = count(before) * count(asking) / count(self.pace.limit().max(1));
        Duration::try_from_secs_f64(self.held * rounds).unwrap_or(LATER)
    }

    /// Who is next: the longest waiting of the binding that holds the fewest places.
    fn next(&mut self) -> Option<(Arc<str>, Waiting)> {
        for turns in self.bindings.values_mut() {
            while turns.waiting.front().is_some_and(|waiting| waiting.turn.is_closed()) {
                turns.waiting.pop_front();
            }
        }
        let waiting = self.bindings.iter().filter_map(|(binding, turns)| {
            let first = turns.waiting.front()?;
            Some(((turns.in_flight, first.arrival), binding))
        });
        let binding = waiting.min_by_key(|(order, _)| *order)?.1.clone();
        let next = self.bindings.get_mut(&binding)?.waiting.pop_front()?;
        Some((binding, next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, Timestamp};

    const PATIENCE: Duration = Duration::from_secs(1);

    fn gate(most: usize) -> (Arc<Gate>, ManualClock) {
        let clock = ManualClock::new(Timestamp::from_secs(1_795_375_762));
        (Gate::new(most, Clock::Manual(clock.clone())), clock)
    }

    fn now(gate: &Arc<Gate>, binding: &str) -> Place {
        match gate.arrive(&binding.into(), Work::Point, PATIENCE) {
            Arrival::Now(place) => place,
            _ => panic!("no place for {binding}"),
        }
    }

    fn waits(gate: &Arc<Gate>, binding: &str) -> oneshot::Receiver<Place> {
        match gate.arrive(&binding.into(), Work::Point, PATIENCE) {
            Arrival::Waits(turn) => turn,
            Arrival::Now(_) => panic!("there was a place for {binding}"),
            Arrival::Hopeless(_) => panic!("{binding} was sent away"),
        }
    }

    #[test]
    fn the_next_place_goes_to_the_binding_that_holds_the_fewest() {
        let (gate, _) = gate(3);
        let noisy = [now(&gate, "noisy"), now(&gate, "noisy"), now(&gate, "noisy")];
        let mut queue: Vec<_> = (0..5).map(|_| waits(&gate, "noisy")).collect();
        let (mut first, mut second) = (waits(&gate, "quiet"), waits(&gate, "other"));
        let [one, two, three] = noisy;
        drop(one);
        let quiet = first.try_recv().expect("it holds none, and came before the other");
        drop(two);
        let other = second.try_recv().expect("it holds none");
        assert!(queue.iter_mut().all(|turn| turn.try_recv().is_err()));
        drop(three);
        let noisy = queue[0].try_recv().expect("nobody else waits");
        assert_eq!(gate.status(&ContainerName::new("d", "c").unwrap()).in_flight, 3);
        drop((quiet, other, noisy, queue));
        let status = gate.status(&ContainerName::new("d", "c").unwrap());
        assert_eq!((status.in_flight, status.waiting), (0, 0));
    }

    #[test]
    fn who_left_gives_the_place_to_the_next() {
        let (gate, _) = gate(1);
        let place = now(&gate, "a");
        let (gone, mut next) = (waits(&gate, "a"), waits(&gate, "a"));
        drop(gone);
        drop(place);
        let place = next.try_recv().unwrap();
        // One that is given its place and never takes it.
        let untaken = waits(&gate, "a");
        drop(place);
        drop(untaken);
        drop(now(&gate, "a"));
    }

    #[test]
    fn who_would_wait_in_vain_is_told_at_once() {
        let (gate, clock) = gate(1);
        for _ in 0..100 {
            let place = now(&gate, "a");
            clock.advance(Duration::from_secs(2));
            drop(place);
        }
        let _place = now(&gate, "a");
        match gate.arrive(&"a".into(), Work::Point, PATIENCE) {
            Arrival::Hopeless(after) => assert_eq!(after.as_secs(), 1),
            _ => panic!("a place is held for two seconds"),
        }
        assert_eq!(gate.status(&ContainerName::new("d", "c").unwrap()).shed, 1);
    }

    #[test]
    fn a_queue_is_bounded_for_each_binding() {
        let (gate, _) = gate(1);
        let _place = now(&gate, "noisy");
        let queue: Vec<_> = (0..MOST_WAITING).map(|_| waits(&gate, "noisy")).collect();
        assert!(matches!(gate.arrive(&"noisy".into(), Work::Point, PATIENCE), Arrival::Hopeless(_)));
        drop(waits(&gate, "quiet"));
        drop(queue);
        let _turn = waits(&gate, "noisy");
    }
}
