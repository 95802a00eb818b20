//! Reads a token without believing it.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use super::{
    config::Algorithm,
    error::{Part, Reason},
    strict,
};

/// Claims of a token whose signature nobody has checked. All they are good for is choosing the issuer whose keys then
/// decide; only `verify` turns them into `VerifiedClaims`.
#[derive(Debug)]
pub(super) struct UnverifiedClaims(pub(super) Map<String, Value>);

impl UnverifiedClaims {
    /// The issuer the token claims to be from.
    pub(super) fn issuer(&self) -> Option<&str> {
        self.0.get("iss")?.as_str()
    }
}

/// A token in compact form (RFC 7515, section 7.1), taken apart. Nothing prints it.
pub(super) struct UnverifiedToken<'a> {
    /// `None` for `none`, HMAC and names that are not known: no issuer can allow those.
    pub(super) algorithm: Option<Algorithm>,
    pub(super) kid: Option<String>,
    pub(super) claims: UnverifiedClaims,
    /// What the signature is over.
    pub(super) message: &'a str,
    pub(super) signature: &'a str,
}

/// Takes a token apart. Keys and key addresses in the header (`jwk`, `jku`, `x5c`, `x5u`) are the sender's own and are not
/// read.
pub(super) fn parse(text: &str) -> Result<UnverifiedToken<'_>, Reason> {
    let (message, signature) = text.rsplit_once('.').ok_or(Reason::NotAJwt)?;
    let (header, claims) = message.split_once('.').ok_or(Reason::NotAJwt)?;
    let header = object(header, Part::Header)?;
    let claims = UnverifiedClaims(object(claims, Part::Claims)?);
    if header.contains_key("crit") {
        return Err(Reason::CriticalExtension);
    }
    let kid = match header.get("kid") {
        None => None,
        Some(Value::String(kid)) => Some(kid.clone()),
        Some(_) => return Err(Reason::NotAJwt),
    };
    if header.get("typ").is_some_and(|typ| !is_access_token(typ)) {
        return Err(Reason::WrongType);
    }
    let algorithm = header.get("alg").and_then(Value::as_str).and_then(Algorithm::named);
    Ok(UnverifiedToken { algorithm, kid, claims, message, signature })
}

/// RFC 9068 has `at+jwt` for access tokens, and most issuers still write `JWT`; either may carry `application/` and any
/// case (RFC 7515, section 4.1.9). Logout tokens and DPoP proofs, signed by the same keys, say otherwise.
fn is_access_token(typ: &Value) -> bool {
    let Some(typ) = typ.as_str() else { return false };
    let typ = typ.to_ascii_lowercase();
    matches!(typ.strip_prefix("application/").unwrap_or(&typ), "jwt" | "at+jwt")
}

fn object(encoded: &str, part: Part) -> Result<Map<String, Value>, Reason> {
    let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| Reason::NotAJwt)?;
    strict::object(&bytes).map_err(|refusal| match refusal {
        strict::Refusal::Syntax => Reason::NotAJwt,
        strict::Refusal::Repeated => Reason::RepeatedMember(part),
    })
}
