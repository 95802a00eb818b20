//! The rules of meaning, one test each.

use serde_json::{Value, json};

use super::{Decision, Permit, PolicySet, Reasons, decide, decide_batch, findings::build};
use crate::access::{
    AccessRequest, Action, Assurance, Claims, ExecutionContext, Fact, IssuerName, Operation, PartitionKey,
    PermissionMode, Subject,
};

fn set(text: &str) -> PolicySet {
    match build(&[("p.yaml", text)], None) {
        Ok(set) => set,
        Err(diagnostics) => panic!("{}", diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
    }
}

/// A policy in which client `w` of `local` has the grants, and these denies stand.
fn policy(grants: &str, denies: &str) -> PolicySet {
    set(&format!(
        "roles: {{ r: {{ grants: [{grants}] }} }}\n\
         bindings: [{{ role: r, workloads: [{{ issuer: local, claims: {{ client_id: w }} }}] }}]\n\
         deny: [{denies}]\n"
    ))
}

struct Ask {
    claims: Value,
    context: ExecutionContext,
    action: Action,
    container: &'static str,
    key: Option<&'static str>,
}

fn ask(operation: &str) -> Ask {
    Ask {
        claims: json!({"client_id": "w", "tenant": "t1"}),
        context: ExecutionContext::default(),
        action: Action::Operation(operation.parse().unwrap()),
        container: "shop/orders",
        key: None,
    }
}

impl Ask {
    fn of(set: &PolicySet, ask: Self) -> Decision {
        ask.to(set, |request| decide(set, request))
    }

    fn to(&self, _: &PolicySet, decide: impl FnOnce(&AccessRequest<'_>) -> Decision) -> Decision {
        let subject = Subject { issuer: IssuerName::new("local"), id: "w".into() };
        let claims = Claims::new(self.claims.as_object().unwrap().clone());
        let key: Option<PartitionKey> = self.key.map(|key| key.parse().unwrap());
        decide(&AccessRequest {
            subject: &subject,
            client: Some("w"),
            claims: &claims,
            context: &self.context,
            action: self.action,
            container: &self.container.parse().unwrap(),
            partition_key: key.as_ref(),
        })
    }

    fn on(self, container: &'static str) -> Self {
        Self { container, ..self }
    }

    fn key(self, key: &'static str) -> Self {
        Self { key: Some(key), ..self }
    }

    fn claims(self, claims: Value) -> Self {
        Self { claims, ..self }
    }

    fn state(mut self, state: &str, assurance: Assurance) -> Self {
        self.context.state = Some(Fact { value: state.parse().unwrap(), assurance });
        self
    }

    fn execution(mut self, execution: &str, assurance: Assurance) -> Self {
        self.context.execution = Some(Fact { value: execution.parse().unwrap(), assurance });
        self
    }

    fn allowed(self, set: &PolicySet) -> Permit {
        match Self::of(set, self) {
            Decision::Allow(permit) => permit,
            refused => panic!("{}", refused.sentence()),
        }
    }

    fn denied(self, set: &PolicySet) -> Reasons {
        match Self::of(set, self) {
            Decision::Deny(reasons) => reasons,
            other => panic!("{}", other.sentence()),
        }
    }
}

fn key_text(key: Option<&PartitionKey>) -> Option<String> {
    key.map(ToString::to_string)
}

const OWN: &str = r#"{ container: shop/orders, partition_key: ["{claims.tenant}"], operations: ["*"] }"#;
const WHOLE: &str = r#"{ container: shop/orders, operations: ["*"] }"#;

#[test]
fn what_no_grant_names_is_denied() {
    let set = policy(r"{ container: shop/orders, operations: [items/read] }", "");
    let permit = ask("items/read").key(r#"["t1"]"#).allowed(&set);
    assert_eq!(permit.scope().mode, PermissionMode::Read);
    assert_eq!(permit.sentence(), r#"r grants items/read on shop/orders in partition ["t1"] to local/w."#);
    assert!(ask("items/create").denied(&set).clauses.is_empty());
    ask("items/read").on("shop/audit").denied(&set);
    ask("items/read").claims(json!({"client_id": "x"})).denied(&set);
    ask("items/read").claims(json!({})).denied(&set);
}

#[test]
fn wildcards_of_operations() {
    let set = policy(r#"{ container: shop/orders, operations: ["items/*"] }"#, "");
    ask("items/patch").allowed(&set);
    ask("batch").denied(&set);
    ask("query").denied(&set);
    ask("execute").allowed(&policy(WHOLE, ""));
}

#[test]
fn a_partition_is_locked_to_the_claim_and_filled_in() {
    let set = policy(OWN, "");
    for operation in ["items/create", "query", "feed", "items/read"] {
        let permit = ask(operation).allowed(&set);
        assert_eq!(key_text(permit.partition_key()), Some(r#"["t1"]"#.into()));
        assert_eq!(key_text(permit.scope().partition_key.as_ref()), Some(r#"["t1"]"#.into()));
        ask(operation).key(r#"["t1"]"#).allowed(&set);
        let reasons = ask(operation).key(r#"["t2"]"#).denied(&set);
        assert!(
            reasons.sentence.contains(r#"partition key ["t2"] is not the token's tenant ["t1"]"#),
            "{}",
            reasons.sentence
        );
    }
    ask("items/read").key("[1]").denied(&set);
    let reasons = ask("query").claims(json!({"client_id": "w"})).denied(&set);
    assert!(reasons.sentence.contains("tenant, which the token does not have"), "{}", reasons.sentence);
}

#[test]
fn two_candidate_keys_and_none_named() {
    let set = policy(OWN, "");
    let tenants = || json!({"client_id": "w", "tenant": ["t1", "t2"]});
    let Decision::Ambiguous(keys) = Ask::of(&set, ask("query").claims(tenants())) else { panic!("not ambiguous") };
    assert_eq!(keys.len(), 2);
    let permit = ask("query").claims(tenants()).key(r#"["t2"]"#).allowed(&set);
    assert_eq!(key_text(permit.scope().partition_key.as_ref()), Some(r#"["t2"]"#.into()));
    let two_grants = policy(
        r#"{ container: shop/orders, partition_key: [a], operations: [query] }, { container: shop/orders, partition_key: [b], operations: [query] }"#,
        "",
    );
    assert!(matches!(Ask::of(&two_grants, ask("query")), Decision::Ambiguous(keys) if keys.len() == 2));
    ask("query").claims(json!({"client_id": "w", "tenant": ["t1", "t1"]})).allowed(&set);
}

#[test]
fn the_narrowest_grant_decides() {
    let whole_then_own = policy(&format!("{WHOLE}, {OWN}"), "");
    assert_eq!(ask("query").allowed(&whole_then_own).clauses()[0].index, 1);
    let permit = ask("query").key(r#"["t2"]"#).allowed(&whole_then_own);
    assert_eq!((permit.clauses()[0].index, permit.scope().partition_key.clone()), (0, None));
    let globs = r#"{ container: shop/*, operations: [query] }, { container: "*/*", operations: [query] }, { container: shop/orders, operations: [query] }"#;
    assert_eq!(ask("query").allowed(&policy(globs, "")).clauses()[0].index, 2);
    let partition_of_a_glob = format!(r#"{WHOLE}, {{ container: shop/*, partition_key: [t1], operations: [query] }}"#);
    assert_eq!(ask("query").allowed(&policy(&partition_of_a_glob, "")).clauses()[0].index, 1);
}

#[test]
fn equal_grants_are_told_apart_by_path_and_position() {
    let role = |name: &str| format!("roles: {{ {name}: {{ grants: [{WHOLE}, {WHOLE}] }} }}\n");
    let bind =
        "bindings:\n  - { role: z, workloads: [{ issuer: local }] }\n  - { role: a, workloads: [{ issuer: local }] }\n";
    let files = [("2.yaml", format!("{}{bind}", role("a"))), ("1.yaml", role("z"))];
    let files: Vec<_> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let set = build(&files, None).unwrap();
    let clause = ask("query").allowed(&set).clauses()[0].clone();
    assert_eq!((&*clause.name, clause.index, &*clause.place), ("z", 0, "1.yaml:1"));
}

#[test]
fn a_deny_beats_every_grant() {
    let set = policy(WHOLE, r"{ name: no, container: shop/*, operations: [items/delete], workloads: all }");
    let reasons = ask("items/delete").key(r#"["t1"]"#).denied(&set);
    assert_eq!((&*reasons.clauses[0].name, reasons.prefix_query), ("no", false));
    assert_eq!(reasons.sentence, "no denies items/delete on shop/orders.");
    ask("items/read").allowed(&set);
}

#[test]
fn what_falls_along_with_a_deny() {
    let set = policy(WHOLE, r"{ name: no, container: shop/orders, operations: [items/replace], workloads: all }");
    for operation in ["items/replace", "items/upsert", "execute"] {
        ask(operation).denied(&set);
    }
    for operation in ["items/create", "items/patch", "batch", "items/read"] {
        ask(operation).allowed(&set);
    }
}

#[test]
fn a_partition_deny_meets_whatever_is_not_confined_elsewhere() {
    let deny = r"{ name: no, container: shop/orders, partition_key: [t2], operations: [query, feed, items/create], workloads: all }";
    let set = policy(WHOLE, deny);
    for operation in ["query", "feed", "execute", "items/create"] {
        let reasons = ask(operation).denied(&set);
        assert!(reasons.sentence.contains("name a partition key"), "{}", reasons.sentence);
        ask(operation).key(r#"["t2"]"#).denied(&set);
        ask(operation).key(r#"["t1"]"#).allowed(&set);
        ask(operation).key(r#"["t2","x"]"#).denied(&set);
    }
    ask("query").allowed(&policy(OWN, deny));
    let deeper = r"{ name: no, container: shop/orders, partition_key: [t1, x], operations: [query], workloads: all }";
    ask("query").key(r#"["t1"]"#).denied(&policy(WHOLE, deeper));
    ask("query").key(r#"["t1","y"]"#).allowed(&policy(WHOLE, deeper));
}

#[test]
fn a_deny_applies_over_what_the_caller_does_not_show() {
    let own = r#"{ name: no, container: shop/orders, partition_key: ["{claims.tenant}"], operations: [query], workloads: all }"#;
    ask("query").claims(json!({"client_id": "w"})).key(r#"["t9"]"#).denied(&policy(WHOLE, own));
    ask("query").key(r#"["t9"]"#).allowed(&policy(WHOLE, own));
    let by_claim = r"{ name: no, container: shop/orders, operations: [query], workloads: [{ issuer: local, claims: { team: red } }] }";
    ask("query").denied(&policy(WHOLE, by_claim));
    ask("query").claims(json!({"client_id": "w", "team": "red"})).denied(&policy(WHOLE, by_claim));
    ask("query").claims(json!({"client_id": "w", "team": "blue"})).allowed(&policy(WHOLE, by_claim));
    let by_state = r"{ name: no, container: shop/orders, operations: [query], workloads: all, states: [Purge] }";
    ask("query").denied(&policy(WHOLE, by_state));
    ask("query").state("Purge", Assurance::Claimed).denied(&policy(WHOLE, by_state));
    ask("query").state("Save", Assurance::Claimed).allowed(&policy(WHOLE, by_state));
    let elsewhere = r"{ name: no, container: shop/orders, operations: [query], workloads: [{ issuer: other }] }";
    ask("query").allowed(&policy(WHOLE, elsewhere));
}

#[test]
fn a_prefix_grant_runs_point_operations_and_refuses_queries() {
    let set = policy(OWN, "");
    for operation in ["items/read", "items/create", "batch", "execute"] {
        let permit = ask(operation).key(r#"["t1","eu"]"#).allowed(&set);
        assert_eq!(key_text(permit.partition_key()), Some(r#"["t1","eu"]"#.into()));
        assert_eq!(key_text(permit.scope().partition_key.as_ref()), Some(r#"["t1"]"#.into()));
    }
    for operation in ["query", "feed"] {
        assert!(ask(operation).key(r#"["t1","eu"]"#).denied(&set).prefix_query);
        assert!(!ask(operation).key(r#"["t2","eu"]"#).denied(&set).prefix_query);
        ask(operation).key(r#"["t1"]"#).allowed(&set);
    }
    ask("query").key(r#"["t1","eu"]"#).allowed(&policy(&format!("{OWN}, {WHOLE}"), ""));
    let two = policy(r#"{ container: shop/orders, partition_key: ["{claims.tenant}", eu], operations: ["*"] }"#, "");
    ask("items/read").key(r#"["t1"]"#).denied(&two);
    ask("query").key(r#"["t1","eu"]"#).allowed(&two);
}

#[test]
fn context_that_a_binding_demands() {
    let bound = |demand: &str| {
        set(&format!(
            "roles: {{ r: {{ grants: [{WHOLE}] }} }}\n\
             bindings: [{{ role: r, workloads: [{{ issuer: local, {demand} }}] }}]\n"
        ))
    };
    let machine = bound(r#"state_machines: ["arn:aws:states:us-east-1:111122223333:stateMachine:Fulfil*"]"#);
    for run in ["execution:FulfilAll:1", "express:Fulfil:1:2", "execution:Fulfil/Items:1"] {
        let arn = format!("arn:aws:states:us-east-1:111122223333:{run}");
        ask("query").execution(&arn, Assurance::Claimed).allowed(&machine);
    }
    ask("query")
        .execution("arn:aws:states:us-east-1:111122223333:execution:Other:1", Assurance::Proven)
        .denied(&machine);
    ask("query").denied(&machine);
    let states = bound("states: [Save, Load*], assurance: signed");
    ask("query").state("Save", Assurance::Signed).allowed(&states);
    ask("query").state("LoadAll", Assurance::Proven).allowed(&states);
    ask("query").state("Save", Assurance::Claimed).denied(&states);
    ask("query").state("Purge", Assurance::Proven).denied(&states);
    ask("query").state("Save", Assurance::Claimed).allowed(&bound("states: [Save]"));
}

#[test]
fn metadata_needs_any_grant_that_applies() {
    let metadata = || Ask { action: Action::Metadata, ..ask("query") };
    let plan = || Ask { action: Action::QueryPlan, ..ask("query") };
    let partition_deny =
        r#"{ name: no, container: shop/orders, partition_key: [t1], operations: ["*"], workloads: all }"#;
    let set = policy(&format!("{WHOLE}, {OWN}"), partition_deny);
    let permit = metadata().allowed(&set);
    assert_eq!((permit.scope().mode, permit.clauses()[0].index), (PermissionMode::Read, 1));
    plan().allowed(&set);
    metadata().on("shop/audit").denied(&set);
    metadata().claims(json!({"client_id": "w"})).denied(&policy(OWN, ""));
    plan().claims(json!({"client_id": "w", "tenant": ["a", "b"]})).allowed(&policy(OWN, ""));
    let all = r#"{ name: stop, container: "*/*", operations: ["*"], workloads: all }"#;
    assert_eq!(&*metadata().denied(&policy(WHOLE, all)).clauses[0].name, "stop");
    let queries = r"{ name: no, container: shop/orders, operations: [query], workloads: all }";
    plan().denied(&policy(WHOLE, queries));
    metadata().allowed(&policy(WHOLE, queries));
    plan().denied(&policy(r"{ container: shop/orders, operations: [items/read] }", ""));
}

#[test]
fn a_batch_is_allowed_with_every_operation_inside() {
    let batch = |set: &PolicySet, key: Option<&'static str>, inside: &[(Operation, Option<&str>)]| {
        let inside: Vec<_> = inside.iter().map(|(o, key)| (*o, key.map(|key| key.parse().unwrap()))).collect();
        Ask { key, ..ask("batch") }.to(set, |request| decide_batch(set, request, &inside))
    };
    let grants = r#"{ container: shop/orders, partition_key: ["{claims.tenant}"], operations: [batch, items/create] }, { container: shop/orders, operations: [items/read] }"#;
    let set = policy(grants, "");
    let Decision::Allow(permit) = batch(&set, None, &[(Operation::ItemsCreate, None), (Operation::ItemsRead, None)])
    else {
        panic!("refused")
    };
    assert_eq!(key_text(permit.partition_key()), Some(r#"["t1"]"#.into()));
    assert_eq!(permit.clauses().len(), 2);
    assert_eq!(permit.scope().mode, PermissionMode::All);
    let Decision::Deny(reasons) = batch(&set, None, &[(Operation::ItemsRead, None), (Operation::ItemsDelete, None)])
    else {
        panic!("allowed")
    };
    assert!(
        reasons.sentence.starts_with("Operation 2 of the batch: No grant allows items/delete"),
        "{}",
        reasons.sentence
    );
    assert!(matches!(batch(&set, None, &[(Operation::ItemsCreate, Some(r#"["t2"]"#))]), Decision::Deny(_)));
    let whole = r#"{ container: shop/orders, operations: [batch] }, { container: shop/orders, partition_key: [t1], operations: [items/create] }"#;
    let Decision::Allow(permit) = batch(&policy(whole, ""), None, &[(Operation::ItemsCreate, None)]) else {
        panic!("refused")
    };
    assert_eq!(key_text(permit.partition_key()), Some(r#"["t1"]"#.into()), "what was checked is what runs");
    let denied = policy(WHOLE, r"{ name: no, container: shop/orders, operations: [items/delete], workloads: all }");
    assert!(matches!(batch(&denied, Some(r#"["t1"]"#), &[(Operation::ItemsDelete, None)]), Decision::Deny(_)));
    assert!(matches!(
        batch(&policy(r"{ container: shop/orders, operations: ['items/*'] }", ""), None, &[]),
        Decision::Deny(_)
    ));
}

#[test]
fn the_deciding_grant_says_whether_a_write_is_done_once() {
    let once = r#"{ container: shop/orders, partition_key: [t1], operations: ["*"], idempotency: on }"#;
    let set = policy(&format!("{once}, {WHOLE}"), "");
    for operation in ["items/create", "items/upsert", "items/replace", "items/patch", "items/delete", "batch"] {
        let permit = ask(operation).key(r#"["t1"]"#).allowed(&set);
        assert!(permit.is_idempotent(), "{operation}");
        assert!(permit.sentence().ends_with(", once for each idempotency key."), "{}", permit.sentence());
        assert!(!ask(operation).key(r#"["t2"]"#).allowed(&set).is_idempotent(), "{operation}");
    }
    for operation in ["items/read", "query", "feed", "execute"] {
        assert!(!ask(operation).key(r#"["t1"]"#).allowed(&set).is_idempotent(), "{operation}");
    }
}

#[test]
fn a_batch_is_done_once_when_anything_inside_must_be() {
    let grants = r"{ container: shop/orders, operations: [batch, items/read] }, { container: shop/orders, operations: [items/create], idempotency: on }";
    let set = policy(grants, "");
    let once = |inside| {
        let Decision::Allow(permit) = ask("batch").to(&set, |request| decide_batch(&set, request, &[(inside, None)]))
        else {
            panic!("refused")
        };
        permit.is_idempotent()
    };
    assert!(once(Operation::ItemsCreate));
    assert!(!once(Operation::ItemsRead));
}
