//! A report, for people and for programs.

use std::fmt;

use serde_json::{Value, json};

use super::{
    lint::{Finding, Report, Suppressed},
    rules::RULES,
};
use crate::{
    diagnostic::{Diagnostic, Severity},
    transport::percent_encode,
};

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = format!("{} [{}]", self.diagnostic.message, self.rule);
        Diagnostic { message, ..self.diagnostic.clone() }.fmt(f)
    }
}

impl Report {
    /// One JSON document: `{"errors", "warnings", "findings", "suppressed"}`.
    pub fn to_json(&self) -> Value {
        json!({
            "errors": self.count(Severity::Error),
            "warnings": self.count(Severity::Warning),
            "findings": self.findings,
            "suppressed": self.suppressed,
        })
    }

    /// A SARIF 2.1.0 log, as code scanning takes it.
    pub fn to_sarif(&self) -> Value {
        let results = self.findings.iter().map(|finding| sarif_result(finding, None));
        let suppressed =
            self.suppressed.iter().map(|Suppressed { finding, reason }| sarif_result(finding, Some(reason)));
        let rules: Vec<Value> = RULES
            .iter()
            .map(|rule| {
                json!({
                    "id": rule.id,
                    "shortDescription": { "text": rule.title },
                    "fullDescription": { "text": rule.why },
                    "help": { "text": format!("Breaks it:\n\n{}\nKeeps it:\n\n{}", rule.bad.text(), rule.good.text()) },
                    "defaultConfiguration": { "level": level(rule.severity) },
                })
            })
            .collect();
        json!({
            "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
            "version": "2.1.0",
            "runs": [{
                "tool": { "driver": { "name": "stepgate", "version": env!("CARGO_PKG_VERSION"), "rules": rules } },
                "columnKind": "unicodeCodePoints",
                "results": results.chain(suppressed).collect::<Vec<_>>(),
            }],
        })
    }
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

fn sarif_result(finding: &Finding, reason: Option<&String>) -> Value {
    let Diagnostic { severity, file, line, column, length, message, mend, .. } = &finding.diagnostic;
    let text = mend.as_ref().map_or_else(|| message.clone(), |mend| format!("{message}\nmend: {mend}"));
    let mut location = json!({ "artifactLocation": { "uri": uri(file) } });
    if let (true, Some(members)) = (*line > 0, location.as_object_mut()) {
        let end = column + u64::from((*length).max(1));
        members.insert("region".to_owned(), json!({ "startLine": line, "startColumn": column, "endColumn": end }));
    }
    let mut result = json!({
        "ruleId": finding.rule,
        "ruleIndex": RULES.iter().position(|rule| rule.id == finding.rule),
        "level": level(*severity),
        "message": { "text": text },
        "locations": [{ "physicalLocation": location }],
    });
    if let (Some(reason), Some(members)) = (reason, result.as_object_mut()) {
        members.insert("suppressions".to_owned(), json!([{ "kind": "inSource", "justification": reason }]));
    }
    result
}

/// A path as a relative reference of a URI, or a file URI.
fn uri(file: &std::path::Path) -> String {
    let file = file.to_string_lossy();
    let encoded: Vec<String> = file.split('/').map(|part| percent_encode(part).to_string()).collect();
    let path = encoded.join("/");
    if path.starts_with('/') { format!("file://{path}") } else { path }
}
