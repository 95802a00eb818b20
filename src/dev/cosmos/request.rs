//! What was asked: one reading of a request, which authorization, enforcement and the emulator all share.
//!
//! Path segments are decoded once, here; the emulator is sent a path rebuilt from them, so that nothing can be checked
//! under one name and carried out under another. For the same reason a repeated `x-ms-*` header is turned down.

use azure_data_cosmos_driver::binary_json;
use bytes::Bytes;
use http::{HeaderMap, Method, request::Parts};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{partition::Key, refusal::Refusal};

/// The headers of the Cosmos REST API that the stand-in reads or writes itself.
pub(super) mod header {
    pub(crate) const ACTIVITY_ID: &str = "x-ms-activity-id";
    pub(crate) const BATCH: &str = "x-ms-cosmos-is-batch-request";
    pub(crate) const CONTINUATION: &str = "x-ms-continuation";
    pub(crate) const CROSS_PARTITION: &str = "x-ms-documentdb-query-enablecrosspartition";
    pub(crate) const DATE: &str = "x-ms-date";
    pub(crate) const END_EPK: &str = "x-ms-end-epk";
    pub(crate) const EXPIRY: &str = "x-ms-documentdb-expiry-seconds";
    pub(crate) const ITEM_COUNT: &str = "x-ms-item-count";
    pub(crate) const MAX_ITEM_COUNT: &str = "x-ms-max-item-count";
    pub(crate) const PARTITION_KEY: &str = "x-ms-documentdb-partitionkey";
    pub(crate) const QUERY: &str = "x-ms-documentdb-isquery";
    /// An older spelling that the emulator still obeys.
    pub(crate) const QUERY_LEGACY: &str = "x-ms-documentdb-query";
    pub(crate) const QUERY_PLAN: &str = "x-ms-cosmos-is-query-plan-request";
    pub(crate) const RANGE_ID: &str = "x-ms-documentdb-partitionkeyrangeid";
    pub(crate) const READ_KEY_TYPE: &str = "x-ms-read-key-type";
    pub(crate) const REQUEST_CHARGE: &str = "x-ms-request-charge";
    pub(crate) const RETRY_AFTER: &str = "x-ms-retry-after-ms";
    pub(crate) const SERIALIZATION: &str = "x-ms-cosmos-supported-serialization-formats";
    pub(crate) const START_EPK: &str = "x-ms-start-epk";
    pub(crate) const SUBSTATUS: &str = "x-ms-substatus";
    pub(crate) const UPSERT: &str = "x-ms-documentdb-is-upsert";
}

/// What a path names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Target {
    /// `/`
    Account,
    /// `/dbs`
    Databases,
    /// `/dbs/{db}`
    Database { database: String },
    /// `/dbs/{db}/colls`
    Containers { database: String },
    /// A container and what is in it.
    Container { database: String, container: String, part: Part },
    /// `/dbs/{db}/users`
    Users { database: String },
    /// `/dbs/{db}/users/{u}`
    User { database: String, user: String },
    /// `/dbs/{db}/users/{u}/permissions`
    Permissions { database: String, user: String },
    /// `/dbs/{db}/users/{u}/permissions/{p}`
    Permission { database: String, user: String, permission: String },
    /// Offers, triggers and whatever else there is.
    Other,
}

/// What a path names in a container.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Part {
    /// The container itself.
    Itself,
    /// `pkranges`
    Ranges,
    /// `docs`
    Items,
    /// `docs/{id}`
    Item(String),
    /// `sprocs`
    Procedures,
    /// `sprocs/{id}`
    Procedure(String),
    /// Triggers, functions, conflicts.
    Other,
}

impl Target {
    fn of(segments: &[String]) -> Self {
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        match segments.as_slice() {
            [] => Self::Account,
            ["dbs"] => Self::Databases,
            ["dbs", db] => Self::Database { database: (*db).into() },
            ["dbs", db, "colls"] => Self::Containers { database: (*db).into() },
            ["dbs", db, "colls", container, rest @ ..] => Self::Container {
                database: (*db).into(),
                container: (*container).into(),
                part: match rest {
                    [] => Part::Itself,
                    ["pkranges"] => Part::Ranges,
                    ["docs"] => Part::Items,
                    ["docs", id] => Part::Item((*id).into()),
                    ["sprocs"] => Part::Procedures,
                    ["sprocs", id] => Part::Procedure((*id).into()),
                    _ => Part::Other,
                },
            },
            ["dbs", db, "users"] => Self::Users { database: (*db).into() },
            ["dbs", db, "users", user] => Self::User { database: (*db).into(), user: (*user).into() },
            ["dbs", db, "users", user, "permissions"] => {
                Self::Permissions { database: (*db).into(), user: (*user).into() }
            }
            ["dbs", db, "users", user, "permissions", permission] => {
                Self::Permission { database: (*db).into(), user: (*user).into(), permission: (*permission).into() }
            }
            _ => Self::Other,
        }
    }
}

/// What is to be done with items or a stored procedure.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// `POST C/docs`
    Create,
    /// `POST C/docs` with `x-ms-documentdb-is-upsert`
    Upsert,
    /// `GET C/docs/{id}`
    Read,
    /// `PUT C/docs/{id}`
    Replace,
    /// `PATCH C/docs/{id}`
    Patch,
    /// `DELETE C/docs/{id}`
    Delete,
    /// `POST C/docs` with `x-ms-documentdb-isquery`
    Query,
    /// `POST C/docs` with `x-ms-cosmos-is-query-plan-request`
    QueryPlan,
    /// `GET C/docs`
    Feed,
    /// `POST C/docs` with `x-ms-cosmos-is-batch-request`
    Batch,
    /// `POST C/sprocs/{id}`
    Execute,
}

impl Operation {
    /// Whether it takes a permission of mode `All`.
    pub(super) fn writes(self) -> bool {
        !matches!(self, Self::Read | Self::Query | Self::QueryPlan | Self::Feed)
    }

    /// Whether it reads a set of items, which the partition key header only narrows.
    pub(super) fn is_over_many(self) -> bool {
        matches!(self, Self::Query | Self::QueryPlan | Self::Feed)
    }
}

/// One request.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) method: Method,
    /// Decoded.
    pub(super) segments: Vec<String>,
    pub(super) target: Target,
    /// The region that it reached, by its place in the list.
    pub(super) region: usize,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Asked {
    /// Reads a request; the body comes out as plain JSON, whichever of the clients' dialects it came in.
    pub(super) fn read(parts: &Parts, body: Bytes, region: usize) -> Result<Self, Refusal> {
        let segments = segments(parts.uri.path())?;
        let mut headers = parts.headers.clone();
        if let Some(name) =
            headers.keys().find(|n| n.as_str().starts_with("x-ms-") && headers.get_all(*n).iter().count() > 1)
        {
            return Err(Refusal::RepeatedHeader(name.to_string()));
        }
        // With this header the emulator would answer in binary JSON, which nothing between here and a workflow can read.
        headers.remove(header::SERIALIZATION);
        let target = Target::of(&segments);
        let body = plain(&parts.method, body)?;
        Ok(Self { method: parts.method.clone(), segments, target, region, headers, body })
    }

    /// The text of a header; none when it is absent or not ASCII.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Whether a flag header says `true`, in whatever case.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.header(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// The operation on items or a stored procedure, if it is one. The order among contradictory flags is the emulator's.
    pub(super) fn operation(&self) -> Option<Operation> {
        let Target::Container { part, .. } = &self.target else { return None };
        Some(match (self.method.as_str(), part) {
            ("POST", Part::Items) if self.flag(header::QUERY_PLAN) => Operation::QueryPlan,
            ("POST", Part::Items) if self.flag(header::QUERY) || self.flag(header::QUERY_LEGACY) => Operation::Query,
            ("POST", Part::Items) if self.flag(header::BATCH) => Operation::Batch,
            ("POST", Part::Items) if self.flag(header::UPSERT) => Operation::Upsert,
            ("POST", Part::Items) => Operation::Create,
            ("GET", Part::Items) => Operation::Feed,
            ("GET", Part::Item(_)) => Operation::Read,
            ("PUT", Part::Item(_)) => Operation::Replace,
            ("PATCH", Part::Item(_)) => Operation::Patch,
            ("DELETE", Part::Item(_)) => Operation::Delete,
            ("POST", Part::Procedure(_)) => Operation::Execute,
            _ => return None,
        })
    }

    /// The partition key header. An empty array names no partition.
    pub(super) fn partition_key(&self) -> Result<Option<Key>, Refusal> {
        let key = self.header(header::PARTITION_KEY).map(Key::parse).transpose()?;
        Ok(key.filter(|key| key.depth() > 0))
    }

    /// Whether it addresses a physical partition or a range of hashes, past the partition key header.
    pub(super) fn names_a_range(&self) -> bool {
        [header::RANGE_ID, header::START_EPK, header::END_EPK, header::READ_KEY_TYPE]
            .into_iter()
            .any(|name| self.headers.contains_key(name))
    }

    /// The resource type and the resource link that a master signature covers.
    pub(super) fn signed_resource(&self) -> (String, String) {
        let is_feed = self.segments.len() % 2 == 1;
        let kind = match self.segments.as_slice() {
            [] => "",
            [.., kind] if is_feed => kind,
            [.., kind, _] => kind,
            [_] => "",
        };
        let parent = self.segments.len().saturating_sub(1);
        let link = self.segments.iter().take(if is_feed { parent } else { parent + 1 });
        let link = link.map(String::as_str).collect::<Vec<_>>().join("/");
        match kind {
            // An offer is named by its rid alone, in lower case.
            "offers" => (kind.to_owned(), link.trim_start_matches("offers/").to_lowercase()),
            _ => (kind.to_owned(), link),
        }
    }

    /// The path as the caller wrote it, but decoded and without a trailing slash.
    pub(super) fn path(&self) -> String {
        format!("/{}", self.segments.join("/"))
    }
}

fn segments(path: &str) -> Result<Vec<String>, Refusal> {
    // Python's SDK ends most paths with a slash; the service does not mind.
    let path = path.strip_prefix('/').ok_or(Refusal::InvalidPath)?;
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() {
        return Ok(Vec::new());
    }
    let decode = |segment: &str| {
        let segment = percent_decode_str(segment).decode_utf8().map_err(|_| Refusal::InvalidPath)?;
        // A URL library would resolve dots on the way to the emulator.
        if matches!(segment.as_ref(), "" | "." | "..") { Err(Refusal::InvalidPath) } else { Ok(segment.into_owned()) }
    };
    path.split('/').map(decode).collect()
}

fn plain(method: &Method, body: Bytes) -> Result<Bytes, Refusal> {
    let body = if binary_json::is_binary(&body) {
        Bytes::from(binary_json::transcode_to_text(&body).map_err(|_| Refusal::InvalidBody)?)
    } else {
        body
    };
    if method != Method::PATCH {
        return Ok(body);
    }
    // JavaScript's SDK sends the bare list of operations.
    match serde_json::from_slice::<Value>(&body) {
        Ok(operations @ Value::Array(_)) => Ok(Bytes::from(json!({ "operations": operations }).to_string())),
        Ok(_) => Ok(body),
        Err(_) => Err(Refusal::InvalidBody),
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn asked(method: &str, path: &str, headers: &[(&str, &str)]) -> Result<Asked, Refusal> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Asked::read(&request.body(()).unwrap().into_parts().0, Bytes::new(), 0)
    }

    #[test]
    fn signatures_cover_the_parent_of_a_feed_and_one_resource_itself() {
        let signed = |method: &str, path: &str| asked(method, path, &[]).unwrap().signed_resource();
        let pair = |kind: &str, link: &str| (kind.to_owned(), link.to_owned());
        assert_eq!(signed("GET", "/"), pair("", ""));
        assert_eq!(signed("GET", "/dbs"), pair("dbs", ""));
        assert_eq!(signed("GET", "/dbs/ToDoList/"), pair("dbs", "dbs/ToDoList"));
        assert_eq!(signed("POST", "/dbs/d/colls/c/docs"), pair("docs", "dbs/d/colls/c"));
        assert_eq!(signed("GET", "/dbs/d/colls/c/docs/a%20b"), pair("docs", "dbs/d/colls/c/docs/a b"));
        assert_eq!(signed("GET", "/dbs/d/users/u/permissions/p"), pair("permissions", "dbs/d/users/u/permissions/p"));
        assert_eq!(signed("GET", "/offers/AbC="), pair("offers", "abc="));
    }

    #[test]
    fn paths_that_could_be_read_twice_are_refused() {
        for path in ["/dbs/d/colls/c/docs/..", "/dbs/d/colls/c/docs/%2e%2E", "/dbs//colls", "/dbs/./colls", "/dbs/%ff"]
        {
            assert_eq!(asked("GET", path, &[]).unwrap_err(), Refusal::InvalidPath, "{path}");
        }
    }

    #[test]
    fn a_repeated_header_is_refused() {
        let twice = [(header::PARTITION_KEY, r#"["a"]"#), (header::PARTITION_KEY, r#"["b"]"#)];
        assert!(matches!(asked("GET", "/dbs/d/colls/c/docs/1", &twice), Err(Refusal::RepeatedHeader(_))));
    }

    #[test]
    fn flags_are_read_in_any_case() {
        for value in ["True", "true", "TRUE"] {
            let asked = asked("POST", "/dbs/d/colls/c/docs", &[(header::UPSERT, value)]).unwrap();
            assert_eq!(asked.operation(), Some(Operation::Upsert), "{value}");
        }
        let asked = asked("POST", "/dbs/d/colls/c/docs", &[(header::UPSERT, "1")]).unwrap();
        assert_eq!(asked.operation(), Some(Operation::Create));
    }
}
