//! May they: the policy files, and the one evaluator that answers from them.

mod decision;

pub use decision::{Clause, ClauseKind, Decision, Permit, Reasons, Revision, Scope};
