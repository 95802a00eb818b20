//! What a state may hold: 262,144 bytes (Step Functions service quotas), counted over the whole result of the task.
//!
//! A task's result is `{"Headers":{...},"ResponseBody":...,"StatusCode":200,"StatusText":"OK"}`, written anew as JSON in UTF-8. A JSON body
//! stands in it as JSON; any other body is a JSON string, with its escapes. How that JSON is written is documented nowhere, and a
//! result that is too large ends an execution past every `Catch` that does not name the error. So what is counted here is what the
//! most wasteful writer in use would write: a space after each comma and colon, an escape for each character beyond ASCII, and for a number
//! with an exponent the longest text of a double.

use bytes::Bytes;
use http::{HeaderMap, Response, header::CONTENT_TYPE};
use serde::de::IgnoredAny;

use super::{CosmosAnswer, Form, shape::succeed};
use crate::context::RequestId;

/// The quota on a state's input or output, in bytes of UTF-8.
const LARGEST_STATE: usize = 262_144;
/// `{"Headers":{},"ResponseBody":,"StatusCode":200,"StatusText":"Non-Authoritative Information"}`, and what is added on the way:
/// the framing of HTTP, and the headers of a load balancer.
const AROUND: usize = 2_048;
/// `\u00e9`
const ESCAPE: usize = 6;
/// `"": [""], `
const AROUND_A_HEADER: usize = 11;
/// Nothing grows to eight times its size: a control character has six bytes as an escape, and `1e5,` at most 26.
const SURELY_FITS: usize = LARGEST_STATE / 8 - AROUND;
/// The longest text of a double: `-2.2250738585072014E-308`, and one to spare.
const LONGEST_NUMBER: usize = 25;

impl CosmosAnswer {
    /// Whether it fits into a state when it is told in this form.
    pub fn fits_a_state(&self, form: Form) -> bool {
        let sent = self.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + AROUND_A_HEADER);
        // Most answers are so small that they fit whatever they hold.
        sent.sum::<usize>() + self.body.len() <= SURELY_FITS || self.weight(form) <= LARGEST_STATE
    }

    /// Of `rows` alike rows that weigh too much together, how many would do; a little fewer, since none are alike.
    pub fn rows_that_fit(&self, form: Form, rows: usize) -> usize {
        let fitting = rows.saturating_mul(LARGEST_STATE / 10 * 9) / self.weight(form).max(1);
        fitting.clamp(1, rows.saturating_sub(1).max(1))
    }

    fn weight(&self, form: Form) -> usize {
        weight(&succeed(form, &RequestId::new(), self.clone()))
    }
}

/// The most bytes that the result may have.
fn weight(response: &Response<Bytes>) -> usize {
    let headers: usize = response.headers().iter().map(|(name, value)| header(name.as_str(), value.as_bytes())).sum();
    AROUND + headers + body(response.headers(), response.body())
}

/// `"name": ["value"], `
fn header(name: &str, value: &[u8]) -> usize {
    string(name) + string(&String::from_utf8_lossy(value)) + ": [], ".len()
}

fn body(headers: &HeaderMap, body: &[u8]) -> usize {
    let is_json = headers.get(CONTENT_TYPE).is_none_or(|kind| {
        let kind = kind.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        kind.eq_ignore_ascii_case(b"application/json") || kind.to_ascii_lowercase().ends_with(b"+json")
    });
    if is_json && serde_json::from_slice::<IgnoredAny>(body).is_ok() {
        json(body)
    } else {
        string(&String::from_utf8_lossy(body))
    }
}

/// The most bytes of a JSON string with this content.
fn string(text: &str) -> usize {
    let escaped = |c: char| match c {
        '"' | '\\' | '\u{8}' | '\u{9}' | '\u{a}' | '\u{c}' | '\u{d}' => 2,
        ' '..='~' => 1,
        c => c.len_utf16() * ESCAPE,
    };
    text.chars().map(escaped).sum::<usize>() + 2
}

/// The most bytes of valid JSON that is written anew.
fn json(body: &[u8]) -> usize {
    let mut count = 0;
    let mut rest = body;
    while let Some(first) = rest.first() {
        let length = match first {
            b'"' => string_token(rest),
            b'-' | b'0'..=b'9' => rest.iter().take_while(|byte| is_of_number(**byte)).count(),
            _ => 1,
        };
        let (token, after) = rest.split_at_checked(length).unwrap_or((rest, &[]));
        count += match first {
            b' ' | b'\t' | b'\n' | b'\r' => 0,
            b',' | b':' => 2,
            b'"' => token.len() + beyond_ascii(token),
            _ if token.iter().any(|byte| matches!(byte, b'e' | b'E')) && token.len() > 1 => {
                token.len().max(LONGEST_NUMBER)
            }
            _ => token.len(),
        };
        rest = after;
    }
    count
}

fn is_of_number(byte: u8) -> bool {
    matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9')
}

/// What escapes add to a text of UTF-8: characters of two or three bytes become one escape, those of four bytes two; so does DEL,
/// which is ASCII and no printable character.
fn beyond_ascii(text: &[u8]) -> usize {
    let added = |byte: &u8| match byte {
        0x7f => ESCAPE - 1,
        0xc0..=0xdf => ESCAPE - 2,
        0xe0..=0xef => ESCAPE - 3,
        0xf0..=0xff => 2 * ESCAPE - 4,
        _ => 0,
    };
    text.iter().map(added).sum()
}

/// How long the string is that begins here.
fn string_token(text: &[u8]) -> usize {
    let mut escaped = false;
    let end = text.iter().skip(1).position(|byte| {
        let ends = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |end| end + 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn fits_a_state(response: &Response<Bytes>) -> bool {
        weight(response) <= LARGEST_STATE
    }

    fn response(headers: &[(&'static str, &str)], body: impl Into<Bytes>) -> Response<Bytes> {
        let mut response = Response::new(body.into());
        for (name, value) in headers {
            response.headers_mut().insert(*name, value.parse().unwrap());
        }
        response
    }

    /// The result of the task as Step Functions documents it, written by another hand.
    fn result(response: &Response<Bytes>) -> Value {
        let headers: serde_json::Map<String, Value> = response
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), json!([String::from_utf8_lossy(value.as_bytes())])))
            .collect();
        let is_json = response.headers().get("content-type").is_some_and(|kind| kind == "application/json");
        let parsed = if is_json { serde_json::from_slice(response.body()).ok() } else { None };
        let body: Value = parsed.unwrap_or_else(|| String::from_utf8_lossy(response.body()).into());
        json!({ "Headers": headers, "ResponseBody": body, "StatusCode": 200, "StatusText": "OK" })
    }

    /// JSON as Python writes it by default: with spaces, and in ASCII.
    fn wasteful(value: &Value) -> String {
        let text = |text: &str| -> String {
            let ascii = |c: char| match c {
                ' '..='~' => c.to_string(),
                c => c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
            };
            Value::from(text).to_string().chars().map(ascii).collect()
        };
        match value {
            Value::Array(elements) => format!("[{}]", elements.iter().map(wasteful).collect::<Vec<_>>().join(", ")),
            Value::Object(members) => {
                let member = |(name, value): (&String, &Value)| format!("{}: {}", text(name), wasteful(value));
                format!("{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(", "))
            }
            Value::String(content) => text(content),
            other => other.to_string(),
        }
    }

    #[test]
    fn the_whole_result_is_counted() {
        let body = |len: usize| format!("\"{}\"", "x".repeat(len - 2));
        assert!(fits_a_state(&response(&[], body(LARGEST_STATE - AROUND))));
        assert!(!fits_a_state(&response(&[], body(LARGEST_STATE - AROUND + 1))));
        // "etag": ["\"1\""],
        assert!(fits_a_state(&response(&[("etag", "\"1\"")], body(LARGEST_STATE - AROUND - 19))));
        assert!(!fits_a_state(&response(&[("etag", "\"1\"")], body(LARGEST_STATE - AROUND - 18))));
    }

    #[test]
    fn tokens_are_counted_and_white_space_is_not() {
        for (text, count) in [
            (r#" { "a" : [ 1 , true , null ] } "#, r#"{"a": [1, true, null]}"#.len()),
            (r#""\"  \\""#, 8),
            (r#"["\\"," "]"#, 11),
            ("[-1.50,1e5]", 8 + 1 + 25),
            ("\"e\u{e9}\"", 9),
            ("\"\u{6f22}\u{1f600}\"", 2 + 6 + 12),
            (r#""\u00e9""#, 8),
        ] {
            assert_eq!(json(text.as_bytes()), count, "{text}");
        }
    }

    #[test]
    fn text_is_counted_with_its_escapes() {
        let text = "\"\n".repeat(70_000);
        assert!(!fits_a_state(&response(&[("content-type", "text/plain")], text.clone())));
        assert!(
            !fits_a_state(&response(&[("content-type", "application/json")], text)),
            "it only says that it is JSON"
        );
    }

    fn any_json() -> impl Strategy<Value = Value> {
        json_of(any::<f64>().prop_map(Value::from).boxed())
    }

    fn json_of(number: BoxedStrategy<Value>) -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            number,
            ".*".prop_map(Value::from),
            "[\"\\\\\u{0}-\u{1f}\u{7f}-\u{9f}é漢😀]{0,20}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 64, 8, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                proptest::collection::btree_map(".{0,8}", inner, 0..8)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_result_is_larger_than_it_was_counted(
            value in any_json(),
            pretty: bool,
            kind in prop_oneof![Just("application/json"), Just("text/plain"), Just("application/octet-stream")],
            etag in "[ -~]{0,40}",
        ) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            let response = response(&[("content-type", kind), ("etag", &etag)], text.unwrap());
            let counted = weight(&response) - AROUND + 97;
            for written in [result(&response).to_string(), wasteful(&result(&response))] {
                prop_assert!(counted >= written.len(), "counted {counted}, written {}", written.len());
            }
        }

        #[test]
        fn what_has_no_exponents_is_counted_to_the_byte(value in json_of(any::<i64>().prop_map(Value::from).boxed())) {
            prop_assert_eq!(json(value.to_string().as_bytes()), wasteful(&value).len());
        }
    }
}
