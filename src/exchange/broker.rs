//! The broker: gives a permit its key, and asks Cosmos for as few keys as it can.

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use futures_util::future::BoxFuture;
use moka::{future::Cache, ops::compute::Op, policy::EvictionPolicy};
use tokio::time::Instant;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use url::Url;

use super::{
    AccountKey, ExchangeError, KeyError, KeySource, KeyStatus, ResourceToken,
    keyring::Keyring,
    permission::{Minted, PermissionClient},
    scope::TokenScope,
};
use crate::{
    clock::{Clock, Timestamp},
    identity::VerifiedSubject,
    policy::Permit,
    secret::Secret,
    transport::Transport,
};

/// A token is not handed out in the last minute of its life: the longest request (with its retries) must fit in.
const MARGIN: Duration = Duration::from_secs(60);
/// A token younger than this that came of a refusal and is refused itself is evidence that yet another would not help.
const REMINT_PAUSE: Duration = Duration::from_secs(5);
/// How many tokens of a scope may follow one another faster than that: one for a rotated account key, and one to spare.
const QUICK_REMINTS: u32 = 2;
/// How long a failure to mint answers for its scope.
const FAILURE_HOLDS: Duration = Duration::from_secs(2);
/// Most failures remembered at once.
const MOST_FAILURES: u64 = 1_000;
/// Most renewals under way at once; a scope whose turn it is not starts its own at a later request.
const MOST_RENEWALS: usize = 16;

/// What the broker needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// The account, such as `https://account.documents.azure.com/`.
    pub endpoint: Url,
    /// Where the account key comes from.
    pub key: KeySource,
    /// How long a token lives: 10 minutes to 24 hours, which is what Cosmos takes.
    pub lifetime: Duration,
    /// Most tokens kept at once.
    pub cache_capacity: u64,
}

/// The one maker of a [`ResourceToken`].
#[derive(Debug)]
pub struct Broker {
    mint: Arc<Mint>,
    renewals: TaskTracker,
    stop: CancellationToken,
    /// Ends the renewals under way when the broker is dropped.
    _stop_on_drop: DropGuard,
}

/// How the broker stands, for `/status`.
#[derive(Clone, Debug)]
pub struct BrokerStatus {
    /// The account key.
    pub key: KeyStatus,
    /// Tokens at hand (about: the cache counts lazily).
    pub cached_tokens: u64,
    /// Tokens minted since the start.
    pub mints: u64,
    /// The last mint, if it failed.
    pub last_error: Option<MintTrouble>,
}

/// A mint that failed.
#[derive(Clone, Debug)]
pub struct MintTrouble {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub error: ExchangeError,
}

impl Broker {
    /// A broker with an empty cache; nothing is read or sent before the first exchange.
    pub fn new(config: Config, transport: Transport, clock: Clock) -> Self {
        let keyring = Keyring::new(config.key, clock.clone());
        let (endpoint, lifetime) = (config.endpoint, config.lifetime);
        let client = PermissionClient { endpoint, keyring, lifetime, transport, clock: clock.clone() };
        // LRU, since moka's usual policy may turn a newcomer away from a full cache: that scope would mint at every request.
        let tokens = Cache::builder().max_capacity(config.cache_capacity).eviction_policy(EvictionPolicy::lru());
        let failures = Cache::builder().max_capacity(MOST_FAILURES).time_to_live(FAILURE_HOLDS * 2);
        let mint = Mint {
            client,
            clock,
            tokens: tokens.time_to_live(lifetime).build(),
            failures: failures.build(),
            mints: AtomicU64::new(0),
            trouble: ArcSwapOption::empty(),
        };
        let stop = CancellationToken::new();
        let _stop_on_drop = stop.clone().drop_guard();
        Self { mint: Arc::new(mint), renewals: TaskTracker::new(), stop, _stop_on_drop }
    }

    /// Reads the account key in use for whoever else must sign with it, anew when Cosmos refused the one that is given.
    pub fn account_key_reader(
        &self,
    ) -> impl Fn(Option<Secret>) -> BoxFuture<'static, Result<Secret, Box<dyn Error + Send + Sync>>> + Send + Sync + 'static
    {
        let mint = Arc::clone(&self.mint);
        move |refused| {
            let mint = Arc::clone(&mint);
            Box::pin(async move {
                let keyring = &mint.client.keyring;
                let refused = refused.map(|refused| AccountKey::from_base64(refused.expose())).transpose()?;
                let another = match refused {
                    Some(refused) => keyring.another(&refused, Instant::now()).await,
                    None => None,
                };
                match another {
                    Some(key) => Ok(key.to_base64()),
                    None => Ok(keyring.current().await?.to_base64()),
                }
            })
        }
    }

    /// The token for what `permit` allows. Usually it is at hand; otherwise it is minted, once for all who ask meanwhile.
    /// `activity` (the request id) is what Azure logs the mint under.
    pub async fn exchange(
        &self,
        subject: &VerifiedSubject,
        permit: &Permit,
        activity: &str,
    ) -> Result<Arc<ResourceToken>, ExchangeError> {
        let scope = scope_of(subject, permit)?;
        let now = self.mint.clock.now();
        if let Some(token) = self.mint.tokens.get(&scope).await
            && is_usable(&token, now)
        {
            self.renew_if_due(&token, now, activity);
            return Ok(token);
        }
        self.mint.mint_unless(&scope, activity, 0, is_usable).await
    }

    /// The token to try once more with, after Cosmos refused `stale`: the one at hand if it is newer, else a new one. When
    /// the last few did not help either, it is [`ExchangeError::Throttled`] for a moment.
    pub async fn remint(
        &self,
        subject: &VerifiedSubject,
        permit: &Permit,
        stale: &ResourceToken,
        activity: &str,
    ) -> Result<Arc<ResourceToken>, ExchangeError> {
        let scope = scope_of(subject, permit)?;
        if scope != stale.scope {
            return Err(ExchangeError::Mismatch);
        }
        let age = self.mint.clock.now().since(stale.minted);
        let is_newer = |token: &ResourceToken, now| token.serial > stale.serial && is_usable(token, now);
        if let Some(token) = self.mint.tokens.get(&scope).await
            && is_newer(&token, self.mint.clock.now())
        {
            return Ok(token);
        }
        if age < REMINT_PAUSE && stale.quick_remints >= QUICK_REMINTS {
            return Err(ExchangeError::Throttled { retry_after: REMINT_PAUSE - age });
        }
        let quick_remints = if age < REMINT_PAUSE { stale.quick_remints + 1 } else { 1 };
        self.mint.mint_unless(&scope, activity, quick_remints, is_newer).await
    }

    /// Reads the account key's source now. What cannot be read leaves the key in use.
    pub async fn reload_key(&self) -> Result<(), KeyError> {
        self.mint.client.keyring.reload().await
    }

    /// Keeps the account key up to date, until dropped.
    pub async fn keep_fresh(&self) {
        self.mint.client.keyring.keep_fresh().await;
    }

    /// Tokens minted since the start.
    pub fn mints(&self) -> u64 {
        self.mint.mints.load(Ordering::Relaxed)
    }

    /// How the broker stands.
    pub async fn status(&self) -> BrokerStatus {
        BrokerStatus {
            key: self.mint.client.keyring.status().await,
            cached_tokens: self.mint.tokens.entry_count(),
            mints: self.mints(),
            last_error: self.mint.trouble.load().as_deref().cloned(),
        }
    }

    /// Starts to replace `token` ahead of its end, in the background, if nobody did; the caller goes on with `token`.
    fn renew_if_due(&self, token: &Arc<ResourceToken>, now: Timestamp, activity: &str) {
        let lifetime = self.mint.client.lifetime;
        if self.renewals.len() >= MOST_RENEWALS || !token.claim_renewal(now, lifetime / 20) {
            return;
        }
        let (mint, stale, activity) = (Arc::clone(&self.mint), Arc::clone(token), activity.to_owned());
        let renewal = async move {
            let is_newer = |token: &ResourceToken, _| token.serial > stale.serial;
            if let Err(error) = mint.mint_unless(&stale.scope, &activity, 0, is_newer).await {
                tracing::warn!(permission = stale.permission_id(), %error, "a resource token could not be renewed");
            }
        };
        self.renewals.spawn(self.stop.clone().run_until_cancelled_owned(renewal));
    }
}

/// The scope of a permit, once it is sure that the permit belongs to the subject.
fn scope_of(subject: &VerifiedSubject, permit: &Permit) -> Result<TokenScope, ExchangeError> {
    if subject.subject() != permit.subject() || subject.client() != permit.client() {
        return Err(ExchangeError::Mismatch);
    }
    Ok(TokenScope::of(permit))
}

fn is_usable(token: &ResourceToken, now: Timestamp) -> bool {
    now < token.expires.minus(MARGIN)
}

/// A mint that failed, for those who ask for the same a moment later.
#[derive(Clone, Debug)]
struct Failure {
    /// By the running clock.
    at: Duration,
    /// The keyring's count then: another key since may do what that one could not.
    turns: u64,
    error: ExchangeError,
}

/// The cache and what fills it, shared with the renewals.
#[derive(Debug)]
struct Mint {
    client: PermissionClient,
    clock: Clock,
    tokens: Cache<TokenScope, Arc<ResourceToken>>,
    failures: Cache<TokenScope, Failure>,
    mints: AtomicU64,
    trouble: ArcSwapOption<MintTrouble>,
}

impl Mint {
    /// Mints, unless the token at hand by then will do. One caller per scope is in here at a time; the old token stays in
    /// the cache until the new one is there.
    async fn mint_unless(
        &self,
        scope: &TokenScope,
        activity: &str,
        quick_remints: u32,
        will_do: impl Fn(&ResourceToken, Timestamp) -> bool,
    ) -> Result<Arc<ResourceToken>, ExchangeError> {
        let minted = self.tokens.entry_by_ref(scope).and_try_compute_with(async |entry| {
            let now = self.clock.now();
            if entry.is_some_and(|entry| will_do(entry.value(), now)) {
                return Ok(Op::Nop);
            }
            self.mint(scope, activity, quick_remints).await.map(Op::Put)
        });
        // Only a nop on an empty entry has no value, and an empty entry is always filled.
        Ok(minted.await?.into_entry().ok_or(ExchangeError::Mismatch)?.into_value())
    }

    async fn mint(
        &self,
        scope: &TokenScope,
        activity: &str,
        quick_remints: u32,
    ) -> Result<Arc<ResourceToken>, ExchangeError> {
        let turns = self.client.keyring.turns();
        if let Some(failure) = self.failures.get(scope).await
            && self.clock.running().saturating_sub(failure.at) < FAILURE_HOLDS
            && failure.turns == turns
        {
            return Err(failure.error);
        }
        let id = scope.id();
        match self.client.mint(scope, &id, activity).await {
            Ok(minted) => {
                self.trouble.store(None);
                Ok(Arc::new(self.token(scope, id, minted, quick_remints)))
            }
            Err(error) => {
                let trouble = MintTrouble { at: self.clock.now(), error: error.clone() };
                self.trouble.store(Some(Arc::new(trouble)));
                let turns = self.client.keyring.turns();
                let failure = Failure { at: self.clock.running(), turns, error: error.clone() };
                self.failures.insert(scope.clone(), failure).await;
                Err(error)
            }
        }
    }

    fn token(&self, scope: &TokenScope, id: String, minted: Minted, quick_remints: u32) -> ResourceToken {
        let lifetime = self.client.lifetime;
        ResourceToken {
            authorization: minted.authorization,
            permission_id: id.into(),
            scope: scope.clone(),
            minted: minted.asked,
            expires: minted.asked.plus(lifetime),
            serial: self.mints.fetch_add(1, Ordering::Relaxed) + 1,
            quick_remints,
            next_renewal: AtomicI64::new(minted.asked.plus(lifetime * 4 / 5).as_millis()),
        }
    }
}

#[cfg(test)]
mod tests;
