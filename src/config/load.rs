//! From a file and the environment to [`Raw`].

use std::{fs, path::Path};

use serde_json::{Map, Value};

use super::raw::Raw;
use crate::diagnostic::{Diagnostic, Place, Places, Severity, Source, parse};

/// Prefix of the environment variables that override the file; `__` stands between the parts of a path.
const PREFIX: &str = "STEPGATE__";

/// A configuration as written, with its places.
#[derive(Clone, Debug)]
pub struct Written {
    /// The values.
    pub raw: Raw,
    /// The file.
    pub source: Source,
    /// Where each value stands in it.
    pub places: Places,
}

/// Reads a configuration file.
pub fn read(file: &Path, environment: &[(String, String)]) -> Result<Written, Vec<Diagnostic>> {
    match fs::read_to_string(file) {
        Ok(text) => interpret(Source { file: file.to_owned(), text: text.into() }, environment),
        Err(error) => {
            let source = Source { file: file.to_owned(), text: "".into() };
            let mend = Some("name a readable file with --config".to_owned());
            Err(vec![source.at(Severity::Error, Place::default(), format!("cannot read the file: {error}"), mend)])
        }
    }
}

/// Reads a configuration from its text and from the environment, which wins.
pub fn interpret(source: Source, environment: &[(String, String)]) -> Result<Written, Vec<Diagnostic>> {
    let overrides: Vec<_> = environment.iter().filter(|(name, _)| name.starts_with(PREFIX)).collect();
    if overrides.is_empty() {
        let (raw, places) = parse::<Raw>(&source).map_err(|finding| vec![finding])?;
        return Ok(Written { raw, source, places });
    }
    let (mut value, places) = parse::<Value>(&source).map_err(|finding| vec![finding])?;
    for (name, text) in &overrides {
        let path: Vec<String> = name.trim_start_matches(PREFIX).split("__").map(str::to_lowercase).collect();
        let new = serde_saphyr::from_str(text).unwrap_or_else(|_| Value::String(text.clone()));
        if !set(&mut value, &path, new) {
            return Err(vec![about_environment(&source, format!("{name} names no place in the configuration"))]);
        }
    }
    let raw = serde_json::from_value(value).map_err(|error| {
        let names: Vec<&str> = overrides.iter().map(|(name, _)| name.as_str()).collect();
        vec![about_environment(&source, format!("{error} (the file with {} applied)", names.join(", ")))]
    })?;
    Ok(Written { raw, source, places })
}

fn about_environment(source: &Source, message: String) -> Diagnostic {
    let mend = "unset the variable, or write it as STEPGATE__SECTION__KEY with a value the key takes".to_owned();
    source.at(Severity::Error, Place::default(), message, Some(mend))
}

/// Puts `new` at `path`, making the mappings on the way; `false` when something else is in the way.
fn set(value: &mut Value, path: &[String], new: Value) -> bool {
    let Some((first, rest)) = path.split_first() else {
        *value = new;
        return true;
    };
    if value.is_null() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(members) => set(members.entry(first.clone()).or_insert(Value::Null), rest, new),
        Value::Array(items) => {
            first.parse::<usize>().ok().and_then(|i| items.get_mut(i)).is_some_and(|item| set(item, rest, new))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = "\
listen: 127.0.0.1:8080
issuers:
  - name: cognito
    kind: cognito
    url: https://issuer.example
    clients: [c1]
cosmos:
  endpoint: https://account.documents.azure.com/
  credential: { kind: resource_token, account_key: { kind: file, path: key } }
policies: { directory: policies }
audit: { directory: audit }
";

    fn read_with(text: &str, environment: &[(&str, &str)]) -> Result<Written, Vec<Diagnostic>> {
        let environment: Vec<_> = environment.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        interpret(Source { file: "stepgate.yaml".into(), text: text.into() }, &environment)
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let written = read_with(
            MINIMAL,
            &[
                ("STEPGATE__LISTEN", "127.0.0.1:9999"),
                ("STEPGATE__LIMITS__DEADLINE", "5s"),
                ("STEPGATE__ISSUERS__0__CLIENTS", "[c2, c3]"),
                ("PATH", "/bin"),
            ],
        )
        .unwrap();
        assert_eq!(written.raw.listen.port(), 9999);
        assert_eq!(written.raw.limits.deadline.as_secs(), 5);
        assert_eq!(written.raw.issuers[0].clients, ["c2", "c3"]);
    }

    #[test]
    fn a_bad_variable_is_named() {
        let findings = read_with(MINIMAL, &[("STEPGATE__LISTEN", "here")]).unwrap_err();
        assert!(findings[0].message.contains("STEPGATE__LISTEN"), "{}", findings[0]);
        let findings = read_with(MINIMAL, &[("STEPGATE__ISSUERS__7__URL", "x")]).unwrap_err();
        assert!(findings[0].message.contains("STEPGATE__ISSUERS__7__URL"), "{}", findings[0]);
    }

    #[test]
    fn an_unknown_key_has_its_place() {
        let findings = read_with(&format!("{MINIMAL}lisen: 1\n"), &[]).unwrap_err();
        assert_eq!((findings[0].line, findings[0].column), (12, 1), "{}", findings[0]);
        assert!(findings[0].message.contains("lisen"), "{}", findings[0]);
    }
}
