//! The second evaluator, written from the rules alone over the documents as JSON, with neither index nor compilation.

use serde_json::Value;

use super::{Ask, Outcome, Policy};
use crate::access::{Operation, PartitionKey};

fn glob(pattern: &str, text: &str) -> bool {
    let mut rest = pattern.chars();
    match rest.next() {
        None => text.is_empty(),
        Some('*') => {
            let stop = text.find([':', '/']).unwrap_or(text.len());
            (0..=stop).any(|i| text.get(i..).is_some_and(|text| glob(rest.as_str(), text)))
        }
        Some(c) => text.strip_prefix(c).is_some_and(|text| glob(rest.as_str(), text)),
    }
}

fn scalars(value: &Value) -> Vec<Value> {
    let list = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
    list.into_iter().filter(|value| value.is_string() || value.is_number() || value.is_boolean()).collect()
}

/// Whether a selector describes the caller; `None`: not known.
pub(super) fn selected(workload: &Value, ask: &Ask) -> Option<bool> {
    if workload["issuer"] != ask.issuer {
        return Some(false);
    }
    let mut answers = vec![in_states(workload, ask)];
    for (name, wanted) in workload["claims"].as_object().into_iter().flatten() {
        let found = scalars(&ask.claims[name]);
        let wanted = scalars(wanted);
        let meets = |value: &Value| {
            wanted.iter().any(|wanted| match (wanted.as_str(), value.as_str()) {
                (Some(wanted), Some(value)) => glob(wanted, value),
                _ => wanted == value,
            })
        };
        answers.push((!found.is_empty()).then(|| found.iter().any(meets)));
    }
    all(&answers)
}

fn in_states(clause: &Value, ask: &Ask) -> Option<bool> {
    let Some(states) = clause["states"].as_array() else { return Some(true) };
    let level = |word: &str| ["claimed", "signed", "proven"].iter().position(|level| *level == word).unwrap();
    let demanded = clause["assurance"].as_str().map_or(0, level);
    let (state, assurance) = ask.state?;
    if level(assurance.as_str()) < demanded {
        return None;
    }
    Some(states.iter().any(|pattern| glob(pattern.as_str().unwrap(), state)))
}

fn all(answers: &[Option<bool>]) -> Option<bool> {
    if answers.contains(&Some(false)) {
        Some(false)
    } else if answers.contains(&None) {
        None
    } else {
        Some(true)
    }
}

fn covers(clause: &Value, operation: Operation) -> bool {
    let word = operation.as_str();
    let words: Vec<&str> = clause["operations"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    words.iter().any(|w| *w == "*" || *w == word || (*w == "items/*" && word.starts_with("items/")))
}

fn denied_operation(clause: &Value, operation: Operation) -> bool {
    use Operation::{Execute, ItemsCreate, ItemsDelete, ItemsPatch, ItemsReplace, ItemsUpsert};
    let writes = [ItemsCreate, ItemsUpsert, ItemsReplace, ItemsPatch, ItemsDelete];
    covers(clause, operation)
        || (operation == ItemsUpsert && covers(clause, ItemsReplace))
        || (operation == Execute && writes.iter().any(|write| covers(clause, *write)))
}

fn on(clause: &Value, ask: &Ask) -> bool {
    let pattern = clause["container"].as_str().unwrap();
    pattern.split('/').zip(ask.container.split('/')).all(|(pattern, name)| glob(pattern, name))
}

/// The values each component of the clause's key may have; an empty list where the claim is not there.
fn components(clause: &Value, ask: &Ask) -> Option<Vec<Vec<Value>>> {
    let parts = clause["partition_key"].as_array()?;
    Some(
        parts
            .iter()
            .map(|part| match part.as_str().and_then(|text| text.strip_prefix("{claims.")?.strip_suffix('}')) {
                Some(claim) => scalars(&ask.claims[claim]),
                None => vec![part.clone()],
            })
            .collect(),
    )
}

fn keys(components: &[Vec<Value>]) -> Vec<Value> {
    let mut keys = vec![vec![]];
    for values in components {
        keys = keys
            .iter()
            .flat_map(|key: &Vec<Value>| values.iter().map(|v| [key.clone(), vec![v.clone()]].concat()))
            .collect();
    }
    keys.into_iter().map(Value::from).collect()
}

/// The grants on the container and for the operation that the caller's bindings give it, in whatever partition.
pub(super) fn granted<'a>(policy: &'a Policy, ask: &'a Ask) -> impl Iterator<Item = &'a Value> {
    let held = |binding: &&Value| {
        binding["workloads"].as_array().unwrap().iter().any(|workload| selected(workload, ask) == Some(true))
    };
    let role = |binding: &Value| binding["role"].as_str().unwrap().trim_start_matches('r').parse::<usize>().unwrap();
    let grants = policy.bindings.iter().filter(held).flat_map(move |binding| &policy.roles[role(binding)]);
    grants.filter(|grant| on(grant, ask) && covers(grant, ask.operation))
}

pub(super) fn outcome(policy: &Policy, ask: &Ask) -> Outcome {
    let mut matching: Vec<(isize, bool, Option<Vec<Value>>)> = Vec::new();
    let mut prefix_query = false;
    for grant in granted(policy, ask) {
        let exact = !grant["container"].as_str().unwrap().contains('*');
        let Some(components) = components(grant, ask) else {
            matching.push((0, !exact, None));
            continue;
        };
        let depth = components.len();
        let mut own = keys(&components);
        if let Some(key) = &ask.key {
            let key = key.as_array().unwrap();
            own.retain(|own| key.starts_with(own.as_array().unwrap()));
            let deeper = key.len() > depth;
            if deeper && !own.is_empty() && matches!(ask.operation, Operation::Query | Operation::Feed) {
                prefix_query = true;
                continue;
            }
        }
        if !own.is_empty() {
            matching.push((-(depth as isize), !exact, Some(own)));
        }
    }
    let narrowest = matching.iter().map(|(depth, glob, _)| (*depth, *glob)).min();
    let mut own: Vec<String> = matching
        .iter()
        .filter(|(depth, glob, _)| Some((*depth, *glob)) == narrowest)
        .flat_map(|(_, _, keys)| keys.iter().flatten().map(ToString::to_string))
        .collect();
    own.sort();
    own.dedup();
    let scope = if own.len() == 1 { Some(own[0].clone()) } else { None };
    let key = ask.key.clone().or_else(|| scope.as_ref().map(|key| serde_json::from_str(key).unwrap()));

    let denies = policy.denies.iter().filter(|deny| on(deny, ask) && denied_operation(deny, ask.operation));
    let denies = denies.filter(|deny| {
        let about = match deny["workloads"].as_array() {
            None => Some(true),
            Some(list) if list.iter().any(|w| selected(w, ask) != Some(false)) => None,
            Some(_) => Some(false),
        };
        let elsewhere = match (components(deny, ask), &key) {
            (Some(components), Some(key)) => components
                .iter()
                .zip(key.as_array().unwrap())
                .any(|(values, component)| !values.is_empty() && !values.contains(component)),
            _ => false,
        };
        about != Some(false) && !elsewhere && in_states(deny, ask) != Some(false)
    });
    let denies = denies.count();
    let parse = |key: String| key.parse::<PartitionKey>().unwrap();
    if denies > 0 {
        Outcome::Deny { prefix_query: false, denies }
    } else if narrowest.is_none() {
        Outcome::Deny { prefix_query, denies }
    } else if own.len() > 1 {
        Outcome::Ambiguous(own)
    } else {
        Outcome::Allow { runs_under: key.map(|key| parse(key.to_string())), scope: scope.map(parse) }
    }
}
