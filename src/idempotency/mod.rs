//! Once: a write that is sent again with the same key is not done again, and is answered as it was the first time.
//!
//! **What this room decides.** What the key of a request is, which document marks that its write was done, and what the
//! marker says to whoever comes with that key again: the first answer, or that the key was used for something else.
//!
//! **What it refuses to know.** Sockets, credentials and statuses for callers. It makes bodies and reads bodies; the corridor
//! carries them. Whether a write must be done once was decided by policy.
//!
//! **Why this shape.** Whoever does not hear an answer cannot know whether the write happened, and neither can a gateway
//! that looks first and writes afterwards: two of them, or one that dies between, write twice. So the write and its marker
//! are one transactional batch of Cosmos' own, in the partition of the item, and the marker stands first in it: as long as it
//! is there, Cosmos itself refuses the batch, from whichever replica it comes, and nothing of it is done. Nothing is
//! remembered here, so nothing is lost with a replica.
//!
//! ```text
//! batch [create marker, write] ─ 200 ─▶ note the answer in the marker ─▶ answer
//!                              ├ 409 on the marker ─▶ read it ─ answer noted ─▶ the same answer
//!                              │                              └ none noted  ─▶ rebuild it from the item, note it ─▶ answer
//!                              └ the write failed ─▶ nothing was done and nothing is kept: the answer is the failure
//! ```
//!
//! The answer cannot be in the batch, since the etag does not exist before the commit; it is noted right after it, before
//! the caller is answered. If that was not possible (the connection broke after the commit, the gateway died), the next
//! request with the key rebuilds it: the item's log sequence number says whether it is still as the batch left it. If
//! somebody else wrote it in that moment the status is still known and the body is not, and the answer says so.
//!
//! A marker is believed when its MAC holds, which covers where it stands and everything it says: who can write to the
//! container by other ways must not be able to put words into the gateway's mouth. One that does not hold still stops the
//! write. The id is no secret and does not depend on the MAC's key, so that a rotation never lets a write through twice.

mod act;
mod key;
mod layout;
mod mac;
mod marker;
mod once;

use std::{error::Error, sync::Arc, time::Duration};

use moka::future::Cache;

use self::mac::MacKeys;
pub use self::{
    act::Found,
    key::{IDEMPOTENCY_KEY, marker_id},
    layout::Layout,
    once::{Answer, Once, Outcome, Told, Write},
};
use crate::{
    access::ContainerName,
    secret::{AccountKeyReader, Secret},
};

/// Most containers whose layout is kept.
const CONTAINERS: u64 = 1_000;
/// How long a layout is kept. A container that is made anew with another partition key is found out sooner, by Cosmos.
const LAYOUT: Duration = Duration::from_secs(300);

/// What the room needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// How long a marker stands: 1 second to 68 years, which is what Cosmos takes.
    pub ttl: Duration,
    /// Texts that the MAC's keys are made of: the first seals, all are believed. Empty: the account key serves.
    pub keys: Vec<Secret>,
}

/// Why a write cannot be done once, or was not.
#[derive(Debug, thiserror::Error)]
pub enum IdempotencyError {
    /// Nothing in the request tells one sending of it from another.
    #[error(
        "the grant wants each write done once, and nothing tells this one from another: send `idempotency-key`, or \
         x-stepgate-execution, x-stepgate-state and x-stepgate-entered (and x-stepgate-item in a Map)"
    )]
    NoKey,
    /// The header is there twice, empty, too long or no text.
    #[error("the header idempotency-key must come once, as 1 to 255 printable characters")]
    MalformedKey,
    /// A stored procedure with a key.
    #[error(
        "a stored procedure cannot be kept to one run: send it without idempotency-key, and make it safe to repeat"
    )]
    NotForProcedures,
    /// No place for the marker.
    #[error("a batch that is done once has at most 99 operations, since its marker is one")]
    TooMany,
    /// The partition of the write is not known whole.
    #[error("a write that is done once names its whole partition key, one value for each of {0}")]
    PartitionKey(String),
    /// The marker could not stand in the item's partition.
    #[error(
        "{container} is partitioned by {path}, so a marker has no place beside the item; `idempotency: on` cannot be kept there"
    )]
    NoPlace {
        /// The container.
        container: ContainerName,
        /// The path of its partition key.
        path: String,
    },
    /// No two markers could differ where the container wants documents to.
    #[error(
        "{container} wants {paths} to be unique, where markers cannot differ; `idempotency: on` cannot be kept there"
    )]
    NotUnique {
        /// The container.
        container: ContainerName,
        /// The paths of the unique key.
        paths: String,
    },
    /// The same key for something else.
    #[error("the idempotency key was used for another request before")]
    Mismatch,
    /// A marker that is not the gateway's, or was sealed with a key it no longer has.
    #[error("the marker of this idempotency key cannot be believed, so the write was neither done nor answered")]
    Unbelievable,
    /// Markers came and went.
    #[error("the marker of this idempotency key came and went; try again")]
    Restless,
    /// The container's description, or the marker, is none.
    #[error("what Cosmos answered about {0} cannot be read")]
    Unreadable(&'static str),
    /// No key to seal with.
    #[error("no key to seal a marker with: {0}")]
    NoSecret(Box<dyn Error + Send + Sync>),
}

/// The room: the MAC's keys, and what is known of containers.
#[derive(Debug)]
pub struct Idempotency {
    ttl: Duration,
    keys: MacKeys,
    layouts: Cache<ContainerName, Arc<Layout>>,
}

impl Idempotency {
    /// A room that knows no container yet. `account_key` is read where the configuration has no keys.
    pub fn new(config: Config, account_key: AccountKeyReader) -> Self {
        let keys = match config.keys.as_slice() {
            [] => MacKeys::of_account(account_key),
            keys => MacKeys::fixed(keys),
        };
        let layouts = Cache::builder().max_capacity(CONTAINERS).time_to_live(LAYOUT).build();
        Self { ttl: config.ttl, keys, layouts }
    }

    /// How a container is laid out, where that is known.
    pub async fn layout(&self, container: &ContainerName) -> Option<Arc<Layout>> {
        self.layouts.get(container).await
    }

    /// Keeps what was read of a container.
    pub async fn learn(&self, container: &ContainerName, layout: Layout) -> Arc<Layout> {
        let layout = Arc::new(layout);
        self.layouts.insert(container.clone(), layout.clone()).await;
        layout
    }

    /// Forgets what is known of a container, which Cosmos has just contradicted.
    pub async fn forget(&self, container: &ContainerName) {
        self.layouts.invalidate(container).await;
    }

    /// The write, as it must be done once.
    pub async fn once<'a>(&self, write: Write<'a>, layout: &Layout) -> Result<Once<'a>, IdempotencyError> {
        let keys = self.keys.at_hand().await.map_err(IdempotencyError::NoSecret)?;
        Once::new(write, layout, keys, self.ttl)
    }
}
