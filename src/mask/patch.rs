//! What patches touch: nothing that is masked, and nothing that holds it or is inside of it.
//!
//! `move` and `copy` would carry it out. `set` and `remove` would change what the caller cannot know, and whether `replace`,
//! `remove` or `incr` succeed tells what is there. So no operation may name it, and no condition may ask about it.

use std::borrow::Cow;

use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

use super::{
    Mask,
    pointer::{shown, steps},
    query::{self, Exposed},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Patch<'a> {
    #[serde(borrow)]
    operations: Vec<Operation<'a>>,
    #[serde(borrow)]
    condition: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Operation<'a> {
    #[serde(borrow)]
    op: Cow<'a, str>,
    #[serde(borrow)]
    path: Cow<'a, str>,
    #[serde(borrow)]
    from: Option<Cow<'a, str>>,
    #[allow(dead_code, reason = "read so that other members are refused")]
    value: Option<IgnoredAny>,
}

/// What of a batch's operation matters here; its question was read strictly before.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InBatch<'a> {
    #[serde(borrow)]
    operation_type: Cow<'a, str>,
    #[serde(borrow)]
    resource_body: Option<&'a RawValue>,
}

pub(super) fn check(mask: &Mask, body: &[u8]) -> Result<(), Exposed> {
    let unread = |_| Exposed::Unread("the patch has members beside op, path, from and value");
    let patch = if body.trim_ascii_start().first() == Some(&b'[') {
        Patch { operations: serde_json::from_slice(body).map_err(unread)?, condition: None }
    } else {
        serde_json::from_slice(body).map_err(unread)?
    };
    for Operation { op, path, from, .. } in &patch.operations {
        for path in [Some(path), from.as_ref()].into_iter().flatten() {
            let path = steps(path).ok_or(Exposed::Unread("the patch has a path that is no JSON pointer"))?;
            if let Some(pointer) = mask.pointers().iter().find(|pointer| pointer.meets(&path)) {
                return Err(Exposed::Patched { op: op.to_string(), path: shown(&path), pointer: pointer.clone() });
            }
        }
    }
    match &patch.condition {
        Some(condition) => query::check_condition(mask, condition),
        None => Ok(()),
    }
}

pub(super) fn check_batch(mask: &Mask, body: &[u8]) -> Result<(), Exposed> {
    let operations: Vec<InBatch<'_>> =
        serde_json::from_slice(body).map_err(|_| Exposed::Unread("the batch is no list of operations"))?;
    for operation in operations.iter().filter(|operation| operation.operation_type == "Patch") {
        let patch = operation.resource_body.ok_or(Exposed::Unread("the batch has a patch without a body"))?;
        check(mask, patch.get().as_bytes())?;
    }
    Ok(())
}
