//! What a caller holds.

use super::{model::PolicySet, selector::Match};
use crate::access::{Claims, ContainerName, ExecutionContext, Operation, PartitionKey, Subject};

/// A grant in a caller's hands, with its partition key for that caller.
#[derive(Clone, PartialEq, Debug)]
pub struct Holding {
    /// The container.
    pub container: ContainerName,
    /// The grant's partition key; `None` for the whole container.
    pub partition_key: Option<PartitionKey>,
    /// What it grants. A deny may still refuse some of it: ask [`super::decide()`].
    pub operations: Vec<Operation>,
}

/// The grants on containers without `*` that a caller holds, narrowest first; one entry for each key that a list-valued claim
/// stands for.
pub fn holdings(set: &PolicySet, subject: &Subject, claims: &Claims, context: &ExecutionContext) -> Vec<Holding> {
    let mut holdings = Vec::new();
    for entitlement in set.entitlements() {
        let grant = &*entitlement.grant;
        let Some(container) = grant.container.exact() else { continue };
        if entitlement.holder.test(&subject.issuer, claims, context) != Match::Yes {
            continue;
        }
        let keys = match &grant.partition {
            None => vec![None],
            Some(template) => template.candidates(claims).into_iter().map(Some).collect(),
        };
        for partition_key in keys {
            let operations = grant.operations.iter().collect();
            let holding = Holding { container: container.clone(), partition_key, operations };
            if !holdings.contains(&holding) {
                holdings.push(holding);
            }
        }
    }
    holdings
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::findings::build, *};
    use crate::access::IssuerName;

    #[test]
    fn a_caller_holds_each_of_its_partitions() {
        let policy = r#"
roles:
  r:
    grants:
      - { container: "*/*", operations: [feed] }
      - { container: d/c, operations: [query] }
      - { container: d/c, partition_key: ["{claims.t}"], operations: [items/read] }
bindings: [{ role: r, workloads: [{ issuer: i, claims: { c: w } }, { issuer: i, claims: { c: w* } }] }]
"#;
        let set = build(&[("p.yaml", policy)], None).unwrap();
        let subject = Subject { issuer: IssuerName::new("i"), id: "w".into() };
        let of = |claims: serde_json::Value| {
            let claims = Claims::new(claims.as_object().unwrap().clone());
            let held = holdings(&set, &subject, &claims, &ExecutionContext::default());
            held.iter().map(|h| h.partition_key.as_ref().map(ToString::to_string)).collect::<Vec<_>>()
        };
        assert_eq!(of(json!({"c": "w", "t": ["a", "b"]})), [Some(r#"["a"]"#.into()), Some(r#"["b"]"#.into()), None]);
        assert_eq!(of(json!({"c": "w"})), [None]);
        assert!(of(json!({"c": "x"})).is_empty());
    }
}
