//! What an issuer said of a subject, after verification.

use serde_json::{Map, Value};

/// The claims of a token, as plain JSON. `identity` alone makes one from a token (as part of a `VerifiedSubject`); policy
/// test cases and `explain` make them from files.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Claims(Map<String, Value>);

impl Claims {
    /// The claims in `map`.
    pub fn new(map: Map<String, Value>) -> Self {
        Self(map)
    }

    /// The claim called `name`: a top-level member, or a JSON pointer (RFC 6901) when `name` begins with `/`.
    pub fn get(&self, name: &str) -> Option<&Value> {
        if let Some(value) = self.0.get(name) {
            return Some(value);
        }
        let mut tokens = name.strip_prefix('/')?.split('/').map(|token| token.replace("~1", "/").replace("~0", "~"));
        let top = self.0.get(&tokens.next()?)?;
        tokens.try_fold(top, |value, token| match value {
            Value::Object(members) => members.get(&token),
            Value::Array(items) => items.get(token.parse::<usize>().ok()?),
            _ => None,
        })
    }

    /// The claim called `name` when it is a string.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_str()
    }

    /// All claims.
    pub fn as_map(&self) -> &Map<String, Value> {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_claim_is_found_by_name_and_by_pointer() {
        let Value::Object(map) = json!({
            "sub": "w",
            "https://sts.amazonaws.com/": {"request_tags": {"execution": "arn"}},
            "roles": ["a", "b"],
        }) else {
            unreachable!()
        };
        let claims = Claims::new(map);
        assert_eq!(claims.text("sub"), Some("w"));
        assert_eq!(claims.text("/https:~1~1sts.amazonaws.com~1/request_tags/execution"), Some("arn"));
        assert_eq!(claims.text("/roles/1"), Some("b"));
        assert_eq!(claims.get("/roles/2"), None);
        assert_eq!(claims.get("absent"), None);
    }
}
