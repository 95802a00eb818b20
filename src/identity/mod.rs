//! Who asks: the one maker of a [`VerifiedSubject`].
//!
//! This room decides that a request carries exactly one token, that a trusted issuer signed it for this gateway, that it
//! is valid now, and that it is a workload's. The steps have an order that nothing can change:
//!
//! ```text
//! headers -extract-> token -parse-> UnverifiedClaims -(iss)-> issuer -verify-> VerifiedClaims -prove-> VerifiedSubject
//! ```
//!
//! The unverified claims are good for one thing, choosing the issuer; an issuer's keys are looked at only after that, so a
//! key id can never reach the keys of another issuer. Whether the holder is a workload is a question of its own after the
//! signature, answered only by positive proof (`profile`): people get tokens from the same issuers.
//!
//! What this room refuses to know: policy, revocations, and the address a request came from. There is no way to trust a
//! header or a network instead of a token, and no switch that turns a check off.
//!
//! Keys are fetched by [`Identity::keep_fresh`] alone, which the server runs; requests read the last set. See `keyring`
//! for why.

mod config;
mod discovery;
mod error;
mod extract;
mod facts;
#[cfg(fuzzing)]
pub mod fuzzing;
mod issuer;
mod keyring;
mod keys;
mod profile;
mod status;
mod strict;
mod subject;
mod token;
mod verified;
mod verify;

#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc};

use futures_util::future::join_all;
use http::HeaderMap;

pub use config::{Algorithm, ContextClaim, ContextMapping, Expect, IssuerConfig};
pub use discovery::{Document, FetchError};
pub use error::{Carrier, Class, IdentityError, Part, Proof, Reason};
pub use extract::WORKFLOW_HEADER;
pub use profile::{Part as ProofPart, Test as ProofTest};
pub use status::{IssuerStatus, KeyStatus};
pub use subject::VerifiedSubject;

use self::{
    issuer::Issuer,
    profile::Profile,
    verified::{Entry, Fingerprint, VerifiedTokens},
};
use crate::{
    access::{IssuerName, Subject, WorkloadKind},
    clock::Clock,
    secret::Secret,
    transport::Transport,
};

/// Whether strangers get tokens of every issuer of this kind.
pub fn is_shared(kind: WorkloadKind) -> bool {
    Profile::of(kind).shared
}

/// The issuers cannot stand beside each other.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IdentitySetup {
    /// Two issuers have one name.
    #[error("two issuers are called `{0}`; policy files could mean either, so rename one")]
    SameName(IssuerName),
    /// Two issuers have one url.
    #[error("the issuers `{0}` and `{1}` have the same url; make them one issuer with both audiences and client lists")]
    SameUrl(IssuerName, IssuerName),
}

/// Why a token is no workload's, and whose it is where that is known.
struct Doubt {
    reason: Reason,
    subject: Option<Box<Subject>>,
}

impl From<Reason> for Doubt {
    fn from(reason: Reason) -> Self {
        Self { reason, subject: None }
    }
}

/// The trusted issuers and their keys.
#[derive(Debug)]
pub struct Identity {
    /// In the order of the configuration.
    issuers: Vec<Arc<Issuer>>,
    by_url: HashMap<String, Arc<Issuer>>,
    verified: VerifiedTokens,
    transport: Transport,
    clock: Clock,
}

impl Identity {
    /// A room that trusts `issuers`. It fetches nothing by itself: see [`Identity::keep_fresh`].
    pub fn new(issuers: Vec<IssuerConfig>, transport: Transport, clock: Clock) -> Result<Self, IdentitySetup> {
        let issuers: Vec<Arc<Issuer>> =
            issuers.into_iter().map(|config| Arc::new(Issuer::new(config, clock.clone()))).collect();
        let mut names = HashMap::new();
        let mut by_url: HashMap<String, Arc<Issuer>> = HashMap::new();
        for issuer in &issuers {
            let config = issuer.config();
            if names.insert(config.name.clone(), ()).is_some() {
                return Err(IdentitySetup::SameName(config.name.clone()));
            }
            if let Some(other) = by_url.insert(config.url.clone(), Arc::clone(issuer)) {
                return Err(IdentitySetup::SameUrl(other.config().name.clone(), config.name.clone()));
            }
        }
        Ok(Self { issuers, by_url, verified: VerifiedTokens::new(), transport, clock })
    }

    /// Who sends a request with these headers.
    pub async fn authenticate(&self, headers: &HeaderMap) -> Result<VerifiedSubject, IdentityError> {
        self.verify(extract::extract(headers)?).await
    }

    /// Whose token this is, which stood in a body.
    pub async fn authenticate_token(&self, token: &Secret) -> Result<VerifiedSubject, IdentityError> {
        self.verify(extract::in_a_body(token.expose())?).await
    }

    async fn verify(&self, token: extract::PresentedToken<'_>) -> Result<VerifiedSubject, IdentityError> {
        let fingerprint = Fingerprint::of(&token.text);
        let now = self.clock.now();
        if let Some(subject) = self.verified.get(fingerprint, now).await {
            return Ok(subject);
        }
        match self.judge(&token.text).await {
            Ok(entry) => {
                let subject = entry.subject.clone();
                self.verified.insert(fingerprint, entry).await;
                Ok(subject)
            }
            Err(Doubt { reason, subject }) => Err(IdentityError { carrier: token.carrier, reason, subject }),
        }
    }

    /// The token of a request as it was presented, for a room that must pass it on; [`Self::authenticate`] says whose it is.
    pub fn presented(headers: &HeaderMap) -> Option<Secret> {
        extract::extract(headers).ok().map(|token| Secret::new(token.text.into_owned()))
    }

    async fn judge(&self, text: &str) -> Result<Entry, Doubt> {
        let token = token::parse(text)?;
        let issuer = token.claims.issuer().and_then(|url| self.by_url.get(url)).ok_or(Reason::UnknownIssuer)?;
        let config = issuer.config();
        let (verified, key) = verify::verify(token, issuer, &self.clock).await?;
        let workload = profile::prove(&verified, config).map_err(|reason| {
            let id = verified.claims().text(&config.subject_claim).filter(|id| !id.is_empty());
            let subject = id.map(|id| Box::new(Subject { issuer: config.name.clone(), id: id.into() }));
            Doubt { reason, subject }
        })?;
        let proven = subject::Proven {
            subject: Subject { issuer: config.name.clone(), id: workload.id },
            client: workload.client,
            kind: config.kind,
            context: facts::from_claims(verified.claims(), &config.context)?,
            claims: Arc::clone(verified.claims()),
            expires: verified.expires(),
        };
        Ok(Entry { subject: VerifiedSubject(Arc::new(proven)), issuer: Arc::clone(issuer), key })
    }

    /// Fetches every issuer's keys, at once and then for as long as it is polled. The server owns it; without it, no token
    /// can be judged.
    pub async fn keep_fresh(&self) {
        join_all(self.issuers.iter().map(|issuer| issuer.keys().keep_fresh(&self.transport, issuer.config()))).await;
    }

    /// The issuers and their keys as they stand, in the order of the configuration.
    pub fn status(&self) -> Vec<IssuerStatus> {
        let now = self.clock.now();
        self.issuers.iter().map(|issuer| issuer.status(now)).collect()
    }
}
