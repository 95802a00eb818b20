//! Callers that do not exist, made from what the clauses say, so that the one evaluator can be asked about them.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use serde_json::Value;

use super::{
    glob::Glob,
    selector::{ClaimPattern, ClaimTest, Match, Selector},
    template::KeyTemplate,
};
use crate::access::{
    AccessRequest, Action, Assurance, Claims, ContainerName, Execution, ExecutionContext, Fact, PartitionKey, Subject,
};

/// A value that hardly any clause names: what a caller shows where no clause says what it should be.
pub(super) const NEUTRAL: &str = "~any";

/// How many callers are made of one selector; lists in several claims multiply.
const MOST_CALLERS: usize = 256;

/// A hypothetical caller.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Caller {
    pub(super) subject: Subject,
    pub(super) claims: Claims,
    pub(super) context: ExecutionContext,
    /// The selector it was made from, narrowed to the patterns that were chosen.
    pub(super) chosen: Selector,
}

impl Caller {
    pub(super) fn asks<'a>(
        &'a self,
        action: Action,
        container: &'a ContainerName,
        partition_key: Option<&'a PartitionKey>,
    ) -> AccessRequest<'a> {
        let (subject, claims, context) = (&self.subject, &self.claims, &self.context);
        AccessRequest { subject, client: None, claims, context, action, container, partition_key }
    }

    /// The caller with claims of these values, where it has no value of its own yet or `replace` says so.
    pub(super) fn with_claims(mut self, more: impl IntoIterator<Item = (String, Value)>, replace: bool) -> Self {
        let mut claims = self.claims.as_map().clone();
        for (name, value) in more {
            if replace || !claims.contains_key(&name) {
                claims.insert(name, value);
            }
        }
        self.claims = Claims::new(claims);
        self
    }

    /// The caller with a value for each of these claims and for every fact, all of which say nothing in particular.
    pub(super) fn furnished(self, claims: &HashSet<Arc<str>>) -> Self {
        let mut caller = self.with_claims(claims.iter().map(|name| (name.to_string(), Value::from(NEUTRAL))), false);
        let arn = format!("arn:aws:states:{NEUTRAL}:{NEUTRAL}:stateMachine:{NEUTRAL}");
        let context = &mut caller.context;
        context.execution = context.execution.take().or_else(|| execution_of(&arn, Assurance::Proven));
        let state = || NEUTRAL.parse().ok().map(|value| Fact { value, assurance: Assurance::Proven });
        context.state = context.state.take().or_else(state);
        caller
    }

    /// The caller as sure of its context as can be: no grant is lost and no deny met by that, whatever level they demand.
    pub(super) fn proven(mut self) -> Self {
        let ExecutionContext { execution, state, .. } = &mut self.context;
        execution.iter_mut().for_each(|fact| fact.assurance = Assurance::Proven);
        state.iter_mut().for_each(|fact| fact.assurance = Assurance::Proven);
        self
    }
}

/// The values that a claim in a partition key must be tried with, since clauses compare it with them.
#[derive(Debug)]
pub(super) struct KeyClaims(BTreeMap<String, Vec<Value>>);

impl KeyClaims {
    /// Of all claims in these keys: what other keys have in the same place, and a value that none has.
    pub(super) fn of(keys: &[&KeyTemplate]) -> Self {
        let mut claims: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for (key, other) in keys.iter().flat_map(|key| keys.iter().map(move |other| (key, other))) {
            for (name, opposite) in key.opposite(other) {
                let values = claims.entry(name.to_owned()).or_insert_with(|| vec![NEUTRAL.into()]);
                let value = match opposite {
                    Err(literal) => literal,
                    // Two claims may be the same or not.
                    Ok(claim) if claim != name => format!("{NEUTRAL}-{name}").into(),
                    Ok(_) => continue,
                };
                if !values.contains(&value) {
                    values.push(value);
                }
            }
        }
        Self(claims)
    }

    /// The caller with each combination of these values, and without the claims, as far as its selector leaves them open.
    pub(super) fn vary(&self, caller: &Caller) -> Vec<Caller> {
        let options: Vec<Vec<Option<(&String, &Value)>>> = self
            .0
            .iter()
            .map(|(name, values)| {
                let asked = || caller.chosen.claims.iter().filter(|test| *test.name == **name);
                let fits = |value: &&Value| {
                    let shown = Claims::new([(name.clone(), (*value).clone())].into_iter().collect());
                    asked().all(|test| test.test(&shown) == Match::Yes)
                };
                values.iter().filter(fits).map(|value| Some((name, value))).chain([None]).collect()
            })
            .collect();
        let chosen = combinations(&options).into_iter();
        let shown =
            chosen.map(|claims| claims.into_iter().flatten().map(|(name, value)| (name.clone(), value.clone())));
        shown.map(|claims| caller.clone().with_claims(claims, true)).collect()
    }
}

/// The callers that a selector describes: one for each combination of the values it lists, showing no more than it asks for.
pub(super) fn callers(selector: &Selector) -> Vec<Caller> {
    let claims: Vec<Vec<(Arc<str>, &ClaimPattern)>> = selector
        .claims
        .iter()
        .map(|test| test.any_of.iter().map(|pattern| (test.name.clone(), pattern)).collect())
        .collect();
    let claims = combinations(&claims);
    let contexts = contexts(selector);
    let all = claims.iter().flat_map(|claims| contexts.iter().map(|context| caller(selector, claims, context)));
    all.take(MOST_CALLERS).collect()
}

fn caller(selector: &Selector, claims: &[(Arc<str>, &ClaimPattern)], context: &ExecutionContext) -> Caller {
    let only = |(name, pattern): &(Arc<str>, &ClaimPattern)| ClaimTest {
        name: name.clone(),
        any_of: [(*pattern).clone()].into(),
    };
    let chosen = Selector { claims: claims.iter().map(only).collect(), ..selector.clone() };
    let shown = claims.iter().map(|(name, pattern)| (name.to_string(), pattern.example())).collect();
    Caller {
        subject: Subject { issuer: selector.issuer.clone(), id: NEUTRAL.into() },
        claims: Claims::new(shown),
        context: context.clone(),
        chosen,
    }
}

fn contexts(selector: &Selector) -> Vec<ExecutionContext> {
    let test = &selector.context;
    let assurance = test.assurance.unwrap_or(Assurance::Claimed);
    let examples = |globs: &Option<Box<[Glob]>>| match globs {
        Some(globs) => globs.iter().map(|glob| Some(glob.example())).collect(),
        None => vec![None],
    };
    let mut machines = examples(&test.state_machines);
    if test.assurance.is_some() && test.state_machines.is_none() && test.states.is_none() {
        machines = vec![Some(format!("arn:aws:states:{NEUTRAL}:{NEUTRAL}:stateMachine:{NEUTRAL}"))];
    }
    let states = examples(&test.states);
    let pairs = machines.iter().flat_map(|machine| states.iter().map(move |state| (machine, state)));
    pairs
        .map(|(machine, state)| ExecutionContext {
            execution: machine.as_ref().and_then(|arn| execution_of(arn, assurance)),
            state: state.as_ref().and_then(|name| Some(Fact { value: name.parse().ok()?, assurance })),
            ..ExecutionContext::default()
        })
        .collect()
}

fn execution_of(state_machine: &str, assurance: Assurance) -> Option<Fact<Execution>> {
    let arn = format!("{}:hypothetical", state_machine.replace(":stateMachine:", ":execution:"));
    arn.parse().ok().map(|value| Fact { value, assurance })
}

/// Every way to take one of each, the first [`MOST_CALLERS`] of them.
fn combinations<T: Clone>(lists: &[Vec<T>]) -> Vec<Vec<T>> {
    lists.iter().fold(vec![Vec::new()], |beginnings: Vec<Vec<T>>, list| {
        let longer = beginnings.iter().flat_map(|beginning| {
            list.iter().map(move |next| [beginning.as_slice(), std::slice::from_ref(next)].concat())
        });
        longer.take(MOST_CALLERS).collect()
    })
}

/// The text of a selector for a report: `local client_id="fulfilment"`, with the context it asks for.
pub(super) fn describe(selector: &Selector) -> String {
    let mut text = selector.issuer.to_string();
    for (name, value) in selector.claims_json() {
        text += &format!(" {name}={value}");
    }
    let lists = [("from", &selector.context.state_machines), ("in", &selector.context.states)];
    for (word, globs) in lists {
        if let Some(globs) = globs {
            let globs: Vec<_> = globs.iter().map(Glob::as_str).collect();
            text += &format!(" {word} {}", globs.join("|"));
        }
    }
    if let Some(assurance) = selector.context.assurance {
        text += &format!(" ({})", assurance.as_str());
    }
    text
}

/// A policy under which nobody may query but who is surer of its state than its grant asks.
#[cfg(test)]
pub(super) const FOR_THE_SURER: &str = r#"
roles: { all: { grants: [{ container: shop/orders, operations: [query] }] } }
bindings: [{ role: all, workloads: [{ issuer: local, states: ["S*"] }] }]
deny:
  - name: not-in-s
    container: shop/orders
    operations: [query]
    workloads: [{ issuer: local, states: [S], assurance: signed }]
"#;
