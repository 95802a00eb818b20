//! The account's small budget for metadata, and who may spend it first.
//!
//! Users and permissions live in a partition of the account that gives 240 request units a second in all, to every gateway and
//! every other client together, and cannot be made larger. So each gateway keeps to a share of it, and within the share a mint
//! that a caller waits for goes before a renewal, and that before the sweep: the less urgent leave more of a second's worth
//! untouched. When Cosmos throttles all the same, nobody sends until the time it names.
//!
//! What a request costs is known from its answer, so it is admitted at an estimate, and the difference is settled afterwards.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, timeout_at},
};

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Urgency {
    /// A caller waits.
    Caller,
    /// A token is to be renewed ahead of its end, or the account looked at.
    Renewal,
    /// The sweep.
    Sweep,
}

impl Urgency {
    /// Which share of a second's worth it must leave to what is more urgent.
    const fn leaves(self) -> f64 {
        match self {
            Self::Caller => 0.0,
            Self::Renewal => 0.4,
            Self::Sweep => 0.7,
        }
    }

    /// How long it waits in the end. A caller's request may take a minute in all.
    pub(super) const fn patience(self) -> Duration {
        match self {
            Self::Caller => Duration::from_secs(30),
            Self::Renewal => Duration::from_secs(60),
            Self::Sweep => Duration::from_secs(600),
        }
    }
}

/// Leave to send one request, at an estimate. Whoever spends it says what the request cost.
#[derive(Debug)]
#[must_use]
pub(super) struct Admission {
    estimate: f64,
}

/// The share of one gateway.
#[derive(Debug)]
pub(super) struct Budget {
    per_second: f64,
    purse: Mutex<Purse>,
    /// One queue for each urgency, in the order of arrival: its head waits for the purse.
    heads: [Semaphore; 3],
}

#[derive(Debug)]
struct Purse {
    units: f64,
    at: Instant,
    /// Cosmos throttled: nobody sends before.
    closed_until: Option<Instant>,
    spent: f64,
    throttled: u64,
}

/// How the budget stands.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct BudgetStatus {
    /// The share, in request units per second.
    pub per_second: f64,
    /// Request units spent since the start.
    pub spent: f64,
    /// How often Cosmos throttled.
    pub throttled: u64,
}

impl Budget {
    pub(super) fn new(per_second: u32) -> Self {
        let per_second = f64::from(per_second);
        let purse = Purse { units: per_second, at: Instant::now(), closed_until: None, spent: 0.0, throttled: 0 };
        Self { per_second, purse: Mutex::new(purse), heads: [Semaphore::new(1), Semaphore::new(1), Semaphore::new(1)] }
    }

    /// Waits for leave to spend about `estimate`; gives how long it would take where that is beyond `until`.
    pub(super) async fn admit(&self, urgency: Urgency, estimate: f64, until: Instant) -> Result<Admission, Duration> {
        let [caller, renewal, sweep] = &self.heads;
        let head = match urgency {
            Urgency::Caller => caller,
            Urgency::Renewal => renewal,
            Urgency::Sweep => sweep,
        };
        // The place at the head is given back when this returns.
        let _head = timeout_at(until, head.acquire()).await;
        loop {
            match self.take(urgency, estimate) {
                Ok(admission) => return Ok(admission),
                Err(wait) if Instant::now() + wait > until => return Err(wait),
                Err(wait) => sleep(wait).await,
            }
        }
    }

    fn take(&self, urgency: Urgency, estimate: f64) -> Result<Admission, Duration> {
        self.with_purse(|purse, now| {
            if let Some(until) = purse.closed_until.filter(|until| *until > now) {
                return Err(until - now);
            }
            let missing = estimate + self.per_second * urgency.leaves() - purse.units;
            // A purse is never fuller than a second's worth, so what asks for more waits for a full one.
            if missing > 0.0 && purse.units < self.per_second {
                let wait = missing.min(self.per_second - purse.units) / self.per_second;
                return Err(Duration::from_secs_f64(wait) + Duration::from_millis(1));
            }
            purse.units -= estimate;
            Ok(Admission { estimate })
        })
    }

    /// Settles what an admitted request cost; `None` where its answer did not say.
    pub(super) fn settle(&self, admission: Admission, charge: Option<f64>) {
        // A charge comes from a header: a number that is none is no charge.
        let charge = charge.filter(|charge| charge.is_finite() && *charge >= 0.0).unwrap_or(admission.estimate);
        self.with_purse(|purse, _| {
            purse.units -= charge - admission.estimate;
            purse.spent += charge;
        });
    }

    /// Cosmos throttled: nobody sends for `wait`, and what was saved is spent.
    pub(super) fn close(&self, wait: Duration) {
        self.with_purse(|purse, now| {
            purse.units = purse.units.min(0.0);
            purse.closed_until = purse.closed_until.max(Some(now + wait));
            purse.throttled += 1;
        });
    }

    pub(super) fn status(&self) -> BudgetStatus {
        let per_second = self.per_second;
        self.with_purse(|purse, _| BudgetStatus { per_second, spent: purse.spent, throttled: purse.throttled })
    }

    fn with_purse<T>(&self, work: impl FnOnce(&mut Purse, Instant) -> T) -> T {
        let mut purse = self.purse.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let earned = self.per_second * now.saturating_duration_since(purse.at).as_secs_f64();
        purse.units = (purse.units + earned).min(self.per_second);
        purse.at = now;
        work(&mut purse, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn admit(budget: &Budget, urgency: Urgency, estimate: f64) -> Result<Admission, Duration> {
        budget.admit(urgency, estimate, Instant::now()).await
    }

    fn about(found: Duration, seconds: f64) {
        let found = found.as_secs_f64();
        // A slow machine earns meanwhile.
        assert!((seconds - 0.2..seconds + 0.01).contains(&found), "{found} for {seconds}");
    }

    #[tokio::test]
    async fn a_second_gives_no_more_than_its_worth() {
        let budget = Budget::new(240);
        let began = Instant::now();
        for _ in 0..36 {
            let admission = budget.admit(Urgency::Caller, 10.0, began + Duration::from_secs(60)).await.unwrap();
            budget.settle(admission, Some(10.0));
        }
        // 360 units, of which there were 240 at once.
        assert!(began.elapsed() > Duration::from_millis(450), "{:?}", began.elapsed());
        assert!((budget.status().spent - 360.0).abs() < 1e-6);
    }

    #[tokio::test]
    async fn what_is_less_urgent_leaves_more() {
        let budget = Budget::new(100);
        let spend = async |urgency| {
            let mut count = 0;
            while let Ok(admission) = admit(&budget, urgency, 10.0).await {
                budget.settle(admission, None);
                count += 1;
            }
            count
        };
        let spent = [spend(Urgency::Sweep).await, spend(Urgency::Renewal).await, spend(Urgency::Caller).await];
        assert_eq!(spent, [3, 3, 4]);
        about(admit(&budget, Urgency::Renewal, 10.0).await.unwrap_err(), 0.5);
    }

    #[tokio::test]
    async fn the_true_charge_is_settled() {
        let budget = Budget::new(100);
        let admission = admit(&budget, Urgency::Caller, 1.0).await.unwrap();
        budget.settle(admission, Some(150.0));
        about(admit(&budget, Urgency::Caller, 1.0).await.unwrap_err(), 0.511);
        let admission = budget.admit(Urgency::Caller, 1.0, Instant::now() + Duration::from_secs(5)).await.unwrap();
        budget.settle(admission, Some(f64::NAN));
        assert!((budget.status().spent - 151.0).abs() < 1e-6);
    }

    #[tokio::test]
    async fn nobody_sends_while_cosmos_throttles() {
        let budget = Budget::new(100);
        budget.close(Duration::from_secs(30));
        budget.close(Duration::from_secs(1));
        about(admit(&budget, Urgency::Caller, 1.0).await.unwrap_err(), 30.0);
        assert_eq!(budget.status().throttled, 2);
        let budget = Budget::new(100);
        budget.close(Duration::from_millis(50));
        let began = Instant::now();
        let _admission = budget.admit(Urgency::Caller, 1.0, began + Duration::from_secs(5)).await.unwrap();
        assert!(began.elapsed() >= Duration::from_millis(50));
    }

    #[tokio::test]
    async fn more_than_a_seconds_worth_waits_for_a_full_purse() {
        let budget = Budget::new(10);
        let _first = admit(&budget, Urgency::Sweep, 5.0).await.unwrap();
        let _second = budget.admit(Urgency::Sweep, 5.0, Instant::now() + Duration::from_secs(5)).await.unwrap();
    }
}
