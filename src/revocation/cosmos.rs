//! The list in a Cosmos container, for all replicas that share it.
//!
//! It is one document, which a replica reads again only when its etag moved: a look costs one request unit (a 304), and a
//! change two or three more. Replicas that change it at the same time meet at the etag, and the later one begins anew.

use std::{fmt, sync::Arc, time::Duration};

use azure_core::http::Etag;
use azure_data_cosmos::{
    CosmosClient, CosmosError, RoutingStrategy,
    clients::ContainerClient,
    options::{ItemReadOptions, ItemWriteOptions, Precondition},
};
use futures_util::future::FutureExt as _;
use http::StatusCode;
use tokio::time::timeout;
use url::Url;

use super::list::{DOCUMENT, List, Revocation, Unreadable};
use crate::{
    clock::Timestamp,
    secret::{AccountKeyReader, KeyError, Secret},
};

/// How long one call may take (each is boxed, since the client's futures are too deep for the compiler otherwise): a look that hangs must not keep a replica from the next for longer than it may be behind.
const PATIENCE: Duration = Duration::from_millis(1500);
/// How often a change begins anew when other replicas change the list at the same time.
const TRIES: u32 = 8;

/// A container that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CosmosStoreError {
    /// The account key.
    #[error("no account key for the revocations' container: {0}")]
    Key(KeyError),
    /// The endpoint.
    #[error("the revocations' account has no usable endpoint: {0}")]
    Endpoint(CosmosError),
    /// The container, or the way to it.
    #[error("the revocations in {container} cannot be reached: {source}")]
    Cosmos {
        /// Database and container.
        container: String,
        /// What the client said.
        source: CosmosError,
    },
    /// No answer in time.
    #[error("the revocations in {0} cannot be reached: no answer in time")]
    Deadline(String),
    /// The document was there and is not.
    #[error(
        "the revocations are gone from {0}: what is known stays revoked; revoke or lift something to write them anew"
    )]
    Gone(String),
    /// The document is no list.
    #[error("the document `{DOCUMENT}` in {container}: {source}")]
    Content {
        /// Database and container.
        container: String,
        /// What is wrong.
        source: Unreadable,
    },
    /// Other replicas changed the list each time.
    #[error("the revocations in {0} are being changed by others all the time; try again")]
    Contended(String),
}

/// The document and the client that reaches it.
pub(super) struct CosmosStore {
    endpoint: Url,
    database: String,
    container: String,
    account_key: AccountKeyReader,
    /// Made when first needed, and anew after Cosmos refused its key.
    client: Option<ContainerClient>,
    /// The key of the client, or the one that was refused last.
    key: Option<Secret>,
    etag: Option<Etag>,
}

impl CosmosStore {
    pub(super) fn new(endpoint: Url, database: String, container: String, account_key: AccountKeyReader) -> Self {
        Self { endpoint, database, container, account_key, client: None, key: None, etag: None }
    }

    /// The list, if it is another than the one read before. `known` is what must not be forgotten.
    pub(super) async fn read(&mut self, known: &List) -> Result<Option<List>, CosmosStoreError> {
        let unless = self.etag.clone().map(Precondition::IfNoneMatch);
        match self.fetch(unless).await? {
            Fetched::Unchanged => Ok(None),
            Fetched::Absent if known.len() > 0 => Err(CosmosStoreError::Gone(self.place())),
            Fetched::Absent => Ok(None),
            Fetched::List(list, etag) => {
                self.etag = etag;
                Ok(Some(list))
            }
        }
    }

    /// Adds to the list and takes out of it, whatever other replicas do meanwhile. Gives the list as it is then.
    pub(super) async fn change(
        &mut self,
        add: &[Arc<Revocation>],
        remove: Option<&str>,
        known: &List,
        now: Timestamp,
    ) -> Result<List, CosmosStoreError> {
        for _ in 0..TRIES {
            let (list, etag) = match self.fetch(None).await? {
                Fetched::List(list, etag) => (list, etag),
                // Gone or not made yet: what is known here is the list.
                Fetched::Absent | Fetched::Unchanged => (known.clone(), None),
            };
            let mut list = list.without_ended(now);
            for revocation in add {
                // A full list is the operator's to empty; what is in force here stays in force here.
                let _ = list.put(Arc::clone(revocation));
            }
            if let Some(id) = remove {
                list = list.without(id);
            }
            if self.store(&list, etag).await? {
                return Ok(list);
            }
        }
        Err(CosmosStoreError::Contended(self.place()))
    }

    async fn fetch(&mut self, unless: Option<Precondition>) -> Result<Fetched, CosmosStoreError> {
        let options = unless.map(|unless| ItemReadOptions::default().with_precondition(unless));
        let client = self.client().await?;
        let answer = timeout(PATIENCE, client.read_item(DOCUMENT, DOCUMENT, options).boxed()).await;
        match self.judge(answer) {
            Ok(answer) if u16::from(answer.status().status_code()) == 304 => Ok(Fetched::Unchanged),
            Ok(answer) => {
                let etag = answer.headers().etag().cloned();
                let bytes = answer.into_body().single().map_err(|source| self.failed(source))?;
                let content = |source| CosmosStoreError::Content { container: self.place(), source };
                Ok(Fetched::List(List::parse(&bytes).map_err(content)?, etag))
            }
            Err(CosmosStoreError::Cosmos { source, .. }) if status(&source) == StatusCode::NOT_MODIFIED => {
                Ok(Fetched::Unchanged)
            }
            Err(CosmosStoreError::Cosmos { source, .. }) if status(&source) == StatusCode::NOT_FOUND => {
                Ok(Fetched::Absent)
            }
            Err(error) => Err(error),
        }
    }

    /// Writes the list over the one with that etag; `false` when another was written meanwhile.
    async fn store(&mut self, list: &List, etag: Option<Etag>) -> Result<bool, CosmosStoreError> {
        let document = list.to_document();
        let client = self.client().await?;
        let answer = match etag {
            Some(etag) => {
                let options = ItemWriteOptions::default().with_precondition(Precondition::IfMatch(etag));
                timeout(PATIENCE, client.replace_item(DOCUMENT, DOCUMENT, &document, Some(options)).boxed()).await
            }
            None => timeout(PATIENCE, client.create_item(DOCUMENT, DOCUMENT, &document, None).boxed()).await,
        };
        match self.judge(answer) {
            Ok(answer) => {
                self.etag = answer.headers().etag().cloned();
                Ok(true)
            }
            Err(CosmosStoreError::Cosmos { source, .. })
                if matches!(status(&source), StatusCode::PRECONDITION_FAILED | StatusCode::CONFLICT) =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    async fn client(&mut self) -> Result<ContainerClient, CosmosStoreError> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        let credential = self.account_key.read(self.key.take()).await.map_err(CosmosStoreError::Key)?;
        let endpoint = self.endpoint.as_str().parse().map_err(CosmosStoreError::Endpoint)?;
        let account = credential.open(endpoint);
        let making = async {
            let client = CosmosClient::builder().build(account, RoutingStrategy::PreferredRegions(Vec::new())).await?;
            client.database_client(self.database.clone()).container_client(self.container.clone(), None).await
        };
        let made = timeout(PATIENCE, making.boxed()).await;
        // Kept also when it is refused now, so that the next reading looks for another.
        self.key = credential.into_key();
        let client = self.judge(made)?;
        self.client = Some(client.clone());
        Ok(client)
    }

    /// An answer in time, or why there is none. A client whose key is refused is not used again: the key may have rotated.
    fn judge<T>(
        &mut self,
        answer: Result<Result<T, CosmosError>, tokio::time::error::Elapsed>,
    ) -> Result<T, CosmosStoreError> {
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(source)) => {
                if matches!(status(&source), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
                    self.client = None;
                }
                Err(self.failed(source))
            }
            Err(_) => Err(CosmosStoreError::Deadline(self.place())),
        }
    }

    fn failed(&self, source: CosmosError) -> CosmosStoreError {
        CosmosStoreError::Cosmos { container: self.place(), source }
    }

    fn place(&self) -> String {
        format!("{}/{}", self.database, self.container)
    }
}

impl fmt::Debug for CosmosStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CosmosStore({})", self.place())
    }
}

enum Fetched {
    Unchanged,
    Absent,
    List(List, Option<Etag>),
}

fn status(error: &CosmosError) -> StatusCode {
    StatusCode::from_u16(u16::from(error.status().status_code())).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
