//! What operators see: the log, the metrics and the traces.
//!
//! **What is decided here.** Which series there are, what they are called, and how many of them there may be; what a span and a
//! line of the log say. A metric is two lines in [`Metrics`]: a field, and the name and help it is registered with. Whoever has
//! something to count calls the field; what a room counts by itself is read when somebody asks (`server`), so no room knows of
//! metrics.
//!
//! **What it refuses.** Labels without a bound. A container, a clause or a workload gets a series of its own only once policy
//! granted something to it, and only while there are not too many: no caller makes series at will. No secret has a way in:
//! what is told of a request is read from its audit entry, which has no room for one. And nothing here makes a request wait:
//! spans and lines go through bounded queues, and what does not fit is counted and gone.

mod export;
mod exposition;
mod labels;
mod lines;
mod log;
mod metrics;
mod request;
mod start;
pub mod trace;

pub use export::{Otlp, OtlpProtocol, OtlpSetup};
pub use exposition::Exposition;
pub use labels::{
    AnchorLabel, AttemptLabels, BindingLabel, CauseLabel, ClauseLabels, ContainerLabel, DependencyLabel,
    DurationLabels, IssuerLabel, RegionLabel, RequestLabels, ResultLabel, RevisionLabel, TraceLabel, UnitsLabels,
};
pub use metrics::{Metrics, Times, copy, copy_amount, set};
pub use request::Finished;
pub use start::{Config, Delivery, Telemetry};
