//! The workflow of `stepgate demo` as a state machine: right as it stands, wrong in ten ways, and what it needs of the policies.

use std::{fs, path::Path};

use super::{found, policies_in};
use crate::{
    asl::{Binding, Definition, Options, Report, grants, lint},
    diagnostic::Source,
    policy::{Config, diff, load, mutate, run_cases},
};

const DEFINITION: &str = include_str!("../../../tests/asl/demo/fulfil.asl.json");
const POLICY: &str = include_str!("../../../tests/asl/demo/fulfil.yaml");

fn source(text: &str) -> Source {
    Source { file: "fulfil.asl.json".into(), text: text.into() }
}

fn lint_text(text: &str) -> Report {
    lint(vec![source(text)], &Options::default())
}

#[test]
fn ten_ways_to_be_wrong_are_each_found() {
    assert!(lint_text(DEFINITION).findings.is_empty(), "{:#?}", lint_text(DEFINITION).findings);
    let ways = [
        ("\"x-stepgate-if-match.$\"", "\"If-Match.$\"", "forbidden-header"),
        ("\"x-stepgate-if-match.$\": \"$.order.Headers.etag[0]\"", "\"x-note\": \"\"", "lost-update"),
        ("\"x-stepgate-execution.$\": \"$$.Execution.Id\"", "\"x-note\": \"\"", "missing-context"),
        ("\"$$.Execution.Id\"", "\"$$.Execution.Name\"", "wrong-context"),
        ("\"https://stepgate", "\"http://stepgate", "plain-http"),
        ("\"States.Http.StatusCode.429\",", "", "missing-retry"),
        ("\"JitterStrategy\": \"FULL\"", "\"JitterStrategy\": \"NONE\"", "hasty-retry"),
        (
            "\"States.Http.StatusCode.429\"",
            "\"States.Http.StatusCode.429\", \"States.Http.StatusCode.409\"",
            "hopeless-retry",
        ),
        ("{\"ErrorEquals\": [\"States.Http.StatusCode.409\"], \"Next\": \"Shipped\"},", "", "repeated-write"),
        ("\"Next\": \"NoteShipment\"", "\"Next\": \"NoteShipments\"", "structure"),
    ];
    for (right, wrong, rule) in ways {
        let text = DEFINITION.replace(right, wrong);
        assert!(text != DEFINITION, "{right} is not there");
        let report = lint_text(&text);
        assert!(found(&report).contains(&rule), "{rule}: {:#?}", report.findings);
        let at = report.findings.iter().find(|finding| finding.rule == rule).unwrap();
        assert!(at.diagnostic.line > 1 && at.diagnostic.mend.is_some(), "{at}");
    }
}

fn binding() -> Binding {
    Binding {
        role: "fulfil".into(),
        issuer: "local".into(),
        claims: [("client_id".to_owned(), "fulfilment".into())].into_iter().collect(),
        partition_keys: [("*".to_owned(), vec!["{claims.tenant}".into()])].into_iter().collect(),
        state_machine: None,
        states: false,
    }
}

fn made(binding: &Binding) -> crate::asl::Policy {
    grants(&[Definition::read(source(DEFINITION)).unwrap()], &Options::default(), binding)
}

#[test]
fn the_grants_it_needs_are_exactly_its_policy() {
    let made = made(&binding());
    let written =
        POLICY.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect::<String>();
    assert_eq!(made.policy, written);
    assert!(made.warnings.is_empty());
}

#[test]
fn what_is_made_loads_and_its_tests_notice_every_change() {
    let narrow = Binding {
        state_machine: Some("arn:aws:states:us-east-1:111122223333:stateMachine:Fulfil".into()),
        states: true,
        ..binding()
    };
    for binding in [binding(), Binding { partition_keys: Default::default(), ..binding() }, narrow] {
        let made = made(&binding);
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("fulfil.yaml"), &made.policy).unwrap();
        fs::write(home.path().join("fulfil.test.yaml"), &made.tests).unwrap();
        let set = load(&Config { directory: home.path().to_owned(), issuers: None }).unwrap();
        let report = run_cases(&set, home.path()).unwrap();
        assert_eq!((report.failed, report.uncovered.as_slice()), (0, [].as_slice()), "{}{report:#?}", made.policy);
        let mutation = mutate(home.path(), home.path()).unwrap();
        assert!(mutation.survivors.is_empty(), "{}{}{mutation:#?}", made.policy, made.tests);

        let policies = policies_in(home.path());
        let options = Options { policies: Some(&policies), ..Options::default() };
        let report = lint(vec![source(DEFINITION)], &options);
        assert!(report.findings.is_empty(), "{:#?}", report.findings);
    }
}

#[test]
fn the_shop_grants_it_and_more() {
    let policies = policies_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join("policies"));
    let options = Options { policies: Some(&policies), ..Options::default() };
    let report = lint(vec![source(DEFINITION)], &options);
    let idle: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
    assert_eq!(found(&report), ["unused-grant"], "{idle:#?}");
    assert!(idle[0].contains("`order-writer` grants items/create, items/replace"), "{idle:#?}");

    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("fulfil.yaml"), POLICY).unwrap();
    let widened = diff(&policies.set, &load(&Config { directory: home.path().to_owned(), issuers: None }).unwrap());
    assert!(widened.gains.is_empty(), "{:#?}", widened.gains);
}

#[test]
fn the_workflow_of_the_peers_is_clean() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers");
    let file = root.join("asl/order.asl.json");
    let policies = policies_in(&root.join("policies"));
    let options = Options { policies: Some(&policies), ..Options::default() };
    let report = lint(vec![Source { text: fs::read_to_string(&file).unwrap().into(), file }], &options);
    assert_eq!(found(&report), ["unused-grant"], "{:#?}", report.findings);
}
