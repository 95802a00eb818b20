//! What a person reads when a file is wrong: where, what, and the mend; every problem at once.
//!
//! [`parse`] reads YAML into a type and keeps the place of every node, so that checks made long after parsing (does this
//! role exist, is that URL allowed) still point at a line and a column.

use std::{collections::HashMap, fmt, path::PathBuf, sync::Arc};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeOwned, MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::Spanned;

/// Whether a finding refuses the file or only warns.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file loads.
    Warning,
}

/// One finding.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Diagnostic {
    /// Refuses or warns.
    pub severity: Severity,
    /// The file, as it was named.
    pub file: PathBuf,
    /// Line, from 1; 0 when the finding is about the file as a whole.
    pub line: u64,
    /// Column, from 1; 0 when the finding is about the file as a whole.
    pub column: u64,
    /// What is wrong, naming the culprit.
    pub message: String,
    /// What to do about it.
    pub mend: Option<String>,
    /// The line itself.
    pub excerpt: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        write!(f, ": {severity}: {}", self.message)?;
        if let Some(excerpt) = &self.excerpt {
            let line = self.line.to_string();
            let indent = usize::try_from(self.column.saturating_sub(1)).unwrap_or(0);
            let gutter = line.len();
            write!(f, "\n  {line} | {excerpt}\n  {:gutter$} | {:indent$}^", "", "")?;
        }
        if let Some(mend) = &self.mend {
            write!(f, "\n  mend: {mend}")?;
        }
        Ok(())
    }
}

/// A file's text with its name: what diagnostics point into.
#[derive(Clone, Debug)]
pub struct Source {
    /// The file, as it was named.
    pub file: PathBuf,
    /// Its content.
    pub text: Arc<str>,
}

impl Source {
    /// A finding at a line and column of this file.
    pub fn at(&self, severity: Severity, place: Place, message: impl Into<String>, mend: Option<String>) -> Diagnostic {
        let excerpt = place.line.checked_sub(1).and_then(|line| self.text.lines().nth(usize::try_from(line).ok()?));
        Diagnostic {
            severity,
            file: self.file.clone(),
            line: place.line,
            column: place.column,
            message: message.into(),
            mend,
            excerpt: excerpt.map(str::to_owned),
        }
    }
}

/// A line and a column, both from 1; 0:0 is "the file".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Place {
    /// Line, from 1.
    pub line: u64,
    /// Column, from 1.
    pub column: u64,
}

/// The places of a document's nodes, by path: `issuers/0/url`. Member names that hold a `/` are written `~1` (RFC 6901).
#[derive(Clone, Debug, Default)]
pub struct Places(HashMap<String, Place>);

impl Places {
    /// The place of the node at `path`, or of the nearest node around it.
    pub fn of(&self, path: &str) -> Place {
        let mut path = path;
        loop {
            if let Some(place) = self.0.get(path) {
                return *place;
            }
            match path.rsplit_once('/') {
                Some((outer, _)) => path = outer,
                None => return Place::default(),
            }
        }
    }
}

/// Reads a YAML document as `T`, with the places of its nodes. Unknown keys are errors when `T` denies them.
pub fn parse<T: DeserializeOwned>(source: &Source) -> Result<(T, Places), Diagnostic> {
    let value = serde_saphyr::from_str::<T>(&source.text).map_err(|error| syntax(source, &error))?;
    let root = serde_saphyr::from_str::<Spanned<Node>>(&source.text).map_err(|error| syntax(source, &error))?;
    let mut places = Places::default();
    root.value.record(String::new(), &mut places);
    Ok((value, places))
}

fn syntax(source: &Source, error: &serde_saphyr::Error) -> Diagnostic {
    let error = error.without_snippet();
    let place = error.location().map_or_else(Place::default, |l| Place { line: l.line(), column: l.column() });
    let message = error.to_string();
    // The parser repeats the place at the end of its message; the diagnostic already begins with it.
    let message = match message.rfind(" at line ") {
        Some(end) => message.get(..end).unwrap_or(&message),
        None => &message,
    };
    source.at(Severity::Error, place, message, None)
}

/// A document as a tree of places; the values themselves are read by the typed pass.
enum Node {
    Leaf,
    Sequence(Vec<Spanned<Node>>),
    Mapping(Vec<(String, Spanned<Node>)>),
}

impl Node {
    fn record(&self, path: String, places: &mut Places) {
        let mut child = |name: &str, node: &Spanned<Node>| {
            let name = name.replace('~', "~0").replace('/', "~1");
            let path = if path.is_empty() { name } else { format!("{path}/{name}") };
            let place = Place { line: node.referenced.line(), column: node.referenced.column() };
            places.0.insert(path.clone(), place);
            node.value.record(path, places);
        };
        match self {
            Self::Leaf => {}
            Self::Sequence(items) => items.iter().enumerate().for_each(|(i, item)| child(&i.to_string(), item)),
            Self::Mapping(members) => members.iter().for_each(|(name, member)| child(name, member)),
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NodeVisitor;
        impl<'de> Visitor<'de> for NodeVisitor {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any YAML node")
            }

            fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
                Ok(Node::Leaf)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
                Ok(Node::Leaf)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
                Ok(Node::Leaf)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
                Ok(Node::Leaf)
            }

            fn visit_str<E>(self, _: &str) -> Result<Node, E> {
                Ok(Node::Leaf)
            }

            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Leaf)
            }

            fn visit_none<E>(self) -> Result<Node, E> {
                Ok(Node::Leaf)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
                let mut nodes = Vec::new();
                while let Some(node) = items.next_element()? {
                    nodes.push(node);
                }
                Ok(Node::Sequence(nodes))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Node, A::Error> {
                let mut nodes = Vec::new();
                while let Some(member) = members.next_entry()? {
                    nodes.push(member);
                }
                Ok(Node::Mapping(nodes))
            }
        }
        deserializer.deserialize_any(NodeVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Garden {
        beds: Vec<Bed>,
    }

    #[derive(Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Bed {
        plant: String,
        rows: u32,
    }

    fn source(text: &str) -> Source {
        Source { file: "garden.yaml".into(), text: text.into() }
    }

    #[test]
    fn a_finding_points_at_the_node() {
        let source = source("beds:\n  - plant: leek\n    rows: 3\n");
        let (_, places) = parse::<Garden>(&source).unwrap();
        let finding = source.at(Severity::Error, places.of("beds/0/rows"), "too few rows", Some("plant 4".into()));
        let text = "garden.yaml:3:11: error: too few rows\n  3 |     rows: 3\n    |           ^\n  mend: plant 4";
        assert_eq!(finding.to_string(), text);
        assert_eq!(places.of("beds/0/absent"), places.of("beds/0"));
    }

    #[test]
    fn an_unknown_key_is_named_with_its_place() {
        let finding = parse::<Garden>(&source("beds:\n  - plant: leek\n    rowz: 3\n")).unwrap_err();
        assert_eq!((finding.line, finding.column), (3, 5));
        assert!(finding.message.contains("rowz"), "{finding}");
    }

    #[test]
    fn a_repeated_key_is_refused() {
        assert!(parse::<Garden>(&source("beds: []\nbeds: []\n")).is_err());
    }
}
