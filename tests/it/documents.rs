//! What is committed beside the code says what the code does: the example configurations and the schemas.

use std::{collections::BTreeSet, fs, path::PathBuf};

use serde_json::Value;
use stepgate::{
    answer::{Condition, OF_COSMOS, Row},
    config,
    diagnostic::Severity,
    telemetry::Metrics,
    upstream::{Effect, Next, RULES, Rule, When},
};

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
    let (_, examples) = page.split_once("## Eleven worked examples").unwrap();
    let blocks = blocks_in(examples);
    let headings: BTreeSet<&String> = blocks.iter().map(|(heading, _)| heading).collect();
    assert_eq!((headings.len(), blocks.len()), (11, 22));
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

/// The page with the text between the marks of `table` replaced.
fn with_table(page: &str, table: &str, rows: &[String]) -> String {
    let begin = format!("<!-- table: {table} -->\n");
    let (before, rest) = page.split_once(&begin).unwrap_or_else(|| panic!("the page has no table `{table}`"));
    let (_, after) = rest.split_once("<!-- end -->").unwrap();
    format!("{before}{begin}{}\n<!-- end -->{after}", rows.join("\n"))
}

fn conditions() -> Vec<String> {
    let mut rows: Vec<_> = Condition::ALL.into_iter().map(Condition::row).collect();
    rows.sort_by_key(|row| row.distinct);
    let head = ["| code | `error` | for Cosmos clients | means | retry |", "|---|---|---|---|---|"];
    let line = |row: &Row| {
        let Row { error, distinct, cosmos, retry, means } = row;
        format!("| {distinct} | `{error}` | {cosmos} | {means} | {} |", retry.as_str())
    };
    head.map(str::to_owned).into_iter().chain(rows.iter().map(line)).collect()
}

fn substatuses(list: &[u32]) -> String {
    if list.is_empty() { "any".into() } else { list.iter().map(u32::to_string).collect::<Vec<_>>().join(", ") }
}

fn answers_of_cosmos() -> Vec<String> {
    let head = ["| status | substatus | `error` | for workflows |", "|---|---|---|---|"];
    let line = |(status, list, condition): &(u16, &[u32], Condition)| {
        let row = condition.row();
        format!("| {status} | {} | `{}` | {} |", substatuses(list), row.error, row.distinct)
    };
    head.map(str::to_owned).into_iter().chain(OF_COSMOS.iter().map(line)).collect()
}

fn retries() -> Vec<String> {
    let head = ["| cause | when | effect | where | repeats | longest wait |", "|---|---|---|---|---|---|"];
    let line = |rule: &Rule| {
        let when = match rule.when {
            When::Status(status, []) => status.to_string(),
            When::Status(status, list) => format!("{status} with substatus {}", substatuses(list)),
            When::FromCosmos(status) => format!("{status} that Cosmos itself sent"),
            When::NotConnected => "no connection".into(),
            When::Lost => "the connection broke, or no answer in the attempt's time".into(),
        };
        let effect = match rule.effect {
            Effect::None => "none",
            Effect::Unknown => "unknown",
        };
        let next = match rule.next {
            Next::Again => "again",
            Next::Elsewhere => "elsewhere",
            Next::WriteRegion => "write region",
        };
        let Rule { word, repeats, first_wait, .. } = rule;
        format!("| `{word}` | {when} | {effect} | {next} | {repeats} | {} ms |", first_wait.as_millis())
    };
    head.map(str::to_owned).into_iter().chain(RULES.iter().map(line)).collect()
}

#[test]
fn the_page_of_answers_is_made_from_the_tables() {
    let file = committed("docs/answers.md");
    let written = fs::read_to_string(&file).unwrap();
    let page = with_table(&written, "conditions", &conditions());
    let page = with_table(&page, "cosmos", &answers_of_cosmos());
    let page = with_table(&page, "retries", &retries());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&file, &page).unwrap();
    }
    let written = fs::read_to_string(&file).unwrap();
    assert!(page == written, "docs/answers.md is old: UPDATE_GOLDEN=1 cargo test --test it documents");
}

#[test]
fn the_operations_page_lists_every_metric() {
    let page = fs::read_to_string(committed("docs/operations.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| `stepgate_"));
    let listed: BTreeSet<&str> = rows.filter_map(|line| line.split('`').nth(1)).collect();
    let metrics = Metrics::default();
    let registered: BTreeSet<&str> = metrics.names().collect();
    assert!(registered.len() > 20, "{registered:?}");
    assert_eq!(listed, registered, "docs/operations.md on the left, src/telemetry/metrics.rs on the right");
}
