//! A Cosmos DB to develop and test against: it refuses what the real one would refuse.
//!
//! Items, queries, patches, batches and feeds are kept by Microsoft's in-memory emulator, taken from their Rust driver. It
//! authenticates nobody and has neither users nor permissions, and those are what stepgate is about; so this module stands
//! before it and adds master-key signatures, users, permissions, resource tokens, Entra-style JWTs and the service's own
//! errors, as far as Microsoft's documents, SDK sources and users have described them.
//!
//! It decides by its own code and never imports the gateway's rooms: whatever both borrowed from one place, both would get
//! wrong together. It knows nothing of the gateway either: it is a program on a socket, as Cosmos is, and has no switch that
//! turns a check off. What it has beyond Cosmos are the paths below `/_stepgate/` (faults, regions that go and come, a clock, a
//! record of what was asked) and the same as methods on [`Cosmos`].
//!
//! ```text
//! front: request -> authorization -> keyring | entra -> enforce -> faults -> checks -> patch | batch -> emulator
//!                                                                         \-> master -> permissions -> directory
//! ```

mod admin;
mod authorization;
mod batch;
mod checks;
mod config;
mod directory;
mod emulator;
mod enforce;
mod entra;
mod faults;
mod front;
mod keyring;
mod master;
mod partition;
mod patch;
mod permissions;
mod procedures;
mod record;
mod refusal;
mod regions;
mod request;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{Router, serve::ListenerExt as _};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use tokio::net::TcpListener;

pub use self::{
    authorization::Authorization,
    config::{Aad, Config, RegionConfig, WELL_KNOWN_KEY},
    emulator::EmulatorSetup,
    faults::{Effect, Fault, On},
    keyring::{MalformedKey, Which},
    master::MasterUsage,
    record::Recorded,
    regions::{RegionChange, RegionError, RegionListener},
    request::Operation,
};
use self::{
    directory::Directory,
    emulator::{Emulator, REGION},
    entra::Entra,
    faults::Faults,
    front::Front,
    keyring::{Claim, Keyring},
    master::Master,
    procedures::Procedures,
    record::Record,
    regions::Region,
};
use crate::{clock::Clock, config::dev::ContainerSeed, secret::Secret, transport::TransportSetup};

/// The stand-in cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum CosmosSetup {
    /// The account key cannot be used.
    #[error(transparent)]
    Key(#[from] MalformedKey),
    /// The emulator does not start.
    #[error(transparent)]
    Emulator(#[from] EmulatorSetup),
    /// The client that reads the issuer's keys cannot be made.
    #[error(transparent)]
    Transport(#[from] TransportSetup),
    /// A second account key cannot be made.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
    /// A seeded container has no partition key, more than three paths, or one that is no path.
    #[error("seeded container {database}/{container}: a partition key is one to three paths such as /tenant")]
    PartitionKey {
        /// The database.
        database: String,
        /// The container.
        container: String,
    },
    /// A seeded item is not one.
    #[error("seeded item {index} of {database}/{container} is refused: {answer}; give it an id that no other has")]
    Item {
        /// The database.
        database: String,
        /// The container.
        container: String,
        /// Its place in the list, from 0.
        index: usize,
        /// What the emulator answered.
        answer: Value,
    },
}

/// No random bytes could be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the system gives no random bytes for a new account key")]
pub struct NoRandomness;

/// The stand-in: its state, and the hooks of tests. Clones share the state.
#[derive(Clone)]
pub struct Cosmos(Arc<State>);

struct State {
    clock: Clock,
    emulator: Emulator,
    /// Those with a listener of their own.
    regions: Vec<Region>,
    entra: Option<Entra>,
    disable_local_auth: bool,
    keyring: Mutex<Keyring>,
    directory: Mutex<Directory>,
    procedures: Mutex<Procedures>,
    faults: Mutex<Faults>,
    record: Mutex<Record>,
    master: Mutex<Master>,
    mints: Mutex<BTreeMap<(String, String), u64>>,
}

impl Cosmos {
    /// A stand-in with the data of the seed. `clock` decides which signatures and tokens are current.
    pub async fn new(config: Config, clock: Clock) -> Result<Self, CosmosSetup> {
        let mut names: Vec<&str> = config.regions.iter().map(|region| region.name.as_str()).collect();
        if names.is_empty() {
            names.push(REGION);
        }
        let state = State {
            master: Mutex::new(Master::new(clock.running())),
            clock,
            emulator: Emulator::new(&names)?,
            regions: config.regions.iter().map(|region| Region::new(region.name.clone(), region.listen)).collect(),
            entra: config.aad.map(Entra::new).transpose()?,
            disable_local_auth: config.disable_local_auth,
            keyring: Mutex::new(Keyring::new(&config.account_key, &new_key()?, config.tokens_survive_rotation)?),
            directory: Mutex::default(),
            procedures: Mutex::default(),
            faults: Mutex::default(),
            record: Mutex::default(),
            mints: Mutex::default(),
        };
        let cosmos = Self(Arc::new(state));
        for database in config.seed.databases {
            cosmos.0.emulator.create_database(&database.id);
            for container in database.containers {
                cosmos.seed(&database.id, container).await?;
            }
        }
        cosmos.0.emulator.settle().await;
        Ok(cosmos)
    }

    async fn seed(&self, database: &str, seed: ContainerSeed) -> Result<(), CosmosSetup> {
        let is_path = |path: &String| path.len() > 1 && path.starts_with('/') && !path.ends_with('/');
        if !(1..=3).contains(&seed.partition_key.len()) || !seed.partition_key.iter().all(is_path) {
            return Err(CosmosSetup::PartitionKey { database: database.to_owned(), container: seed.id });
        }
        self.0.emulator.create_container(database, &seed.id, &seed.partition_key, seed.throughput);
        for (index, item) in seed.items.iter().enumerate() {
            self.0.emulator.create_item(database, &seed.id, item).await.map_err(|answer| CosmosSetup::Item {
                database: database.to_owned(),
                container: seed.id.clone(),
                index,
                answer,
            })?;
        }
        let procedures = seed.procedures.into_iter().map(|id| (database.to_owned(), seed.id.clone(), id));
        self.procedures().extend(procedures);
        Ok(())
    }

    /// The latest requests, oldest first; those on `/_stepgate/` are not among them.
    pub fn recorded(&self) -> Vec<Recorded> {
        lock(&self.0.record).all()
    }

    /// How many tokens have been minted for each (user, permission).
    pub fn mints(&self) -> BTreeMap<(String, String), u64> {
        lock(&self.0.mints).clone()
    }

    /// What users and permissions have cost.
    pub fn master_usage(&self) -> MasterUsage {
        self.master().usage()
    }

    /// Lets a fault wait for the requests it is meant for.
    pub fn add_fault(&self, fault: Fault) {
        self.faults().add(fault);
    }

    /// The faults that still wait.
    pub fn waiting_faults(&self) -> Vec<Fault> {
        self.faults().waiting()
    }

    /// Calls off every fault.
    pub fn clear_faults(&self) {
        self.faults().clear();
    }

    /// From now on every token minted so far counts as expired.
    pub fn expire_tokens(&self) {
        self.keyring().expire_tokens();
    }

    /// Puts a new primary key in force and gives it; signatures with the old one are refused from now on.
    pub fn rotate_key(&self) -> Result<Secret, NoRandomness> {
        self.rotate(Which::Primary)
    }

    /// Puts a new key in force and gives it; signatures with the old one are refused from now on.
    pub fn rotate(&self, which: Which) -> Result<Secret, NoRandomness> {
        let key = new_key()?;
        self.put_key(which, &key).map_err(|MalformedKey| NoRandomness)?;
        Ok(key)
    }

    /// Puts `key` in force, which nobody but the service does: so an account can be told to take a key later than others
    /// know of it.
    pub fn put_key(&self, which: Which, key: &Secret) -> Result<(), MalformedKey> {
        self.keyring().rotate(which, key)
    }

    /// The primary and the secondary account key.
    pub fn keys(&self) -> [Secret; 2] {
        self.keyring().texts()
    }

    fn mint(&self, claim: Claim) -> String {
        *lock(&self.0.mints).entry((claim.user.clone(), claim.permission.clone())).or_default() += 1;
        self.keyring().mint(claim)
    }

    fn record(&self, entry: Recorded) {
        lock(&self.0.record).add(entry);
    }

    fn keyring(&self) -> MutexGuard<'_, Keyring> {
        lock(&self.0.keyring)
    }

    fn master(&self) -> MutexGuard<'_, Master> {
        lock(&self.0.master)
    }

    fn directory(&self) -> MutexGuard<'_, Directory> {
        lock(&self.0.directory)
    }

    fn procedures(&self) -> MutexGuard<'_, Procedures> {
        lock(&self.0.procedures)
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        lock(&self.0.faults)
    }
}

/// An account key as Azure makes them: 64 random bytes, in base64.
fn new_key() -> Result<Secret, NoRandomness> {
    let mut bytes = zeroize::Zeroizing::new([0; 64]);
    aws_lc_rs::rand::fill(bytes.as_mut_slice()).map_err(|_| NoRandomness)?;
    Ok(Secret::new(STANDARD.encode(bytes.as_slice())))
}

/// No value behind these locks is left half changed by a panic, so a poisoned one is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves the account's own endpoint on `listener` over HTTP/1.1 and clear-text HTTP/2 until `shutdown` ends, then finishes what is in
/// flight.
pub async fn serve(
    listener: TcpListener,
    cosmos: Cosmos,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let address = listener.local_addr()?;
    let listener = listener.tap_io(|stream| {
        // A small answer must not wait for the acknowledgement of the one before; without this it is only slower.
        let _ = stream.set_nodelay(true);
    });
    let app = Router::new().fallback(front::answer).with_state(Front { cosmos, address, region: None });
    axum::serve(listener, app).with_graceful_shutdown(shutdown).await
}
