//! What a caller holds: the operations its grants name, less what denies take away.

use super::{
    decide::{decide, reasons},
    decision::{Decision, Reasons},
    model::PolicySet,
    selector::Match,
};
use crate::access::{AccessRequest, Action, Claims, ContainerName, ExecutionContext, Operation, PartitionKey, Subject};

/// One operation that a caller may do.
#[derive(Clone, PartialEq, Debug)]
pub struct Holding {
    /// What.
    pub operation: Operation,
    /// Where.
    pub container: ContainerName,
    /// In which partition; `None` for the whole container.
    pub partition_key: Option<PartitionKey>,
}

/// Who holds.
#[derive(Clone, Copy, Debug)]
pub struct Bearer<'a> {
    /// The subject.
    pub subject: &'a Subject,
    /// Its OAuth client.
    pub client: Option<&'a str>,
    /// What the issuer says of it.
    pub claims: &'a Claims,
    /// In which execution.
    pub context: &'a ExecutionContext,
}

/// What the caller may do by grants that name their container, narrowest grant first and at most `most` of it; a grant over
/// a glob says nothing of which containers there are. Reasons when no grant at all is the caller's.
pub fn holdings(set: &PolicySet, bearer: Bearer<'_>, most: usize) -> Result<Vec<Holding>, Reasons> {
    let Bearer { subject, client, claims, context } = bearer;
    let mut holdings: Vec<Holding> = Vec::new();
    let mut holds_any = false;
    for entitlement in set.entitlements_of(&subject.issuer, claims) {
        let grant = &*entitlement.grant;
        if entitlement.holder.test(&subject.issuer, claims, context) != Match::Yes {
            continue;
        }
        holds_any = true;
        let Some(container) = grant.container.exact() else { continue };
        let keys = match &grant.partition {
            None => vec![None],
            Some(template) => template.candidates(claims).into_iter().map(Some).collect(),
        };
        for (operation, partition_key) in grant.operations.iter().flat_map(|o| keys.iter().map(move |key| (o, key))) {
            if holdings.len() == most {
                return Ok(holdings);
            }
            let action = Action::Operation(operation);
            let container = &container;
            let partition_key = partition_key.as_ref();
            let asked = AccessRequest { subject, client, claims, context, action, container, partition_key };
            let holding = Holding { operation, container: container.clone(), partition_key: partition_key.cloned() };
            if !holdings.contains(&holding) && matches!(decide(set, &asked), Decision::Allow(_)) {
                holdings.push(holding);
            }
        }
    }
    if holds_any {
        return Ok(holdings);
    }
    Err(reasons(set, [], format!("No grant is held by {subject}."), false))
}

/// The caller's grants over a glob, at most `most`: what each is written on, and the operations it names. Which containers there
/// are, and what denies take away from one of them, only a decision on that container says.
pub fn globs(set: &PolicySet, bearer: Bearer<'_>, most: usize) -> Vec<(String, Vec<Operation>)> {
    let Bearer { subject, claims, context, .. } = bearer;
    let mut globs = Vec::new();
    for entitlement in set.entitlements_of(&subject.issuer, claims) {
        let grant = &*entitlement.grant;
        if grant.container.is_exact() || entitlement.holder.test(&subject.issuer, claims, context) != Match::Yes {
            continue;
        }
        let glob = (grant.container.to_string(), grant.operations.iter().collect());
        if globs.len() < most && !globs.contains(&glob) {
            globs.push(glob);
        }
    }
    globs
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::findings::build, *};
    use crate::access::IssuerName;

    const POLICY: &str = r#"
roles:
  writer: { grants: [{ container: shop/orders, partition_key: ["{claims.tenant}"], operations: [items/read, items/delete] }] }
  reader: { grants: [{ container: shop/lines, operations: [query] }, { container: "shop/*", operations: [feed] }] }
  roamer: { grants: [{ container: "*/*", operations: [feed] }] }
bindings:
  - { role: writer, workloads: [{ issuer: local, claims: { client_id: [a, b] } }] }
  - { role: reader, workloads: [{ issuer: local, claims: { client_id: a } }] }
  - { role: roamer, workloads: [{ issuer: local, claims: { client_id: g } }] }
deny:
  - { name: keep, container: shop/orders, operations: [items/delete], workloads: [{ issuer: local, claims: { client_id: b } }] }
"#;

    fn with_bearer<T>(client: &str, ask: impl FnOnce(&PolicySet, Bearer<'_>) -> T) -> T {
        let set = build(&[("p.yaml", POLICY)], None).unwrap();
        let subject = Subject { issuer: IssuerName::new("local"), id: client.into() };
        let serde_json::Value::Object(claims) = json!({"client_id": client, "tenant": ["t1", "t2"]}) else {
            unreachable!()
        };
        let (claims, context) = (Claims::new(claims), ExecutionContext::default());
        ask(&set, Bearer { subject: &subject, client: None, claims: &claims, context: &context })
    }

    fn held_by_globs(client: &str) -> Vec<(String, Vec<Operation>)> {
        with_bearer(client, |set, bearer| globs(set, bearer, 50))
    }

    fn held(client: &str, most: usize) -> Result<Vec<String>, String> {
        let text = |holding: &Holding| {
            let key = holding.partition_key.as_ref().map(ToString::to_string).unwrap_or_default();
            format!("{} {} {key}", holding.operation, holding.container)
        };
        let holdings = with_bearer(client, |set, bearer| holdings(set, bearer, most));
        let holdings = holdings.map_err(|reasons| reasons.sentence)?;
        Ok(holdings.iter().map(text).collect())
    }

    #[test]
    fn each_key_and_operation_stands_for_itself() {
        let all = held("a", 50).unwrap();
        assert_eq!(
            all,
            [
                r#"items/read shop/orders ["t1"]"#,
                r#"items/read shop/orders ["t2"]"#,
                r#"items/delete shop/orders ["t1"]"#,
                r#"items/delete shop/orders ["t2"]"#,
                "query shop/lines ",
            ]
        );
        assert_eq!(held("a", 2).unwrap().len(), 2);
    }

    #[test]
    fn what_is_denied_is_not_held() {
        assert_eq!(held("b", 50).unwrap(), [r#"items/read shop/orders ["t1"]"#, r#"items/read shop/orders ["t2"]"#]);
    }

    #[test]
    fn a_glob_names_nothing_and_no_grant_is_a_reason() {
        assert_eq!(held("g", 50).unwrap(), [""; 0]);
        assert_eq!(held_by_globs("g"), [("*/*".to_owned(), vec![Operation::Feed])]);
        assert_eq!(held_by_globs("a"), [("shop/*".to_owned(), vec![Operation::Feed])]);
        assert_eq!(held_by_globs("nobody"), []);
        assert_eq!(held("nobody", 50).unwrap_err(), "No grant is held by local/nobody.");
    }
}
