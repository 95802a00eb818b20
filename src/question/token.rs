//! `POST /oauth2/token`: a token exchange (RFC 8693), read into what it asks for.
//!
//! What is refused here is refused in the words of RFC 8693, section 2.2.2, and RFC 6749, section 5.2: whoever sends such a
//! request reads `error`, and no status of a workflow's own.

use std::collections::HashMap;

use http::{HeaderMap, header::CONTENT_TYPE};
use url::{Url, form_urlencoded};

use super::{discriminator::media_type, partition::key_in};
use crate::{
    access::{ContainerName, Operation, PartitionKey},
    secret::Secret,
};

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
/// What is issued, and the only thing that may be asked for.
pub const ISSUED_TYPE: &str = "urn:ietf:params:oauth:token-type:access_token";
/// How a workflow's token may be called.
const SUBJECT_TYPES: [&str; 3] = [
    "urn:ietf:params:oauth:token-type:jwt",
    "urn:ietf:params:oauth:token-type:access_token",
    "urn:ietf:params:oauth:token-type:id_token",
];

/// A token exchange, as it was asked for.
#[derive(Clone, Debug)]
pub struct TokenRequest {
    /// The workflow's token.
    pub subject_token: Secret,
    /// The container.
    pub container: ContainerName,
    /// The partition; `None` for the whole container.
    pub partition_key: Option<PartitionKey>,
    /// The operations, each once.
    pub operations: Vec<Operation>,
}

/// An `error` of RFC 8693 or RFC 6749, with its `error_description`.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TokenRejection {
    /// Malformed, or a token that cannot be used.
    #[error("{0}")]
    InvalidRequest(&'static str),
    /// Another grant than a token exchange.
    #[error("only {GRANT_TYPE} is granted here")]
    UnsupportedGrantType,
    /// A resource that is none.
    #[error("{0}")]
    InvalidTarget(&'static str),
    /// A scope that is none.
    #[error("{0}")]
    InvalidScope(&'static str),
}

/// Reads the form. A parameter may come once; RFC 8693 lets `resource` and `audience` come more often, but one token is for one
/// container.
pub fn token_request(headers: &HeaderMap, body: &[u8]) -> Result<TokenRequest, TokenRejection> {
    use TokenRejection::{InvalidRequest, InvalidScope, InvalidTarget, UnsupportedGrantType};
    let content = headers.get(CONTENT_TYPE).map(|value| media_type(value.as_bytes())).unwrap_or_default();
    if content != b"application/x-www-form-urlencoded" {
        return Err(InvalidRequest("send the parameters as application/x-www-form-urlencoded"));
    }
    let mut parameters: HashMap<String, String> = HashMap::new();
    for (name, value) in form_urlencoded::parse(body).into_owned() {
        let again = match name.as_str() {
            "resource" | "audience" => InvalidTarget("one token is for one resource"),
            _ => InvalidRequest("a parameter comes twice"),
        };
        // A parameter without a value counts as left out (RFC 6749, section 3.2).
        if !value.is_empty() && parameters.insert(name, value).is_some() {
            return Err(again);
        }
    }
    let parameter = |name: &str| parameters.get(name).map(String::as_str);
    match parameter("grant_type") {
        Some(GRANT_TYPE) => {}
        Some(_) => return Err(UnsupportedGrantType),
        None => return Err(InvalidRequest("grant_type is missing")),
    }
    let subject_token = parameter("subject_token").ok_or(InvalidRequest("subject_token is missing"))?;
    let kind = parameter("subject_token_type").ok_or(InvalidRequest("subject_token_type is missing"))?;
    if !SUBJECT_TYPES.contains(&kind) {
        return Err(InvalidRequest(
            "subject_token_type is jwt, access_token or id_token of urn:ietf:params:oauth:token-type",
        ));
    }
    if parameter("actor_token").is_some() || parameter("actor_token_type").is_some() {
        return Err(InvalidRequest("nobody acts for another here: actor_token is not taken"));
    }
    if parameter("requested_token_type").is_some_and(|wanted| wanted != ISSUED_TYPE) {
        return Err(InvalidRequest("requested_token_type can only be urn:ietf:params:oauth:token-type:access_token"));
    }
    if parameter("audience").is_some() {
        return Err(InvalidTarget("name the container with resource=cosmos:///DATABASE/CONTAINER, not with audience"));
    }
    let resource = parameter("resource").ok_or(InvalidRequest("resource is missing"))?;
    let (container, partition_key) = target(resource)?;
    let scope = parameter("scope").ok_or(InvalidScope("scope is missing: name the operations"))?;
    let mut operations = Vec::new();
    for word in scope.split_ascii_whitespace() {
        let operation = word.parse().map_err(|_| InvalidScope("scope lists operations, such as items/read"))?;
        if !operations.contains(&operation) {
            operations.push(operation);
        }
    }
    if operations.is_empty() {
        return Err(InvalidScope("scope is empty: name the operations"));
    }
    Ok(TokenRequest { subject_token: Secret::new(subject_token.to_owned()), container, partition_key, operations })
}

/// `cosmos:///{database}/{container}?partition_key=…`
fn target(resource: &str) -> Result<(ContainerName, Option<PartitionKey>), TokenRejection> {
    let refuse = || TokenRejection::InvalidTarget("resource is cosmos:///DATABASE/CONTAINER?partition_key=KEY");
    let url = Url::parse(resource).map_err(|_| refuse())?;
    if url.scheme() != "cosmos" || url.host_str().is_some_and(|host| !host.is_empty()) || url.fragment().is_some() {
        return Err(refuse());
    }
    let segments: Vec<String> = url
        .path()
        .trim_start_matches('/')
        .split('/')
        .map(|segment| percent_encoding::percent_decode_str(segment).decode_utf8().map(Into::into))
        .collect::<Result<_, _>>()
        .map_err(|_| refuse())?;
    let [database, container] = segments.as_slice() else { return Err(refuse()) };
    let container = ContainerName::new(database, container).map_err(|_| refuse())?;
    let mut key = None;
    for (name, value) in url.query_pairs() {
        if name != "partition_key" || key.is_some() {
            return Err(refuse());
        }
        key = Some(key_in(&value).map_err(|_| refuse())?);
    }
    Ok((container, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(changes: &[(&str, &str)]) -> Result<TokenRequest, TokenRejection> {
        let mut form: Vec<(&str, &str)> = vec![
            ("grant_type", GRANT_TYPE),
            ("subject_token", "a.b.c"),
            ("subject_token_type", SUBJECT_TYPES[0]),
            ("resource", "cosmos:///shop/orders?partition_key=t1"),
            ("scope", "items/read query items/read"),
        ];
        for (name, value) in changes {
            form.retain(|(known, _)| known != name || value.starts_with('+'));
            form.push((name, value.trim_start_matches('+')));
        }
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, "application/x-www-form-urlencoded".parse().unwrap())]);
        token_request(&headers, body.as_bytes())
    }

    #[test]
    fn a_request_is_read() {
        let request = ask(&[]).unwrap();
        assert_eq!(request.container.to_string(), "shop/orders");
        assert_eq!(request.partition_key.unwrap().to_string(), r#"["t1"]"#);
        assert_eq!(request.operations, [Operation::ItemsRead, Operation::Query]);
        let whole = ask(&[("resource", "cosmos:///shop/orders"), ("requested_token_type", ISSUED_TYPE)]).unwrap();
        assert_eq!(whole.partition_key, None);
        let typed = ask(&[("resource", "cosmos:///shop/orders?partition_key=[1]")]).unwrap();
        assert_eq!(typed.partition_key.unwrap().to_string(), "[1]");
    }

    #[test]
    fn every_mistake_has_the_word_of_its_rfc() {
        let word = |changes: &[(&str, &str)]| match ask(changes).unwrap_err() {
            TokenRejection::InvalidRequest(_) => "invalid_request",
            TokenRejection::UnsupportedGrantType => "unsupported_grant_type",
            TokenRejection::InvalidTarget(_) => "invalid_target",
            TokenRejection::InvalidScope(_) => "invalid_scope",
        };
        for (changes, expected) in [
            (&[("grant_type", "client_credentials")][..], "unsupported_grant_type"),
            (&[("grant_type", "")], "invalid_request"),
            (&[("subject_token", "")], "invalid_request"),
            (&[("subject_token", "+x.y.z")], "invalid_request"),
            (&[("subject_token_type", "")], "invalid_request"),
            (&[("subject_token_type", "urn:ietf:params:oauth:token-type:saml2")], "invalid_request"),
            (&[("actor_token", "a.b.c")], "invalid_request"),
            (&[("requested_token_type", "urn:ietf:params:oauth:token-type:jwt")], "invalid_request"),
            (&[("resource", "")], "invalid_request"),
            (&[("resource", "+cosmos:///shop/other")], "invalid_target"),
            (&[("audience", "shop")], "invalid_target"),
            (&[("resource", "https://account.documents.azure.com/")], "invalid_target"),
            (&[("resource", "cosmos://host/shop/orders")], "invalid_target"),
            (&[("resource", "cosmos:///shop")], "invalid_target"),
            (&[("resource", "cosmos:///shop/orders/docs")], "invalid_target"),
            (&[("resource", "cosmos:///shop/orders?key=t1")], "invalid_target"),
            (&[("resource", "cosmos:///shop/orders?partition_key=[]")], "invalid_target"),
            (&[("scope", "")], "invalid_scope"),
            (&[("scope", " ")], "invalid_scope"),
            (&[("scope", "items/*")], "invalid_scope"),
        ] {
            assert_eq!(word(changes), expected, "{changes:?}");
        }
        assert!(matches!(token_request(&HeaderMap::new(), b""), Err(TokenRejection::InvalidRequest(_))));
    }
}
