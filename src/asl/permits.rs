//! What the policies say to the calls of a definition.
//!
//! A definition does not name the identity under which it runs: its connection does. So every workload that some binding
//! describes is tried, and the one that may do the most of the definition is taken for its own.

use std::collections::HashMap;

use super::{
    check::Check,
    definition::Index,
    task::{Call, Partition, Task},
};
use crate::{
    access::{ContainerName, Execution, Operation, StateName},
    context::{EXECUTION, STATE},
    policy::{Clause, Held, Permit, PolicySet, Verdict, Wish, Workload, workloads},
};

/// The policies that definitions are checked against.
#[derive(Debug)]
pub struct Policies {
    /// The policies.
    pub set: PolicySet,
    /// Where they were read from.
    pub directory: std::path::PathBuf,
    /// Claims that the workload's binding asks for, where which workload it is is known.
    pub claims: serde_json::Map<String, serde_json::Value>,
    /// An execution of the state machine, where its name is known.
    pub execution: Option<Execution>,
}

/// What the definition's workload may do.
#[derive(Debug)]
pub(super) struct Permits {
    /// The workload in words; `None` when no binding describes one that may do anything here.
    pub(super) workload: Option<String>,
    pub(super) answers: Vec<Answer>,
    /// The grants that it holds.
    pub(super) grants: Vec<Held>,
}

/// The policies' answer to one call.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) state: Index,
    pub(super) operation: Operation,
    pub(super) verdict: Verdict,
}

impl Permits {
    /// Asks the policies about every call whose container is known.
    pub(super) fn of(check: &Check<'_>, policies: &Policies) -> Self {
        let needs: Vec<Need<'_>> =
            check.calls().flat_map(|(task, state, call)| Need::of(task, state.name, call)).collect();
        let mut containers: Vec<ContainerName> = needs.iter().map(|need| need.container.clone()).collect();
        containers.sort();
        containers.dedup();
        let candidates = workloads(&policies.set, &containers, policies.execution.as_ref());
        let candidates = candidates.into_iter().filter(|workload| workload.shows(&policies.claims));
        let mut best: Option<(usize, Workload, Vec<Answer>)> = None;
        for workload in candidates {
            let answers: Vec<Answer> = needs.iter().map(|need| need.ask(&workload, &policies.set)).collect();
            let granted = answers.iter().filter(|answer| matches!(answer.verdict, Verdict::Granted(_))).count();
            if best.as_ref().is_none_or(|(most, ..)| granted > *most) {
                best = Some((granted, workload, answers));
            }
        }
        match best {
            Some((_, workload, answers)) => {
                Self { workload: Some(workload.describe()), answers, grants: workload.grants(&policies.set) }
            }
            None => {
                let none = |need: &Need<'_>| Answer {
                    state: need.state,
                    operation: need.operation,
                    verdict: Verdict::NotGranted,
                };
                Self { workload: None, answers: needs.iter().map(none).collect(), grants: Vec::new() }
            }
        }
    }

    /// The permits of a state's call.
    pub(super) fn granted(&self, state: Index) -> impl Iterator<Item = &Permit> {
        self.answers.iter().filter(move |answer| answer.state == state).filter_map(|answer| match &answer.verdict {
            Verdict::Granted(permit) => Some(permit),
            Verdict::Denied { .. } | Verdict::NotGranted => None,
        })
    }

    /// The grants that decided, with the operation they decided on; a deny that takes one away does not make it idle.
    pub(super) fn used(&self) -> HashMap<&Clause, Vec<Operation>> {
        let mut used: HashMap<&Clause, Vec<Operation>> = HashMap::new();
        for answer in &self.answers {
            let clauses = match &answer.verdict {
                Verdict::Granted(permit) => &**permit.clauses(),
                Verdict::Denied { granted, .. } => granted,
                Verdict::NotGranted => &[],
            };
            clauses.iter().for_each(|clause| used.entry(clause).or_default().push(answer.operation));
        }
        used
    }
}

/// A grant that a call needs.
struct Need<'a> {
    state: Index,
    operation: Operation,
    container: &'a ContainerName,
    partition: Option<&'a Partition>,
    tells_execution: bool,
    tells_state: Option<StateName>,
}

impl<'a> Need<'a> {
    /// One for the call, and one for each operation of a batch that is written out.
    fn of(task: &'a Task<'_>, state: &str, call: &'a Call) -> Vec<Self> {
        let (Some(container), Some(operation)) = (&call.name, call.operation()) else { return Vec::new() };
        let mut operations = vec![operation];
        operations.extend(call.items.iter().map(|item| item.operation).filter(|inner| *inner != operation));
        operations.dedup();
        let tells_state = task.headers.may_have(STATE.as_str()).then(|| state.parse().ok()).flatten();
        let need = |operation| Self {
            state: task.state,
            operation,
            container,
            partition: call.partition.as_ref(),
            tells_execution: task.headers.may_have(EXECUTION.as_str()),
            tells_state: tells_state.clone(),
        };
        operations.into_iter().map(need).collect()
    }

    fn ask(&self, workload: &Workload, set: &PolicySet) -> Answer {
        let partition_key = match self.partition {
            Some(Partition::Known(key)) => Some(key),
            Some(Partition::Expression(_)) | None => None,
        };
        let verdict = workload.may(
            set,
            &Wish {
                operation: self.operation,
                container: self.container,
                partition_key,
                tells_execution: self.tells_execution,
                state: self.tells_state.as_ref(),
            },
        );
        Answer { state: self.state, operation: self.operation, verdict }
    }
}
