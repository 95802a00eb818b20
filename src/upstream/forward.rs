//! Sending a request to Cosmos, as often as that is safe and the deadline allows.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::Full;
use tokio::time::Instant;
use url::Url;

use super::{
    answer::{UpstreamAnswer, UpstreamError},
    headers::{self, RequestHeaders},
    retry::{self, Cause},
};
use crate::{
    access::Action,
    clock::Clock,
    exchange::ResourceToken,
    transport::{Transport, TransportError},
};

/// The version of the REST API, unless the caller asks for another.
const API_VERSION: HeaderValue = HeaderValue::from_static("2020-07-15");
const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("stepgate/", env!("CARGO_PKG_VERSION")));
/// An attempt with less time than this would mostly end in doubt about its outcome; the answer at hand is better.
const SHORTEST_ATTEMPT: Duration = Duration::from_millis(100);

/// What the room needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// The account, such as `https://account.documents.azure.com/`.
    pub endpoint: Url,
    /// Longest answer that is read, in bytes. Cosmos' pages end at 4 MB.
    pub largest_answer: usize,
    /// Longest that one attempt may take.
    pub attempt_timeout: Duration,
}

/// A permitted request, as it shall leave.
#[derive(Clone, Debug)]
pub struct Errand<'a> {
    /// The verb.
    pub method: Method,
    /// Path and query, rebuilt and percent-encoded, beginning with `/`.
    pub path: String,
    /// The headers that passed the allow-list, with the partition key the request runs under.
    pub headers: RequestHeaders,
    /// The body; attempts share it.
    pub body: Bytes,
    /// What the request does: a write is sent again only where it had no effect.
    pub action: Action,
    /// The request id, under which Azure logs the request.
    pub activity_id: &'a str,
    /// No attempt lasts beyond this.
    pub deadline: Instant,
}

/// The way to the Cosmos account.
#[derive(Clone, Debug)]
pub struct Upstream {
    config: Config,
    transport: Transport,
    clock: Clock,
}

impl Upstream {
    /// A way to the account; nothing is sent yet.
    pub fn new(config: Config, transport: Transport, clock: Clock) -> Self {
        Self { config, transport, clock }
    }

    /// Sends `errand` with `token` for its credential and returns the first answer that is not worth another attempt.
    /// Before each further attempt `may_retry` is asked whether the caller may still act.
    pub async fn forward(
        &self,
        errand: &Errand<'_>,
        token: &ResourceToken,
        may_retry: impl Fn() -> bool,
    ) -> Result<UpstreamAnswer, UpstreamError> {
        let began = Instant::now();
        let mut attempts = 0;
        loop {
            let left = errand.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(UpstreamError::Timeout { attempts });
            }
            let request = self.request(errand, token).map_err(UpstreamError::Unsendable)?;
            let timeout = left.min(self.config.attempt_timeout);
            let sent = self.transport.exchange(request, self.config.largest_answer, timeout).await;
            attempts += 1;
            let Some(wait) = time_to_wait(&sent, errand, attempts) else {
                return conclude(sent, errand, attempts, began.elapsed());
            };
            tokio::time::sleep(wait).await;
            if !may_retry() {
                return Err(UpstreamError::Withdrawn { attempts });
            }
        }
    }

    /// The request of one attempt: dated anew, and with no credential but the token.
    fn request(&self, errand: &Errand<'_>, token: &ResourceToken) -> Result<Request<Full<Bytes>>, http::Error> {
        let endpoint = &self.config.endpoint;
        // Part by part, so that no path can run into the host's name.
        let uri = Uri::builder().scheme(endpoint.scheme()).authority(endpoint.authority());
        let uri = uri.path_and_query(errand.path.as_str()).build()?;
        let date = HeaderValue::try_from(self.clock.now().http_date())?;
        let activity_id = HeaderValue::try_from(errand.activity_id)?;
        let mut request =
            Request::builder().method(errand.method.clone()).uri(uri).body(Full::new(errand.body.clone()))?;
        let headers = request.headers_mut();
        *headers = errand.headers.as_map().clone();
        headers.entry("x-ms-version").or_insert(API_VERSION);
        headers.insert(header::AUTHORIZATION, token.authorization().clone());
        headers.insert(header::USER_AGENT, USER_AGENT);
        headers.insert("x-ms-activity-id", activity_id);
        headers.insert("x-ms-date", date);
        Ok(request)
    }
}

type Sent = Result<Response<Bytes>, TransportError>;

/// How long until the next attempt; `None` when what was sent last is the last.
fn time_to_wait(sent: &Sent, errand: &Errand<'_>, attempts: u32) -> Option<Duration> {
    let is_write = errand.action.is_write();
    let cause = match sent {
        Ok(answer) => Cause::of_answer(answer.status(), answer.headers(), is_write)?,
        Err(error) => Cause::of_error(error, is_write)?,
    };
    let wait = cause.wait(attempts, retry::dice())?;
    let left = errand.deadline.saturating_duration_since(Instant::now());
    (wait + SHORTEST_ATTEMPT <= left).then_some(wait)
}

fn conclude(
    sent: Sent,
    errand: &Errand<'_>,
    attempts: u32,
    latency: Duration,
) -> Result<UpstreamAnswer, UpstreamError> {
    let answer = match sent {
        Ok(answer) => answer,
        Err(cause @ TransportError::Connect(_)) => return Err(UpstreamError::Unavailable { attempts, cause }),
        Err(cause) if errand.action.is_write() => return Err(UpstreamError::OutcomeUnknown { attempts, cause }),
        Err(TransportError::TooLarge(largest)) => return Err(UpstreamError::TooLarge { attempts, largest }),
        Err(TransportError::Deadline(_)) => return Err(UpstreamError::Timeout { attempts }),
        Err(cause) => return Err(UpstreamError::Unavailable { attempts, cause }),
    };
    let (parts, body) = answer.into_parts();
    let status = parts.status;
    if status.is_informational() || (status.is_redirection() && status != StatusCode::NOT_MODIFIED) {
        return Err(UpstreamError::BadAnswer { attempts, status });
    }
    let text = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    Ok(UpstreamAnswer {
        status,
        substatus: retry::number(&parts.headers, "x-ms-substatus"),
        activity_id: text("x-ms-activity-id").map(str::to_owned),
        request_charge: text("x-ms-request-charge").and_then(|charge| charge.parse().ok()),
        headers: headers::response(&parts.headers),
        body,
        attempts,
        latency,
        region: None,
    })
}

#[cfg(test)]
mod tests;
