//! How a container is laid out: what its partition key is made of, and whether documents in it can expire.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::IdempotencyError;
use crate::access::{ContainerName, KeyComponent, PartitionKey};

/// Members of a marker that no part of a partition key can stand in.
const TAKEN: [&str; 8] = ["id", "ttl", "stepgate", "_rid", "_self", "_etag", "_attachments", "_ts"];

/// What is read of a container's description.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    /// The paths of the partition key, outermost first, each as its members.
    paths: Vec<Vec<String>>,
    expires: bool,
}

impl Layout {
    /// The layout in the body that `GET C` answers.
    pub fn read(body: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Described {
            partition_key: Definition,
            default_ttl: Option<i64>,
        }
        #[derive(Deserialize)]
        struct Definition {
            paths: Vec<String>,
        }
        let Described { partition_key, default_ttl } = serde_json::from_slice(body).ok()?;
        let paths: Vec<_> = partition_key.paths.iter().map(|path| members(path)).collect::<Option<_>>()?;
        (!paths.is_empty()).then_some(Self { paths, expires: default_ttl.is_some() })
    }

    /// Whether a document's own `ttl` is obeyed: the container's time to live is on.
    pub fn expires(&self) -> bool {
        self.expires
    }

    /// Puts a document into the partition of `key`.
    pub(super) fn place(
        &self,
        container: &ContainerName,
        key: Option<&PartitionKey>,
        document: &mut Map<String, Value>,
    ) -> Result<(), IdempotencyError> {
        let written = || self.paths.iter().map(|path| format!("/{}", path.join("/"))).collect::<Vec<_>>().join(", ");
        let components = key.map(PartitionKey::components).unwrap_or_default();
        if components.len() != self.paths.len() {
            return Err(IdempotencyError::PartitionKey(written()));
        }
        for (path, component) in self.paths.iter().zip(components) {
            let taken = path.first().is_some_and(|first| TAKEN.contains(&first.as_str()) || first.starts_with('_'));
            if taken || put(document, path, component).is_none() {
                return Err(IdempotencyError::NoPlace { container: container.clone(), path: written() });
            }
        }
        Ok(())
    }
}

/// The members on a path such as `/address/city` or `/"a/b"/c`.
fn members(path: &str) -> Option<Vec<String>> {
    let mut members = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        let inner = rest.strip_prefix('/')?;
        let (member, after) = match inner.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => inner.split_at(inner.find('/').unwrap_or(inner.len())),
        };
        if member.is_empty() {
            return None;
        }
        members.push(member.to_owned());
        rest = after;
    }
    (!members.is_empty()).then_some(members)
}

/// Puts one component of a key where its path leads; `None` when something else is there.
fn put(document: &mut Map<String, Value>, path: &[String], component: &KeyComponent) -> Option<()> {
    let (last, parents) = path.split_last()?;
    // An item without the member is what an undefined component stands for.
    if *component == KeyComponent::Undefined {
        return Some(());
    }
    let mut holder = document;
    for parent in parents {
        holder = holder.entry(parent.clone()).or_insert_with(|| Map::new().into()).as_object_mut()?;
    }
    match holder.insert(last.clone(), component.to_json()) {
        None => Some(()),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn layout(paths: &[&str]) -> Layout {
        Layout::read(json!({ "id": "c", "partitionKey": { "paths": paths } }).to_string().as_bytes()).unwrap()
    }

    fn placed(paths: &[&str], key: &str) -> Result<Value, IdempotencyError> {
        let mut document = Map::new();
        let key: PartitionKey = key.parse().unwrap();
        layout(paths).place(&"shop/orders".parse().unwrap(), Some(&key), &mut document)?;
        Ok(document.into())
    }

    #[test]
    fn a_document_is_placed_where_the_paths_lead() {
        assert_eq!(placed(&["/tenant"], r#"["t1"]"#).unwrap(), json!({ "tenant": "t1" }));
        assert_eq!(placed(&["/tenant"], "[null]").unwrap(), json!({ "tenant": null }));
        assert_eq!(placed(&["/tenant"], "[{}]").unwrap(), json!({}));
        let nested = json!({ "a": { "b": 1, "c/d": true } });
        assert_eq!(placed(&["/a/b", "/a/\"c/d\""], "[1,true]").unwrap(), nested);
    }

    #[test]
    fn a_partition_without_room_for_a_marker_is_told() {
        for path in ["/id", "/ttl", "/stepgate/x", "/_ts"] {
            assert!(matches!(placed(&[path], "[1]"), Err(IdempotencyError::NoPlace { .. })), "{path}");
        }
        assert!(
            matches!(placed(&["/a", "/b"], "[1]"), Err(IdempotencyError::PartitionKey(paths)) if paths == "/a, /b")
        );
        assert!(matches!(placed(&["/a", "/a/b"], "[1,2]"), Err(IdempotencyError::NoPlace { .. })));
    }

    #[test]
    fn a_description_that_is_none_is_not_guessed_at() {
        for body in ["", "{}", r#"{"partitionKey":{"paths":[]}}"#, r#"{"partitionKey":{"paths":["tenant"]}}"#] {
            assert_eq!(Layout::read(body.as_bytes()), None, "{body}");
        }
        assert!(!layout(&["/a"]).expires());
        let on = json!({ "partitionKey": { "paths": ["/a"] }, "defaultTtl": -1 }).to_string();
        assert!(Layout::read(on.as_bytes()).unwrap().expires());
    }
}
