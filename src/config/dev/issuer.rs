//! `dev.issuer` of the configuration file.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::secret::Secret;

/// The local OIDC issuer.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// Where it listens; port 0 takes any free port. Its `iss` is this address.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// Who may ask it for tokens.
    #[serde(default)]
    pub clients: Vec<Client>,
    /// The `aud` of its tokens.
    #[serde(default = "default_audience")]
    pub audience: String,
    /// How long its tokens live.
    #[serde(default = "default_lifetime", with = "humantime_serde")]
    #[schemars(with = "String")]
    pub lifetime: Duration,
}

impl Default for Issuer {
    fn default() -> Self {
        Self {
            listen: default_listen(),
            clients: Vec::new(),
            audience: default_audience(),
            lifetime: default_lifetime(),
        }
    }
}

/// A client of the local issuer.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// Its `client_id`, which is also the `sub` of its tokens.
    pub client_id: String,
    /// Its secret. Known to everybody who reads the file: this issuer is for development.
    #[serde(deserialize_with = "secret")]
    #[schemars(with = "String")]
    pub client_secret: Secret,
    /// Whether its tokens say they are a workload's or a human's.
    pub kind: Kind,
    /// Claims of its tokens, beside or instead of the usual ones.
    #[serde(default)]
    pub claims: Map<String, Value>,
    /// What its tokens are signed with; left out, what the issuer signs with at the time.
    #[serde(default)]
    pub algorithm: Option<SigningAlgorithm>,
}

/// Who is behind a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A program: `token_kind: workload`.
    Workload,
    /// A person: `token_kind: human`, with `email` and `name`.
    Human,
}

/// What the local issuer can sign with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub enum SigningAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256, 2048 bits.
    #[default]
    RS256,
    /// ECDSA on P-256 with SHA-256.
    ES256,
}

impl SigningAlgorithm {
    /// The registered name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::ES256 => "ES256",
        }
    }
}

fn default_listen() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 8090).into()
}

fn default_audience() -> String {
    "stepgate".to_owned()
}

fn default_lifetime() -> Duration {
    Duration::from_secs(15 * 60)
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
    String::deserialize(deserializer).map(Secret::new)
}
