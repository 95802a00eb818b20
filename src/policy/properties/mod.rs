//! What holds for every policy: checked on small random ones, and against a second evaluator (`naive`), which is also asked about
//! every caller there could be where a report claims to be exact (`brute_force`).
//!
//! `PROPTEST_CASES=1000 cargo test --lib policy::properties` asks a thousand policies a thousand questions each.

mod brute_force;
mod naive;

use proptest::{
    prelude::*,
    sample::{select, subsequence},
};
use serde_json::{Map, Value, json};

use super::{Decision, PolicySet, decide, findings::build};
use crate::access::{
    AccessRequest, Action, Assurance, Claims, ExecutionContext, Fact, IssuerName, Operation, PartitionKey, Subject,
};

/// One grant, one binding or one deny each, as JSON.
#[derive(Clone, Debug)]
struct Policy {
    roles: Vec<Vec<Value>>,
    bindings: Vec<Value>,
    denies: Vec<Value>,
}

impl Policy {
    fn to_set(&self) -> PolicySet {
        let roles: Map<String, Value> =
            self.roles.iter().enumerate().map(|(i, grants)| (format!("r{i}"), json!({ "grants": grants }))).collect();
        let text = json!({ "roles": roles, "bindings": self.bindings, "deny": self.denies }).to_string();
        build(&[("p.yaml", &text)], None).unwrap_or_else(|findings| panic!("{findings:#?}"))
    }
}

#[derive(Clone, Debug)]
struct Ask {
    issuer: &'static str,
    claims: Value,
    state: Option<(&'static str, Assurance)>,
    operation: Operation,
    container: &'static str,
    key: Option<Value>,
}

/// The part of a decision that must not depend on how a policy is written.
#[derive(Clone, PartialEq, Debug)]
enum Outcome {
    Allow { runs_under: Option<PartitionKey>, scope: Option<PartitionKey> },
    Deny { prefix_query: bool, denies: usize },
    Ambiguous(Vec<String>),
}

fn outcome(set: &PolicySet, ask: &Ask) -> Outcome {
    let subject = Subject { issuer: IssuerName::new(ask.issuer), id: "w".into() };
    let context = ExecutionContext {
        state: ask.state.map(|(state, assurance)| Fact { value: state.parse().unwrap(), assurance }),
        ..ExecutionContext::default()
    };
    let key = ask.key.as_ref().map(|key| PartitionKey::from_json(key).unwrap());
    let request = AccessRequest {
        subject: &subject,
        client: None,
        claims: &Claims::new(ask.claims.as_object().unwrap().clone()),
        context: &context,
        action: Action::Operation(ask.operation),
        container: &ask.container.parse().unwrap(),
        partition_key: key.as_ref(),
    };
    match decide(set, &request) {
        Decision::Allow(permit) => {
            Outcome::Allow { runs_under: permit.partition_key().cloned(), scope: permit.scope().partition_key.clone() }
        }
        Decision::Deny(reasons) => Outcome::Deny { prefix_query: reasons.prefix_query, denies: reasons.clauses.len() },
        Decision::Ambiguous(keys) => {
            let mut keys: Vec<_> = keys.iter().map(ToString::to_string).collect();
            keys.sort();
            Outcome::Ambiguous(keys)
        }
    }
}

fn container_pattern() -> impl Strategy<Value = &'static str> {
    select(&["d/c", "d/c", "d/e", "d/*", "*/*", "e/c"][..])
}

fn key_template() -> impl Strategy<Value = Option<Value>> {
    select(vec![
        None,
        Some(json!(["a"])),
        Some(json!(["{claims.t}"])),
        Some(json!(["{claims.t}"])),
        Some(json!(["{claims.t}", "x"])),
        Some(json!(["a", "{claims.u}"])),
        Some(json!(["{claims.u}"])),
        Some(json!(["{claims.t}", "{claims.u}"])),
        Some(json!([1])),
    ])
}

fn operation_words() -> impl Strategy<Value = Vec<&'static str>> {
    let words = vec!["items/read", "items/replace", "items/upsert", "query", "execute", "items/*", "*"];
    subsequence(words, 1..=3)
}

fn workload() -> impl Strategy<Value = Value> {
    let claims = select(vec![
        None,
        Some(json!({"c": "w"})),
        Some(json!({"c": "w*"})),
        Some(json!({"c": ["v", "w1"]})),
        Some(json!({"c": "w", "t": "a"})),
        Some(json!({"u": 1})),
    ]);
    let states = select(vec![None, None, Some(json!(["S"])), Some(json!(["S*", "P"]))]);
    let assurance = select(vec![None, None, Some("claimed"), Some("signed")]);
    (select(&["i", "i", "j"][..]), claims, states, assurance).prop_map(|(issuer, claims, states, assurance)| {
        let mut workload = json!({ "issuer": issuer });
        set_if(&mut workload, "claims", claims);
        // A level alone is demanded of the execution, which these requests never name; the rules have a test of their own for it.
        set_if(&mut workload, "assurance", assurance.filter(|_| states.is_some()).map(Value::from));
        set_if(&mut workload, "states", states);
        workload
    })
}

fn set_if(value: &mut Value, name: &str, member: Option<Value>) {
    if let Some(member) = member {
        value[name] = member;
    }
}

fn grant() -> impl Strategy<Value = Value> {
    (container_pattern(), key_template(), operation_words()).prop_map(|(container, key, operations)| {
        let mut grant = json!({ "container": container, "operations": operations });
        set_if(&mut grant, "partition_key", key);
        grant
    })
}

fn deny() -> impl Strategy<Value = Value> {
    let workloads = prop_oneof![Just(json!("all")), prop::collection::vec(workload(), 1..3).prop_map(Value::from)];
    let states = select(vec![None, None, Some(json!(["S"]))]);
    (grant(), workloads, states, 0..100).prop_map(|(mut deny, workloads, states, number)| {
        deny["name"] = json!(format!("d{number}"));
        deny["workloads"] = workloads;
        set_if(&mut deny, "states", states);
        deny
    })
}

fn policy() -> impl Strategy<Value = Policy> {
    policy_of(4)
}

/// A policy with fewer than `most` of each: grants in a role, roles, bindings, denies.
fn policy_of(most: usize) -> impl Strategy<Value = Policy> {
    prop::collection::vec(prop::collection::vec(grant(), 1..most), 1..most).prop_flat_map(move |roles| {
        let binding = (0..roles.len(), prop::collection::vec(workload(), 1..3))
            .prop_map(|(role, workloads)| json!({ "role": format!("r{role}"), "workloads": workloads }));
        let clauses = (Just(roles), prop::collection::vec(binding, 1..=most), prop::collection::vec(deny(), 0..most));
        clauses.prop_map(|(roles, bindings, denies)| Policy { roles, bindings, denies })
    })
}

fn ask() -> impl Strategy<Value = Ask> {
    let claim = |values: Vec<Value>| select(values);
    let t =
        claim(vec![json!("a"), json!("a"), json!("b"), json!(["a", "b"]), json!(1), json!({}), Value::Null, json!([])]);
    let c = claim(vec![json!("w"), json!("w"), json!("w1"), json!("w:1"), json!(["v", "z"]), Value::Null]);
    let u = claim(vec![json!(1), json!("x"), json!(["x", "y"]), Value::Null]);
    let claims = (t, c, u).prop_map(|(t, c, u)| json!({ "t": t, "c": c, "u": u }));
    let state = select(vec![
        None,
        Some(("S", Assurance::Claimed)),
        Some(("S", Assurance::Signed)),
        Some(("S1", Assurance::Proven)),
        Some(("Q", Assurance::Proven)),
    ]);
    let key = select(vec![
        None,
        None,
        Some(json!(["a"])),
        Some(json!(["b"])),
        Some(json!([1])),
        Some(json!(["a", "x"])),
        Some(json!(["a", 1])),
    ]);
    let operation = select(Operation::ALL.to_vec());
    (select(&["i", "i", "i", "j"][..]), claims, state, operation, select(&["d/c", "d/c", "d/e"][..]), key).prop_map(
        |(issuer, claims, state, operation, container, key)| Ask { issuer, claims, state, operation, container, key },
    )
}

/// As many policies as `PROPTEST_CASES` says, or `few`.
fn cases(few: u32) -> ProptestConfig {
    let cases = std::env::var_os("PROPTEST_CASES").and_then(|cases| cases.to_str()?.parse().ok()).unwrap_or(few);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn two_evaluators_agree(policy in policy(), asks in prop::collection::vec(ask(), 1000)) {
        let set = policy.to_set();
        for ask in &asks {
            prop_assert_eq!(outcome(&set, ask), naive::outcome(&policy, ask), "{:?}", ask);
        }
    }

    #[test]
    fn the_order_of_clauses_never_matters(
        (policy, shuffled) in policy().prop_flat_map(|policy| {
            let roles: Vec<_> = policy.roles.iter().map(|grants| Just(grants.clone()).prop_shuffle()).collect();
            let shuffled = (roles, Just(policy.bindings.clone()).prop_shuffle(), Just(policy.denies.clone()).prop_shuffle());
            (Just(policy), shuffled.prop_map(|(roles, bindings, denies)| Policy { roles, bindings, denies }))
        }),
        asks in prop::collection::vec(ask(), 32),
    ) {
        let (set, shuffled) = (policy.to_set(), shuffled.to_set());
        for ask in &asks {
            prop_assert_eq!(outcome(&set, ask), outcome(&shuffled, ask), "{:?}", ask);
        }
    }

    #[test]
    fn adding_a_deny_never_opens_anything(policy in policy(), deny in deny(), at in 0..3usize, asks in prop::collection::vec(ask(), 32)) {
        let mut more = policy.clone();
        more.denies.insert(at.min(more.denies.len()), deny);
        let (set, more) = (policy.to_set(), more.to_set());
        for ask in &asks {
            let after = outcome(&more, ask);
            if matches!(after, Outcome::Allow { .. }) {
                prop_assert_eq!(outcome(&set, ask), after, "{:?}", ask);
            }
        }
    }

    #[test]
    fn a_deny_beats_every_grant(policy in policy(), at in 0..3usize, ask in ask()) {
        let deny = json!({
            "name": "stop", "container": ask.container, "operations": [ask.operation.as_str()], "workloads": "all",
        });
        let mut denied = policy.clone();
        denied.denies.insert(at.min(denied.denies.len()), deny);
        let refused = matches!(outcome(&denied.to_set(), &ask), Outcome::Deny { denies, .. } if denies > 0);
        prop_assert!(refused);
    }
}
