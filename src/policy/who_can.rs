//! Who can do it: an exact list, from the policy alone.

use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    decide::{Reach, decide, denies_hit, is_held, reach},
    decision::ClauseKind,
    hypothesis::{Caller, NEUTRAL, callers},
    model::{Deny, Entitlement, Grant, PolicySet},
    selector::{Match, Selector},
};
use crate::{
    access::{AccessRequest, Action, Assurance, ContainerName, KeyComponent, Operation, PartitionKey},
    mask::Mask,
};

/// Workloads that hold a grant that no deny takes away from all of them.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Holder {
    /// The role.
    pub role: String,
    /// The issuer of the workloads.
    pub issuer: String,
    /// What their tokens must say, as the binding writes it.
    pub claims: Map<String, Value>,
    /// What their tokens must say besides, for the partition that was asked about.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub requires: Map<String, Value>,
    /// The container of the grant, as written.
    pub container: String,
    /// The partition key of the grant, as written; `null` for the whole container.
    pub partition_key: Option<Value>,
    /// The state machines they must run in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub state_machines: Vec<String>,
    /// The states they must be in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub states: Vec<String>,
    /// How sure the context must be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assurance: Option<Assurance>,
    /// What is masked of the answers, as the grant writes it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub masked: Vec<String>,
    /// Where the grant stands.
    pub place: String,
    /// Denies that may hit some of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<String>,
}

/// The workloads that may do `operation` on `container`: in the partition `key`, or in some partition when it is `None`.
pub fn who_can(
    set: &PolicySet,
    operation: Operation,
    container: &ContainerName,
    key: Option<&PartitionKey>,
) -> Vec<Holder> {
    let question = Question { set, operation, container, key };
    let mut holders: Vec<Holder> =
        set.entitlements().iter().flat_map(|entitlement| question.holders(entitlement)).collect();
    holders.dedup();
    holders.sort_by(|a, b| (&a.issuer, &a.role, &a.place).cmp(&(&b.issuer, &b.role, &b.place)));
    holders
}

struct Question<'a> {
    set: &'a PolicySet,
    operation: Operation,
    container: &'a ContainerName,
    key: Option<&'a PartitionKey>,
}

impl Question<'_> {
    fn holders(&self, entitlement: &Entitlement) -> Vec<Holder> {
        let grant = &*entitlement.grant;
        if !grant.operations.contains(self.operation) || !grant.container.matches(self.container) {
            return Vec::new();
        }
        let all = callers(&entitlement.holder);
        let able: Vec<_> = all.iter().filter(|caller| self.can(entitlement, caller)).collect();
        if able.len() == all.len() {
            return vec![self.holder(grant, &entitlement.holder)];
        }
        let mut chosen: Vec<_> = able.iter().map(|caller| self.holder(grant, &caller.chosen)).collect();
        chosen.dedup();
        chosen
    }

    fn can(&self, entitlement: &Entitlement, caller: &Caller) -> bool {
        let grant = &*entitlement.grant;
        let caller = caller.clone().with_claims(self.required(grant), true).furnished(&self.set.claim_names()).proven();
        let request = caller.asks(Action::Operation(self.operation), self.container, self.key);
        let fixed = match reach(grant, &request, self.operation) {
            Reach::Outside | Reach::PrefixOnly => return false,
            Reach::Container => None,
            Reach::Partitions(keys) => keys.into_iter().next(),
        };
        // Asked about some partition, a caller of the whole container is asked about one that no clause names.
        let neutral = PartitionKey::new(vec![KeyComponent::Text(NEUTRAL.into())]).ok();
        let key = self.key.cloned().or(fixed).or(neutral);
        let denied = denies_hit(self.set, &request, self.operation, key.as_ref()).next().is_some();
        let decision = decide(self.set, &AccessRequest { partition_key: key.as_ref(), ..request.clone() });
        let by_mask = decision.clauses().iter().any(|clause| clause.kind == ClauseKind::Grant) && !decision.is_allow();
        is_held(entitlement, &request) && !denied && !by_mask
    }

    /// What the claims in the grant's partition key must be for the key that is asked about.
    fn required(&self, grant: &Grant) -> Map<String, Value> {
        let Some((template, key)) = grant.partition.as_ref().zip(self.key) else { return Map::new() };
        template.claims_for(key).map(|(name, component)| (name.to_owned(), component.to_json())).collect()
    }

    fn holder(&self, grant: &Grant, holder: &Selector) -> Holder {
        let claims = holder.claims_json();
        let texts =
            |globs: &Option<Box<[super::glob::Glob]>>| globs.iter().flatten().map(ToString::to_string).collect();
        let except = self.set.denies_on(self.container).filter(|deny| self.may_hit(deny, grant, holder));
        let mut requires = self.required(grant);
        requires.retain(|name, value| claims.get(name) != Some(value));
        Holder {
            role: grant.clause.name.to_string(),
            issuer: holder.issuer.to_string(),
            claims,
            requires,
            container: grant.container.to_string(),
            partition_key: grant.partition.as_ref().map(|template| template.to_json()),
            state_machines: texts(&holder.context.state_machines),
            states: texts(&holder.context.states),
            assurance: holder.context.assurance,
            masked: grant.mask.iter().flat_map(Mask::pointers).map(ToString::to_string).collect(),
            place: grant.clause.place.to_string(),
            except: except.map(|deny| deny.clause.name.to_string()).collect(),
        }
    }

    fn may_hit(&self, deny: &Deny, grant: &Grant, holder: &Selector) -> bool {
        let partition = match (&deny.partition, self.key, &grant.partition) {
            (None, _, _) | (Some(_), None, None) => true,
            (Some(denied), Some(key), _) => denied.compare(&Default::default(), key) != Match::No,
            (Some(denied), None, Some(granted)) => denied.may_meet(granted),
        };
        let about = deny.workloads.as_ref().is_none_or(|selectors| selectors.iter().any(|s| s.may_meet(holder)));
        deny.operations.contains(self.operation) && partition && about
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{findings::build, hypothesis::FOR_THE_SURER},
        *,
    };

    const POLICY: &str = r#"
roles:
  own: { grants: [{ container: shop/orders, partition_key: ["{claims.tenant}"], operations: [items/read, items/delete] }] }
  all: { grants: [{ container: shop/*, operations: [items/read, query] }] }
bindings:
  - role: own
    workloads:
      - { issuer: local, claims: { client_id: [a, b] } }
      - { issuer: local, claims: { client_id: t, tenant: t9 } }
  - { role: all, workloads: [{ issuer: local, claims: { client_id: svc-* }, states: [Read] }] }
deny:
  - { name: no-b, container: shop/orders, operations: [items/delete], workloads: [{ issuer: local, claims: { client_id: b } }] }
  - { name: no-svc-x, container: shop/orders, operations: [query], workloads: [{ issuer: local, claims: { client_id: svc-x } }] }
  - { name: closed, container: shop/orders, partition_key: [t3], operations: [items/read], workloads: all }
"#;

    fn ask(operation: Operation, key: Option<&str>) -> Vec<String> {
        let set = build(&[("p.yaml", POLICY)], None).unwrap();
        let key: Option<PartitionKey> = key.map(|key| key.parse().unwrap());
        let holders = who_can(&set, operation, &"shop/orders".parse().unwrap(), key.as_ref());
        let text = |holder: &Holder| {
            let claims = Value::Object(holder.claims.clone());
            let requires = Value::Object(holder.requires.clone());
            format!("{} {claims} {requires} {}", holder.role, holder.except.join(","))
        };
        holders.iter().map(text).collect()
    }

    #[test]
    fn a_deny_takes_workloads_off_the_list() {
        assert_eq!(
            ask(Operation::ItemsDelete, None),
            [r#"own {"client_id":"a"} {} "#, r#"own {"client_id":"t","tenant":"t9"} {} "#]
        );
    }

    #[test]
    fn a_partition_asks_for_the_claim() {
        assert_eq!(
            ask(Operation::ItemsRead, Some(r#"["t1"]"#)),
            [r#"all {"client_id":"svc-*"} {} "#, r#"own {"client_id":["a","b"]} {"tenant":"t1"} "#]
        );
        assert_eq!(ask(Operation::ItemsRead, Some(r#"["t9"]"#)).len(), 3);
        assert!(ask(Operation::ItemsRead, Some(r#"["t3"]"#)).is_empty());
    }

    #[test]
    fn whoever_is_surer_of_its_state_than_asked_counts() {
        let set = build(&[("p.yaml", FOR_THE_SURER)], None).unwrap();
        assert_eq!(who_can(&set, Operation::Query, &"shop/orders".parse().unwrap(), None).len(), 1);
    }

    #[test]
    fn a_deny_of_some_is_an_exception() {
        assert_eq!(ask(Operation::Query, None), [r#"all {"client_id":"svc-*"} {} no-svc-x"#]);
        assert!(ask(Operation::Execute, None).is_empty());
    }
}
