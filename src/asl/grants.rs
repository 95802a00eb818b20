//! The least policy that lets definitions run.

use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::{Map, Value, json};

use super::{
    check::Check,
    definition::Definition,
    lint::Options,
    rules::wants_once,
    task::{Call, Partition, Target},
};
use crate::{
    access::{ContainerName, Operation},
    diagnostic::{Diagnostic, Severity},
};

/// What a definition does not say of the policy that it needs.
#[derive(Clone, Debug)]
pub struct Binding {
    /// The role's name.
    pub role: String,
    /// The issuer of the connection's token.
    pub issuer: String,
    /// What the token says.
    pub claims: Map<String, Value>,
    /// The partition keys of grants, by container (`*` for the others): a definition shows where a key comes from, not that
    /// it is the caller's own.
    pub partition_keys: BTreeMap<String, Vec<Value>>,
    /// The state machine's ARN, where the binding is to hold in it alone.
    pub state_machine: Option<String>,
    /// Whether the binding is to hold in the states that call alone.
    pub states: bool,
}

/// A policy file and its test file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    /// The policy.
    pub policy: String,
    /// Its tests.
    pub tests: String,
    /// What it could not be made for.
    pub warnings: Vec<Diagnostic>,
}

/// A grant in the making.
#[derive(Clone, Debug)]
struct Grant {
    container: ContainerName,
    partition: Option<Vec<Value>>,
    operations: Vec<Operation>,
    /// Whether its writes are to be done once.
    idempotent: bool,
}

/// The least role and binding that let these definitions run, with tests.
pub fn grants(definitions: &[Definition], options: &Options<'_>, binding: &Binding) -> Policy {
    let (mut grants, mut states, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
    for definition in definitions {
        let check = Check::of(definition, options.public_url);
        for (task, state, call) in check.calls() {
            if !add(&mut grants, call, wants_once(&check, task, state, call), binding) {
                let mend = "write the database and the container out, or write this grant by hand";
                warnings.push(warn(definition, task.endpoint_path(), "which container it calls is not known", mend));
            }
            states.push(state.name.to_owned());
        }
        let unknown = check.http_tasks().filter_map(|(task, _)| match &task.target {
            Target::Unknown(what) => Some((task.endpoint_path(), *what)),
            _ => None,
        });
        warnings.extend(unknown.map(|(path, what)| warn(definition, path, what, "write this grant by hand")));
    }
    drop_repeated(&mut grants);
    states.sort();
    states.dedup();
    let states = if binding.states { states } else { Vec::new() };
    Policy { policy: policy_text(&grants, binding, &states), tests: tests_text(&grants, binding, &states), warnings }
}

fn warn(definition: &Definition, path: &str, message: &str, mend: &str) -> Diagnostic {
    definition.source().at(Severity::Warning, definition.place(path), message, Some(mend.to_owned()))
}

/// Adds what a call needs; `false` when its container is not known.
fn add(grants: &mut Vec<Grant>, call: &Call, idempotent: bool, binding: &Binding) -> bool {
    let (Some(container), Some(operation)) = (&call.name, call.operation()) else {
        // A query plan or the account document needs no grant of its own.
        return call.operation().is_none();
    };
    let given = binding.partition_keys.get(container.as_str()).or_else(|| binding.partition_keys.get("*"));
    let partition = match &call.partition {
        Some(Partition::Known(key)) if given.is_none() => key.to_json().as_array().cloned(),
        _ => given.cloned(),
    };
    let fresh = Grant { container: container.clone(), partition, operations: Vec::new(), idempotent };
    let at = grants.iter().position(|grant| grant.is_on(&fresh) && grant.idempotent == idempotent);
    let at = at.unwrap_or_else(|| {
        grants.push(fresh);
        grants.len() - 1
    });
    if let Some(grant) = grants.get_mut(at) {
        grant.operations.extend([operation].into_iter().chain(call.items.iter().map(|item| item.operation)));
        grant.operations.sort();
        grant.operations.dedup();
    }
    true
}

impl Grant {
    fn is_on(&self, other: &Self) -> bool {
        self.container == other.container && self.partition == other.partition
    }
}

/// What one call wants to be done once is done once for the others too: two grants of one operation would leave it to their order.
fn drop_repeated(grants: &mut Vec<Grant>) {
    let once: Vec<Grant> = grants.iter().filter(|grant| grant.idempotent).cloned().collect();
    for grant in grants.iter_mut().filter(|grant| !grant.idempotent) {
        let covering = once.iter().filter(|once| once.is_on(grant)).flat_map(|once| &once.operations);
        let covering: Vec<Operation> = covering.copied().collect();
        grant.operations.retain(|operation| !covering.contains(operation));
    }
    grants.retain(|grant| !grant.operations.is_empty());
}

fn policy_text(grants: &[Grant], binding: &Binding, states: &[String]) -> String {
    let mut text = format!("roles:\n  {}:\n    grants:\n", scalar(&binding.role));
    for grant in grants {
        text += &format!("      - container: {}\n", scalar(grant.container.as_str()));
        if let Some(partition) = &grant.partition {
            text += &format!("        partition_key: {}\n", flow(&json!(partition)));
        }
        let operations: Vec<_> = grant.operations.iter().map(|operation| operation.as_str()).collect();
        text += &format!("        operations: [{}]\n", operations.join(", "));
        if grant.idempotent {
            text += "        idempotency: on\n";
        }
    }
    if grants.is_empty() {
        text = text.replace("    grants:\n", "    grants: []\n");
    }
    text += &format!("bindings:\n  - role: {}\n    workloads:\n", scalar(&binding.role));
    text += &format!("      - issuer: {}\n", scalar(&binding.issuer));
    if !binding.claims.is_empty() {
        text += &format!("        claims: {}\n", flow(&json!(binding.claims)));
    }
    if let Some(arn) = &binding.state_machine {
        text += &format!("        state_machines: {}\n", flow(&json!([arn])));
    }
    if !states.is_empty() {
        text += &format!("        states: {}\n", flow(&json!(states)));
    }
    text
}

/// Cases that pass on the policy, and of which one fails when any part of it is dropped or widened.
fn tests_text(grants: &[Grant], binding: &Binding, states: &[String]) -> String {
    let mut text = String::from("cases:\n");
    let caller = |value: &str, swap: Option<&str>| {
        let mut claims = binding.claims.clone();
        let templates = grants.iter().filter_map(|grant| grant.partition.as_ref()).flatten();
        for name in templates.filter_map(|part| claim_of(part.as_str()?)) {
            claims.entry(name).or_insert_with(|| value.into());
        }
        if let Some(name) = swap {
            claims.insert(name.to_owned(), "another".into());
        }
        json!(claims)
    };
    let mut case = |name: &str, given: &str, when: &str, then: &str| {
        let because =
            if then == "allow" { format!("\n    because: [{}]", scalar(&binding.role)) } else { String::new() };
        let _ = writeln!(
            text,
            "  - name: {}\n    given: {given}\n    when: {when}\n    then: {then}{because}",
            scalar(name)
        );
    };
    let execution = binding.state_machine.as_ref().map(|arn| {
        format!(
            ", execution: {}",
            scalar(&format!("{}:run", arn.replace(":stateMachine:", ":execution:").replace('*', "x")))
        )
    });
    let given = |claims: &Value, execution: &str, state: Option<&str>| {
        let state = state.map(|state| format!(", state: {}", scalar(state))).unwrap_or_default();
        format!("{{ issuer: {}, claims: {}{execution}{state} }}", scalar(&binding.issuer), flow(claims))
    };
    let state = states.first().map(String::as_str);
    let own = given(&caller("t1", None), execution.as_deref().unwrap_or_default(), state);
    for grant in grants {
        let key = |grant: &Grant, value: &str| {
            let parts = grant.partition.as_ref().map(|parts| {
                let part = |part: &Value| match part.as_str().and_then(claim_of) {
                    Some(name) => binding.claims.get(&name).cloned().unwrap_or_else(|| value.into()),
                    None => part.clone(),
                };
                flow(&parts.iter().map(part).collect())
            });
            parts.map(|key| format!(", partition_key: {key}")).unwrap_or_default()
        };
        let when = |operation: Operation, container: &str, key: &str| {
            format!("{{ operation: {}, container: {}{key} }}", operation.as_str(), scalar(container))
        };
        let name = grant.container.to_string();
        let own_key = key(grant, "t1");
        for operation in Operation::ALL {
            let elsewhere =
                grants.iter().any(|other| other.container == grant.container && other.operations.contains(&operation));
            if grant.operations.contains(&operation) {
                case(&format!("{operation} on {name}"), &own, &when(operation, &name, &own_key), "allow");
            } else if !elsewhere {
                case(&format!("no {operation} on {name}"), &own, &when(operation, &name, &own_key), "deny");
            }
        }
        let Some(operation) = grant.operations.first().copied() else { continue };
        let asked = when(operation, &name, &own_key);
        case(
            &format!("{operation} not elsewhere than on {name}"),
            &own,
            &when(operation, "elsewhere/elsewhere", &own_key),
            "deny",
        );
        for claim in binding.claims.keys() {
            let other = given(&caller("t1", Some(claim)), execution.as_deref().unwrap_or_default(), state);
            case(&format!("{operation} on {name} not with another {claim}"), &other, &asked, "deny");
        }
        if grant.partition.is_some() {
            let other = when(operation, &name, ", partition_key: [\"another\"]");
            case(&format!("{operation} not in another partition of {name}"), &own, &other, "deny");
        }
        if execution.is_some() {
            let other = given(&caller("t1", None), "", state);
            case(&format!("{operation} on {name} not from elsewhere"), &other, &asked, "deny");
        }
        if state.is_some() {
            let other = given(&caller("t1", None), execution.as_deref().unwrap_or_default(), Some("another"));
            case(&format!("{operation} on {name} not in another state"), &other, &asked, "deny");
        }
    }
    if grants.is_empty() { "cases: []\n".to_owned() } else { text }
}

/// The claim that a template stands for.
fn claim_of(part: &str) -> Option<String> {
    part.strip_prefix("{claims.")?.strip_suffix('}').map(str::to_owned)
}

/// A text as YAML writes it: plain where that cannot be misread.
fn scalar(text: &str) -> String {
    let is_plain = text.chars().next().is_some_and(|c| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '/' | '.' | ' '))
        && !text.ends_with(' ')
        && !["true", "false", "null", "yes", "no", "on", "off"].contains(&text.to_ascii_lowercase().as_str());
    if is_plain { text.to_owned() } else { Value::from(text).to_string() }
}

/// A value as YAML writes it in a line.
fn flow(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text),
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::Object(members) => {
            let members: Vec<_> =
                members.iter().map(|(name, value)| format!("{}: {}", scalar(name), flow(value))).collect();
            if members.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", members.join(", ")) }
        }
        other => other.to_string(),
    }
}
