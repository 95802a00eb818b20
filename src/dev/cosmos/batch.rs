//! Patches inside transactional batches, which the service knows and the emulator does not.
//!
//! A patch is worked out here on the item as it stands and put into the batch as a replace that is tied to that version;
//! when something came between, everything is worked out again. So the batch stays one transaction of the emulator's.

use std::collections::HashMap;

use bytes::Bytes;
use http::{Method, Response, StatusCode, header::ETAG};
use serde_json::{Map, Value, json};

use super::{
    emulator::Emulator,
    patch,
    refusal::Refusal,
    request::{Asked, header},
};

/// How often a batch is worked out before it is given up; each round means that somebody else wrote one of its items.
const ROUNDS: usize = 64;
/// An etag that no item has.
const NEVER: &str = "\"never\"";

/// Carries out a batch.
pub(super) async fn carry_out(asked: &Asked, emulator: &Emulator) -> Result<Response<Bytes>, Refusal> {
    let written: Vec<Value> = serde_json::from_slice(&asked.body).map_err(|_| Refusal::InvalidBody)?;
    if !written.iter().any(|operation| text(operation, "operationType") == Some("Patch")) {
        return emulator.carry_out(asked).await;
    }
    for _ in 0..ROUNDS {
        let mut batch = Batch { asked, emulator, items: HashMap::new(), tied: Vec::new(), operations: Vec::new() };
        for operation in &written {
            if let Err(Unpatchable) = batch.add(operation).await? {
                return Ok(failed(written.len(), batch.operations.len()));
            }
        }
        let (tied, operations) = (batch.tied, batch.operations);
        let batch = Asked { body: Value::from(operations).to_string().into(), ..asked.clone() };
        let answer = emulator.carry_out(&batch).await?;
        if !tied.iter().any(|index| status(&answer, *index) == Some(412)) {
            return Ok(answer);
        }
    }
    Err(Refusal::ConditionNotMet)
}

/// A patch that does not fit its item.
struct Unpatchable;

/// A batch in which every patch has become a replace.
struct Batch<'a> {
    asked: &'a Asked,
    emulator: &'a Emulator,
    /// The items that an operation before this one wrote, as it left them.
    items: HashMap<String, Option<Value>>,
    /// The operations that are tied to a version without the caller having asked for it.
    tied: Vec<usize>,
    operations: Vec<Value>,
}

impl Batch<'_> {
    async fn add(&mut self, operation: &Value) -> Result<Result<(), Unpatchable>, Refusal> {
        let body = operation.get("resourceBody");
        let id = text(operation, "id").or_else(|| text(body?, "id")).unwrap_or_default().to_owned();
        let become_of = match text(operation, "operationType") {
            Some("Patch") => match self.patch(operation, &id).await? {
                Ok(replace) => replace,
                Err(Unpatchable) => return Ok(Err(Unpatchable)),
            },
            Some("Delete") => {
                self.items.insert(id, None);
                operation.clone()
            }
            Some("Create" | "Upsert" | "Replace") => {
                self.items.insert(id, body.cloned());
                operation.clone()
            }
            _ => operation.clone(),
        };
        self.operations.push(become_of);
        Ok(Ok(()))
    }

    /// The operation that a patch comes to: one that fails as the patch would, or the replace.
    async fn patch(&mut self, operation: &Value, id: &str) -> Result<Result<Value, Unpatchable>, Refusal> {
        let written = operation.get("resourceBody").ok_or(Refusal::InvalidBody)?;
        let steps = written.get("operations").unwrap_or(written).as_array().ok_or(Refusal::InvalidBody)?;
        let given = text(operation, "ifMatch");
        let (item, mut version) = match self.items.get(id) {
            Some(item) => (item.clone(), None),
            None => self.read(id).await?,
        };
        let Some(mut item) = item else { return Ok(Ok(json!({ "operationType": "Delete", "id": id }))) };
        if let Some(condition) = text(written, "condition") {
            let of_item = Asked { segments: self.segments(id), ..self.asked.clone() };
            match patch::ask(&of_item, id, condition, self.emulator).await? {
                patch::Met::By(met) => version = met.to_str().ok().map(str::to_owned),
                patch::Met::No(_) => {
                    return Ok(Ok(json!({ "operationType": "Delete", "id": id, "ifMatch": NEVER })));
                }
            }
        }
        if steps.iter().any(|step| apply(&mut item, step).is_none()) {
            return Ok(Err(Unpatchable));
        }
        self.items.insert(id.to_owned(), Some(item.clone()));
        let mut replace = json!({ "operationType": "Replace", "id": id, "resourceBody": item });
        if given.is_none() && version.is_some() {
            self.tied.push(self.operations.len());
        }
        if let (Some(members), Some(etag)) = (replace.as_object_mut(), given.map(str::to_owned).or(version)) {
            members.insert("ifMatch".to_owned(), etag.into());
        }
        Ok(Ok(replace))
    }

    async fn read(&self, id: &str) -> Result<(Option<Value>, Option<String>), Refusal> {
        let mut read = Asked { method: Method::GET, segments: self.segments(id), ..self.asked.clone() };
        read.headers.remove(header::BATCH);
        let answer = self.emulator.carry_out(&read).await?;
        if !answer.status().is_success() {
            return Ok((None, None));
        }
        let etag = answer.headers().get(ETAG).and_then(|etag| etag.to_str().ok()).map(str::to_owned);
        Ok((serde_json::from_slice(answer.body()).ok(), etag))
    }

    fn segments(&self, id: &str) -> Vec<String> {
        self.asked.segments.iter().cloned().chain([id.to_owned()]).collect()
    }
}

fn text<'a>(value: &'a Value, member: &str) -> Option<&'a str> {
    value.get(member)?.as_str()
}

fn status(answer: &Response<Bytes>, index: usize) -> Option<u64> {
    let results: Vec<Value> = serde_json::from_slice(answer.body()).ok()?;
    results.get(index)?.get("statusCode")?.as_u64()
}

/// 207: the operation at `index` is a bad request, and none of the others was done.
fn failed(operations: usize, index: usize) -> Response<Bytes> {
    let result = |at| json!({ "statusCode": if at == index { 400 } else { 424 }, "requestCharge": 0 });
    let mut answer = Response::new(Bytes::from(Value::from_iter((0..operations).map(result)).to_string()));
    *answer.status_mut() = StatusCode::MULTI_STATUS;
    answer
}

/// One step of a patch; `None` when it does not fit.
fn apply(item: &mut Value, step: &Value) -> Option<()> {
    let path = text(step, "path")?;
    let value = || step.get("value").cloned();
    match text(step, "op")? {
        "add" => put(item, path, value()?, true),
        "set" => put(item, path, value()?, false),
        "replace" => {
            *item.pointer_mut(path)? = value()?;
            Some(())
        }
        "remove" => take(item, path).map(drop),
        "incr" => {
            let by = value()?;
            match item.pointer_mut(path) {
                Some(number) => *number = sum(number, &by)?,
                None => put(item, path, by, false)?,
            }
            Some(())
        }
        "move" => {
            let moved = take(item, text(step, "from")?)?;
            put(item, path, moved, true)
        }
        _ => None,
    }
}

fn sum(number: &Value, by: &Value) -> Option<Value> {
    match (number.as_i64(), by.as_i64()) {
        (Some(number), Some(by)) => number.checked_add(by).map(Value::from),
        _ => Some(Value::from(number.as_f64()? + by.as_f64()?)),
    }
}

/// The object or array that holds what `path` names, and the name in it.
fn holder<'a>(item: &'a mut Value, path: &str) -> Option<(&'a mut Value, String)> {
    let (parent, name) = path.rsplit_once('/')?;
    Some((item.pointer_mut(parent)?, name.replace("~1", "/").replace("~0", "~")))
}

fn put(item: &mut Value, path: &str, value: Value, inserts: bool) -> Option<()> {
    let (holder, name) = holder(item, path)?;
    match holder {
        Value::Object(members) => drop(members.insert(name, value)),
        Value::Array(elements) if name == "-" => elements.push(value),
        Value::Array(elements) => {
            let index: usize = name.parse().ok().filter(|index| *index <= elements.len())?;
            if !inserts && index < elements.len() {
                elements.remove(index);
            }
            elements.insert(index, value);
        }
        _ => return None,
    }
    Some(())
}

fn take(item: &mut Value, path: &str) -> Option<Value> {
    let (holder, name) = holder(item, path)?;
    match holder {
        Value::Object(members) => Map::shift_remove(members, &name),
        Value::Array(elements) => {
            let index: usize = name.parse().ok()?;
            (index < elements.len()).then(|| elements.remove(index))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patched(steps: Value) -> Option<Value> {
        let mut item = json!({ "id": "1", "n": 1, "list": [1, 2], "deep": { "a": true } });
        steps.as_array().unwrap().iter().try_for_each(|step| apply(&mut item, step))?;
        Some(item)
    }

    #[test]
    fn each_step_of_a_patch_does_what_the_service_documents() {
        let steps = json!([
            { "op": "incr", "path": "/n", "value": 2 }, { "op": "incr", "path": "/new", "value": 0.5 },
            { "op": "add", "path": "/list/0", "value": 0 }, { "op": "add", "path": "/list/-", "value": 3 },
            { "op": "set", "path": "/list/1", "value": "one" }, { "op": "remove", "path": "/deep/a" },
            { "op": "replace", "path": "/id", "value": "2" }, { "op": "move", "from": "/new", "path": "/deep/b" },
        ]);
        let item = json!({ "id": "2", "n": 3, "list": [0, "one", 2, 3], "deep": { "b": 0.5 } });
        assert_eq!(patched(steps), Some(item));
    }

    #[test]
    fn a_step_that_does_not_fit_is_none() {
        for step in [
            json!({ "op": "replace", "path": "/none", "value": 1 }),
            json!({ "op": "remove", "path": "/none" }),
            json!({ "op": "incr", "path": "/deep", "value": 1 }),
            json!({ "op": "add", "path": "/list/9", "value": 1 }),
            json!({ "op": "add", "path": "/none/deeper", "value": 1 }),
            json!({ "op": "test", "path": "/n", "value": 1 }),
        ] {
            assert_eq!(patched(json!([step])), None);
        }
    }
}
