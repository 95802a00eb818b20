//! What a server is given: the typed parts of every room, filled by whoever read the configuration.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use url::Url;

use super::TlsFiles;
use crate::{
    audit, exchange, gateway, idempotency, identity::IssuerConfig, mcp, policy, revocation, secret::Secret, telemetry,
    upstream,
};

/// A configuration that can be served.
#[derive(Clone, Debug)]
pub struct Config {
    /// SHA-256 of the file as written, for `/status`.
    pub digest: String,
    /// The gateway listener.
    pub listen: SocketAddr,
    /// Its certificate.
    pub tls: Option<TlsFiles>,
    /// The admin listener.
    pub admin: SocketAddr,
    /// Its certificate.
    pub admin_tls: Option<TlsFiles>,
    /// What changing calls on it must carry.
    pub admin_token: Option<Secret>,
    /// What the account document names.
    pub public_url: Option<Url>,
    /// Whose tokens are trusted.
    pub issuers: Vec<IssuerConfig>,
    /// Certificates to trust for Cosmos beside the system's roots.
    pub ca_file: Option<PathBuf>,
    /// How the gateway proves itself to Cosmos.
    pub exchange: exchange::Config,
    /// Whether resource tokens may leave the gateway.
    pub release_tokens: bool,
    /// How writes are kept from being done twice.
    pub idempotency: idempotency::Config,
    /// Where revocations are kept.
    pub revocation: revocation::Config,
    /// The errand's part.
    pub upstream: upstream::Config,
    /// The policies' part.
    pub policy: policy::Config,
    /// The ledger's part.
    pub audit: audit::Config,
    /// Where the audit log's checkpoints are sent.
    pub anchors: Vec<audit::AnchorConfig>,
    /// The face for agents, where there is one.
    pub mcp: Option<mcp::Config>,
    /// Bounds on requests.
    pub limits: gateway::Limits,
    /// How long a stop waits for requests in flight.
    pub drain: Duration,
    /// What operators see; started by whoever owns the process.
    pub telemetry: telemetry::Config,
}
