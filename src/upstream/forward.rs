//! Sending a request to Cosmos, as often as that is safe and the deadline allows.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::Full;
use tokio::time::Instant;
use url::Url;

use super::{
    answer::{Doubt, Failure, UpstreamAnswer, UpstreamError, partition_key_levels},
    budget::Budget,
    confine::{self, Confinement},
    continuation::Seal,
    headers::{self, RequestHeaders},
    regions::{Place, RegionStatus, Regions, Way},
    retry::{self, Effect, Next, RULES, Rule, Safety},
    session::{SessionKey, Sessions},
    topology::{AccountReader, Reader, TopologyStatus},
};
use crate::{
    access::{
        Enforcer,
        headers::{ACTIVITY_ID, API_VERSION, DATE, REQUEST_CHARGE, SESSION_TOKEN, SUBSTATUS, VERSION, number},
    },
    clock::Clock,
    exchange::Warrant,
    secret::Secret,
    transport::{BodyMemory, Transport, TransportError},
};

const TENTATIVE_WRITES: HeaderName = HeaderName::from_static("x-ms-cosmos-allow-tentative-writes");
const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("stepgate/", env!("CARGO_PKG_VERSION")));
/// The room taken for an answer before its request leaves, beside as much as was sent; what is longer takes more as it comes. A
/// write, which is answered with what it wrote, must not find out afterwards that its answer cannot be held.
const ROOM: usize = 64 * 1024;
/// An attempt with less time than this would mostly end in doubt about its outcome; the answer at hand is better.
const SHORTEST_ATTEMPT: Duration = Duration::from_millis(100);

/// What the room needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// The account, such as `https://account.documents.azure.com/`.
    pub endpoint: Url,
    /// The regions in the order in which reads shall go to them. Empty: everything goes to the endpoint.
    pub preferred_regions: Vec<String>,
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
    /// Whose session it belongs to, where the gateway keeps it.
    pub session: Option<SessionKey>,
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
    memory: BodyMemory,
    clock: Clock,
    budget: Budget,
    confinement: Confinement,
    regions: Regions,
    sessions: Sessions,
    reader: Reader,
    /// How often each row of the table led to another attempt.
    retries: [AtomicU64; RULES.len()],
}

/// How the way to the account stands.
#[derive(Clone, Debug)]
pub struct UpstreamStatus {
    /// The places requests go to, in the order of preference.
    pub regions: Vec<RegionStatus>,
    /// When the account told its regions; `None` where the gateway does not choose among them.
    pub topology: Option<TopologyStatus>,
    /// How often each cause led to another attempt.
    pub retries: Vec<(&'static str, u64)>,
    /// Sessions that are kept (about: the cache counts lazily).
    pub sessions: u64,
}

impl Upstream {
    /// A way to the account; nothing is sent yet. `account` reads the document that tells its regions.
    /// Answers are held in `memory`.
    pub fn new(config: Config, transport: Transport, account: AccountReader, memory: BodyMemory, clock: Clock) -> Self {
        let confinement = Confinement::new(Seal::new(config.continuation_key.as_ref()));
        Self {
            confinement,
            budget: Budget::new(clock.clone()),
            regions: Regions::new(config.endpoint.clone(), config.preferred_regions.clone(), clock.clone()),
            sessions: Sessions::new(),
            reader: Reader { account, clock: clock.clone() },
            retries: [const { AtomicU64::new(0) }; RULES.len()],
            config,
            transport,
            memory,
            clock,
        }
    }

    /// Keeps the account's regions as it tells them, where the gateway chooses among them.
    pub async fn keep_fresh(&self) {
        if self.regions.are_chosen() {
            self.reader.keep_fresh(&self.regions).await;
        }
    }

    /// How the way stands.
    pub fn status(&self) -> UpstreamStatus {
        let counts = self.retries.iter().map(|count| count.load(Ordering::Relaxed));
        UpstreamStatus {
            regions: self.regions.status(),
            topology: self.regions.are_chosen().then(|| self.regions.topology_status()),
            retries: RULES.iter().map(|rule| rule.word).zip(counts).collect(),
            sessions: self.sessions.len(),
        }
    }

    /// Sends `errand` under `warrant` and returns the first answer that is not worth another attempt.
    /// Before each further attempt `may_retry` is asked whether the caller may still act; `throttled` is told of each attempt that
    /// was.
    pub async fn forward(
        &self,
        errand: &Errand<'_>,
        warrant: &Warrant,
        may_retry: impl Fn() -> bool,
        throttled: impl Fn(),
    ) -> Result<UpstreamAnswer, Failure> {
        match warrant.enforcer() {
            Enforcer::Cosmos => {
                let answer = self.send(errand, warrant, &may_retry, &throttled).await?;
                // A resource token that is refused may be old, or good and asked for what only a whole key has. In the second
                // case it reads the container, whose key tells; in the first it does not, and nothing is known.
                if answer.refused_credential() {
                    let depth = async || self.read_depth(errand, warrant, &may_retry, &throttled).await;
                    let checked = self.confinement.check_depth(errand, warrant, depth).await;
                    if let Err(outside @ Failure { error: UpstreamError::Outside(_), .. }) = checked {
                        return Err(outside);
                    }
                }
                Ok(answer)
            }
            Enforcer::Stepgate => {
                let held = self.confinement.hold(errand, warrant)?;
                let depth = async || self.read_depth(errand, warrant, &may_retry, &throttled).await;
                self.confinement.check_depth(errand, warrant, depth).await?;
                let answer = self.send(&held, warrant, may_retry, throttled).await?;
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
        throttled: impl Fn(),
    ) -> Result<usize, Failure> {
        let read = Errand {
            method: Method::GET,
            path: confine::path(warrant.scope().container()),
            headers: RequestHeaders::default(),
            body: Bytes::new(),
            safety: Safety::Read,
            session: None,
            activity_id: errand.activity_id,
            deadline: errand.deadline,
        };
        let answer = self.send(&read, warrant, may_retry, throttled).await?;
        let levels = answer.status.is_success().then(|| partition_key_levels(&answer.body)).flatten();
        levels.ok_or_else(|| {
            let error = UpstreamError::UnknownKey { attempts: answer.attempts, status: answer.status };
            Failure { error, region: answer.region }
        })
    }

    async fn send(
        &self,
        errand: &Errand<'_>,
        warrant: &Warrant,
        may_retry: impl Fn() -> bool,
        throttled: impl Fn(),
    ) -> Result<UpstreamAnswer, Failure> {
        self.budget.deposit();
        let mut trip = Trip::new(errand);
        let came_back = self.travel(&mut trip, warrant, may_retry, throttled).await;
        came_back.map_err(|error| Failure { error, region: trip.region })
    }

    async fn travel(
        &self,
        trip: &mut Trip<'_>,
        warrant: &Warrant,
        may_retry: impl Fn() -> bool,
        throttled: impl Fn(),
    ) -> Result<UpstreamAnswer, UpstreamError> {
        let errand = trip.errand;
        loop {
            let began = Instant::now();
            let left = errand.deadline.saturating_duration_since(began);
            if left.is_zero() {
                return Err(trip.ended(|attempts| UpstreamError::Timeout { attempts }));
            }
            let place = self.regions.choose(errand.safety, &mut trip.way);
            let request = self.request(errand, warrant, &place).map_err(UpstreamError::Unsendable)?;
            let timeout = left.min(self.config.attempt_timeout);
            let Some(room) = self.memory.take(ROOM.saturating_add(errand.body.len())) else {
                return Err(trip.ended(|attempts| UpstreamError::NoRoom { attempts }));
            };
            let largest = self.config.largest_answer;
            let sent = self.transport.exchange_within(request, largest, timeout, &self.memory, room).await;
            trip.took = began.elapsed();
            if sent.as_ref().is_ok_and(|answer| answer.status() == StatusCode::TOO_MANY_REQUESTS) {
                throttled();
            }
            let rule = self.heard(trip, &place, &sent, timeout);
            let Some((rule, wait)) = rule.and_then(|rule| Some((rule, self.time_to_wait(rule, &sent, trip)?))) else {
                return trip.conclude(sent, rule);
            };
            self.count(rule);
            if rule.effect == Effect::Unknown && errand.safety != Safety::Read {
                trip.doubt = Some(trip.doubt_about(sent)?);
            }
            tokio::time::sleep(wait).await;
            if !may_retry() {
                return Err(trip.ended(|attempts| UpstreamError::Withdrawn { attempts }));
            }
        }
    }

    /// Takes in what an attempt says of its place and of the session; gives the row of the table it falls into.
    fn heard(&self, trip: &mut Trip<'_>, place: &Arc<Place>, sent: &Sent, timeout: Duration) -> Option<&'static Rule> {
        trip.attempts += 1;
        trip.way.tried(place);
        trip.region.clone_from(&place.name);
        let rule = match sent {
            Ok(answer) => Rule::of_answer(answer.status(), answer.headers()),
            Err(error) => Rule::of_error(error),
        };
        if let (Ok(answer), Some(session)) = (sent, &trip.errand.session) {
            self.sessions.learn(session, answer.headers());
        }
        // A caller who does not wait long enough says nothing of the region.
        let was_cut_short = matches!(sent, Err(TransportError::Deadline(_))) && timeout < self.config.attempt_timeout;
        if !was_cut_short {
            place.heard(rule.is_none_or(|rule| rule.next != Next::Elsewhere));
        }
        match rule.map(|rule| rule.next) {
            // A read that goes there looks for a later state; a write was told that the region takes none.
            Some(Next::WriteRegion) => {
                trip.way.turn_to_write_region();
                if trip.errand.safety != Safety::Read {
                    self.regions.ask();
                }
            }
            Some(Next::Elsewhere) => self.regions.ask(),
            Some(Next::Again) | None => {}
        }
        rule
    }

    /// How long until the next attempt; `None` when what was sent last is the last.
    fn time_to_wait(&self, rule: &Rule, sent: &Sent, trip: &mut Trip<'_>) -> Option<Duration> {
        let safety = trip.errand.safety;
        let left = trip.errand.deadline.saturating_duration_since(Instant::now());
        if !rule.allows(safety) || left < SHORTEST_ATTEMPT {
            return None;
        }
        if rule.next != Next::Again && self.regions.has_another(safety, &trip.way) {
            return Some(Duration::ZERO);
        }
        let may_be_taken_over = safety != Safety::Read && self.regions.may_be_taken_over();
        let repeats = rule.repeats(may_be_taken_over);
        if trip.repeats >= repeats {
            return None;
        }
        let told = sent.as_ref().ok().and_then(|answer| retry::told(answer.headers()));
        let wait = rule.wait(trip.repeats, told, retry::dice());
        let is_free = told.is_some() || repeats > rule.repeats;
        let goes = wait + SHORTEST_ATTEMPT <= left && (is_free || self.budget.pay());
        goes.then(|| {
            trip.repeats += 1;
            wait
        })
    }

    fn count(&self, rule: &Rule) {
        let row = RULES.iter().position(|of| of.word == rule.word);
        if let Some(count) = row.and_then(|row| self.retries.get(row)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The request of one attempt: dated anew, and with no credential but the warrant's.
    fn request(
        &self,
        errand: &Errand<'_>,
        warrant: &Warrant,
        place: &Place,
    ) -> Result<Request<Full<Bytes>>, http::Error> {
        let endpoint = &place.endpoint;
        // Part by part, so that no path can run into the host's name.
        let uri = Uri::builder().scheme(endpoint.scheme()).authority(endpoint.authority());
        let uri = uri.path_and_query(errand.path.as_str()).build()?;
        let date = HeaderValue::try_from(self.clock.now().http_date())?;
        let activity_id = HeaderValue::try_from(errand.activity_id)?;
        let mut request =
            Request::builder().method(errand.method.clone()).uri(uri).body(Full::new(errand.body.clone()))?;
        let headers = request.headers_mut();
        *headers = errand.headers.as_map().clone();
        // Unless the caller asks for another.
        headers.entry(VERSION).or_insert(API_VERSION);
        headers.insert(header::AUTHORIZATION, warrant.authorization().clone());
        headers.insert(header::USER_AGENT, USER_AGENT);
        headers.insert(ACTIVITY_ID, activity_id);
        headers.insert(DATE, date);
        if errand.safety != Safety::Read && self.regions.all_write() {
            headers.insert(TENTATIVE_WRITES, HeaderValue::from_static("true"));
        }
        if let Some(session) = &errand.session
            && let Some(token) = self.sessions.token(session, headers.get(SESSION_TOKEN))
        {
            headers.insert(SESSION_TOKEN, token);
        }
        Ok(request)
    }
}

type Sent = Result<Response<Bytes>, TransportError>;

/// What is known of an errand under way.
struct Trip<'a> {
    errand: &'a Errand<'a>,
    attempts: u32,
    /// How long the last attempt took.
    took: Duration,
    /// Attempts that a wait came before.
    repeats: u32,
    way: Way,
    /// Where the last attempt went.
    region: Option<Arc<str>>,
    /// The last attempt that may have carried out the write.
    doubt: Option<Doubt>,
}

impl<'a> Trip<'a> {
    fn new(errand: &'a Errand<'a>) -> Self {
        let took = Duration::ZERO;
        Self { errand, attempts: 0, took, repeats: 0, way: Way::default(), region: None, doubt: None }
    }

    /// The end of a trip without another answer: of a write in doubt, all that is known is the doubt.
    fn ended(&mut self, otherwise: impl FnOnce(u32) -> UpstreamError) -> UpstreamError {
        let attempts = self.attempts;
        self.doubt.take().map_or_else(|| otherwise(attempts), |cause| UpstreamError::OutcomeUnknown { attempts, cause })
    }

    fn doubt_about(&self, sent: Sent) -> Result<Doubt, UpstreamError> {
        Ok(match sent {
            Ok(answer) => Doubt::Answered(Box::new(self.read(answer)?)),
            Err(error) => Doubt::Lost(error),
        })
    }

    /// What the last attempt comes to.
    fn conclude(&mut self, sent: Sent, rule: Option<&Rule>) -> Result<UpstreamAnswer, UpstreamError> {
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
            Err(TransportError::NoRoom) => return Err(UpstreamError::NoRoom { attempts }),
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
        let activity_id = parts.headers.get(ACTIVITY_ID).and_then(|id| id.to_str().ok());
        Ok(UpstreamAnswer {
            status,
            substatus: number(&parts.headers, &SUBSTATUS),
            activity_id: activity_id.map(Into::into),
            request_charge: number(&parts.headers, &REQUEST_CHARGE),
            headers: headers::response(&parts.headers),
            body,
            attempts: self.attempts,
            took: self.took,
            region: self.region.clone(),
        })
    }
}

#[cfg(test)]
mod tests;
