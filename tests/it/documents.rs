//! What is committed beside the code says what the code does: the example configurations and the schemas.

use std::{collections::BTreeSet, fs, path::PathBuf};

use serde_json::Value;
use stepgate::{config, diagnostic::Severity};

use crate::commands::run;

fn committed(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(file)
}

/// The names of all keys in a JSON Schema, wherever they stand.
fn keys(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(members) => {
            if let Some(Value::Object(properties)) = members.get("properties") {
                found.extend(properties.keys().cloned());
            }
            members.values().for_each(|value| keys(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| keys(value, found)),
        _ => {}
    }
}

#[test]
fn the_example_configuration_documents_every_key() {
    let schema: Value = serde_json::from_str(&config::schema()).unwrap();
    let mut all = BTreeSet::new();
    keys(&schema, &mut all);
    assert!(all.len() > 40, "the schema is walked: {all:?}");
    let text = fs::read_to_string(committed("config/stepgate.yaml")).unwrap();
    let is_name = |character: char| character.is_alphanumeric() || character == '_' || character == '-';
    // The words that stand before a colon, in a comment or not.
    let documented: BTreeSet<&str> =
        text.split(':').filter_map(|before| before.rsplit(|c| !is_name(c)).next()).collect();
    let missing: Vec<_> = all.iter().filter(|key| !documented.contains(key.as_str())).collect();
    assert!(missing.is_empty(), "config/stepgate.yaml does not document {missing:?}");
    config::read(&committed("config/stepgate.yaml"), &[]).unwrap_or_else(|findings| panic!("{findings:?}"));
}

#[test]
fn the_committed_schemas_are_those_of_the_code() {
    for (file, command) in [("config/stepgate.schema.json", "config"), ("config/policy.schema.json", "policy")] {
        let printed = String::from_utf8(run(&[command, "schema"]).stdout).unwrap();
        let written = fs::read_to_string(committed(file)).unwrap();
        assert!(printed == written, "{file} is old: stepgate {command} schema > {file}");
    }
}

#[test]
fn the_development_configuration_has_no_errors() {
    let findings = config::check(&committed("config/dev.yaml"), &[]);
    let errors: Vec<_> = findings.iter().filter(|finding| finding.severity == Severity::Error).collect();
    assert!(errors.is_empty(), "{errors:?}");
    // That the nightly report rests on what it says of itself is an example of its own.
    let warnings: Vec<_> = findings.iter().map(|finding| finding.message.as_str()).collect();
    assert!(
        warnings.iter().all(|warning| *warning == "this rests on a fact that the caller can choose"),
        "{warnings:?}"
    );
}
