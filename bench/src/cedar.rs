//! The same rules in Cedar.

use std::fmt::Write as _;

use cedar_policy::{
    Authorizer, Context, Decision, Entities, Entity, EntityUid, PolicySet, Request, RestrictedExpression,
};

use crate::{DENIED, OPERATIONS, Question, ROLES, Told, client, container};

/// A Cedar policy set with its entities.
#[derive(Debug)]
pub struct Cedar {
    authorizer: Authorizer,
    policies: PolicySet,
    entities: Entities,
}

fn uid(kind: &str, name: &str) -> EntityUid {
    format!("{kind}::{name:?}").parse().expect("a name")
}

fn permit(principal: &str, role: usize) -> String {
    let actions = OPERATIONS.map(|operation| format!("Action::{operation:?}")).join(", ");
    let container = container(role);
    format!(
        "permit ({principal}, action in [{actions}], resource == Container::{container:?}) \
         when {{ context.partition == context.tenant }};\n"
    )
}

impl Cedar {
    /// The rules for as many bindings.
    pub fn new(told: Told, bindings: usize) -> Self {
        let mut text = String::new();
        match told {
            Told::AsRules => {
                (0..bindings).for_each(|i| text += &permit(&format!("principal == Client::{:?}", client(i)), i % ROLES))
            }
            Told::AsMembership => {
                (0..ROLES).for_each(|role| text += &permit(&format!("principal in Role::\"{role}\""), role));
            }
        }
        let denied = container(DENIED);
        let _ = writeln!(
            text,
            "forbid (principal, action == Action::\"items/upsert\", resource == Container::{denied:?});"
        );
        let roles = (0..ROLES).map(|role| Entity::with_uid(uid("Role", &role.to_string())));
        let clients = (0..bindings).filter(|_| told == Told::AsMembership).map(|i| {
            let role = uid("Role", &(i % ROLES).to_string());
            Entity::new_no_attrs(uid("Client", &client(i)), [role].into())
        });
        Self {
            authorizer: Authorizer::new(),
            policies: text.parse().expect("policies"),
            entities: Entities::from_entities(roles.chain(clients), None).expect("entities"),
        }
    }

    /// The question in Cedar's words.
    pub fn ask(question: &Question) -> Request {
        let text = |text: &str| RestrictedExpression::new_string(text.to_owned());
        let context = [("tenant", &question.tenant), ("partition", &question.partition)]
            .map(|(name, value)| (name.to_owned(), text(value)));
        Request::new(
            uid("Client", &question.client),
            uid("Action", question.operation),
            uid("Container", &question.container),
            Context::from_pairs(context).expect("a context"),
            None,
        )
        .expect("a request")
    }

    /// Whether it is allowed.
    pub fn decide(&self, request: &Request) -> bool {
        self.authorizer.is_authorized(request, &self.policies, &self.entities).decision() == Decision::Allow
    }
}
