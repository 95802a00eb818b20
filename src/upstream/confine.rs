//! The last look, for credentials that do not end where the permit's scope does.
//!
//! A resource token opens its scope and nothing else: whatever slipped past the rooms before, Cosmos would refuse. Under an
//! Entra token nobody would, so here stands the check that Cosmos would have made. It reads the request as it is about to
//! leave, by its own code, and knows nothing of how policy came to permit it: the container, the mode, the partition of the
//! request and of each operation of a batch. Continuations are handed out sealed (`continuation`), since one names a place in the
//! data that no check of ours could read.

use std::{borrow::Cow, time::Duration};

use http::{HeaderMap, HeaderName, Method};
use moka::future::Cache;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    UpstreamAnswer,
    continuation::{ForeignContinuation, Seal},
    forward::Errand,
    headers::RANGE_ADDRESSING,
};
use crate::{
    access::{
        ContainerName, PartitionKey, PermissionMode,
        headers::{IS_BATCH, IS_QUERY, IS_QUERY_PLAN, PARTITION_KEY},
    },
    exchange::Warrant,
    transport::percent_encode,
};

/// Why a request would leave its scope. None of these is reachable by what policy permits, except a batch that names partitions
/// of several grants.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Outside {
    /// Another container.
    #[error("its path is not in the container")]
    Container,
    /// A write under leave to read.
    #[error("it writes, and the leave is to read")]
    Mode,
    /// No partition, or one that cannot be read, under a lock.
    #[error("it names no partition")]
    NoPartition,
    /// Another partition.
    #[error("its partition is another")]
    Partition,
    /// A range or all partitions.
    #[error("it reaches past one partition")]
    Range,
    /// An operation of the batch.
    #[error("operation {index} of the batch names a partition of its own")]
    Batch {
        /// Its index, from 0.
        index: usize,
    },
    /// A query or feed in the outer part of a hierarchical key.
    #[error(
        "a query or feed would run over every partition below {levels} of the key's {depth} levels; name the whole key"
    )]
    Prefix {
        /// Levels of the lock.
        levels: usize,
        /// Levels of the container's key.
        depth: usize,
    },
    /// A continuation.
    #[error(transparent)]
    Continuation(#[from] ForeignContinuation),
}

/// Most containers whose key is remembered, and for how long: a container made anew may have another.
const MOST_CONTAINERS: u64 = 1_000;
const KEY_HOLDS: Duration = Duration::from_secs(300);

/// Holds requests to their scope.
#[derive(Clone, Debug)]
pub(super) struct Confinement {
    seal: Seal,
    /// How many levels the partition key of a container has.
    depths: Cache<ContainerName, usize>,
}

impl Confinement {
    pub(super) fn new(seal: Seal) -> Self {
        let depths = Cache::builder().max_capacity(MOST_CONTAINERS).time_to_live(KEY_HOLDS);
        Self { seal, depths: depths.build() }
    }

    /// Refuses a query or feed in the outer part of a hierarchical key, which Cosmos would run over all that lies below it (and
    /// a resource token could not). `read` reads the container's own document, where its key is not known.
    pub(super) async fn check_depth<E: From<Outside>>(
        &self,
        errand: &Errand<'_>,
        warrant: &Warrant,
        read: impl AsyncFnOnce() -> Result<usize, E>,
    ) -> Result<(), E> {
        let Some(levels) = levels_of_many(errand, warrant) else { return Ok(()) };
        let container = warrant.scope().container();
        let depth = match self.depths.get(container).await {
            Some(depth) => depth,
            None => {
                let depth = read().await?;
                self.depths.insert(container.clone(), depth).await;
                depth
            }
        };
        if levels < depth { Err(Outside::Prefix { levels, depth }.into()) } else { Ok(()) }
    }

    /// The errand as it may leave: inside the scope, its continuation opened.
    pub(super) fn hold<'a>(&self, errand: &Errand<'a>, warrant: &Warrant) -> Result<Errand<'a>, Outside> {
        check(errand, warrant)?;
        let mut held = errand.clone();
        self.seal.open(&mut held, warrant)?;
        Ok(held)
    }

    /// The answer as it may be handed out: its continuation sealed.
    pub(super) fn hand_out(
        &self,
        errand: &Errand<'_>,
        warrant: &Warrant,
        mut answer: UpstreamAnswer,
    ) -> UpstreamAnswer {
        self.seal.close(errand, warrant, &mut answer.headers);
        answer
    }
}

/// What the request is, read from itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The container's own document, its ranges, or a query plan: no item is read.
    Metadata,
    /// A query or a feed.
    Many,
    /// One item, or a stored procedure.
    One,
    /// A batch.
    Batch,
}

/// The path of a container.
pub(super) fn path(container: &ContainerName) -> String {
    format!("/dbs/{}/colls/{}", percent_encode(container.database()), percent_encode(container.container()))
}

/// How many levels of the key a query or feed is locked to; `None` for what is neither, or locked to none.
fn levels_of_many(errand: &Errand<'_>, warrant: &Warrant) -> Option<usize> {
    let lock: PartitionKey = warrant.scope().partition_key()?.parse().ok()?;
    let within = errand.path.strip_prefix(&path(warrant.scope().container()))?;
    let (kind, _) = kind(&errand.method, within, errand.headers.as_map())?;
    (kind == Kind::Many).then_some(lock.components().len())
}

fn check(errand: &Errand<'_>, warrant: &Warrant) -> Result<(), Outside> {
    let scope = warrant.scope();
    let within = errand.path.strip_prefix(&path(scope.container())).ok_or(Outside::Container)?;
    let (kind, writes) = kind(&errand.method, within, errand.headers.as_map()).ok_or(Outside::Container)?;
    if writes && scope.mode() == PermissionMode::Read {
        return Err(Outside::Mode);
    }
    match scope.partition_key() {
        Some(lock) if kind != Kind::Metadata => {
            let lock = lock.parse().map_err(|_| Outside::NoPartition)?;
            stays_inside(&lock, kind, errand)
        }
        _ => Ok(()),
    }
}

/// What a request on `within` (the path below the container) does, and whether it writes; `None` for what is no operation.
fn kind(method: &Method, within: &str, headers: &HeaderMap) -> Option<(Kind, bool)> {
    let flag = |name: HeaderName| headers.get(name).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"));
    let segments: Vec<&str> = within.split('/').collect();
    Some(match (method, segments.as_slice()) {
        (&Method::GET, [""] | ["", "pkranges"]) => (Kind::Metadata, false),
        (&Method::GET, ["", "docs"]) => (Kind::Many, false),
        (&Method::POST, ["", "docs"]) if flag(IS_QUERY_PLAN) => (Kind::Metadata, false),
        (&Method::POST, ["", "docs"]) if flag(IS_QUERY) => (Kind::Many, false),
        (&Method::POST, ["", "docs"]) if flag(IS_BATCH) => (Kind::Batch, true),
        (&Method::POST, ["", "docs"]) => (Kind::One, true),
        (&Method::GET, ["", "docs", _]) => (Kind::One, false),
        (&Method::PUT | &Method::PATCH | &Method::DELETE, ["", "docs", _]) => (Kind::One, true),
        (&Method::POST, ["", "sprocs", _]) => (Kind::One, true),
        _ => return None,
    })
}

fn stays_inside(lock: &PartitionKey, kind: Kind, errand: &Errand<'_>) -> Result<(), Outside> {
    let headers = errand.headers.as_map();
    if RANGE_ADDRESSING.iter().any(|name| headers.contains_key(*name)) {
        return Err(Outside::Range);
    }
    let mut named = headers.get_all(PARTITION_KEY).iter();
    let (Some(value), None) = (named.next(), named.next()) else { return Err(Outside::NoPartition) };
    let named: PartitionKey = value.to_str().ok().and_then(|text| text.parse().ok()).ok_or(Outside::NoPartition)?;
    // Only one item at a time may be deeper than the lock: a query would be run over all that lies below it.
    let deeper = kind != Kind::Many && lock.is_proper_prefix_of(&named);
    if named != *lock && !deeper {
        return Err(Outside::Partition);
    }
    if kind == Kind::Batch { batch_stays_inside(&named, &errand.body) } else { Ok(()) }
}

/// Whether every operation that names a partition of its own names the batch's.
fn batch_stays_inside(batch: &PartitionKey, body: &[u8]) -> Result<(), Outside> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Operation<'a> {
        #[serde(borrow)]
        partition_key: Option<&'a RawValue>,
    }
    let operations: Vec<Operation<'_>> = serde_json::from_slice(body).map_err(|_| Outside::Batch { index: 0 })?;
    let strays = |operation: &Operation<'_>| {
        operation.partition_key.is_some_and(|key| {
            // An array, or (JavaScript SDK) the text of one.
            let text: Option<Cow<'_, str>> = serde_json::from_str(key.get()).ok();
            text.as_deref().unwrap_or(key.get()).parse::<PartitionKey>().as_ref() != Ok(batch)
        })
    };
    match operations.iter().position(strays) {
        Some(index) => Err(Outside::Batch { index }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
