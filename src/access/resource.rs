//! Which data: databases, containers, partition keys, items.

use std::{cmp::Ordering, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap as _};
use serde_json::Value;

/// Longest id of a Cosmos resource, in characters (REST reference, "id must not exceed 255 characters").
const LONGEST_NAME: usize = 255;
/// Longest id of an item, in bytes (service limits: 1,023).
const LONGEST_ITEM_ID: usize = 1023;
/// How the ids of the gateway's own documents begin: callers can neither write such an item nor read one.
pub const RESERVED: &str = "~stepgate~";
/// Largest number of components of a hierarchical partition key.
const MOST_COMPONENTS: usize = 3;

/// A name that Cosmos would not take, or would take for something else.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MalformedName {
    /// Nothing there.
    #[error("a name is empty")]
    Empty,
    /// Over 255 characters (1,023 bytes for an item id).
    #[error("the name is longer than Cosmos allows")]
    TooLong,
    /// `/ \ ? #` or a control character.
    #[error("the name has a character that Cosmos forbids (/ \\ ? # or a control character)")]
    Forbidden,
    /// `.` or `..`, which path normalisation on the way could eat.
    #[error("`.` and `..` are not names")]
    Dots,
    /// Cosmos would read the name as a resource id (rid) instead: the caller would reach another resource than named.
    #[error("the name would be read by Cosmos as a resource id (rid)")]
    ResourceId,
    /// Not `database/container`.
    #[error("write it as database/container")]
    NotAContainer,
}

fn check_characters(name: &str) -> Result<(), MalformedName> {
    if name.is_empty() {
        return Err(MalformedName::Empty);
    }
    if name == "." || name == ".." {
        return Err(MalformedName::Dots);
    }
    if name.chars().any(|c| matches!(c, '/' | '\\' | '?' | '#') || c.is_control()) {
        return Err(MalformedName::Forbidden);
    }
    Ok(())
}

fn check_name(name: &str, rid_bytes: usize) -> Result<(), MalformedName> {
    check_characters(name)?;
    if name.chars().count() > LONGEST_NAME {
        return Err(MalformedName::TooLong);
    }
    if looks_like_rid(name, rid_bytes) {
        return Err(MalformedName::ResourceId);
    }
    Ok(())
}

/// Whether `name` is the base64 form of a rid of `bytes` bytes, `-` standing for `/`: 4 bytes name a database, 8 a
/// container. Only the padded spelling is read as a rid, so ordinary words of the same length stay names.
fn looks_like_rid(name: &str, bytes: usize) -> bool {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    name.ends_with('=') && STANDARD.decode(name.replace('-', "/")).is_ok_and(|rid| rid.len() == bytes)
}

/// A container, as `database/container`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ContainerName {
    /// Both names; neither can hold a slash.
    text: Arc<str>,
    /// Where the slash between them is.
    slash: usize,
}

impl ContainerName {
    /// A container by its two names.
    pub fn new(database: &str, container: &str) -> Result<Self, MalformedName> {
        check_name(database, 4)?;
        check_name(container, 8)?;
        Ok(Self { text: [database, container].join("/").into(), slash: database.len() })
    }

    /// The database's name.
    pub fn database(&self) -> &str {
        self.text.get(..self.slash).unwrap_or_default()
    }

    /// The container's own name.
    pub fn container(&self) -> &str {
        self.text.get(self.slash + 1..).unwrap_or_default()
    }

    /// Both: `database/container`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The resource link, as Cosmos signs and stores it: `dbs/{database}/colls/{container}`.
    pub fn link(&self) -> String {
        format!("dbs/{}/colls/{}", self.database(), self.container())
    }
}

impl Ord for ContainerName {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.database(), self.container()).cmp(&(other.database(), other.container()))
    }
}

impl PartialOrd for ContainerName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for ContainerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for ContainerName {
    type Err = MalformedName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (database, container) = text.split_once('/').ok_or(MalformedName::NotAContainer)?;
        Self::new(database, container)
    }
}

/// The id of an item (or of a stored procedure).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ItemId(Arc<str>);

impl ItemId {
    /// An id, checked against what Cosmos forbids.
    pub fn new(id: &str) -> Result<Self, MalformedName> {
        check_characters(id)?;
        if id.len() > LONGEST_ITEM_ID {
            return Err(MalformedName::TooLong);
        }
        if looks_like_rid(id, 16) {
            return Err(MalformedName::ResourceId);
        }
        Ok(Self(id.into()))
    }

    /// The id itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is one of the ids that the gateway keeps for documents of its own.
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with(RESERVED)
    }
}

/// One component of a partition key value.
#[derive(Clone, PartialEq, Debug)]
pub enum KeyComponent {
    /// A JSON string.
    Text(Arc<str>),
    /// A JSON number. Cosmos compares numbers as IEEE 754 doubles, so that is what is kept.
    Number(f64),
    /// A JSON boolean.
    Bool(bool),
    /// `null`
    Null,
    /// `{}`: the item has no such member.
    Undefined,
}

impl KeyComponent {
    /// The component a JSON value stands for; arrays and objects other than `{}` stand for none.
    pub fn from_json(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(Self::Text(text.as_str().into())),
            Value::Number(number) => number.as_f64().map(Self::Number),
            Value::Bool(flag) => Some(Self::Bool(*flag)),
            Value::Null => Some(Self::Null),
            Value::Object(members) if members.is_empty() => Some(Self::Undefined),
            _ => None,
        }
    }

    /// The component as JSON.
    pub fn to_json(&self) -> Value {
        // Nothing that a component can be is without a form in JSON.
        serde_json::to_value(self).unwrap_or_default()
    }
}

impl Serialize for KeyComponent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            // A whole number is written without a fraction, as Cosmos clients write it.
            Self::Number(number) if number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0 => {
                serializer.serialize_i64(*number as i64)
            }
            Self::Number(number) => serializer.serialize_f64(*number),
            Self::Bool(flag) => serializer.serialize_bool(*flag),
            Self::Null => serializer.serialize_unit(),
            Self::Undefined => serializer.serialize_map(Some(0))?.end(),
        }
    }
}

/// A text that is no partition key.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "a partition key is a JSON array of one to {MOST_COMPONENTS} strings, numbers, booleans or null, such as [\"t1\"]"
)]
pub struct MalformedPartitionKey;

/// A partition key value: one component, or up to three of a hierarchical key. Never empty.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct PartitionKey(Arc<[KeyComponent]>);

impl PartitionKey {
    /// A key of these components.
    pub fn new(components: Vec<KeyComponent>) -> Result<Self, MalformedPartitionKey> {
        if components.is_empty() || components.len() > MOST_COMPONENTS {
            return Err(MalformedPartitionKey);
        }
        Ok(Self(components.into()))
    }

    /// The key that a JSON array stands for.
    pub fn from_json(value: &Value) -> Result<Self, MalformedPartitionKey> {
        let items = value.as_array().ok_or(MalformedPartitionKey)?;
        let components: Option<Vec<_>> = items.iter().map(KeyComponent::from_json).collect();
        Self::new(components.ok_or(MalformedPartitionKey)?)
    }

    /// The components, outermost first.
    pub fn components(&self) -> &[KeyComponent] {
        &self.0
    }

    /// The key as a JSON array.
    pub fn to_json(&self) -> Value {
        Value::Array(self.0.iter().map(KeyComponent::to_json).collect())
    }

    /// Whether `self` is a proper prefix of `other`: the outer levels of a hierarchical key.
    pub fn is_proper_prefix_of(&self, other: &Self) -> bool {
        other.0.len() > self.0.len() && other.0.starts_with(&self.0)
    }
}

/// The value of the `x-ms-documentdb-partitionkey` header: compact JSON in ASCII, since header values carry no other.
impl fmt::Display for PartitionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = serde_json::to_string(self).map_err(|_| fmt::Error)?;
        if text.is_ascii() {
            return f.write_str(&text);
        }
        for c in text.chars() {
            if c.is_ascii() {
                write!(f, "{c}")?;
            } else {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    write!(f, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }
}

impl FromStr for PartitionKey {
    type Err = MalformedPartitionKey;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::from_json(&serde_json::from_str(text).map_err(|_| MalformedPartitionKey)?)
    }
}

/// The two modes of a Cosmos permission.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum PermissionMode {
    /// Reads, queries and feeds.
    Read,
    /// Everything on the items of the scope.
    All,
}

impl PermissionMode {
    /// The word of the Cosmos REST API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "Read",
            Self::All => "All",
        }
    }
}

/// Who holds a request to its scope.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Enforcer {
    /// Cosmos: the request carries a resource token, which opens nothing else.
    Cosmos,
    /// stepgate alone: the request carries an Entra token, which knows no partitions.
    Stepgate,
}

impl Enforcer {
    /// The word of records and of `/status`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cosmos => "cosmos",
            Self::Stepgate => "stepgate",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_cosmos_would_misread_are_refused() {
        assert_eq!("shop/orders".parse::<ContainerName>().unwrap().link(), "dbs/shop/colls/orders");
        assert_eq!("shop".parse::<ContainerName>(), Err(MalformedName::NotAContainer));
        assert_eq!("shop/a/b".parse::<ContainerName>(), Err(MalformedName::Forbidden));
        assert_eq!("shop/..".parse::<ContainerName>(), Err(MalformedName::Dots));
        assert_eq!(ContainerName::new("ruJjAA==", "orders"), Err(MalformedName::ResourceId));
        assert_eq!(ContainerName::new("shop", "ruJjAM9UnAA="), Err(MalformedName::ResourceId));
        assert!(ContainerName::new("abcdefgh", "orderitems12").is_ok(), "a word of a rid's length is a name");
    }

    #[test]
    fn containers_are_in_the_order_of_their_databases() {
        let [first, second, third] = ["shop/orders", "shop/returns", "shop-b/items"].map(|name| name.parse().unwrap());
        assert!(ContainerName::cmp(&first, &second).is_lt() && ContainerName::cmp(&second, &third).is_lt());
        assert_eq!((third.database(), third.container(), third.as_str()), ("shop-b", "items", "shop-b/items"));
    }

    #[test]
    fn a_partition_key_round_trips_through_its_header() {
        for text in [r#"["t1"]"#, "[1]", "[1.5]", "[null]", "[true]", "[{}]", r#"["a","b"]"#, r#"["a\"b"]"#] {
            assert_eq!(text.parse::<PartitionKey>().unwrap().to_string(), text);
        }
        let text = "[\"caf\u{e9} \u{1f600}\"]".parse::<PartitionKey>().unwrap().to_string();
        assert_eq!(text, r#"["caf\u00e9 \ud83d\ude00"]"#);
        assert_eq!(text.parse::<PartitionKey>().unwrap().to_string(), text);
    }

    #[test]
    fn what_is_no_partition_key_is_refused() {
        for text in ["", "t1", r#""t1""#, "[]", "[[1]]", r#"[{"a":1}]"#, "[1,2,3,4]"] {
            assert!(text.parse::<PartitionKey>().is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_are_compared_as_cosmos_compares_them() {
        assert_eq!("[1]".parse::<PartitionKey>().unwrap(), "[1.0]".parse().unwrap());
        assert_ne!("[1]".parse::<PartitionKey>().unwrap(), r#"["1"]"#.parse().unwrap());
    }
}
