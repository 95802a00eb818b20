//! The regions of the stand-in: a listener each, which can be taken away as a region can.
//!
//! What a region is (its replica, who takes writes, what the account document names) is the emulator's to know. What is added
//! here is the wire: a region that is away refuses connections and drops those it has, whatever they were about to answer.

use std::{future::Future, io, net::SocketAddr, sync::OnceLock};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use serde::{Deserialize, Serialize};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use super::{
    Cosmos,
    front::{self, Front},
};

/// One region.
pub(super) struct Region {
    pub(super) name: String,
    listen: SocketAddr,
    address: OnceLock<SocketAddr>,
    here: watch::Sender<bool>,
}

/// What happens to a region.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegionChange {
    /// It cannot be reached. The account document still names it, and nobody takes over.
    Away,
    /// It cannot be reached, the account document names it no longer, and the next region takes the writes over.
    Offline,
    /// It is back, without the writes it had.
    Back,
    /// It left the account: it answers everything with 403/1008, and the account document still names it for a while.
    Gone,
    /// It takes the writes over; the region that had them answers them with 403/3.
    TakesWrites,
    /// What is written elsewhere does not reach it.
    Behind,
    /// It has caught up.
    CaughtUp,
}

/// A change of a region that cannot be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RegionError {
    /// There is no such region.
    #[error("there is no region `{0}`")]
    Unknown(String),
    /// The account does not let it.
    #[error("the account does not let it: {0}")]
    Refused(String),
}

/// A region's socket, bound and not yet served.
pub struct RegionListener {
    cosmos: Cosmos,
    index: usize,
    address: SocketAddr,
    socket: TcpListener,
}

impl Region {
    pub(super) fn new(name: String, listen: SocketAddr) -> Self {
        Self { name, listen, address: OnceLock::new(), here: watch::Sender::new(true) }
    }

    /// Its address, once it is bound.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.address.get().copied()
    }

    pub(super) fn is_here(&self) -> bool {
        *self.here.borrow()
    }
}

impl Cosmos {
    /// Binds a listener for each region.
    pub async fn bind_regions(&self) -> io::Result<Vec<RegionListener>> {
        let mut listeners = Vec::new();
        for (index, region) in self.0.regions.iter().enumerate() {
            let socket = TcpListener::bind(region.listen).await?;
            let address = *region.address.get_or_init(|| socket.local_addr().unwrap_or(region.listen));
            listeners.push(RegionListener { cosmos: self.clone(), index, address, socket });
        }
        Ok(listeners)
    }

    /// Lets something happen to a region.
    pub fn change_region(&self, name: &str, change: RegionChange) -> Result<(), RegionError> {
        let region = self.0.regions.iter().find(|region| region.name == name);
        let region = region.ok_or_else(|| RegionError::Unknown(name.to_owned()))?;
        let account = &self.0.emulator;
        match change {
            RegionChange::Away => drop(region.here.send_replace(false)),
            RegionChange::Offline => {
                account.take_offline(name)?;
                region.here.send_replace(false);
            }
            RegionChange::Back => {
                account.bring_back(name);
                region.here.send_replace(true);
            }
            RegionChange::Gone => account.begin_removal(name)?,
            RegionChange::TakesWrites => account.set_write_region(name)?,
            RegionChange::Behind => account.pause_replication(name),
            RegionChange::CaughtUp => account.resume_replication(name),
        }
        Ok(())
    }

    /// The region that a request at the account's own endpoint reaches.
    pub(super) fn write_region(&self) -> usize {
        let name = self.0.emulator.write_region();
        self.0.regions.iter().position(|region| region.name == name).unwrap_or_default()
    }

    /// Whether a region can be reached; without regions there is but the account's own endpoint.
    pub(super) fn is_here(&self, region: usize) -> bool {
        self.0.regions.get(region).is_none_or(Region::is_here)
    }
}

impl RegionListener {
    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves the region until `shutdown` ends. While it is away its port is closed.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let Some(region) = self.cosmos.0.regions.get(self.index) else { return Ok(()) };
        let mut here = region.here.subscribe();
        let front = Front { cosmos: self.cosmos.clone(), address: self.address, region: Some(self.index) };
        let app = Router::new().fallback(front::answer).with_state(front);
        let mut socket = Some(self.socket);
        let serving = async {
            loop {
                // The sender lives as long as the stand-in.
                let _ = here.wait_for(|here| *here).await;
                let listener = match socket.take() {
                    Some(socket) => socket,
                    None => TcpListener::bind(self.address).await?,
                };
                let mut connections = JoinSet::new();
                let accepting = async {
                    loop {
                        if let Ok((stream, _)) = listener.accept().await {
                            connections.spawn(converse(stream, app.clone()));
                        }
                        while connections.try_join_next().is_some() {}
                    }
                };
                tokio::select! {
                    () = accepting => {}
                    _ = here.wait_for(|here| !*here) => {}
                }
                // With the listener go the connections, in the middle of whatever they were doing.
            }
        };
        tokio::select! {
            ended = serving => ended,
            () = shutdown => Ok(()),
        }
    }
}

async fn converse(stream: TcpStream, app: Router) {
    // A small answer must not wait for the acknowledgement of the one before; without this it is only slower.
    let _ = stream.set_nodelay(true);
    let connection = Builder::new(TokioExecutor::new());
    let serving = connection.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app)).into_owned();
    // A caller that leaves is no concern of the stand-in.
    let _ = serving.await;
}
