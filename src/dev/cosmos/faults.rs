//! Faults on request: the next requests that match are throttled, delayed, turned away or cut off.
//!
//! A fault strikes after authorization, where the service's own throttling stands, so that it never hides a refusal.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};
use serde::{Deserialize, Serialize};

use super::{
    RegionChange,
    keyring::Which,
    refusal::error_answer,
    request::{Asked, Operation, Target, header},
};
use crate::secret::Secret;

/// Most faults that wait at one time.
const MOST: usize = 64;

/// Which requests a fault strikes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum On {
    /// Items, queries, feeds, batches, procedures.
    #[default]
    Data,
    /// The account, databases, containers and their ranges.
    Metadata,
    /// Users and permissions.
    Permissions,
}

/// What a fault does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Effect {
    /// 429/3200 with `x-ms-retry-after-ms`; nothing is done.
    Throttle {
        /// What the header says, in milliseconds.
        retry_after_ms: u64,
    },
    /// The request is carried out after a while.
    Delay {
        /// How long, in milliseconds.
        ms: u64,
    },
    /// 503; nothing is done.
    Unavailable,
    /// 449; nothing is done.
    RetryWith,
    /// 404/1002: the replica is behind the session token; nothing is done.
    Session,
    /// The request is carried out, then the connection is closed without an answer.
    CutAfterCommit,
    /// An answer of the caller's choice; nothing is done.
    Any {
        /// Its status.
        status: u16,
        /// Its substatus.
        substatus: Option<u32>,
    },
}

/// A fault that waits for the requests it is meant for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Fault {
    /// What it does.
    #[serde(flatten)]
    pub effect: Effect,
    /// How many requests it still strikes.
    pub count: u32,
    /// On which kind of request.
    pub on: On,
    /// On this operation alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
    /// On paths that begin so alone: decoded, without a trailing slash.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// In this region alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
}

impl Fault {
    /// A fault that strikes the next request on data, whichever it is.
    pub const fn once(effect: Effect) -> Self {
        Self { effect, count: 1, on: On::Data, operation: None, path: None, region: None }
    }

    /// The same, `count` times.
    pub fn times(mut self, count: u32) -> Self {
        self.count = count;
        self
    }

    /// The same, on another kind of request.
    pub fn on(mut self, on: On) -> Self {
        self.on = on;
        self
    }

    /// The same, on one operation alone.
    pub fn operation(mut self, operation: Operation) -> Self {
        self.operation = Some(operation);
        self
    }

    /// The same, in one region alone.
    pub fn at(mut self, region: &str) -> Self {
        self.region = Some(region.to_owned());
        self
    }

    fn strikes(&self, asked: &Asked, region: Option<&str>) -> bool {
        let on = match &asked.target {
            _ if asked.operation().is_some() => On::Data,
            Target::Users { .. } | Target::User { .. } | Target::Permissions { .. } | Target::Permission { .. } => {
                On::Permissions
            }
            _ => On::Metadata,
        };
        on == self.on
            && self.operation.is_none_or(|operation| asked.operation() == Some(operation))
            && self.region.as_deref().is_none_or(|of| region == Some(of))
            && self.path.as_ref().is_none_or(|path| asked.path().starts_with(path))
    }
}

/// The faults that wait.
#[derive(Default)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    /// Adds a fault; beyond the bound the oldest goes.
    pub(super) fn add(&mut self, fault: Fault) {
        if self.0.len() >= MOST {
            self.0.remove(0);
        }
        if fault.count > 0 {
            self.0.push(fault);
        }
    }

    pub(super) fn waiting(&self) -> Vec<Fault> {
        self.0.clone()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The effect that strikes this request; it is used up.
    pub(super) fn take(&mut self, asked: &Asked, region: Option<&str>) -> Option<Effect> {
        let fault = self.0.iter_mut().find(|fault| fault.strikes(asked, region))?;
        fault.count -= 1;
        let effect = fault.effect;
        self.0.retain(|fault| fault.count > 0);
        Some(effect)
    }
}

impl Effect {
    /// The answer given in place of doing what was asked.
    pub(super) fn answer(self) -> Option<Response<Bytes>> {
        let (status, substatus, message) = match self {
            Self::Throttle { .. } => (
                429,
                Some(3200),
                "Request rate is large. More Request Units may be needed, so no changes were made. Please retry this request later.",
            ),
            Self::Unavailable => (503, None, "Service is currently unavailable."),
            Self::RetryWith => {
                (449, None, "Conflicting request to resource has been attempted. Retry to avoid conflicts.")
            }
            Self::Session => (404, Some(1002), "The read session is not available for the input session token."),
            Self::Any { status, substatus } => (status, substatus, "A fault that was asked for."),
            Self::Delay { .. } | Self::CutAfterCommit => return None,
        };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = error_answer(status, substatus, message);
        if let Self::Throttle { retry_after_ms } = self {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after_ms));
        }
        Some(response)
    }

    /// How long the request waits before it is carried out.
    pub(super) fn delay(self) -> Option<Duration> {
        if let Self::Delay { ms } = self { Some(Duration::from_millis(ms)) } else { None }
    }
}

/// What the body of `POST /_stepgate/faults` asks for.
pub(super) enum Order {
    Fault(Fault),
    Region(RegionChange, String),
    ExpireTokens,
    RotateKey { which: Which, key: Option<Secret> },
}

/// That body, as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawOrder {
    kind: Kind,
    count: Option<u32>,
    #[serde(default)]
    on: On,
    operation: Option<Operation>,
    path: Option<String>,
    retry_after_ms: Option<u64>,
    ms: Option<u64>,
    status: Option<u16>,
    substatus: Option<u32>,
    region: Option<String>,
    change: Option<RegionChange>,
    #[serde(default)]
    key: Which,
    account_key: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Throttle,
    Delay,
    Unavailable,
    RetryWith,
    Session,
    CutAfterCommit,
    Any,
    Region,
    ExpireTokens,
    RotateKey,
}

impl From<RawOrder> for Order {
    fn from(raw: RawOrder) -> Self {
        let effect = match raw.kind {
            Kind::Throttle => Effect::Throttle { retry_after_ms: raw.retry_after_ms.unwrap_or(50) },
            Kind::Delay => Effect::Delay { ms: raw.ms.unwrap_or(1000) },
            Kind::Unavailable => Effect::Unavailable,
            Kind::RetryWith => Effect::RetryWith,
            Kind::Session => Effect::Session,
            Kind::CutAfterCommit => Effect::CutAfterCommit,
            Kind::Any => Effect::Any { status: raw.status.unwrap_or(500), substatus: raw.substatus },
            Kind::Region => {
                return Self::Region(raw.change.unwrap_or(RegionChange::Away), raw.region.unwrap_or_default());
            }
            Kind::ExpireTokens => return Self::ExpireTokens,
            Kind::RotateKey => return Self::RotateKey { which: raw.key, key: raw.account_key.map(Secret::new) },
        };
        let Fault { count, .. } = Fault::once(effect);
        let count = raw.count.unwrap_or(count);
        let RawOrder { on, operation, path, region, .. } = raw;
        Self::Fault(Fault { effect, count, on, operation, path, region })
    }
}
