//! The account key in use: read when it is first wanted, read again when it grows old and when Cosmos refuses it.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use moka::{future::Cache, ops::compute::Op};

use super::{
    account_key::{AccountKey, KeyError, KeySource},
    secrets_manager::SecretsManager,
};
use crate::clock::{Clock, Timestamp};

/// How long a key is used before its source is asked again: a rotation is noticed within this even if the old key is
/// still accepted.
const INTERVAL: Duration = Duration::from_secs(300);
/// How long a reading that did not help (the source failed, or had the refused key still) answers for those after it,
/// however often Cosmos refuses and however many ask.
const PAUSE: Duration = Duration::from_secs(2);

/// The account key and its source. A key that cannot be read anew stays in use: Cosmos decides whether it is still good.
#[derive(Debug)]
pub(super) struct Keyring {
    source: KeySource,
    secrets_manager: SecretsManager,
    clock: Clock,
    /// One entry: moka lets one caller read while the others wait for what it finds.
    held: Cache<(), Held>,
    trouble: ArcSwapOption<KeyTrouble>,
}

#[derive(Clone, Debug)]
struct Held {
    key: Arc<AccountKey>,
    since: Timestamp,
    read: Timestamp,
    /// When the source was last read for another key and had none.
    sought: Option<Timestamp>,
}

/// The last reading of the source that failed.
#[derive(Clone, Debug)]
pub struct KeyTrouble {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub error: KeyError,
}

/// How the account key stands. Nothing here is derived from the key itself.
#[derive(Clone, Debug)]
pub struct KeyStatus {
    /// `file`, `env` or `aws_secrets_manager`.
    pub source: &'static str,
    /// Since when the key in use is in use; `None` before the first was read.
    pub since: Option<Timestamp>,
    /// The last failure, unless a later reading succeeded.
    pub last_error: Option<KeyTrouble>,
}

impl Keyring {
    pub(super) fn new(source: KeySource, clock: Clock) -> Self {
        Self {
            source,
            secrets_manager: SecretsManager::default(),
            clock,
            held: Cache::new(1),
            trouble: ArcSwapOption::empty(),
        }
    }

    /// The key to sign with.
    pub(super) async fn current(&self) -> Result<Arc<AccountKey>, KeyError> {
        let fresh = |held: &Held, now: Timestamp| now.since(held.read) < INTERVAL;
        match self.held.get(&()).await {
            Some(held) if fresh(&held, self.clock.now()) => Ok(held.key),
            _ => self.read_unless(false, fresh).await,
        }
    }

    /// The key to sign with after Cosmos refused `refused`: the one that stands in the source now. It is the same key again
    /// when the source has no other, or had none a moment ago.
    pub(super) async fn refresh(&self, refused: &AccountKey) -> Result<Arc<AccountKey>, KeyError> {
        let sought_lately = |held: &Held, now: Timestamp| held.sought.is_some_and(|at| now.since(at) < PAUSE);
        self.read_unless(true, |held, now| !held.key.matches(refused) || sought_lately(held, now)).await
    }

    pub(super) async fn status(&self) -> KeyStatus {
        KeyStatus {
            source: self.source.kind(),
            since: self.held.get(&()).await.map(|held| held.since),
            last_error: self.trouble.load().as_deref().cloned(),
        }
    }

    /// Reads the source, unless the key held by then will do. `seeking`: another key than the held one is wanted.
    async fn read_unless(
        &self,
        seeking: bool,
        will_do: impl Fn(&Held, Timestamp) -> bool,
    ) -> Result<Arc<AccountKey>, KeyError> {
        let read = self.held.entry(()).and_try_compute_with(async |entry| {
            let (held, now) = (entry.map(moka::Entry::into_value), self.clock.now());
            if held.as_ref().is_some_and(|held| will_do(held, now)) {
                return Ok(Op::Nop);
            }
            self.read(seeking, held, now).await.map(Op::Put)
        });
        let read = read.await?;
        // Only a nop on an empty ring has no value, and an empty ring is always read.
        let held = read.into_entry().ok_or(KeyError::NotAKey { place: self.source.to_string() })?;
        Ok(held.into_value().key)
    }

    async fn read(&self, seeking: bool, held: Option<Held>, now: Timestamp) -> Result<Held, KeyError> {
        let recent = self.trouble.load().as_deref().filter(|trouble| now.since(trouble.at) < PAUSE).cloned();
        let read = match recent {
            Some(trouble) => Err(trouble.error),
            None => self.source.read(&self.secrets_manager).await.inspect_err(|error| self.note(error)),
        };
        match (read, held) {
            (Ok(key), Some(held)) if key.matches(&held.key) => {
                self.trouble.store(None);
                Ok(Held { read: now, sought: if seeking { Some(now) } else { held.sought }, ..held })
            }
            (Ok(key), _) => {
                self.trouble.store(None);
                Ok(Held { key: Arc::new(key), since: now, read: now, sought: None })
            }
            (Err(_), Some(held)) => Ok(held),
            (Err(error), None) => Err(error),
        }
    }

    fn note(&self, error: &KeyError) {
        tracing::warn!(%error, "the account key could not be read");
        self.trouble.store(Some(Arc::new(KeyTrouble { at: self.clock.now(), error: error.clone() })));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::clock::ManualClock;

    fn key(text: &str) -> AccountKey {
        AccountKey::from_base64(text).unwrap()
    }

    #[tokio::test]
    async fn a_rotated_file_is_noticed_when_the_key_is_refused_or_old() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(&path, "b25l").unwrap();
        let hand = ManualClock::new(Timestamp::from_secs(1_000));
        let source = KeySource::File { path: path.clone(), field: None };
        let keyring = Keyring::new(source, Clock::Manual(hand.clone()));
        assert!(keyring.current().await.unwrap().matches(&key("b25l")));

        fs::write(&path, "dHdv").unwrap();
        assert!(keyring.current().await.unwrap().matches(&key("b25l")), "a key that works is not read again at once");
        assert!(keyring.refresh(&key("b25l")).await.unwrap().matches(&key("dHdv")));

        assert!(keyring.refresh(&key("dHdv")).await.unwrap().matches(&key("dHdv")), "the source has no other");
        fs::write(&path, "dGhyZWU=").unwrap();
        assert!(keyring.refresh(&key("dHdv")).await.unwrap().matches(&key("dHdv")), "too soon to look again");
        hand.advance(INTERVAL);
        assert!(keyring.current().await.unwrap().matches(&key("dGhyZWU=")));
        assert_eq!(keyring.status().await.since, Some(Timestamp::from_secs(1_300)));
    }

    #[tokio::test]
    async fn a_key_stays_in_use_while_its_source_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let hand = ManualClock::new(Timestamp::from_secs(1_000));
        let keyring = Keyring::new(KeySource::File { path: path.clone(), field: None }, Clock::Manual(hand.clone()));
        assert!(keyring.current().await.is_err());
        assert!(keyring.status().await.last_error.is_some());
        fs::write(&path, "b25l").unwrap();
        assert!(keyring.current().await.is_err(), "a failure holds for a moment");
        hand.advance(PAUSE);
        assert!(keyring.current().await.is_ok());
        assert!(keyring.status().await.last_error.is_none());

        fs::remove_file(&path).unwrap();
        hand.advance(INTERVAL);
        assert!(keyring.current().await.unwrap().matches(&key("b25l")));
        assert!(keyring.status().await.last_error.is_some());
    }
}
