//! A trusted issuer: its configuration and its keys, which never mix with another's.

use super::{config::IssuerConfig, keyring::KeyRing};
use crate::clock::Clock;

/// One issuer.
#[derive(Debug)]
pub(super) struct Issuer {
    config: IssuerConfig,
    keys: KeyRing,
}

impl Issuer {
    pub(super) fn new(config: IssuerConfig, clock: Clock) -> Self {
        let keys = KeyRing::new(clock, config.max_staleness);
        Self { config, keys }
    }

    pub(super) fn config(&self) -> &IssuerConfig {
        &self.config
    }

    pub(super) fn keys(&self) -> &KeyRing {
        &self.keys
    }
}
