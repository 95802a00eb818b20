//! `dev.cosmos` of the configuration file.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

/// The stand-in Cosmos DB.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cosmos {
    /// Where it listens; port 0 takes any free port.
    pub listen: SocketAddr,
    /// Its account key in base64 (default: the emulator's well-known key). Public, like everything in this section.
    pub account_key: Option<String>,
    /// Whether it takes Entra tokens alone, as an account with `disableLocalAuth`; `dev.entra` is then their issuer.
    #[serde(default)]
    pub disable_local_auth: bool,
    /// Its regions, each at an address of its own; `listen` then is the account's endpoint, which follows the region that takes
    /// writes: at first the first (default: one region, at `listen`).
    #[serde(default)]
    pub regions: Vec<Region>,
    /// What it holds at the start.
    #[serde(default)]
    pub seed: Seed,
}

/// A region of the stand-in.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Region {
    /// Its name, such as `West Europe`.
    pub name: String,
    /// Where it listens; port 0 takes any free port.
    pub listen: SocketAddr,
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
    /// Its request units per second, 400 or more; what asks for more is throttled (default: without a bound).
    #[schemars(range(min = 400))]
    pub throughput: Option<u64>,
    /// Items in it; each needs an `id`.
    #[serde(default)]
    pub items: Vec<Value>,
    /// Names of stored procedures; each answers with the arguments it was called with.
    #[serde(default)]
    pub procedures: Vec<String>,
}
