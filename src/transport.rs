//! Outgoing connections: one pooled HTTP client over rustls, for issuers and for Cosmos alike.
//!
//! Plain `http://` goes over HTTP/1.1; `https://` offers HTTP/2 and HTTP/1.1 by ALPN and verifies against the system's
//! roots, or against the given ones. Every exchange has a deadline and a cap on the answer; redirects are not followed,
//! since a redirect would carry a credential to a host nobody configured.

mod span;

use std::{error::Error as _, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use tracing::Instrument as _;

pub use self::span::SPANS;

/// Everything but the unreserved characters of RFC 3986, section 2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// `text` as one segment of a path, or as a header value that must be percent-encoded.
pub fn percent_encode(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, RESERVED)
}

/// A pooled HTTP client. Clones share the pool.
#[derive(Clone, Debug)]
pub struct Transport {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// The client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TransportSetup {
    /// A file of certificates cannot be read or holds none.
    #[error("no certificates in {}: {reason}", file.display())]
    Certificates {
        /// The file.
        file: PathBuf,
        /// What the reader said.
        reason: String,
    },
}

/// An exchange that gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// No connection was made, so the other side has seen nothing of the request.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// The connection broke after the request had begun to leave: the other side may have acted on it.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The deadline passed: the other side may have acted on the request.
    #[error("no answer within {0:?}")]
    Deadline(Duration),
    /// The answer is longer than the caller allows.
    #[error("the answer is longer than {0} bytes")]
    TooLarge(usize),
}

impl TransportError {
    /// Whether the other side cannot have seen the request.
    pub fn is_before_sending(&self) -> bool {
        matches!(self, Self::Connect(_))
    }
}

impl Transport {
    /// A client that trusts the system's roots and, beside them, the certificates in `extra_roots` (PEM).
    pub fn new(extra_roots: Option<&std::path::Path>) -> Result<Self, TransportSetup> {
        let mut roots = RootCertStore::empty();
        let native = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(native.certs);
        if let Some(file) = extra_roots {
            let refuse = |reason: String| TransportSetup::Certificates { file: file.to_owned(), reason };
            let certificates = CertificateDer::pem_file_iter(file).map_err(|error| refuse(error.to_string()))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| refuse(error.to_string()))?;
                roots.add(certificate).map_err(|error| refuse(error.to_string()))?;
            }
        }
        Ok(Self::with_roots(roots))
    }

    fn with_roots(roots: RootCertStore) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider);
        #[allow(
            clippy::expect_used,
            reason = "aws-lc-rs supports rustls' default protocol versions; nothing here is input"
        )]
        let tls = tls.with_safe_default_protocol_versions().expect("default protocol versions");
        let tls = tls.with_root_certificates(roots).with_no_client_auth();
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(Duration::from_secs(5)));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(64)
            // A pooled connection that turns out closed is the gateway's to retry, since only it knows what is safe.
            .retry_canceled_requests(false)
            .build(connector);
        Self { client }
    }

    /// Sends `request` and reads the whole answer, up to `largest` bytes, within `deadline`.
    pub async fn exchange(
        &self,
        mut request: Request<Full<Bytes>>,
        largest: usize,
        deadline: Duration,
    ) -> Result<Response<Bytes>, TransportError> {
        let span = span::begin(&mut request);
        let answered = self.send(request, largest, deadline).instrument(span.clone()).await;
        span::end(&span, &answered);
        answered
    }

    async fn send(
        &self,
        request: Request<Full<Bytes>>,
        largest: usize,
        deadline: Duration,
    ) -> Result<Response<Bytes>, TransportError> {
        let whole = async {
            let response = self.client.request(request).await.map_err(|error| {
                if error.is_connect() || was_never_sent(&error) {
                    TransportError::Connect(chain(&error))
                } else {
                    TransportError::Broken(chain(&error))
                }
            })?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, largest).collect().await.map_err(|error| {
                if error.is::<http_body_util::LengthLimitError>() {
                    TransportError::TooLarge(largest)
                } else {
                    TransportError::Broken(error.to_string())
                }
            })?;
            Ok(Response::from_parts(parts, body.to_bytes()))
        };
        tokio::time::timeout(deadline, whole).await.unwrap_or(Err(TransportError::Deadline(deadline)))
    }
}

/// Whether a pooled connection turned out closed before the request was written to it.
fn was_never_sent(error: &hyper_util::client::legacy::Error) -> bool {
    error.source().and_then(|cause| cause.downcast_ref::<hyper::Error>()).is_some_and(hyper::Error::is_canceled)
}

/// An error with its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
