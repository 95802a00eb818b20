//! azure_identity's requests over the gateway's own client, so that there is one pool, one set of roots and one deadline.

use std::time::Duration;

use azure_core::{
    error::ErrorKind,
    http::{
        AsyncRawResponse, Body, HttpClient, Request, StatusCode,
        headers::{HeaderName, HeaderValue, Headers},
    },
};
use bytes::Bytes;
use http_body_util::Full;
use url::Url;

use crate::transport::{Transport, TransportError};

/// Longest that one request may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// Largest answer read: a token and its description.
const LARGEST_ANSWER: usize = 64 * 1024;

/// The client that azure_identity is given.
#[derive(Clone, Debug)]
pub(super) struct OverTransport {
    pub(super) transport: Transport,
    pub(super) authority: Url,
}

impl OverTransport {
    /// The authority as azure_identity wants it. It takes `https` alone; the configuration takes `http` on loopback too, and
    /// [`HttpClient::execute_request`] puts it back.
    pub(super) fn authority_by_https(&self) -> String {
        let host = self.authority.host_str().unwrap_or_default();
        match self.authority.port_or_known_default() {
            Some(port) => format!("https://{host}:{port}"),
            None => format!("https://{host}"),
        }
    }

    pub(super) fn is_authority(&self, url: &Url) -> bool {
        url.host_str() == self.authority.host_str()
            && url.port_or_known_default() == self.authority.port_or_known_default()
    }
}

#[async_trait::async_trait]
impl HttpClient for OverTransport {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let url = request.url();
        let scheme = if self.is_authority(url) { self.authority.scheme() } else { url.scheme() };
        let uri = format!("{scheme}{}", url.as_str().strip_prefix(url.scheme()).unwrap_or_default());
        let body = match request.body() {
            Body::Bytes(bytes) => Bytes::copy_from_slice(bytes),
            _ => return Err(azure_core::Error::with_message(ErrorKind::DataConversion, "a body that is a stream")),
        };
        let mut outgoing = http::Request::builder().method(request.method().as_str()).uri(uri);
        for (name, value) in request.headers().iter() {
            outgoing = outgoing.header(name.as_str(), value.as_str());
        }
        let unsendable = |error: http::Error| azure_core::Error::new(ErrorKind::DataConversion, error);
        let outgoing = outgoing.body(Full::new(body)).map_err(unsendable)?;
        let answer = self.transport.exchange(outgoing, LARGEST_ANSWER, DEADLINE).await.map_err(|error| {
            let kind = match &error {
                TransportError::Connect(_) => ErrorKind::Connection,
                _ => ErrorKind::Io,
            };
            azure_core::Error::new(kind, error)
        })?;
        let (parts, body) = answer.into_parts();
        let mut headers = Headers::new();
        for (name, value) in &parts.headers {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            headers.insert(HeaderName::from(name.as_str().to_owned()), HeaderValue::from(value));
        }
        Ok(AsyncRawResponse::from_bytes(StatusCode::from(parts.status.as_u16()), headers, body))
    }
}
