//! Each rule's examples: the bad one breaks that rule and no other, the good one none.

use super::{found, lint_value, merge, policies, yaml};
use crate::asl::{Example, Options, RULES};

const DEFINITION: &str = include_str!("../rules/examples/definition.asl.yaml");

fn rules_broken(example: Example) -> (Vec<&'static str>, String) {
    let mut definition = yaml(DEFINITION);
    let policies = match example {
        Example::Definition(change) => {
            merge(&mut definition, &yaml(change));
            None
        }
        Example::Policy(text) => Some(policies(text)),
    };
    let report = lint_value(&definition, &Options { policies: policies.as_ref(), ..Options::default() });
    let shown: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
    (found(&report), shown.join("\n"))
}

#[test]
fn a_bad_example_breaks_its_rule_alone() {
    for rule in RULES {
        let (broken, shown) = rules_broken(rule.bad);
        assert_eq!(broken, [rule.id], "{shown}");
    }
}

#[test]
fn a_good_example_breaks_none() {
    for rule in RULES {
        let (broken, shown) = rules_broken(rule.good);
        assert!(broken.is_empty(), "{}: {shown}", rule.id);
    }
}
