//! `who_can` and `diff` claim to be exact. Here every caller of a small world asks every question, and the second evaluator
//! answers: what the reports say must be what came out.

use std::collections::BTreeSet;

use proptest::{prelude::*, sample::select};
use serde_json::{Value, json};

use super::{Ask, Outcome, Policy, cases, naive, policy, policy_of, set_if};
use crate::{
    access::{Assurance, Operation, PartitionKey},
    policy::{Change, Holder, diff, who_can},
};

const CONTAINERS: [&str; 2] = ["d/c", "d/e"];

/// The values that a key component and the claims behind it may have; the last is one that no clause names.
fn values() -> Vec<Value> {
    vec![json!("a"), json!("b"), json!(1), json!("x"), json!("?")]
}

fn keys() -> Vec<Value> {
    let values = values();
    let two = values.iter().flat_map(|first| values.iter().map(move |second| json!([first, second])));
    values.iter().map(|key| json!([key])).chain(two).collect()
}

/// The question of every caller: of each issuer, with each value that a clause may name, one that none names, or none, in each
/// context.
fn asks(operation: Operation, container: &'static str) -> Vec<Ask> {
    let states =
        ["S", "S1", "Q"].into_iter().flat_map(|state| [(state, Assurance::Claimed), (state, Assurance::Signed)]);
    let mut all = Vec::new();
    for issuer in ["i", "j"] {
        for c in with_none(["v", "w", "w1", "w2", "z"].map(Value::from)) {
            for t in with_none(values()) {
                for u in with_none(values()) {
                    for state in with_none(states.clone()) {
                        let mut claims = json!({});
                        for (name, value) in [("c", &c), ("t", &t), ("u", &u)] {
                            set_if(&mut claims, name, value.clone());
                        }
                        all.push(Ask { issuer, claims, state, operation, container, key: None });
                    }
                }
            }
        }
    }
    all
}

fn with_none<T>(values: impl IntoIterator<Item = T>) -> impl Iterator<Item = Option<T>> {
    values.into_iter().map(Some).chain([None])
}

/// Whether a request is allowed: without a key, over the whole container.
fn allowed(policy: &Policy, ask: &Ask) -> bool {
    match naive::outcome(policy, ask) {
        Outcome::Allow { runs_under, .. } => ask.key.is_some() || runs_under.is_none(),
        Outcome::Deny { .. } | Outcome::Ambiguous(_) => false,
    }
}

/// Whether a holder is told in words that fit this caller.
fn describes(holder: &Holder, ask: &Ask) -> bool {
    let mut workload = json!({ "issuer": holder.issuer, "claims": holder.claims });
    if !holder.states.is_empty() {
        workload["states"] = json!(holder.states);
        set_if(&mut workload, "assurance", holder.assurance.map(|level| json!(level)));
    }
    let required = holder.requires.iter().all(|(name, value)| ask.claims.get(name) == Some(value));
    required && naive::selected(&workload, ask) == Some(true)
}

/// The pattern under which a report tells of a container: its own name where a clause writes it, or the narrowest glob.
fn stands_for(container: &str, policies: [&Policy; 2]) -> Option<&'static str> {
    let is_written = |pattern: &str| {
        let mut clauses = policies.into_iter().flat_map(|policy| policy.roles.iter().flatten().chain(&policy.denies));
        clauses.any(|clause| clause["container"] == pattern)
    };
    let mut candidates = CONTAINERS.into_iter().filter(|name| *name == container).chain(["d/*", "*/*"]);
    candidates.find(|pattern| is_written(pattern))
}

/// The first request that the one policy denies and the other allows.
fn gained(before: &Policy, after: &Policy, asks: &[Ask]) -> Option<Ask> {
    let held = asks.iter().filter(|ask| naive::granted(after, ask).next().is_some());
    let mut all = held.flat_map(|ask| with_none(keys()).map(|key| Ask { key, ..ask.clone() }));
    all.find(|ask| allowed(after, ask) && !allowed(before, ask))
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn who_can_is_whoever_may(
        policy in policy(),
        operation in select(Operation::ALL.to_vec()),
        container in select(&CONTAINERS[..]),
        key in select(keys()),
    ) {
        let parsed = PartitionKey::from_json(&key).unwrap();
        let holders = who_can(&policy.to_set(), operation, &container.parse().unwrap(), Some(&parsed));
        let asks = asks(operation, container).into_iter().map(|ask| Ask { key: Some(key.clone()), ..ask });
        let able: Vec<Ask> = asks.filter(|ask| allowed(&policy, ask)).collect();
        for ask in &able {
            prop_assert!(holders.iter().any(|holder| describes(holder, ask)), "not on the list: {ask:?}\n{holders:#?}");
        }
        for holder in &holders {
            prop_assert!(able.iter().any(|ask| describes(holder, ask)), "on the list, and never allowed: {holder:#?}");
        }
    }

}

proptest! {
    // Each asks some hundred thousand questions.
    #![proptest_config(cases(8))]

    #[test]
    fn a_difference_is_what_somebody_gains_or_loses(
        base in policy_of(3),
        head in policy_of(3),
        operation in select(Operation::ALL.to_vec()),
        container in select(&CONTAINERS[..]),
    ) {
        let difference = diff(&base.to_set(), &head.to_set());
        let told = |changes: &BTreeSet<Change>| {
            let pattern = stands_for(container, [&base, &head]);
            changes.iter().any(|change| change.operation == operation.as_str() && Some(&*change.container) == pattern)
        };
        let asks = asks(operation, container);
        for (changes, gained) in [
            (&difference.gains, gained(&base, &head, &asks)),
            (&difference.losses, gained(&head, &base, &asks)),
        ] {
            prop_assert_eq!(told(changes), gained.is_some(), "{:#?}\n{:?}", changes, gained);
        }
    }
}
