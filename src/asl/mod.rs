//! State machine definitions, checked before they run.
//!
//! This room decides what is wrong with a definition whose HTTP Tasks call the gateway: what the service would refuse, what would fail
//! under load, what could be done twice or undone by another branch, and what the policies do not grant. [`lint()`] answers from
//! the text of the definition and the policies alone; [`grants()`] turns a definition into the least policy that lets it run, and
//! [`sketch()`] writes a state that has nothing wrong with it.
//!
//! It refuses to know files and sockets, and it has no second opinion on anything: what a request means is asked of
//! [`crate::question`], whether it is granted of [`crate::policy`], and which codes are worth a retry stands in the table of
//! [`crate::answer::Condition`].
//!
//! The way through: `definition` keeps what was written, with its places, and the graph of its states; `text` reads both query
//! languages into one kind of half-known text; `task` finds the calls; `rules` is a table, each row a function from a `Check`
//! to the spots that break it; `suppress` takes out what is said to be meant.

mod check;
mod definition;
mod grants;
mod lint;
mod page;
mod permits;
mod report;
mod rules;
mod sketch;
mod suppress;
mod task;
mod text;

#[cfg(test)]
mod tests;

pub use definition::Definition;
pub use grants::{Binding, Policy, grants};
pub use lint::{Finding, Options, Report, Suppressed, lint};
pub use page::{page, section};
pub use permits::Policies;
pub use rules::{Example, RULES, Rule, rule};
pub use sketch::{Sketch, sketch};
