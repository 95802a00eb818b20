//! Which callers a clause is about.
//!
//! A comparison has three outcomes, since a token or a context may not say what a clause asks for. A grant applies when the
//! outcome is yes; a deny applies unless it is no. So leaving something out never helps a caller.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::glob::Glob;
use crate::access::{Assurance, Claims, ExecutionContext, Fact, IssuerName};

/// The outcome of a comparison (Kleene's three-valued logic).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Match {
    /// For certain not.
    No,
    /// The caller does not show the claim or the fact.
    Unknown,
    /// For certain.
    Yes,
}

impl Match {
    pub(super) fn of(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }

    pub(super) fn and(self, other: Self) -> Self {
        self.min(other)
    }

    /// The best of several; unknown when there are none.
    pub(super) fn any(outcomes: impl IntoIterator<Item = Self>) -> Self {
        outcomes.into_iter().max().unwrap_or(Self::Unknown)
    }
}

/// The values of a claim that can be compared: the claim itself, or each member of a list; strings, numbers and booleans.
pub(super) fn usable_values<'a>(claims: &'a Claims, name: &str) -> impl Iterator<Item = &'a Value> {
    let claim = claims.get(name);
    let values = match claim {
        Some(Value::Array(items)) => items.as_slice(),
        Some(value) => std::slice::from_ref(value),
        None => &[],
    };
    values.iter().filter(|value| matches!(value, Value::String(_) | Value::Number(_) | Value::Bool(_)))
}

/// Workloads of one issuer, by claims and by context.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Selector {
    pub(super) issuer: IssuerName,
    pub(super) claims: Box<[ClaimTest]>,
    pub(super) context: ContextTest,
}

impl Selector {
    pub(super) fn test(&self, issuer: &IssuerName, claims: &Claims, context: &ExecutionContext) -> Match {
        self.test_claims(issuer, claims).and(self.context.test(context))
    }

    /// The same, whatever the context.
    pub(super) fn test_claims(&self, issuer: &IssuerName, claims: &Claims) -> Match {
        if *issuer != self.issuer {
            return Match::No;
        }
        self.claims.iter().fold(Match::Yes, |so_far, test| so_far.and(test.test(claims)))
    }

    /// The claims as they were written.
    pub(super) fn claims_json(&self) -> Map<String, Value> {
        self.claims.iter().map(|test| (test.name.to_string(), test.to_json())).collect()
    }

    /// Whether some caller may be meant by both.
    pub(super) fn may_meet(&self, other: &Self) -> bool {
        let claims_meet = self.claims.iter().all(|mine| {
            other.claims.iter().filter(|theirs| theirs.name == mine.name).all(|theirs| mine.may_meet(theirs))
        });
        self.issuer == other.issuer && claims_meet && self.context.may_meet(&other.context)
    }
}

/// A claim, and the values of which one must be met.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct ClaimTest {
    pub(super) name: Arc<str>,
    pub(super) any_of: Box<[ClaimPattern]>,
}

/// A value that a claim may have.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum ClaimPattern {
    Exact(Value),
    Text(Glob),
}

impl ClaimTest {
    pub(super) fn test(&self, claims: &Claims) -> Match {
        let values = usable_values(claims, &self.name);
        Match::any(values.map(|value| Match::of(self.any_of.iter().any(|pattern| pattern.matches(value)))))
    }

    /// The one value it allows, when there is just one.
    pub(super) fn exact(&self) -> Option<&Value> {
        match &*self.any_of {
            [ClaimPattern::Exact(value)] => Some(value),
            _ => None,
        }
    }

    fn to_json(&self) -> Value {
        match &*self.any_of {
            [one] => one.to_json(),
            several => Value::Array(several.iter().map(ClaimPattern::to_json).collect()),
        }
    }

    fn may_meet(&self, other: &Self) -> bool {
        self.any_of.iter().any(|mine| other.any_of.iter().any(|theirs| mine.may_meet(theirs)))
    }
}

impl ClaimPattern {
    fn matches(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Exact(Value::Number(wanted)), Value::Number(found)) => {
                // Whole numbers are compared exactly: as doubles, large account numbers would fall together.
                match (wanted.as_i128(), found.as_i128()) {
                    (Some(wanted), Some(found)) => wanted == found,
                    _ => wanted.as_f64() == found.as_f64(),
                }
            }
            (Self::Exact(wanted), found) => wanted == found,
            (Self::Text(glob), Value::String(found)) => glob.matches(found),
            (Self::Text(_), _) => false,
        }
    }

    fn may_meet(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(mine), Self::Text(theirs)) => mine.may_meet(theirs),
            (Self::Text(_), Self::Exact(value)) => self.matches(value),
            (Self::Exact(value), _) => other.matches(value),
        }
    }

    /// The pattern as it was written.
    pub(super) fn to_json(&self) -> Value {
        match self {
            Self::Exact(value) => value.clone(),
            Self::Text(glob) => Value::String(glob.to_string()),
        }
    }

    /// A value it matches.
    pub(super) fn example(&self) -> Value {
        match self {
            Self::Exact(value) => value.clone(),
            Self::Text(glob) => Value::String(glob.example()),
        }
    }
}

/// What the execution context must say.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct ContextTest {
    pub(super) state_machines: Option<Box<[Glob]>>,
    pub(super) states: Option<Box<[Glob]>>,
    pub(super) assurance: Option<Assurance>,
}

impl ContextTest {
    pub(super) fn test(&self, context: &ExecutionContext) -> Match {
        self.test_state_machine(context).and(self.test_state(context))
    }

    /// Whether the clause asks for no fact at all.
    pub(super) fn is_empty(&self) -> bool {
        self.state_machines.is_none() && self.states.is_none() && self.assurance.is_none()
    }

    pub(super) fn test_state_machine(&self, context: &ExecutionContext) -> Match {
        let execution = self.known(context.execution.as_ref());
        match &self.state_machines {
            Some(globs) => Match::any(execution.map(|execution| {
                let machine = execution.state_machine();
                Match::of(globs.iter().any(|glob| glob.matches(machine.as_str())))
            })),
            // A level without a named fact is demanded of the execution, or of the run that stands for one.
            None if self.assurance.is_some() && self.states.is_none() => {
                let run = self.known(context.run.as_ref());
                Match::any(execution.map(|_| Match::Yes).or(run.map(|_| Match::Yes)))
            }
            None => Match::Yes,
        }
    }

    pub(super) fn test_state(&self, context: &ExecutionContext) -> Match {
        let Some(globs) = &self.states else { return Match::Yes };
        let state = self.known(context.state.as_ref());
        Match::any(state.map(|state| Match::of(globs.iter().any(|glob| glob.matches(state.as_str())))))
    }

    /// The fact, when it is as sure as demanded; a lesser one counts as absent.
    fn known<'a, T>(&self, fact: Option<&'a Fact<T>>) -> Option<&'a T> {
        fact.filter(|fact| Some(fact.assurance) >= self.assurance).map(|fact| &fact.value)
    }

    fn may_meet(&self, other: &Self) -> bool {
        let meet = |mine: &Option<Box<[Glob]>>, theirs: &Option<Box<[Glob]>>| match (mine, theirs) {
            (Some(mine), Some(theirs)) => mine.iter().any(|a| theirs.iter().any(|b| a.may_meet(b))),
            _ => true,
        };
        meet(&self.state_machines, &other.state_machines) && meet(&self.states, &other.states)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn test(name: &str, any_of: Vec<ClaimPattern>) -> ClaimTest {
        ClaimTest { name: name.into(), any_of: any_of.into() }
    }

    fn claims(value: Value) -> Claims {
        Claims::new(value.as_object().unwrap().clone())
    }

    #[test]
    fn a_claim_is_met_by_any_of_its_values_and_keeps_its_type() {
        let seven = test("n", vec![ClaimPattern::Exact(json!(7))]);
        assert_eq!(seven.test(&claims(json!({"n": 7}))), Match::Yes);
        assert_eq!(seven.test(&claims(json!({"n": 7.0}))), Match::Yes);
        assert_eq!(seven.test(&claims(json!({"n": [6, 7]}))), Match::Yes);
        assert_eq!(seven.test(&claims(json!({"n": "7"}))), Match::No);
        assert_eq!(seven.test(&claims(json!({"n": {}}))), Match::Unknown);
        assert_eq!(seven.test(&claims(json!({"n": []}))), Match::Unknown);
        assert_eq!(seven.test(&claims(json!({}))), Match::Unknown);
        let large = test("n", vec![ClaimPattern::Exact(json!(9_007_199_254_740_993_u64))]);
        assert_eq!(large.test(&claims(json!({"n": 9_007_199_254_740_992_u64}))), Match::No);
        let glob = test("n", vec![ClaimPattern::Text(Glob::new("svc-*"))]);
        assert_eq!(glob.test(&claims(json!({"n": "svc-a"}))), Match::Yes);
        assert_eq!(glob.test(&claims(json!({"n": 1}))), Match::No);
    }

    #[test]
    fn a_fact_below_the_demanded_level_counts_as_absent() {
        let context = |assurance| ExecutionContext {
            state: Some(Fact { value: "Save".parse().unwrap(), assurance }),
            ..ExecutionContext::default()
        };
        let demand =
            |assurance| ContextTest { states: Some([Glob::new("Save")].into()), assurance, state_machines: None };
        assert_eq!(demand(None).test(&context(Assurance::Claimed)), Match::Yes);
        assert_eq!(demand(Some(Assurance::Signed)).test(&context(Assurance::Claimed)), Match::Unknown);
        assert_eq!(demand(Some(Assurance::Signed)).test(&context(Assurance::Proven)), Match::Yes);
        assert_eq!(demand(None).test(&ExecutionContext::default()), Match::Unknown);
    }

    #[test]
    fn a_level_alone_is_demanded_of_the_execution() {
        let demand = ContextTest { assurance: Some(Assurance::Signed), ..ContextTest::default() };
        let with = |assurance| ExecutionContext {
            execution: Some(Fact {
                value: "arn:aws:states:us-east-1:111122223333:execution:Fulfil:run".parse().unwrap(),
                assurance,
            }),
            ..ExecutionContext::default()
        };
        assert_eq!(demand.test(&ExecutionContext::default()), Match::Unknown);
        assert_eq!(demand.test(&with(Assurance::Claimed)), Match::Unknown);
        assert_eq!(demand.test(&with(Assurance::Signed)), Match::Yes);
    }
}
