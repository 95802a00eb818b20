//! The answer of policy, with its reasons. The HTTP answer, the audit record, the test runner and `explain` print the same
//! object.

use std::{
    fmt,
    hash::{Hash, Hasher},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use crate::{
    access::{Action, ContainerName, PartitionKey, PermissionMode, Subject},
    clock::Timestamp,
    mask::Mask,
};

/// What policy says to an access request.
#[derive(Clone, Debug)]
pub enum Decision {
    /// Granted, and nothing denies it.
    Allow(Permit),
    /// Not granted, or denied.
    Deny(Reasons),
    /// The request names no partition key and the deciding grant fixes more than one for this caller (or equally narrow
    /// grants fix different ones): the request must say which (400). At most 16 are listed for a grant.
    Ambiguous(Vec<PartitionKey>),
}

impl Decision {
    /// The decision in one sentence, for a person; safe to show to the caller.
    pub fn sentence(&self) -> String {
        match self {
            Self::Allow(permit) => permit.sentence(),
            Self::Deny(reasons) => reasons.sentence.clone(),
            Self::Ambiguous(keys) => {
                let keys: Vec<_> = keys.iter().map(ToString::to_string).collect();
                format!(
                    "The request names no partition key, and more than one is granted ({}): name one.",
                    keys.join(", ")
                )
            }
        }
    }

    /// The clauses that decided.
    pub fn clauses(&self) -> &[Clause] {
        match self {
            Self::Allow(permit) => &permit.clauses,
            Self::Deny(reasons) => &reasons.clauses,
            Self::Ambiguous(_) => &[],
        }
    }

    /// Whether it is leave to act.
    pub fn is_allow(&self) -> bool {
        matches!(self, Self::Allow(_))
    }
}

/// Leave to act: made by `decide` alone. The broker trades it, together with the subject it names, for a resource token.
#[derive(Clone, Debug)]
pub struct Permit {
    pub(super) subject: Subject,
    pub(super) client: Option<Arc<str>>,
    pub(super) action: Action,
    pub(super) scope: Scope,
    pub(super) partition_key: Option<PartitionKey>,
    pub(super) clauses: Arc<[Clause]>,
    pub(super) revision: Revision,
    pub(super) binding: Arc<str>,
    pub(super) limits: Option<Arc<BindingLimits>>,
    pub(super) idempotent: bool,
    pub(super) mask: Option<Mask>,
}

impl Permit {
    /// Whose permit.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// The OAuth client of the subject, where there is one.
    pub fn client(&self) -> Option<&str> {
        self.client.as_deref()
    }

    /// Leave for what.
    pub fn action(&self) -> Action {
        self.action
    }

    /// The narrowest thing Cosmos can enforce that carries the permit.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The partition key the request runs under: the one it names, or the one the deciding grant fixes.
    pub fn partition_key(&self) -> Option<&PartitionKey> {
        self.partition_key.as_ref()
    }

    /// The clauses that decided.
    pub fn clauses(&self) -> &Arc<[Clause]> {
        &self.clauses
    }

    /// The policy revision that decided.
    pub fn revision(&self) -> &Revision {
        &self.revision
    }

    /// The place of the binding that decided, such as `shop.yaml:31`; of several that give the caller the deciding grant the first,
    /// by file path and position.
    pub fn binding(&self) -> &Arc<str> {
        &self.binding
    }

    /// How much may be asked for under the binding that decided, where it says so. Of several bindings that give the caller the
    /// deciding grant it is the first, by file path and position; of a batch the one that grants the batch itself.
    pub fn limits(&self) -> Option<&Arc<BindingLimits>> {
        self.limits.as_ref()
    }

    /// Whether the write must be done once, however often it is sent: the deciding grant says `idempotency: on`, and the action
    /// is one that can be kept to it. In a batch the grant of any operation
    /// inside says so for all.
    pub fn is_idempotent(&self) -> bool {
        let can_be = matches!(self.action, Action::Operation(operation) if operation.can_be_idempotent());
        self.idempotent && can_be
    }

    /// Whether the deciding grant says `idempotency: on`, whatever the action.
    pub fn wants_idempotency(&self) -> bool {
        self.idempotent
    }

    /// What of an item is covered in every answer. In a batch it is what the permit of any operation inside covers.
    pub fn mask(&self) -> Option<&Mask> {
        self.mask.as_ref()
    }

    /// How many rows an answer may have, where the binding says so.
    pub fn rows(&self) -> Option<NonZeroU32> {
        self.limits.as_ref()?.rows
    }

    /// The permit in one sentence.
    pub fn sentence(&self) -> String {
        let names: Vec<_> = self.clauses.iter().map(|clause| &*clause.name).collect();
        let names = names.join(", ");
        let (subject, action, container) = (&self.subject, self.action, &self.scope.container);
        let once = if self.is_idempotent() { ", once for each idempotency key" } else { "" };
        let masked = self.mask.as_ref().map_or_else(String::new, |mask| {
            let pointers: Vec<_> = mask.pointers().iter().map(ToString::to_string).collect();
            format!(", with {} masked", pointers.join(", "))
        });
        match &self.partition_key {
            Some(key) => {
                format!("{names} grants {action} on {container} in partition {key} to {subject}{once}{masked}.")
            }
            None => format!("{names} grants {action} on {container} to {subject}{once}{masked}."),
        }
    }
}

/// How much all callers of a binding may ask for, together. Two are equal when the binding is written the same and the numbers
/// are, wherever it stands.
#[derive(Clone, Debug)]
pub struct BindingLimits {
    /// The role that is bound.
    pub role: Arc<str>,
    /// Where the binding stands: `shop.yaml:31`.
    pub place: Arc<str>,
    /// The binding as it was written.
    pub written: Arc<str>,
    /// Requests in a second, and at once.
    pub requests_per_second: Option<NonZeroU32>,
    /// Request units, as Cosmos charges them, in a second.
    pub request_units_per_second: Option<NonZeroU32>,
    /// Request units in an hour.
    pub request_units_per_hour: Option<NonZeroU32>,
    /// Requests in flight.
    pub concurrency: Option<NonZeroU32>,
    /// Rows in one answer.
    pub rows: Option<NonZeroU32>,
    /// When something may be asked for at all.
    pub hours: Option<Hours>,
}

impl BindingLimits {
    /// Limits of a binding that limit nothing.
    pub fn none(role: &str, place: &Arc<str>, written: &str) -> Self {
        Self {
            role: role.into(),
            place: place.clone(),
            written: written.into(),
            requests_per_second: None,
            request_units_per_second: None,
            request_units_per_hour: None,
            concurrency: None,
            rows: None,
            hours: None,
        }
    }

    fn identity(&self) -> (&str, [Option<NonZeroU32>; 5], Option<Hours>) {
        let Self { requests_per_second, request_units_per_second, request_units_per_hour, concurrency, rows, .. } =
            *self;
        let numbers = [requests_per_second, request_units_per_second, request_units_per_hour, concurrency, rows];
        (&self.written, numbers, self.hours)
    }
}

/// A part of the day, in UTC, on some days of the week.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Hours {
    /// The first minute of the day.
    pub(super) from: u16,
    /// The first minute after it.
    pub(super) until: u16,
    /// One bit for each day, Monday the lowest.
    pub(super) days: u8,
}

impl Hours {
    pub(super) const EVERY_DAY: u8 = 0b111_1111;
    /// Minutes of a day.
    pub(super) const DAY: u16 = 24 * 60;

    /// How long until it begins; `None` while it lasts.
    pub fn begin_in(&self, now: Timestamp) -> Option<Duration> {
        const MINUTE: i64 = 60_000;
        let day = i64::from(Self::DAY) * MINUTE;
        let (today, time) = (now.as_millis().div_euclid(day), now.as_millis().rem_euclid(day));
        let (from, until) = (i64::from(self.from) * MINUTE, i64::from(self.until) * MINUTE);
        // The first of January 1970 was a Thursday.
        let is_on = |days: i64| (self.days >> (today + days + 3).rem_euclid(7)) & 1 == 1;
        if is_on(0) && (from..until).contains(&time) {
            return None;
        }
        let begins = (0..=7).filter(|days| is_on(*days)).map(|days| days * day + from - time).find(|wait| *wait > 0);
        Some(Duration::from_millis(begins.and_then(|wait| u64::try_from(wait).ok()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [from, until] = [self.from, self.until].map(|minute| format!("{:02}:{:02}", minute / 60, minute % 60));
        write!(f, "{from} until {until} UTC")?;
        if self.days == Self::EVERY_DAY {
            return Ok(());
        }
        let days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"].into_iter().enumerate();
        let days = days.filter(|(day, _)| (self.days >> day) & 1 == 1).map(|(_, name)| name);
        write!(f, " on {}", days.collect::<Vec<_>>().join(", "))
    }
}

impl PartialEq for BindingLimits {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for BindingLimits {}

impl Hash for BindingLimits {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

/// What a resource token is minted for: it comes from the deciding grant and the identity, never from values in the request.
#[derive(Clone, PartialEq, Debug)]
pub struct Scope {
    /// The container.
    pub container: ContainerName,
    /// The grant's own partition key; `None` for the whole container.
    pub partition_key: Option<PartitionKey>,
    /// Reading only, or everything.
    pub mode: PermissionMode,
}

/// Why not: the denies that hit, or that no grant matched, with the nearest misses in words.
#[derive(Clone, PartialEq, Debug)]
pub struct Reasons {
    /// `policy.prefix_query` instead of `policy.denied`: a query or feed under a grant on a prefix of a hierarchical key.
    pub prefix_query: bool,
    /// The denies that hit, or the grant whose mask stands in the way; empty when nothing granted.
    pub clauses: Arc<[Clause]>,
    /// One sentence for a person; safe to show to the caller.
    pub sentence: String,
    /// The policy revision that decided.
    pub revision: Revision,
}

/// A clause of a policy file, by name and place.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Clause {
    /// Grant or deny.
    pub kind: ClauseKind,
    /// The role's or the deny's name: what `because:` of a test case lists.
    pub name: Arc<str>,
    /// Which grant of the role, from 0; 0 for a deny.
    pub index: usize,
    /// Where it stands: `shop.yaml:4`.
    pub place: Arc<str>,
}

impl Clause {
    /// The clause as reports print it.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({ "kind": self.kind.as_str(), "name": &*self.name, "index": self.index, "place": &*self.place })
    }
}

impl fmt::Display for Clause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.place)
    }
}

/// Grant or deny.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ClauseKind {
    /// A grant of a role.
    Grant,
    /// A deny.
    Deny,
}

impl ClauseKind {
    /// The word of reports and records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Grant => "grant",
            Self::Deny => "deny",
        }
    }
}

/// Which policy files are running: a git commit, a dirty commit with a digest, or a digest.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Revision(pub(super) Arc<str>);

impl Revision {
    /// The revision as audit records carry it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&Revision> for Arc<str> {
    fn from(revision: &Revision) -> Self {
        Self::clone(&revision.0)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
impl Permit {
    /// A permit as `decide` would make it, for tests of the rooms that demand one.
    pub(crate) fn for_test(subject: Subject, client: Option<&str>, action: Action, scope: Scope) -> Self {
        Self {
            subject,
            client: client.map(Into::into),
            action,
            partition_key: scope.partition_key.clone(),
            scope,
            clauses: Arc::new([]),
            revision: Revision("sha256:test".into()),
            binding: "test.yaml:1".into(),
            limits: None,
            idempotent: false,
            mask: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_begin_on_their_days() {
        const MINUTE: i64 = 60;
        // Monday to Friday, 08:00 until 18:00.
        let hours = Hours { from: 8 * 60, until: 18 * 60, days: 0b1_1111 };
        // Thursday, the first of January 1970, and the days after it.
        let wait = |day: i64, minute: i64| {
            let now = Timestamp::from_secs((day * 24 * 60 + minute) * MINUTE);
            hours.begin_in(now).map(|wait| wait.as_secs() / 60)
        };
        assert_eq!((wait(0, 8 * 60), wait(0, 18 * 60 - 1)), (None, None));
        assert_eq!((wait(0, 8 * 60 - 1), wait(0, 18 * 60)), (Some(1), Some(14 * 60)));
        assert_eq!((wait(1, 19 * 60), wait(2, 0), wait(3, 12 * 60)), (Some(61 * 60), Some(56 * 60), Some(20 * 60)));
        assert_eq!(hours.to_string(), "08:00 until 18:00 UTC on mon, tue, wed, thu, fri");
        let always = Hours { from: 0, until: Hours::DAY, days: Hours::EVERY_DAY };
        assert_eq!(always.begin_in(Timestamp::from_secs(86_399)), None);
    }
}
