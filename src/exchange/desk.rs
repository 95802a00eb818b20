//! The exchange itself: one subject and its permit in, one warrant out, whatever the account takes.

use std::future::ready;

use futures_util::{FutureExt as _, TryFutureExt as _};

use super::{
    Broker, BrokerConfig, BrokerStatus, EntraConfig, EntraStatus, ExchangeError, KeyError, Warrant, broker::scope_of,
    entra::Entra, warrant::Credential,
};
use crate::{
    access::Enforcer,
    clock::Clock,
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

/// The one maker of a [`Warrant`].
#[derive(Debug)]
pub struct Exchange(Means);

#[derive(Debug)]
enum Means {
    ResourceTokens(Broker),
    Entra(Entra),
}

impl Exchange {
    /// An exchange that has read and sent nothing yet.
    pub fn new(config: Config, transport: Transport, clock: Clock) -> Self {
        Self(match config {
            Config::ResourceToken(config) => Means::ResourceTokens(Broker::new(config, transport, clock)),
            Config::Entra(config) => Means::Entra(Entra::new(config, transport, clock)),
        })
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
        let scope = scope_of(subject, permit)?;
        let credential = match &self.0 {
            Means::ResourceTokens(broker) => {
                Credential::ResourceToken(broker.exchange(subject, permit, activity).await?)
            }
            Means::Entra(entra) => Credential::Entra(entra.token(subject.subject(), presented).await?),
        };
        Ok(Warrant { credential, subject: subject.subject().clone(), scope })
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
        let credential = match (&self.0, &stale.credential) {
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
        match &self.0 {
            Means::ResourceTokens(_) => false,
            Means::Entra(entra) => entra.is_per_workflow(),
        }
    }

    /// Who holds requests to their scope.
    pub fn enforcer(&self) -> Enforcer {
        match &self.0 {
            Means::ResourceTokens(_) => Enforcer::Cosmos,
            Means::Entra(_) => Enforcer::Stepgate,
        }
    }

    /// The broker, where resource tokens are minted.
    pub fn broker(&self) -> Option<&Broker> {
        match &self.0 {
            Means::ResourceTokens(broker) => Some(broker),
            Means::Entra(_) => None,
        }
    }

    /// Reads what opens the account for the gateway's own documents.
    pub fn account_key_reader(&self) -> AccountKeyReader {
        match &self.0 {
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
        match &self.0 {
            Means::ResourceTokens(broker) => ExchangeStatus::ResourceToken(broker.status().await),
            Means::Entra(entra) => ExchangeStatus::Entra(entra.status().await),
        }
    }

    /// Resource tokens minted since the start.
    pub fn mints(&self) -> u64 {
        self.broker().map_or(0, Broker::mints)
    }
}
