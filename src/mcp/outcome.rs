//! From an answer of the walk to the result of a tool: the same JSON as text for the model and as structured content.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Response, header::ETAG};
use rmcp::model::{CallToolResult, ContentBlock};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::call::Name;
use crate::{
    access::headers::{CONTINUATION, REQUEST_CHARGE, number},
    answer::REQUEST_ID,
};

/// What a refusal says.
#[derive(Deserialize)]
struct Refused {
    error: String,
    status: u16,
    detail: String,
    retryable: bool,
}

/// The result of a tool whose request got this answer.
pub(super) fn result(tool: Name, answer: &Response<Bytes>) -> CallToolResult {
    let (headers, body) = (answer.headers(), answer.body());
    if !answer.status().is_success() {
        return refused(headers, body);
    }
    let Ok(body) = serde_json::from_slice::<Value>(body) else {
        return CallToolResult::error(vec![ContentBlock::text("what came back is no JSON")]);
    };
    let mut told = match (tool, body) {
        (Name::ReadItem, item) => Map::from_iter([("item".to_owned(), item)]),
        (Name::QueryItems, Value::Object(mut page)) => {
            Map::from_iter([("items".to_owned(), page.remove("Documents").unwrap_or_default())])
        }
        (_, Value::Object(members)) => members,
        (_, other) => Map::from_iter([("result".to_owned(), other)]),
    };
    for (member, header) in [("etag", ETAG), ("continuation", CONTINUATION)] {
        told.extend(text(headers, &header).map(|text| (member.to_owned(), text.into())));
    }
    let charge: Option<f64> = number(headers, &REQUEST_CHARGE);
    told.extend(charge.map(|charge| ("request_charge".to_owned(), charge.into())));
    CallToolResult::structured(signed(told, headers))
}

/// The one sentence of a refusal, with its code.
fn refused(headers: &HeaderMap, body: &[u8]) -> CallToolResult {
    let Ok(Refused { error, status, detail, retryable }) = serde_json::from_slice(body) else {
        return CallToolResult::error(vec![ContentBlock::text("refused, and it is not said why")]);
    };
    let mut result = CallToolResult::error(vec![ContentBlock::text(format!("{detail} ({status} {error})"))]);
    let told = Map::from_iter([
        ("error".to_owned(), error.into()),
        ("status".to_owned(), status.into()),
        ("detail".to_owned(), detail.into()),
        ("retryable".to_owned(), retryable.into()),
    ]);
    result.structured_content = Some(signed(told, headers));
    result
}

/// The same, with the id under which the audit log has the call.
fn signed(mut told: Map<String, Value>, headers: &HeaderMap) -> Value {
    told.extend(text(headers, &REQUEST_ID).map(|id| ("request_id".to_owned(), id.into())));
    Value::Object(told)
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(status: u16, headers: &[(&'static str, &'static str)], body: &Value) -> Response<Bytes> {
        let mut response = Response::new(Bytes::from(body.to_string()));
        *response.status_mut() = status.try_into().unwrap();
        *response.headers_mut() = headers.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect();
        response
    }

    #[test]
    fn what_was_read_comes_with_what_the_next_call_needs() {
        let headers = [
            ("etag", "\"1\""),
            ("x-ms-continuation", "next"),
            ("x-ms-request-charge", "2.5"),
            ("x-stepgate-request-id", "r"),
        ];
        let page = json!({ "_rid": "x", "Documents": [{"id": "a"}, 7], "_count": 2 });
        let result = result(Name::QueryItems, &answer(200, &headers, &page));
        let told = json!({
            "items": [{"id": "a"}, 7], "etag": "\"1\"", "continuation": "next", "request_charge": 2.5, "request_id": "r",
        });
        assert_eq!(result.structured_content, Some(told.clone()));
        assert_eq!(result.content.first().unwrap().as_text().unwrap().text, told.to_string());
        assert_eq!(result.is_error, Some(false));
    }

    #[test]
    fn a_refusal_is_one_sentence_and_a_code() {
        let body = json!({ "error": "policy.denied", "status": 403, "detail": "No grant allows it.", "retryable": false, "code": "Forbidden" });
        let result = result(Name::ReadItem, &answer(403, &[("x-stepgate-request-id", "r")], &body));
        assert_eq!(result.content.first().unwrap().as_text().unwrap().text, "No grant allows it. (403 policy.denied)");
        assert_eq!(result.is_error, Some(true));
        let told = json!({ "error": "policy.denied", "status": 403, "detail": "No grant allows it.", "retryable": false, "request_id": "r" });
        assert_eq!(result.structured_content, Some(told));
    }
}
