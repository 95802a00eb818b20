//! What `/status`, `/readyz` and the metrics say of the issuers.

use std::sync::Arc;

use super::{discovery::FetchError, issuer::Issuer};
use crate::{
    access::{IssuerName, WorkloadKind},
    clock::Timestamp,
};

/// One issuer and its keys, as they stand.
#[derive(Clone, Debug)]
pub struct IssuerStatus {
    /// Its configured name.
    pub name: IssuerName,
    /// Its profile.
    pub kind: WorkloadKind,
    /// Its `iss`.
    pub url: String,
    /// Whether its tokens can be judged: keys were fetched, and not too long ago.
    pub usable: bool,
    /// Its keys, as fetched last.
    pub keys: Vec<KeyStatus>,
    /// When the keys were fetched.
    pub fetched: Option<Timestamp>,
    /// When a fetch was last tried.
    pub attempted: Option<Timestamp>,
    /// How many fetches there were, good and bad.
    pub fetches: u64,
    /// Why the last fetch failed; `None` when it did not.
    pub error: Option<Arc<FetchError>>,
}

/// One key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyStatus {
    /// Its `kid`.
    pub id: Option<String>,
    /// When this gateway first saw it.
    pub first_seen: Timestamp,
}

impl Issuer {
    pub(super) fn status(&self, now: Timestamp) -> IssuerStatus {
        let config = self.config();
        let state = self.keys().state();
        let keys = state.keys.iter().flat_map(|keys| keys.iter());
        IssuerStatus {
            name: config.name.clone(),
            kind: config.kind,
            url: config.url.clone(),
            usable: self.keys().keys(now).is_some(),
            keys: keys.map(|key| KeyStatus { id: key.id().map(str::to_owned), first_seen: key.first_seen() }).collect(),
            fetched: state.fetched,
            attempted: state.attempted,
            fetches: state.fetches,
            error: state.error,
        }
    }
}
