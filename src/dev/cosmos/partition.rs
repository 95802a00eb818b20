//! Partition keys, read by the stand-in's own code: had it borrowed the gateway's, both would misread alike.

use serde_json::Value;

use super::refusal::Refusal;

/// A partition key value: the components of the array in the header, which may be none at all.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Key(Vec<Component>);

#[derive(Clone, PartialEq, Debug)]
enum Component {
    Undefined,
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
}

impl Component {
    fn from_json(value: &Value) -> Option<Self> {
        Some(match value {
            Value::Null => Self::Null,
            Value::Bool(flag) => Self::Bool(*flag),
            Value::Number(number) => Self::Number(number.as_f64()?),
            Value::String(text) => Self::Text(text.clone()),
            Value::Object(members) if members.is_empty() => Self::Undefined,
            Value::Object(_) | Value::Array(_) => return None,
        })
    }
}

impl Key {
    /// The key in the text of the `x-ms-documentdb-partitionkey` header.
    pub(super) fn parse(text: &str) -> Result<Self, Refusal> {
        serde_json::from_str(text).ok().and_then(|value| Self::from_json(&value)).ok_or(Refusal::InvalidPartitionKey)
    }

    /// The key a JSON array stands for; nothing else stands for one.
    pub(super) fn from_json(value: &Value) -> Option<Self> {
        value.as_array()?.iter().map(Component::from_json).collect::<Option<_>>().map(Self)
    }

    /// The key of `item` in a container with these key paths; `None` where a path leads to an array or an object.
    pub(super) fn of_item(item: &Value, paths: &[String]) -> Option<Self> {
        let component = |path: &String| {
            let mut names = path.split('/').skip(1).map(|name| name.trim_matches('"'));
            match names.try_fold(item, |value, name| value.get(name)) {
                None => Some(Component::Undefined),
                Some(value) if value.is_object() => None,
                Some(value) => Component::from_json(value),
            }
        };
        paths.iter().map(component).collect::<Option<_>>().map(Self)
    }

    /// How many components it has.
    pub(super) fn depth(&self) -> usize {
        self.0.len()
    }

    /// Whether `other` is this key, or lies under it in a hierarchical key.
    pub(super) fn covers(&self, other: &Self) -> bool {
        other.0.starts_with(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key(text: &str) -> Key {
        Key::parse(text).unwrap()
    }

    #[test]
    fn a_key_covers_itself_and_what_lies_under_it() {
        assert!(key(r#"["a"]"#).covers(&key(r#"["a"]"#)));
        assert!(key(r#"["a"]"#).covers(&key(r#"["a","b"]"#)));
        assert!(!key(r#"["a","b"]"#).covers(&key(r#"["a"]"#)));
        assert!(!key(r#"["a"]"#).covers(&key("[]")));
        assert!(!key("[1]").covers(&key(r#"["1"]"#)), "the type belongs to the value");
        assert!(key("[1]").covers(&key("[1.0]")), "numbers are doubles");
    }

    #[test]
    fn an_item_has_the_key_its_members_say() {
        let paths = ["/tenant".to_owned(), "/address/city".to_owned()];
        let item = json!({"tenant": "a", "address": {"city": "Delft"}});
        assert_eq!(Key::of_item(&item, &paths), Some(key(r#"["a","Delft"]"#)));
        assert_eq!(Key::of_item(&json!({"tenant": null}), &paths), Some(key("[null,{}]")));
        assert_eq!(Key::of_item(&json!({"tenant": {}}), &paths), None);
    }

    #[test]
    fn only_an_array_is_a_key() {
        for text in [r#""a""#, "{}", "a", "", "[[1]]", r#"[{"a":1}]"#] {
            assert!(Key::parse(text).is_err(), "{text}");
        }
    }
}
