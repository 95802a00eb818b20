//! Writes that can undo each other: by another execution between read and write, by another branch, by another iteration.

use serde_json::Value;

use crate::{
    access::Operation,
    asl::{
        check::{Check, Spot},
        definition::{Enclosure, Graph, Index, Part, State, member},
        task::{Call, Item, Partition, Task},
        text::{Language, Piece, Text, inside_jsonata},
    },
};

pub(super) fn lost_update(check: &Check<'_>) -> Vec<Spot> {
    let mut spots = Vec::new();
    let reads = check.calls().filter(|(_, _, call)| call.operation() == Some(Operation::ItemsRead));
    let reads: Vec<_> = reads.map(|(_, state, call)| (state, call)).collect();
    for (task, state, call) in check.calls() {
        if call.conditional || !matches!(call.operation(), Some(Operation::ItemsUpsert | Operation::ItemsReplace)) {
            continue;
        }
        let before = reads.iter().find(|(read_state, read)| {
            // What follows when the item was not there writes no item that was read.
            let reached = check.graph.reachable(&read_state.next, |_| true).contains(&task.state);
            reached && same_place(read, call) && (same_item(read, call) || writes_what_was_read(read_state, task))
        });
        if let Some((read_state, _)) = before {
            let message = format!(
                "`{}` writes the item that `{}` read, whatever has become of it since: a change in between is lost",
                state.name, read_state.name
            );
            let mend = "send the etag that was read as x-stepgate-if-match, catch 412, and read again";
            spots.push(Spot::new(&state.path, message, mend));
        }
    }
    spots
}

fn same_item(a: &Call, b: &Call) -> bool {
    let ids = |call: &Call| call.items.first().and_then(|item| item.id.clone());
    ids(a).is_some_and(|id| ids(b) == Some(id))
}

/// Whether two calls may be about the same partition of the same container.
fn same_place(a: &Call, b: &Call) -> bool {
    a.container == b.container
        && match (&a.partition, &b.partition) {
            (Some(Partition::Known(a)), Some(Partition::Known(b))) => a == b,
            (Some(Partition::Expression(a)), Some(Partition::Expression(b))) => a == b,
            _ => true,
        }
}

/// Whether a task's body is, as a whole, what a state before it read.
fn writes_what_was_read(read: &State<'_>, task: &Task<'_>) -> bool {
    let Some(parameters) = task.parameters else { return false };
    let body = parameters.get("RequestBody.$").or(parameters.get("RequestBody"));
    let Some(body) = body.and_then(Value::as_str) else { return false };
    let body = inside_jsonata(body).unwrap_or(body).replace("$states.input", "$");
    names_of_result(read).iter().any(|name| {
        body.match_indices(name.as_str()).any(|(at, found)| {
            !body
                .get(at + found.len()..)
                .is_some_and(|after| after.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
        })
    })
}

/// What the result of a read is called afterwards.
fn names_of_result(read: &State<'_>) -> Vec<String> {
    let assigned = read.written.get("Assign").and_then(Value::as_object).into_iter().flatten();
    let is_result =
        |value: &&Value| value.as_str().is_some_and(|text| text.contains("$states.result") || text.starts_with("$."));
    let mut names: Vec<String> = assigned
        .filter(|(_, value)| is_result(value))
        .map(|(name, _)| format!("${}", name.trim_end_matches(".$")))
        .collect();
    if read.language == Language::JsonPath {
        match read.written.get("ResultPath") {
            None => names.push("$.ResponseBody".to_owned()),
            Some(Value::String(path)) if path == "$" => names.push("$.ResponseBody".to_owned()),
            Some(Value::String(path)) => names.push(path.clone()),
            Some(_) => {}
        }
    }
    names
}

pub(super) fn parallel_race(check: &Check<'_>) -> Vec<Spot> {
    let mut spots = Vec::new();
    let calls: Vec<_> = check.calls().filter(|(_, _, call)| call.is_write()).collect();
    for (number, (_, state, call)) in calls.iter().enumerate() {
        for (_, other_state, other) in calls.iter().take(number) {
            let apart = branches_apart(state, other_state).and_then(|parallel| check.graph.state(parallel));
            let (Some(parallel), true) = (apart, same_place(call, other)) else { continue };
            if (call.conditional && other.conditional)
                || (call.idempotency.is_some() && call.idempotency == other.idempotency)
            {
                continue;
            }
            if let Some(id) = shared_item(call, other) {
                let message = format!(
                    "`{}` and `{}` run at the same time in `{}` and can write the same item {id} of {}: which is last decides",
                    other_state.name, state.name, parallel.name, call.container
                );
                let mend = "let one branch write it, or let both demand the etag by x-stepgate-if-match";
                spots.push(Spot::new(&state.path, message, mend));
            }
        }
    }
    spots
}

/// The Parallel in two branches of which the states stand.
fn branches_apart(a: &State<'_>, b: &State<'_>) -> Option<Index> {
    let pairs = a.within.iter().zip(&b.within);
    let apart = pairs.into_iter().find(|(a, b)| a != b);
    apart
        .filter(|(a, b)| a.state == b.state && matches!((a.part, b.part), (Part::Branch(_), Part::Branch(_))))
        .map(|(a, _)| a.state)
}

/// An item that both calls write, in a way that the order matters.
fn shared_item(a: &Call, b: &Call) -> Option<Text> {
    let writes =
        |call: &Call| -> Vec<Item> { call.items.iter().filter(|item| item.operation.is_write()).cloned().collect() };
    let others = writes(b);
    let shared = writes(a)
        .into_iter()
        .find(|item| item.id.is_some() && others.iter().any(|other| other.id == item.id && !are_apart(item, other)));
    shared.and_then(|item| item.id)
}

/// Whether two patches change different members, or only count.
fn are_apart(a: &Item, b: &Item) -> bool {
    let (Some(a), Some(b)) = (&a.patched, &b.patched) else { return false };
    let below = |a: &str, b: &str| a == b || a.strip_prefix(b).is_some_and(|rest| rest.starts_with('/'));
    a.iter().all(|a| {
        b.iter().all(|b| {
            let counts = a.op == "incr" && b.op == "incr";
            counts || !(below(&a.path, &b.path) || below(&b.path, &a.path))
        })
    })
}

pub(super) fn map_race(check: &Check<'_>) -> Vec<Spot> {
    let mut spots = Vec::new();
    for (_, state, call) in check.calls() {
        if !call.is_write() || call.conditional || call.idempotency.is_some() {
            continue;
        }
        let maps = state.within.iter().filter(|around| matches!(around.part, Part::Iteration { .. }));
        for around in maps {
            let Some(map) = check.graph.state(around.state) else { continue };
            if map.written.get("MaxConcurrency").and_then(Value::as_u64) == Some(1) {
                continue;
            }
            let iterations = Iterations { graph: &check.graph, around: *around, map };
            let same = call.items.iter().find(|item| {
                let counts = item.patched.as_ref().is_some_and(|patched| patched.iter().all(|p| p.op == "incr"));
                item.operation.is_write() && !counts && item.id.as_ref().is_some_and(|id| iterations.agree_on(id))
            });
            let partition_differs =
                matches!(&call.partition, Some(Partition::Expression(text)) if !iterations.agree_on(text));
            if let Some(id) = same.filter(|_| !partition_differs).and_then(|item| item.id.as_ref()) {
                let message = format!(
                    "every iteration of `{}` writes the same item {id} of {} in `{}`: which is last decides",
                    map.name, call.container, state.name
                );
                let mend = "take the id from the item of the iteration, collect the results and write once after the Map, or demand the etag";
                spots.push(Spot::new(&state.path, message, mend));
            }
        }
    }
    spots
}

/// The iterations of a Map.
struct Iterations<'c, 'a> {
    graph: &'c Graph<'a>,
    around: Enclosure,
    map: &'c State<'a>,
}

impl Iterations<'_, '_> {
    /// Whether a text is bound to be the same in all of them.
    fn agree_on(&self, text: &Text) -> bool {
        text.pieces().iter().all(|piece| match piece {
            Piece::Literal(_) | Piece::Substitution(_) => true,
            Piece::Dynamic(expression) => self.agree_on_expression(expression),
        })
    }

    fn agree_on_expression(&self, expression: &str) -> bool {
        // The children of a distributed Map are executions of their own.
        let distributed = self.around.part == Part::Iteration { distributed: true };
        if expression.starts_with("$$.StateMachine.") {
            return true;
        }
        if expression.starts_with("$$.Execution.") {
            return !distributed && !expression.contains(['(', ' ']);
        }
        if let Some(field) = expression.strip_prefix("$.") {
            return is_name(field) && self.selects_the_same(field);
        }
        expression.strip_prefix('$').is_some_and(|variable| is_name(variable) && !self.assigns(variable))
    }

    /// Whether the Map hands every iteration the same under this name.
    fn selects_the_same(&self, field: &str) -> bool {
        let selector = self.map.written.get("ItemSelector").or_else(|| self.map.written.get("Parameters"));
        let field = field.split('.').next().unwrap_or(field);
        let Some(selector) = selector.and_then(Value::as_object) else { return false };
        let (value, expression) = match (selector.get(field), selector.get(&format!("{field}.$"))) {
            (Some(value), _) => (value, self.map.language == Language::Jsonata),
            (None, Some(value)) => (value, true),
            (None, None) => return false,
        };
        let text = value.as_str().unwrap_or_default();
        let differs = ["$$.Map", "$states.context.Map", "States.UUID", "$uuid", "$random", "States.MathRandom"];
        !expression && value.is_string() || (value.is_string() && !differs.iter().any(|word| text.contains(word)))
    }

    fn assigns(&self, variable: &str) -> bool {
        let variable = variable.split('.').next().unwrap_or(variable);
        let inside = self.graph.states.iter().filter(|state| state.within.contains(&self.around));
        let mut assigned = inside.filter_map(|state| state.written.get("Assign")?.as_object()).flatten();
        assigned.any(|(name, _)| name.trim_end_matches(".$") == variable)
    }
}

/// Whether an expression is a name, or members of members.
fn is_name(expression: &str) -> bool {
    !expression.is_empty() && expression.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.'))
}

pub(super) fn unbounded_map(check: &Check<'_>) -> Vec<Spot> {
    let mut spots = Vec::new();
    for (index, map) in check.graph.states.iter().enumerate() {
        let inside = |state: &State<'_>| {
            state.within.iter().any(|around| around.state == index && matches!(around.part, Part::Iteration { .. }))
        };
        let calling: Vec<Index> =
            check.calls().filter(|(_, state, _)| inside(state)).map(|(task, ..)| task.state).collect();
        let Some(first) = calling.first().and_then(|call| check.call_of(*call)) else { continue };
        let written = map.written.get("MaxConcurrency");
        // An expression, or a path, is taken to be a bound.
        let bounded = map.written.contains_key("MaxConcurrencyPath") || written.is_some_and(|value| !value.is_number());
        let most = written.and_then(Value::as_u64).filter(|most| *most > 0);
        let limit = check.permits.as_ref().and_then(|permits| {
            let limits = calling.iter().flat_map(|call| permits.granted(*call)).filter_map(|permit| permit.limits());
            limits.filter_map(|limits| Some((limits.concurrency?.get(), limits.place.clone()))).min()
        });
        let path = if written.is_some() { member(&map.path, "MaxConcurrency") } else { map.path.clone() };
        match (most, limit) {
            (None, _) if !bounded => {
                let message = format!(
                    "`{}` sets no bound to how many iterations call {} at once, and its request units have one",
                    map.name, first.container
                );
                spots.push(Spot::new(path, message, "set MaxConcurrency to what the container's request units carry"));
            }
            (Some(most), Some((limit, place))) if most > u64::from(limit) => {
                let message = format!(
                    "`{}` runs {most} iterations at once, and its binding allows {limit} requests ({place})",
                    map.name
                );
                spots.push(Spot::new(path, message, format!("set MaxConcurrency to {limit} or less")));
            }
            _ => {}
        }
    }
    spots
}
