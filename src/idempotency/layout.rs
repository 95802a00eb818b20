//! How a container is laid out: what its partition key is made of, what must be unique in it, and whether documents can expire.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::IdempotencyError;
use crate::access::{ContainerName, ItemId, KeyComponent, PartitionKey};

/// Members of a marker that no part of a partition key can stand in.
const TAKEN: [&str; 8] = ["id", "ttl", "stepgate", "_rid", "_self", "_etag", "_attachments", "_ts"];

/// What is read of a container's description.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    /// The paths of the partition key, outermost first, each as its members.
    paths: Vec<Vec<String>>,
    /// The paths of each unique key. Where a document has nothing there, that is a value too, and only one may have it.
    unique: Vec<Vec<Vec<String>>>,
    expires: bool,
}

impl Layout {
    /// The layout in the body that `GET C` answers.
    pub fn read(body: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Described {
            partition_key: Definition,
            #[serde(default)]
            unique_key_policy: Unique,
            default_ttl: Option<i64>,
        }
        #[derive(Deserialize, Default)]
        #[serde(rename_all = "camelCase")]
        struct Unique {
            #[serde(default)]
            unique_keys: Vec<Definition>,
        }
        #[derive(Deserialize)]
        struct Definition {
            paths: Vec<String>,
        }
        let Described { partition_key, unique_key_policy, default_ttl } = serde_json::from_slice(body).ok()?;
        let read = |key: &Definition| key.paths.iter().map(|path| members(path)).collect::<Option<Vec<_>>>();
        let paths = read(&partition_key)?;
        let unique = unique_key_policy.unique_keys.iter().map(read).collect::<Option<_>>()?;
        (!paths.is_empty()).then_some(Self { paths, unique, expires: default_ttl.is_some() })
    }

    /// Whether a document's own `ttl` is obeyed: the container's time to live is on.
    pub fn expires(&self) -> bool {
        self.expires
    }

    /// Puts the document `id` into the partition of `key`, and makes it unlike every other where the container asks for that.
    pub(super) fn place(
        &self,
        container: &ContainerName,
        key: Option<&PartitionKey>,
        id: &ItemId,
        document: &mut Map<String, Value>,
    ) -> Result<(), IdempotencyError> {
        let written = || written(&self.paths);
        let components = key.map(PartitionKey::components).unwrap_or_default();
        if components.len() != self.paths.len() {
            return Err(IdempotencyError::PartitionKey(written()));
        }
        for (path, component) in self.paths.iter().zip(components) {
            if is_taken(path) || put(document, path, component).is_none() {
                return Err(IdempotencyError::NoPlace { container: container.clone(), path: written() });
            }
        }
        let id = KeyComponent::Text(id.as_str().into());
        for paths in &self.unique {
            let free = paths.iter().filter(|path| !is_taken(path) && !self.paths.contains(path));
            if !free.into_iter().any(|path| put(document, path, &id).is_some()) {
                return Err(IdempotencyError::NotUnique { container: container.clone(), paths: self::written(paths) });
            }
        }
        Ok(())
    }
}

/// Whether a path leads to where a marker has something of its own.
fn is_taken(path: &[String]) -> bool {
    path.first().is_some_and(|first| TAKEN.contains(&first.as_str()) || first.starts_with('_'))
}

fn written(paths: &[Vec<String>]) -> String {
    paths.iter().map(|path| format!("/{}", path.join("/"))).collect::<Vec<_>>().join(", ")
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
        placed_in(&layout(paths), key)
    }

    fn placed_in(layout: &Layout, key: &str) -> Result<Value, IdempotencyError> {
        let mut document = Map::new();
        let (key, id): (PartitionKey, _) = (key.parse().unwrap(), ItemId::new("m").unwrap());
        layout.place(&"shop/orders".parse().unwrap(), Some(&key), &id, &mut document)?;
        Ok(document.into())
    }

    #[test]
    fn no_two_markers_are_alike_where_documents_must_not_be() {
        let unique = |keys: Value| {
            let keys = json!({ "partitionKey": { "paths": ["/tenant"] }, "uniqueKeyPolicy": { "uniqueKeys": keys } });
            placed_in(&Layout::read(keys.to_string().as_bytes()).unwrap(), r#"["t1"]"#)
        };
        assert_eq!(unique(json!([])).unwrap(), json!({ "tenant": "t1" }));
        let keys = json!([{ "paths": ["/tenant", "/email"] }, { "paths": ["/a/b"] }]);
        assert_eq!(unique(keys).unwrap(), json!({ "tenant": "t1", "email": "m", "a": { "b": "m" } }));
        for without_room in [json!(["/tenant"]), json!(["/ttl"]), json!(["/tenant/x"])] {
            let refused = unique(json!([{ "paths": without_room }])).unwrap_err();
            assert!(matches!(refused, IdempotencyError::NotUnique { .. }), "{refused}");
        }
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
