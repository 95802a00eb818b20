//! stepgate: an identity-aware gateway between AWS Step Functions HTTP Tasks and Azure Cosmos DB.
//!
//! A request walks through the rooms in the order in which the modules stand here:
//!
//! ```text
//! server -> identity -> context -> question -> policy -> limits -> overload -> audit.open -> exchange -> upstream -> answer -> audit.close
//!              \_________ any refusal _________/-> audit (bounded before an identity is known) -> answer
//! ```
//!
//! [`gateway`] is the corridor: one plain async function that knows all rooms and the order between them. The order is
//! kept by types, not by the position of a middleware: [`identity`] alone makes a `VerifiedSubject`, [`policy`] alone
//! makes a `Permit`, [`exchange`] wants both before it gives a `ResourceToken`, and [`upstream`] wants that. A request
//! that skipped a check does not compile.
//!
//! Agents come by another front, [`mcp`], which makes requests of their tools' calls and gives them to the same corridor.
//!
//! Beside them stands [`asl`], which checks the definitions of the workflows before any request is made.
//!
//! Below the rooms stand the vocabulary ([`access`]), the [`clock`], the [`diagnostic`]s people read, and the
//! [`transport`] that every outgoing connection uses. `ARCHITECTURE.md` has the layering; a test keeps it.
// The future of a walk nests deeper than the usual 128 types: every room's is wrapped in the room's span.
#![recursion_limit = "256"]

pub mod server;

pub mod mcp;

pub mod gateway;

pub mod identity;

pub mod revocation;

pub mod context;

pub mod question;

pub mod mask;

pub mod policy;

pub mod limits;

pub mod overload;

pub mod idempotency;

pub mod exchange;

pub mod upstream;

pub mod answer;

pub mod audit;

pub mod config;

pub mod telemetry;

pub mod asl;

pub mod access;
pub mod clock;
pub mod diagnostic;
pub mod json;
pub mod secret;
pub mod transport;

#[cfg(feature = "dev")]
pub mod dev;
