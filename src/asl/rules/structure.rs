//! Whether a definition holds together: what the service would refuse, or run otherwise than it reads.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use crate::asl::{
    check::{Check, Spot},
    definition::{Machine, State, member, texts},
    text::Language,
};

const KINDS: [&str; 8] = ["Task", "Pass", "Choice", "Wait", "Succeed", "Fail", "Parallel", "Map"];
/// Fields that belong to one language alone.
const JSON_PATH_ONLY: [&str; 5] = ["Parameters", "InputPath", "OutputPath", "ResultPath", "ResultSelector"];
const JSONATA_ONLY: [&str; 2] = ["Arguments", "Output"];

pub(super) fn structure(check: &Check<'_>) -> Vec<Spot> {
    let mut spots = Vec::new();
    if check.definition.value().as_object().is_none() {
        return vec![Spot::new("", "this is no state machine", "write an object with StartAt and States")];
    }
    for machine in &check.graph.machines {
        machine_holds(check, machine, &mut spots);
    }
    for state in &check.graph.states {
        state_holds(state, &mut spots);
        handling_holds(state, "Retry", &mut spots);
        handling_holds(state, "Catch", &mut spots);
    }
    let mut seen: HashMap<&str, &State<'_>> = HashMap::new();
    for state in &check.graph.states {
        if seen.insert(state.name, state).is_some() {
            let message = format!("there is another state `{}` in this definition", state.name);
            spots.push(Spot::new(&state.path, message, "give each state a name of its own, branches included"));
        }
    }
    spots
}

fn machine_holds(check: &Check<'_>, machine: &Machine<'_>, spots: &mut Vec<Spot>) {
    let at = |name: &str| member(&machine.path, name);
    if machine.states.is_empty() {
        let mend = "write StartAt and States";
        spots.push(Spot::new(&machine.path, "a state machine without States does nothing", mend));
        return;
    }
    let missing = |path: String, name: &str| {
        Spot::new(path, format!("there is no state `{name}` here"), "name a state of the same States")
    };
    match machine.start() {
        None => spots.push(Spot::new(&machine.path, "StartAt is missing", "name the first state")),
        Some(start) if !machine.states.contains_key(start) => spots.push(missing(at("StartAt"), start)),
        Some(_) => {}
    }
    let own: Vec<&State<'_>> = {
        let mut indices: Vec<_> = machine.states.values().copied().collect();
        indices.sort_unstable();
        indices.into_iter().filter_map(|index| check.graph.state(index)).collect()
    };
    let mut leads: HashMap<&str, Vec<&str>> = HashMap::new();
    for state in &own {
        let catchers = state.list("Catch").iter().enumerate().filter_map(|(number, catcher)| {
            let path = member(&member(&state.at("Catch"), &number.to_string()), "Next");
            Some((path, catcher.get("Next")?.as_str()?))
        });
        for (path, target) in state.targets().chain(catchers) {
            if machine.states.contains_key(target) {
                leads.entry(state.name).or_default().push(target);
            } else {
                spots.push(missing(path, target));
            }
        }
    }
    let mut reached: HashSet<&str> = HashSet::new();
    let mut waiting: Vec<&str> = machine.start().into_iter().collect();
    while let Some(name) = waiting.pop() {
        if reached.insert(name) {
            waiting.extend(leads.get(name).into_iter().flatten());
        }
    }
    for state in &own {
        if machine.start().is_some() && !reached.contains(state.name) {
            let message = format!("no state leads to `{}`", state.name);
            spots.push(Spot::new(&state.path, message, "lead to it by Next, Default or Catch, or remove it"));
        }
    }
    let ends = |state: &&State<'_>| {
        state.written.get("End") == Some(&Value::Bool(true)) || matches!(state.kind(), "Succeed" | "Fail")
    };
    if !own.iter().any(ends) {
        spots.push(Spot::new(at("States"), "no state ends the execution", "write End: true where the work is done"));
    }
}

fn state_holds(state: &State<'_>, spots: &mut Vec<Spot>) {
    let name = state.name;
    let kind = state.kind();
    if !KINDS.contains(&kind) {
        let message = format!("`{name}` has no Type that the language knows");
        spots.push(Spot::new(state.at("Type"), message, format!("write one of {}", KINDS.join(", "))));
        return;
    }
    let (next, end) = (state.written.contains_key("Next"), state.written.get("End") == Some(&Value::Bool(true)));
    match kind {
        "Succeed" | "Fail" if next || end => {
            spots.push(Spot::new(
                &state.path,
                format!("`{name}` ends the execution, and says how to go on"),
                "remove Next and End",
            ));
        }
        "Choice" if next || end => {
            let message = format!("`{name}` is a Choice, whose Choices and Default say how to go on");
            spots.push(Spot::new(&state.path, message, "write Default instead of Next, and remove End"));
        }
        "Task" | "Pass" | "Wait" | "Parallel" | "Map" if next == end => {
            let message = format!("`{name}` must say either Next or End: true");
            spots.push(Spot::new(&state.path, message, "say what comes next, or that nothing does"));
        }
        _ => {}
    }
    let needs = match kind {
        "Task" => vec![&["Resource"][..]],
        "Choice" => vec![&["Choices"][..]],
        "Parallel" => vec![&["Branches"][..]],
        "Map" => vec![&["ItemProcessor", "Iterator"][..]],
        _ => Vec::new(),
    };
    for names in needs.iter().filter(|names| !names.iter().any(|name| state.written.contains_key(*name))) {
        let needed = names.join(" or ");
        spots.push(Spot::new(&state.path, format!("`{name}` is a {kind} without {needed}"), format!("write {needed}")));
    }
    let (foreign, language, own): (&[&str], _, _) = match state.language {
        Language::JsonPath => (&JSONATA_ONLY, "JSONPath", "write Parameters and ResultPath, or QueryLanguage: JSONata"),
        Language::Jsonata => (&JSON_PATH_ONLY, "JSONata", "write Arguments and Output, or QueryLanguage: JSONPath"),
    };
    for field in foreign.iter().filter(|field| state.written.contains_key(**field)) {
        // A Map of the older form has Parameters beside its Iterator; a Pass of any language may say what its output is.
        let message = format!("`{name}` is in {language}, which knows no {field}");
        spots.push(Spot::new(state.at(field), message, own));
    }
}

/// Checks the entries of `Retry` or `Catch`.
fn handling_holds(state: &State<'_>, field: &str, spots: &mut Vec<Spot>) {
    let entries = state.list(field);
    for (number, entry) in entries.iter().enumerate() {
        let path = member(&state.at(field), &number.to_string());
        let Some(entry) = entry.as_object() else { continue };
        let errors = texts(entry, "ErrorEquals");
        if errors.is_empty() {
            spots.push(Spot::new(&path, "ErrorEquals is missing, or names no error", "name the errors that it is for"));
        }
        if errors.contains(&"States.ALL") && (errors.len() > 1 || number + 1 < entries.len()) {
            let message = "States.ALL stands alone in its entry, and its entry stands last";
            spots.push(Spot::new(member(&path, "ErrorEquals"), message, "put it into an entry of its own, at the end"));
        }
        let jitter = entry.get("JitterStrategy").and_then(Value::as_str);
        if jitter.is_some_and(|jitter| !matches!(jitter, "FULL" | "NONE")) {
            spots.push(Spot::new(member(&path, "JitterStrategy"), "JitterStrategy is FULL or NONE", "write FULL"));
        }
        let rate = entry.get("BackoffRate").and_then(Value::as_f64);
        if rate.is_some_and(|rate| rate < 1.0) {
            spots.push(Spot::new(member(&path, "BackoffRate"), "BackoffRate is 1 or more", "write 2"));
        }
        if field == "Catch" && !entry.contains_key("Next") {
            spots.push(Spot::new(&path, "a catcher must say what comes Next", "name the state that takes over"));
        }
    }
}
