//! A refusal on its way out: the condition, a sentence for the caller, and what Cosmos said when it was Cosmos.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::Condition;
use crate::access::headers::{ACTIVITY_ID, SUBSTATUS, number};

/// Why a request ends without the answer it wanted.
#[derive(Clone, PartialEq, Debug)]
pub struct Refusal {
    /// Which row of the table.
    pub condition: Condition,
    /// One sentence, safe to show to the caller.
    pub detail: String,
    /// When trying again makes sense, where that is known.
    pub retry_after: Option<Duration>,
    /// What Cosmos answered, when it was Cosmos that refused.
    pub cosmos: Option<Box<CosmosAnswer>>,
}

/// What Cosmos answered, with the headers that may pass.
#[derive(Clone, PartialEq, Debug)]
pub struct CosmosAnswer {
    /// Cosmos' status.
    pub status: StatusCode,
    /// The headers on the allow-list.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl CosmosAnswer {
    /// `x-ms-substatus`, where Cosmos sent one.
    pub fn substatus(&self) -> Option<u32> {
        number(&self.headers, &SUBSTATUS)
    }

    /// `x-ms-activity-id`, where Cosmos sent one.
    pub fn activity_id(&self) -> Option<&str> {
        self.headers.get(ACTIVITY_ID)?.to_str().ok()
    }
}

impl Refusal {
    /// A refusal of the gateway's own.
    pub fn new(condition: Condition, detail: impl Into<String>) -> Self {
        Self { condition, detail: detail.into(), retry_after: None, cosmos: None }
    }

    /// The same refusal, with the time after which trying again makes sense.
    pub fn after(mut self, retry_after: Duration) -> Self {
        self.retry_after = Some(retry_after);
        self
    }
}
