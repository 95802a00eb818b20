//! Refusals of Cosmos that the emulator lacks, whoever asks: a partition key that is missing, has the wrong number of
//! components or is not the item's; a cross-partition query nobody asked for; content types.
//!
//! The emulator ignores a partition key header with too few components on a query, and then reads every partition. Such
//! a request is turned down here rather than answered too widely.

use serde_json::Value;

use super::{
    emulator::{Container, Emulator},
    enforce::batch_keys,
    partition::Key,
    refusal::Refusal,
    request::{Asked, Operation, header},
};

/// Checks a request on items or on a stored procedure of `container`.
pub(super) async fn check(asked: &Asked, container: &Container, emulator: &Emulator) -> Result<(), Refusal> {
    let Some(operation) = asked.operation() else { return Ok(()) };
    let key = asked.partition_key()?;
    match operation {
        Operation::QueryPlan => Ok(()),
        Operation::Feed => whole_or_ranged(asked, key.as_ref(), container),
        Operation::Query => {
            query_content_type(asked)?;
            whole_or_ranged(asked, key.as_ref(), container)?;
            if key.is_none() { cross_partition(asked, emulator).await } else { Ok(()) }
        }
        Operation::Create | Operation::Upsert | Operation::Replace => {
            let key = whole(key, container)?;
            let item: Value = serde_json::from_slice(&asked.body).map_err(|_| Refusal::InvalidBody)?;
            same(Key::of_item(&item, &container.key_paths), &key)
        }
        Operation::Batch => {
            let key = whole(key, container)?;
            batch_keys(asked)?.into_iter().try_for_each(|named| same(Some(named), &key))
        }
        Operation::Patch => {
            patch_content_type(asked)?;
            whole(key, container).map(|_| ())
        }
        Operation::Read | Operation::Delete | Operation::Execute => whole(key, container).map(|_| ()),
    }
}

fn whole(key: Option<Key>, container: &Container) -> Result<Key, Refusal> {
    let key = key.ok_or(Refusal::MissingPartitionKey)?;
    if key.depth() == container.key_paths.len() { Ok(key) } else { Err(Refusal::PartitionKeyDepth) }
}

fn whole_or_ranged(asked: &Asked, key: Option<&Key>, container: &Container) -> Result<(), Refusal> {
    match key {
        Some(key) if key.depth() != container.key_paths.len() && !asked.names_a_range() => {
            Err(Refusal::PartitionKeyDepth)
        }
        _ => Ok(()),
    }
}

fn same(found: Option<Key>, named: &Key) -> Result<(), Refusal> {
    if found.as_ref() == Some(named) { Ok(()) } else { Err(Refusal::PartitionKeyMismatch) }
}

fn content_type(asked: &Asked) -> &str {
    let value = asked.header("content-type").unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

fn query_content_type(asked: &Asked) -> Result<(), Refusal> {
    match content_type(asked) {
        "application/query+json" => Ok(()),
        _ => Err(Refusal::ContentType("application/query+json")),
    }
}

fn patch_content_type(asked: &Asked) -> Result<(), Refusal> {
    match content_type(asked) {
        // The REST page and Rust's SDK; Python's and .NET's; JavaScript's, and what an HTTP Task sends.
        "application/json_patch+json" | "application/json-patch+json" | "" | "application/json" => Ok(()),
        _ => Err(Refusal::ContentType("application/json_patch+json")),
    }
}

/// A query without a partition key must ask for all partitions, unless its filter pins one.
async fn cross_partition(asked: &Asked, emulator: &Emulator) -> Result<(), Refusal> {
    if asked.flag(header::CROSS_PARTITION) || asked.names_a_range() || emulator.query_is_pinned(asked).await {
        Ok(())
    } else {
        Err(Refusal::CrossPartitionDisabled)
    }
}
