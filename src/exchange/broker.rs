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
use http::{HeaderValue, Method};
use moka::{future::Cache, ops::compute::Op, policy::EvictionPolicy};
use tokio::time::Instant;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use url::Url;

use super::{
    AccountKey, ExchangeError, KeyError, KeySource, KeyStatus, ResourceToken,
    budget::{Admission, Budget, BudgetStatus, Urgency},
    keyring::Keyring,
    permission::{Minted, PermissionClient},
    scope::TokenScope,
    signature::ToSign,
    signed::{self, Account},
    sweep::{SweepStatus, Sweeper},
    token::millis,
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
/// How many tokens of a scope may follow one another faster than that while the account key stays the same.
const QUICK_REMINTS: u32 = 2;
/// How long a failure to mint answers for its scope.
const FAILURE_HOLDS: Duration = Duration::from_secs(2);
/// Most failures remembered at once.
const MOST_FAILURES: u64 = 1_000;
/// How often the way to a mint is tried while nothing is to be minted; and how often once it is blocked.
const LOOK: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_secs(2);
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
    /// This gateway's share of the account's budget for metadata, in request units per second.
    pub units_per_second: u32,
    /// For how long nobody must have used a scope for its user and permission to be taken away: two days or more.
    pub unused_for: Duration,
}

/// The one maker of a [`ResourceToken`].
#[derive(Debug)]
pub struct Broker {
    mint: Arc<Mint>,
    sweeper: Sweeper,
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
    /// The share of the account's budget for metadata.
    pub budget: BudgetStatus,
    /// How the last sweep went.
    pub sweep: Option<Arc<SweepStatus>>,
    /// The last mint, if it failed.
    pub last_error: Option<MintTrouble>,
}

/// Mints that failed since the last that did not.
#[derive(Clone, Debug)]
pub struct MintTrouble {
    /// Since when.
    pub at: Timestamp,
    /// Why the last one did.
    pub error: ExchangeError,
}

impl Broker {
    /// A broker with an empty cache; nothing is read or sent before the first exchange.
    pub fn new(config: Config, transport: Transport, clock: Clock) -> Self {
        let account = Arc::new(Account {
            endpoint: config.endpoint,
            keyring: Keyring::new(config.key, clock.clone()),
            budget: Budget::new(config.units_per_second),
            transport,
            clock,
            ahead: AtomicI64::new(0),
        });
        Self::of(account, config.lifetime, config.cache_capacity, config.unused_for)
    }

    /// Another one on the same account, within the same budget and with the same key, whose tokens live `lifetime`.
    pub(super) fn beside(&self, lifetime: Duration) -> Self {
        let capacity = self.mint.tokens.policy().max_capacity().unwrap_or_default();
        Self::of(Arc::clone(&self.mint.client.account), lifetime, capacity, self.sweeper.unused_for())
    }

    fn of(account: Arc<Account>, lifetime: Duration, cache_capacity: u64, unused_for: Duration) -> Self {
        let clock = account.clock.clone();
        let client = PermissionClient { account: Arc::clone(&account), lifetime };
        let sweeper = Sweeper::new(account, clock.clone(), unused_for);
        // LRU, since moka's usual policy may turn a newcomer away from a full cache: that scope would mint at every request.
        let tokens = Cache::builder().max_capacity(cache_capacity).eviction_policy(EvictionPolicy::lru());
        let failures = Cache::builder().max_capacity(MOST_FAILURES).time_to_live(FAILURE_HOLDS * 2);
        let mint = Mint {
            client,
            clock,
            tokens: tokens.time_to_live(lifetime).build(),
            failures: failures.build(),
            mints: AtomicU64::new(0),
            trouble: ArcSwapOption::empty(),
            database: ArcSwapOption::empty(),
        };
        let stop = CancellationToken::new();
        let _stop_on_drop = stop.clone().drop_guard();
        Self { mint: Arc::new(mint), sweeper, renewals: TaskTracker::new(), stop, _stop_on_drop }
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
                let keyring = &mint.client.account.keyring;
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

    /// Signs the question for the account's own document with the key in use, read anew when Cosmos refused the one before.
    pub(super) fn account_signer(
        &self,
    ) -> impl Fn(String, bool) -> BoxFuture<'static, Result<HeaderValue, ExchangeError>> + Send + Sync + 'static {
        let mint = Arc::clone(&self.mint);
        move |date, refused| {
            let mint = Arc::clone(&mint);
            Box::pin(async move {
                let keyring = &mint.client.account.keyring;
                let key = keyring.current().await?;
                let another = if refused { keyring.another(&key, Instant::now()).await } else { None };
                let key = another.unwrap_or(key);
                Ok(ToSign { method: &Method::GET, resource_type: "", link: "", date: &date }.authorization(&key))
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
        let now = self.mint.clock.running();
        if let Some(token) = self.mint.tokens.get(&scope).await
            && is_usable(&token, now)
        {
            self.renew_if_due(&token, now, activity);
            return Ok(token);
        }
        // Its own place: what is seldom needed shall not make every walk larger.
        Box::pin(self.mint.mint_unless(&scope, activity, 0, None, is_usable)).await
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
        let age = self.mint.clock.running().saturating_sub(stale.minted);
        let is_newer = |token: &ResourceToken, now| token.serial > stale.serial && is_usable(token, now);
        if let Some(token) = self.mint.tokens.get(&scope).await
            && is_newer(&token, self.mint.clock.running())
        {
            return Ok(token);
        }
        let is_quick = age < REMINT_PAUSE && stale.turns == self.mint.client.account.keyring.turns();
        if is_quick && stale.quick_remints >= QUICK_REMINTS {
            return Err(ExchangeError::Throttled { retry_after: REMINT_PAUSE - age });
        }
        let quick_remints = if is_quick { stale.quick_remints + 1 } else { 1 };
        Box::pin(self.mint.mint_unless(&scope, activity, quick_remints, None, is_newer)).await
    }

    /// The account key in use.
    pub(super) async fn account_key(&self) -> Result<Arc<AccountKey>, KeyError> {
        self.mint.client.account.keyring.current().await
    }

    /// Reads the account key's source now, and looks whether tokens can be minted. What cannot be read leaves the key in use.
    pub async fn reload(&self) -> Result<(), KeyError> {
        let read = self.mint.client.account.keyring.reload().await;
        self.mint.look().await;
        read
    }

    /// What goes on beside the requests, until dropped: the account key is kept up to date, the way to a mint is looked at, and
    /// what nobody uses is swept.
    pub async fn keep_fresh(&self) {
        let key = self.mint.client.account.keyring.keep_fresh();
        tokio::join!(key, self.mint.keep_looking(), self.sweeper.keep_sweeping());
    }

    /// Tokens minted since the start.
    pub fn mints(&self) -> u64 {
        self.mint.mints.load(Ordering::Relaxed)
    }

    /// The share of the account's budget for metadata, and what was spent of it.
    pub fn budget(&self) -> BudgetStatus {
        self.mint.client.account.budget.status()
    }

    /// How the broker stands.
    pub async fn status(&self) -> BrokerStatus {
        BrokerStatus {
            key: self.mint.client.account.keyring.status().await,
            cached_tokens: self.mint.tokens.entry_count(),
            mints: self.mints(),
            budget: self.budget(),
            sweep: self.sweeper.status(),
            last_error: self.mint.trouble.load().as_deref().cloned(),
        }
    }

    /// Starts to replace `token` ahead of its end, in the background, if nobody did; the caller goes on with `token`.
    ///
    /// Leave to spend is waited for before the scope is taken hold of, so that a caller who needs the token meanwhile does not
    /// wait behind what is less urgent.
    fn renew_if_due(&self, token: &Arc<ResourceToken>, now: Duration, activity: &str) {
        let lifetime = self.mint.client.lifetime;
        if self.renewals.len() >= MOST_RENEWALS || !token.claim_renewal(now, lifetime / 20) {
            return;
        }
        let (mint, stale, activity) = (Arc::clone(&self.mint), Arc::clone(token), activity.to_owned());
        let renewal = async move {
            let until = Instant::now() + Urgency::Renewal.patience();
            let admitted = mint.client.account.budget.admit(Urgency::Renewal, signed::READ, until).await;
            let is_newer = |token: &ResourceToken, _| token.serial > stale.serial;
            let renewed = match admitted {
                Ok(admission) => mint.mint_unless(&stale.scope, &activity, 0, Some(admission), is_newer).await,
                Err(retry_after) => Err(ExchangeError::Throttled { retry_after }),
            };
            if let Err(error) = renewed {
                tracing::warn!(permission = &**stale.permission_id(), %error, "a resource token could not be renewed");
            }
        };
        self.renewals.spawn(self.stop.clone().run_until_cancelled_owned(renewal));
    }
}

/// The scope of a permit, once it is sure that the permit belongs to the subject.
pub(super) fn scope_of(subject: &VerifiedSubject, permit: &Permit) -> Result<TokenScope, ExchangeError> {
    if subject.subject() != permit.subject() || subject.client() != permit.client() {
        return Err(ExchangeError::Mismatch);
    }
    Ok(TokenScope::of(permit))
}

/// `now`: by the running clock.
fn is_usable(token: &ResourceToken, now: Duration) -> bool {
    now + MARGIN < token.ends
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
    /// The last mint that failed, until one succeeds.
    trouble: ArcSwapOption<MintTrouble>,
    /// The database of the last scope minted for.
    database: ArcSwapOption<String>,
}

impl Mint {
    /// Mints, unless the token at hand by then will do. One caller per scope is in here at a time; the old token stays in
    /// the cache until the new one is there.
    async fn mint_unless(
        &self,
        scope: &TokenScope,
        activity: &str,
        quick_remints: u32,
        admission: Option<Admission>,
        will_do: impl Fn(&ResourceToken, Duration) -> bool,
    ) -> Result<Arc<ResourceToken>, ExchangeError> {
        let minted = self.tokens.entry_by_ref(scope).and_try_compute_with(async |entry| {
            let now = self.clock.running();
            if entry.is_some_and(|entry| will_do(entry.value(), now)) {
                return Ok(Op::Nop);
            }
            self.mint(scope, activity, quick_remints, admission).await.map(Op::Put)
        });
        // Only a nop on an empty entry has no value, and an empty entry is always filled.
        Ok(minted.await?.into_entry().ok_or(ExchangeError::Mismatch)?.into_value())
    }

    async fn mint(
        &self,
        scope: &TokenScope,
        activity: &str,
        quick_remints: u32,
        admission: Option<Admission>,
    ) -> Result<Arc<ResourceToken>, ExchangeError> {
        let keyring = &self.client.account.keyring;
        let turns = keyring.turns();
        if let Some(failure) = self.failures.get(scope).await
            && self.clock.running().saturating_sub(failure.at) < FAILURE_HOLDS
            && failure.turns == turns
        {
            return Err(failure.error);
        }
        let id = scope.id();
        match self.client.mint(scope, &id, activity, admission).await {
            Ok(minted) => {
                self.trouble.store(None);
                self.database.store(Some(Arc::new(scope.container().database().to_owned())));
                // The key was another by then: what was refused before says nothing of this token.
                let quick_remints = if keyring.turns() == turns { quick_remints } else { 0 };
                Ok(Arc::new(self.token(scope, id, minted, quick_remints)))
            }
            Err(error) => {
                self.note(&error);
                let turns = keyring.turns();
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
            expires: minted.asked.plus(lifetime),
            minted: minted.asked_running,
            ends: minted.asked_running + lifetime,
            serial: self.mints.fetch_add(1, Ordering::Relaxed) + 1,
            quick_remints,
            turns: self.client.account.keyring.turns(),
            next_renewal: AtomicU64::new(millis(minted.asked_running + lifetime * 4 / 5)),
        }
    }

    /// Looks every now and then, so that operators hear of trouble before callers do, and of its end.
    async fn keep_looking(&self) {
        loop {
            let trouble = self.trouble.load().is_some();
            tokio::time::sleep(if trouble { LOOK_AGAIN } else { LOOK }).await;
            self.look().await;
        }
    }

    /// Asks Cosmos for what a mint needs: that it takes the account key, and gives users.
    async fn look(&self) {
        // Before the first mint nothing is known to look at.
        let Some(database) = self.database.load_full() else { return };
        match self.client.look(&database).await {
            Ok(()) if self.trouble.load().as_ref().is_some_and(|trouble| trouble.error.concerns_all()) => {
                tracing::info!("resource tokens can be minted again");
                self.trouble.store(None);
            }
            Err(error) if error.concerns_all() => self.note(&error),
            _ => {}
        }
    }

    fn note(&self, error: &ExchangeError) {
        let earlier = self.trouble.load_full().filter(|trouble| trouble.error.concerns_all() == error.concerns_all());
        let at = earlier.map_or_else(|| self.clock.now(), |trouble| trouble.at);
        self.trouble.store(Some(Arc::new(MintTrouble { at, error: error.clone() })));
    }
}

#[cfg(test)]
mod tests;
