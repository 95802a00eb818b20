//! Findings that a definition says are meant: `stepgate-lint: allow RULE because REASON`, in a Comment.

use serde_json::Value;

use super::{
    check::{Check, Spot},
    definition::member,
    rules::{self, RULES},
};

const MARK: &str = "stepgate-lint:";

/// One suppression.
#[derive(Debug)]
pub(super) struct Suppression {
    /// The comment.
    pub(super) path: String,
    /// What it covers: everything below this path.
    scope: String,
    rule: &'static str,
    pub(super) reason: String,
}

impl Suppression {
    pub(super) fn covers(&self, rule: &str, spot: &Spot) -> bool {
        let below = spot.path.strip_prefix(&self.scope);
        self.rule == rule
            && (self.scope.is_empty() || below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
    }

    pub(super) fn unused(&self) -> Spot {
        let message = format!("nothing here breaks `{}`, which this comment allows", self.rule);
        Spot::new(&self.path, message, "remove the comment")
    }
}

/// The suppressions of a definition, and what is wrong with those that are none.
pub(super) fn suppressions(check: &Check<'_>) -> (Vec<Suppression>, Vec<Spot>) {
    let machines = check.graph.machines.iter().map(|machine| (&machine.path, machine.written));
    let states = check.graph.states.iter().map(|state| (&state.path, state.written));
    let (mut found, mut spots) = (Vec::new(), Vec::new());
    for (scope, written) in machines.chain(states) {
        let Some(comment) = written.get("Comment").and_then(Value::as_str) else { continue };
        let path = member(scope, "Comment");
        for directive in comment.split(MARK).skip(1).map(|text| text.lines().next().unwrap_or_default().trim()) {
            match read(directive) {
                Ok((rules, reason)) => found.extend(rules.into_iter().map(|rule| Suppression {
                    path: path.clone(),
                    scope: scope.clone(),
                    rule,
                    reason: reason.to_owned(),
                })),
                Err(problem) => {
                    let mend = format!("write `{MARK} allow RULE because REASON`");
                    spots.push(Spot::new(&path, problem, mend));
                }
            }
        }
    }
    (found, spots)
}

/// `allow RULE[, RULE...] because REASON`
fn read(directive: &str) -> Result<(Vec<&'static str>, &str), String> {
    let allowed = directive.strip_prefix("allow ").ok_or("this is no suppression: it does not say `allow`")?;
    let (names, reason) = allowed.split_once(" because ").unwrap_or((allowed, ""));
    if reason.trim().is_empty() {
        return Err(format!("`{}` is allowed without a reason", names.trim()));
    }
    let known = |name: &str| {
        rules::rule(name).map(|rule| rule.id).ok_or_else(|| {
            let all: Vec<_> = RULES.iter().map(|rule| rule.id).collect();
            format!("there is no rule `{name}`; the rules are {}", all.join(", "))
        })
    };
    let names = names.split(',').map(|name| known(name.trim()));
    Ok((names.collect::<Result<_, _>>()?, reason.trim()))
}
