//! The same rules in Casbin.

use casbin::{CoreApi as _, DefaultModel, Enforcer, MemoryAdapter, MgmtApi as _};

use crate::{DENIED, OPERATIONS, Question, ROLES, Told, client, container};

const MODEL: &str = r#"
[request_definition]
r = sub, tenant, obj, act, part

[policy_definition]
p = sub, obj, act, eft

[role_definition]
g = _, _

[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))

[matchers]
m = r.obj == p.obj && r.act == p.act && (p.sub == "all" || (SUBJECT && r.part == r.tenant))
"#;

/// A Casbin enforcer.
#[allow(missing_debug_implementations, reason = "an enforcer has none")]
pub struct Casbin(Enforcer);

fn rules(subject: &str, role: usize) -> impl Iterator<Item = Vec<String>> + use<> {
    OPERATIONS.map(|operation| rule(subject, role, operation, "allow")).into_iter()
}

fn rule(subject: &str, role: usize, operation: &str, effect: &str) -> Vec<String> {
    [subject, &container(role), operation, effect].map(str::to_owned).into()
}

impl Casbin {
    /// The rules for as many bindings.
    pub fn new(told: Told, bindings: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(Self::build(told, bindings)).expect("a policy").into()
    }

    async fn build(told: Told, bindings: usize) -> casbin::Result<Enforcer> {
        let subject = match told {
            Told::AsRules => "r.sub == p.sub",
            Told::AsMembership => "g(r.sub, p.sub)",
        };
        let model = DefaultModel::from_str(&MODEL.replace("SUBJECT", subject)).await?;
        let mut enforcer = Enforcer::new(model, MemoryAdapter::default()).await?;
        let mut all = vec![rule("all", DENIED, "items/upsert", "deny")];
        match told {
            Told::AsRules => all.extend((0..bindings).flat_map(|i| rules(&client(i), i % ROLES))),
            Told::AsMembership => {
                all.extend((0..ROLES).flat_map(|role| rules(&format!("role-{role}"), role)));
                let members = (0..bindings).map(|i| vec![client(i), format!("role-{}", i % ROLES)]).collect();
                enforcer.add_grouping_policies(members).await?;
                enforcer.build_role_links()?;
            }
        }
        enforcer.add_policies(all).await?;
        Ok(enforcer)
    }

    /// Whether it is allowed.
    pub fn decide(&self, question: &Question) -> bool {
        let Question { client, tenant, operation, container, partition } = question;
        self.0.enforce((client, tenant, container, *operation, partition)).expect("a decision")
    }
}

impl From<Enforcer> for Casbin {
    fn from(enforcer: Enforcer) -> Self {
        Self(enforcer)
    }
}
