//! Definitions in the manner of public ones, on which no rule speaks; and faults seeded into each of their calls, which are found.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::{Map, Value, json};

use super::{found, lint_value, yaml};
use crate::{asl::Options, diagnostic::Source};

/// The clean definitions, by file.
pub(super) fn clean() -> Vec<(String, Value)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/asl/clean");
    let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let read = |file: &std::path::PathBuf| (file.display().to_string(), yaml(&fs::read_to_string(file).unwrap()));
    files.iter().map(read).collect()
}

#[test]
fn no_rule_speaks_on_the_clean_definitions() {
    let all = clean();
    assert!(all.len() >= 40, "{}", all.len());
    for (file, _) in &all {
        let text = fs::read_to_string(file).unwrap();
        let report = crate::asl::lint(vec![Source { file: file.into(), text: text.into() }], &Options::default());
        let findings: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
        assert!(findings.is_empty(), "{}", findings.join("\n"));
    }
}

type State = Map<String, Value>;

/// A fault, and whether it can be put into a call at all.
type Seed = fn(&mut State) -> bool;

const SEEDS: &[(&str, Seed)] = &[
    ("structure", |state| state.contains_key("Next") && set(state, "Next", json!("Nowhere"))),
    ("forbidden-header", |state| set_header(state, "If-Match", "\"1\"")),
    ("missing-context", |state| headers(state).is_some_and(|headers| drop_member(headers, "x-stepgate-state"))),
    ("wrong-context", |state| set_header(state, "x-stepgate-execution", "run-1")),
    ("plain-http", |state| in_endpoint(state, "https://", "http://")),
    ("inline-secret", |state| set_header(state, "x-functions-key", "not-so-secret")),
    ("missing-connection", |state| {
        let parameters = parameters(state).unwrap();
        drop_member(parameters, "InvocationConfig") | drop_member(parameters, "Authentication")
    }),
    ("bad-request", |state| set(parameters(state).unwrap(), "Method", json!("HEAD"))),
    ("direct-cosmos", |state| in_endpoint(state, "stepgate.example.com", "shop.documents.azure.com")),
    ("unknowable", |state| {
        let jsonata = state.contains_key("Arguments");
        let parameters = parameters(state).unwrap();
        drop_member(parameters, "ApiEndpoint");
        let (name, value) =
            if jsonata { ("ApiEndpoint", "{% $states.input.url %}") } else { ("ApiEndpoint.$", "$.url") };
        set(parameters, name, json!(value))
    }),
    ("missing-retry", |state| drop_member(state, "Retry")),
    ("hasty-retry", |state| {
        let eager = retriers(state).iter_mut().filter(|retrier| retrier["MaxAttempts"].as_u64() > Some(1));
        eager.map(|retrier| set(retrier.as_object_mut().unwrap(), "JitterStrategy", json!("NONE"))).count() > 0
    }),
    ("hopeless-retry", |state| {
        retriers(state).retain(|retrier| retrier["MaxAttempts"].as_u64() != Some(0));
        let tried = retriers(state).first_mut().unwrap();
        let errors = tried["ErrorEquals"].as_array_mut().unwrap();
        *errors = vec![json!("States.Http.StatusCode.412"), json!("States.Http.StatusCode.429")];
        true
    }),
    ("repeated-write", |state| {
        let headers = headers(state).unwrap();
        let once = ["x-ms-documentdb-is-upsert", "x-ms-documentdb-isquery"];
        if once.iter().any(|name| headers.contains_key(*name)) || parameters(state).unwrap()["Method"] != "POST" {
            return false;
        }
        drop_header(state, "idempotency-key");
        drop_member(state, "Catch");
        set(state, "Retry", json!([{ "ErrorEquals": ["States.TaskFailed"], "MaxAttempts": 2 }]))
    }),
    ("long-timeout", |state| set(state, "TimeoutSeconds", json!(61))),
    ("suppression", |state| set(state, "Comment", json!("stepgate-lint: allow plain-http"))),
    ("suppression", |state| set(state, "Comment", json!("stepgate-lint: allow plain-htp because of it"))),
    ("unused-suppression", |state| set(state, "Comment", json!("stepgate-lint: allow plain-http because of it"))),
];

#[test]
fn a_fault_in_any_call_is_found() {
    let mut seeded: BTreeMap<&str, usize> = BTreeMap::new();
    for (position, (file, definition)) in clean().into_iter().enumerate() {
        for (number, pointer) in calls(&definition).into_iter().enumerate() {
            // Every third of the seeds, another third at each call: all of them would take a minute.
            for (rule, seed) in SEEDS.iter().skip((number + position) % 3).step_by(3) {
                let mut faulty = definition.clone();
                if !seed(faulty.pointer_mut(&pointer).unwrap().as_object_mut().unwrap()) {
                    continue;
                }
                let report = lint_value(&faulty, &Options::default());
                assert!(found(&report).contains(rule), "{rule} at {pointer} of {file}: {:?}", found(&report));
                *seeded.entry(rule).or_default() += 1;
            }
        }
    }
    for (rule, _) in SEEDS {
        assert!(seeded.get(rule) > Some(&2), "{rule} was seeded {:?} times", seeded.get(rule));
    }
}

/// Faults of the definition as a whole: what it is seeded into, and how.
type Reshape = fn(&mut Value) -> bool;

const RESHAPES: &[(&str, Reshape)] = &[
    ("data-limit", |definition| {
        each_state(definition, &mut |state| {
            let is_call = is_call(state);
            let catchers = state.get_mut("Catch").and_then(Value::as_array_mut);
            catchers.is_some_and(|catchers| {
                let all = catchers.len();
                catchers.retain(|catcher| catcher["ErrorEquals"] != json!(["States.DataLimitExceeded"]));
                catchers.len() < all && is_call
            })
        })
    }),
    ("uncaught-write", |definition| {
        let all = calls(definition);
        let writes = all.iter().any(|pointer| is_write(definition.pointer(pointer).unwrap()));
        each_state(definition, &mut |state| drop_member(state, "Catch")) && writes
    }),
    ("unbounded-map", |definition| {
        let text = |state: &State| serde_json::to_string(state).unwrap();
        each_state(definition, &mut |state| text(state).contains("/colls/") && drop_member(state, "MaxConcurrency"))
    }),
    ("map-race", |definition| {
        each_state(definition, &mut |map| {
            if map["Type"] != "Map" {
                return false;
            }
            set(map, "MaxConcurrency", json!(2));
            let mut inside = Value::Object(std::mem::take(map));
            let done = each_state(&mut inside, &mut |state| {
                is_call(state) && is_write(&json!(state)) && write_one_item(state)
            });
            *map = inside.as_object().unwrap().clone();
            done
        })
    }),
    ("parallel-race", |definition| {
        each_state(definition, &mut |parallel| {
            let Some(branches) = parallel.get_mut("Branches").and_then(Value::as_array_mut) else { return false };
            let changed = |branch: &mut Value| {
                each_state(branch, &mut |state| is_call(state) && is_write(&json!(state)) && write_one_item(state))
            };
            branches.iter_mut().map(changed).filter(|done| *done).count() > 1
        })
    }),
    ("lost-update", |definition| {
        let text = definition.to_string();
        // Where it has been read.
        let read = ["order-fulfilment", "Ships an order", "Triages a ticket"].iter().any(|word| text.contains(word));
        read && each_state(definition, &mut |state| is_call(state) && drop_header(state, "x-stepgate-if-match"))
    }),
];

#[test]
fn a_fault_of_the_whole_is_found() {
    let mut seeded: BTreeMap<&str, usize> = BTreeMap::new();
    for (file, definition) in clean().into_iter().filter(|(file, _)| !file.contains("suppressed")) {
        for (rule, reshape) in RESHAPES {
            let mut faulty = definition.clone();
            if reshape(&mut faulty) {
                let report = lint_value(&faulty, &Options::default());
                assert!(found(&report).contains(rule), "{rule} in {file}: {:?}\n{faulty:#}", found(&report));
                *seeded.entry(rule).or_default() += 1;
            }
        }
    }
    for (rule, _) in RESHAPES {
        assert!(seeded.get(rule) > Some(&1), "{rule} was seeded {:?} times", seeded.get(rule));
    }
}

/// Makes a write one of the item `same` in the partition `same` of one container.
fn write_one_item(state: &mut State) -> bool {
    let jsonata = state.contains_key("Arguments");
    drop_header(state, "idempotency-key");
    drop_header(state, "x-stepgate-if-match");
    drop_header(state, "x-ms-documentdb-is-upsert");
    drop_header(state, "x-ms-cosmos-is-batch-request");
    let parameters = parameters(state).unwrap();
    for name in ["ApiEndpoint", "QueryParameters", "RequestBody"] {
        drop_member(parameters, name);
    }
    let id = if jsonata {
        "{% 'https://stepgate.example.com/dbs/a/colls/b/docs/' & 'same' %}"
    } else {
        "https://stepgate.example.com/dbs/a/colls/b/docs/same"
    };
    set(parameters, "ApiEndpoint", json!(id));
    set(parameters, "Method", json!("PUT"));
    set(parameters, "RequestBody", json!({ "id": "same" }))
}

fn is_call(state: &State) -> bool {
    state.get("Resource").and_then(Value::as_str).is_some_and(|arn| arn.ends_with("http:invoke"))
        && json!(state).to_string().contains("/colls/")
}

/// Where the calls of the gateway stand, as JSON pointers.
fn calls(definition: &Value) -> Vec<String> {
    fn look(value: &Value, pointer: String, calls: &mut Vec<String>) {
        match value {
            Value::Object(state) if is_call(state) => calls.push(pointer),
            Value::Object(members) => {
                members.iter().for_each(|(name, value)| look(value, format!("{pointer}/{name}"), calls))
            }
            Value::Array(items) => {
                items.iter().enumerate().for_each(|(i, item)| look(item, format!("{pointer}/{i}"), calls))
            }
            _ => {}
        }
    }
    let mut calls = Vec::new();
    look(definition, String::new(), &mut calls);
    calls
}

fn is_write(state: &Value) -> bool {
    let parameters = state.get("Parameters").unwrap_or(&state["Arguments"]);
    parameters["Method"] != "GET" && parameters["Headers"].get("x-ms-documentdb-isquery").is_none()
}

/// Changes every state; whether any was changed.
fn each_state(value: &mut Value, change: &mut dyn FnMut(&mut State) -> bool) -> bool {
    match value {
        Value::Object(members) => {
            let mut changed = members.contains_key("Type") && change(members);
            for value in members.values_mut() {
                changed |= each_state(value, change);
            }
            changed
        }
        Value::Array(items) => {
            items.iter_mut().map(|item| each_state(item, change)).filter(|changed| *changed).count() > 0
        }
        _ => false,
    }
}

fn parameters(state: &mut State) -> Option<&mut State> {
    let name = if state.contains_key("Arguments") { "Arguments" } else { "Parameters" };
    state.get_mut(name)?.as_object_mut()
}

fn headers(state: &mut State) -> Option<&mut State> {
    parameters(state)?.get_mut("Headers")?.as_object_mut()
}

fn retriers(state: &mut State) -> &mut Vec<Value> {
    state.get_mut("Retry").unwrap().as_array_mut().unwrap()
}

fn set(members: &mut State, name: &str, value: Value) -> bool {
    members.insert(name.to_owned(), value);
    true
}

/// Removes a member, dynamic or not.
fn drop_member(members: &mut State, name: &str) -> bool {
    members.shift_remove(name).is_some() | members.shift_remove(&format!("{name}.$")).is_some()
}

fn drop_header(state: &mut State, name: &str) -> bool {
    headers(state).is_some_and(|headers| drop_member(headers, name))
}

fn set_header(state: &mut State, name: &str, value: &str) -> bool {
    drop_header(state, name);
    headers(state).is_some_and(|headers| set(headers, name, json!(value)))
}

fn in_endpoint(state: &mut State, from: &str, to: &str) -> bool {
    let parameters = parameters(state).unwrap();
    let name = if parameters.contains_key("ApiEndpoint") { "ApiEndpoint" } else { "ApiEndpoint.$" };
    let endpoint = parameters[name].as_str().unwrap().to_owned();
    endpoint.contains(from) && set(parameters, name, json!(endpoint.replace(from, to)))
}
