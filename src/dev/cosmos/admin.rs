//! The paths that exist only here, below `/_stepgate/`: faults, the clock, the record, the keys. They need no authorization, since
//! the stand-in has nothing to protect.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response, StatusCode, header::CONTENT_TYPE};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Cosmos,
    faults::{Order, RawOrder},
};
use crate::clock::Clock;

/// What these paths begin with.
pub(super) const PREFIX: &str = "/_stepgate/";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Advance {
    advance_s: u64,
}

/// Answers a request on `path`, which stands behind the prefix.
pub(super) fn answer(cosmos: &Cosmos, method: &Method, path: &str, body: &[u8]) -> Response<Bytes> {
    match (method.as_str(), path.trim_end_matches('/')) {
        ("POST", "faults") => match serde_json::from_slice::<RawOrder>(body) {
            Ok(order) => obey(cosmos, order.into()),
            Err(error) => refuse(StatusCode::BAD_REQUEST, &error.to_string()),
        },
        ("GET", "faults") => fine(&json!({ "faults": cosmos.waiting_faults() })),
        ("DELETE", "faults") => {
            cosmos.clear_faults();
            fine(&json!({ "faults": [] }))
        }
        ("GET", "requests") => {
            let mints = cosmos.mints().into_iter();
            let mints: Vec<Value> = mints
                .map(|((user, permission), count)| json!({ "user": user, "permission": permission, "count": count }))
                .collect();
            fine(&json!({ "requests": cosmos.recorded(), "mints": mints, "master": cosmos.master_usage() }))
        }
        ("GET", "keys") => {
            let [primary, secondary] = cosmos.keys();
            fine(&json!({ "primaryMasterKey": primary.expose(), "secondaryMasterKey": secondary.expose() }))
        }
        ("POST", "clock") => match (serde_json::from_slice::<Advance>(body), &cosmos.0.clock) {
            (Ok(Advance { advance_s }), Clock::Manual(clock)) => {
                clock.advance(Duration::from_secs(advance_s));
                fine(&json!({ "now": cosmos.0.clock.now().rfc3339() }))
            }
            (Ok(_), Clock::System) => refuse(StatusCode::CONFLICT, "the clock is the system's and cannot be moved"),
            (Err(error), _) => refuse(StatusCode::BAD_REQUEST, &error.to_string()),
        },
        _ => refuse(StatusCode::NOT_FOUND, "there are GET, POST, DELETE faults; POST clock; GET requests; GET keys"),
    }
}

fn obey(cosmos: &Cosmos, order: Order) -> Response<Bytes> {
    match order {
        Order::Fault(fault) => {
            cosmos.add_fault(fault);
            fine(&json!({ "faults": cosmos.waiting_faults() }))
        }
        Order::Region(change, name) => match cosmos.change_region(&name, change) {
            Ok(()) => fine(&json!({ "region": name, "change": change })),
            Err(error) => refuse(StatusCode::CONFLICT, &error.to_string()),
        },
        Order::ExpireTokens => {
            cosmos.expire_tokens();
            fine(&json!({}))
        }
        Order::RotateKey { which, key: Some(key) } => match cosmos.put_key(which, &key) {
            Ok(()) => fine(&json!({ "account_key": key.expose() })),
            Err(error) => refuse(StatusCode::BAD_REQUEST, &error.to_string()),
        },
        Order::RotateKey { which, key: None } => match cosmos.rotate(which) {
            Ok(key) => fine(&json!({ "account_key": key.expose() })),
            Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        },
    }
}

fn fine(body: &Value) -> Response<Bytes> {
    with_body(StatusCode::OK, body)
}

fn refuse(status: StatusCode, detail: &str) -> Response<Bytes> {
    with_body(status, &json!({ "detail": detail }))
}

fn with_body(status: StatusCode, body: &Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}
