//! The gateway's own Entra tokens, for accounts that take no keys.
//!
//! An Entra token opens every container that the gateway's role assignments name, in all their partitions: Azure's native RBAC
//! knows no smaller scope. So the permit's scope travels beside the token, in the [`Warrant`](super::Warrant), and `upstream`
//! holds each request to it before it leaves.
//!
//! The token is fetched by azure_identity over `crate::transport`, kept here, renewed in the background when a fifth of its life
//! is left, and used until shortly before its end; so an outage of Entra is not noticed by traffic for as long. azure_identity
//! keeps one too, but would renew it while requests wait: a credential is therefore made for each fetch and dropped after it.

mod assertion;
mod config;
mod error;
mod http;

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use ::http::HeaderValue;
use arc_swap::ArcSwapOption;
use azure_core::{
    cloud::{CloudConfiguration, CustomConfiguration},
    credentials::TokenCredential,
    http::{ClientOptions, RetryOptions},
};
use azure_identity::{
    ClientAssertionCredential, ClientAssertionCredentialOptions, ClientSecretCredential, ClientSecretCredentialOptions,
    ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId, WorkloadIdentityCredential,
    WorkloadIdentityCredentialOptions,
};
use futures_util::future::BoxFuture;
use moka::{future::Cache, ops::compute::Op};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

pub use self::{
    assertion::AssertionError,
    config::{AssertionSource, EntraConfig, EntraIdentity, SecretSource},
    error::EntraError,
};
use self::{
    assertion::{Assertion, Web},
    http::OverTransport,
};
use super::token::header_value;
use crate::{
    access::Subject,
    clock::{Clock, Timestamp},
    secret::Secret,
    transport::Transport,
};

/// A token is not used in the last minute of its life: the longest request (with its retries) must fit in.
const MARGIN: Duration = Duration::from_secs(60);
/// A token younger than this that is refused is evidence that another would not help.
const PAUSE: Duration = Duration::from_secs(5);
/// How long a failure answers for those after it.
const FAILURE_HOLDS: Duration = Duration::from_secs(2);
/// Longest that one fetch may take.
const DEADLINE: Duration = Duration::from_secs(15);
/// Most tokens kept at once: one, unless each workflow has its own.
const MOST_TOKENS: u64 = 10_000;
/// No token is kept for longer, whatever it says of itself.
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 3600);

/// The one maker of an [`EntraToken`].
#[derive(Debug)]
pub(super) struct Entra {
    desk: Arc<Desk>,
    renewals: TaskTracker,
    stop: CancellationToken,
    /// Ends the renewals under way when this is dropped.
    _stop_on_drop: DropGuard,
}

/// A token of Entra, in the form in which it leaves for Cosmos.
#[derive(Debug)]
pub(super) struct EntraToken {
    pub(super) authorization: HeaderValue,
    bearer: Bearer,
    fetched: Timestamp,
    expires: Timestamp,
    serial: u64,
    /// Not before this moment (in milliseconds) does a request start a renewal; whoever moves it on starts one.
    next_renewal: AtomicI64,
}

/// Whose token.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Bearer {
    /// The gateway's own.
    Gateway,
    /// A workflow's: Entra took the workflow's token for the assertion.
    Workflow(Subject),
}

/// A fetch that failed.
#[derive(Clone, Debug)]
pub struct EntraTrouble {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub error: EntraError,
}

/// How the Entra side stands.
#[derive(Clone, Debug)]
pub struct EntraStatus {
    /// `managed_identity`, `workload_identity`, `client_secret`, `client_certificate` or `federated`.
    pub identity: &'static str,
    /// Tokens fetched since the start.
    pub fetches: u64,
    /// When the gateway's own token ends.
    pub expires: Option<Timestamp>,
    /// The last fetch that failed, unless a later one succeeded.
    pub last_error: Option<EntraTrouble>,
}

impl Entra {
    pub(super) fn new(config: EntraConfig, transport: Transport, clock: Clock) -> Self {
        let desk = Desk {
            config,
            transport,
            clock,
            web: Web::default(),
            tokens: Cache::builder().max_capacity(MOST_TOKENS).time_to_live(LONGEST_LIFE).build(),
            failures: Cache::builder().max_capacity(MOST_TOKENS).time_to_live(FAILURE_HOLDS).build(),
            fetches: AtomicU64::new(0),
            trouble: ArcSwapOption::empty(),
        };
        let stop = CancellationToken::new();
        let _stop_on_drop = stop.clone().drop_guard();
        Self { desk: Arc::new(desk), renewals: TaskTracker::new(), stop, _stop_on_drop }
    }

    /// The token for a request of `subject`, whose own token is `presented`.
    pub(super) async fn token(
        &self,
        subject: &Subject,
        presented: Option<&Secret>,
    ) -> Result<Arc<EntraToken>, EntraError> {
        let bearer = self.bearer(subject);
        let now = self.desk.clock.now();
        match self.desk.tokens.get(&bearer).await {
            Some(token) if token.is_usable(now) => {
                self.renew_if_due(&token, presented, now);
                Ok(token)
            }
            _ => self.desk.fetch_unless(bearer, presented, EntraToken::is_usable).await,
        }
    }

    /// The token to try once more with, after Cosmos refused `stale`.
    pub(super) async fn renew(
        &self,
        stale: &EntraToken,
        presented: Option<&Secret>,
    ) -> Result<Arc<EntraToken>, EntraError> {
        let age = self.desk.clock.now().since(stale.fetched);
        if age < PAUSE {
            return Err(EntraError::Throttled { retry_after: PAUSE - age });
        }
        let is_newer = |token: &EntraToken, now| token.serial > stale.serial && token.is_usable(now);
        self.desk.fetch_unless(stale.bearer.clone(), presented, is_newer).await
    }

    /// The gateway's own token, where it has one: none where each workflow's own token is the assertion.
    pub(super) async fn own(&self) -> Result<Arc<EntraToken>, EntraError> {
        self.desk.fetch_unless(Bearer::Gateway, None, EntraToken::is_usable).await
    }

    /// Proves the gateway to the account by its own token, where it has one.
    pub(super) fn account_signer(
        &self,
    ) -> impl Fn(String, bool) -> BoxFuture<'static, Result<HeaderValue, super::ExchangeError>> + Send + Sync + 'static
    {
        let desk = Arc::clone(&self.desk);
        move |_, _| {
            let desk = Arc::clone(&desk);
            Box::pin(async move {
                let token = desk.fetch_unless(Bearer::Gateway, None, EntraToken::is_usable).await?;
                Ok(token.authorization.clone())
            })
        }
    }

    /// Makes credentials for the gateway's own use of azure_data_cosmos.
    pub(super) fn credential_maker(
        &self,
    ) -> impl Fn() -> Result<Arc<dyn TokenCredential>, Box<dyn std::error::Error + Send + Sync>> + Send + Sync + 'static
    {
        let desk = Arc::clone(&self.desk);
        move || Ok(desk.credential(None)?)
    }

    pub(super) async fn status(&self) -> EntraStatus {
        let own = self.desk.tokens.get(&Bearer::Gateway).await;
        EntraStatus {
            identity: self.desk.config.identity.kind(),
            fetches: self.desk.fetches.load(Ordering::Relaxed),
            expires: own.map(|token| token.expires),
            last_error: self.desk.trouble.load().as_deref().cloned(),
        }
    }

    pub(super) fn is_per_workflow(&self) -> bool {
        self.desk.config.identity.is_per_workflow()
    }

    fn bearer(&self, subject: &Subject) -> Bearer {
        if self.is_per_workflow() { Bearer::Workflow(subject.clone()) } else { Bearer::Gateway }
    }

    /// Starts to replace `token` ahead of its end, in the background, if nobody did; the caller goes on with `token`.
    fn renew_if_due(&self, token: &Arc<EntraToken>, presented: Option<&Secret>, now: Timestamp) {
        if !token.claim_renewal(now) {
            return;
        }
        let (desk, stale, presented) = (Arc::clone(&self.desk), Arc::clone(token), presented.cloned());
        let renewal = async move {
            let is_newer = |token: &EntraToken, _| token.serial > stale.serial;
            if let Err(error) = desk.fetch_unless(stale.bearer.clone(), presented.as_ref(), is_newer).await {
                tracing::warn!(%error, "the Entra token could not be renewed");
            }
        };
        self.renewals.spawn(self.stop.clone().run_until_cancelled_owned(renewal));
    }
}

impl EntraToken {
    fn is_usable(&self, now: Timestamp) -> bool {
        now < self.expires.minus(MARGIN)
    }

    /// Whether the caller, at `now`, is the one to start a renewal. Then nobody else is until a twentieth of the life passed.
    fn claim_renewal(&self, now: Timestamp) -> bool {
        let due = self.next_renewal.load(Ordering::Relaxed);
        let next = now.plus(self.expires.since(self.fetched) / 20).as_millis();
        now.as_millis() >= due
            && self.next_renewal.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// The tokens and what fetches them, shared with the renewals.
#[derive(Debug)]
struct Desk {
    config: EntraConfig,
    transport: Transport,
    clock: Clock,
    web: Web,
    tokens: Cache<Bearer, Arc<EntraToken>>,
    failures: Cache<Bearer, EntraError>,
    fetches: AtomicU64,
    trouble: ArcSwapOption<EntraTrouble>,
}

impl Desk {
    /// Fetches, unless the token at hand by then will do. One caller per bearer is in here at a time; the old token stays
    /// in the cache until the new one is there.
    async fn fetch_unless(
        &self,
        bearer: Bearer,
        presented: Option<&Secret>,
        will_do: impl Fn(&EntraToken, Timestamp) -> bool,
    ) -> Result<Arc<EntraToken>, EntraError> {
        let fetched = self.tokens.entry_by_ref(&bearer).and_try_compute_with(async |entry| {
            let now = self.clock.now();
            if entry.is_some_and(|entry| will_do(entry.value(), now)) {
                return Ok(Op::Nop);
            }
            self.fetch(&bearer, presented).await.map(Op::Put)
        });
        // Only a nop on an empty entry has no value, and an empty entry is always filled.
        Ok(fetched.await?.into_entry().ok_or(EntraError::NoToken)?.into_value())
    }

    async fn fetch(&self, bearer: &Bearer, presented: Option<&Secret>) -> Result<Arc<EntraToken>, EntraError> {
        if let Some(error) = self.failures.get(bearer).await {
            return Err(error);
        }
        match self.ask(bearer, presented).await {
            Ok(token) => {
                self.trouble.store(None);
                Ok(Arc::new(token))
            }
            Err(error) => {
                tracing::warn!(%error, "no Entra token");
                self.trouble.store(Some(Arc::new(EntraTrouble { at: self.clock.now(), error: error.clone() })));
                self.failures.insert(bearer.clone(), error.clone()).await;
                Err(error)
            }
        }
    }

    async fn ask(&self, bearer: &Bearer, presented: Option<&Secret>) -> Result<EntraToken, EntraError> {
        let credential = self.credential(presented)?;
        let fetched = self.clock.now();
        let scopes = [self.config.scope.as_str()];
        let asked = tokio::time::timeout(DEADLINE, credential.get_token(&scopes, None)).await;
        let answer = asked.map_err(|_| EntraError::Deadline(DEADLINE))?.map_err(|error| EntraError::of(&error))?;
        let life = u64::try_from((answer.expires_on - azure_core::time::OffsetDateTime::now_utc()).whole_seconds());
        let life = Duration::from_secs(life.unwrap_or_default()).min(LONGEST_LIFE);
        Ok(EntraToken {
            authorization: header_value(&format!("type=aad&ver=1.0&sig={}", answer.token.secret())),
            bearer: bearer.clone(),
            fetched,
            expires: fetched.plus(life),
            serial: self.fetches.fetch_add(1, Ordering::Relaxed) + 1,
            next_renewal: AtomicI64::new(fetched.plus(life * 4 / 5).as_millis()),
        })
    }

    /// A fresh credential: it holds no token yet.
    fn credential(&self, presented: Option<&Secret>) -> Result<Arc<dyn TokenCredential>, EntraError> {
        let setup = |error: azure_core::Error| EntraError::of(&error);
        Ok(match &self.config.identity {
            EntraIdentity::ManagedIdentity { client_id } => {
                let options = ManagedIdentityCredentialOptions {
                    user_assigned_id: client_id.clone().map(UserAssignedId::ClientId),
                    client_options: self.options(),
                };
                ManagedIdentityCredential::new(Some(options)).map_err(setup)?
            }
            EntraIdentity::WorkloadIdentity { tenant_id, client_id, token_file } => {
                let options = WorkloadIdentityCredentialOptions {
                    credential_options: self.assertion_options(),
                    client_id: Some(client_id.clone()),
                    tenant_id: Some(tenant_id.clone()),
                    token_file_path: Some(token_file.clone()),
                };
                WorkloadIdentityCredential::new(Some(options)).map_err(setup)?
            }
            EntraIdentity::ClientSecret { tenant_id, client_id, secret } => {
                let secret = secret.read()?.expose().to_owned();
                let options = ClientSecretCredentialOptions { client_options: self.options() };
                ClientSecretCredential::new(tenant_id, client_id.clone(), secret.into(), Some(options))
                    .map_err(setup)?
            }
            EntraIdentity::ClientCertificate { tenant_id, client_id, file } => {
                let audience = self.token_endpoint(tenant_id);
                let assertion = Assertion::certificate(file, client_id, audience, self.clock.clone());
                self.by_assertion(tenant_id, client_id, assertion)?
            }
            EntraIdentity::Federated { tenant_id, client_id, assertion } => {
                let assertion = match assertion {
                    AssertionSource::File { path } => Assertion::File(path.clone()),
                    AssertionSource::AwsWebIdentity { audience } => {
                        Assertion::AwsWebIdentity { audience: audience.clone(), web: self.web.clone() }
                    }
                    AssertionSource::WorkflowToken => {
                        Assertion::Given(presented.cloned().ok_or(EntraError::PerWorkflow)?)
                    }
                };
                self.by_assertion(tenant_id, client_id, assertion)?
            }
        })
    }

    fn by_assertion(
        &self,
        tenant_id: &str,
        client_id: &str,
        assertion: Assertion,
    ) -> Result<Arc<dyn TokenCredential>, EntraError> {
        let options = Some(self.assertion_options());
        let made = ClientAssertionCredential::new(tenant_id.to_owned(), client_id.to_owned(), assertion, options);
        Ok(made.map_err(|error| EntraError::of(&error))?)
    }

    fn token_endpoint(&self, tenant_id: &str) -> String {
        format!("{}/{tenant_id}/oauth2/v2.0/token", self.config.authority.as_str().trim_end_matches('/'))
    }

    fn assertion_options(&self) -> ClientAssertionCredentialOptions {
        ClientAssertionCredentialOptions { client_options: self.options() }
    }

    /// azure_identity over the gateway's one HTTP client. It retries nothing: a fetch that fails is repeated by the next
    /// request, and meanwhile the token at hand is used.
    fn options(&self) -> ClientOptions {
        let over = OverTransport { transport: self.transport.clone(), authority: self.config.authority.clone() };
        let mut cloud = CustomConfiguration::default();
        cloud.authority_host = over.authority_by_https();
        ClientOptions {
            transport: Some(azure_core::http::Transport::new(Arc::new(over))),
            retry: RetryOptions::none(),
            cloud: Some(Arc::new(CloudConfiguration::Custom(cloud))),
            ..ClientOptions::default()
        }
    }
}

#[cfg(test)]
impl EntraToken {
    /// A token as the desk would make it.
    pub(super) fn for_test(jwt: &str) -> Self {
        Self {
            authorization: header_value(&format!("type=aad&ver=1.0&sig={jwt}")),
            bearer: Bearer::Gateway,
            fetched: Timestamp::from_secs(0),
            expires: Timestamp::from_millis(i64::MAX),
            serial: 0,
            next_renewal: AtomicI64::new(i64::MAX),
        }
    }
}

#[cfg(test)]
mod tests;
