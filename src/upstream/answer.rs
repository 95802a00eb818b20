//! What comes back: an answer of Cosmos, or what is known where there is none.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, de::IgnoredAny};

use super::{confine::Outside, retry};
use crate::transport::TransportError;

/// An answer of Cosmos, whatever its status.
#[derive(Clone, Debug)]
pub struct UpstreamAnswer {
    /// The status.
    pub status: StatusCode,
    /// The headers that may go to the caller.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// `x-ms-substatus`: which of the things that a status can mean.
    pub substatus: Option<u32>,
    /// `x-ms-activity-id`, as Azure's log has it.
    pub activity_id: Option<Arc<str>>,
    /// `x-ms-request-charge` of the last attempt, in request units.
    pub request_charge: Option<f64>,
    /// How often the request was sent.
    pub attempts: u32,
    /// How long the last attempt took.
    pub took: Duration,
    /// The region that answered, where it is known; `None` at the account's own endpoint, which chooses by itself.
    pub region: Option<Arc<str>>,
}

impl UpstreamAnswer {
    /// Whether Cosmos refused the gateway's credential: 401, or 403 that says no more (an expired token and a token for
    /// something else look alike). The request had no effect; another token may do.
    pub fn refused_credential(&self) -> bool {
        match self.status {
            StatusCode::UNAUTHORIZED => true,
            StatusCode::FORBIDDEN => matches!(self.substatus, None | Some(0)),
            _ => false,
        }
    }

    /// `x-ms-retry-after-ms`: how long Cosmos asks to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        retry::told(&self.headers)
    }
}

/// What leaves it open whether a write was carried out.
#[derive(Debug)]
pub enum Doubt {
    /// The request left, and no answer came back.
    Lost(TransportError),
    /// An answer that does not say: a timeout at the service, or one that the write's own first attempt may have caused.
    Answered(Box<UpstreamAnswer>),
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(error) => error.fmt(f),
            Self::Answered(answer) => write!(f, "status {}", answer.status.as_u16()),
        }
    }
}

/// How many levels the partition key has of the container whose own document this is.
pub fn partition_key_levels(container: &[u8]) -> Option<usize> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Container {
        partition_key: Definition,
    }
    #[derive(Deserialize)]
    struct Definition {
        paths: Vec<IgnoredAny>,
    }
    let container: Container = serde_json::from_slice(container).ok()?;
    Some(container.partition_key.paths.len())
}

/// No answer that could be passed on.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// Cosmos cannot be reached. Nothing was changed: either nothing was sent, or the request was a read.
    #[error("Cosmos cannot be reached ({attempts} attempts): {cause}")]
    Unavailable {
        /// How often it was tried.
        attempts: u32,
        /// What happened the last time.
        cause: TransportError,
    },
    /// The deadline passed. Nothing was changed.
    #[error("no answer from Cosmos before the deadline ({attempts} attempts)")]
    Timeout {
        /// How often the request was sent.
        attempts: u32,
    },
    /// A write left, and what came of it is not known: it may stand or not.
    #[error("it is not known what came of a write ({attempts} attempts): {cause}")]
    OutcomeUnknown {
        /// How often the request was sent.
        attempts: u32,
        /// What leaves it open.
        cause: Doubt,
    },
    /// A status that Cosmos does not use (1xx, or 3xx other than 304): something else answered.
    #[error("what answered for Cosmos is not Cosmos: status {}", status.as_u16())]
    BadAnswer {
        /// How often the request was sent.
        attempts: u32,
        /// The status.
        status: StatusCode,
    },
    /// The answer to a read is longer than is kept.
    #[error("the answer of Cosmos is longer than {largest} bytes")]
    TooLarge {
        /// How often the request was sent.
        attempts: u32,
        /// The most that is kept.
        largest: usize,
    },
    /// The memory for bodies is used up; nothing was changed.
    #[error("no memory for an answer of Cosmos ({attempts} attempts)")]
    NoRoom {
        /// How often the request was sent.
        attempts: u32,
    },
    /// The caller's leave was withdrawn before the request could be sent once more. The attempts so far had no effect.
    #[error("the leave to act was withdrawn after {attempts} attempts")]
    Withdrawn {
        /// How often the request was sent.
        attempts: u32,
    },
    /// How the container is partitioned could not be read, and a query must not run without knowing. Nothing was done.
    #[error("the container's partition key could not be read: Cosmos answered {}", status.as_u16())]
    UnknownKey {
        /// How often the container was asked for.
        attempts: u32,
        /// What Cosmos answered.
        status: StatusCode,
    },
    /// The request would leave the scope of its warrant. Nothing was sent.
    #[error("the request leaves the scope it was permitted for: {0}")]
    Outside(#[from] Outside),
    /// The request cannot be written down: its path does not begin with `/`, or has a character that must be encoded.
    #[error("the request to Cosmos cannot be made: {0}")]
    Unsendable(#[source] http::Error),
}

/// An errand that came back without an answer.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Failure {
    /// Why.
    #[source]
    pub error: UpstreamError,
    /// Where it was tried last, as far as that has a name.
    pub region: Option<Arc<str>>,
}

impl<E: Into<UpstreamError>> From<E> for Failure {
    /// One that was never sent.
    fn from(error: E) -> Self {
        Self { error: error.into(), region: None }
    }
}

impl UpstreamError {
    /// How often the request was sent.
    pub fn attempts(&self) -> u32 {
        match self {
            Self::Unavailable { attempts, .. }
            | Self::Timeout { attempts }
            | Self::OutcomeUnknown { attempts, .. }
            | Self::BadAnswer { attempts, .. }
            | Self::TooLarge { attempts, .. }
            | Self::UnknownKey { attempts, .. }
            | Self::NoRoom { attempts }
            | Self::Withdrawn { attempts } => *attempts,
            Self::Outside(_) | Self::Unsendable(_) => 0,
        }
    }

    /// The answer that leaves a write in doubt, where there is one.
    pub fn answer(&self) -> Option<&UpstreamAnswer> {
        match self {
            Self::OutcomeUnknown { cause: Doubt::Answered(answer), .. } => Some(answer),
            _ => None,
        }
    }
}
