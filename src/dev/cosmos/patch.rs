//! The condition of a patch, which the emulator reads past and Cosmos does not.
//!
//! The condition is asked as a query in the item's partition; the patch is then tied to the version that met it, so that
//! nothing can come between, and asked again when something did.

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header::IF_MATCH};
use serde_json::{Value, json};

use super::{
    emulator::Emulator,
    refusal::Refusal,
    request::{Asked, header},
};

/// How often a condition is asked before the patch is given up; each round means that somebody else wrote the item.
const ROUNDS: usize = 64;

/// What a condition came to.
pub(super) enum Met {
    /// This version meets it.
    By(HeaderValue),
    /// No; or there is no such item, as the answer says.
    No(Response<Bytes>),
}

/// Carries out a patch of the item `id`.
pub(super) async fn carry_out(asked: &Asked, id: &str, emulator: &Emulator) -> Result<Response<Bytes>, Refusal> {
    let body: Value = serde_json::from_slice(&asked.body).map_err(|_| Refusal::InvalidBody)?;
    let Some(condition) = body.get("condition").and_then(Value::as_str) else {
        return emulator.carry_out(asked).await;
    };
    let is_tied = asked.headers.contains_key(IF_MATCH);
    for _ in 0..ROUNDS {
        let mut patch = asked.clone();
        match ask(asked, id, condition, emulator).await? {
            Met::No(answer) => return Ok(answer),
            Met::By(version) if !is_tied => {
                patch.headers.insert(IF_MATCH, version);
            }
            Met::By(_) => {}
        }
        let answer = emulator.carry_out(&patch).await?;
        if is_tied || answer.status() != StatusCode::PRECONDITION_FAILED {
            return Ok(answer);
        }
    }
    Err(Refusal::ConditionNotMet)
}

/// Asks whether the item `id`, which the path of `asked` names, meets a condition.
pub(super) async fn ask(asked: &Asked, id: &str, condition: &str, emulator: &Emulator) -> Result<Met, Refusal> {
    let mut query = asked.clone();
    query.method = Method::POST;
    query.segments.pop();
    query.headers.remove(IF_MATCH);
    query.headers.remove(header::BATCH);
    query.headers.insert(header::QUERY, HeaderValue::from_static("True"));
    query.body = Bytes::from(json!({ "query": format!("SELECT * {condition}") }).to_string());
    let answer = emulator.carry_out(&query).await?;
    if !answer.status().is_success() {
        return Ok(Met::No(answer));
    }
    let found: Value = serde_json::from_slice(answer.body()).map_err(|_| Refusal::InvalidBody)?;
    let mut items = found.get("Documents").and_then(Value::as_array).into_iter().flatten();
    let item = items.find(|item| item.get("id").and_then(Value::as_str) == Some(id));
    if let Some(etag) = item.and_then(|item| item.get("_etag")).and_then(Value::as_str) {
        return HeaderValue::try_from(etag).map(Met::By).map_err(|_| Refusal::InvalidBody);
    }
    let mut read = asked.clone();
    read.method = Method::GET;
    read.headers.remove(header::BATCH);
    let answer = emulator.carry_out(&read).await?;
    Ok(Met::No(if answer.status().is_success() { Refusal::ConditionNotMet.answer() } else { answer }))
}
