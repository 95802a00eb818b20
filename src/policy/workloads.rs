//! What a workload that some binding describes may do, asked before it exists: for checks of workflow definitions.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::{
    Clause, Decision, Permit, PolicySet, decide,
    hypothesis::{Caller, NEUTRAL, callers},
    model::Entitlement,
    selector::Match,
};
use crate::access::{
    Action, Assurance, ContainerName, Execution, ExecutionContext, Fact, KeyComponent, Operation, PartitionKey,
    StateName,
};

/// A workload that shows what a binding asks for, and nothing else of note.
#[derive(Clone, Debug)]
pub struct Workload {
    caller: Caller,
    shown: Map<String, Value>,
}

/// What a workload wants to do.
#[derive(Clone, Debug)]
pub struct Wish<'a> {
    /// To do what.
    pub operation: Operation,
    /// Where.
    pub container: &'a ContainerName,
    /// In which partition; `None` where that is not known yet, and any will do.
    pub partition_key: Option<&'a PartitionKey>,
    /// Whether it says of which execution it is.
    pub tells_execution: bool,
    /// From which state, where it says so.
    pub state: Option<&'a StateName>,
}

/// What policy says to a wish.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// Granted, in some partition at least.
    Granted(Permit),
    /// Granted, but taken away.
    Denied {
        /// The denies.
        by: Vec<Clause>,
        /// The grants that they take it from.
        granted: Vec<Clause>,
    },
    /// Not granted.
    NotGranted,
}

/// A grant that a workload holds.
#[derive(Clone, PartialEq, Debug)]
pub struct Held {
    /// The grant.
    pub clause: Clause,
    /// Its container, as written.
    pub container: String,
    /// What it allows.
    pub operations: Vec<Operation>,
}

/// The workloads that hold a grant on one of these containers, each once, those with the narrowest grants first. Where `execution` is named they all run in it; else
/// in one that their binding asks for.
pub fn workloads(set: &PolicySet, containers: &[ContainerName], execution: Option<&Execution>) -> Vec<Workload> {
    let is_on =
        |entitlement: &&Entitlement| containers.iter().any(|container| entitlement.grant.container.matches(container));
    let all = set.entitlements().iter().filter(is_on).flat_map(|entitlement| callers(&entitlement.holder));
    let claims = set.claim_names();
    let (mut seen, mut distinct) = (HashSet::new(), Vec::new());
    for caller in all {
        let shown = caller.claims.as_map().clone();
        let mut caller = caller.furnished(&claims);
        let execution = execution.cloned().or_else(|| Some(caller.context.execution.take()?.value));
        caller.context = ExecutionContext {
            execution: execution.map(|value| Fact { value, assurance: Assurance::Proven }),
            ..ExecutionContext::default()
        };
        let workload = Workload { caller, shown };
        if seen.insert((workload.describe(), workload.execution())) {
            distinct.push(workload);
        }
    }
    distinct
}

impl Workload {
    /// The workload in words: `local client_id="fulfilment"`.
    pub fn describe(&self) -> String {
        let claims = self.shown.iter().map(|(name, value)| format!(" {name}={value}"));
        format!("{}{}", self.caller.subject.issuer, claims.collect::<String>())
    }

    /// Whether its binding asks for each of these claims.
    pub fn shows(&self, claims: &Map<String, Value>) -> bool {
        claims.iter().all(|(name, value)| self.shown.get(name) == Some(value))
    }

    fn execution(&self) -> Option<String> {
        Some(self.caller.context.execution.as_ref()?.value.to_string())
    }

    /// What policy says to a wish of this workload.
    pub fn may(&self, set: &PolicySet, wish: &Wish<'_>) -> Verdict {
        let mut caller = self.caller.clone();
        caller.context.execution = caller.context.execution.filter(|_| wish.tells_execution);
        caller.context.state = wish.state.map(|state| Fact { value: state.clone(), assurance: Assurance::Proven });
        let mut denied = Vec::new();
        for key in self.keys(set, wish) {
            let request = caller.asks(Action::Operation(wish.operation), wish.container, key.as_ref());
            match decide(set, &request) {
                Decision::Allow(permit) => return Verdict::Granted(permit),
                Decision::Deny(reasons) => denied.extend(reasons.clauses.iter().cloned()),
                // Each of the keys is asked about by itself.
                Decision::Ambiguous(_) => {}
            }
        }
        let mut seen = HashSet::new();
        denied.retain(|clause| seen.insert(clause.clone()));
        let covering = self
            .held(set)
            .into_iter()
            .map(|entitlement| &entitlement.grant)
            .filter(|grant| grant.container.matches(wish.container) && grant.operations.contains(wish.operation));
        let granted: Vec<Clause> = covering.map(|grant| grant.clause.clone()).collect();
        if denied.is_empty() || granted.is_empty() {
            Verdict::NotGranted
        } else {
            Verdict::Denied { by: denied, granted }
        }
    }

    /// The keys that a wish may be about: the one it names, else none, those of the grants, and one that no clause names.
    fn keys(&self, set: &PolicySet, wish: &Wish<'_>) -> Vec<Option<PartitionKey>> {
        if let Some(key) = wish.partition_key {
            return vec![Some(key.clone())];
        }
        let templates = set.entitlements_on(&self.caller.asks(Action::Metadata, wish.container, None));
        let templates = templates.filter_map(|entitlement| entitlement.grant.partition.as_ref());
        let own = templates.flat_map(|template| template.candidates(&self.caller.claims)).map(Some);
        let other = PartitionKey::new(vec![KeyComponent::Text(NEUTRAL.into())]).ok();
        [None].into_iter().chain(own).chain([other]).collect()
    }

    fn held<'s>(&self, set: &'s PolicySet) -> Vec<&'s Entitlement> {
        let (issuer, claims) = (&self.caller.subject.issuer, &self.caller.claims);
        let own = |entitlement: &&Entitlement| entitlement.holder.test_claims(issuer, claims) == Match::Yes;
        set.entitlements().iter().filter(own).collect()
    }

    /// The grants it holds, in whichever of its states.
    pub fn grants(&self, set: &PolicySet) -> Vec<Held> {
        let mut grants: Vec<Held> = Vec::new();
        for Entitlement { grant, .. } in self.held(set) {
            if grants.iter().all(|held| held.clause != grant.clause) {
                grants.push(Held {
                    clause: grant.clause.clone(),
                    container: grant.container.to_string(),
                    operations: grant.operations.iter().collect(),
                });
            }
        }
        grants
    }
}
