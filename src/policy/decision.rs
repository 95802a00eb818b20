//! The answer of policy, with its reasons. The HTTP answer, the audit record, the test runner and `explain` print the same
//! object.

use std::{
    fmt,
    hash::{Hash, Hasher},
    num::NonZeroU32,
    sync::Arc,
};

use crate::access::{Action, ContainerName, PartitionKey, PermissionMode, Subject};

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
    pub fn clauses(&self) -> &[Clause] {
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

    /// The permit in one sentence.
    pub fn sentence(&self) -> String {
        let names: Vec<_> = self.clauses.iter().map(|clause| &*clause.name).collect();
        let names = names.join(", ");
        let (subject, action, container) = (&self.subject, self.action, &self.scope.container);
        let once = if self.is_idempotent() { ", once for each idempotency key" } else { "" };
        match &self.partition_key {
            Some(key) => format!("{names} grants {action} on {container} in partition {key} to {subject}{once}."),
            None => format!("{names} grants {action} on {container} to {subject}{once}."),
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
    /// Requests in flight.
    pub concurrency: Option<NonZeroU32>,
}

impl BindingLimits {
    fn identity(&self) -> (&str, [Option<NonZeroU32>; 3]) {
        (&self.written, [self.requests_per_second, self.request_units_per_second, self.concurrency])
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
    /// The denies that hit; empty when nothing granted.
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
        let kind = match self.kind {
            ClauseKind::Grant => "grant",
            ClauseKind::Deny => "deny",
        };
        serde_json::json!({ "kind": kind, "name": &*self.name, "index": self.index, "place": &*self.place })
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

/// Which policy files are running: a git commit, a dirty commit with a digest, or a digest.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Revision(pub(super) Arc<str>);

impl Revision {
    /// The revision as audit records carry it.
    pub fn as_str(&self) -> &str {
        &self.0
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
        }
    }
}
