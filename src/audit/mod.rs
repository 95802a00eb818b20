//! The ledger: what was asked, what was decided, what was done, in an order nobody can quietly change.
//!
//! This room decides when a record counts as written, and refuses the act when it cannot be: [`Journal::append`] resolves
//! only when the record is durable, the gateway awaits it before a write leaves and before any answer leaves, and an error
//! means 503. It refuses to know what a request means: the gateway fills an [`Entry`] from the proofs of the other rooms,
//! and the entry has no member that could hold a body, a query's values, a token or a key.
//!
//! Five layers of promise, each made by one file:
//!
//! * `chain`: each line carries the hash of the line before, so a record cannot be changed, moved or taken out of the
//!   middle without every later line showing it;
//! * `merkle`: a tree over the same lines, so that one record can be proven to somebody who has not the rest;
//! * `checkpoint`: an Ed25519 signature over chain and tree, at intervals, at the beginning of each segment and at each clean
//!   stop, so that neither can be computed anew by anyone without the key, nor cut back below the last checkpoint;
//! * `verify`: what of this can be checked, and how far, said in words. A log cut back together with its checkpoints is
//!   not found by the log alone;
//! * `anchors`: checkpoints sent where the host's owner cannot take them back, which is what finds it.
//!
//! One thread owns the files, since a sync blocks; it commits in groups, so two hundred waiting records cost one or two
//! syncs. A sync that failed is never tried again on the same file: the files are closed, the tail is read back and a new
//! segment begun (`writer`, `disk`). Closed segments may be packed (`pack`) and, when they are older than the policy keeps
//! them, removed under a signed statement (`retention`). Requests refused before an identity is known come through
//! [`Journal::refuse`], which never waits and never starves the others. `trace`, `tail` and `export` read the log for
//! people, and check nothing; that they did is itself recorded (`readings`). The names of a record's members are in `ocsf`
//! and `fields`; those names are a promise to scripts, and `docs/audit.md` has them all.

mod anchored;
mod anchors;
mod bell;
mod chain;
mod checkpoint;
mod disk;
mod display;
mod draw;
mod export;
mod fields;
mod journal;
mod key;
mod merkle;
mod ocsf;
mod pack;
mod prove;
mod reader;
mod readings;
mod record;
mod recover;
mod refusals;
mod reply;
mod retention;
mod segment;
mod status;
mod tail;
mod trace;
mod verify;
mod walk;
mod writer;

#[cfg(test)]
mod keeping_tests;
#[cfg(test)]
mod mutation_tests;
#[cfg(test)]
mod prove_tests;
#[cfg(test)]
mod reading_tests;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;

pub use anchors::{AnchorConfig, AnchorError, AnchorStatus, Anchors, CosmosAnchorError, Means};
pub use chain::{Hash, Misfit};
pub use export::{ExportError, export};
pub use fields::Unreadable;
pub use journal::{AuditError, Config, Durability, Journal, Unavailable};
pub use key::{KeyProblem, PublicKey};
pub use prove::{NotProven, ProveError, Proven, ProvenRecord, prove, public_keys};
pub use reader::Reader;
pub use readings::note_reading;
pub use record::{
    Answer, Asked, Credential, Entry, Inside, Phase, Question, Reading, Record, Revocation, Ruling, Sequence,
    Suppressed, Telling, Upstream, UserAgentKind, Verdict, Who,
};
pub use segment::{Damage, Wrong};
pub use status::{Counters, Health, SYNC_BUCKETS, Status};
pub use tail::Filter;
pub use trace::{Call, Outcome, Totals, Trace, TraceError, Try, TryKey, Visit, trace};
pub use verify::{Evidence, FirstBad, Range, Report, Trust, verify};
