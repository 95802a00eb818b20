//! When the same request may be sent once more, where, and after how long: one table.
//!
//! The rows are those of Cosmos' own retry tables (REST reference, "HTTP status codes") and of the policies of the .NET, Python,
//! JavaScript and Rust SDKs, which agree on most of them; where they differ on writes, the strictest is taken. What stands in no
//! row is the answer.
//!
//! Two things decide beside the table. A row says whether the attempt can have had an *effect*; [`Safety`] says whether doing
//! the request again would do more than doing it once. A write in doubt is repeated only where it would not.

use std::time::Duration;

use http::{HeaderMap, StatusCode};

use crate::{
    access::{
        Action, Operation,
        headers::{ACTIVITY_ID, RETRY_AFTER_MS, SUBSTATUS, number},
    },
    transport::TransportError,
};

/// What it would mean to carry out a request twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Safety {
    /// It changes nothing.
    Read,
    /// Twice leaves what once leaves, and is answered alike: an upsert that replaces whatever is there, or a write under a
    /// marker.
    Repeatable,
    /// Twice leaves what once leaves, but the second answer may be about the first: the item that a delete no longer finds, the
    /// etag that a conditional write moved itself.
    Guarded,
    /// Twice may do more than once, or be refused for what once did.
    Once,
}

impl Safety {
    /// The safety of an action; `conditional` when it holds for one etag alone.
    pub const fn of(action: Action, conditional: bool) -> Self {
        match action {
            Action::QueryPlan | Action::Metadata => Self::Read,
            Action::Operation(operation) => match operation {
                Operation::ItemsRead | Operation::Query | Operation::Feed => Self::Read,
                Operation::ItemsUpsert if !conditional => Self::Repeatable,
                Operation::ItemsUpsert | Operation::ItemsReplace | Operation::ItemsDelete => Self::Guarded,
                Operation::ItemsPatch if conditional => Self::Guarded,
                Operation::ItemsCreate | Operation::ItemsPatch | Operation::Batch | Operation::Execute => Self::Once,
            },
        }
    }

    /// Whether a request that may have been carried out may be sent again.
    const fn outlasts_doubt(self) -> bool {
        !matches!(self, Self::Once)
    }

    /// Whether an answer to a repeat says nothing of the attempt in doubt before it, which may be what caused it.
    pub(super) const fn is_explained_by_itself(self, status: StatusCode) -> bool {
        matches!(self, Self::Guarded) && matches!(status.as_u16(), 404 | 412)
    }
}

/// What of an attempt a row looks at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// A status, with one of these substatuses; any, where none is named.
    Status(u16, &'static [u32]),
    /// A status that Cosmos itself sent, and no proxy on the way, which cannot know what happened behind it.
    FromCosmos(u16),
    /// No connection was made.
    NotConnected,
    /// The connection broke, or no answer came in the attempt's time.
    Lost,
}

/// What an attempt can have done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Nothing, for certain.
    None,
    /// Perhaps everything.
    Unknown,
}

/// Where the next attempt goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// To the same region, after a wait.
    Again,
    /// To another region at once; where there is none, or all were tried, as `Again`.
    Elsewhere,
    /// To the region that takes writes, which is behind in nothing.
    WriteRegion,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The word in metrics.
    pub word: &'static str,
    /// What it is for.
    pub when: When,
    /// What the attempt can have done.
    pub effect: Effect,
    /// Where the next one goes.
    pub next: Next,
    /// Most repeats, counting all that the request had.
    pub repeats: u32,
    /// The longest wait before the first repeat; it doubles with each, up to 2 s.
    pub first_wait: Duration,
}

/// The table; the first row that fits counts.
pub const RULES: &[Rule] = {
    const fn row(word: &'static str, when: When, effect: Effect, next: Next, repeats: u32, first_wait_ms: u64) -> Rule {
        Rule { word, when, effect, next, repeats, first_wait: Duration::from_millis(first_wait_ms) }
    }
    &[
        row("overwhelmed", When::Status(429, &[3092]), Effect::None, Next::Elsewhere, 3, 100),
        row("throttled", When::Status(429, &[]), Effect::None, Next::Again, 9, 100),
        row("write_conflict", When::Status(449, &[]), Effect::None, Next::Again, 5, 20),
        row("session_behind", When::Status(404, &[1002]), Effect::None, Next::WriteRegion, 2, 20),
        row("write_forbidden", When::Status(403, &[3]), Effect::None, Next::WriteRegion, 3, 100),
        row("region_gone", When::Status(403, &[1008]), Effect::None, Next::Elsewhere, 3, 100),
        row("partition_moved", When::Status(410, &[1000, 1002, 1007, 1008]), Effect::None, Next::Again, 3, 100),
        row("unavailable", When::FromCosmos(503), Effect::None, Next::Elsewhere, 3, 100),
        row("not_connected", When::NotConnected, Effect::None, Next::Elsewhere, 3, 100),
        row("timed_out", When::Status(408, &[]), Effect::Unknown, Next::Elsewhere, 3, 100),
        row("gone", When::Status(410, &[]), Effect::Unknown, Next::Again, 3, 100),
        row("server_error", When::Status(500, &[]), Effect::Unknown, Next::Again, 3, 100),
        row("proxy_unavailable", When::Status(503, &[]), Effect::Unknown, Next::Elsewhere, 3, 100),
        row("lost", When::Lost, Effect::Unknown, Next::Elsewhere, 3, 100),
    ]
};

/// Most repeats of a write that waits for another region to take over, as the SDKs have it (.NET, `ClientRetryPolicy`); in
/// practice the deadline ends them.
const TAKEOVER: u32 = 120;
/// No backoff is longer, however often it doubled.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

impl Rule {
    /// The row for an answer.
    pub(super) fn of_answer(status: StatusCode, headers: &HeaderMap) -> Option<&'static Self> {
        let substatus = number(headers, &SUBSTATUS);
        RULES.iter().find(|rule| match rule.when {
            When::Status(of, substatuses) => {
                status == of && (substatuses.is_empty() || substatus.is_some_and(|s| substatuses.contains(&s)))
            }
            When::FromCosmos(of) => status == of && is_from_cosmos(headers),
            When::NotConnected | When::Lost => false,
        })
    }

    /// The row for an attempt without an answer.
    pub(super) fn of_error(error: &TransportError) -> Option<&'static Self> {
        let when = match error {
            TransportError::Connect(_) => When::NotConnected,
            TransportError::Broken(_) | TransportError::Deadline(_) => When::Lost,
            TransportError::TooLarge(_) | TransportError::NoRoom => return None,
        };
        RULES.iter().find(|rule| rule.when == when)
    }

    /// Whether a request of that safety may be sent again after this.
    pub(super) fn allows(&self, safety: Safety) -> bool {
        self.effect == Effect::None || safety.outlasts_doubt()
    }

    /// Most repeats: more for a write of an account with several regions, where a takeover mends what is wrong.
    pub(super) fn repeats(&self, may_be_taken_over: bool) -> u32 {
        let mends = self.effect == Effect::None && matches!(self.next, Next::Elsewhere | Next::WriteRegion);
        if mends && may_be_taken_over { TAKEOVER } else { self.repeats }
    }

    /// How long to wait before the next attempt after `repeats` of them. `told` is what the service asks for. `dice` is anywhere
    /// in 0..=1: waits are spread over the whole range (full jitter), so that callers that failed together do not come back
    /// together.
    pub(super) fn wait(&self, repeats: u32, told: Option<Duration>, dice: f64) -> Duration {
        let doubled = self.first_wait.saturating_mul(2_u32.saturating_pow(repeats));
        let jitter = doubled.min(LONGEST_WAIT).mul_f64(dice);
        match told {
            // What the service asks for is the least; the jitter comes on top, but small.
            Some(least) => least + jitter / 10,
            None => jitter,
        }
    }
}

/// Whether Cosmos itself answered.
fn is_from_cosmos(headers: &HeaderMap) -> bool {
    headers.contains_key(ACTIVITY_ID) || headers.contains_key(SUBSTATUS)
}

/// `x-ms-retry-after-ms`: how long Cosmos asks to wait.
pub(super) fn told(headers: &HeaderMap) -> Option<Duration> {
    number(headers, &RETRY_AFTER_MS).map(|millis: u32| Duration::from_millis(millis.into()))
}

/// A number in 0..=1, evenly spread.
pub(super) fn dice() -> f64 {
    let mut bytes = [0; 4];
    // Without randomness (the generator failed) every wait is the longest, which is safe.
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn word(status: u16, headers: &[(&'static str, &'static str)]) -> Option<&'static str> {
        let headers = headers.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect();
        Rule::of_answer(StatusCode::from_u16(status).unwrap(), &headers).map(|rule| rule.word)
    }

    #[test]
    fn each_answer_has_its_row() {
        for (status, substatus, expected) in [
            (429, "3200", Some("throttled")),
            (429, "3092", Some("overwhelmed")),
            (449, "0", Some("write_conflict")),
            (404, "1002", Some("session_behind")),
            (404, "0", None),
            (404, "1003", None),
            (403, "3", Some("write_forbidden")),
            (403, "1008", Some("region_gone")),
            (403, "0", None),
            (403, "1014", None),
            (408, "0", Some("timed_out")),
            (410, "1002", Some("partition_moved")),
            (410, "0", Some("gone")),
            (500, "0", Some("server_error")),
            (503, "0", Some("unavailable")),
            (400, "1001", None),
            (401, "5000", None),
            (409, "0", None),
            (412, "0", None),
            (413, "0", None),
            (424, "0", None),
            (200, "0", None),
        ] {
            assert_eq!(word(status, &[("x-ms-substatus", substatus)]), expected, "{status}/{substatus}");
        }
        assert_eq!(word(503, &[]), Some("proxy_unavailable"), "a proxy cannot know what happened behind it");
        assert_eq!(word(503, &[("x-ms-activity-id", "a")]), Some("unavailable"));
    }

    #[test]
    fn each_failure_has_its_row() {
        let of = |error| Rule::of_error(&error).map(|rule| (rule.word, rule.effect));
        assert_eq!(of(TransportError::Connect("refused".into())), Some(("not_connected", Effect::None)));
        assert_eq!(of(TransportError::Broken("reset".into())), Some(("lost", Effect::Unknown)));
        assert_eq!(of(TransportError::Deadline(Duration::from_secs(1))), Some(("lost", Effect::Unknown)));
        assert_eq!(of(TransportError::TooLarge(1)), None);
    }

    #[test]
    fn every_row_has_a_word_of_its_own_and_can_be_reached() {
        let words: HashSet<_> = RULES.iter().map(|rule| rule.word).collect();
        assert_eq!(words.len(), RULES.len());
        let whens: Vec<_> = RULES.iter().map(|rule| rule.when).collect();
        for (index, when) in whens.iter().enumerate() {
            assert!(!whens.iter().take(index).any(|before| before == when), "{when:?} stands twice");
        }
    }

    #[test]
    fn doubt_is_outlasted_by_what_does_no_more_when_done_twice() {
        let safety = |operation, conditional| Safety::of(Action::Operation(operation), conditional);
        for (operation, plain, conditional) in [
            (Operation::ItemsRead, Safety::Read, Safety::Read),
            (Operation::Query, Safety::Read, Safety::Read),
            (Operation::Feed, Safety::Read, Safety::Read),
            (Operation::ItemsUpsert, Safety::Repeatable, Safety::Guarded),
            (Operation::ItemsReplace, Safety::Guarded, Safety::Guarded),
            (Operation::ItemsDelete, Safety::Guarded, Safety::Guarded),
            (Operation::ItemsPatch, Safety::Once, Safety::Guarded),
            (Operation::ItemsCreate, Safety::Once, Safety::Once),
            (Operation::Batch, Safety::Once, Safety::Once),
            (Operation::Execute, Safety::Once, Safety::Once),
        ] {
            assert_eq!((safety(operation, false), safety(operation, true)), (plain, conditional), "{operation}");
            assert_eq!(plain == Safety::Read, !operation.is_write());
        }
        for rule in RULES {
            assert!(rule.allows(Safety::Read) && rule.allows(Safety::Repeatable) && rule.allows(Safety::Guarded));
            assert_eq!(rule.allows(Safety::Once), rule.effect == Effect::None, "{}", rule.word);
        }
    }

    #[test]
    fn waits_grow_are_spread_and_end() {
        let ms = Duration::from_millis;
        let rule = RULES.iter().find(|rule| rule.word == "throttled").unwrap();
        assert_eq!([0, 1, 2, 10].map(|n| rule.wait(n, None, 1.0)), [ms(100), ms(200), ms(400), LONGEST_WAIT]);
        assert_eq!(rule.wait(u32::MAX, None, 1.0), LONGEST_WAIT);
        assert_eq!(rule.wait(2, None, 0.0), ms(0));
        assert_eq!((rule.wait(0, Some(ms(500)), 1.0), rule.wait(0, Some(ms(500)), 0.0)), (ms(510), ms(500)));
        assert!((0..100).map(|_| dice()).all(|dice| (0.0..=1.0).contains(&dice)));
    }
}
