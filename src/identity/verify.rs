//! Turns an unverified token into verified claims: algorithm, key, signature, times, audience.

use std::sync::Arc;

use serde_json::Value;

use super::{
    config::IssuerConfig,
    error::Reason,
    issuer::Issuer,
    keyring::Miss,
    keys::{Key, NoKey},
    profile::Profile,
    token::UnverifiedToken,
};
use crate::{
    access::Claims,
    clock::{Clock, Timestamp},
};

/// Claims of a token that its issuer signed, that is meant for this gateway and that is valid now. Made by [`verify`] alone.
#[derive(Clone, Debug)]
pub(super) struct VerifiedClaims {
    claims: Arc<Claims>,
    expires: Timestamp,
}

impl VerifiedClaims {
    pub(super) fn claims(&self) -> &Arc<Claims> {
        &self.claims
    }

    pub(super) fn expires(&self) -> Timestamp {
        self.expires
    }

    #[cfg(test)]
    pub(super) fn for_test(claims: Claims) -> Self {
        Self { claims: Arc::new(claims), expires: Timestamp::from_millis(i64::MAX) }
    }
}

/// Verifies `token` as one of `issuer`, which was chosen by the token's `iss` before any key is looked at. Also gives the
/// key, since the claims are worth no more than it: when the issuer withdraws the key, they go with it.
pub(super) async fn verify(
    token: UnverifiedToken<'_>,
    issuer: &Issuer,
    clock: &Clock,
) -> Result<(VerifiedClaims, Arc<Key>), Reason> {
    let config = issuer.config();
    let algorithm = token
        .algorithm
        .filter(|algorithm| config.algorithms.contains(algorithm))
        .ok_or_else(|| Reason::AlgorithmNotAllowed(config.algorithms.clone()))?;
    let key = issuer.keys().find(token.kid.as_deref(), algorithm).await.map_err(|miss| match miss {
        Miss::NoKey(NoKey::Unknown) => Reason::UnknownKey,
        Miss::NoKey(NoKey::Unfit) => Reason::UnfitKey,
        Miss::NoKey(NoKey::Ambiguous) => Reason::AmbiguousKey,
        Miss::Unavailable => Reason::KeysUnavailable(config.name.clone()),
    })?;
    if !key.verifies(algorithm, token.message, token.signature) {
        return Err(Reason::BadSignature);
    }
    let claims = Claims::new(token.claims.0);
    let expires = check_times(&claims, config, clock.now())?;
    check_audience(&claims, config)?;
    Ok((VerifiedClaims { claims: Arc::new(claims), expires }, key))
}

/// RFC 7519, sections 4.1.4 to 4.1.6. `exp` must be there: a token that never ends cannot be taken back.
fn check_times(claims: &Claims, config: &IssuerConfig, now: Timestamp) -> Result<Timestamp, Reason> {
    let expires = date(claims, "exp")?.ok_or_else(|| Reason::MissingClaim("exp".to_owned()))?;
    if now >= expires.plus(config.leeway) {
        return Err(Reason::Expired);
    }
    let latest = now.plus(config.leeway);
    if date(claims, "nbf")?.is_some_and(|not_before| not_before > latest) {
        return Err(Reason::NotYetValid);
    }
    if date(claims, "iat")?.is_some_and(|issued| issued > latest) {
        return Err(Reason::IssuedInTheFuture);
    }
    Ok(expires)
}

/// A NumericDate: seconds since the epoch, perhaps with a fraction (RFC 7519, section 2).
fn date(claims: &Claims, name: &str) -> Result<Option<Timestamp>, Reason> {
    let Some(value) = claims.as_map().get(name) else { return Ok(None) };
    match value.as_f64() {
        // The conversion saturates, so a date beyond all bounds stays beyond all bounds.
        Some(seconds) => Ok(Some(Timestamp::from_millis((seconds * 1000.0) as i64))),
        None => Err(Reason::MalformedClaim { claim: name.to_owned(), expected: "a number of seconds" }),
    }
}

/// The token must be meant for this gateway. Where the issuer leaves `aud` out unless it is asked for a resource, the client
/// stands in for it, and `profile` holds it to the `clients` list.
fn check_audience(claims: &Claims, config: &IssuerConfig) -> Result<(), Reason> {
    let malformed = || Reason::MalformedClaim { claim: "aud".to_owned(), expected: "a string or a list of strings" };
    let named: Vec<&str> = match claims.as_map().get("aud") {
        None if Profile::of(config.kind).client_for_audience && !config.clients.is_empty() => return Ok(()),
        None => return Err(Reason::MissingClaim("aud".to_owned())),
        Some(Value::String(audience)) => vec![audience],
        Some(Value::Array(audiences)) => {
            audiences.iter().map(Value::as_str).collect::<Option<_>>().ok_or_else(malformed)?
        }
        Some(_) => return Err(malformed()),
    };
    if named.iter().any(|audience| config.audiences.iter().any(|accepted| accepted == audience)) {
        Ok(())
    } else {
        Err(Reason::WrongAudience(config.audiences.clone()))
    }
}
