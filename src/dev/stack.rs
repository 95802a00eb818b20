//! The stand-ins together, and a gateway configuration wired to them.

use std::{io, net::SocketAddr};

use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    cosmos::{self, Cosmos, CosmosSetup, RegionConfig},
    issuer::{self, Issuer},
};
use crate::{
    clock::Clock,
    config::{
        Credential, Raw,
        dev::{self, Dev},
    },
    secret::Secret,
};

/// A stand-in Cosmos DB and a local issuer, serving.
pub struct Stack {
    /// The stand-in Cosmos DB.
    pub cosmos: Running<Cosmos>,
    /// The local issuer.
    pub issuer: Running<Issuer>,
    /// The issuer that plays Entra, where there is one.
    pub entra: Option<Running<Issuer>>,
}

/// A stand-in that serves until it is stopped or dropped.
pub struct Running<T> {
    /// Its handle.
    pub handle: T,
    /// Its address.
    pub address: SocketAddr,
    stop: CancellationToken,
    serving: TaskTracker,
}

/// Why a stand-in cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    /// A port is taken.
    #[error("cannot listen on {address}: {source}; change `{key}` in the configuration, or free the port")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Its key in the configuration.
        key: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The stand-in Cosmos DB cannot hold what it was given.
    #[error("the stand-in Cosmos DB cannot start: {0}")]
    Cosmos(#[from] CosmosSetup),
    /// The issuer cannot make its keys.
    #[error("the local issuer cannot start: {0}")]
    Issuer(#[from] issuer::SigningError),
}

impl<T> Running<T> {
    /// `http://` and the address.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Stops serving.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.serving.close();
        self.serving.wait().await;
    }
}

impl<T> Drop for Running<T> {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Starts the stand-in Cosmos DB alone.
pub async fn start_cosmos(dev: &Dev) -> Result<Running<Cosmos>, StackError> {
    cosmos_with(dev, dev.entra.as_ref().map(|entra| format!("http://{}", entra.listen))).await
}

/// A stand-in that takes Entra tokens of `entra`.
async fn cosmos_with(dev: &Dev, entra: Option<String>) -> Result<Running<Cosmos>, StackError> {
    let (listener, address) = bind(dev.cosmos.listen, "dev.cosmos.listen").await?;
    let aad = entra.and_then(|issuer| {
        let jwks_uri = format!("{issuer}/jwks").parse().ok()?;
        Some(cosmos::Aad { issuer, jwks_uri })
    });
    let seed = dev.cosmos.seed.clone();
    let disable_local_auth = dev.cosmos.disable_local_auth;
    let mut config = cosmos::Config { aad, disable_local_auth, seed, ..cosmos::Config::default() };
    if let Some(key) = &dev.cosmos.account_key {
        config.account_key = Secret::new(key.clone());
    }
    let region = |region: &dev::Region| RegionConfig { name: region.name.clone(), listen: region.listen };
    config.regions = dev.cosmos.regions.iter().map(region).collect();
    let handle = Cosmos::new(config, Clock::System).await?;
    let (stop, serving) = (CancellationToken::new(), TaskTracker::new());
    let refuse = |source| StackError::Bind { address, key: "dev.cosmos.regions", source };
    for region in handle.bind_regions().await.map_err(refuse)? {
        serving.spawn(region.serve(stop.clone().cancelled_owned()));
    }
    serving.spawn(cosmos::serve(listener, handle.clone(), stop.clone().cancelled_owned()));
    Ok(Running { handle, address, stop, serving })
}

/// Starts the local issuer alone.
pub async fn start_issuer(dev: &Dev) -> Result<Running<Issuer>, StackError> {
    issuer_of(&dev.issuer, "dev.issuer.listen").await
}

async fn issuer_of(config: &dev::Issuer, key: &'static str) -> Result<Running<Issuer>, StackError> {
    let (listener, address) = bind(config.listen, key).await?;
    let handle = Issuer::new(config.clone(), format!("http://{address}"), Clock::System)?;
    let (stop, serving) = (CancellationToken::new(), TaskTracker::new());
    serving.spawn(issuer::serve(listener, handle.clone(), stop.clone().cancelled_owned()));
    Ok(Running { handle, address, stop, serving })
}

impl Stack {
    /// Starts them.
    pub async fn start(dev: &Dev) -> Result<Self, StackError> {
        let entra = match &dev.entra {
            Some(entra) => Some(issuer_of(entra, "dev.entra.listen").await?),
            None => None,
        };
        let cosmos = cosmos_with(dev, entra.as_ref().map(Running::url)).await?;
        Ok(Self { cosmos, issuer: start_issuer(dev).await?, entra })
    }

    /// Points a configuration at the addresses the stand-ins really have: it names the ones they were asked for, which
    /// may have been port 0.
    pub fn wire(&self, raw: &mut Raw, dev: &Dev) {
        let asked = format!("http://{}", dev.issuer.listen);
        for issuer in raw.issuers.iter_mut().filter(|issuer| issuer.url == asked) {
            issuer.url = self.issuer.url();
        }
        if let (Credential::Entra { authority: Some(authority), .. }, Some(entra), Some(asked)) =
            (&mut raw.cosmos.credential, &self.entra, &dev.entra)
            && authority.trim_end_matches('/') == format!("http://{}", asked.listen)
        {
            *authority = entra.url();
        }
        if raw.cosmos.endpoint.trim_end_matches('/') == format!("http://{}", dev.cosmos.listen) {
            raw.cosmos.endpoint = format!("{}/", self.cosmos.url());
        }
    }
}

async fn bind(address: SocketAddr, key: &'static str) -> Result<(TcpListener, SocketAddr), StackError> {
    let refuse = |source| StackError::Bind { address, key, source };
    let listener = TcpListener::bind(address).await.map_err(refuse)?;
    let address = listener.local_addr().map_err(refuse)?;
    Ok((listener, address))
}
