//! Fetches an issuer's keys: its discovery document, then the key set that the document names.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header::ACCEPT};
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

/// The issuer's key set, as text.
pub(super) async fn fetch_keys(transport: &Transport, issuer: &IssuerConfig) -> Result<Bytes, FetchError> {
    let keys = match &issuer.jwks_uri {
        Some(configured) => configured.clone(),
        None => discover(transport, &issuer.url).await?,
    };
    get(transport, keys.as_str(), Document::Keys).await
}

async fn discover(transport: &Transport, issuer: &str) -> Result<Url, FetchError> {
    let address = format!("{}/.well-known/openid-configuration", issuer.strip_suffix('/').unwrap_or(issuer));
    let document = get(transport, &address, Document::Discovery).await?;
    let metadata: ProviderMetadata = serde_json::from_slice(&document).map_err(|_| FetchError::NotDiscovery)?;
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

async fn get(transport: &Transport, address: &str, document: Document) -> Result<Bytes, FetchError> {
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
        Ok(answer.into_body())
    } else {
        Err(FetchError::Status { document, status: answer.status() })
    }
}
