//! Fetches an issuer's keys: its discovery document, then the key set that the document names.

use std::time::Duration;

use bytes::Bytes;
use http::{
    HeaderMap, Method, Request, Response, StatusCode,
    header::{ACCEPT, AGE, CACHE_CONTROL},
};
use http_body_util::Full;
use openidconnect::{IssuerUrl, JsonWebKeySetUrl};
use serde::Deserialize;
use url::{Host, Url};

use super::config::IssuerConfig;
use crate::transport::{Transport, TransportError};

/// How long one document may take.
pub(super) const DOCUMENT_DEADLINE: Duration = Duration::from_secs(5);

/// Longest discovery document or key set, in bytes. Entra's key set with its certificates is about 20 KiB.
const LARGEST_DOCUMENT: usize = 256 * 1024;

/// The two members of a discovery document that verifying tokens needs.
///
/// `openidconnect::core::CoreProviderMetadata` demands `authorization_endpoint`, `response_types_supported` and
/// `subject_types_supported` besides, which OpenID Connect Discovery requires of providers that log people in. Issuers
/// for workloads do not: GitHub Actions' and AWS STS' documents have no authorization endpoint, and that of EKS is no
/// URL. So only the types of the members are taken from there.
#[derive(Deserialize)]
struct ProviderMetadata {
    issuer: IssuerUrl,
    jwks_uri: JsonWebKeySetUrl,
}

/// The documents that are fetched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Document {
    /// `{issuer}/.well-known/openid-configuration`
    Discovery,
    /// The key set.
    Keys,
}

impl std::fmt::Display for Document {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Discovery => "the discovery document",
            Self::Keys => "the key set",
        })
    }
}

/// Why an issuer's keys could not be fetched; for operators.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Its address is no address.
    #[error("the address of {0} is not a URL that can be fetched; correct the issuer's `url` or `jwks_uri`")]
    Address(Document),
    /// No answer.
    #[error("{document}: {cause}")]
    Transport {
        /// Which document.
        document: Document,
        /// What happened.
        cause: TransportError,
    },
    /// An answer other than 200.
    #[error("{document} was answered with {status}")]
    Status {
        /// Which document.
        document: Document,
        /// The answer.
        status: StatusCode,
    },
    /// No JSON, or without `issuer` and `jwks_uri`.
    #[error("the discovery document is not JSON with `issuer` and `jwks_uri`")]
    NotDiscovery,
    /// Somebody else's document (OpenID Connect Discovery 1.0, section 4.3).
    #[error("the discovery document is that of `{found}`; write the issuer's `url` exactly so, or correct it")]
    OtherIssuer {
        /// The issuer that the document names.
        found: String,
    },
    /// Keys over plain HTTP could be anybody's.
    #[error("the discovery document names a `jwks_uri` that is neither https nor on loopback")]
    InsecureKeys,
    /// No JSON Web Key Set, or none of its keys can verify an accepted algorithm.
    #[error("the key set holds no key that can verify a signature")]
    NoUsableKeys,
}

/// A key set as its issuer gave it.
#[derive(Debug)]
pub(super) struct Fetched {
    /// The text.
    pub(super) text: Bytes,
    /// How long the issuer says it may be kept.
    pub(super) max_age: Option<Duration>,
}

/// The issuer's key set.
pub(super) async fn fetch_keys(transport: &Transport, issuer: &IssuerConfig) -> Result<Fetched, FetchError> {
    let keys = match &issuer.jwks_uri {
        Some(configured) => configured.clone(),
        None => discover(transport, &issuer.url).await?,
    };
    let answer = get(transport, keys.as_str(), Document::Keys).await?;
    Ok(Fetched { max_age: max_age(answer.headers()), text: answer.into_body() })
}

/// How long an answer may be kept: `max-age` less `Age` (RFC 9111, section 4.2.1), nothing at all under `no-store` and
/// `no-cache`. Without a word of `Cache-Control` the issuer leaves it to us.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let directives = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let directives =
        directives.flat_map(|value| value.split(',')).map(|directive| directive.trim().to_ascii_lowercase());
    let lives = directives.filter_map(|directive| match directive.as_str() {
        "no-store" | "no-cache" => Some(0),
        other => other.strip_prefix("max-age=")?.trim_matches('"').parse().ok(),
    });
    let seconds: u64 = lives.min()?;
    let age = headers.get(AGE).and_then(|age| age.to_str().ok()?.parse().ok()).unwrap_or(0);
    Some(Duration::from_secs(seconds.saturating_sub(age)))
}

async fn discover(transport: &Transport, issuer: &str) -> Result<Url, FetchError> {
    let address = format!("{}/.well-known/openid-configuration", issuer.strip_suffix('/').unwrap_or(issuer));
    let document = get(transport, &address, Document::Discovery).await?;
    let metadata: ProviderMetadata = serde_json::from_slice(document.body()).map_err(|_| FetchError::NotDiscovery)?;
    if metadata.issuer.as_str() != issuer {
        return Err(FetchError::OtherIssuer { found: metadata.issuer.to_string() });
    }
    let keys = Url::from(metadata.jwks_uri);
    if keys.scheme() == "https" || (keys.scheme() == "http" && is_loopback(&keys)) {
        Ok(keys)
    } else {
        Err(FetchError::InsecureKeys)
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

async fn get(transport: &Transport, address: &str, document: Document) -> Result<Response<Bytes>, FetchError> {
    let request = Request::builder()
        .method(Method::GET)
        .uri(address)
        .header(ACCEPT, "application/json")
        .body(Full::default())
        .map_err(|_| FetchError::Address(document))?;
    let answer = transport
        .exchange(request, LARGEST_DOCUMENT, DOCUMENT_DEADLINE)
        .await
        .map_err(|cause| FetchError::Transport { document, cause })?;
    if answer.status() == StatusCode::OK {
        Ok(answer)
    } else {
        Err(FetchError::Status { document, status: answer.status() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_issuer_says_of_keeping_its_keys_is_heard() {
        let life = |lines: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(*name, value.parse().unwrap());
            }
            max_age(&headers).map(|life| life.as_secs())
        };
        assert_eq!(life(&[]), None);
        assert_eq!(life(&[("cache-control", "public, max-age=3600, must-revalidate")]), Some(3600));
        assert_eq!(life(&[("cache-control", "Max-Age=60")]), Some(60));
        assert_eq!(life(&[("cache-control", "max-age=\"90\"")]), Some(90));
        assert_eq!(life(&[("cache-control", "max-age=600"), ("age", "200")]), Some(400));
        assert_eq!(life(&[("cache-control", "max-age=600"), ("age", "900")]), Some(0));
        assert_eq!(life(&[("cache-control", "no-store, max-age=600")]), Some(0));
        assert_eq!(life(&[("cache-control", "max-age=600"), ("cache-control", "no-cache")]), Some(0));
        for odd in ["max-age", "max-age=-1", "max-age=soon", "private", "s-maxage=60"] {
            assert_eq!(life(&[("cache-control", odd)]), None, "{odd}");
        }
    }
}
