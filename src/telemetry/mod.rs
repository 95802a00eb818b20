//! What operators see: the log and the metrics.
//!
//! **What is decided here.** Which series there are, what they are called, and how many of them there may be. A metric is two
//! lines in [`Metrics`]: a field, and the name and help it is registered with. Whoever has something to count calls the field;
//! what a room counts by itself is read when somebody asks (`server`), so no room knows of metrics.
//!
//! **What it refuses.** Labels without a bound. A container, a binding or a workload gets a series of its own only once policy
//! granted something to it, and only while there are not too many: no caller makes series at will. No secret has a way in:
//! what is told of a request is read from its audit entry, which has no room for one.

mod exposition;
mod labels;
mod log;
mod metrics;
mod request;

pub use exposition::Exposition;
pub use labels::{
    AnchorLabel, BindingLabel, ClauseLabels, DependencyLabel, DurationLabels, IssuerLabel, ReloadLabel, RequestLabels,
    RevisionLabel, UnitsLabels,
};
pub use log::start_log;
pub use metrics::{Metrics, Times, copy, copy_amount, set};
pub use request::Finished;
