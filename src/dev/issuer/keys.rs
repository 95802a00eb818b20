//! Which key signs, and which keys are published.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use serde_json::{Value, json};

use super::signing::{SigningError, SigningKey};
use crate::config::dev::SigningAlgorithm;

/// Most keys that stay published after they stopped signing.
const MOST_RETIRED: usize = 8;

/// How to rotate.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rotation {
    /// Only this algorithm gets a new key, and clients without one of their own sign with it from then on; `None` gives
    /// every algorithm a new key.
    pub algorithm: Option<SigningAlgorithm>,
    /// Whether the keys that no longer sign leave the key set at once.
    pub drop_old: bool,
}

/// The issuer's keys.
#[derive(Debug)]
pub(super) struct Keys {
    current: ArcSwap<Current>,
    /// Keys that are never published, made when somebody first asks for a forged token.
    rogue: OnceLock<Pairs>,
}

#[derive(Clone, Debug)]
struct Current {
    algorithm: SigningAlgorithm,
    pairs: Pairs,
    retired: Vec<Arc<SigningKey>>,
}

#[derive(Clone, Debug)]
struct Pairs {
    rs256: Arc<SigningKey>,
    es256: Arc<SigningKey>,
}

impl Pairs {
    fn generate() -> Result<Self, SigningError> {
        Ok(Self {
            rs256: Arc::new(SigningKey::generate(SigningAlgorithm::RS256)?),
            es256: Arc::new(SigningKey::generate(SigningAlgorithm::ES256)?),
        })
    }

    fn of(&self, algorithm: SigningAlgorithm) -> &Arc<SigningKey> {
        match algorithm {
            SigningAlgorithm::RS256 => &self.rs256,
            SigningAlgorithm::ES256 => &self.es256,
        }
    }
}

impl Keys {
    pub(super) fn generate() -> Result<Self, SigningError> {
        let current =
            Current { algorithm: SigningAlgorithm::default(), pairs: Pairs::generate()?, retired: Vec::new() };
        Ok(Self { current: ArcSwap::from_pointee(current), rogue: OnceLock::new() })
    }

    /// The key that signs now, with `algorithm` or with the issuer's.
    pub(super) fn signing(&self, algorithm: Option<SigningAlgorithm>) -> Arc<SigningKey> {
        let current = self.current.load();
        Arc::clone(current.pairs.of(algorithm.unwrap_or(current.algorithm)))
    }

    /// A key that is not published.
    pub(super) fn rogue(&self, algorithm: SigningAlgorithm) -> Result<Arc<SigningKey>, SigningError> {
        let pairs = match self.rogue.get() {
            Some(pairs) => pairs,
            None => {
                let made = Pairs::generate()?;
                self.rogue.get_or_init(|| made)
            }
        };
        Ok(Arc::clone(pairs.of(algorithm)))
    }

    /// Makes new signing keys; gives the ids of those that sign from now on.
    pub(super) fn rotate(&self, rotation: Rotation) -> Result<Vec<String>, SigningError> {
        let wanted = |algorithm| rotation.algorithm.is_none_or(|only| only == algorithm);
        let make = |algorithm| wanted(algorithm).then(|| SigningKey::generate(algorithm).map(Arc::new)).transpose();
        let (rs256, es256) = (make(SigningAlgorithm::RS256)?, make(SigningAlgorithm::ES256)?);
        let fresh = rs256.iter().chain(&es256).map(|key| key.kid.clone()).collect();
        self.current.rcu(|current| current.rotated(rotation, rs256.as_ref(), es256.as_ref()));
        Ok(fresh)
    }

    /// The key set document (RFC 7517, section 5).
    pub(super) fn document(&self) -> Value {
        let current = self.current.load();
        let keys = [&current.pairs.rs256, &current.pairs.es256].into_iter().chain(&current.retired);
        json!({ "keys": keys.map(|key| key.jwk()).collect::<Vec<_>>() })
    }
}

impl Current {
    fn rotated(&self, rotation: Rotation, rs256: Option<&Arc<SigningKey>>, es256: Option<&Arc<SigningKey>>) -> Self {
        let mut next = self.clone();
        next.algorithm = rotation.algorithm.unwrap_or(self.algorithm);
        for (slot, fresh) in [(&mut next.pairs.rs256, rs256), (&mut next.pairs.es256, es256)] {
            if let Some(fresh) = fresh {
                next.retired.insert(0, std::mem::replace(slot, Arc::clone(fresh)));
            }
        }
        next.retired.truncate(if rotation.drop_old { 0 } else { MOST_RETIRED });
        next
    }
}
