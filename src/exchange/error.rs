//! Why there is no token.

use std::{sync::Arc, time::Duration};

use http::StatusCode;

use super::{EntraError, KeyError};
use crate::transport::TransportError;

/// Why there is no token. None of these is the caller's doing: the answer is 503 `credential.unavailable`.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The account key cannot be read.
    #[error("the account key is unavailable: {0}")]
    KeyUnavailable(#[from] KeyError),
    /// Cosmos does not take the account key, even as it stands in its source now.
    #[error("Cosmos refused the account key (status {}, substatus {substatus:?}); check the key, the clock and the account's firewall", status.as_u16())]
    CosmosRefusedKey {
        /// 401 or 403.
        status: StatusCode,
        /// `x-ms-substatus`, where there was one.
        substatus: Option<u32>,
    },
    /// No answer.
    #[error("Cosmos gave no answer to a mint: {0}")]
    Unreachable(Arc<TransportError>),
    /// Cosmos' budget for metadata is spent, or Cosmos refused a token that was only just minted.
    #[error("minting must wait {retry_after:?}")]
    Throttled {
        /// How long.
        retry_after: Duration,
    },
    /// An answer that a mint cannot go on from. 404: the database or the container is not there.
    #[error("Cosmos answered a mint with status {}", status.as_u16())]
    BadAnswer {
        /// The status.
        status: StatusCode,
    },
    /// The request to Cosmos cannot be written down: the endpoint is not an `http` or `https` address.
    #[error("the request to Cosmos cannot be made: {0}")]
    Unsendable(Arc<http::Error>),
    /// Entra gave no token.
    #[error(transparent)]
    Entra(#[from] EntraError),
    /// The permit is another subject's, or the refused token another scope's.
    #[error("the permit does not belong to the subject, or the token not to the permit")]
    Mismatch,
}

impl ExchangeError {
    /// Whether it stands in the way of every scope, and not only of the one it was met at.
    pub fn concerns_all(&self) -> bool {
        match self {
            Self::KeyUnavailable(_)
            | Self::CosmosRefusedKey { .. }
            | Self::Unreachable(_)
            | Self::Throttled { .. }
            | Self::Entra(_)
            | Self::Unsendable(_) => true,
            Self::BadAnswer { status } => status.is_server_error() || matches!(status.as_u16(), 408 | 410 | 449),
            Self::Mismatch => false,
        }
    }
}
