//! What the rules look at, and what they find.

use url::Url;

use super::{
    definition::{Definition, Graph, Index, State},
    permits::Permits,
    task::{Call, Task},
};
use crate::{access::Operation, policy::Permit};

/// A definition, read as far as it can be before it runs.
#[derive(Debug)]
pub(super) struct Check<'a> {
    pub(super) definition: &'a Definition,
    pub(super) graph: Graph<'a>,
    pub(super) tasks: Vec<Task<'a>>,
    /// What the policies say to its calls, where there are policies.
    pub(super) permits: Option<Permits>,
}

/// Something that a rule has found: where, what, and the mend.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Spot {
    pub(super) path: String,
    pub(super) message: String,
    pub(super) mend: String,
}

impl Spot {
    pub(super) fn new(path: impl Into<String>, message: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into(), mend: mend.into() }
    }
}

impl<'a> Check<'a> {
    pub(super) fn of(definition: &'a Definition, public_url: Option<&Url>) -> Self {
        let graph = Graph::of(definition);
        let tasks = Task::all(&graph, public_url);
        Self { definition, graph, tasks, permits: None }
    }

    /// Every HTTP Task, with its state.
    pub(super) fn http_tasks(&self) -> impl Iterator<Item = (&Task<'a>, &State<'a>)> {
        self.tasks.iter().filter_map(|task| Some((task, self.graph.state(task.state)?)))
    }

    /// Every task that calls the gateway for data.
    pub(super) fn calls(&self) -> impl Iterator<Item = (&Task<'a>, &State<'a>, &Call)> {
        self.http_tasks().filter_map(|(task, state)| Some((task, state, task.call()?)))
    }

    /// The call of a state.
    pub(super) fn call_of(&self, index: Index) -> Option<&Call> {
        self.tasks.iter().find(|task| task.state == index)?.call()
    }

    /// Whether a write is done once however often it is sent. The grant says so, where there are policies and one of them grants
    /// the write; without them, a key of its own is the sign that one will.
    pub(super) fn is_idempotent(&self, task: &Task<'_>, call: &Call) -> bool {
        let mut granted = self.permits.iter().flat_map(|permits| permits.granted(task.state)).peekable();
        if granted.peek().is_some() {
            return granted.any(Permit::is_idempotent) && task.tells_key();
        }
        call.operation().is_some_and(Operation::can_be_idempotent) && call.idempotency.is_some()
    }
}
