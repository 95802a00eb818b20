//! The errand: a permitted request goes to Cosmos and an answer comes back.
//!
//! **What this room decides.** Which headers cross in either direction, to which region a request goes, and whether it may be
//! sent once more.
//!
//! **What it refuses to know.** Whether the request is allowed (the warrant is the proof that somebody asked), what
//! the body means, and what the caller is told: an answer of Cosmos comes back as it was, and a failure says only what is
//! known of the outcome.
//!
//! **Why this shape.** [`RequestHeaders`] can only be made by the allow-list, so a header nobody thought of stays here by
//! construction. The credential is not among them: [`Upstream::forward`] sets it from the [`Warrant`] it demands, so
//! a data request can carry nothing else. What may be repeated is one table ([`RULES`]), and its rule for writes is plain: a
//! write is sent again when Cosmos said, or the connection proves, that the first had no effect, or when doing it twice does no
//! more than doing it once ([`Safety`]); otherwise the outcome is unknown and the caller is told so.
//!
//! Where the warrant's credential opens more than the warrant, `confine` holds the request to it, last of all.
//!
//! [`Warrant`]: crate::exchange::Warrant

mod answer;
mod breaker;
mod budget;
mod confine;
mod continuation;
mod forward;
mod headers;
mod regions;
mod retry;
mod session;
mod topology;

pub use answer::{Doubt, Failure, UpstreamAnswer, UpstreamError, partition_key_levels};
pub use breaker::BreakerState;
pub use confine::Outside;
pub use continuation::ForeignContinuation;
pub use forward::{Config, Errand, Upstream, UpstreamStatus};
pub use headers::{RangeAddressing, RequestHeaders};
pub use regions::{RegionStatus, is_same_region};
pub use retry::{Effect, Next, RULES, Rule, Safety, When};
pub use session::SessionKey;
pub use topology::{AccountReader, ReadError, Reading, TopologyError, TopologyStatus};
