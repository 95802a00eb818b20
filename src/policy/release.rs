//! Whether a credential may leave the gateway: only when its holder could do nothing with it that policy does not grant.
//!
//! A credential that left is asked nothing any more. Neither the state of a workflow nor its execution binds it, so everything is
//! decided as for a caller who shows no context: a binding that demands one does not hold, and a deny that rests on one applies.

use super::{
    decide::decide,
    decision::{Decision, Permit, Reasons},
    holdings::Bearer,
    model::{Entitlement, PolicySet},
    selector::Match,
};
use crate::{
    access::{AccessRequest, Action, ContainerName, ExecutionContext, Operation, PartitionKey},
    mask::Mask,
};

/// Why a credential does not leave.
#[derive(Clone, Debug)]
pub enum NotReleased {
    /// One of the operations that were asked for is not granted.
    NotGranted(Reasons),
    /// The grants fix several partitions, and none was named.
    Ambiguous(Vec<PartitionKey>),
    /// Something is masked where the credential reaches.
    Masked(Mask),
    /// What grants it has limits, which nobody could keep any more.
    Limited,
    /// The credential could do more than is granted.
    Wider {
        /// What it could do.
        operation: Operation,
    },
}

/// The permit for a credential that carries `operations` in `container`, and all that it could do besides.
pub fn release(
    set: &PolicySet,
    bearer: Bearer<'_>,
    container: &ContainerName,
    partition_key: Option<&PartitionKey>,
    operations: &[Operation],
) -> Result<Permit, NotReleased> {
    let nowhere = ExecutionContext::default();
    let ask = |operation: Operation, partition_key: Option<&PartitionKey>| {
        let Bearer { subject, client, claims, .. } = bearer;
        let action = Action::Operation(operation);
        let asked = AccessRequest { subject, client, claims, context: &nowhere, action, container, partition_key };
        decide(set, &asked)
    };
    let mut chosen: Option<Permit> = None;
    for operation in operations {
        match ask(*operation, partition_key) {
            Decision::Allow(permit) => {
                let widest = chosen.as_ref().is_none_or(|chosen| chosen.scope().mode < permit.scope().mode);
                chosen = if widest { Some(permit) } else { chosen };
            }
            Decision::Deny(reasons) => return Err(NotReleased::NotGranted(reasons)),
            Decision::Ambiguous(candidates) => return Err(NotReleased::Ambiguous(candidates)),
        }
    }
    // Without operations there is nothing to be granted.
    let permit = chosen.ok_or(NotReleased::Ambiguous(Vec::new()))?;
    let scope = permit.scope();
    let everywhere = AccessRequest {
        subject: bearer.subject,
        client: bearer.client,
        claims: bearer.claims,
        context: &nowhere,
        action: Action::Metadata,
        container,
        partition_key: None,
    };
    if let Some(mask) = mask_within(set, &everywhere, scope.partition_key.as_ref()) {
        return Err(NotReleased::Masked(mask));
    }
    let able = Operation::ALL.into_iter().filter(|operation| operation.mode() <= scope.mode);
    for operation in able {
        match ask(operation, scope.partition_key.as_ref()) {
            Decision::Allow(other) if other.scope().partition_key != scope.partition_key => {
                return Err(NotReleased::Wider { operation });
            }
            Decision::Allow(other) if other.limits().is_some() => return Err(NotReleased::Limited),
            Decision::Allow(_) => {}
            Decision::Deny(_) | Decision::Ambiguous(_) => return Err(NotReleased::Wider { operation }),
        }
    }
    Ok(permit)
}

/// What is masked by a grant that the caller may hold in a partition of the container, or anywhere in it. As with a deny, a fact that
/// the caller does not show speaks against it.
fn mask_within(set: &PolicySet, request: &AccessRequest<'_>, scope: Option<&PartitionKey>) -> Option<Mask> {
    let masking = set.entitlements_on(request).filter(|entitlement| {
        let Entitlement { grant, holder, .. } = entitlement;
        let held = holder.test(&request.subject.issuer, request.claims, request.context) != Match::No;
        let reaches = match (&grant.partition, scope) {
            (Some(template), Some(key)) => template.compare(request.claims, key) != Match::No,
            _ => true,
        };
        held && reaches
    });
    let masks = masking.filter_map(|entitlement| entitlement.grant.mask.as_ref());
    masks.fold(None, |all: Option<Mask>, mask| Some(all.map_or_else(|| mask.clone(), |all| all.union(mask))))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::findings::build, *};
    use crate::access::{Claims, IssuerName, PermissionMode, Subject};

    const POLICY: &str = r#"
roles:
  reads: { grants: [{ container: shop/orders, partition_key: ["{claims.tenant}"], operations: [items/read, query, feed] }] }
  some: { grants: [{ container: shop/orders, partition_key: ["{claims.tenant}"], operations: [items/read, query] }] }
  all: { grants: [{ container: shop/orders, operations: ["*"] }] }
  guarded: { grants: [{ container: shop/guarded, operations: ["*"] }] }
  masked: { grants: [{ container: shop/orders, partition_key: [t1], operations: [items/read, query, feed], mask: [/card] }] }
bindings:
  - { role: reads, workloads: [{ issuer: local, claims: { client_id: reader } }] }
  - { role: some, workloads: [{ issuer: local, claims: { client_id: some } }] }
  - { role: all, workloads: [{ issuer: local, claims: { client_id: writer } }] }
  - { role: guarded, workloads: [{ issuer: local, claims: { client_id: writer } }] }
  - { role: all, workloads: [{ issuer: local, claims: { client_id: stated }, states: [Save] }] }
  - { role: masked, workloads: [{ issuer: local, claims: { client_id: masked } }] }
  - { role: masked, workloads: [{ issuer: local, claims: { client_id: both }, states: [Look] }] }
  - { role: all, workloads: [{ issuer: local, claims: { client_id: both } }] }
  - { role: all, agent: true, workloads: [{ issuer: local, claims: { client_id: copilot } }] }
  - { role: all, limits: { requests_per_second: 5 }, workloads: [{ issuer: local, claims: { client_id: slow } }] }
deny:
  - { name: one-partition, container: shop/guarded, partition_key: [t9], operations: [items/delete], workloads: all }
"#;

    fn released(client: &str, container: &str, key: Option<&str>, operations: &[Operation]) -> Result<Permit, String> {
        let set = build(&[("p.yaml", POLICY)], None).unwrap();
        let subject = Subject { issuer: IssuerName::new("local"), id: client.into() };
        let serde_json::Value::Object(claims) = json!({"client_id": client, "tenant": "t1"}) else { unreachable!() };
        let (claims, context) = (Claims::new(claims), ExecutionContext::default());
        let bearer = Bearer { subject: &subject, client: None, claims: &claims, context: &context };
        let key: Option<PartitionKey> = key.map(|key| key.parse().unwrap());
        let released = release(&set, bearer, &container.parse().unwrap(), key.as_ref(), operations);
        released.map_err(|refusal| match refusal {
            NotReleased::NotGranted(_) => "not granted".to_owned(),
            NotReleased::Ambiguous(_) => "ambiguous".to_owned(),
            NotReleased::Wider { operation } => format!("wider: {operation}"),
            NotReleased::Limited => "limited".to_owned(),
            NotReleased::Masked(mask) => format!("masked: {}", mask.pointers()[0]),
        })
    }

    #[test]
    fn a_credential_leaves_only_when_all_it_can_do_is_granted() {
        use Operation::{ItemsRead, ItemsUpsert, Query};
        let permit = released("reader", "shop/orders", None, &[ItemsRead]).unwrap();
        assert_eq!(permit.scope().mode, PermissionMode::Read);
        assert_eq!(permit.scope().partition_key.as_ref().unwrap().to_string(), r#"["t1"]"#);
        let refused = |client, container, key, operations: &[Operation]| {
            released(client, container, key, operations).map(|_| ()).unwrap_err()
        };
        assert_eq!(refused("reader", "shop/orders", None, &[ItemsUpsert]), "not granted");
        assert_eq!(refused("reader", "shop/orders", Some(r#"["t2"]"#), &[ItemsRead]), "not granted");
        assert_eq!(refused("some", "shop/orders", None, &[ItemsRead, Query]), "wider: feed");
        let all = released("writer", "shop/orders", None, &[ItemsRead, ItemsUpsert]).unwrap();
        assert_eq!((all.scope().mode, all.scope().partition_key.clone()), (PermissionMode::All, None));
        assert_eq!(refused("writer", "shop/guarded", None, &[ItemsUpsert]), "wider: items/delete", "a deny touches it");
        assert_eq!(refused("writer", "shop/guarded", Some(r#"["t1"]"#), &[ItemsUpsert]), "wider: items/delete");
        assert!(released("writer", "shop/guarded", None, &[ItemsRead]).is_ok(), "reading is not denied");
        assert_eq!(refused("stated", "shop/orders", None, &[ItemsRead]), "not granted", "no state binds what has left");
        assert_eq!(refused("writer", "shop/orders", None, &[]), "ambiguous");
        assert_eq!(refused("copilot", "shop/orders", None, &[ItemsRead]), "limited");
        assert_eq!(refused("slow", "shop/orders", None, &[ItemsRead]), "limited");
        assert_eq!(refused("masked", "shop/orders", None, &[ItemsRead]), "masked: /card");
        assert_eq!(
            refused("both", "shop/orders", None, &[ItemsRead]),
            "masked: /card",
            "its state is not known out there"
        );
    }
}
