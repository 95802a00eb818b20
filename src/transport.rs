//! Outgoing connections: one pooled HTTP client over rustls, for issuers and for Cosmos alike.
//!
//! Plain `http://` goes over HTTP/1.1; `https://` offers HTTP/2 and HTTP/1.1 by ALPN and verifies against the system's
//! roots, or against the given ones. Every exchange has a deadline and a cap on the answer; redirects are not followed,
//! since a redirect would carry a credential to a host nobody configured.

mod span;

use std::{error::Error as _, path::PathBuf, pin::pin, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
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
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
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

/// The memory for bodies that are held at the same time, requests and answers alike. Clones share it.
#[derive(Clone, Debug)]
pub struct BodyMemory(Arc<Semaphore>);

impl BodyMemory {
    /// A memory of that many bytes.
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS))))
    }

    /// How much of it is free, in bytes.
    pub fn free(&self) -> usize {
        self.0.available_permits()
    }

    /// A share of it, where there is as much left. Nobody waits for memory: who waits holds some.
    pub fn take(&self, bytes: usize) -> Option<Share> {
        let bytes = u32::try_from(bytes).ok()?;
        self.0.clone().try_acquire_many_owned(bytes).ok().map(Share)
    }
}

/// A share of the memory for bodies; it is given back when dropped.
#[derive(Debug)]
pub struct Share(OwnedSemaphorePermit);

impl Share {
    /// A body that gives the share back with its last copy.
    pub fn hold(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Held { bytes, _share: self })
    }
}

struct Held {
    bytes: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Where an answer is read to: a memory, and the share of it that was taken before the request left.
struct Room<'a> {
    memory: &'a BodyMemory,
    share: Share,
}

impl Room<'_> {
    /// Makes the share as large as `bytes`.
    fn grow(&mut self, bytes: usize) -> Result<(), TransportError> {
        let missing = bytes.saturating_sub(self.share.0.num_permits());
        let more = self.memory.take(missing).ok_or(TransportError::NoRoom)?;
        self.share.0.merge(more.0);
        Ok(())
    }
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
    /// The memory for bodies is used up.
    #[error("there is no memory left for the answer")]
    NoRoom,
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
    pub fn exchange(
        &self,
        request: Request<Full<Bytes>>,
        largest: usize,
        deadline: Duration,
    ) -> impl Future<Output = Result<Response<Bytes>, TransportError>> + Send {
        self.exchange_in(request, largest, deadline, None)
    }

    /// The same, with the answer held in `memory`: `share` of it is taken already, the rest as the answer comes.
    pub fn exchange_within(
        &self,
        request: Request<Full<Bytes>>,
        largest: usize,
        deadline: Duration,
        memory: &BodyMemory,
        share: Share,
    ) -> impl Future<Output = Result<Response<Bytes>, TransportError>> + Send {
        self.exchange_in(request, largest, deadline, Some(Room { memory, share }))
    }

    async fn exchange_in(
        &self,
        mut request: Request<Full<Bytes>>,
        largest: usize,
        deadline: Duration,
        room: Option<Room<'_>>,
    ) -> Result<Response<Bytes>, TransportError> {
        let span = span::begin(&mut request);
        let whole = pin!(async {
            let response = self.client.request(request).await.map_err(|error| {
                if error.is_connect() || was_never_sent(&error) {
                    TransportError::Connect(chain(&error))
                } else {
                    TransportError::Broken(chain(&error))
                }
            })?;
            let (parts, body) = response.into_parts();
            Ok(Response::from_parts(parts, read(body, largest, room).await?))
        });
        let whole = tokio::time::timeout(deadline, whole).instrument(span.clone()).await;
        let answered = whole.unwrap_or(Err(TransportError::Deadline(deadline)));
        span::end(&span, &answered);
        answered
    }
}

/// Reads a body of at most `largest` bytes, taking room for it as it comes.
async fn read(mut body: Incoming, largest: usize, mut room: Option<Room<'_>>) -> Result<Bytes, TransportError> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| TransportError::Broken(chain(&error)))?;
        let Ok(data) = frame.into_data() else { continue };
        let length = bytes.len().saturating_add(data.len());
        if length > largest {
            return Err(TransportError::TooLarge(largest));
        }
        if let Some(room) = &mut room {
            room.grow(length)?;
        }
        bytes.extend_from_slice(&data);
    }
    let bytes = bytes.freeze();
    Ok(match room {
        Some(room) => room.share.hold(bytes),
        None => bytes,
    })
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
