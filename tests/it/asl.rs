//! `stepgate asl`, as a program.

use std::{fs, path::Path};

use serde_json::Value;

use crate::commands::run;

const DEMO: &str = "tests/asl/demo/fulfil.asl.json";

fn output(arguments: &[&str], code: i32) -> String {
    let output = run(arguments);
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    text
}

/// The demo's workflow, changed, in a file of its own.
fn changed(home: &Path, from: &str, to: &str) -> String {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(DEMO)).unwrap();
    assert!(text.contains(from), "{from}");
    let file = home.join("fulfil.asl.json");
    fs::write(&file, text.replace(from, to)).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn findings_are_told_to_people_programs_and_code_scanning() {
    let home = tempfile::tempdir().unwrap();
    let file = changed(home.path(), "\"x-stepgate-if-match.$\"", "\"If-Match.$\"");
    let text = output(&["asl", "lint", &file], 4);
    assert!(text.contains("fulfil.asl.json:55:25: error: ") && text.contains("[forbidden-header]"), "{text}");
    assert!(text.contains("1 definitions: 2 errors, 0 warnings"), "{text}");

    let json: Value = serde_json::from_str(&output(&["asl", "lint", &file, "--format", "json"], 4)).unwrap();
    assert_eq!(
        (json["errors"].as_u64(), json["findings"][1]["rule"].as_str()),
        (Some(2), Some("forbidden-header")),
        "{json:#}"
    );

    let sarif: Value = serde_json::from_str(&output(&["asl", "lint", &file, "--format", "sarif"], 4)).unwrap();
    let run = &sarif["runs"][0];
    let result = &run["results"][1];
    assert_eq!((sarif["version"].as_str(), result["ruleId"].as_str()), (Some("2.1.0"), Some("forbidden-header")));
    let region = &result["locations"][0]["physicalLocation"]["region"];
    assert_eq!((region["startLine"].as_u64(), region["startColumn"].as_u64()), (Some(55), Some(25)));
    let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
    assert_eq!(run["tool"]["driver"]["rules"][index]["id"], "forbidden-header");
}

#[test]
fn a_definition_is_clean_wrong_or_not_there() {
    output(&["asl", "lint", DEMO, "--policies", "policies"], 0);
    output(&["asl", "lint", DEMO, "--policies", "policies", "--deny-warnings"], 4);
    output(&["asl", "lint", DEMO, "--policies", "policies", "--claims", r#"{"client_id": "auditor"}"#], 4);
    assert!(output(&["asl", "lint", "nowhere.json"], 1).contains("nowhere.json"));
    output(&["asl", "lint"], 2);
    let home = tempfile::tempdir().unwrap();
    let file = changed(home.path(), "\"StartAt\":", "\"StartAt\"");
    assert!(output(&["asl", "lint", &file], 4).contains("fulfil.asl.json:3:"));
}

#[test]
fn what_lies_below_the_configured_address_is_the_gateways() {
    let home = tempfile::tempdir().unwrap();
    let file = changed(home.path(), "stepgate.example.com/dbs/shop/colls/audit/docs", "data.example.org/elsewhere");
    output(&["asl", "lint", &file], 0);
    let config = fs::read_to_string("config/stepgate.yaml").unwrap();
    let (before, after) = config.split_once("public_url: ").unwrap();
    let (_, after) = after.split_once('\n').unwrap();
    let written = home.path().join("stepgate.yaml");
    fs::write(&written, format!("{before}public_url: https://data.example.org/\n{after}")).unwrap();
    let text = output(&["asl", "lint", &file, "--config", written.to_str().unwrap()], 4);
    assert!(text.contains("[bad-request]"), "{text}");
}

#[test]
fn a_new_state_lints_clean_and_its_grants_load() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("new.asl.json");
    let operations = [
        "items/create",
        "items/upsert",
        "items/read",
        "items/replace",
        "items/patch",
        "items/delete",
        "query",
        "feed",
        "batch",
        "execute",
    ];
    for language in ["JSONPath", "JSONata"] {
        for operation in operations {
            let text = output(&["asl", "new", operation, "shop/orders", "--query-language", language], 0);
            fs::write(&file, text).unwrap();
            output(&["asl", "lint", file.to_str().unwrap(), "--deny-warnings"], 0);
            let grants = output(&["asl", "grants", file.to_str().unwrap(), "--role", "new"], 0);
            assert!(grants.contains(operation), "{language}: {grants}");
        }
    }
    let policies = home.path().join("policies");
    fs::create_dir(&policies).unwrap();
    let directory = policies.to_str().unwrap();
    let key = r#"shop/orders=["{claims.tenant}"]"#;
    output(&["asl", "grants", DEMO, "--issuer", "local", "--partition-key", key, "--output", directory], 0);
    output(&["policy", "test", directory, "--min-coverage", "100", "--mutate"], 0);
    output(&["asl", "lint", DEMO, "--policies", directory, "--deny-warnings"], 0);
}

#[test]
fn rules_are_explained() {
    assert!(output(&["asl", "rules", "lost-update"], 0).contains("x-stepgate-if-match"));
    assert!(output(&["asl", "rules", "lost-updat"], 1).contains("lost-update"));
    assert_eq!(output(&["asl", "rules"], 0), fs::read_to_string("docs/asl.md").unwrap());
}
