//! stepgate's own policy.

use std::{fmt::Write as _, fs};

use serde_json::{Map, Value, json};
use stepgate::{
    access::{AccessRequest, Action, Claims, ContainerName, ExecutionContext, IssuerName, PartitionKey, Subject},
    policy::{Config, PolicySet, decide, load},
};

use crate::{DENIED, OPERATIONS, Question, ROLES, client, container};

/// How the bindings are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// Each names one client.
    Clients,
    /// Each names a family of clients by a beginning and `*`.
    Families,
    /// Each names one client, and as many denies name one other client each.
    Denies,
    /// Each names one client and has a role of its own.
    Roles,
}

/// A policy set, compiled.
#[derive(Debug)]
pub struct Stepgate(pub PolicySet);

/// A question as stepgate is asked it.
#[derive(Debug)]
pub struct Ask {
    subject: Subject,
    claims: Claims,
    context: ExecutionContext,
    action: Action,
    container: ContainerName,
    partition: PartitionKey,
}

/// The policy as a file.
pub fn text(shape: Shape, bindings: usize) -> String {
    let own_roles = if shape == Shape::Roles { bindings } else { ROLES };
    let mut text = "roles:\n".to_owned();
    for role in 0..own_roles {
        let (container, operations) = (container(role % ROLES), OPERATIONS.join(", "));
        let grant =
            format!("container: {container}, partition_key: [\"{{claims.tenant}}\"], operations: [{operations}]");
        let _ = writeln!(text, "  role-{role}: {{ grants: [{{ {grant} }}] }}");
    }
    text += "bindings:\n";
    for binding in 0..bindings {
        let star = if shape == Shape::Families { "*" } else { "" };
        let (role, client) = (binding % own_roles, client(binding));
        let workload = format!("issuer: local, claims: {{ client_id: \"{client}{star}\" }}");
        let _ = writeln!(text, "  - {{ role: role-{role}, workloads: [{{ {workload} }}] }}");
    }
    let denied = container(DENIED);
    let _ = writeln!(
        text,
        "deny:\n  - {{ name: no-upserts, container: {denied}, operations: [items/upsert], workloads: all }}"
    );
    for deny in (0..bindings).filter(|_| shape == Shape::Denies) {
        let workload = format!("issuer: local, claims: {{ client_id: \"gone-{deny}\" }}");
        let _ = writeln!(
            text,
            "  - {{ name: gone-{deny}, container: shop/*, operations: ['*'], workloads: [{{ {workload} }}] }}"
        );
    }
    text
}

impl Stepgate {
    /// Writes the policy to a directory and loads it.
    pub fn new(shape: Shape, bindings: usize) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("policy.yaml"), text(shape, bindings)).expect("a file");
        let config = Config { directory: directory.path().to_owned(), issuers: None };
        Self(load(&config).unwrap_or_else(|findings| panic!("{findings:?}")))
    }

    /// The question in stepgate's words.
    pub fn ask(&self, question: &Question) -> Ask {
        let claims: Map<String, Value> =
            [("client_id", &question.client), ("tenant", &question.tenant), ("sub", &question.client)]
                .map(|(name, value)| (name.to_owned(), Value::from(value.as_str())))
                .into_iter()
                .collect();
        Ask {
            subject: Subject { issuer: IssuerName::new("local"), id: question.client.as_str().into() },
            claims: Claims::new(claims),
            context: ExecutionContext::default(),
            action: Action::Operation(question.operation.parse().expect("an operation")),
            container: question.container.parse().expect("a container"),
            partition: PartitionKey::from_json(&json!([question.partition])).expect("a key"),
        }
    }

    /// Whether it is allowed.
    pub fn decide(&self, ask: &Ask) -> bool {
        let request = AccessRequest {
            subject: &ask.subject,
            client: None,
            claims: &ask.claims,
            context: &ask.context,
            action: ask.action,
            container: &ask.container,
            partition_key: Some(&ask.partition),
        };
        decide(&self.0, &request).is_allow()
    }
}
