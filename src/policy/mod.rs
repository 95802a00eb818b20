//! May they: the policy files, and the one evaluator that answers from them.
//!
//! This room decides whether a caller may do an operation in a partition of a container, and which grant makes it so: that grant's
//! own partition key and the operation's mode are all that the [`Permit`] lets a resource token be minted for. Default deny; a deny
//! beats every grant; what is not known speaks against the caller.
//!
//! It refuses to know how a token was verified, what HTTP is, and what time it is. It sees plain claims and plain names
//! ([`crate::access::AccessRequest`]), so the test runner, `explain`, `who-can` and `diff` ask it about callers that
//! do not exist, and there is no second evaluator to disagree with.
//!
//! The way through: [`load()`] reads a directory; `document` is what was written, `compile` checks it with every problem at its
//! place, `model` is what it means, found through `index` at a cost that does not grow with the policy. [`decide()`] is pure. [`RunningPolicy`] holds
//! the set that decides now and replaces it whole or not at all.
//!
//! Three rules run through everything. Comparisons have three outcomes (`selector`): a claim or a fact that the caller does
//! not show leaves a grant closed and a deny shut. Of several grants the narrowest decides, since the token minted for it can do
//! least. And the order of clauses never changes who may do what, only which of equal clauses is named.

mod cases;
mod compile;
mod decide;
mod decision;
mod diff;
mod document;
mod explain;
mod glob;
mod holdings;
mod hypothesis;
mod inclusion;
mod index;
mod links;
mod load;
mod matrix;
mod model;
mod mutate;
mod release;
mod revision;
mod running;
mod selector;
mod template;
mod warn;
mod watch;
mod who_can;
mod workloads;

#[cfg(test)]
mod findings;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod rules;

use std::path::PathBuf;

pub use cases::{CaseResult, Question, QuestionError, TestReport, run_cases};
pub use decide::{decide, decide_batch};
pub use decision::{BindingLimits, Clause, ClauseKind, Decision, Hours, Permit, Reasons, Revision, Scope};
pub use diff::{Change, Difference, SideError, diff, load_side};
pub use document::schema;
pub use explain::{Explanation, NearMiss, explain, near_misses};
pub use holdings::{Bearer, Holding, globs, holdings};
pub use load::load;
pub use matrix::{Cell, Matrix, Reaches, Row, matrix};
pub use model::{NamedGrant, PolicySet};
pub use mutate::{MutationReport, Survivor, mutate};
pub use release::{NotReleased, release};
pub use running::{PolicyStatus, RejectedStatus, RunningPolicy, RunningStatus};
pub use watch::Watch;
pub use who_can::{Holder, who_can};
pub use workloads::{Held, Verdict, Wish, Workload, workloads};

use crate::access::IssuerName;

/// Where the policy is, and which issuers its names may refer to.
#[derive(Clone, Debug)]
pub struct Config {
    /// The directory of the policy files.
    pub directory: PathBuf,
    /// The configured issuers. `None` where no configuration is at hand (the command line): issuer names are then taken as
    /// they are, and `github` is taken to be shared.
    pub issuers: Option<Vec<KnownIssuer>>,
}

/// An issuer that policy files may name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KnownIssuer {
    /// Its name in the configuration.
    pub name: IssuerName,
    /// Whether anyone can have a workload there, as at GitHub; a binding must then pin one owner.
    pub shared: bool,
}
