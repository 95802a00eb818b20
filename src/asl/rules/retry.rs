//! What is tried again, how, and whether that can do harm.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::request::form;
use crate::{
    access::Operation,
    answer::{Condition, Retry},
    asl::{
        check::{Check, Spot},
        definition::{State, member, texts},
        task::{Call, Patched, Task},
    },
    identity::WORKFLOW_HEADER,
};

/// The outcome is not known: the write may stand.
const UNKNOWN_OUTCOME: [&str; 3] = ["States.Http.StatusCode.504", "States.Http.Socket", "States.Timeout"];
/// How often a retrier tries unless it says otherwise.
const DEFAULT_ATTEMPTS: u64 = 3;

/// The codes with which the same request may succeed later. 498 wants a new token first.
fn retryable() -> BTreeSet<u16> {
    codes(|condition| matches!(condition.row().retry, Retry::Once | Retry::Yes | Retry::WithCare))
}

/// The codes with which it never will. An item that is not there (404) may come: waiting for one is a pattern of its own.
fn hopeless() -> BTreeSet<u16> {
    codes(|condition| !condition.is_retryable() && condition != Condition::NotFound)
}

fn codes(wanted: impl Fn(Condition) -> bool) -> BTreeSet<u16> {
    Condition::ALL.into_iter().filter(|condition| wanted(*condition)).map(code_of).collect()
}

fn code_of(condition: Condition) -> u16 {
    condition.row().distinct
}

fn name_of(code: u16) -> String {
    format!("States.Http.StatusCode.{code}")
}

fn shown(codes: &[u16]) -> String {
    codes.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
}

/// Whether a list of error names covers an error.
pub(super) fn covers(names: &[&str], error: &str) -> bool {
    let beyond_all = matches!(error, "States.DataLimitExceeded" | "States.Runtime");
    names.iter().any(|name| match *name {
        "States.ALL" => !beyond_all,
        "States.TaskFailed" => !beyond_all && error != "States.Timeout",
        name => name == error,
    })
}

/// A retrier of a state.
struct Retrier<'a> {
    path: String,
    written: &'a Map<String, Value>,
    errors: Vec<&'a str>,
    attempts: u64,
}

fn retriers<'a>(state: &State<'a>) -> Vec<Retrier<'a>> {
    let list = state.list("Retry").iter().enumerate();
    let retriers = list.filter_map(|(number, retrier)| {
        let written = retrier.as_object()?;
        Some(Retrier {
            path: member(&state.at("Retry"), &number.to_string()),
            written,
            errors: texts(written, "ErrorEquals"),
            attempts: written.get("MaxAttempts").and_then(Value::as_u64).unwrap_or(DEFAULT_ATTEMPTS),
        })
    });
    retriers.collect()
}

/// The retrier that decides on an error: the first that covers it.
fn deciding<'r, 'a>(retriers: &'r [Retrier<'a>], error: &str) -> Option<&'r Retrier<'a>> {
    retriers.iter().find(|retrier| covers(&retrier.errors, error))
}

pub(super) fn missing_retry(check: &Check<'_>) -> Vec<Spot> {
    let mut spots = Vec::new();
    for (task, state, call) in check.calls() {
        let mut wanted = retryable();
        match form(&task.headers) {
            // There everything else comes inside a 200.
            Some("envelope") => wanted.retain(|code| *code == code_of(Condition::InvalidToken)),
            Some("cosmos") => continue,
            _ => {}
        }
        if call.is_write() && !is_repeatable(check, task, state, call) {
            wanted.remove(&code_of(Condition::Timeout));
        }
        if task.headers.get(WORKFLOW_HEADER.as_str()).is_some() {
            wanted.remove(&code_of(Condition::InvalidToken));
        }
        let retriers = retriers(state);
        let is_tried = |code: &u16| deciding(&retriers, &name_of(*code)).is_some_and(|retrier| retrier.attempts > 0);
        let missing: Vec<u16> = wanted.into_iter().filter(|code| !is_tried(code)).collect();
        if !missing.is_empty() {
            let path = if state.written.contains_key("Retry") { state.at("Retry") } else { state.path.clone() };
            let message = format!("`{}` does not try again on {}, which pass", state.name, shown(&missing));
            let names: Vec<_> = missing.iter().map(|code| format!("\"{}\"", name_of(*code))).collect();
            spots.push(Spot::new(path, message, format!("retry {} with backoff, jitter and a cap", names.join(", "))));
        }
    }
    spots
}

pub(super) fn hasty_retry(check: &Check<'_>) -> Vec<Spot> {
    let mut spots = Vec::new();
    for (_, state, _) in check.calls() {
        for retrier in retriers(state) {
            let waits = retryable().into_iter().any(|code| covers(&retrier.errors, &name_of(code)));
            if !waits || retrier.attempts < 2 {
                continue;
            }
            let written = |name: &str| retrier.written.get(name);
            let constant = written("BackoffRate").and_then(Value::as_f64).is_some_and(|rate| rate <= 1.0);
            let in_step = written("JitterStrategy").is_none_or(|strategy| strategy == "NONE");
            let lacks = [
                (constant, "backoff (BackoffRate: 2)"),
                (in_step, "jitter (JitterStrategy: FULL)"),
                (written("MaxDelaySeconds").is_none(), "a cap (MaxDelaySeconds: 30)"),
            ];
            let lacks: Vec<_> = lacks.into_iter().filter(|(lacks, _)| *lacks).map(|(_, what)| what).collect();
            if !lacks.is_empty() {
                let message = format!("`{}` tries again without {}", state.name, lacks.join(" and without "));
                let mend =
                    "set what is missing, so that executions that were throttled together do not come back together";
                spots.push(Spot::new(&retrier.path, message, mend));
            }
        }
    }
    spots
}

pub(super) fn hopeless_retry(check: &Check<'_>) -> Vec<Spot> {
    let mut spots = Vec::new();
    for (_, state, _) in check.calls() {
        let retriers = retriers(state);
        for retrier in retriers.iter().filter(|retrier| retrier.attempts > 0) {
            let decides = |code: &u16| {
                deciding(&retriers, &name_of(*code)).is_some_and(|deciding| std::ptr::eq(deciding, retrier))
            };
            let tried: Vec<u16> = hopeless().into_iter().filter(decides).collect();
            if !tried.is_empty() {
                let message = format!(
                    "`{}` tries again on {}, which the same request can only get again",
                    state.name,
                    shown(&tried)
                );
                let mend = if retrier.errors.iter().any(|name| name.starts_with("States.Http.StatusCode.")) {
                    "retry only the codes that pass, and catch these"
                } else {
                    "name the codes to retry instead of all errors, or put a retrier with MaxAttempts: 0 for these before it"
                };
                spots.push(Spot::new(&retrier.path, message, mend));
            }
        }
    }
    spots
}

pub(super) fn repeated_write(check: &Check<'_>) -> Vec<Spot> {
    let mut spots = Vec::new();
    for (task, state, call) in check.calls() {
        if !call.is_write() || is_repeatable(check, task, state, call) {
            continue;
        }
        for (error, retrier) in repeating(&retriers(state)) {
            let message = format!(
                "`{}` sends {} again after {error}, when the first may have been done",
                state.name, call.action
            );
            spots.push(Spot::new(&retrier.path, message, mend_of(call)));
        }
    }
    spots
}

/// The retriers that send a request again whose outcome is not known, each with the first error on which it does.
fn repeating<'r, 'a>(retriers: &'r [Retrier<'a>]) -> Vec<(&'static str, &'r Retrier<'a>)> {
    let decides = UNKNOWN_OUTCOME.iter().filter_map(|error| Some((*error, deciding(retriers, error)?)));
    let mut repeating: Vec<(&str, &Retrier<'_>)> = decides.filter(|(_, retrier)| retrier.attempts > 0).collect();
    repeating.dedup_by(|(_, a), (_, b)| std::ptr::eq(*a, *b));
    repeating
}

/// Whether a call needs a grant that keeps its write to once: it sends a key for that, or is sent again where twice is more.
pub(in crate::asl) fn wants_once(check: &Check<'_>, task: &Task<'_>, state: &State<'_>, call: &Call) -> bool {
    call.operation().is_some_and(Operation::can_be_idempotent)
        && (call.idempotency.is_some()
            || (!is_repeatable(check, task, state, call) && !repeating(&retriers(state)).is_empty()))
}

fn mend_of(call: &Call) -> &'static str {
    match call.operation() {
        Some(Operation::Execute) => "do not retry it on an unknown outcome: a stored procedure cannot be kept to once",
        Some(Operation::ItemsCreate) => {
            "say `idempotency: on` in the grant and send an `idempotency-key`, or catch 409 as done"
        }
        _ => {
            "say `idempotency: on` in the grant and send an `idempotency-key`, or demand the etag by x-stepgate-if-match"
        }
    }
}

/// Whether sending a write twice does no more than sending it once.
fn is_repeatable(check: &Check<'_>, task: &Task<'_>, state: &State<'_>, call: &Call) -> bool {
    let Some(operation) = call.operation() else { return true };
    if check.is_idempotent(task, call) {
        return true;
    }
    match operation {
        Operation::ItemsUpsert | Operation::ItemsReplace | Operation::ItemsDelete => true,
        Operation::ItemsPatch => {
            call.conditional || call.items.iter().all(|item| item.patched.as_deref().is_some_and(sets))
        }
        Operation::ItemsCreate => {
            catches_conflict(state) && !call.items.iter().any(|item| item.id.as_ref().is_none_or(is_new))
        }
        Operation::ItemsRead | Operation::Query | Operation::Feed => true,
        Operation::Batch | Operation::Execute => false,
    }
}

/// Whether a patch only says what its members shall be.
fn sets(operations: &[Patched]) -> bool {
    operations.iter().all(|patched| {
        let in_list = patched.path.rsplit('/').next().is_some_and(|last| last == "-" || last.parse::<u32>().is_ok());
        matches!(patched.op.as_str(), "set" | "replace") || (patched.op == "add" && !in_list)
    })
}

fn catches_conflict(state: &State<'_>) -> bool {
    let conflict = name_of(code_of(Condition::Conflict));
    state.caught.iter().any(|(errors, _)| errors.contains(&conflict.as_str()))
}

/// Whether an id is another at each attempt.
fn is_new(id: &crate::asl::text::Text) -> bool {
    id.expressions().any(|expression| {
        ["States.UUID", "$uuid", "$random", "States.MathRandom", "$now", "$millis"]
            .iter()
            .any(|f| expression.contains(f))
    })
}

pub(super) fn data_limit(check: &Check<'_>) -> Vec<Spot> {
    const ERROR: &str = "States.DataLimitExceeded";
    let mut spots = Vec::new();
    for (task, state, call) in check.calls() {
        let around = state.within.iter().filter_map(|around| check.graph.state(around.state));
        let mut catchers = around.chain([state]).flat_map(|state| &state.caught);
        let is_caught = catchers.any(|(errors, _)| errors.contains(&ERROR));
        let own_all = state.caught.iter().any(|(errors, _)| errors.contains(&"States.ALL"));
        if is_caught || (call.is_write() && !own_all) || form(&task.headers) == Some("cosmos") {
            continue;
        }
        let path = if state.written.contains_key("Catch") { state.at("Catch") } else { state.path.clone() };
        let message = format!(
            "nothing catches {ERROR} of `{}`, and States.ALL does not: a state that grows over 256 KiB ends the execution",
            state.name
        );
        spots.push(Spot::new(path, message, format!("add a catcher that names {ERROR}")));
    }
    spots
}

pub(super) fn long_timeout(check: &Check<'_>) -> Vec<Spot> {
    let mut spots = Vec::new();
    for (_, state) in check.http_tasks() {
        let seconds = state.written.get("TimeoutSeconds").and_then(Value::as_u64);
        if let Some(seconds) = seconds.filter(|seconds| *seconds > 60) {
            let message =
                format!("`{}` allows {seconds} s, but an HTTP Task ends after 60 with States.Http.Socket", state.name);
            let mend = "write 60 or less; for longer work let the request start it, and wait in the workflow";
            spots.push(Spot::new(state.at("TimeoutSeconds"), message, mend));
        }
    }
    spots
}

pub(super) fn uncaught_write(check: &Check<'_>) -> Vec<Spot> {
    let writes: Vec<(&Task<'_>, &State<'_>)> =
        check.calls().filter(|(_, _, call)| call.is_write()).map(|(task, state, _)| (task, state)).collect();
    let mut spots = Vec::new();
    for (task, state) in &writes {
        let around = state.within.iter().filter_map(|around| check.graph.state(around.state));
        if around.chain([*state]).any(|state| !state.list("Catch").is_empty()) {
            continue;
        }
        let later = check.graph.reachable(&state.next, |_| true);
        let is_last = !writes.iter().any(|(other, _)| other.state != task.state && later.contains(&other.state));
        if is_last {
            let message = format!(
                "`{}` is the last to write, and when it fails nothing says or undoes what was done before",
                state.name
            );
            spots.push(Spot::new(&state.path, message, "add a Catch that records the failure or makes up for it"));
        }
    }
    spots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_come_from_the_table_of_conditions() {
        assert_eq!(retryable().into_iter().collect::<Vec<_>>(), [401, 425, 429, 502, 503, 504]);
        assert_eq!(hopeless().into_iter().collect::<Vec<_>>(), [400, 403, 409, 412, 413, 422, 424, 507]);
    }

    #[test]
    fn all_is_not_all() {
        assert!(covers(&["States.ALL"], "States.Timeout") && !covers(&["States.ALL"], "States.DataLimitExceeded"));
        assert!(
            covers(&["States.TaskFailed"], "States.Http.Socket") && !covers(&["States.TaskFailed"], "States.Timeout")
        );
    }
}
