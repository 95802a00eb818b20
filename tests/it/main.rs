//! The integration tests: one binary, through real sockets, on port 0.
//!
//! Each test starts a stack of its own (stand-ins, gateway, policies and audit log in a temporary directory), so all of
//! them can run at once. See `rig` for what a test has at hand.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic: that is how it fails"
)]
#![allow(clippy::duplicate_mod, reason = "the suite runs before two kinds of account: see `entra`")]

mod admin;
mod anchors;
mod answers;
mod asl;
mod commands;
mod conditions;
mod documents;
mod encryption;
mod entra;
mod exchange;
mod golden;
mod honesty;
mod idempotency;
mod identity;
mod keys;
mod layering;
mod limits;
mod log;
mod masks;
mod matrix;
mod mcp;
mod overload;
mod policies;
mod preflight;
mod regions;
mod release;
mod revocation;
mod rig;
mod sdk;
mod secrets;
mod tasks;
mod walk;

use stepgate::config::Raw;

use self::rig::Rig;

/// A stack before an account that takes keys. Tests that hold for every account begin with `super::start()`, so that module
/// `entra` can run them again before one that takes none.
async fn start() -> Rig {
    Rig::start().await
}

/// The same, its configuration changed first.
async fn with(change: impl FnOnce(&mut Raw)) -> Rig {
    Rig::with(change).await
}

/// The same, not waited for.
async fn unready(change: impl FnOnce(&mut Raw)) -> Rig {
    Rig::unready(change).await
}
