//! From definitions to findings.

use std::collections::{HashMap, HashSet};

use serde::Serialize;
use url::Url;

use super::{
    check::{Check, Spot},
    definition::Definition,
    permits::{Permits, Policies},
    rules::{RULES, Rule, rule},
    suppress::suppressions,
};
use crate::{
    access::Operation,
    diagnostic::{Diagnostic, Severity, Source},
    policy::{Clause, Held},
};

/// What definitions are checked against.
#[derive(Debug, Default)]
pub struct Options<'a> {
    /// The gateway's address: calls below it are calls of the gateway, whatever their path looks like.
    pub public_url: Option<&'a Url>,
    /// The policies.
    pub policies: Option<&'a Policies>,
}

/// What was found.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Report {
    /// By file and place.
    pub findings: Vec<Finding>,
    /// What the definitions say is meant.
    pub suppressed: Vec<Suppressed>,
}

/// A finding of a rule.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Finding {
    /// The rule's id.
    pub rule: &'static str,
    /// What, where, and the mend.
    #[serde(flatten)]
    pub diagnostic: Diagnostic,
}

/// A finding that is meant.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Suppressed {
    /// The finding.
    #[serde(flatten)]
    pub finding: Finding,
    /// Why it is meant.
    pub reason: String,
}

impl Report {
    /// How many findings there are of a severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.diagnostic.severity == severity).count()
    }
}

/// Checks definitions against every rule. What cannot be read is a finding too.
pub fn lint(sources: Vec<Source>, options: &Options<'_>) -> Report {
    let mut report = Report::default();
    let mut definitions = Vec::new();
    for source in sources {
        match Definition::read(source) {
            Ok(definition) => definitions.push(definition),
            Err(diagnostic) => report.findings.push(Finding { rule: "structure", diagnostic }),
        }
    }
    let mut held = Usage::default();
    for definition in &definitions {
        let mut check = Check::of(definition, options.public_url);
        check.permits = options.policies.map(|policies| Permits::of(&check, policies));
        if let Some(permits) = &check.permits {
            held.note(permits);
        }
        report.add(&check);
    }
    if let Some(policies) = options.policies {
        report.findings.extend(held.unused(policies));
    }
    report.findings.sort_by(|a, b| key(a).cmp(&key(b)));
    report
}

fn key(finding: &Finding) -> (&std::path::Path, u64, u64, &str) {
    let Diagnostic { file, line, column, message, .. } = &finding.diagnostic;
    (file, *line, *column, message)
}

impl Report {
    fn add(&mut self, check: &Check<'_>) {
        let found = RULES.iter().filter_map(|rule| Some((rule, rule.find?(check))));
        let found: Vec<(&Rule, Spot)> =
            found.flat_map(|(rule, spots)| spots.into_iter().map(move |spot| (rule, spot))).collect();
        let (suppressions, malformed) = suppressions(check);
        let mut used = HashSet::new();
        // A line that holds a credential is not shown, by whichever rule.
        let secret: HashSet<u64> = found
            .iter()
            .filter(|(rule, _)| rule.id == "inline-secret")
            .map(|(_, s)| check.definition.place(&s.path).line)
            .collect();
        let make = |rule: &'static Rule, spot: &Spot| {
            let place = check.definition.place(&spot.path);
            let mut diagnostic =
                check.definition.source().at(rule.severity, place, &spot.message, Some(spot.mend.clone()));
            if secret.contains(&place.line) {
                diagnostic.excerpt = None;
            }
            Finding { rule: rule.id, diagnostic }
        };
        for (rule, spot) in found {
            let Some(rule) = super::rules::rule(rule.id) else { continue };
            let finding = make(rule, &spot);
            match suppressions.iter().position(|suppression| suppression.covers(rule.id, &spot)) {
                Some(position) => {
                    used.insert(position);
                    let reason = suppressions.get(position).map(|s| s.reason.clone()).unwrap_or_default();
                    self.suppressed.push(Suppressed { finding, reason });
                }
                None => self.findings.push(finding),
            }
        }
        let unused = suppressions.iter().enumerate().filter(|(position, _)| !used.contains(position));
        let unused = unused.map(|(_, suppression)| ("unused-suppression", suppression.unused()));
        let told = malformed.into_iter().map(|spot| ("suppression", spot)).chain(unused);
        self.findings.extend(told.filter_map(|(id, spot)| Some(make(rule(id)?, &spot))));
    }
}

/// Which grants the definitions' workloads hold, and which operations of them the definitions need.
#[derive(Default)]
struct Usage {
    held: Vec<Held>,
    used: HashMap<Clause, HashSet<Operation>>,
    workloads: HashSet<String>,
}

impl Usage {
    fn note(&mut self, permits: &Permits) {
        self.workloads.extend(permits.workload.clone());
        for grant in &permits.grants {
            if self.held.iter().all(|held| held.clause != grant.clause) {
                self.held.push(grant.clone());
            }
        }
        for (clause, operations) in permits.used() {
            self.used.entry(clause.clone()).or_default().extend(operations);
        }
    }

    fn unused(&self, policies: &Policies) -> Vec<Finding> {
        let unused = self.held.iter().filter_map(|held| {
            let used = self.used.get(&held.clause);
            let idle = held.operations.iter().filter(|operation| !used.is_some_and(|used| used.contains(operation)));
            let idle: Vec<&str> = idle.map(|operation| operation.as_str()).collect();
            (!idle.is_empty()).then(|| self.finding(policies, held, &idle))
        });
        unused.collect()
    }

    fn finding(&self, policies: &Policies, held: &Held, idle: &[&str]) -> Finding {
        let (file, line) = held.clause.place.rsplit_once(':').unwrap_or((&held.clause.place, "0"));
        let role = &held.clause.name;
        let diagnostic = Diagnostic {
            severity: Severity::Warning,
            file: policies.directory.join(file),
            line: line.parse().unwrap_or_default(),
            column: 1,
            length: 0,
            message: format!(
                "`{role}` grants {} on {}, which no definition given here uses",
                idle.join(", "),
                held.container
            ),
            mend: Some("take it out of the grant, or give all definitions that run under it".to_owned()),
            excerpt: None,
        };
        Finding { rule: "unused-grant", diagnostic }
    }
}
