//! Stored procedures, which the emulator has none of. The stand-in runs no JavaScript: a procedure answers with the
//! arguments it was called with, which is enough to see who may call it and what arrives.

use std::collections::HashSet;

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{Cosmos, permissions::json_answer, refusal::Refusal, request::Asked};

/// The procedures of the account, by database, container and id.
pub(super) type Procedures = HashSet<(String, String, String)>;

const CHARGE: &str = "3.5";

/// Registers a procedure: `POST C/sprocs`.
pub(super) fn create(cosmos: &Cosmos, asked: &Asked, place: (&str, &str)) -> Result<Response<Bytes>, Refusal> {
    let body: Value = serde_json::from_slice(&asked.body).map_err(|_| Refusal::InvalidBody)?;
    let text = |name: &str| body.get(name).and_then(Value::as_str);
    let (Some(id), Some(script)) = (text("id"), text("body")) else {
        return Err(Refusal::MissingProperties("id; body".to_owned()));
    };
    if cosmos.procedures().insert((place.0.to_owned(), place.1.to_owned(), id.to_owned())) {
        Ok(json_answer(StatusCode::CREATED, CHARGE, &json!({ "id": id, "body": script })))
    } else {
        Err(Refusal::Conflict)
    }
}

/// Runs a procedure: `POST C/sprocs/{id}`.
pub(super) fn execute(
    cosmos: &Cosmos,
    asked: &Asked,
    place: (&str, &str),
    id: &str,
) -> Result<Response<Bytes>, Refusal> {
    if !cosmos.procedures().contains(&(place.0.to_owned(), place.1.to_owned(), id.to_owned())) {
        return Err(Refusal::NotFound);
    }
    let arguments: Vec<Value> = serde_json::from_slice(&asked.body).map_err(|_| Refusal::InvalidBody)?;
    Ok(json_answer(StatusCode::OK, CHARGE, &arguments.into()))
}
