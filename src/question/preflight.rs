//! `POST /preflight`: what a workflow will need, and the reads that show whether it is there.

use std::borrow::Cow;

use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{Question, Rejection, body::parse, partition::key_of, path::Path};
use crate::access::{Action, ContainerName, ItemId, Operation, PartitionKey};

/// Most entries of one preflight.
pub const MOST_NEEDS: usize = 50;

/// One thing that a workflow will want to do.
#[derive(Clone, PartialEq, Debug)]
pub struct Need {
    /// What.
    pub operation: Operation,
    /// Where.
    pub container: ContainerName,
    /// In which partition; `None` leaves it to the grant.
    pub partition_key: Option<PartitionKey>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written<'a> {
    #[serde(borrow)]
    operation: Cow<'a, str>,
    #[serde(borrow)]
    container: Cow<'a, str>,
    partition_key: Option<Value>,
}

/// Reads the body of a preflight. An HTTP Task without a `RequestBody` sends none; that counts as the empty list.
pub fn needs(body: &[u8]) -> Result<Vec<Need>, Rejection> {
    if body.trim_ascii().is_empty() {
        return Ok(Vec::new());
    }
    let written: Vec<&RawValue> = parse(body, "an array of {operation, container, partition_key?}")?;
    if written.len() > MOST_NEEDS {
        return Err(Rejection::Body("a preflight of at most 50 entries"));
    }
    written.into_iter().enumerate().map(|(index, written)| need(index, written)).collect()
}

fn need(index: usize, written: &RawValue) -> Result<Need, Rejection> {
    let refuse = |reason| Rejection::Need { index, reason };
    let written: Written<'_> = serde_json::from_str(written.get())
        .map_err(|_| refuse("it is {operation, container, partition_key?}, each once and nothing else"))?;
    let operation = written.operation.parse().map_err(|_| refuse("`operation` is no operation"))?;
    let container = written.container.parse().map_err(|_| refuse("`container` is not database/container"))?;
    if written.container.contains('*') {
        return Err(refuse("`container` names one container, without `*`"));
    }
    let partition_key = written.partition_key.as_ref().map(key_of).transpose();
    let partition_key = partition_key.map_err(|_| refuse("`partition_key` is no partition key"))?;
    Ok(Need { operation, container, partition_key })
}

impl Question {
    /// Reads the container itself.
    pub fn of_container(container: &ContainerName) -> Self {
        Self::look(Action::Metadata, container, Path::Container(container.clone()), None)
    }

    /// Reads one item.
    pub fn of_item(container: &ContainerName, key: &PartitionKey, item: ItemId) -> Self {
        let path = Path::Item(container.clone(), item);
        Self::look(Action::Operation(Operation::ItemsRead), container, path, Some(key.clone()))
    }

    fn look(action: Action, container: &ContainerName, path: Path, partition_key: Option<PartitionKey>) -> Self {
        Self {
            action,
            container: container.clone(),
            partition_key,
            item: None,
            batch: Vec::new(),
            method: Method::GET,
            path: path.rebuild(),
            body: Bytes::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_are_read_strictly() {
        let read = |body: &str| needs(body.as_bytes());
        for nothing in ["", "  ", "[]"] {
            assert_eq!(read(nothing), Ok(Vec::new()));
        }
        let one = read(r#"[{"operation":"items/read","container":"shop/orders","partition_key":["t1"]}]"#).unwrap();
        assert_eq!(one[0].operation, Operation::ItemsRead);
        assert_eq!(one[0].partition_key.as_ref().unwrap().to_string(), r#"["t1"]"#);
        let bare = read(r#"[{"operation":"query","container":"shop/orders","partition_key":"t1"}]"#).unwrap();
        assert_eq!(bare[0].partition_key, one[0].partition_key);
        for wrong in [
            "{}",
            "[1]",
            r#"[{"operation":"items/read"}]"#,
            r#"[{"operation":"items/*","container":"shop/orders"}]"#,
            r#"[{"operation":"query","container":"shop/*"}]"#,
            r#"[{"operation":"query","container":"shop"}]"#,
            r#"[{"operation":"query","operation":"feed","container":"shop/orders"}]"#,
            r#"[{"operation":"query","container":"shop/orders","item":"a"}]"#,
            r#"[{"operation":"query","container":"shop/orders","partition_key":[]}]"#,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn fifty_needs_are_enough() {
        let needs_of = |count| {
            let one = r#"{"operation":"query","container":"shop/orders"}"#;
            needs(format!("[{}]", vec![one; count].join(",")).as_bytes())
        };
        assert_eq!(needs_of(50).unwrap().len(), 50);
        assert_eq!(needs_of(51), Err(Rejection::Body("a preflight of at most 50 entries")));
    }
}
