//! Checkpoints as documents of a Cosmos container, one each, for a fleet that has no other place in common.
//!
//! The container's partition key is `/id`. A document is only ever created: that one is there already means that an earlier
//! try had come through. Who holds the account's key can remove them; so the account should be another's than the log's
//! host's.

use std::fmt;

use azure_data_cosmos::{CosmosClient, CosmosError, RoutingStrategy, clients::ContainerClient};
use futures_util::FutureExt as _;
use http::StatusCode;
use serde::Serialize;
use url::Url;

use super::{AnchorError, Checkpoint};
use crate::secret::{AccountKeyReader, KeyError, Secret};

/// A container that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum CosmosAnchorError {
    /// The account key.
    #[error("no account key for the anchor's container: {0}")]
    Key(KeyError),
    /// The endpoint.
    #[error("the anchor's account has no usable endpoint: {0}")]
    Endpoint(CosmosError),
    /// The container, or the way to it.
    #[error("{container}: {source}")]
    Cosmos {
        /// Database and container.
        container: String,
        /// What the client said.
        source: CosmosError,
    },
}

pub(super) struct CosmosAnchor {
    endpoint: Url,
    database: String,
    container: String,
    account_key: AccountKeyReader,
    /// Made when first needed, and anew after Cosmos refused its key.
    client: Option<ContainerClient>,
    /// The key of the client, or the one that was refused last.
    key: Option<Secret>,
}

#[derive(Serialize)]
struct Document<'a> {
    id: &'a str,
    size: u64,
    checkpoint: &'a str,
}

impl CosmosAnchor {
    pub(super) fn new(endpoint: Url, database: String, container: String, account_key: AccountKeyReader) -> Self {
        Self { endpoint, database, container, account_key, client: None, key: None }
    }

    pub(super) async fn send(&mut self, checkpoint: &Checkpoint) -> Result<(), AnchorError> {
        let client = self.client().await?;
        let id = checkpoint.name();
        let document = Document { id: &id, size: checkpoint.size, checkpoint: &checkpoint.note };
        // Boxed, since the client's futures are too deep for the compiler otherwise.
        match client.create_item(id.clone(), &id, &document, None).boxed().await {
            Ok(_) => Ok(()),
            Err(source) if status(&source) == StatusCode::CONFLICT => Ok(()),
            Err(source) => Err(self.failed(source).into()),
        }
    }

    async fn client(&mut self) -> Result<ContainerClient, CosmosAnchorError> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        let credential = self.account_key.read(self.key.take()).await.map_err(CosmosAnchorError::Key)?;
        let endpoint = self.endpoint.as_str().parse().map_err(CosmosAnchorError::Endpoint)?;
        let account = credential.open(endpoint);
        // Kept also when it is refused now, so that the next reading looks for another.
        self.key = credential.into_key();
        let making = async {
            let client = CosmosClient::builder().build(account, RoutingStrategy::PreferredRegions(Vec::new())).await?;
            client.database_client(self.database.clone()).container_client(self.container.clone(), None).await
        };
        let made = making.boxed().await;
        let client = made.map_err(|source| self.failed(source))?;
        self.client = Some(client.clone());
        Ok(client)
    }

    /// A client whose key is refused is not used again: the key may have rotated.
    fn failed(&mut self, source: CosmosError) -> CosmosAnchorError {
        if matches!(status(&source), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            self.client = None;
        }
        CosmosAnchorError::Cosmos { container: format!("{}/{}", self.database, self.container), source }
    }
}

impl fmt::Debug for CosmosAnchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CosmosAnchor({}/{})", self.database, self.container)
    }
}

fn status(error: &CosmosError) -> StatusCode {
    StatusCode::from_u16(u16::from(error.status().status_code())).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
