//! One set of rules, written for three engines, and the same questions for each.
//!
//! The rules: ten roles, one for each of ten containers, that read, upsert and query the partition of the caller's own tenant; as
//! many bindings as are asked for, each giving one client one of the roles; and one deny, of upserts in the fourth container.
//! The questions: a client's own partition, another tenant's, an operation nobody grants, the denied one, another's container,
//! and a client that nobody knows.

mod casbin;
mod cedar;
mod ours;

pub use self::{
    casbin::Casbin,
    cedar::Cedar,
    ours::{Shape, Stepgate},
};

/// How many roles and containers there are.
pub const ROLES: usize = 10;
/// The operations that a role grants.
pub const OPERATIONS: [&str; 3] = ["items/read", "items/upsert", "query"];
/// The container in which upserts are denied.
pub const DENIED: usize = 3;

/// How the bindings are told to the other engines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    /// As rules: one (or, without sets of actions, three) for each binding.
    AsRules,
    /// As data: a client belongs to a role, and there are rules for the roles alone.
    AsMembership,
}

/// One question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Question {
    /// The client that asks.
    pub client: String,
    /// The tenant its token names.
    pub tenant: String,
    /// The operation.
    pub operation: &'static str,
    /// The container, as `shop/c4`.
    pub container: String,
    /// The partition it names.
    pub partition: String,
}

/// The client of a binding.
pub fn client(binding: usize) -> String {
    format!("client-{binding:06}")
}

/// The container of a role.
pub fn container(role: usize) -> String {
    format!("shop/c{role}")
}

/// Questions about `bindings` bindings, spread over all of them.
pub fn questions(bindings: usize) -> Vec<Question> {
    let ask = |binding: usize, operation, role: usize, own: bool| {
        let tenant = format!("t{}", binding % 97);
        let partition = if own { tenant.clone() } else { "another".to_owned() };
        Question { client: client(binding), tenant, operation, container: container(role % ROLES), partition }
    };
    let about = |binding: usize| {
        let role = binding % ROLES;
        [
            ask(binding, "items/read", role, true),
            ask(binding, "query", role, true),
            ask(binding, "items/upsert", role, true),
            ask(binding, "items/read", role, false),
            ask(binding, "items/delete", role, true),
            ask(binding, "items/read", role + 1, true),
            ask(binding + bindings, "items/read", role, true),
        ]
    };
    (0..40).map(|i| i * 7919 % bindings).flat_map(about).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_engines_give_the_same_answers() {
        let bindings = 200;
        let ours = Stepgate::new(Shape::Clients, bindings);
        for told in [Told::AsRules, Told::AsMembership] {
            let (cedar, casbin) = (Cedar::new(told, bindings), Casbin::new(told, bindings));
            let mut allowed = 0;
            for question in questions(bindings) {
                let answer = ours.decide(&ours.ask(&question));
                assert_eq!(cedar.decide(&Cedar::ask(&question)), answer, "{question:?}");
                assert_eq!(casbin.decide(&question), answer, "{question:?}");
                allowed += usize::from(answer);
            }
            assert!((1..questions(bindings).len()).contains(&allowed));
        }
    }
}
