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

/// The YAML in a page, with the heading it stands under.
fn blocks_in(page: &str) -> Vec<(String, String)> {
    let (mut heading, mut open, mut blocks) = (String::new(), None::<String>, Vec::new());
    for line in page.lines() {
        match &mut open {
            Some(block) if line == "```" => {
                blocks.push((heading.clone(), std::mem::take(block)));
                open = None;
            }
            Some(block) => *block += &format!("{line}\n"),
            None if line == "```yaml" => open = Some(String::new()),
            None if line.starts_with('#') => heading = line.to_owned(),
            None => {}
        }
    }
    blocks
}

#[test]
fn the_issuers_of_the_identity_page_can_be_configured() {
    let page = fs::read_to_string(committed("docs/identity.md")).unwrap();
    let rest = fs::read_to_string(committed("config/stepgate.yaml")).unwrap();
    let (before, after) = rest.split_once("issuers:\n").unwrap();
    let (_, after) = after.split_once("\ncosmos:\n").unwrap();
    let blocks = blocks_in(&page);
    assert!(blocks.len() > 9, "each kind has one");
    for (heading, block) in blocks {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("stepgate.yaml");
        fs::write(&file, format!("{before}{block}cosmos:\n{after}")).unwrap();
        config::read(&file, &[]).unwrap_or_else(|findings| panic!("{heading}: {findings:#?}"));
    }
}

#[test]
fn the_worked_examples_of_the_policy_page_work() {
    let page = fs::read_to_string(committed("docs/policy.md")).unwrap();
    let (_, examples) = page.split_once("## Ten worked examples").unwrap();
    let blocks = blocks_in(examples);
    let headings: BTreeSet<&String> = blocks.iter().map(|(heading, _)| heading).collect();
    assert_eq!((headings.len(), blocks.len()), (10, 20));
    for heading in headings {
        let home = tempfile::tempdir().unwrap();
        for (_, text) in blocks.iter().filter(|(under, _)| under == heading) {
            let name = text.lines().next().unwrap().strip_prefix("# ").unwrap();
            fs::write(home.path().join(name), text).unwrap();
        }
        let output = run(&["policy", "test", home.path().to_str().unwrap(), "--min-coverage", "100"]);
        assert!(
            output.status.success(),
            "{heading}: {}",
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat())
        );
    }
}
