//! The `dev` section: what the stand-ins of `stepgate dev` are given.

use std::{net::SocketAddr, time::Duration};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

/// The stand-ins.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dev {
    /// The stand-in Cosmos DB.
    pub cosmos: Cosmos,
    /// The local issuer.
    pub issuer: Issuer,
}

/// The stand-in Cosmos DB.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cosmos {
    /// Its address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Its account key in base64 (default: the emulator's well-known key).
    pub account_key: Option<String>,
    /// What it holds at the start.
    #[serde(default)]
    pub seed: Seed,
}

/// What the stand-in holds at the start.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Seed {
    /// The databases.
    #[serde(default)]
    pub databases: Vec<Database>,
}

/// A database that exists from the start.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// Its name.
    pub id: String,
    /// Its containers.
    #[serde(default)]
    pub containers: Vec<Container>,
}

/// A container that exists from the start.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Container {
    /// Its name.
    pub id: String,
    /// The paths of its partition key, outermost first: one, or up to three of a hierarchical key.
    #[schemars(length(min = 1, max = 3))]
    pub partition_key: Vec<String>,
    /// Its items; each needs an `id`.
    #[serde(default)]
    pub items: Vec<Value>,
    /// Names of stored procedures; each answers with the arguments it was called with.
    #[serde(default)]
    pub procedures: Vec<String>,
}

/// The local issuer.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// Its address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The `aud` of its tokens (default `stepgate`).
    pub audience: Option<String>,
    /// How long its tokens live (default 15m).
    #[serde(default, with = "humantime_serde")]
    #[schemars(with = "Option<String>")]
    pub lifetime: Option<Duration>,
    /// Who may ask it for a token.
    pub clients: Vec<Client>,
}

/// A client of the local issuer.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// Its id.
    pub client_id: String,
    /// Its secret: public, like everything in this file.
    pub client_secret: String,
    /// Whether a person or a program stands behind it.
    pub kind: ClientKind,
    /// Claims added to its tokens.
    #[serde(default)]
    pub claims: Map<String, Value>,
    /// The signature of its tokens (default RS256).
    #[serde(default)]
    pub algorithm: ClientAlgorithm,
}

/// Whether a person or a program stands behind a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the words say it")]
pub enum ClientKind {
    Workload,
    Human,
}

/// The signature of a client's tokens.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, JsonSchema)]
#[allow(missing_docs, reason = "names of RFC 7518")]
pub enum ClientAlgorithm {
    #[default]
    RS256,
    ES256,
}
