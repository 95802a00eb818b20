//! Tokens made to order, mostly bad ones: what no honest issuer would sign.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{
    Issuer,
    signing::{Signature, SigningError},
};
use crate::config::dev::SigningAlgorithm;

/// A token to order. Left empty, it is a good one of a workload called `minted`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mint {
    /// Claims beside or instead of the usual ones; `null` takes one away.
    pub claims: Map<String, Value>,
    /// Header members, likewise.
    pub header: Map<String, Value>,
    /// Seconds until `exp`, perhaps negative; left out, the issuer's lifetime.
    pub ttl: Option<i64>,
    /// Whose signature.
    pub key: MintKey,
    /// How signed, and what `alg` says; left out, as the issuer signs.
    pub alg: Option<MintAlgorithm>,
}

/// Whose signature an ordered token bears.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MintKey {
    /// The key that signs now.
    #[default]
    Current,
    /// A key that was never published, under the `kid` of the one that signs now.
    Rogue,
}

/// How an ordered token is signed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
pub enum MintAlgorithm {
    /// As asked.
    RS256,
    /// As asked.
    ES256,
    /// `alg: none`, and no signature.
    #[serde(rename = "none")]
    None,
    /// HMAC-SHA-256 with the public key's PEM text as the secret, which a verifier that lets the token choose the
    /// algorithm takes for good.
    #[serde(rename = "HS256-with-public-key")]
    HmacWithPem,
    /// The same with the DER form.
    #[serde(rename = "HS256-with-public-key-der")]
    HmacWithDer,
}

impl Issuer {
    /// A token to order.
    pub fn mint(&self, order: Mint) -> Result<String, SigningError> {
        let algorithm = match order.alg {
            Some(MintAlgorithm::RS256) => Some(SigningAlgorithm::RS256),
            Some(MintAlgorithm::ES256) => Some(SigningAlgorithm::ES256),
            _ => None,
        };
        let published = self.keys().signing(algorithm);
        let key = match order.key {
            MintKey::Current => published.clone(),
            MintKey::Rogue => self.keys().rogue(published.algorithm())?,
        };
        let (name, signature) = match order.alg {
            Some(MintAlgorithm::None) => ("none", Signature::Empty),
            Some(MintAlgorithm::HmacWithPem) => ("HS256", Signature::HmacWithPem),
            Some(MintAlgorithm::HmacWithDer) => ("HS256", Signature::HmacWithDer),
            _ => (key.algorithm().as_str(), Signature::Proper),
        };
        let header = with(header(name, &published.kid), order.header);
        let ttl = order.ttl.unwrap_or_else(|| i64::try_from(self.config().lifetime.as_secs()).unwrap_or(i64::MAX));
        let mut claims = self.usual_claims("minted", ttl);
        claims.insert("token_kind".to_owned(), "workload".into());
        key.token(&header, &with(claims, order.claims), signature)
    }

    /// The claims of every token (RFC 9068, section 2.2).
    pub(super) fn usual_claims(&self, subject: &str, ttl: i64) -> Map<String, Value> {
        let now = self.clock().now().as_secs();
        members(json!({
            "iss": self.url(),
            "sub": subject,
            "client_id": subject,
            "aud": self.config().audience,
            "iat": now,
            "nbf": now,
            "exp": now.saturating_add(ttl),
            "jti": Uuid::new_v4().to_string(),
        }))
    }
}

/// The header of every token.
pub(super) fn header(algorithm: &str, kid: &str) -> Map<String, Value> {
    members(json!({"alg": algorithm, "typ": "at+jwt", "kid": kid}))
}

/// `base` with `changes`; a change to `null` takes the member away.
pub(super) fn with(mut base: Map<String, Value>, changes: Map<String, Value>) -> Map<String, Value> {
    for (name, value) in changes {
        if value.is_null() {
            base.remove(&name);
        } else {
            base.insert(name, value);
        }
    }
    base
}

fn members(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}
