//! `docs/asl.md`, made from the table of rules.

use std::fmt::Write as _;

use super::rules::{Example, RULES, Rule};
use crate::diagnostic::Severity;

const PAGE: &str = include_str!("page.md");
const DEFINITION: &str = include_str!("rules/examples/definition.asl.yaml");

/// The page.
pub fn page() -> String {
    let table: String = RULES.iter().map(row).collect();
    let rules: Vec<_> = RULES.iter().map(section).collect();
    PAGE.replace("{table}\n", &table).replace("{rules}\n", &rules.join("\n")).replace("{definition}\n", DEFINITION)
}

/// A rule as the page has it.
pub fn section(rule: &Rule) -> String {
    let mut text = format!("### `{}`\n\n{}: {}.\n\n{}\n", rule.id, word(rule.severity), rule.title, rule.why);
    for (title, example) in [("Breaks it", rule.bad), ("Keeps it", rule.good)] {
        let kind = match example {
            Example::Definition(_) => "",
            Example::Policy(_) => ", the policy being",
        };
        let _ = write!(text, "\n{title}{kind}:\n\n```yaml\n{}```\n", example.text());
    }
    text
}

fn row(rule: &Rule) -> String {
    format!("| [`{}`](#{}) | {} | {} |\n", rule.id, rule.id, word(rule.severity).to_lowercase(), rule.title)
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "Error",
        Severity::Warning => "Warning",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_page_is_the_generated_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/asl.md");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(path, page()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(written == page(), "docs/asl.md is old: stepgate asl rules > docs/asl.md");
    }
}
