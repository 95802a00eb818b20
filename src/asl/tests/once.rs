//! Writes that are done once: the grant decides, as it does in the gateway; and the examples, which rest on it.

use std::{fs, path::Path};

use super::{found, policies, policies_in};
use crate::{
    asl::{Binding, Definition, Options, Report, grants, lint},
    diagnostic::Source,
};

fn example(name: &str) -> Source {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name).join("state-machine.asl.json");
    Source { text: fs::read_to_string(&file).unwrap().into(), file }
}

fn policy_of(name: &str) -> String {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name).join("policies");
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let policies = files.filter(|file| !file.to_str().unwrap().ends_with(".test.yaml"));
    policies.map(|file| fs::read_to_string(file).unwrap()).collect()
}

fn linted(source: Source, policy: &str) -> Report {
    let policies = policies(policy);
    lint(vec![source], &Options { policies: Some(&policies), ..Options::default() })
}

#[test]
fn every_example_is_clean_under_its_policy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let folders = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let names: Vec<String> = folders.map(|folder| folder.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    assert!(names.len() >= 5, "{names:?}");
    for name in names {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(&name).join("policies");
        let policies = policies_in(&directory);
        let report = lint(vec![example(&name)], &Options { policies: Some(&policies), ..Options::default() });
        assert!(report.findings.is_empty(), "{name}: {:#?}", report.findings);
    }
}

#[test]
fn without_the_word_in_the_grant_a_repeated_write_is_found() {
    for name in ["map-fan-out", "saga"] {
        let off = policy_of(name).replace("idempotency: on", "idempotency: off");
        assert!(found(&linted(example(name), &off)).contains(&"repeated-write"), "{name}");
    }
}

#[test]
fn a_key_does_nothing_under_a_grant_that_does_not_ask_for_one() {
    let saga = example("saga");
    assert!(saga.text.contains("idempotency-key"));
    let keys = Source { text: saga.text.replace("\"op\": \"incr\"", "\"op\": \"set\"").into(), file: saga.file };
    assert!(!found(&lint(vec![keys.clone()], &Options::default())).contains(&"repeated-write"), "a key is a sign");
    let on = policy_of("saga");
    assert!(found(&linted(keys.clone(), &on)).is_empty());
    let off = on.replace("idempotency: on", "idempotency: off");
    assert_eq!(found(&linted(keys, &off)), ["repeated-write"]);
}

#[test]
fn a_write_that_shows_no_key_is_not_done_once() {
    let map = example("map-fan-out");
    let silent = Source { text: map.text.replace("x-stepgate-entered", "x-entered").into(), file: map.file };
    let broken = found(&linted(silent, &policy_of("map-fan-out")));
    assert!(broken.contains(&"repeated-write"), "{broken:?}");
}

#[test]
fn a_derived_grant_says_once_where_the_definition_needs_it() {
    let binding = Binding {
        role: "derived".into(),
        issuer: "cognito".into(),
        claims: [("client_id".to_owned(), "c".into())].into_iter().collect(),
        partition_keys: Default::default(),
        state_machine: None,
        states: false,
    };
    let made = |name: &str| grants(&[Definition::read(example(name)).unwrap()], &Options::default(), &binding).policy;
    for (name, line) in [
        ("map-fan-out", "operations: [items/patch]\n        idempotency: on\n"),
        ("saga", "operations: [items/create, items/patch]\n        idempotency: on\n"),
        ("load-modify-save", "operations: [items/read, items/replace]\nbindings"),
        ("web-identity", "operations: [items/read]\nbindings"),
    ] {
        let policy = made(name);
        assert!(policy.contains(line), "{name}: {policy}");
        assert!(linted(example(name), &policy).findings.is_empty(), "{name}");
    }
}
