//! The front door: sockets, TLS, the routes of both listeners, and the order in which everything starts and stops.
//!
//! [`Server::start`] builds the rooms from a checked configuration and binds the sockets; nothing is served yet, so a busy
//! port or an unreadable certificate is an error with a name and not a gateway that half works. [`Server::run`] serves
//! until it is told to stop, then stops in this order: no new connections, requests in flight, background tasks, the
//! audit log, and the admin listener last, so that a drain can be watched.

mod account;
mod admin;
mod config;
mod health;
mod listen;
mod metrics;
mod preflight;
mod revocation;
mod routes;
mod status;
mod tls;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
    time::Duration,
};

use tokio::{
    net::TcpListener,
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::routes::Front;
pub use self::{
    config::Config,
    preflight::{Check, State, preflight},
    tls::{Certificate, TlsError, TlsFiles},
};
use crate::{
    audit::{Anchors, AuditError, Journal, Means},
    clock::{Clock, Timestamp},
    diagnostic::Diagnostic,
    exchange::Exchange,
    gateway::{Gateway, Rooms},
    idempotency::Idempotency,
    identity::{Identity, IdentitySetup},
    limits::Limits,
    mcp,
    overload::Overload,
    policy::RunningPolicy,
    revocation::{FileError, Revocations},
    transport::{BodyMemory, Transport, TransportSetup},
    upstream::{AccountReader, Upstream},
};

/// How often the certificate files are looked at.
const WATCH: Duration = Duration::from_secs(2);
/// How long the admin listener outlives the rest.
const ADMIN_DRAIN: Duration = Duration::from_secs(1);

/// A gateway on its sockets.
#[derive(Debug)]
pub struct Server {
    gateway: Arc<Gateway>,
    front: Listener,
    admin: Listener,
    admin_token: Option<crate::secret::Secret>,
    config_digest: String,
    started: Timestamp,
    was_ready: Arc<AtomicBool>,
    mcp: Option<mcp::Config>,
    drain: Duration,
    read_timeout: Duration,
}

/// A bound socket and the certificate it shows.
#[derive(Debug)]
struct Listener {
    /// Until it is served: whoever serves it owns it, so that a stop closes it and the system refuses what comes after.
    socket: Mutex<Option<TcpListener>>,
    address: SocketAddr,
    certificate: Option<Certificate>,
}

/// Why a gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port is taken, or an address is not this machine's.
    #[error("cannot listen on {address}: {source}; change `{key}` in the configuration, or free the port")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Its key in the configuration.
        key: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A certificate cannot be served.
    #[error("cannot serve TLS: {0}")]
    Tls(#[from] TlsError),
    /// The policies have errors.
    #[error("the policies cannot be used:\n{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Policies(Vec<Diagnostic>),
    /// The audit log cannot be opened.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The issuers contradict each other.
    #[error(transparent)]
    Identity(#[from] IdentitySetup),
    /// Who was revoked cannot be told.
    #[error(transparent)]
    Revocations(#[from] Arc<FileError>),
    /// Extra roots cannot be read.
    #[error(transparent)]
    Transport(#[from] TransportSetup),
}

impl Listener {
    async fn bind(address: SocketAddr, key: &'static str, tls: Option<TlsFiles>) -> Result<Self, StartError> {
        let certificate = tls.map(Certificate::load).transpose()?;
        let refuse = |source| StartError::Bind { address, key, source };
        let socket = TcpListener::bind(address).await.map_err(refuse)?;
        let address = socket.local_addr().map_err(refuse)?;
        Ok(Self { socket: Mutex::new(Some(socket)), address, certificate })
    }

    fn url(&self) -> String {
        let scheme = if self.certificate.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    fn take(&self) -> io::Result<TcpListener> {
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner).take();
        socket.ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "the server has run before"))
    }
}

impl Server {
    /// Builds the rooms and binds the sockets. Serves nothing yet.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let clock = Clock::System;
        let front = Listener::bind(config.listen, "listen", config.tls).await?;
        let admin = Listener::bind(config.admin, "admin", config.admin_tls).await?;
        let policy = RunningPolicy::load(config.policy, clock.clone()).map_err(StartError::Policies)?;
        let transport = Transport::new(None)?;
        let identity = Identity::new(config.issuers, transport.clone(), clock.clone())?;
        let cosmos = Transport::new(config.ca_file.as_deref())?;
        let exchange = Exchange::new(config.exchange, config.release_tokens, cosmos.clone(), clock.clone());
        let idempotency = Idempotency::new(config.idempotency, exchange.account_key_reader());
        let account = AccountReader::new(exchange.account_reader());
        let memory = BodyMemory::new(config.limits.body_memory);
        let upstream = Upstream::new(config.upstream, cosmos, account, memory.clone(), clock.clone());
        let issuers = identity.status().into_iter().map(|issuer| issuer.name).collect();
        let account_key = exchange.account_key_reader();
        let means = Means { transport, account_key: account_key.clone() };
        let revocations = Revocations::open(config.revocation, issuers, account_key, clock.clone())?;
        let anchors = Anchors::new(config.anchors, &means, &clock);
        let journal = Journal::open(config.audit, anchors, clock.clone())?;
        let started = clock.now();
        let limits = Limits::new(clock.clone());
        // Half of what may be in flight at all, so that one container's callers cannot hold all of it.
        let overload = Overload::new(config.limits.concurrency / 2, clock.clone());
        let rooms =
            Rooms { identity, revocations, policy, limits, overload, journal, idempotency, exchange, upstream, clock };
        let read_timeout = config.limits.read_timeout;
        let gateway = Gateway::new(rooms, config.limits, memory, config.public_url);
        Ok(Self {
            gateway: Arc::new(gateway),
            front,
            admin,
            admin_token: config.admin_token,
            config_digest: config.digest,
            started,
            was_ready: Arc::default(),
            mcp: config.mcp,
            drain: config.drain,
            read_timeout,
        })
    }

    /// Where the gateway listens.
    pub fn gateway_url(&self) -> String {
        self.front.url()
    }

    /// Where the admin listener is.
    pub fn admin_url(&self) -> String {
        self.admin.url()
    }

    /// Serves until `stop`, then drains. A server runs once.
    pub async fn run(&self, stop: CancellationToken) -> io::Result<()> {
        let (front, admin) = (self.front.take()?, self.admin.take()?);
        let admin_stop = CancellationToken::new();
        let serving = async {
            let background = CancellationToken::new();
            let front = async {
                self.serve_front(front, stop).await;
                background.cancel();
            };
            tokio::join!(front, background.run_until_cancelled(self.keep_fresh()));
            if let Err(error) = self.gateway.rooms.journal.close().await {
                tracing::error!(%error, "the audit log did not close cleanly");
            }
            self.gateway.rooms.journal.finish_anchoring().await;
            self.gateway.rooms.revocations.close().await;
            admin_stop.cancel();
        };
        let routes = admin::routes(self.desk());
        let certificate = self.admin.certificate.clone();
        let watching = listen::serve(admin, certificate, routes, self.read_timeout, admin_stop.clone(), ADMIN_DRAIN);
        tokio::join!(serving, watching);
        Ok(())
    }

    /// Serves the gateway listener. After the stop, connections and walks have the time of the drain to end.
    async fn serve_front(&self, listener: TcpListener, stop: CancellationToken) {
        let walks = TaskTracker::new();
        let face = |config: &mcp::Config| mcp::Face::new(config.clone(), self.gateway.clone(), walks.clone());
        let face = self.mcp.as_ref().map(face);
        let routes = Arc::new(Front { gateway: self.gateway.clone(), walks: walks.clone(), face });
        let certificate = self.front.certificate.clone();
        let serving = listen::serve(listener, certificate, routes, self.read_timeout, stop.clone(), self.drain);
        let until = async {
            stop.cancelled().await;
            Instant::now() + self.drain
        };
        let ((), until) = tokio::join!(serving, until);
        walks.close();
        // A caller who left has no connection to drain; its walk ends, and is recorded, all the same.
        if timeout_at(until, walks.wait()).await.is_err() {
            tracing::warn!("requests were still on their walk at the end of the drain; the log will call them unknown");
        }
    }

    /// Reads policies, certificates and the account key again; what cannot be used leaves the running one in place.
    pub async fn reload(&self) {
        self.desk().reload().await;
    }

    fn desk(&self) -> admin::Desk {
        admin::Desk {
            gateway: self.gateway.clone(),
            certificates: [&self.front, &self.admin].into_iter().filter_map(|l| l.certificate.clone()).collect(),
            token: self.admin_token.clone(),
            open: self.admin.address.ip().is_loopback(),
            config_digest: self.config_digest.as_str().into(),
            started: self.started,
            was_ready: self.was_ready.clone(),
        }
    }

    /// What runs beside the requests: key sets, revocations, the account key, regions, anchors of the audit log, policy files,
    /// certificates.
    async fn keep_fresh(&self) {
        let desk = self.desk();
        let rooms = &self.gateway.rooms;
        tokio::join!(
            rooms.identity.keep_fresh(),
            rooms.revocations.keep_synced(),
            rooms.exchange.keep_fresh(),
            self.watch_account(),
            rooms.journal.keep_anchored(),
            rooms.upstream.keep_fresh(),
            desk.watch(WATCH)
        );
    }
}
