//! Where the partition key stands, and the conditions that an HTTP Task cannot send under their own names.

use http::{
    HeaderMap, HeaderName, Uri,
    header::{IF_MATCH as HTTP_IF_MATCH, IF_NONE_MATCH as HTTP_IF_NONE_MATCH},
};
use serde_json::Value;

use super::{Rejection, one_text};
use crate::access::{KeyComponent, MalformedPartitionKey, PartitionKey, headers::PARTITION_KEY};

/// `x-stepgate-if-match`, for callers that cannot set `If-Match`.
pub const IF_MATCH: HeaderName = HeaderName::from_static("x-stepgate-if-match");
/// `x-stepgate-if-none-match`, for callers that cannot set `If-None-Match`.
pub const IF_NONE_MATCH: HeaderName = HeaderName::from_static("x-stepgate-if-none-match");

/// The partition key that the request names, in the header or as the parameter `partitionKey`.
pub(super) fn named(uri: &Uri, headers: &HeaderMap) -> Result<Option<PartitionKey>, Rejection> {
    let header = one_text(headers, PARTITION_KEY)?.map(str::parse).transpose()?;
    match (header, parameter(uri)?) {
        (Some(header), Some(parameter)) if header != parameter => Err(Rejection::TwoPartitionKeys),
        (header, parameter) => Ok(header.or(parameter)),
    }
}

/// `partitionKey=t1` is the text `t1`, and `partitionKey=123` the text `123`; a JSON array says otherwise.
fn parameter(uri: &Uri) -> Result<Option<PartitionKey>, Rejection> {
    let query = uri.query().unwrap_or_default();
    let mut values = url::form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "partitionKey");
    let Some((_, value)) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Rejection::TwoPartitionKeys);
    }
    Ok(Some(key_in(&value)?))
}

/// The key that a parameter names.
pub(super) fn key_in(value: &str) -> Result<PartitionKey, MalformedPartitionKey> {
    match serde_json::from_str(value) {
        Ok(array @ Value::Array(_)) => PartitionKey::from_json(&array),
        _ => PartitionKey::new(vec![KeyComponent::Text(value.into())]),
    }
}

/// The key that a JSON value stands for: an array, or the one component that it has.
pub fn key_of(written: &Value) -> Result<PartitionKey, MalformedPartitionKey> {
    match written {
        Value::Array(_) => PartitionKey::from_json(written),
        one => PartitionKey::new(vec![KeyComponent::from_json(one).ok_or(MalformedPartitionKey)?]),
    }
}

/// A condition given under both names must be the same condition.
pub(super) fn check_conditions(headers: &HeaderMap) -> Result<(), Rejection> {
    for (stand_in, real, name) in
        [(IF_MATCH, HTTP_IF_MATCH, "If-Match"), (IF_NONE_MATCH, HTTP_IF_NONE_MATCH, "If-None-Match")]
    {
        if let (Some(stand_in), Some(real)) = (one_text(headers, stand_in)?, one_text(headers, real)?)
            && stand_in != real
        {
            return Err(Rejection::TwoConditions(name));
        }
    }
    Ok(())
}
