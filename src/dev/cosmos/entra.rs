//! Entra-style tokens: a JWT of one configured issuer, for the audience of Cosmos, checked against the issuer's keys.
//!
//! What such a token may do follows Azure's native RBAC with a role on everything: items, queries, feeds, procedures and
//! reading metadata, but never users, permissions, or making and deleting databases and containers.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header, errors::ErrorKind, jwk::JwkSet};
use serde::Deserialize;

use super::{
    config::Aad,
    refusal::{EntraFault, Refusal},
    request::{Asked, Target},
};
use crate::{
    clock::Timestamp,
    transport::{Transport, TransportSetup},
};

/// The audience that Microsoft's SDKs ask for.
const AUDIENCE: &str = "https://cosmos.azure.com";
/// How far the issuer's clock may be off, in seconds.
const LEEWAY_SECS: i64 = 300;
const KEYS_LIFETIME: Duration = Duration::from_secs(300);
const DEADLINE: Duration = Duration::from_secs(5);
const LARGEST_KEY_SET: usize = 256 * 1024;
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

pub(super) struct Entra {
    issuer: Aad,
    transport: Transport,
    keys: Mutex<Option<(Timestamp, Arc<JwkSet>)>>,
}

#[derive(Deserialize)]
struct Times {
    exp: i64,
    nbf: Option<i64>,
}

impl Entra {
    pub(super) fn new(issuer: Aad) -> Result<Self, TransportSetup> {
        Ok(Self { issuer, transport: Transport::new(None)?, keys: Mutex::new(None) })
    }

    /// Checks a token; `endpoint` is the account's own address, which is an audience too.
    pub(super) async fn verify(&self, jwt: &str, endpoint: &str, now: Timestamp) -> Result<(), EntraFault> {
        let header = decode_header(jwt).map_err(|_| EntraFault::Invalid)?;
        let kid = header.kid.ok_or(EntraFault::Invalid)?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(EntraFault::Invalid);
        }
        let keys = self.keys_with(&kid, now).await?;
        let key = keys.find(&kid).ok_or(EntraFault::Invalid)?;
        let key = DecodingKey::from_jwk(key).map_err(|_| EntraFault::Invalid)?;
        let mut validation = Validation::new(header.alg);
        validation.set_issuer(&[&self.issuer.issuer]);
        let endpoint = endpoint.trim_end_matches('/');
        validation.set_audience(&[AUDIENCE, &format!("{AUDIENCE}/"), endpoint, &format!("{endpoint}/")]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        // The library would ask the system's clock.
        validation.validate_exp = false;
        let token = decode::<Times>(jwt, &key, &validation).map_err(|error| match error.kind() {
            ErrorKind::InvalidAudience => EntraFault::Audience,
            _ => EntraFault::Invalid,
        })?;
        let (now, Times { exp, nbf }) = (now.as_secs(), token.claims);
        let is_current =
            now <= exp.saturating_add(LEEWAY_SECS) && nbf.is_none_or(|nbf| now >= nbf.saturating_sub(LEEWAY_SECS));
        if is_current { Ok(()) } else { Err(EntraFault::Expired) }
    }

    /// The issuer's keys, read anew when they are old or lack `kid`.
    async fn keys_with(&self, kid: &str, now: Timestamp) -> Result<Arc<JwkSet>, EntraFault> {
        let held = self.keys.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((read, keys)) = held
            && now.since(read) < KEYS_LIFETIME
            && keys.find(kid).is_some()
        {
            return Ok(keys);
        }
        let request = Request::builder().method(Method::GET).uri(self.issuer.jwks_uri.as_str());
        let request = request.body(Full::new(Bytes::new())).map_err(|_| EntraFault::KeysUnavailable)?;
        let answer = self.transport.exchange(request, LARGEST_KEY_SET, DEADLINE).await;
        let answer = answer.map_err(|_| EntraFault::KeysUnavailable)?;
        let keys: JwkSet = serde_json::from_slice(answer.body()).map_err(|_| EntraFault::KeysUnavailable)?;
        let keys = Arc::new(keys);
        *self.keys.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, Arc::clone(&keys)));
        Ok(keys)
    }
}

/// Whether an Entra token may do what is asked at all.
pub(super) fn permits(asked: &Asked) -> Result<(), Refusal> {
    let allowed = match &asked.target {
        Target::Account | Target::Databases | Target::Database { .. } | Target::Containers { .. } => {
            asked.method == Method::GET
        }
        Target::Container { .. } => asked.method == Method::GET || asked.operation().is_some(),
        _ => false,
    };
    if allowed { Ok(()) } else { Err(Refusal::NotByEntra { request: format!("{} {}", asked.method, asked.path()) }) }
}
