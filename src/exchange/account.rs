//! What the account allows: whether it takes the gateway's credential, and what to change where it does not.
//!
//! The account is asked when the gateway starts and every so often, by `preflight`, and by every request that it refuses in a
//! way that speaks of the gateway and not of the request. Nothing here stops anything: the answer is for `/readyz`, `/status` and
//! the log, so that whoever reads 503 `credential.unavailable` finds out what to do.

use std::{fmt, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use serde::{Deserialize, de::IgnoredAny};
use url::Url;

use super::ExchangeError;
use crate::{
    access::{
        ContainerName, Enforcer,
        headers::{API_VERSION, DATE, SUBSTATUS, VERSION, number},
    },
    clock::{Clock, Timestamp},
    transport::{Transport, percent_encode},
};

/// Longest that one question may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// Largest answer read: a container with its indexing policy.
const LARGEST_ANSWER: usize = 256 * 1024;

/// Why the account does not take the gateway's credential.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AccountError {
    /// There is no credential to show.
    #[error("there is no credential to show the account: {0}")]
    Credential(ExchangeError),
    /// No answer.
    #[error("the account cannot be reached: {reason}; check cosmos.endpoint, its name in DNS, and the way out to it")]
    Unreachable {
        /// What happened.
        reason: String,
    },
    /// The account takes no keys and no resource tokens.
    #[error(
        "the account takes no keys (401/{substatus}: local authentication is disabled); set cosmos.credential.kind to \
         entra (docs/entra.md), or enable local authentication"
    )]
    LocalAuthDisabled {
        /// 5202 or 5203.
        substatus: u32,
    },
    /// The account does not know the key.
    #[error(
        "the account does not accept the account key (401/{substatus}); check that it is this account's key and current, \
         and the gateway's clock"
    )]
    KeyRefused {
        /// `x-ms-substatus`, 0 when there was none.
        substatus: u32,
    },
    /// The account does not accept the Entra token.
    #[error(
        "the account does not accept the gateway's Entra token (401/{substatus}); check cosmos.credential.scope, and that \
         the identity is of the account's tenant"
    )]
    TokenRefused {
        /// `x-ms-substatus`, 0 when there was none.
        substatus: u32,
    },
    /// No role assignment lets the gateway's identity do this.
    #[error(
        "the gateway's Entra identity has no role for this (403/{substatus}); assign it Cosmos DB Built-in Data Contributor \
         (00000000-0000-0000-0000-000000000002) with `az cosmosdb sql role assignment create` (docs/entra.md)"
    )]
    RoleMissing {
        /// 5300 to 5303.
        substatus: u32,
    },
    /// The account's network does not let the gateway in.
    #[error(
        "the account's firewall or network perimeter refuses the gateway (403/{substatus}); allow its address, its subnet or a \
         private endpoint"
    )]
    Firewall {
        /// 0 or 5307.
        substatus: u32,
    },
    /// The database or the container is not there.
    #[error("there is no container {0} in the account; make it, or correct the grants that name it")]
    NotFound(ContainerName),
    /// Anything else.
    #[error("the account answered {status}/{substatus}")]
    BadAnswer {
        /// The status.
        status: u16,
        /// `x-ms-substatus`, 0 when there was none.
        substatus: u32,
    },
}

impl AccountError {
    /// What a refusal says of the account, if it speaks of the gateway's credential. `enforcer` says of which kind that is.
    pub(super) fn of_refusal(enforcer: Enforcer, status: u16, substatus: u32) -> Option<Self> {
        Some(match (status, substatus, enforcer) {
            (401, 5202 | 5203, _) => Self::LocalAuthDisabled { substatus },
            (401, _, Enforcer::Cosmos) => Self::KeyRefused { substatus },
            (401, _, Enforcer::Stepgate) => Self::TokenRefused { substatus },
            (403, 5300..=5303, _) => Self::RoleMissing { substatus },
            (403, 0 | 5307, _) => Self::Firewall { substatus },
            _ => return None,
        })
    }
}

/// The account at the time it was last asked, or refused something.
#[derive(Clone, Debug)]
pub struct AccountStatus {
    /// When.
    pub at: Timestamp,
    /// What was wrong; `None` when it takes the credential.
    pub error: Option<AccountError>,
}

/// What matters of a container.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ContainerFacts {
    /// How many levels its partition key has.
    pub levels: usize,
    /// Its `defaultTtl`: `None` where items never end, `-1` where each says so itself.
    pub default_ttl: Option<i64>,
}

/// Signs the question for the account's own document: given the value of `x-ms-date`, and whether the signature before was
/// refused, it gives that of `Authorization`.
pub(super) struct Signer(Box<Sign>);

type Sign = dyn Fn(String, bool) -> BoxFuture<'static, Result<HeaderValue, ExchangeError>> + Send + Sync;

impl Signer {
    pub(super) fn new(
        sign: impl Fn(String, bool) -> BoxFuture<'static, Result<HeaderValue, ExchangeError>> + Send + Sync + 'static,
    ) -> Self {
        Self(Box::new(sign))
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer")
    }
}

/// The way to ask, and what was heard last.
#[derive(Debug)]
pub(super) struct Account {
    endpoint: Url,
    enforcer: Enforcer,
    signer: Signer,
    transport: Transport,
    clock: Clock,
    heard: ArcSwapOption<AccountStatus>,
}

impl Account {
    pub(super) fn new(endpoint: Url, enforcer: Enforcer, signer: Signer, transport: Transport, clock: Clock) -> Self {
        Self { endpoint, enforcer, signer, transport, clock, heard: ArcSwapOption::empty() }
    }

    /// Which kind of credential the account is shown.
    pub(super) fn enforcer(&self) -> Enforcer {
        self.enforcer
    }

    pub(super) fn status(&self) -> Option<AccountStatus> {
        self.heard.load().as_deref().cloned()
    }

    /// The value of `x-ms-date` of a question that is asked now.
    pub(super) fn date(&self) -> String {
        self.clock.now().http_date()
    }

    /// Notes what was heard, and tells the log when it is something else than before.
    pub(super) fn note(&self, error: Option<AccountError>) {
        let text = error.as_ref().map(ToString::to_string);
        let before = self.heard.load().as_deref().and_then(|heard| Some(heard.error.as_ref()?.to_string()));
        match (&text, before) {
            (Some(error), before) if before.as_ref() != Some(error) => tracing::error!(%error, "the account refuses"),
            (None, Some(_)) => tracing::info!("the account takes the gateway's credential again"),
            _ => {}
        }
        self.heard.store(Some(Arc::new(AccountStatus { at: self.clock.now(), error })));
    }

    /// The account's own document, from the configured endpoint, or from that of one of its regions.
    pub(super) async fn document(&self, endpoint: Option<&Url>) -> Result<Response<Bytes>, AccountError> {
        let ask = async |refused: bool| {
            let date = self.date();
            let authorization = (self.signer.0)(date.clone(), refused).await.map_err(AccountError::Credential)?;
            let answer = self.ask(endpoint.unwrap_or(&self.endpoint), "/".to_owned(), authorization, &date).await?;
            judge(self.enforcer, None, &answer).map(|()| answer)
        };
        match ask(false).await {
            // A key that was rotated a moment ago is read anew before anybody is told that it is refused.
            Err(AccountError::KeyRefused { .. }) => ask(true).await,
            answered => answered,
        }
    }

    /// What matters of a container, if it is there.
    pub(super) async fn container(
        &self,
        container: &ContainerName,
        authorization: HeaderValue,
        date: &str,
    ) -> Result<ContainerFacts, AccountError> {
        let (database, name) = (percent_encode(container.database()), percent_encode(container.container()));
        let path = format!("/dbs/{database}/colls/{name}");
        let answer = self.ask(&self.endpoint, path, authorization, date).await?;
        judge(self.enforcer, Some(container), &answer)?;
        facts(&answer)
    }

    async fn ask(
        &self,
        endpoint: &Url,
        path: String,
        authorization: HeaderValue,
        date: &str,
    ) -> Result<Response<Bytes>, AccountError> {
        let unreachable = |reason: String| AccountError::Unreachable { reason };
        let uri = Uri::builder().scheme(endpoint.scheme()).authority(endpoint.authority());
        let uri = uri.path_and_query(path).build().map_err(|error| unreachable(error.to_string()))?;
        let request = Request::builder()
            .method(Method::GET)
            .uri(uri)
            .header(http::header::AUTHORIZATION, authorization)
            .header(http::header::ACCEPT, "application/json")
            .header(DATE, date)
            .header(VERSION, API_VERSION)
            .body(Full::new(Bytes::new()))
            .map_err(|error| unreachable(error.to_string()))?;
        let asked = self.transport.exchange(request, LARGEST_ANSWER, DEADLINE).await;
        asked.map_err(|error| unreachable(error.to_string()))
    }
}

/// What the answer to a question says.
fn judge(enforcer: Enforcer, container: Option<&ContainerName>, answer: &Response<Bytes>) -> Result<(), AccountError> {
    let (status, substatus) = (answer.status().as_u16(), number(answer.headers(), &SUBSTATUS).unwrap_or_default());
    if answer.status().is_success() {
        return Ok(());
    }
    if let (StatusCode::NOT_FOUND, Some(container)) = (answer.status(), container) {
        return Err(AccountError::NotFound(container.clone()));
    }
    Err(AccountError::of_refusal(enforcer, status, substatus).unwrap_or(AccountError::BadAnswer { status, substatus }))
}

/// What the container's own document says.
fn facts(answer: &Response<Bytes>) -> Result<ContainerFacts, AccountError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Container {
        partition_key: Definition,
        default_ttl: Option<i64>,
    }
    #[derive(Deserialize)]
    struct Definition {
        paths: Vec<IgnoredAny>,
    }
    let refuse = |_| AccountError::BadAnswer { status: answer.status().as_u16(), substatus: 0 };
    let container: Container = serde_json::from_slice(answer.body()).map_err(refuse)?;
    Ok(ContainerFacts { levels: container.partition_key.paths.len(), default_ttl: container.default_ttl })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_to_change() {
        use Enforcer::{Cosmos, Stepgate};
        for (enforcer, status, substatus, mend) in [
            (Cosmos, 401, 5202, "set cosmos.credential.kind to entra"),
            (Cosmos, 401, 5203, "enable local authentication"),
            (Stepgate, 401, 5202, "local authentication is disabled"),
            (Cosmos, 401, 0, "check that it is this account's key"),
            (Stepgate, 401, 5008, "check cosmos.credential.scope"),
            (Stepgate, 403, 5300, "role assignment create"),
            (Stepgate, 403, 5301, "role assignment create"),
            (Stepgate, 403, 5302, "role assignment create"),
            (Stepgate, 403, 0, "firewall"),
            (Cosmos, 403, 5307, "network perimeter"),
        ] {
            let error = AccountError::of_refusal(enforcer, status, substatus).unwrap();
            assert!(error.to_string().contains(mend), "{status}/{substatus}: {error}");
        }
        for (status, substatus) in [(403, 3), (403, 1008), (403, 1014), (404, 0), (429, 3200), (503, 0), (200, 0)] {
            assert!(AccountError::of_refusal(Cosmos, status, substatus).is_none(), "{status}/{substatus}");
        }
    }
}
