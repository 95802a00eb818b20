//! What the stand-in has seen: one entry per request, so that a test can say what the gateway sent.

use std::collections::VecDeque;

use serde::Serialize;

use super::{authorization::Authorization, request::Operation};

/// How many requests are remembered; older ones are forgotten first.
const MOST: usize = 4096;

/// One request as the stand-in saw it. The credential itself is never kept.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Recorded {
    /// Its verb.
    pub method: String,
    /// Its path as it came, without the query string.
    pub path: String,
    /// The resource type that a signature covers: `docs`, `permissions`, and empty for the account.
    pub resource_type: String,
    /// The operation, where it is one on items or a procedure.
    pub operation: Option<Operation>,
    /// The region whose listener it came to; none at the account's own endpoint.
    pub region: Option<String>,
    /// What kind of authorization it carried.
    pub authorization: Authorization,
    /// The permission that a valid resource token was minted for, as `user/permission`. Azure's diagnostic log has it too.
    pub permission: Option<String>,
    /// The partition key header.
    pub partition_key: Option<String>,
    /// The activity id that was answered with.
    pub activity_id: String,
    /// The status that was answered; 0 where the connection was cut instead.
    pub status: u16,
    /// The substatus that was answered.
    pub substatus: Option<u32>,
}

/// The record, bounded.
#[derive(Default)]
pub(super) struct Record(VecDeque<Recorded>);

impl Record {
    pub(super) fn add(&mut self, entry: Recorded) {
        if self.0.len() >= MOST {
            self.0.pop_front();
        }
        self.0.push_back(entry);
    }

    pub(super) fn all(&self) -> Vec<Recorded> {
        self.0.iter().cloned().collect()
    }
}
