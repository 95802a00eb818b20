//! The gateway's room for identities, with the issuer's keys in it.

use std::{sync::Arc, time::Duration};

use stepgate::{
    access::{IssuerName, WorkloadKind},
    clock::Clock,
    identity::{Algorithm, Expect, Identity, IssuerConfig},
    transport::Transport,
};
use tokio::task::JoinSet;

use crate::{AUDIENCE, Upstream, issuer::ISSUER};

/// A room that trusts one issuer and has verified nothing yet.
pub struct Room {
    /// Who judges.
    pub identity: Arc<Identity>,
    _fresh: JoinSet<()>,
}

impl Room {
    /// A room that has fetched the keys from `keys`.
    pub async fn open(keys: &Upstream, transport: &Transport) -> Self {
        let config = IssuerConfig {
            audiences: vec![AUDIENCE.to_owned()],
            algorithms: Algorithm::ALL.to_vec(),
            workload: [("token_kind".to_owned(), Expect::Is("workload".into()))].into(),
            human: [("email".to_owned(), Expect::Present)].into(),
            client_claim: Some("client_id".to_owned()),
            jwks_uri: Some(keys.url.clone()),
            ..IssuerConfig::new(IssuerName::new("bench"), WorkloadKind::Oidc, ISSUER.to_owned())
        };
        let identity = Identity::new(vec![config], transport.clone(), Clock::System).expect("one issuer");
        let (identity, mut fresh) = (Arc::new(identity), JoinSet::new());
        let keeper = Arc::clone(&identity);
        fresh.spawn(async move { keeper.keep_fresh().await });
        while !identity.status().iter().all(|issuer| issuer.usable) {
            tokio::time::sleep(Duration::from_micros(100)).await;
        }
        Self { identity, _fresh: fresh }
    }
}
