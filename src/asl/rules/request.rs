//! What a task sends: headers, address, credentials.

use serde_json::Value;

use crate::{
    asl::{
        check::{Check, Spot},
        definition::{Enclosure, Part, member},
        task::{Headers, Target},
        text::{Language, Text, inside_jsonata},
    },
    context::{ATTEMPT, ENTERED, EXECUTION, ITEM, REDRIVE, STATE},
};

/// Headers with which an HTTP Task fails before anything is sent (AWS: Call HTTPS APIs in workflows).
const FORBIDDEN: [&str; 32] = [
    "a-im",
    "accept-charset",
    "accept-datetime",
    "accept-encoding",
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-md5",
    "date",
    "expect",
    "forwarded",
    "from",
    "host",
    "http2-settings",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "max-forwards",
    "origin",
    "pragma",
    "proxy-authorization",
    "referer",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "warning",
];
const FORBIDDEN_BEGINNINGS: [&str; 3] = ["x-forwarded-", "x-amz-", "x-amzn-"];

pub(super) fn forbidden_header(check: &Check<'_>) -> Vec<Spot> {
    let headers = check.http_tasks().flat_map(|(task, _)| &task.headers.written);
    let forbidden = headers.filter(|header| {
        FORBIDDEN.contains(&header.name.as_str()) || FORBIDDEN_BEGINNINGS.iter().any(|b| header.name.starts_with(b))
    });
    forbidden
        .map(|header| {
            let mend = match header.name.as_str() {
                "if-match" | "if-none-match" => format!("send `x-stepgate-{}`, which stands for it", header.name),
                "authorization" | "proxy-authorization" => {
                    "leave it to the connection, which signs in by OAuth".to_owned()
                }
                _ => "remove it".to_owned(),
            };
            let message = format!("an HTTP Task may not set `{}`: the state fails with States.Runtime", header.name);
            Spot::new(&header.path, message, mend)
        })
        .collect()
}

pub(super) fn missing_context(check: &Check<'_>) -> Vec<Spot> {
    let calls = check.calls().filter(|(task, ..)| !task.headers.open);
    calls
        .filter_map(|(task, state, _)| {
            let mut wanted = vec![EXECUTION, STATE, ENTERED, ATTEMPT];
            wanted.extend(is_in_inline_map(&state.within).then_some(ITEM));
            let missing: Vec<_> = wanted
                .iter()
                .filter(|name| task.headers.get(name.as_str()).is_none())
                .map(|n| format!("`{n}`"))
                .collect();
            let (path, missing) = (&task.headers.path, missing.join(", "));
            let written = |name: &str| match state.language {
                Language::JsonPath => format!("\"{name}.$\": \"{}\"", json_path_of(name)),
                Language::Jsonata => format!("\"{name}\": \"{}\"", jsonata_of(name)),
            };
            let first = wanted.iter().find(|name| task.headers.get(name.as_str()).is_none())?;
            let message = format!("the request does not say {missing}, so it cannot be tied to what sent it");
            Some(Spot::new(path, message, format!("write {} (and so on)", written(first.as_str()))))
        })
        .collect()
}

fn is_in_inline_map(within: &[Enclosure]) -> bool {
    within.iter().any(|around| around.part == Part::Iteration { distributed: false })
}

/// What a context header is made of, in JSONPath.
pub(in crate::asl) fn json_path_of(header: &str) -> &'static str {
    match header {
        "x-stepgate-execution" => "$$.Execution.Id",
        "x-stepgate-state" => "$$.State.Name",
        "x-stepgate-entered" => "$$.State.EnteredTime",
        "x-stepgate-attempt" => "States.Format('{}', $$.State.RetryCount)",
        "x-stepgate-redrive" => "States.Format('{}', $$.Execution.RedriveCount)",
        _ => "States.Format('{}', $.index)",
    }
}

/// What a context header is made of, in JSONata.
pub(in crate::asl) fn jsonata_of(header: &str) -> &'static str {
    match header {
        "x-stepgate-execution" => "{% $states.context.Execution.Id %}",
        "x-stepgate-state" => "{% $states.context.State.Name %}",
        "x-stepgate-entered" => "{% $states.context.State.EnteredTime %}",
        "x-stepgate-attempt" => "{% $string($states.context.State.RetryCount) %}",
        "x-stepgate-redrive" => "{% $string($states.context.Execution.RedriveCount) %}",
        _ => "{% $string($states.input.index) %}",
    }
}

pub(super) fn wrong_context(check: &Check<'_>) -> Vec<Spot> {
    let wanted = [
        (EXECUTION, "$$.Execution.Id", false),
        (STATE, "$$.State.Name", false),
        (ENTERED, "$$.State.EnteredTime", false),
        (ATTEMPT, "$$.State.RetryCount", true),
        (REDRIVE, "$$.Execution.RedriveCount", true),
        (ITEM, "$$.Map.Item.Index", true),
    ];
    let mut spots = Vec::new();
    for (task, state, _) in check.calls() {
        for (name, expression, is_number) in &wanted {
            let Some((header, text)) = task.headers.get(name.as_str()).and_then(|h| Some((h, h.text.as_ref()?))) else {
                continue;
            };
            let mend = match state.language {
                Language::JsonPath => format!("write \"{name}.$\": \"{}\"", json_path_of(name.as_str())),
                Language::Jsonata => format!("write \"{name}\": \"{}\"", jsonata_of(name.as_str())),
            };
            let bare = inside_jsonata(&header.written).unwrap_or(&header.written).replace("$states.context", "$$");
            let problem = if *is_number && bare == *expression {
                format!("`{name}` is a number here, and a header must be a text")
            } else if says_otherwise(text, expression, state.name) {
                format!("`{name}` says {text} where it must say `{expression}`")
            } else {
                continue;
            };
            spots.push(Spot::new(&header.path, problem, mend));
        }
    }
    spots
}

/// Whether a text is for certain not what the context says: something else of the context, or a text that does not change.
fn says_otherwise(text: &Text, expression: &str, state: &str) -> bool {
    match text.known() {
        Some(known) => !(expression == "$$.State.Name" && known == state),
        None => text.expressions().any(|found| found.starts_with("$$.") && found != expression),
    }
}

pub(super) fn plain_http(check: &Check<'_>) -> Vec<Spot> {
    let endpoints = check.http_tasks().filter_map(|(task, _)| task.endpoint.as_ref());
    let plain = endpoints.filter(|(_, text)| text.beginning().to_ascii_lowercase().starts_with("http://"));
    let spot = |(path, _): &(String, Text)| {
        let message = "an HTTP Task must call an https URL: over http the token could be read on the way";
        Spot::new(path, message, "write https://")
    };
    plain.map(spot).collect()
}

pub(super) fn missing_connection(check: &Check<'_>) -> Vec<Spot> {
    let without = check.http_tasks().filter(|(task, _)| {
        let Some(parameters) = task.parameters else { return false };
        ["InvocationConfig", "Authentication"].into_iter().all(|name| {
            let dynamic = parameters.contains_key(&format!("{name}.$"));
            let config = parameters.get(name);
            let connection = config.is_some_and(|c| c.get("ConnectionArn").or(c.get("ConnectionArn.$")).is_some());
            !dynamic && !connection && !config.is_some_and(Value::is_string)
        })
    });
    let spot = |path: &str| {
        let message = "the task names no connection, and an HTTP Task without one fails";
        Spot::new(
            path,
            message,
            "add InvocationConfig: {ConnectionArn: …} with an EventBridge connection that signs in by OAuth",
        )
    };
    without.map(|(task, _)| spot(&task.path)).collect()
}

pub(super) fn bad_request(check: &Check<'_>) -> Vec<Spot> {
    let refused = check.http_tasks().filter_map(|(task, _)| match &task.target {
        Target::Refused(reason) => Some(Spot::new(
            task.endpoint_path(),
            format!("the gateway would refuse this request: {reason}"),
            "see which method, path and headers make which operation in docs/asl.md",
        )),
        _ => None,
    });
    refused.collect()
}

pub(super) fn direct_cosmos(check: &Check<'_>) -> Vec<Spot> {
    let direct = check.http_tasks().filter(|(task, _)| matches!(task.target, Target::Cosmos));
    let spot = |path: &str| {
        let message = "the task calls Cosmos DB itself: whatever credential it has opens more than it needs, and nobody records it";
        Spot::new(path, message, "call the gateway's address with the same path")
    };
    direct.map(|(task, _)| spot(task.endpoint_path())).collect()
}

pub(super) fn unknowable(check: &Check<'_>) -> Vec<Spot> {
    let mut spots = Vec::new();
    for (task, _) in check.http_tasks() {
        match &task.target {
            Target::Unknown(what) => {
                let message = format!("{what}; what depends on it was not checked");
                let mend = "write the scheme, the host and what does not change, and put only ids in by expressions";
                spots.push(Spot::new(task.endpoint_path(), message, mend));
            }
            Target::Gateway(_) if task.headers.open => {
                let message =
                    "its headers come from data, so which are set is not known; what depends on them was not checked";
                spots.push(Spot::new(
                    &task.headers.path,
                    message,
                    "write each header's name, and only values by expressions",
                ));
            }
            _ => {}
        }
    }
    spots
}

pub(super) fn inline_secret(check: &Check<'_>) -> Vec<Spot> {
    let mut spots = Vec::new();
    let mut tell = |path: &str, what: &str| {
        let message = format!("this looks like {what}, and whoever may read the definition can read it");
        spots.push(Spot::new(
            path,
            message,
            "keep it in the connection (EventBridge stores it in Secrets Manager), and change it now",
        ));
    };
    each_text(check.definition.value(), String::new(), &mut |path, text| {
        if let Some(what) = credential_in(text) {
            tell(path, what);
        }
    });
    for (task, _) in check.http_tasks() {
        let is_written = |text: Option<&Text>| {
            text.and_then(Text::known).is_some_and(|known| !known.is_empty() && credential_in(known).is_none())
        };
        for header in &task.headers.written {
            if is_secret_name(&header.name) && is_written(header.text.as_ref()) {
                tell(&header.path, "a credential in a header");
            }
        }
        let parameters =
            task.parameters.and_then(|parameters| parameters.get("QueryParameters")).and_then(Value::as_object);
        for (name, value) in parameters.into_iter().flatten() {
            let literal = value.as_str().is_some_and(|text| inside_jsonata(text).is_none() && !text.contains("${"));
            if !name.ends_with(".$") && literal && is_secret_parameter(name) {
                tell(&member(&task.at("QueryParameters"), name), "a credential in a query parameter");
            }
        }
        if let Some((path, text)) = &task.endpoint {
            let query = text.split('?').get(1).map(|query| query.split('&')).unwrap_or_default();
            let secret = query.iter().any(|part| {
                let sides = part.split('=');
                sides.first().and_then(Text::known).is_some_and(is_secret_parameter) && is_written(sides.get(1))
            });
            if secret {
                tell(path, "a credential in the URL");
            }
        }
    }
    spots
}

fn is_secret_name(header: &str) -> bool {
    const NAMES: [&str; 7] = [
        "x-api-key",
        "api-key",
        "apikey",
        "x-functions-key",
        "x-stepgate-token",
        "ocp-apim-subscription-key",
        "cookie",
    ];
    NAMES.contains(&header) || ["secret", "password", "auth-token", "access-token"].iter().any(|w| header.contains(w))
}

fn is_secret_parameter(name: &str) -> bool {
    const NAMES: [&str; 9] =
        ["code", "sig", "api_key", "apikey", "api-key", "access_token", "token", "client_secret", "subscription-key"];
    NAMES.contains(&name.to_ascii_lowercase().as_str())
}

/// What a text holds that is a credential by its form.
fn credential_in(text: &str) -> Option<&'static str> {
    let words = || text.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=' | '-' | '_' | '.')));
    if words().any(is_jwt) {
        return Some("a token (JWT)");
    }
    if text.contains("-----BEGIN ") && text.contains("PRIVATE KEY") {
        return Some("a private key");
    }
    if text.contains("AccountKey=")
        || text.contains("type=master")
        || text.contains("type%3dmaster")
        || words().any(is_account_key)
    {
        return Some("an account key of Cosmos DB");
    }
    if words().any(is_aws_key) {
        return Some("an AWS access key");
    }
    has_user_information(text).then_some("a password in a URL")
}

fn is_jwt(word: &str) -> bool {
    let parts: Vec<&str> = word.split('.').collect();
    matches!(parts.as_slice(), [header, claims, signature]
        if header.starts_with("eyJ") && claims.starts_with("eyJ") && signature.len() > 20)
}

/// 64 bytes in base64.
fn is_account_key(word: &str) -> bool {
    let key = word.rsplit_once("ey=").map_or(word, |(_, key)| key);
    key.len() == 88 && key.ends_with("==") && !key.trim_end_matches('=').contains(['=', '-', '_', '.'])
}

fn is_aws_key(word: &str) -> bool {
    word.len() == 20
        && (word.starts_with("AKIA") || word.starts_with("ASIA"))
        && word.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
}

fn has_user_information(text: &str) -> bool {
    let Some((_, rest)) = text.split_once("https://").or_else(|| text.split_once("http://")) else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.split_once('@').is_some_and(|(user, _)| user.contains(':') && !user.contains("${"))
}

/// Every text of a document, with its path.
fn each_text(value: &Value, path: String, see: &mut impl FnMut(&str, &str)) {
    match value {
        Value::String(text) => see(&path, text),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, item)| each_text(item, member(&path, &i.to_string()), see));
        }
        Value::Object(members) => members.iter().for_each(|(name, value)| each_text(value, member(&path, name), see)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Whether a task asks for answers in a form other than one status for each condition.
pub(super) fn form(headers: &Headers) -> Option<&str> {
    headers.text("x-stepgate-errors")?.known()
}
