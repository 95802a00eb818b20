//! Sending a request to Cosmos, as often as that is safe and the deadline allows.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::Full;
use tokio::time::Instant;
use url::Url;

use super::{
    answer::{Doubt, UpstreamAnswer, UpstreamError, partition_key_levels},
    budget::Budget,
    confine::{self, Confinement},
    continuation::Seal,
    headers::{self, RequestHeaders},
    retry::{self, Effect, Rule, Safety},
};
use crate::{
    access::Enforcer,
    clock::Clock,
    exchange::Warrant,
    secret::Secret,
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
    /// What continuations are sealed with where stepgate enforces the scope; `None` for a key of this process alone.
    pub continuation_key: Option<Secret>,
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
    /// What it would mean to carry it out twice.
    pub safety: Safety,
    /// The request id, under which Azure logs the request.
    pub activity_id: &'a str,
    /// No attempt lasts beyond this.
    pub deadline: Instant,
}

/// The way to the Cosmos account.
#[derive(Debug)]
pub struct Upstream {
    config: Config,
    transport: Transport,
    clock: Clock,
    budget: Budget,
    confinement: Confinement,
}

impl Upstream {
    /// A way to the account; nothing is sent yet.
    pub fn new(config: Config, transport: Transport, clock: Clock) -> Self {
        let confinement = Confinement::new(Seal::new(config.continuation_key.as_ref()));
        Self { config, transport, budget: Budget::new(clock.clone()), clock, confinement }
    }

    /// Sends `errand` under `warrant` and returns the first answer that is not worth another attempt.
    /// Before each further attempt `may_retry` is asked whether the caller may still act.
    pub async fn forward(
        &self,
        errand: &Errand<'_>,
        warrant: &Warrant,
        may_retry: impl Fn() -> bool,
    ) -> Result<UpstreamAnswer, UpstreamError> {
        match warrant.enforcer() {
            Enforcer::Cosmos => {
                let answer = self.send(errand, warrant, &may_retry).await?;
                // A resource token that is refused may be old, or good and asked for what only a whole key has. In the second
                // case it reads the container, whose key tells; in the first it does not, and nothing is known.
                if answer.refused_credential() {
                    let depth = async || self.read_depth(errand, warrant, &may_retry).await;
                    let checked = self.confinement.check_depth(errand, warrant, depth).await;
                    if let Err(outside @ UpstreamError::Outside(_)) = checked {
                        return Err(outside);
                    }
                }
                Ok(answer)
            }
            Enforcer::Stepgate => {
                let held = self.confinement.hold(errand, warrant)?;
                let depth = async || self.read_depth(errand, warrant, &may_retry).await;
                self.confinement.check_depth(errand, warrant, depth).await?;
                let answer = self.send(&held, warrant, may_retry).await?;
                Ok(self.confinement.hand_out(errand, warrant, answer))
            }
        }
    }

    /// How many levels the partition key of the warrant's container has.
    async fn read_depth(
        &self,
        errand: &Errand<'_>,
        warrant: &Warrant,
        may_retry: impl Fn() -> bool,
    ) -> Result<usize, UpstreamError> {
        let read = Errand {
            method: Method::GET,
            path: confine::path(warrant.scope().container()),
            headers: RequestHeaders::default(),
            body: Bytes::new(),
            safety: Safety::Read,
            activity_id: errand.activity_id,
            deadline: errand.deadline,
        };
        let answer = self.send(&read, warrant, may_retry).await?;
        let unknown = UpstreamError::UnknownKey { attempts: answer.attempts, status: answer.status };
        answer.status.is_success().then(|| partition_key_levels(&answer.body)).flatten().ok_or(unknown)
    }

    async fn send(
        &self,
        errand: &Errand<'_>,
        warrant: &Warrant,
        may_retry: impl Fn() -> bool,
    ) -> Result<UpstreamAnswer, UpstreamError> {
        self.budget.deposit();
        let mut trip = Trip { errand, began: Instant::now(), attempts: 0, doubt: None };
        loop {
            let left = errand.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(trip.ended(|attempts| UpstreamError::Timeout { attempts }));
            }
            let request = self.request(errand, warrant).map_err(UpstreamError::Unsendable)?;
            let timeout = left.min(self.config.attempt_timeout);
            let sent = self.transport.exchange(request, self.config.largest_answer, timeout).await;
            trip.attempts += 1;
            let rule = match &sent {
                Ok(answer) => Rule::of_answer(answer.status(), answer.headers()),
                Err(error) => Rule::of_error(error),
            };
            let Some((rule, wait)) = rule.and_then(|rule| Some((rule, self.time_to_wait(rule, &sent, &trip)?))) else {
                return trip.conclude(sent, rule);
            };
            if rule.effect == Effect::Unknown && errand.safety != Safety::Read {
                trip.doubt = Some(trip.doubt_about(sent)?);
            }
            tokio::time::sleep(wait).await;
            if !may_retry() {
                return Err(trip.ended(|attempts| UpstreamError::Withdrawn { attempts }));
            }
        }
    }

    /// How long until the next attempt; `None` when what was sent last is the last.
    fn time_to_wait(&self, rule: &Rule, sent: &Sent, trip: &Trip<'_>) -> Option<Duration> {
        let repeats = trip.attempts.saturating_sub(1);
        if !rule.allows(trip.errand.safety) || repeats >= rule.repeats(false) {
            return None;
        }
        let told = sent.as_ref().ok().and_then(|answer| retry::told(answer.headers()));
        let wait = rule.wait(repeats, told, retry::dice());
        let left = trip.errand.deadline.saturating_duration_since(Instant::now());
        let goes = wait + SHORTEST_ATTEMPT <= left && (told.is_some() || self.budget.pay());
        goes.then_some(wait)
    }

    /// The request of one attempt: dated anew, and with no credential but the warrant's.
    fn request(&self, errand: &Errand<'_>, warrant: &Warrant) -> Result<Request<Full<Bytes>>, http::Error> {
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
        headers.insert(header::AUTHORIZATION, warrant.authorization().clone());
        headers.insert(header::USER_AGENT, USER_AGENT);
        headers.insert("x-ms-activity-id", activity_id);
        headers.insert("x-ms-date", date);
        Ok(request)
    }
}

type Sent = Result<Response<Bytes>, TransportError>;

/// What is known of an errand under way.
struct Trip<'a> {
    errand: &'a Errand<'a>,
    began: Instant,
    attempts: u32,
    /// The last attempt that may have carried out the write.
    doubt: Option<Doubt>,
}

impl Trip<'_> {
    /// The end of a trip without another answer: of a write in doubt, all that is known is the doubt.
    fn ended(self, otherwise: impl FnOnce(u32) -> UpstreamError) -> UpstreamError {
        let attempts = self.attempts;
        self.doubt.map_or_else(|| otherwise(attempts), |cause| UpstreamError::OutcomeUnknown { attempts, cause })
    }

    fn doubt_about(&self, sent: Sent) -> Result<Doubt, UpstreamError> {
        Ok(match sent {
            Ok(answer) => Doubt::Answered(Box::new(self.read(answer)?)),
            Err(error) => Doubt::Lost(error),
        })
    }

    /// What the last attempt comes to.
    fn conclude(self, sent: Sent, rule: Option<&Rule>) -> Result<UpstreamAnswer, UpstreamError> {
        let attempts = self.attempts;
        let is_write = self.errand.safety != Safety::Read;
        let answer = match sent {
            Ok(answer) => self.read(answer)?,
            Err(cause @ TransportError::Connect(_)) => {
                return Err(self.ended(|attempts| UpstreamError::Unavailable { attempts, cause }));
            }
            Err(cause) if is_write => {
                return Err(UpstreamError::OutcomeUnknown { attempts, cause: Doubt::Lost(cause) });
            }
            Err(TransportError::TooLarge(largest)) => return Err(UpstreamError::TooLarge { attempts, largest }),
            Err(TransportError::Deadline(_)) => return Err(UpstreamError::Timeout { attempts }),
            Err(cause) => return Err(UpstreamError::Unavailable { attempts, cause }),
        };
        let leaves_it_open = match rule {
            Some(rule) => rule.effect == Effect::Unknown || self.doubt.is_some(),
            None => self.doubt.is_some() && self.says_nothing_of_the_first(&answer),
        };
        if is_write && leaves_it_open {
            return Err(UpstreamError::OutcomeUnknown { attempts, cause: Doubt::Answered(Box::new(answer)) });
        }
        Ok(answer)
    }

    fn says_nothing_of_the_first(&self, answer: &UpstreamAnswer) -> bool {
        answer.refused_credential() || self.errand.safety.is_explained_by_itself(answer.status)
    }

    fn read(&self, answer: Response<Bytes>) -> Result<UpstreamAnswer, UpstreamError> {
        let (parts, body) = answer.into_parts();
        let status = parts.status;
        if status.is_informational() || (status.is_redirection() && status != StatusCode::NOT_MODIFIED) {
            return Err(UpstreamError::BadAnswer { attempts: self.attempts, status });
        }
        let text = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
        Ok(UpstreamAnswer {
            status,
            substatus: retry::number(&parts.headers, "x-ms-substatus"),
            activity_id: text("x-ms-activity-id").map(str::to_owned),
            request_charge: text("x-ms-request-charge").and_then(|charge| charge.parse().ok()),
            headers: headers::response(&parts.headers),
            body,
            attempts: self.attempts,
            latency: self.began.elapsed(),
            region: None,
        })
    }
}

#[cfg(test)]
mod tests;
