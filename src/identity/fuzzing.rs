//! The doors that `fuzz/` knocks at: there is no other way in to these two readers without a signature.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue};

use super::{extract, facts, profile::Profile, strict, token};
use crate::access::{Claims, WorkloadKind};

/// Extracts the token from these two headers, the first perhaps sent twice.
#[allow(clippy::panic, reason = "a finding must stop the fuzzer")]
pub fn extract(authorization: &[u8], own: &[u8], twice: bool) {
    let mut headers = HeaderMap::new();
    for (name, value) in [("authorization", authorization), ("x-stepgate-token", own)] {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(name, value.clone());
            if twice {
                headers.append(name, value);
            }
        }
    }
    if let Ok(token) = extract::extract(&headers) {
        if twice || token.text.is_empty() || token.text.len() > extract::LONGEST_TOKEN {
            panic!("a token was taken from repeated headers, or one that is empty or too long");
        }
        let _ = token::parse(&token.text);
    }
}

/// Reads a token of these bytes, and what each profile finds in its claims.
#[allow(clippy::panic, reason = "a finding must stop the fuzzer")]
pub fn read(header: &[u8], claims: &[u8]) {
    let text = format!("{}.{}.AAAA", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    if token::parse(&text).is_ok() && serde_json::from_slice::<serde_json::Value>(claims).is_err() {
        panic!("claims were read that are no JSON");
    }
    if let Ok(members) = strict::object(claims) {
        let claims = Claims::new(members);
        for kind in [WorkloadKind::AwsSts, WorkloadKind::Kubernetes, WorkloadKind::Github] {
            let _ = facts::from_claims(&claims, &Profile::of(kind).context);
        }
    }
}

/// Reads a token as it came.
pub fn read_text(text: &[u8]) {
    if let Ok(text) = std::str::from_utf8(text) {
        let _ = token::parse(text);
    }
}
