//! What the stand-in is given: an account key, and data to begin with.

use std::net::SocketAddr;

use url::Url;

use crate::{config::dev::Seed, secret::Secret};

/// The account key that Microsoft publishes for its emulators. It guards nothing, so it may stand in source code.
pub const WELL_KNOWN_KEY: &str =
    "C2y6yDjf5/R+ob0N8A7Cgv30VRDJIWEHLM+4QDU5DE2nQ9nDuVTqobD4b8mGGyPMbIZnqyMsEcaGQy67XIw/Jw==";

/// What the stand-in is given.
#[derive(Clone, Debug)]
pub struct Config {
    /// The account key, in base64.
    pub account_key: Secret,
    /// Whether resource tokens minted under an account key outlive its rotation. Azure does not say what it does; `false`,
    /// the default, is the harder case for a gateway.
    pub tokens_survive_rotation: bool,
    /// Whose Entra-style tokens are taken; without it every one of them is 401.
    pub aad: Option<Aad>,
    /// Whether keys and resource tokens are refused, whoever made them.
    pub disable_local_auth: bool,
    /// Regions with a listener of their own, beside the account's endpoint; the first takes writes. None: one region, there.
    pub regions: Vec<RegionConfig>,
    /// The data to begin with.
    pub seed: Seed,
}

/// A region.
#[derive(Clone, Debug)]
pub struct RegionConfig {
    /// Its name, such as `West Europe`.
    pub name: String,
    /// Where it listens.
    pub listen: SocketAddr,
}

impl Default for Config {
    /// The well-known key, no data, no Entra.
    fn default() -> Self {
        Self {
            account_key: Secret::new(WELL_KNOWN_KEY.to_owned()),
            tokens_survive_rotation: false,
            aad: None,
            disable_local_auth: false,
            regions: Vec::new(),
            seed: Seed::default(),
        }
    }
}

/// The issuer that plays Entra.
#[derive(Clone, Debug)]
pub struct Aad {
    /// The exact `iss`.
    pub issuer: String,
    /// Where its keys are.
    pub jwks_uri: Url,
}
