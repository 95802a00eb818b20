//! What the caller gets: the one place where a refusal becomes a status and a body.
//!
//! Step Functions throws the body of every answer outside 2xx away, so for workflows each condition has a status of its
//! own ([`Form::Distinct`]), or the whole answer travels inside a 200 ([`Form::Envelope`]). Everyone else sees what Cosmos
//! would have sent ([`Form::Cosmos`]). [`Condition`] is the table from which all three are made, and from which the page
//! `docs/answers.md` is.
//!
//! This room knows what the others can refuse; it decides nothing. Texts it shows are safe to show: private causes stay in
//! the log.

mod cause;
mod condition;
mod form;
mod refusal;
mod select;
mod shape;
mod size;
mod view;

pub use cause::settle;
pub use condition::{Condition, OF_COSMOS, Retry, Row};
pub use form::{Form, is_http_task};
pub use refusal::{CosmosAnswer, Refusal};
pub use select::{SELECT, Select};
pub use shape::{REQUEST_ID, refuse, succeed};
pub use view::{rows, view};
