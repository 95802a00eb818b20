//! Why not, in words a person can act on.

use std::fmt;

use serde_json::{Value, json};

use super::{
    decide::{Reach, decide, is_held, reach},
    decision::{Clause, Decision, Revision},
    glob::Glob,
    model::{Deny, Entitlement, Grant, PolicySet},
    selector::{Match, Selector, usable_values},
};
use crate::{
    access::{AccessRequest, Action, Operation, PartitionKey},
    mask::{Mask, Show},
};

/// How many near misses are told.
const MOST_MISSES: usize = 5;

/// A grant that does not cover a request, and what keeps it from doing so.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NearMiss {
    /// The grant.
    pub clause: Clause,
    /// What the grant has and the request lacks; it may quote the policy, so it is for those who may read the policy.
    pub sentence: String,
}

/// The grants that came nearest to covering the request: those that miss it by the fewest things, at most five.
pub fn near_misses(set: &PolicySet, request: &AccessRequest<'_>) -> Vec<NearMiss> {
    let mut nearest: Vec<NearMiss> = Vec::new();
    let mut fewest = usize::MAX;
    for entitlement in set.entitlements() {
        let misses = misses(entitlement, request);
        if misses.is_empty() || misses.len() > fewest {
            continue;
        }
        if misses.len() < fewest {
            fewest = misses.len();
            nearest.clear();
        }
        let sentence = format!("granted on {}, but {}", entitlement.grant.container, misses.join(", and "));
        let miss = NearMiss { clause: entitlement.grant.clause.clone(), sentence };
        if nearest.len() < MOST_MISSES && !nearest.contains(&miss) {
            nearest.push(miss);
        }
    }
    nearest
}

/// The sentence of a refusal for want of a grant. Told to the caller, so it speaks only of the request and of what the caller
/// already holds.
pub(super) fn not_granted(set: &PolicySet, request: &AccessRequest<'_>) -> String {
    let (action, container, subject) = (request.action, request.container, request.subject);
    let own = set
        .entitlements_on(request)
        .filter(|entitlement| is_held(entitlement, request) && operation_miss(&entitlement.grant, request).is_none());
    let partition = own.filter_map(|entitlement| partition_miss(&entitlement.grant, request)).next();
    match partition {
        Some(miss) => format!("No grant allows {action} on {container} to {subject}: it is granted, but {miss}."),
        None => format!("No grant allows {action} on {container} to {subject}."),
    }
}

/// The sentence of a refusal by denies.
pub(super) fn denied(request: &AccessRequest<'_>, denies: &[&Deny], confined: bool) -> String {
    let names: Vec<_> = denies.iter().map(|deny| &*deny.clause.name).collect();
    let (names, action, container) = (names.join(", "), request.action, request.container);
    if !confined && denies.iter().all(|deny| deny.partition.is_some()) {
        return format!(
            "{names} denies {action} in a partition of {container}, and the request is not confined to another one: name a \
             partition key."
        );
    }
    format!("{names} denies {action} on {container}.")
}

/// The sentence of a refusal to write what the caller sees in part.
pub(super) fn masked(request: &AccessRequest<'_>, by: &Entitlement, mask: &Mask) -> String {
    let pointers: Vec<_> = mask.pointers().iter().map(ToString::to_string).collect();
    let (name, action, container, pointers) =
        (&by.grant.clause.name, request.action, request.container, pointers.join(", "));
    let instead = match request.action {
        Action::Operation(Operation::Execute) => "a stored procedure could show or change it",
        _ => "whoever does not see it would overwrite it: use items/patch",
    };
    format!("{name} grants {action} on {container}, but {pointers} is masked, and {instead}.")
}

/// The sentence of a refusal under a grant on a prefix.
pub(super) fn prefix_only(request: &AccessRequest<'_>) -> String {
    format!(
        "{} on {} is granted on a prefix of the partition key only, under which point operations run but queries and feeds do not.",
        request.action, request.container
    )
}

fn misses(entitlement: &Entitlement, request: &AccessRequest<'_>) -> Vec<String> {
    let Entitlement { grant, holder, .. } = entitlement;
    let mut misses = Vec::new();
    if !grant.container.matches(request.container) {
        misses.push(format!("not on {}", request.container));
    }
    misses.extend(operation_miss(grant, request));
    if holder.issuer == request.subject.issuer {
        misses.extend(claim_misses(holder, request));
    } else {
        misses.push(format!("to workloads of {}, not of {}", holder.issuer, request.subject.issuer));
    }
    misses.extend(context_misses(holder, request));
    misses.extend(partition_miss(grant, request));
    misses
}

fn operation_miss(grant: &Grant, request: &AccessRequest<'_>) -> Option<String> {
    let covered = match request.action {
        Action::Operation(operation) => grant.operations.contains(operation),
        Action::QueryPlan => grant.operations.contains(Operation::Query),
        Action::Metadata => true,
    };
    let granted: Vec<_> = grant.operations.iter().map(Operation::as_str).collect();
    (!covered).then(|| format!("it grants {}, not {}", granted.join(", "), request.action))
}

fn claim_misses(holder: &Selector, request: &AccessRequest<'_>) -> Vec<String> {
    let failing = holder.claims.iter().filter(|test| test.test(request.claims) != Match::Yes);
    let words = failing.map(|test| {
        let wanted: Vec<_> = test.any_of.iter().map(|pattern| pattern.to_json().to_string()).collect();
        let wanted = wanted.join(" or ");
        match request.claims.get(&test.name) {
            Some(found) => format!("to workloads whose claim {} is {wanted}, not {found}", test.name),
            None => format!("to workloads whose claim {} is {wanted}, and the token has none", test.name),
        }
    });
    words.collect()
}

fn context_misses(holder: &Selector, request: &AccessRequest<'_>) -> Vec<String> {
    let (test, context) = (&holder.context, request.context);
    let mut misses = Vec::new();
    let level = test.assurance.map_or(String::new(), |level| format!(", {}", level.as_str()));
    let list = |globs: &Option<Box<[Glob]>>| {
        let globs: Vec<_> = globs.iter().flatten().map(|glob| glob.as_str().to_owned()).collect();
        if globs.is_empty() { "that is named".to_owned() } else { globs.join(" or ") }
    };
    if test.test_state_machine(context) != Match::Yes {
        let found = context.execution.as_ref().map_or("the request names no execution".to_owned(), |fact| {
            format!("the execution is of {} ({})", fact.value.state_machine().as_str(), fact.assurance.as_str())
        });
        misses.push(format!("to executions of a state machine {}{level}, and {found}", list(&test.state_machines)));
    }
    if test.test_state(context) != Match::Yes {
        let found = context.state.as_ref().map_or("the request names no state".to_owned(), |fact| {
            format!("the state is {} ({})", fact.value.as_str(), fact.assurance.as_str())
        });
        misses.push(format!("to the state {}{level}, and {found}", list(&test.states)));
    }
    misses
}

fn partition_miss(grant: &Grant, request: &AccessRequest<'_>) -> Option<String> {
    let template = grant.partition.as_ref()?;
    let candidates = template.candidates(request.claims);
    if candidates.is_empty() {
        let absent: Vec<_> =
            template.claim_names().filter(|name| usable_values(request.claims, name).next().is_none()).collect();
        return Some(format!("its partition key is the token's {}, which the token does not have", absent.join(", ")));
    }
    let key = request.partition_key?;
    let Action::Operation(operation) = request.action else { return None };
    let own: Vec<_> = candidates.iter().map(ToString::to_string).collect();
    let own = own.join(" or ");
    match reach(grant, request, operation) {
        Reach::Container | Reach::Partitions(_) => None,
        Reach::PrefixOnly => Some(format!("on the prefix {own}, under which a {operation} of {key} does not run")),
        Reach::Outside => {
            let claims: Vec<_> = template.claim_names().collect();
            Some(match claims.as_slice() {
                [] => format!("partition key {key} is not the granted {own}"),
                names => format!("partition key {key} is not the token's {} {own}", names.join(", ")),
            })
        }
    }
}

/// A decision with what `explain` tells of it.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The decision.
    pub decision: Decision,
    /// The grants that came nearest, when nothing was granted.
    pub near_misses: Vec<NearMiss>,
    /// The policy revision that decided.
    pub revision: Revision,
}

/// Decides, and says why.
pub fn explain(set: &PolicySet, request: &AccessRequest<'_>) -> Explanation {
    let decision = decide(set, request);
    let ungranted = matches!(&decision, Decision::Deny(reasons) if reasons.clauses.is_empty());
    let near_misses = if ungranted { near_misses(set, request) } else { Vec::new() };
    Explanation { decision, near_misses, revision: set.revision().clone() }
}

impl Explanation {
    /// As `explain --format json` prints it.
    pub fn to_json(&self) -> Value {
        let clauses = self.decision.clauses();
        let mut report = json!({
            "decision": self.word(),
            "because": clauses.iter().map(|clause| &*clause.name).collect::<Vec<_>>(),
            "near_misses": self.near_misses.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "sentence": self.decision.sentence(),
            "clauses": clauses.iter().map(Clause::to_json).collect::<Vec<_>>(),
            "revision": self.revision.as_str(),
        });
        if let (Decision::Allow(permit), Value::Object(members)) = (&self.decision, &mut report) {
            let scope = permit.scope();
            let key = |key: Option<&PartitionKey>| key.map(PartitionKey::to_json);
            members.insert("partition_key".into(), json!(key(permit.partition_key())));
            members.insert("idempotent".into(), permit.is_idempotent().into());
            let masked = permit.mask().into_iter().flat_map(Mask::pointers).map(ToString::to_string);
            members.insert("masked".into(), masked.collect::<Vec<_>>().into());
            members.insert(
                "scope".into(),
                json!({
                    "container": scope.container.to_string(),
                    "partition_key": key(scope.partition_key.as_ref()),
                    "mode": scope.mode.as_str(),
                }),
            );
        }
        report
    }

    fn word(&self) -> &'static str {
        if self.decision.is_allow() { "allow" } else { "deny" }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.word(), self.decision.sentence())?;
        for clause in self.decision.clauses() {
            write!(f, "\n  decided by {clause}")?;
        }
        if let Decision::Allow(permit) = &self.decision {
            let scope = permit.scope();
            write!(f, "\n  scope: {} of {}", scope.mode.as_str(), scope.container)?;
            if let Some(key) = &scope.partition_key {
                write!(f, " in partition {key}")?;
            }
            for pointer in permit.mask().into_iter().flat_map(Mask::pointers) {
                let how = match pointer.show() {
                    Show::Nothing => "nothing of it is shown",
                    Show::End => "the end of it is shown",
                };
                write!(f, "\n  masked: {pointer} ({how})")?;
            }
        }
        for miss in &self.near_misses {
            write!(f, "\n  near: {miss}")?;
        }
        write!(f, "\n  policy {}", self.revision)
    }
}

impl fmt::Display for NearMiss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.clause.name, self.clause.place, self.sentence)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Question, findings::build},
        *,
    };
    use crate::diagnostic::Source;

    const POLICY: &str = r#"
roles:
  writer: { grants: [{ container: shop/orders, partition_key: ["{claims.tenant}"], operations: [items/read] }] }
  batch: { grants: [{ container: shop/report, operations: [query] }] }
bindings:
  - { role: writer, workloads: [{ issuer: local, claims: { client_id: a } }] }
  - { role: batch, workloads: [{ issuer: local, claims: { client_id: a }, states: [Report], assurance: signed }] }
deny:
  - { name: closed, container: shop/*, operations: [items/delete], workloads: all }
"#;

    fn explained(given: &str, when: &str) -> Explanation {
        let set = build(&[("p.yaml", POLICY)], None).unwrap();
        let text = format!("given: {{ issuer: local, {given} }}\nwhen: {{ {when} }}\n");
        let question = Question::parse(&Source { file: "r.yaml".into(), text: text.into() }).unwrap();
        explain(&set, &question.request())
    }

    #[test]
    fn the_nearest_miss_says_what_is_missing() {
        for (given, when, near) in [
            (
                "claims: { client_id: a, tenant: t1 }",
                "operation: items/read, container: shop/orders, partition_key: [t2]",
                r#"writer (p.yaml:3): granted on shop/orders, but partition key ["t2"] is not the token's tenant ["t1"]"#,
            ),
            (
                "claims: { client_id: a }",
                "operation: items/read, container: shop/orders, partition_key: [t2]",
                "writer (p.yaml:3): granted on shop/orders, but its partition key is the token's tenant, which the token does not have",
            ),
            (
                "claims: { client_id: b, tenant: t1 }",
                "operation: items/read, container: shop/orders",
                r#"writer (p.yaml:3): granted on shop/orders, but to workloads whose claim client_id is "a", not "b""#,
            ),
            (
                "claims: { client_id: a, tenant: t1 }",
                "operation: items/patch, container: shop/orders",
                "writer (p.yaml:3): granted on shop/orders, but it grants items/read, not items/patch",
            ),
            (
                "claims: { client_id: a }, state: Report",
                "operation: query, container: shop/report",
                "batch (p.yaml:4): granted on shop/report, but to the state Report, signed, and the state is Report (claimed)",
            ),
        ] {
            let explanation = explained(given, when);
            assert_eq!(explanation.near_misses.first().map(ToString::to_string).as_deref(), Some(near));
            assert_eq!(explanation.to_json()["decision"], "deny");
        }
    }

    #[test]
    fn the_caller_is_told_of_nobody_else() {
        let sentence =
            explained("claims: { client_id: b }", "operation: items/read, container: shop/orders").decision.sentence();
        assert_eq!(sentence, "No grant allows items/read on shop/orders to local/b.");
    }

    #[test]
    fn a_deny_is_named_and_a_permit_has_its_scope() {
        let denied = explained("claims: { client_id: a }", "operation: items/delete, container: shop/orders").to_json();
        assert_eq!((&denied["because"], &denied["near_misses"]), (&json!(["closed"]), &json!([])));
        let allowed =
            explained("claims: { client_id: a, tenant: t1 }", "operation: items/read, container: shop/orders")
                .to_json();
        assert_eq!((&allowed["decision"], &allowed["because"]), (&json!("allow"), &json!(["writer"])));
        assert_eq!(allowed["idempotent"], false);
        assert_eq!(allowed["scope"], json!({"container": "shop/orders", "partition_key": ["t1"], "mode": "Read"}));
    }
}
