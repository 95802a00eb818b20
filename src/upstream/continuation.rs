//! Continuations, sealed: `stepgate1.{mac}.{what Cosmos gave}`.
//!
//! A continuation says where in the data a page begins, in a form that only Cosmos reads. Under a resource token it can lead
//! nowhere else; under an Entra token it must not be made up, nor taken from another workflow's pages. So it carries an
//! HMAC-SHA256 over the subject, the scope, the partition, the kind of request and the query, besides itself.

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{SHA256, digest},
    hmac::{self, HMAC_SHA256},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::forward::Errand;
use crate::{
    access::headers::{CONTINUATION, PARTITION_KEY},
    exchange::Warrant,
    secret::Secret,
};

const CHANGE_FEED: &str = "a-im";
const PREFIX: &str = "stepgate1.";
/// Bytes of the MAC that are kept.
const KEPT: usize = 16;

/// The continuation was not handed out to this caller for this request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "the continuation was not handed out for this request: not by this gateway, or to another workflow, or for another query"
)]
pub struct ForeignContinuation;

/// The key that continuations are sealed with.
#[derive(Clone, Debug)]
pub(super) struct Seal(hmac::Key);

impl Seal {
    /// A seal that every gateway with the same secret can open; without a secret, one of this process alone.
    pub(super) fn new(secret: Option<&Secret>) -> Self {
        Self(match secret {
            Some(secret) => hmac::Key::new(HMAC_SHA256, secret.expose().as_bytes()),
            None => {
                let random = [uuid::Uuid::new_v4().into_bytes(), uuid::Uuid::new_v4().into_bytes()].concat();
                hmac::Key::new(HMAC_SHA256, &random)
            }
        })
    }

    /// Puts what Cosmos gave in the place of what was handed out.
    pub(super) fn open(&self, errand: &mut Errand<'_>, warrant: &Warrant) -> Result<(), ForeignContinuation> {
        let bound = bound(errand, warrant);
        let mut opened = Vec::new();
        for name in places(errand) {
            let Some(value) = errand.headers.as_map().get(&name) else { continue };
            // `If-None-Match: *` begins a change feed at now.
            if name == header::IF_NONE_MATCH && value == "*" {
                continue;
            }
            let sealed = value.to_str().map_err(|_| ForeignContinuation)?.trim_matches('"');
            let sealed = sealed.strip_prefix(PREFIX).ok_or(ForeignContinuation)?;
            let (mac, original) = sealed.split_once('.').ok_or(ForeignContinuation)?;
            let mac = URL_SAFE_NO_PAD.decode(mac).map_err(|_| ForeignContinuation)?;
            let original = URL_SAFE_NO_PAD.decode(original).map_err(|_| ForeignContinuation)?;
            verify_slices_are_equal(&mac, &self.mac(&bound, &original)).map_err(|_| ForeignContinuation)?;
            opened.push((name, HeaderValue::from_bytes(&original).map_err(|_| ForeignContinuation)?));
        }
        for (name, value) in opened {
            errand.headers.set(name, value);
        }
        Ok(())
    }

    /// Seals what Cosmos gave in answer to the errand.
    pub(super) fn close(&self, errand: &Errand<'_>, warrant: &Warrant, answer: &mut HeaderMap) {
        let bound = bound(errand, warrant);
        for name in places(errand) {
            let name = if name == header::IF_NONE_MATCH { header::ETAG } else { name };
            let Some(original) = answer.get(&name).map(|value| value.as_bytes().to_owned()) else { continue };
            let (mac, text) = (self.mac(&bound, &original), URL_SAFE_NO_PAD.encode(&original));
            let sealed = format!("{PREFIX}{}.{text}", URL_SAFE_NO_PAD.encode(mac));
            let sealed = if name == header::ETAG { format!("\"{sealed}\"") } else { sealed };
            // Base64, dots and quotes are always a header value.
            if let Ok(value) = HeaderValue::try_from(sealed) {
                answer.insert(name, value);
            }
        }
    }

    fn mac(&self, bound: &[u8], original: &[u8]) -> Vec<u8> {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(bound);
        context.update(original);
        context.sign().as_ref().iter().take(KEPT).copied().collect()
    }
}

/// The request headers in which a continuation may stand: for a change feed also the etag it continues from.
fn places(errand: &Errand<'_>) -> Vec<HeaderName> {
    let is_feed = errand.method == Method::GET && errand.path.ends_with("/docs");
    if is_feed && errand.headers.as_map().contains_key(CHANGE_FEED) {
        return vec![CONTINUATION, header::IF_NONE_MATCH];
    }
    vec![CONTINUATION]
}

/// What a continuation is bound to: every part with its length before it, so that no two lists run together.
fn bound(errand: &Errand<'_>, warrant: &Warrant) -> Vec<u8> {
    let scope = warrant.scope().id();
    let query = digest(&SHA256, &errand.body);
    let header = |name: &str| errand.headers.as_map().get(name).map_or(&b""[..], HeaderValue::as_bytes);
    let parts = [
        &b"stepgate continuation"[..],
        warrant.subject().issuer.as_str().as_bytes(),
        warrant.subject().id.as_bytes(),
        scope.as_bytes(),
        errand.method.as_str().as_bytes(),
        errand.path.as_bytes(),
        header(CHANGE_FEED),
        header(PARTITION_KEY.as_str()),
        query.as_ref(),
    ];
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}
