//! Who may no longer ask, although the token is good: subjects, clients, single tokens and executions that an operator has
//! revoked.
//!
//! **What this room decides.** Whether a caller is revoked now, and when a revocation or its lifting counts as done. A
//! revocation closes at once in this process, before anything else is tried: a full disk or an unreachable store must not
//! keep a stolen token alive. Lifting opens, so it is the other way round: it counts only once the record is written and
//! the store has it.
//!
//! **What it refuses to know.** Policy, and how an answer looks. It does not revoke at the issuer; the issuer goes on giving
//! tokens, which is why a subject or a client is revoked by name and not by token.
//!
//! **Why this shape.** Every request and every upstream retry asks, so what they ask is an immutable index behind one
//! pointer, and nothing else. What an operator changes is rare and small: the whole list is one document, in a file for one
//! gateway or in a Cosmos container for a fleet, where each replica reads it again every second. A store that cannot be
//! read changes nothing: what is known stays revoked, and where nothing was ever read nobody passes.

mod cosmos;
mod file;
mod index;
mod list;
mod target;

#[cfg(test)]
mod tests;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::sync::Mutex;
use url::Url;

pub use cosmos::CosmosStoreError;
pub use file::FileError;
pub use list::{Revocation, Unreadable};
pub use target::{Malformed, Order, Target};

use self::{cosmos::CosmosStore, file::FileStore, index::Index, list::List};
use crate::{
    access::{ExecutionContext, IssuerName},
    clock::{Clock, Timestamp},
    identity::VerifiedSubject,
    secret::AccountKeyReader,
};

/// Most revocations kept at once. An operator who needs more has a better place: the issuer, or a deny in the policy.
pub const MOST: usize = 4096;

/// How often the store is looked at. Every replica must refuse within two seconds of a revocation at another.
const LOOK: Duration = Duration::from_millis(800);

/// Where revocations are kept.
#[derive(Clone, Debug)]
pub enum Config {
    /// Nowhere: they end with the process.
    Memory,
    /// In a file, for one gateway.
    File(PathBuf),
    /// In a document of a Cosmos container, for all replicas that share it.
    Cosmos {
        /// The account.
        endpoint: Url,
        /// The database.
        database: String,
        /// The container; its partition key is `/id`.
        container: String,
    },
}

/// Why a caller with a good token may not ask.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unwelcome {
    /// An operator revoked it.
    #[error("revoked by the operator: {} (revocation {})", .0.target, .0.id)]
    Revoked(Arc<Revocation>),
    /// The shared store was never read since the start, so nobody can say.
    #[error("who is revoked is not known yet: the store of revocations has not been read since the start")]
    Unknown,
}

/// The store cannot be read or written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The file.
    #[error(transparent)]
    File(#[from] Arc<FileError>),
    /// The Cosmos container.
    #[error(transparent)]
    Cosmos(#[from] Arc<CosmosStoreError>),
}

/// There is no room for another revocation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("there are {MOST} revocations already: lift some, or revoke the client instead of its tokens")]
pub struct Full;

/// How the store stands, for `/status` and `/readyz`.
#[derive(Clone, Debug)]
pub struct Status {
    /// `memory`, `file` or `cosmos`.
    pub store: &'static str,
    /// How many revocations are in force here.
    pub revocations: usize,
    /// Revocations that hold here and that the store does not have yet.
    pub unsaved: usize,
    /// When the store was last read or written.
    pub synced: Option<Timestamp>,
    /// Since when it cannot be, and why not.
    pub trouble: Option<(Timestamp, StoreError)>,
}

/// The revocations in force, and where they are kept.
#[derive(Debug)]
pub struct Revocations {
    index: ArcSwap<Index>,
    /// Whether the store was ever read.
    known: AtomicBool,
    /// Changes are made one after the other.
    keeper: Mutex<Keeper>,
    status: ArcSwap<Status>,
    issuers: Vec<IssuerName>,
    clock: Clock,
}

/// The list behind the index, and its store.
#[derive(Debug)]
struct Keeper {
    store: Store,
    list: List,
    /// Ids that hold here and that the store does not have yet.
    unsaved: Vec<String>,
}

#[derive(Debug)]
enum Store {
    Memory,
    File(FileStore),
    Cosmos(Box<CosmosStore>),
}

impl Revocations {
    /// The revocations that are kept in `config`'s place. A file that cannot be read refuses the start, since forgetting
    /// who was revoked would let them in; a Cosmos container is read by [`Revocations::keep_synced`], since a start must not
    /// wait for a network, and until then every caller is refused.
    pub fn open(
        config: Config,
        issuers: Vec<IssuerName>,
        account_key: AccountKeyReader,
        clock: Clock,
    ) -> Result<Self, Arc<FileError>> {
        let (store, list) = match config {
            Config::Memory => (Store::Memory, List::default()),
            Config::File(path) => {
                let (file, list) = FileStore::open(path)?;
                (Store::File(file), list)
            }
            Config::Cosmos { endpoint, database, container } => {
                let store = CosmosStore::new(endpoint, database, container, account_key);
                (Store::Cosmos(Box::new(store)), List::default())
            }
        };
        let known = !matches!(store, Store::Cosmos(_));
        let synced = known.then(|| clock.now());
        let status = Status { store: store.name(), revocations: list.len(), unsaved: 0, synced, trouble: None };
        Ok(Self {
            index: ArcSwap::from_pointee(Index::of(&list)),
            known: AtomicBool::new(known),
            keeper: Mutex::new(Keeper { store, list, unsaved: Vec::new() }),
            status: ArcSwap::from_pointee(status),
            issuers,
            clock,
        })
    }

    /// Refuses a caller whose subject, client or token is revoked.
    pub fn check_caller(&self, subject: &VerifiedSubject) -> Result<(), Unwelcome> {
        if !self.known.load(Ordering::Relaxed) {
            return Err(Unwelcome::Unknown);
        }
        let index = self.index.load();
        if index.is_empty() {
            return Ok(());
        }
        let token_id = subject.claims().text("jti");
        let found = index.caller(subject.subject(), subject.client(), token_id, self.clock.now());
        found.map_or(Ok(()), |revocation| Err(Unwelcome::Revoked(Arc::clone(revocation))))
    }

    /// Refuses a request of a revoked execution, as far as it says of which execution it is.
    pub fn check_execution(&self, context: &ExecutionContext) -> Result<(), Unwelcome> {
        let index = self.index.load();
        let Some(execution) = context.execution.as_ref().filter(|_| !index.is_empty()) else { return Ok(()) };
        let found = index.execution(execution.value.as_str(), self.clock.now());
        found.map_or(Ok(()), |revocation| Err(Unwelcome::Revoked(Arc::clone(revocation))))
    }

    /// Reads an order to revoke or to lift.
    pub fn read(&self, body: &[u8]) -> Result<Order, Malformed> {
        Order::read(body, &self.issuers, self.clock.now())
    }

    /// Revokes; in force here when this returns, whatever the store says. The inner result is the store's.
    pub async fn revoke(&self, order: Order) -> Result<(Arc<Revocation>, Result<(), StoreError>), Full> {
        let mut keeper = self.keeper.lock().await;
        let now = self.clock.now();
        let mut list = keeper.list.without_ended(now);
        let revocation = list.add(order, now)?;
        let id = revocation.id.clone();
        if !keeper.unsaved.contains(&id) {
            keeper.unsaved.push(id);
        }
        keeper.list = list;
        // In force before anything that can fail or wait.
        self.index.store(Arc::new(Index::of(&keeper.list)));
        let saved = keeper.save(now).await;
        self.publish(&keeper.list, keeper.unsaved.len(), saved.clone());
        Ok((revocation, saved))
    }

    /// Lifts the revocation called `id`; `None` when there is none. It stays in force when the store cannot be told.
    pub async fn lift(&self, id: &str) -> Result<Option<Arc<Revocation>>, StoreError> {
        let mut keeper = self.keeper.lock().await;
        let Some(lifted) = keeper.list.get(id) else { return Ok(None) };
        let saved = keeper.remove(id, self.clock.now()).await;
        self.index.store(Arc::new(Index::of(&keeper.list)));
        self.publish(&keeper.list, keeper.unsaved.len(), saved.clone());
        saved.map(|()| Some(lifted))
    }

    /// The revocation called `id`, if it is in force.
    pub fn get(&self, id: &str) -> Option<Arc<Revocation>> {
        self.list().into_iter().find(|revocation| revocation.id == id)
    }

    /// Every revocation in force, oldest first.
    pub fn list(&self) -> Vec<Arc<Revocation>> {
        self.index.load().in_force(self.clock.now())
    }

    /// How the store stands.
    pub fn status(&self) -> Status {
        let now = self.clock.now();
        Status { revocations: self.index.load().in_force(now).len(), ..Status::clone(&self.status.load()) }
    }

    /// Looks at a shared store again and again, and saves what it does not have yet, until dropped. The server owns it.
    pub async fn keep_synced(&self) {
        loop {
            self.sync().await;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Leaves the store to whoever comes next; what is known here stays revoked.
    pub async fn close(&self) {
        if let Store::File(file) = &mut self.keeper.lock().await.store {
            file.close();
        }
    }

    async fn sync(&self) {
        let mut keeper = self.keeper.lock().await;
        let synced = keeper.sync(self.clock.now()).await;
        if let Ok(changed) = synced
            && changed
        {
            self.index.store(Arc::new(Index::of(&keeper.list)));
        }
        self.publish(&keeper.list, keeper.unsaved.len(), synced.map(drop));
    }

    fn publish(&self, list: &List, unsaved: usize, synced: Result<(), StoreError>) {
        let (now, before) = (self.clock.now(), self.status.load());
        let (synced, trouble) = match synced {
            Ok(()) => {
                self.known.store(true, Ordering::Relaxed);
                (Some(now), None)
            }
            Err(error) => {
                let since = before.trouble.as_ref().map_or(now, |(since, _)| *since);
                if before.trouble.is_none() {
                    tracing::error!(%error, "revocations cannot be kept in step with their store");
                }
                (before.synced, Some((since, error)))
            }
        };
        self.status.store(Arc::new(Status { store: before.store, revocations: list.len(), unsaved, synced, trouble }));
    }
}

impl Store {
    const fn name(&self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::File(_) => "file",
            Self::Cosmos(_) => "cosmos",
        }
    }
}

impl Keeper {
    /// Gives the store what it does not have yet.
    async fn save(&mut self, now: Timestamp) -> Result<(), StoreError> {
        match &mut self.store {
            Store::Memory => {}
            Store::File(file) => file.write(&self.list).map_err(Arc::new)?,
            Store::Cosmos(cosmos) => {
                let unsaved = &self.unsaved;
                let add: Vec<_> = unsaved.iter().filter_map(|id| self.list.get(id)).collect();
                self.list = cosmos.change(&add, None, &self.list, now).await.map_err(Arc::new)?;
            }
        }
        self.unsaved.clear();
        Ok(())
    }

    /// Takes a revocation out of the store, and then of the list.
    async fn remove(&mut self, id: &str, now: Timestamp) -> Result<(), StoreError> {
        let list = self.list.without(id);
        match &mut self.store {
            Store::Memory => self.list = list,
            Store::File(file) => {
                file.write(&list).map_err(Arc::new)?;
                self.list = list;
            }
            Store::Cosmos(cosmos) => {
                let unsaved = self.unsaved.iter().filter(|unsaved| *unsaved != id);
                let add: Vec<_> = unsaved.filter_map(|unsaved| self.list.get(unsaved)).collect();
                self.list = cosmos.change(&add, Some(id), &list, now).await.map_err(Arc::new)?;
            }
        }
        self.unsaved.clear();
        Ok(())
    }

    /// Takes in what other replicas changed, and saves what the store does not have. Says whether the list changed.
    async fn sync(&mut self, now: Timestamp) -> Result<bool, StoreError> {
        if !self.unsaved.is_empty() {
            return self.save(now).await.map(|()| true);
        }
        let Store::Cosmos(cosmos) = &mut self.store else { return Ok(false) };
        match cosmos.read(&self.list).await.map_err(Arc::new)? {
            Some(list) => {
                self.list = list;
                Ok(true)
            }
            None => Ok(false),
        }
    }
}
