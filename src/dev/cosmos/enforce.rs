//! What a resource token may do.
//!
//! The service's rule: a permission applies when its resource is a prefix of the requested link and its partition key is a
//! superset of the request's (doc comment of `PermissionProperties` in Microsoft's .NET SDK). What tests of that SDK and
//! users have seen beyond it: an item's token cannot create or upsert, a partition's token cannot reach past its partition
//! by a header-less query, a feed or a range header, and the outer part of a hierarchical key opens point operations but no
//! query. Where nobody has seen what the service does, the stricter answer is given.

use serde_json::Value;

use super::{
    keyring::{Claim, Mode},
    partition::Key,
    refusal::Refusal,
    request::{Asked, Operation, Part, Target},
};

/// Whether a token with this claim may do what is asked in the container with these key paths.
pub(super) fn permits(claim: &Claim, asked: &Asked, key_paths: usize) -> Result<(), Refusal> {
    let allowed = match &asked.target {
        Target::Account => asked.method == "GET",
        Target::Container { database, container, part }
            if *database == claim.database && *container == claim.container =>
        {
            match part {
                Part::Itself | Part::Ranges => asked.method == "GET",
                Part::Items | Part::Item(_) | Part::Procedure(_) => permits_operation(claim, asked, part, key_paths)?,
                Part::Procedures | Part::Other => false,
            }
        }
        _ => false,
    };
    if allowed { Ok(()) } else { Err(Refusal::InsufficientPermissions) }
}

fn permits_operation(claim: &Claim, asked: &Asked, part: &Part, key_paths: usize) -> Result<bool, Refusal> {
    let Some(operation) = asked.operation() else { return Ok(false) };
    if operation.writes() && claim.mode != Mode::All {
        return Ok(false);
    }
    if let Some((kind, id)) = &claim.child
        && !(kind == "docs" && matches!(part, Part::Item(asked) if asked == id))
    {
        return Ok(false);
    }
    match &claim.key {
        None => Ok(true),
        Some(key) => {
            let Some(key) = Key::from_json(key) else { return Ok(false) };
            stays_inside(&key, operation, asked, key_paths)
        }
    }
}

/// Whether the request stays inside the partition `locked`.
fn stays_inside(locked: &Key, operation: Operation, asked: &Asked, key_paths: usize) -> Result<bool, Refusal> {
    if asked.names_a_range() {
        return Ok(false);
    }
    let Some(named) = asked.partition_key()? else { return Ok(operation == Operation::QueryPlan) };
    let whole = !operation.is_over_many() || named.depth() == key_paths;
    Ok(locked.covers(&named) && whole && (operation != Operation::Batch || batch_stays_inside(locked, asked)?))
}

/// Whether every operation of a batch that names a partition of its own names one inside `locked`.
fn batch_stays_inside(locked: &Key, asked: &Asked) -> Result<bool, Refusal> {
    Ok(batch_keys(asked)?.iter().all(|key| locked.covers(key)))
}

/// The partition keys that the operations of a batch name for themselves: an array, or the text of one.
pub(super) fn batch_keys(asked: &Asked) -> Result<Vec<Key>, Refusal> {
    let operations: Vec<Value> = serde_json::from_slice(&asked.body).map_err(|_| Refusal::InvalidBody)?;
    let key = |named: &Value| match named {
        Value::String(text) => Key::parse(text),
        named => Key::from_json(named).ok_or(Refusal::InvalidPartitionKey),
    };
    operations.iter().filter_map(|operation| operation.get("partitionKey")).map(key).collect()
}
