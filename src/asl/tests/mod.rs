//! The rules, on their own examples, on definitions in the manner of public ones, and on faults seeded into those.

mod demo;
mod examples;
mod once;
mod seeded;

use std::path::Path;

use serde_json::Value;

use super::{Options, Policies, Report, lint};
use crate::{
    diagnostic::{self, Source},
    policy::{Config, load},
};

/// The document of a YAML text.
fn yaml(text: &str) -> Value {
    diagnostic::parse(&Source { file: "example.yaml".into(), text: text.into() }).unwrap().0
}

/// Puts members in the place of others, as RFC 7396 does; a number names an entry of a list.
fn merge(target: &mut Value, change: &Value) {
    let Value::Object(change) = change else {
        *target = change.clone();
        return;
    };
    for (name, value) in change {
        if !target.is_array() && !target.is_object() {
            *target = Value::Object(Default::default());
        }
        match target {
            Value::Array(items) => merge(&mut items[name.parse::<usize>().unwrap()], value),
            Value::Object(members) if value.is_null() => drop(members.shift_remove(name)),
            Value::Object(members) => merge(members.entry(name).or_insert(Value::Null), value),
            _ => {}
        }
    }
}

/// Lints a document as if it were a file.
fn lint_value(definition: &Value, options: &Options<'_>) -> Report {
    let text = serde_json::to_string_pretty(definition).unwrap();
    lint(vec![Source { file: "definition.asl.json".into(), text: text.into() }], options)
}

/// The ids of the rules that found something, each once.
fn found(report: &Report) -> Vec<&'static str> {
    let mut rules: Vec<_> = report.findings.iter().map(|finding| finding.rule).collect();
    rules.sort_unstable();
    rules.dedup();
    rules
}

/// Policies of one file.
fn policies(text: &str) -> Policies {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("policy.yaml"), text).unwrap();
    policies_in(directory.path())
}

fn policies_in(directory: &Path) -> Policies {
    let set = load(&Config { directory: directory.to_owned(), issuers: None });
    Policies {
        set: set.unwrap_or_else(|findings| panic!("{findings:#?}")),
        directory: directory.to_owned(),
        claims: Default::default(),
        execution: None,
    }
}
