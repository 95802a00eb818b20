//! The exchange itself: one subject and its permit in, one warrant out, whatever the account takes.

use std::{error::Error, future::ready, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt as _, TryFutureExt as _, future::BoxFuture};
use http::{HeaderValue, Method};
use percent_encoding::percent_decode;
use url::Url;

use super::{
    AccountError, AccountStatus, Broker, BrokerConfig, BrokerStatus, ContainerFacts, EntraConfig, EntraStatus,
    ExchangeError, KeyError, ToSign, Warrant,
    account::{Account, Signer},
    broker::scope_of,
    entra::Entra,
    warrant::Credential,
};
use crate::{
    access::{ContainerName, Enforcer},
    clock::{Clock, Timestamp},
    identity::VerifiedSubject,
    policy::Permit,
    secret::{AccountCredential, AccountKeyReader, Secret},
    transport::Transport,
};

/// How the gateway proves itself to Cosmos.
#[derive(Clone, Debug)]
pub enum Config {
    /// By resource tokens, which it mints with the account key.
    ResourceToken(BrokerConfig),
    /// By its own Entra tokens.
    Entra(EntraConfig),
}

/// How the exchange stands, for `/status`.
#[derive(Clone, Debug)]
pub enum ExchangeStatus {
    /// By resource tokens.
    ResourceToken(BrokerStatus),
    /// By Entra tokens.
    Entra(EntraStatus),
}

/// How long a token that leaves the gateway lives: as short as Cosmos allows, since nobody can take it back.
const RELEASED_LIFE: Duration = Duration::from_secs(600);

/// A resource token on its way out.
#[derive(Debug)]
pub struct Released {
    /// The token, as Cosmos gave it.
    pub token: Secret,
    /// When it ends; Azure allows 15 minutes of skew beyond that.
    pub expires: Timestamp,
    /// What it opens.
    pub warrant: Warrant,
}

/// The account's own document on its way.
pub type AccountDocument = BoxFuture<'static, Result<Bytes, Box<dyn Error + Send + Sync>>>;

/// The one maker of a [`Warrant`].
#[derive(Debug)]
pub struct Exchange {
    means: Means,
    /// Mints the tokens that leave the gateway, where any may: they live as short as Cosmos allows.
    releaser: Option<Broker>,
    account: Arc<Account>,
}

#[derive(Debug)]
enum Means {
    ResourceTokens(Broker),
    Entra(Entra),
}

impl Exchange {
    /// An exchange that has read and sent nothing yet.
    pub fn new(config: Config, release_tokens: bool, transport: Transport, clock: Clock) -> Self {
        let endpoint = match &config {
            Config::ResourceToken(config) => config.endpoint.clone(),
            Config::Entra(config) => config.endpoint.clone(),
        };
        let means = match config {
            Config::ResourceToken(config) => {
                Means::ResourceTokens(Broker::new(config, transport.clone(), clock.clone()))
            }
            Config::Entra(config) => Means::Entra(Entra::new(config, transport.clone(), clock.clone())),
        };
        let releaser = match &means {
            Means::ResourceTokens(broker) if release_tokens => Some(broker.beside(RELEASED_LIFE)),
            _ => None,
        };
        let (enforcer, signer) = match &means {
            Means::ResourceTokens(broker) => (Enforcer::Cosmos, Signer::new(broker.account_signer())),
            Means::Entra(entra) => (Enforcer::Stepgate, Signer::new(entra.account_signer())),
        };
        let account = Arc::new(Account::new(endpoint, enforcer, signer, transport, clock));
        Self { means, releaser, account }
    }

    /// The warrant for what `permit` allows. `presented` is the token that proved the subject, where
    /// [`Self::wants_workflow_token`] asks for it; `activity` (the request id) is
    /// what Azure logs a mint under.
    pub async fn exchange(
        &self,
        subject: &VerifiedSubject,
        permit: &Permit,
        presented: Option<&Secret>,
        activity: &str,
    ) -> Result<Warrant, ExchangeError> {
        let (scope, credential) = match &self.means {
            Means::ResourceTokens(broker) => {
                let token = broker.exchange(subject, permit, activity).await?;
                (token.scope().clone(), Credential::ResourceToken(token))
            }
            Means::Entra(entra) => {
                let scope = scope_of(subject, permit)?;
                (scope, Credential::Entra(entra.token(subject.subject(), presented).await?))
            }
        };
        Ok(Warrant { credential, subject: subject.subject().clone(), scope })
    }

    /// Whether tokens leave the gateway.
    pub fn releases(&self) -> bool {
        self.releaser.is_some()
    }

    /// A resource token that leaves the gateway, for what `permit` allows.
    pub async fn release(
        &self,
        subject: &VerifiedSubject,
        permit: &Permit,
        activity: &str,
    ) -> Result<Released, ExchangeError> {
        let releaser = self.releaser.as_ref().ok_or(ExchangeError::Mismatch)?;
        let token = releaser.exchange(subject, permit, activity).await?;
        let text = percent_decode(token.authorization().as_bytes()).decode_utf8_lossy().into_owned();
        let expires = token.expires();
        let scope = token.scope().clone();
        let warrant =
            Warrant { credential: Credential::ResourceToken(token), subject: subject.subject().clone(), scope };
        Ok(Released { token: Secret::new(text), expires, warrant })
    }

    /// The warrant to try once more with, after Cosmos refused `stale`.
    pub async fn renew(
        &self,
        subject: &VerifiedSubject,
        permit: &Permit,
        stale: &Warrant,
        presented: Option<&Secret>,
        activity: &str,
    ) -> Result<Warrant, ExchangeError> {
        let scope = scope_of(subject, permit)?;
        if scope != stale.scope || *subject.subject() != stale.subject {
            return Err(ExchangeError::Mismatch);
        }
        let credential = match (&self.means, &stale.credential) {
            (Means::ResourceTokens(broker), Credential::ResourceToken(stale)) => {
                Credential::ResourceToken(broker.remint(subject, permit, stale, activity).await?)
            }
            (Means::Entra(entra), Credential::Entra(stale)) => Credential::Entra(entra.renew(stale, presented).await?),
            _ => return Err(ExchangeError::Mismatch),
        };
        Ok(Warrant { credential, subject: subject.subject().clone(), scope })
    }

    /// Whether each workflow's own token must come along, since Entra takes it for the assertion.
    pub fn wants_workflow_token(&self) -> bool {
        match &self.means {
            Means::ResourceTokens(_) => false,
            Means::Entra(entra) => entra.is_per_workflow(),
        }
    }

    /// Asks the account whether it takes the gateway's credential, and notes what it says. Accounts that take Entra tokens are
    /// asked for a container too, where one is given: their own document needs no role.
    pub async fn look(&self, container: Option<&ContainerName>) -> Result<(), AccountError> {
        let container = container.filter(|_| self.enforcer() == Enforcer::Stepgate);
        let looked = match self.account.document(None).await {
            Ok(_) => match container {
                // That a container is not there says nothing of the credential.
                Some(container) => match self.container(container).await {
                    Ok(_) | Err(AccountError::NotFound(_)) => Ok(()),
                    Err(error) => Err(error),
                },
                None => Ok(()),
            },
            Err(error) => Err(error),
        };
        self.account.note(looked.as_ref().err().cloned());
        looked
    }

    /// What matters of a container, if it is there.
    pub async fn container(&self, container: &ContainerName) -> Result<ContainerFacts, AccountError> {
        let date = self.account.date();
        let authorization = self.own_authorization(container, &date).await.map_err(AccountError::Credential)?;
        self.account.container(container, authorization, &date).await
    }

    async fn own_authorization(&self, container: &ContainerName, date: &str) -> Result<HeaderValue, ExchangeError> {
        match &self.means {
            Means::ResourceTokens(broker) => {
                let (key, link) = (broker.account_key().await?, container.link());
                Ok(ToSign { method: &Method::GET, resource_type: "colls", link: &link, date }.authorization(&key))
            }
            Means::Entra(entra) => Ok(entra.own().await?.authorization.clone()),
        }
    }

    /// Notes an answer to a request, where it refuses the gateway and not the request. A resource token that is refused with 403
    /// may merely have ended.
    pub fn note_refusal(&self, status: u16, substatus: Option<u32>) {
        // There the credential is the workflow's, and says nothing of the gateway.
        if self.wants_workflow_token() {
            return;
        }
        let substatus = substatus.unwrap_or_default();
        if self.enforcer() == Enforcer::Cosmos
            && !matches!((status, substatus), (401, 5202 | 5203) | (403, 5300..=5307))
        {
            return;
        }
        if let Some(error) = AccountError::of_refusal(self.enforcer(), status, substatus) {
            self.account.note(Some(error));
        }
    }

    /// What the account said last; `None` before it was asked.
    pub fn account(&self) -> Option<AccountStatus> {
        self.account.status()
    }

    /// Who holds requests to their scope.
    pub fn enforcer(&self) -> Enforcer {
        self.account.enforcer()
    }

    /// The broker, where resource tokens are minted.
    pub fn broker(&self) -> Option<&Broker> {
        match &self.means {
            Means::ResourceTokens(broker) => Some(broker),
            Means::Entra(_) => None,
        }
    }

    /// Reads what opens the account for the gateway's own documents.
    pub fn account_key_reader(&self) -> AccountKeyReader {
        match &self.means {
            Means::ResourceTokens(broker) => {
                let read = broker.account_key_reader();
                AccountKeyReader::new(move |refused| read(refused).map_ok(AccountCredential::Key).boxed())
            }
            Means::Entra(entra) => {
                let make = entra.credential_maker();
                AccountKeyReader::new(move |_| ready(make().map(AccountCredential::Entra)).boxed())
            }
        }
    }

    /// Reads the account's own document (`GET /`) at one of its endpoints, for whoever keeps its regions.
    pub fn account_reader(&self) -> impl Fn(Url) -> AccountDocument + Send + Sync + 'static {
        let account = Arc::clone(&self.account);
        move |endpoint| {
            let account = Arc::clone(&account);
            Box::pin(async move { Ok(account.document(Some(&endpoint)).await?.into_body()) })
        }
    }

    /// Reads the account key's source now, where there is a key. What cannot be read leaves the key in use.
    pub async fn reload(&self) -> Result<(), KeyError> {
        match self.broker() {
            Some(broker) => broker.reload().await,
            None => Ok(()),
        }
    }

    /// What goes on beside the requests where there is an account key, until dropped.
    pub async fn keep_fresh(&self) {
        if let Some(broker) = self.broker() {
            broker.keep_fresh().await;
        }
    }

    /// How it stands.
    pub async fn status(&self) -> ExchangeStatus {
        match &self.means {
            Means::ResourceTokens(broker) => {
                ExchangeStatus::ResourceToken(BrokerStatus { mints: self.mints(), ..broker.status().await })
            }
            Means::Entra(entra) => ExchangeStatus::Entra(entra.status().await),
        }
    }

    /// Resource tokens minted since the start.
    pub fn mints(&self) -> u64 {
        self.broker().into_iter().chain(&self.releaser).map(Broker::mints).sum()
    }
}
