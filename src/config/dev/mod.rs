//! The `dev` section: what the stand-ins of `stepgate dev` are given.

mod cosmos;
mod issuer;

use schemars::JsonSchema;
use serde::Deserialize;

pub use cosmos::{ContainerSeed, Cosmos, DatabaseSeed, Region, Seed};
pub use issuer::{Client, Issuer, Kind, SigningAlgorithm};

/// The stand-ins.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dev {
    /// The stand-in Cosmos DB.
    pub cosmos: Cosmos,
    /// The local issuer.
    pub issuer: Issuer,
    /// An issuer that plays Entra, with the gateway as its client; its `audience` is `https://cosmos.azure.com`.
    pub entra: Option<Issuer>,
}
