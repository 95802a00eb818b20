//! `x-stepgate-select`: which members of an item the caller wants back.
//!
//! What Cosmos charges stays the same, and so does what it sends; but a state holds 262,144 bytes, and a workflow that needs two
//! members of a large item need not carry the rest.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName};
use serde_json::{Map, Value};

use super::{Condition, Refusal};

/// `x-stepgate-select`: JSON pointers (RFC 6901) to the members that are wanted, with commas between them. It may come more than
/// once.
pub const SELECT: HeaderName = HeaderName::from_static("x-stepgate-select");

/// Most pointers of a request.
const MOST: usize = 100;

/// The members that are wanted, as a tree; where it ends, everything is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Select(BTreeMap<String, Self>);

impl Select {
    /// What the headers ask for; `None` where they do not.
    pub fn wanted(headers: &HeaderMap) -> Result<Option<Self>, Refusal> {
        let malformed = |detail: &str| {
            Refusal::new(Condition::Malformed, format!("x-stepgate-select {detail}, such as `/id, /customer/name`"))
        };
        let mut select = Self::default();
        let mut count = 0;
        for value in headers.get_all(SELECT) {
            let text = std::str::from_utf8(value.as_bytes()).map_err(|_| malformed("is a list of JSON pointers"))?;
            for pointer in text.split(',').map(str::trim) {
                let inner = pointer.strip_prefix('/').ok_or_else(|| malformed("is a list of JSON pointers"))?;
                let names: Vec<String> = inner
                    .split('/')
                    .map(unescape)
                    .collect::<Option<_>>()
                    .ok_or_else(|| malformed("writes `~` as ~0 and `/` as ~1"))?;
                select.add(&names);
                count += 1;
            }
        }
        match count {
            0 => Ok(None),
            1..=MOST => Ok(Some(select)),
            _ => Err(malformed("has at most 100 JSON pointers")),
        }
    }

    fn add(&mut self, names: &[String]) {
        let Some((first, rest)) = names.split_first() else { return self.0.clear() };
        match self.0.get_mut(first) {
            // The whole of it is wanted already.
            Some(inner) if inner.0.is_empty() => {}
            Some(inner) => inner.add(rest),
            None => self.0.entry(first.clone()).or_default().add(rest),
        }
    }

    /// What is wanted of a value. What is neither object nor array has no members to choose from and stays.
    pub(super) fn of(&self, value: Value) -> Value {
        if self.0.is_empty() {
            return value;
        }
        match value {
            Value::Object(members) => {
                let wanted =
                    members.into_iter().filter_map(|(name, member)| Some((self.0.get(&name)?.of(member), name)));
                Value::Object(wanted.map(|(member, name)| (name, member)).collect::<Map<_, _>>())
            }
            Value::Array(elements) => {
                let wanted = elements.into_iter().enumerate();
                wanted.filter_map(|(at, element)| Some(self.0.get(&at.to_string())?.of(element))).collect()
            }
            scalar => scalar,
        }
    }
}

fn unescape(name: &str) -> Option<String> {
    let broken = name.split('~').skip(1).any(|after| !after.starts_with(['0', '1']));
    (!broken).then(|| name.replace("~1", "/").replace("~0", "~"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wanted(values: &[&str]) -> Result<Option<Select>, Refusal> {
        Select::wanted(&values.iter().map(|value| (SELECT, value.parse().unwrap())).collect())
    }

    fn of(values: &[&str], value: Value) -> Value {
        wanted(values).unwrap().unwrap().of(value)
    }

    #[test]
    fn what_is_pointed_at_is_kept_where_it_stands() {
        let item = json!({ "id": "1", "a": { "b": 1, "c": [10, { "d": 11, "e": 12 }] }, "x/y": 2, "~": 3 });
        assert_eq!(of(&["/id"], item.clone()), json!({ "id": "1" }));
        assert_eq!(of(&["/a/b, /id"], item.clone()), json!({ "id": "1", "a": { "b": 1 } }));
        assert_eq!(of(&["/a/c/1/d", "/x~1y"], item.clone()), json!({ "a": { "c": [{ "d": 11 }] }, "x/y": 2 }));
        assert_eq!(of(&["/a/b,/a"], item.clone()), of(&["/a", "/a/b"], item.clone()));
        assert_eq!(of(&["/~0"], item.clone()), json!({ "~": 3 }));
        assert_eq!(of(&["/none", "/id/deeper"], item), json!({ "id": "1" }), "a text has no members to leave out");
        assert_eq!(of(&["/id"], json!(7)), 7);
    }

    #[test]
    fn what_is_no_list_of_pointers_is_refused() {
        assert_eq!(wanted(&[]).unwrap(), None);
        let many = vec!["/a"; 101].join(",");
        for values in [&["id"][..], &[""], &["/a,"], &["/~2"], &["/a~"], &[&many]] {
            assert_eq!(wanted(values).unwrap_err().condition, Condition::Malformed, "{values:?}");
        }
    }
}
