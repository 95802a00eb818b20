//! The cache of one issuer's keys.
//!
//! [`KeyRing::keep_fresh`] alone fetches, at an interval and on demand, and replaces the set only by a complete one that
//! parsed; requests read the last set and never touch the network. A request with a `kid` that is not in the set rings
//! once and waits for the fetch that follows, together with everybody else who rang. A fetch that brought nothing new
//! answers for ten seconds, so that forged key ids cannot make the gateway hammer the issuer; a key id that was asked for
//! in vain is not asked for again for a while longer, unless the set changes. One that nobody asked for, since there was no
//! fetch to be had, is: it may be the issuer's new key.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::rand;
use tokio::sync::watch;

use moka::future::Cache;

use super::{
    config::{Algorithm, IssuerConfig},
    discovery::{self, FetchError},
    keys::{Key, KeySet, NoKey},
};
use crate::{
    clock::{Clock, Timestamp},
    transport::Transport,
};

/// How long no unknown `kid` causes a fetch after one of them caused one in vain.
const DEMAND_INTERVAL: Duration = Duration::from_secs(10);

/// How long a request waits for a fetch: both documents may take their whole deadline.
const LONGEST_WAIT: Duration = discovery::DOCUMENT_DEADLINE.saturating_mul(2);

/// How long a `kid` that no fetch brought does not ring again, and how many of them are remembered.
const UNKNOWN_FOR: Duration = Duration::from_secs(30);
const MOST_UNKNOWN: u64 = 1024;

/// However short or long an issuer says that its keys may be kept, they are asked for no more often and no less often than
/// this: a withdrawn key must stop working, and an issuer must not be hammered.
const SHORTEST_REFRESH: Duration = Duration::from_secs(60);
const LONGEST_REFRESH: Duration = Duration::from_secs(60 * 60);

/// The pause after the first failed fetch; it doubles with each further one, up to the refresh interval.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// Why there is no key for a token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Miss {
    /// The keys are known, and none is the token's.
    NoKey(NoKey),
    /// The keys are not known: never fetched, too old, or the issuer cannot be asked about this one.
    Unavailable,
}

/// One issuer's keys.
#[derive(Debug)]
pub(super) struct KeyRing {
    clock: Clock,
    max_staleness: Duration,
    state: watch::Sender<State>,
    /// The count of fetches that somebody waits for.
    demand: watch::Sender<u64>,
    /// Key ids that were asked for in vain, by their hash, since a key id is as long as its sender likes.
    unknown: Cache<u64, Timestamp>,
    hasher: RandomState,
}

/// What is known after the last fetch.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    /// The last set that parsed.
    pub(super) keys: Option<Arc<KeySet>>,
    /// When that set was fetched.
    pub(super) fetched: Option<Timestamp>,
    /// When the last fetch, good or not, began.
    pub(super) attempted: Option<Timestamp>,
    /// How long the issuer says that the set may be kept, within bounds; `None` where it does not say.
    pub(super) refresh: Option<Duration>,
    /// Fetches that ended.
    pub(super) fetches: u64,
    /// Fetches that failed since the last good one.
    pub(super) failures: u32,
    /// Why the last fetch failed; `None` when it did not.
    pub(super) error: Option<Arc<FetchError>>,
    /// When a fetch that was asked for last ended without a key that was not known before.
    vain: Option<Timestamp>,
    /// Whether a fetch is under way.
    busy: bool,
}

impl KeyRing {
    pub(super) fn new(clock: Clock, max_staleness: Duration) -> Self {
        let unknown = Cache::builder().max_capacity(MOST_UNKNOWN).time_to_live(UNKNOWN_FOR).build();
        Self {
            clock,
            max_staleness,
            state: watch::Sender::default(),
            demand: watch::Sender::default(),
            unknown,
            hasher: RandomState::new(),
        }
    }

    /// The key for a token, after a fetch if need be.
    pub(super) async fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<Arc<Key>, Miss> {
        match self.look_up(kid, algorithm) {
            Err(Miss::NoKey(NoKey::Unknown) | Miss::Unavailable) => {}
            settled => return settled,
        }
        let rung = kid.map(|kid| self.hasher.hash_one(kid));
        if let Some(rung) = rung
            && self.rang_in_vain(rung).await
        {
            return self.look_up(kid, algorithm);
        }
        let asked_for = self.refetched().await;
        match self.look_up(kid, algorithm) {
            // The key may be one that the issuer published since: it cannot be asked, so the token cannot be judged.
            Err(Miss::NoKey(NoKey::Unknown)) if self.state.borrow().error.is_some() => Err(Miss::Unavailable),
            Err(miss @ Miss::NoKey(NoKey::Unknown)) => {
                if let Some(rung) = rung.filter(|_| asked_for) {
                    self.unknown.insert(rung, self.clock.now()).await;
                }
                Err(miss)
            }
            settled => settled,
        }
    }

    /// Publishes `keys` as if they had just been fetched.
    #[cfg(test)]
    pub(super) fn install(&self, keys: KeySet) {
        let now = self.clock.now();
        self.state.send_modify(|state| {
            (state.keys, state.fetched, state.vain) = (Some(Arc::new(keys)), Some(now), Some(now));
        });
    }

    fn look_up(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<Arc<Key>, Miss> {
        let keys = self.keys(self.clock.now()).ok_or(Miss::Unavailable)?;
        keys.select(kid, algorithm).map_err(Miss::NoKey)
    }

    /// The set that is trusted at `now`.
    pub(super) fn keys(&self, now: Timestamp) -> Option<Arc<KeySet>> {
        let state = self.state.borrow();
        let fetched = state.fetched?;
        if now.since(fetched) > self.max_staleness {
            return None;
        }
        state.keys.clone()
    }

    /// What is known after the last fetch.
    pub(super) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Waits for the fetch under way, or for a new one unless one was made in vain lately; whether there was one to wait for.
    async fn refetched(&self) -> bool {
        let mut state = self.state.subscribe();
        let seen = {
            let state = state.borrow();
            if !state.busy && self.in_vain_lately(&state) {
                return false;
            }
            state.fetches
        };
        self.demand.send_if_modified(|wanted| {
            let rings = *wanted <= seen;
            *wanted = (*wanted).max(seen + 1);
            rings
        });
        let fetched = state.wait_for(|state| state.fetches > seen);
        // Running out of time leaves the old set in place, which is what the caller then judges by.
        let _ = tokio::time::timeout(LONGEST_WAIT, fetched).await;
        true
    }

    async fn rang_in_vain(&self, rung: u64) -> bool {
        self.unknown.get(&rung).await.is_some_and(|at| self.clock.now().since(at) < UNKNOWN_FOR)
    }

    fn in_vain_lately(&self, state: &State) -> bool {
        state.vain.is_some_and(|at| self.clock.now().since(at) < DEMAND_INTERVAL)
    }

    /// Fetches now, at intervals, and on demand, until dropped.
    pub(super) async fn keep_fresh(&self, transport: &Transport, issuer: &IssuerConfig) {
        let mut asked_for = false;
        loop {
            self.fetch(transport, issuer, asked_for).await;
            asked_for = self.rest(issuer).await;
        }
    }

    async fn fetch(&self, transport: &Transport, issuer: &IssuerConfig, asked_for: bool) {
        let now = self.clock.now();
        self.state.send_modify(|state| {
            state.busy = true;
            state.attempted = Some(now);
        });
        let fetched = discovery::fetch_keys(transport, issuer).await;
        let previous = self.state.borrow().keys.clone();
        let max_age = fetched.as_ref().ok().and_then(|fetched| fetched.max_age);
        let parsed = fetched
            .and_then(|fetched| KeySet::parse(&fetched.text, now, previous.as_deref()).ok_or(FetchError::NoUsableKeys));
        self.tell(issuer, &parsed, previous.as_deref());
        self.state.send_modify(|state| {
            state.busy = false;
            state.fetches += 1;
            let has_new = parsed.as_ref().is_ok_and(|keys| keys.has_new(previous.as_deref()));
            if has_new {
                self.unknown.invalidate_all();
                state.vain = None;
            } else if asked_for {
                state.vain = Some(now);
            }
            match parsed {
                Ok(keys) => {
                    state.keys = Some(Arc::new(keys));
                    state.fetched = Some(now);
                    state.refresh = max_age.map(|age| age.clamp(SHORTEST_REFRESH, LONGEST_REFRESH));
                    state.failures = 0;
                    state.error = None;
                }
                Err(error) => {
                    state.failures += 1;
                    state.error = Some(Arc::new(error));
                }
            }
        });
    }

    /// Says in the log what came of a fetch, where that is news or trouble.
    fn tell(&self, issuer: &IssuerConfig, parsed: &Result<KeySet, FetchError>, previous: Option<&KeySet>) {
        let issuer = &issuer.name;
        match parsed {
            Err(error) if self.keys(self.clock.now()).is_some() => {
                tracing::warn!(%issuer, %error, "the issuer's keys could not be fetched; the last ones stay in use");
            }
            Err(error) => {
                tracing::error!(%issuer, %error, "the issuer's keys could not be fetched; its tokens are refused");
            }
            Ok(keys) => {
                if self.state.borrow().failures > 0 {
                    tracing::info!(%issuer, "the issuer's keys can be fetched again");
                }
                let withdrawn = previous.is_some_and(|previous| previous.has_new(Some(keys)));
                if keys.has_new(previous) || withdrawn {
                    let ids: Vec<&str> = keys.iter().map(|key| key.id().unwrap_or("without an id")).collect();
                    tracing::info!(%issuer, keys = ids.join(", "), "the issuer's keys changed");
                }
            }
        }
    }

    /// Until the next fetch is due, or is asked for: then `true`. Who rang during the last fetch waits for that one, and so
    /// was served by it.
    async fn rest(&self, issuer: &IssuerConfig) -> bool {
        let fetches = self.state.borrow().fetches;
        let mut demand = self.demand.subscribe();
        tokio::select! {
            () = tokio::time::sleep(self.pause(issuer)) => false,
            _ = demand.wait_for(|wanted| *wanted > fetches) => true,
        }
    }

    /// The refresh interval, or a shorter pause after failures, less up to a tenth: so that gateways started together do
    /// not ask together.
    fn pause(&self, issuer: &IssuerConfig) -> Duration {
        let (failures, said) = {
            let state = self.state.borrow();
            (state.failures, state.refresh)
        };
        let refresh = said.unwrap_or(issuer.refresh);
        let whole = match failures.checked_sub(1) {
            None => refresh,
            Some(doublings) => FIRST_RETRY.saturating_mul(2_u32.saturating_pow(doublings)).min(refresh),
        };
        let mut random = [0];
        // Without randomness all gateways ask together, and no harm is done otherwise.
        let _ = rand::fill(&mut random);
        let [random] = random;
        whole - (whole / 10).mul_f64(f64::from(random) / 255.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    /// Of RFC 7517, appendix A.1.
    const KEYS: &[u8] = br#"{"keys": [{"kty": "EC", "crv": "P-256", "use": "sig", "kid": "old",
        "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}"#;

    #[tokio::test]
    async fn a_key_id_that_no_fetch_was_made_for_is_asked_for_when_one_can_be() {
        let clock = ManualClock::new(Timestamp::from_secs(0));
        let ring = KeyRing::new(Clock::Manual(clock.clone()), Duration::from_secs(3600));
        ring.install(KeySet::parse(KEYS, Timestamp::from_secs(0), None).unwrap());
        let refused = ring.find(Some("new"), Algorithm::ES256).await;
        assert_eq!(refused.unwrap_err(), Miss::NoKey(NoKey::Unknown), "another was asked for in vain a moment ago");
        clock.advance(DEMAND_INTERVAL);
        let mut demand = ring.demand.subscribe();
        tokio::select! {
            _ = ring.find(Some("new"), Algorithm::ES256) => panic!("it is refused without a fetch"),
            rung = demand.wait_for(|wanted| *wanted == 1) => assert!(rung.is_ok()),
        }
    }
}
