//! Partition keys as a clause writes them: literals, and `"{claims.NAME}"` for the caller's own.

use serde_json::Value;

use super::selector::{Match, usable_values};
use crate::access::{Claims, KeyComponent, PartitionKey};

/// How many of the keys that list-valued claims stand for are made; the rest would only make an answer longer.
const MOST_CANDIDATES: usize = 16;

/// A partition key, or a prefix of a hierarchical one, in which claims may stand for components. Never empty.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct KeyTemplate(Box<[Part]>);

#[derive(Clone, PartialEq, Debug)]
enum Part {
    Literal(KeyComponent),
    Claim(Box<str>),
}

/// What is wrong with a written partition key.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum MalformedTemplate {
    #[error("a partition key has one to three components")]
    Length,
    #[error("a template stands for a whole component of the partition key, and `{0}` is more than one template")]
    NotWhole(String),
    #[error("`{0}` is no template")]
    NotAClaim(String),
    #[error("a component of a partition key is a string, a number, a boolean or null")]
    NotAComponent,
}

impl MalformedTemplate {
    pub(super) fn mend(&self) -> &'static str {
        match self {
            Self::Length => "write one entry for each level; leave `partition_key` out for the whole container",
            Self::NotWhole(_) => {
                "write one list entry for each component, such as [\"{claims.tenant}\", \"{claims.region}\"]"
            }
            Self::NotAClaim(_) => "write \"{claims.NAME}\"; only claims of the verified token may be used",
            Self::NotAComponent => "put a template in quotes: [\"{claims.tenant}\"]",
        }
    }
}

impl KeyTemplate {
    /// Reads a written key; an error comes with the index of the component that is wrong.
    pub(super) fn parse(written: &[Value]) -> Result<Self, (usize, MalformedTemplate)> {
        if written.is_empty() || written.len() > 3 {
            return Err((0, MalformedTemplate::Length));
        }
        let parts = written.iter().enumerate().map(|(i, value)| Part::parse(value).map_err(|error| (i, error)));
        parts.collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the components that both have are the same, for a caller with these claims. A claim that is absent (or holds no
    /// string, number or boolean) leaves it unknown.
    pub(super) fn compare(&self, claims: &Claims, key: &PartitionKey) -> Match {
        let pairs = self.0.iter().zip(key.components());
        pairs.fold(Match::Yes, |so_far, (part, component)| so_far.and(part.compare(claims, component)))
    }

    /// The keys the template stands for, for a caller with these claims: none when a claim is absent, several when a claim is a
    /// list; never the same key twice.
    pub(super) fn candidates(&self, claims: &Claims) -> Vec<PartitionKey> {
        let mut prefixes: Vec<Vec<KeyComponent>> = vec![Vec::new()];
        for part in &self.0 {
            let values = part.values(claims);
            prefixes = prefixes
                .iter()
                .flat_map(|prefix| {
                    values.iter().map(move |value| [prefix.as_slice(), std::slice::from_ref(value)].concat())
                })
                .take(MOST_CANDIDATES)
                .collect();
        }
        prefixes.into_iter().filter_map(|components| PartitionKey::new(components).ok()).collect()
    }

    /// The names of the claims it uses.
    pub(super) fn claim_names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Claim(name) => Some(&**name),
            Part::Literal(_) => None,
        })
    }

    /// The claims it uses, each with what `other` has in its place: another claim, or a literal.
    pub(super) fn opposite<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = (&'a str, Result<&'a str, Value>)> {
        self.0.iter().zip(&other.0).filter_map(|(mine, theirs)| match (mine, theirs) {
            (Part::Claim(name), Part::Claim(theirs)) => Some((&**name, Ok(&**theirs))),
            (Part::Claim(name), Part::Literal(literal)) => Some((&**name, Err(literal.to_json()))),
            (Part::Literal(_), _) => None,
        })
    }

    /// What its claims are for callers whose key is `key`.
    pub(super) fn claims_for<'a>(&'a self, key: &'a PartitionKey) -> impl Iterator<Item = (&'a str, &'a KeyComponent)> {
        self.0.iter().zip(key.components()).filter_map(|(part, component)| match part {
            Part::Claim(name) => Some((&**name, component)),
            Part::Literal(_) => None,
        })
    }

    /// Whether some caller's key may fall under both.
    pub(super) fn may_meet(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|pair| match pair {
            (Part::Literal(a), Part::Literal(b)) => a == b,
            _ => true,
        })
    }

    /// As it was written.
    pub(super) fn to_json(&self) -> Value {
        let parts = self.0.iter().map(|part| match part {
            Part::Literal(component) => component.to_json(),
            Part::Claim(name) => Value::String(format!("{{claims.{name}}}")),
        });
        Value::Array(parts.collect())
    }
}

impl Part {
    fn parse(value: &Value) -> Result<Self, MalformedTemplate> {
        if let Value::String(text) = value
            && text.contains(['{', '}'])
        {
            return Self::parse_template(text);
        }
        match value {
            Value::Array(_) | Value::Object(_) => Err(MalformedTemplate::NotAComponent),
            _ => KeyComponent::from_json(value).map(Self::Literal).ok_or(MalformedTemplate::NotAComponent),
        }
    }

    fn parse_template(text: &str) -> Result<Self, MalformedTemplate> {
        let inner = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
        let inner = inner.filter(|inner| !inner.contains(['{', '}']));
        let name = inner.ok_or_else(|| MalformedTemplate::NotWhole(text.to_owned()))?.strip_prefix("claims.");
        let name = name.filter(|name| !name.is_empty() && name.trim() == *name);
        name.map(|name| Self::Claim(name.into())).ok_or_else(|| MalformedTemplate::NotAClaim(text.to_owned()))
    }

    fn compare(&self, claims: &Claims, component: &KeyComponent) -> Match {
        match self {
            Self::Literal(literal) => Match::of(literal == component),
            Self::Claim(name) => Match::any(
                usable_values(claims, name)
                    .map(|value| Match::of(KeyComponent::from_json(value).as_ref() == Some(component))),
            ),
        }
    }

    fn values(&self, claims: &Claims) -> Vec<KeyComponent> {
        match self {
            Self::Literal(literal) => vec![literal.clone()],
            Self::Claim(name) => {
                let mut values = Vec::new();
                for value in usable_values(claims, name).filter_map(KeyComponent::from_json) {
                    if values.len() < MOST_CANDIDATES && !values.contains(&value) {
                        values.push(value);
                    }
                }
                values
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn template(written: Value) -> KeyTemplate {
        KeyTemplate::parse(written.as_array().unwrap()).unwrap()
    }

    fn claims(value: Value) -> Claims {
        Claims::new(value.as_object().unwrap().clone())
    }

    fn keys(template: &KeyTemplate, of: Value) -> Vec<String> {
        template.candidates(&claims(of)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_template_is_a_whole_component() {
        for (written, error) in [
            (json!(["{claims.a}-{claims.b}"]), MalformedTemplate::NotWhole("{claims.a}-{claims.b}".into())),
            (json!(["x{claims.a}"]), MalformedTemplate::NotWhole("x{claims.a}".into())),
            (json!(["{execution.name}"]), MalformedTemplate::NotAClaim("{execution.name}".into())),
            (json!(["{claims.}"]), MalformedTemplate::NotAClaim("{claims.}".into())),
            (json!([{"claims.a": null}]), MalformedTemplate::NotAComponent),
            (json!([]), MalformedTemplate::Length),
            (json!([1, 2, 3, 4]), MalformedTemplate::Length),
        ] {
            assert_eq!(KeyTemplate::parse(written.as_array().unwrap()).unwrap_err().1, error, "{written}");
        }
    }

    #[test]
    fn a_claim_keeps_its_type() {
        let tenant = template(json!(["{claims.tenant}"]));
        assert_eq!(keys(&tenant, json!({"tenant": "7"})), [r#"["7"]"#]);
        assert_eq!(keys(&tenant, json!({"tenant": 7})), ["[7]"]);
        assert_eq!(keys(&tenant, json!({"tenant": true})), ["[true]"]);
        for unusable in [json!(null), json!({}), json!([]), json!([[1]])] {
            assert!(keys(&tenant, json!({ "tenant": unusable })).is_empty());
        }
    }

    #[test]
    fn a_list_stands_for_each_of_its_values_once() {
        let key = template(json!(["{claims.tenant}", "eu"]));
        assert_eq!(keys(&key, json!({"tenant": ["a", "b", "a"]})), [r#"["a","eu"]"#, r#"["b","eu"]"#]);
        let many: Vec<_> = (0..10_000).collect();
        let wide = template(json!(["{claims.n}", "{claims.n}", "{claims.n}"]));
        assert_eq!(keys(&wide, json!({ "n": many })).len(), MOST_CANDIDATES);
    }

    #[test]
    fn what_differs_for_certain_wins_over_what_is_unknown() {
        let key = template(json!(["eu", "{claims.tenant}"]));
        let compare = |of: Value, key_text: &str| key.compare(&claims(of), &key_text.parse().unwrap());
        assert_eq!(compare(json!({}), r#"["us","t1"]"#), Match::No);
        assert_eq!(compare(json!({}), r#"["eu","t1"]"#), Match::Unknown);
        assert_eq!(compare(json!({"tenant": ["t0", "t1"]}), r#"["eu","t1"]"#), Match::Yes);
        assert_eq!(compare(json!({"tenant": "t0"}), r#"["eu"]"#), Match::Yes);
    }
}
