//! From condition or success to status, headers and body.

use std::time::Duration;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde_json::{Map, Value, json};

use super::{Condition, CosmosAnswer, Form, Refusal, Retry, condition::cosmos_code};
use crate::{
    access::headers::{ACTIVITY_ID, REQUEST_CHARGE, RETRY_AFTER_MS, SUBSTATUS},
    context::RequestId,
};

/// `x-stepgate-request-id`, on every answer.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-stepgate-request-id");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// After how long trying again makes sense, where nobody says.
const SOON: Duration = Duration::from_secs(1);

/// The answer to a request that was carried out.
pub fn succeed(form: Form, id: &RequestId, answer: CosmosAnswer) -> Response<Bytes> {
    let mut response = match form {
        Form::Envelope => in_envelope(&answer),
        Form::Distinct | Form::Cosmos => as_sent(answer),
    };
    sign(&mut response, id);
    response
}

/// The answer to a request that was refused.
pub fn refuse(form: Form, id: &RequestId, refusal: &Refusal) -> Response<Bytes> {
    let row = refusal.condition.row();
    let soon = (row.retry == Retry::Yes).then_some(SOON);
    let (mut response, wait) = match (form, &refusal.cosmos) {
        // Cosmos refusing the gateway's own credential is the gateway's failure, not the caller's.
        (Form::Cosmos, Some(answer)) if refusal.condition != Condition::CredentialUnavailable => {
            (as_sent(CosmosAnswer::clone(answer)), refusal.retry_after)
        }
        (Form::Cosmos, _) => (explained(row.cosmos, form, id, refusal), refusal.retry_after.or(soon)),
        (Form::Distinct | Form::Envelope, _) => {
            (explained(row.distinct, form, id, refusal), refusal.retry_after.or(soon))
        }
    };
    if let Some(wait) = wait {
        let (millis, headers) = (u64::try_from(wait.as_millis()).unwrap_or(60_000), response.headers_mut());
        headers.insert(RETRY_AFTER, HeaderValue::from(millis.div_ceil(1000)));
        headers.insert(RETRY_AFTER_MS, HeaderValue::from(millis));
    }
    sign(&mut response, id);
    response
}

/// Cosmos' own answer.
fn as_sent(answer: CosmosAnswer) -> Response<Bytes> {
    let mut response = Response::new(answer.body);
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    response
}

/// An answer of the gateway's own, with the error object as its body.
fn explained(status: u16, form: Form, id: &RequestId, refusal: &Refusal) -> Response<Bytes> {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = error_body(status, id, refusal);
    let keeps_its_code = matches!(refusal.condition, Condition::InvalidToken | Condition::InvalidWorkflowToken);
    let mut response = if form == Form::Envelope && !keeps_its_code {
        let mut envelope = Map::from_iter([("ok".to_owned(), Value::Bool(false))]);
        envelope.extend(body);
        json_response(StatusCode::OK, envelope)
    } else {
        json_response(status, body)
    };
    let headers = response.headers_mut();
    if status == StatusCode::UNAUTHORIZED {
        // RFC 6750, section 3.1.
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer error=\"invalid_token\""));
    }
    match &refusal.cosmos {
        Some(answer) => copy(&answer.headers, headers, &[SUBSTATUS, ACTIVITY_ID, REQUEST_CHARGE]),
        // Without a substatus some SDKs take a 403 for a region that was lost, and go looking for another.
        None => drop(headers.insert(SUBSTATUS, HeaderValue::from(0))),
    }
    response
}

fn copy(from: &HeaderMap, to: &mut HeaderMap, names: &[HeaderName]) {
    for name in names {
        if let Some(value) = from.get(name) {
            to.insert(name.clone(), value.clone());
        }
    }
}

fn error_body(status: StatusCode, id: &RequestId, refusal: &Refusal) -> Map<String, Value> {
    let row = refusal.condition.row();
    let mut body = Map::new();
    body.insert("error".into(), row.error.into());
    body.insert("status".into(), status.as_u16().into());
    body.insert("detail".into(), refusal.detail.as_str().into());
    body.insert("requestId".into(), id.as_str().into());
    if let Some(answer) = &refusal.cosmos {
        if let Some(activity) = answer.activity_id() {
            body.insert("activityId".into(), activity.into());
        }
        if let Some(substatus) = answer.substatus() {
            body.insert("substatus".into(), substatus.into());
        }
    }
    body.insert("retryable".into(), refusal.condition.is_retryable().into());
    body.insert("code".into(), cosmos_code(row.cosmos).into());
    body.insert("message".into(), refusal.detail.as_str().into());
    body
}

fn in_envelope(CosmosAnswer { status, headers, body }: &CosmosAnswer) -> Response<Bytes> {
    let headers: Map<String, Value> = headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into()))
        .collect();
    let body = if body.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(body).unwrap_or_else(|_| String::from_utf8_lossy(body).into())
    };
    let Value::Object(envelope) = json!({"ok": true, "status": status.as_u16(), "headers": headers, "body": body})
    else {
        return Response::new(Bytes::new());
    };
    json_response(StatusCode::OK, envelope)
}

fn json_response(status: StatusCode, body: Map<String, Value>) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(Value::Object(body).to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

fn sign(response: &mut Response<Bytes>, id: &RequestId) {
    if let Ok(id) = HeaderValue::try_from(id.as_str()) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(status: u16, headers: &[(&'static str, &'static str)]) -> Option<Box<CosmosAnswer>> {
        Some(Box::new(CosmosAnswer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: headers.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect(),
            body: Bytes::from_static(b"{\"code\":\"BadRequest\",\"message\":\"as Cosmos says it\"}"),
        }))
    }

    fn body(response: &Response<Bytes>) -> Value {
        serde_json::from_slice(response.body()).unwrap()
    }

    #[test]
    fn a_workflow_gets_one_status_per_condition() {
        let mut refusal = Refusal::new(Condition::PartitionKeyMismatch, "header and item differ");
        refusal.cosmos = said(400, &[("x-ms-substatus", "1001"), ("x-ms-activity-id", "a-1")]);
        let id = RequestId::new();
        let distinct = refuse(Form::Distinct, &id, &refusal);
        assert_eq!(distinct.status(), 422);
        assert_eq!(
            body(&distinct),
            json!({
                "error": "cosmos.partition_key_mismatch", "status": 422, "detail": "header and item differ",
                "requestId": id.as_str(), "activityId": "a-1", "substatus": 1001, "retryable": false,
                "code": "BadRequest", "message": "header and item differ",
            })
        );
        let cosmos = refuse(Form::Cosmos, &id, &refusal);
        assert_eq!((cosmos.status().as_u16(), &cosmos.headers()[SUBSTATUS]), (400, &HeaderValue::from(1001)));
        assert_eq!(body(&cosmos)["message"], "as Cosmos says it", "Cosmos clients get Cosmos' own words");
        let envelope = refuse(Form::Envelope, &id, &refusal);
        assert_eq!(envelope.status(), 200);
        assert_eq!((&body(&envelope)["ok"], &body(&envelope)["status"]), (&json!(false), &json!(422)));
    }

    #[test]
    fn a_cosmos_client_gets_a_denial_it_does_not_retry() {
        let id = RequestId::new();
        let denied = refuse(Form::Cosmos, &id, &Refusal::new(Condition::PolicyDenied, "no grant"));
        assert_eq!((denied.status().as_u16(), &denied.headers()[SUBSTATUS]), (403, &HeaderValue::from(0)));
        let unknown = refuse(Form::Cosmos, &id, &Refusal::new(Condition::UnknownOperation, "no such path"));
        assert_eq!(unknown.status(), 404);
    }

    #[test]
    fn a_refused_token_keeps_its_code_in_an_envelope() {
        let id = RequestId::new();
        for (condition, status) in [(Condition::InvalidToken, 401), (Condition::InvalidWorkflowToken, 498)] {
            assert_eq!(refuse(Form::Envelope, &id, &Refusal::new(condition, "expired")).status(), status);
        }
    }

    #[test]
    fn the_gateways_own_credential_is_never_the_callers_401() {
        let mut refusal = Refusal::new(Condition::CredentialUnavailable, "Cosmos refused the gateway");
        refusal.cosmos = said(401, &[]);
        assert_eq!(refuse(Form::Cosmos, &RequestId::new(), &refusal).status(), 503);
    }

    #[test]
    fn an_envelope_holds_the_whole_answer() {
        let headers = HeaderMap::from_iter([(http::header::ETAG, HeaderValue::from_static("\"1\""))]);
        let answer = CosmosAnswer { status: StatusCode::CREATED, headers, body: Bytes::from_static(b"{\"id\":\"a\"}") };
        let response = succeed(Form::Envelope, &RequestId::new(), answer);
        assert_eq!(
            body(&response),
            json!({"ok": true, "status": 201, "headers": {"etag": "\"1\""}, "body": {"id": "a"}})
        );
    }

    #[test]
    fn a_wait_is_told_in_seconds_and_milliseconds() {
        let refusal = Refusal::new(Condition::Throttled, "throttled").after(Duration::from_millis(1500));
        let response = refuse(Form::Distinct, &RequestId::new(), &refusal);
        assert_eq!(response.headers()[RETRY_AFTER], "2");
        assert_eq!(response.headers()[RETRY_AFTER_MS], "1500");
    }
}
