//! Around the request: its id, how long it may take, and what it says of its execution.
//!
//! Context is what the caller claims; what the issuer says of the execution stands in the verified subject. [`agree`] puts
//! the two together and refuses when they contradict each other. No secret is kept here.

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName};
use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    access::{Assurance, ExecutionContext, Fact, MalformedContext},
    clock::Timestamp,
};

/// `x-stepgate-execution`: the execution ARN.
pub const EXECUTION: HeaderName = HeaderName::from_static("x-stepgate-execution");
/// `x-stepgate-state`: the state's name.
pub const STATE: HeaderName = HeaderName::from_static("x-stepgate-state");
/// `x-stepgate-entered`: State.EnteredTime.
pub const ENTERED: HeaderName = HeaderName::from_static("x-stepgate-entered");
/// `x-stepgate-attempt`: State.RetryCount.
pub const ATTEMPT: HeaderName = HeaderName::from_static("x-stepgate-attempt");
/// `x-stepgate-redrive`: Execution.RedriveCount.
pub const REDRIVE: HeaderName = HeaderName::from_static("x-stepgate-redrive");
/// `x-stepgate-item`: Map.Item.Index.
pub const ITEM: HeaderName = HeaderName::from_static("x-stepgate-item");

/// `x-stepgate-deadline`: how long the caller waits for the answer.
pub const DEADLINE: HeaderName = HeaderName::from_static("x-stepgate-deadline");

/// `x-stepgate-session`: `execution` when the gateway shall keep the session of the execution.
pub const SESSION: HeaderName = HeaderName::from_static("x-stepgate-session");

/// How far the clock of Step Functions may be ahead of ours.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// The id of a request: made here, answered as `x-stepgate-request-id`, sent upstream as `x-ms-activity-id` so that Azure's
/// diagnostic log and the audit log can be joined.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// A new id: a UUID of version 7, so that ids sort by time.
    pub fn new() -> Self {
        Self(Uuid::now_v7().hyphenated().encode_lower(&mut Uuid::encode_buffer()).into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for RequestId {
    fn default() -> Self {
        Self::new()
    }
}

impl From<&RequestId> for Arc<str> {
    fn from(id: &RequestId) -> Self {
        Self::clone(&id.0)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One request as the front door received it.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// Its id.
    pub id: RequestId,
    /// When an answer must have left.
    pub deadline: Instant,
}

impl RequestContext {
    /// How long until then.
    pub fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

/// Context that cannot stand.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ContextError {
    /// A header does not have the form it must have (400).
    #[error("the header {header} is malformed: {reason}")]
    Malformed {
        /// The header.
        header: HeaderName,
        /// What it should have been.
        reason: MalformedContext,
    },
    /// A header comes twice or is no text (400).
    #[error("the header {0} must come once, as printable text")]
    NotOneText(HeaderName),
    /// How long the caller waits is no time, or none at all (400).
    #[error(
        "the header {DEADLINE} must come once, as seconds or with a unit, such as 20, 20s or 1500ms, and not be zero"
    )]
    Deadline,
    /// A session that cannot be kept (400).
    #[error("the header {SESSION} must come once, as `execution`, and wants the execution's ARN in {EXECUTION}")]
    Session,
    /// The header says one thing and the token another (403).
    #[error("the header {0} contradicts the token")]
    Contradiction(HeaderName),
}

/// How long the request may take in all: what the caller says, but `most` at the most.
pub fn patience(headers: &HeaderMap, most: Duration) -> Result<Duration, ContextError> {
    let mut values = headers.get_all(&DEADLINE).iter();
    let Some(value) = values.next() else { return Ok(most) };
    let text = value.to_str().ok().filter(|_| values.next().is_none()).ok_or(ContextError::Deadline)?;
    let time = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => humantime_serde::re::humantime::parse_duration(text).map_err(|_| ContextError::Deadline)?,
    };
    if time.is_zero() { Err(ContextError::Deadline) } else { Ok(time.min(most)) }
}

/// The execution whose session the gateway shall keep, where the caller asks for it.
pub fn session(headers: &HeaderMap, context: &ExecutionContext) -> Result<Option<Arc<str>>, ContextError> {
    let mut values = headers.get_all(&SESSION).iter();
    match (values.next().map(|value| value.as_bytes()), values.next(), &context.execution) {
        (None, _, _) => Ok(None),
        (Some(b"execution"), None, Some(execution)) => Ok(Some(execution.value.as_str().into())),
        _ => Err(ContextError::Session),
    }
}

/// The execution context that the headers claim.
pub fn claimed(headers: &HeaderMap) -> Result<ExecutionContext, ContextError> {
    Ok(ExecutionContext {
        execution: fact(headers, EXECUTION)?,
        run: None,
        state: fact(headers, STATE)?,
        entered: fact::<EnteredTime>(headers, ENTERED)?.map(|f| Fact { value: f.value.0, assurance: f.assurance }),
        attempt: fact(headers, ATTEMPT)?,
        redrive: fact::<Count>(headers, REDRIVE)?.map(|f| Fact { value: f.value.0, assurance: f.assurance }),
        item: fact::<Count>(headers, ITEM)?.map(|f| Fact { value: f.value.0, assurance: f.assurance }),
    })
}

/// What headers claim together with what the token says, at the time `now`. The token's word counts where both speak; where
/// they differ, the request is refused, since one of the two is a lie. A state that is yet to be entered is one too.
pub fn agree(
    claimed: ExecutionContext,
    token: &ExecutionContext,
    now: Timestamp,
) -> Result<ExecutionContext, ContextError> {
    let entered = stronger(claimed.entered, &token.entered, ENTERED)?;
    if entered.as_ref().is_some_and(|entered| is_to_come(&entered.value, now)) {
        return Err(ContextError::Malformed { header: ENTERED, reason: MalformedContext::Future });
    }
    Ok(ExecutionContext {
        execution: stronger(claimed.execution, &token.execution, EXECUTION)?,
        run: token.run.clone(),
        state: stronger(claimed.state, &token.state, STATE)?,
        entered,
        attempt: stronger(claimed.attempt, &token.attempt, ATTEMPT)?,
        redrive: stronger(claimed.redrive, &token.redrive, REDRIVE)?,
        item: stronger(claimed.item, &token.item, ITEM)?,
    })
}

/// Whether the time lies further ahead than two clocks may differ.
fn is_to_come(time: &str, now: Timestamp) -> bool {
    let latest = now.plus(CLOCK_SKEW).as_millis();
    time.parse::<jiff::Timestamp>().is_ok_and(|time| time.as_millisecond() > latest)
}

fn stronger<T: Clone + PartialEq>(
    claimed: Option<Fact<T>>,
    token: &Option<Fact<T>>,
    header: HeaderName,
) -> Result<Option<Fact<T>>, ContextError> {
    match (claimed, token) {
        (Some(claimed), Some(token)) if claimed.value != token.value => Err(ContextError::Contradiction(header)),
        (_, Some(token)) => Ok(Some(token.clone())),
        (claimed, None) => Ok(claimed),
    }
}

fn fact<T: FromStr<Err = MalformedContext>>(
    headers: &HeaderMap,
    header: HeaderName,
) -> Result<Option<Fact<T>>, ContextError> {
    let mut values = headers.get_all(&header).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let (Ok(text), None) = (value.to_str(), values.next()) else { return Err(ContextError::NotOneText(header)) };
    match text.parse() {
        Ok(value) => Ok(Some(Fact { value, assurance: Assurance::Claimed })),
        Err(reason) => Err(ContextError::Malformed { header, reason }),
    }
}

/// State.EnteredTime: ISO 8601 with any number of fractional digits; kept as sent, since it is part of derived keys.
struct EnteredTime(Arc<str>);

impl FromStr for EnteredTime {
    type Err = MalformedContext;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<jiff::Timestamp>().map_err(|_| MalformedContext::Time)?;
        Ok(Self(text.into()))
    }
}

struct Count(u32);

impl FromStr for Count {
    type Err = MalformedContext;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self).map_err(|_| MalformedContext::Number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:states:us-east-1:111122223333:execution:Fulfil:run-1";

    fn headers(list: &[(HeaderName, &str)]) -> HeaderMap {
        list.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn headers_are_claims() {
        let context = claimed(&headers(&[
            (EXECUTION, ARN),
            (STATE, "SaveOrder"),
            (ENTERED, "2026-11-22T21:24:18.1Z"),
            (ATTEMPT, "2"),
            (REDRIVE, "0"),
            (ITEM, "7"),
        ]))
        .unwrap();
        assert_eq!(context.execution.unwrap().value.as_str(), ARN);
        assert_eq!(context.attempt.unwrap().value.0, 2);
        assert_eq!(context.item.unwrap(), Fact { value: 7, assurance: Assurance::Claimed });
    }

    #[test]
    fn malformed_context_names_its_header() {
        for (header, value) in [(EXECUTION, "run-1"), (ENTERED, "yesterday"), (ATTEMPT, "-1"), (STATE, "")] {
            let error = claimed(&headers(&[(header.clone(), value)])).unwrap_err();
            assert!(matches!(error, ContextError::Malformed { header: named, .. } if named == header));
        }
        let twice = headers(&[(STATE, "A"), (STATE, "A")]);
        assert_eq!(claimed(&twice), Err(ContextError::NotOneText(STATE)));
    }

    #[test]
    fn a_session_is_an_executions() {
        let of = |list: &[(HeaderName, &str)]| {
            let headers = headers(list);
            session(&headers, &claimed(&headers).unwrap())
        };
        assert_eq!(of(&[(EXECUTION, ARN)]), Ok(None));
        assert_eq!(of(&[(EXECUTION, ARN), (SESSION, "execution")]), Ok(Some(ARN.into())));
        for list in [
            &[(SESSION, "execution")][..],
            &[(EXECUTION, ARN), (SESSION, "mine")],
            &[(EXECUTION, ARN), (SESSION, "execution"), (SESSION, "execution")],
        ] {
            assert_eq!(of(list), Err(ContextError::Session), "{list:?}");
        }
    }

    #[test]
    fn a_caller_may_wait_less_long_and_not_longer() {
        let most = Duration::from_secs(55);
        let wait = |list: &[&str]| {
            patience(&headers(&list.iter().map(|text| (DEADLINE, *text)).collect::<Vec<_>>()), most).ok()
        };
        assert_eq!(wait(&[]), Some(most));
        for (text, time) in [("20", 20_000), ("20s", 20_000), ("1500ms", 1_500), ("1m", 55_000), ("600", 55_000)] {
            assert_eq!(wait(&[text]), Some(Duration::from_millis(time)), "{text}");
        }
        for list in [&["0"][..], &["0s"], &["-1"], &["soon"], &["1.5"], &[""], &["20s", "20s"], &["é"]] {
            assert_eq!(wait(list), None, "{list:?}");
        }
    }

    #[test]
    fn a_state_that_is_yet_to_be_entered_is_malformed() {
        let now = Timestamp::from_secs(1_795_375_762);
        let entered = |ahead| {
            let time = now.plus(Duration::from_secs(ahead)).rfc3339();
            agree(claimed(&headers(&[(ENTERED, &time)])).unwrap(), &ExecutionContext::default(), now)
        };
        assert!(entered(60).is_ok());
        let refused = ContextError::Malformed { header: ENTERED, reason: MalformedContext::Future };
        assert_eq!(entered(61), Err(refused));
    }

    #[test]
    fn the_token_outranks_the_header_and_may_not_contradict_it() {
        let token = ExecutionContext {
            execution: Some(Fact { value: ARN.parse().unwrap(), assurance: Assurance::Signed }),
            ..Default::default()
        };
        let same = claimed(&headers(&[(EXECUTION, ARN)])).unwrap();
        let now = Timestamp::from_secs(1_795_375_762);
        assert_eq!(agree(same, &token, now).unwrap().execution.unwrap().assurance, Assurance::Signed);
        let other = claimed(&headers(&[(EXECUTION, &ARN.replace("run-1", "run-2"))])).unwrap();
        assert_eq!(agree(other, &token, now), Err(ContextError::Contradiction(EXECUTION)));
    }
}
