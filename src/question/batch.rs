//! Transactional batches: every operation inside is a question of its own.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Rejection,
    body::{item_id, parse},
    item_named, one_text,
};
use crate::access::{ItemId, Operation, PartitionKey, headers::BATCH_ATOMIC};

const CONTINUE_ON_ERROR: HeaderName = HeaderName::from_static("x-ms-cosmos-batch-continue-on-error");

/// Most operations of a batch (service limits).
const MOST: usize = 100;

/// One operation of a batch.
#[derive(Clone, PartialEq, Debug)]
pub struct BatchOperation {
    /// What it does.
    pub operation: Operation,
    /// On which item, where it says so.
    pub item: Option<ItemId>,
    /// In which partition, where it names its own.
    pub partition_key: Option<PartitionKey>,
}

/// The members that the service knows. A repeated member fails to parse (two readers could take two values); so does one
/// that is not known, since it could mean something to the service that was not checked here.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Written<'a> {
    #[serde(borrow)]
    operation_type: Cow<'a, str>,
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    partition_key: Option<&'a RawValue>,
    #[serde(borrow)]
    resource_body: Option<&'a RawValue>,
    #[allow(dead_code, reason = "known to the service, decided by nothing here")]
    if_match: Option<Cow<'a, str>>,
    #[allow(dead_code, reason = "known to the service, decided by nothing here")]
    if_none_match: Option<Cow<'a, str>>,
    #[allow(dead_code, reason = "known to the service, decided by nothing here")]
    minimal_return_preference: Option<bool>,
}

/// Reads an atomic batch.
pub(super) fn parse_batch(headers: &HeaderMap, body: &[u8]) -> Result<Vec<BatchOperation>, Rejection> {
    let says = |name: HeaderName, value: &str| {
        one_text(headers, name).map(|text| text.is_some_and(|text| text.eq_ignore_ascii_case(value)))
    };
    if says(BATCH_ATOMIC, "false")? || says(CONTINUE_ON_ERROR, "true")? {
        return Err(Rejection::Contradiction("non-atomic bulk is not accepted; send an atomic batch"));
    }
    let written: Vec<&RawValue> = parse(body, "an array of batch operations in text JSON")?;
    if written.is_empty() || written.len() > MOST {
        return Err(Rejection::Body("a batch of 1 to 100 operations"));
    }
    written.into_iter().enumerate().map(|(index, written)| read(index, written)).collect()
}

fn read(index: usize, written: &RawValue) -> Result<BatchOperation, Rejection> {
    let refuse = |reason| Rejection::BatchOperation { index, reason };
    let written: Written<'_> = serde_json::from_str(written.get())
        .map_err(|_| refuse("a member is missing, repeated, of the wrong type or not known"))?;
    let operation = match written.operation_type.as_ref() {
        "Create" => Operation::ItemsCreate,
        "Upsert" => Operation::ItemsUpsert,
        "Read" => Operation::ItemsRead,
        "Replace" => Operation::ItemsReplace,
        "Patch" => Operation::ItemsPatch,
        "Delete" => Operation::ItemsDelete,
        _ => return Err(refuse("operationType is one of Create, Upsert, Read, Replace, Patch, Delete")),
    };
    let named = written.id.as_deref().map(item_named).transpose()?;
    let item = match (operation, written.resource_body) {
        (Operation::ItemsCreate | Operation::ItemsUpsert, Some(item)) => {
            let inner = match item_id(item.get().as_bytes()) {
                Err(Rejection::Body(_)) => return Err(refuse("resourceBody is an item with one `id`")),
                read => read?,
            };
            if named.is_some() && named != inner {
                return Err(refuse("`id` and the id of resourceBody differ"));
            }
            inner
        }
        (Operation::ItemsCreate | Operation::ItemsUpsert, None) => return Err(refuse("resourceBody is missing")),
        _ if named.is_none() => return Err(refuse("`id` is missing")),
        (Operation::ItemsReplace, Some(item)) => {
            item_id(item.get().as_bytes()).map_err(|_| refuse("resourceBody is an item with one `id`"))?;
            named
        }
        _ => named,
    };
    let partition_key = written.partition_key.map(own_partition_key).transpose()?;
    Ok(BatchOperation { operation, item, partition_key })
}

/// An operation's own partition key is an array, or (JavaScript SDK) the text of one.
fn own_partition_key(written: &RawValue) -> Result<PartitionKey, Rejection> {
    let text: Option<Cow<'_, str>> = serde_json::from_str(written.get()).ok();
    Ok(text.as_deref().unwrap_or(written.get()).parse()?)
}
