//! What the stand-in is given: an account key, and data to begin with.

use std::net::{Ipv4Addr, SocketAddr};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use crate::secret::Secret;

/// The account key that Microsoft publishes for its emulators. It guards nothing, so it may stand in source code.
pub const WELL_KNOWN_KEY: &str =
    "C2y6yDjf5/R+ob0N8A7Cgv30VRDJIWEHLM+4QDU5DE2nQ9nDuVTqobD4b8mGGyPMbIZnqyMsEcaGQy67XIw/Jw==";

/// What the stand-in is given.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the caller shall listen. The stand-in itself is handed a bound socket and never reads this.
    pub listen: SocketAddr,
    /// The account key, in base64.
    pub account_key: Secret,
    /// Whether resource tokens minted under an account key outlive its rotation. Azure does not say what it does; `false`,
    /// the default, is the harder case for a gateway.
    pub tokens_survive_rotation: bool,
    /// Whose Entra-style tokens are taken; without it every one of them is 401.
    pub aad: Option<Aad>,
    /// The data to begin with.
    pub seed: Seed,
}

impl Default for Config {
    /// The well-known key on 127.0.0.1:8081, no data, no Entra.
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8081)),
            account_key: Secret::new(WELL_KNOWN_KEY.to_owned()),
            tokens_survive_rotation: false,
            aad: None,
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

/// Databases, containers and items that exist from the start.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Seed {
    /// The databases.
    #[serde(default)]
    pub databases: Vec<DatabaseSeed>,
}

/// A database that exists from the start.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSeed {
    /// Its name.
    pub id: String,
    /// Its containers.
    #[serde(default)]
    pub containers: Vec<ContainerSeed>,
}

/// A container that exists from the start, on one physical partition.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ContainerSeed {
    /// Its name.
    pub id: String,
    /// The paths of its partition key, outermost first: one, or up to three of a hierarchical key.
    #[schemars(length(min = 1, max = 3))]
    pub partition_key: Vec<String>,
    /// Items in it; each needs an `id`.
    #[serde(default)]
    pub items: Vec<Value>,
    /// Names of stored procedures; each answers with the arguments it was called with.
    #[serde(default)]
    pub procedures: Vec<String>,
}
