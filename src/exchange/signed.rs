//! Requests signed with the account key: how they leave, what passes by itself, and what is waited out.
//!
//! Everything about users, permissions and databases is signed here, and is within the budget. A call is made so that it can be repeated: what an
//! earlier try did, a later one finds done.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::Full;
use serde::Serialize;
use tokio::time::Instant;
use url::Url;
use uuid::Uuid;

use super::{
    AccountKey, ExchangeError,
    budget::{Admission, Budget, Urgency},
    keyring::Keyring,
    signature::ToSign,
};
use crate::{
    access::headers::{ACTIVITY_ID, API_VERSION, DATE, REQUEST_CHARGE, RETRY_AFTER_MS, SUBSTATUS, VERSION, number},
    clock::{Clock, Timestamp},
    transport::Transport,
};

/// Largest answer read: a page of a hundred users has some forty kilobytes, a permission one.
const LARGEST_ANSWER: usize = 1 << 20;
/// How long one call may take, with all its repeats, once it is admitted.
const DEADLINE: Duration = Duration::from_secs(10);
/// How often a call is sent again after a failure that may pass.
const REPEATS: u32 = 3;
/// The wait before the first repeat; each later one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// How far the clocks may be apart before a signature is dated by Cosmos' clock; it refuses what is off by 15 minutes.
const CLOCKS_APART: Duration = Duration::from_secs(60);

/// About what a call costs, in request units, until its answer says.
pub(super) const READ: f64 = 2.0;
const WRITE: f64 = 5.0;

/// The account, for whoever has its key.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) endpoint: Url,
    pub(super) keyring: Keyring,
    pub(super) budget: Budget,
    pub(super) transport: Transport,
    pub(super) clock: Clock,
    /// How far Cosmos' clock was ahead of this one when a signature was refused for its date, in milliseconds.
    pub(super) ahead: AtomicI64,
}

/// One call: where, what is signed for it, and what goes with it.
#[derive(Debug)]
pub(super) struct Call {
    method: Method,
    resource_type: &'static str,
    path: String,
    link: String,
    headers: HeaderMap,
    body: Bytes,
}

/// An answer that is about the call.
#[derive(Debug)]
pub(super) struct Answer {
    /// When it was asked for.
    pub(super) asked: Timestamp,
    /// The same, by the running clock.
    pub(super) asked_running: Duration,
    pub(super) response: Response<Bytes>,
}

impl Call {
    pub(super) fn new(method: Method, resource_type: &'static str, path: String, link: String) -> Self {
        Self { method, resource_type, path, link, headers: HeaderMap::new(), body: Bytes::new() }
    }

    pub(super) fn header(mut self, name: HeaderName, value: impl Into<HeaderValue>) -> Self {
        self.headers.insert(name, value.into());
        self
    }

    pub(super) fn json(mut self, value: &impl Serialize) -> Self {
        // Strings and plain values always serialize.
        self.body = serde_json::to_vec(value).unwrap_or_default().into();
        self
    }

    fn estimate(&self) -> f64 {
        if self.method == Method::GET { READ } else { WRITE }
    }
}

impl Account {
    /// Sends `call` until it has an answer that is about it: waits for the budget and for what passes, and signs with another
    /// key when Cosmos refuses the one at hand. `admission`: leave for the first try, where it was given before.
    pub(super) async fn send(
        &self,
        call: &Call,
        activity: &HeaderValue,
        urgency: Urgency,
        mut admission: Option<Admission>,
    ) -> Result<Answer, ExchangeError> {
        let mut key = self.keyring.current().await?;
        let patience = Instant::now() + urgency.patience();
        let mut admitted = None;
        let (mut repeats, mut redated) = (0, false);
        loop {
            let admission = match admission.take() {
                Some(admission) => admission,
                None => {
                    let admitted = self.budget.admit(urgency, call.estimate(), patience).await;
                    admitted.map_err(|retry_after| ExchangeError::Throttled { retry_after })?
                }
            };
            let deadline = *admitted.get_or_insert_with(|| Instant::now() + DEADLINE);
            let (asked, asked_running) = (self.clock.now(), self.clock.running());
            let request = self.sign(call, activity, asked, &key)?;
            let left = deadline.saturating_duration_since(Instant::now());
            let sent = self.transport.exchange(request, LARGEST_ANSWER, left).await;
            let charge = sent.as_ref().ok().and_then(|answer| number(answer.headers(), &REQUEST_CHARGE));
            self.budget.settle(admission, charge);
            let again = repeats < REPEATS;
            let response = match sent {
                Ok(response) => response,
                Err(_) if again && wait(FIRST_WAIT * 2_u32.pow(repeats), deadline).await => {
                    repeats += 1;
                    continue;
                }
                Err(error) => return Err(ExchangeError::Unreachable(Arc::new(error))),
            };
            let own_wait = FIRST_WAIT * 2_u32.pow(repeats);
            match response.status().as_u16() {
                401 => {
                    let another = self.keyring.another(&key, deadline).await;
                    key = another.ok_or_else(|| refused(&response))?;
                }
                403 if !std::mem::replace(&mut redated, true) && self.learns_the_time(asked, &response) => {}
                403 => return Err(refused(&response)),
                429 => {
                    let asked_to = number(response.headers(), &RETRY_AFTER_MS).map(|ms: f64| ms.max(0.0) / 1_000.0);
                    let asked_to = asked_to.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                    self.budget.close(asked_to.unwrap_or(own_wait));
                }
                408 | 410 | 449 | 500 | 503 => {
                    if !again || !wait(own_wait, deadline).await {
                        return Err(ExchangeError::BadAnswer { status: response.status() });
                    }
                    repeats += 1;
                }
                _ => {
                    self.keyring.accepted(&key).await;
                    return Ok(Answer { asked, asked_running, response });
                }
            }
        }
    }

    /// Whether a refusal comes of a date that is off by Cosmos' clock. Then signatures are dated by that from now on: this
    /// one may have been moved, and tokens at hand should not run out for it.
    fn learns_the_time(&self, asked: Timestamp, response: &Response<Bytes>) -> bool {
        let Some(theirs) = date(response) else { return false };
        let ahead = theirs.as_millis().saturating_sub(asked.as_millis());
        let before = self.ahead.load(Ordering::Relaxed);
        let apart = Duration::from_millis(ahead.abs_diff(before));
        if apart < CLOCKS_APART {
            return false;
        }
        tracing::warn!(
            seconds = ahead / 1_000,
            "Cosmos' clock is ahead of this one by so much, or behind; set the clock"
        );
        self.ahead.store(ahead, Ordering::Relaxed);
        true
    }

    fn sign(
        &self,
        call: &Call,
        activity: &HeaderValue,
        now: Timestamp,
        key: &AccountKey,
    ) -> Result<Request<Full<Bytes>>, ExchangeError> {
        let ahead = self.ahead.load(Ordering::Relaxed);
        let date = Timestamp::from_millis(now.as_millis().saturating_add(ahead)).http_date();
        let signed = ToSign { method: &call.method, resource_type: call.resource_type, link: &call.link, date: &date };
        let uri = Uri::builder().scheme(self.endpoint.scheme()).authority(self.endpoint.authority());
        let uri = uri.path_and_query(call.path.as_str()).build();
        let uri = uri.map_err(|error| ExchangeError::Unsendable(Arc::new(error)))?;
        let request = Request::builder()
            .method(call.method.clone())
            .uri(uri)
            .header(header::AUTHORIZATION, signed.authorization(key))
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/json")
            .header(DATE, date)
            .header(VERSION, API_VERSION)
            .header(ACTIVITY_ID, activity.clone())
            .body(Full::new(call.body.clone()));
        let mut request = request.map_err(|error| ExchangeError::Unsendable(Arc::new(error)))?;
        request.headers_mut().extend(call.headers.clone());
        Ok(request)
    }
}

/// Waits, if that leaves time before the deadline.
async fn wait(wait: Duration, deadline: Instant) -> bool {
    let enough = Instant::now() + wait < deadline;
    if enough {
        tokio::time::sleep(wait).await;
    }
    enough
}

fn refused(response: &Response<Bytes>) -> ExchangeError {
    let substatus = number(response.headers(), &SUBSTATUS);
    ExchangeError::CosmosRefusedKey { status: response.status(), substatus }
}

/// An activity of the gateway's own, for Azure's log.
pub(super) fn activity() -> HeaderValue {
    HeaderValue::try_from(Uuid::new_v4().to_string()).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// What time it was at Cosmos.
pub(super) fn date(response: &Response<Bytes>) -> Option<Timestamp> {
    let date = response.headers().get(header::DATE)?.to_str().ok()?;
    let since = httpdate::parse_http_date(date).ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(Timestamp::from_secs(i64::try_from(since.as_secs()).ok()?))
}

/// What Cosmos answered, where it is not what the call is for.
pub(super) fn bad(status: StatusCode) -> ExchangeError {
    ExchangeError::BadAnswer { status }
}
