//! What a person reads when a file is wrong: where, what, and the mend; every problem at once.
//!
//! [`parse`] reads YAML into a type and keeps the place of every node, so that checks made long after parsing (does this
//! role exist, is that URL allowed) still point at a line and a column.

use std::{fmt, path::PathBuf, sync::Arc};

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
    /// How many characters it is about; 0 when that is not known.
    pub length: u32,
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
            let (line, underline) = (self.line.to_string(), self.underline(excerpt));
            let gutter = line.len();
            write!(f, "\n  {line} | {excerpt}\n  {:gutter$} | {underline}", "")?;
        }
        if let Some(mend) = &self.mend {
            write!(f, "\n  mend: {mend}")?;
        }
        Ok(())
    }
}

impl Diagnostic {
    /// Marks the culprit in the line above it. Tabs are kept, so that the mark stands where the terminal puts the text.
    fn underline(&self, excerpt: &str) -> String {
        let before = usize::try_from(self.column.saturating_sub(1)).unwrap_or(0);
        let indent = excerpt.chars().chain(std::iter::repeat(' ')).take(before);
        let rest = excerpt.chars().count().saturating_sub(before);
        let length = usize::try_from(self.length).unwrap_or(1).min(rest).max(1);
        indent.map(|c| if c == '\t' { '\t' } else { ' ' }).chain(std::iter::repeat_n('^', length)).collect()
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
        Diagnostic {
            severity,
            file: self.file.clone(),
            line: place.line,
            column: place.column,
            length: place.length,
            message: message.into(),
            mend,
            excerpt: self.line_at(place).map(str::to_owned),
        }
    }

    /// The line around a place, found by its offset: a file of a hundred thousand lines may have as many findings.
    fn line_at(&self, place: Place) -> Option<&str> {
        let (before, after) = self.text.split_at_checked(usize::try_from(place.offset).ok()?)?;
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let end = before.len() + after.find('\n').unwrap_or(after.len());
        let line = self.text.get(start..end)?;
        (place.line > 0).then(|| line.strip_suffix('\r').unwrap_or(line))
    }
}

/// A line and a column, both from 1; 0:0 is "the file".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Place {
    /// Line, from 1.
    pub line: u64,
    /// Column, from 1.
    pub column: u64,
    /// Characters that belong to it; 0 when that is not known.
    length: u32,
    /// Bytes of the file before it.
    offset: u64,
}

impl From<serde_saphyr::Location> for Place {
    fn from(location: serde_saphyr::Location) -> Self {
        let span = location.span();
        let offset = span.byte_offset().unwrap_or_else(|| span.offset());
        Self {
            line: location.line(),
            column: location.column(),
            length: u32::try_from(span.len()).unwrap_or(u32::MAX),
            offset,
        }
    }
}

/// The places of a document's nodes, by path: `issuers/0/url`. Member names that hold a `/` are written `~1` (RFC 6901).
#[derive(Clone, Debug, Default)]
pub struct Places(Node);

impl Places {
    /// The place of the node at `path`, or of the nearest node around it.
    pub fn of(&self, path: &str) -> Place {
        let (mut node, mut place) = (&self.0, Place::default());
        for name in path.split('/') {
            match node.child(name) {
                Some((at, child)) => (place, node) = (*at, child),
                None => break,
            }
        }
        place
    }
}

/// Reads a YAML document as `T`, with the places of its nodes. Unknown keys are errors when `T` denies them.
pub fn parse<T: DeserializeOwned>(source: &Source) -> Result<(T, Places), Diagnostic> {
    let value = read(source)?;
    Ok((value, Places(read(source)?)))
}

fn read<T: DeserializeOwned>(source: &Source) -> Result<T, Diagnostic> {
    // The parser's own bounds are for strangers' files. A node takes a byte at least, so a file's size bounds its nodes;
    // what aliases make of them stays bounded by the parser.
    let mut options = serde_saphyr::Options::default();
    if let Some(budget) = &mut options.budget {
        budget.max_nodes = budget.max_nodes.max(source.text.len());
        budget.max_events = budget.max_events.max(source.text.len().saturating_mul(2));
    }
    serde_saphyr::from_str_with_options(&source.text, options).map_err(|error| syntax(source, &error))
}

fn syntax(source: &Source, error: &serde_saphyr::Error) -> Diagnostic {
    let error = error.without_snippet();
    let place = error.location().map_or_else(Place::default, Place::from);
    let message = error.to_string();
    // The parser repeats the place at the end of its message; the diagnostic already begins with it.
    let message = match message.rfind(" at line ") {
        Some(end) => message.get(..end).unwrap_or(&message),
        None => &message,
    };
    source.at(Severity::Error, place, message, None)
}

/// A document as a tree of places; the values themselves are read by the typed pass.
#[derive(Clone, Debug, Default)]
enum Node {
    #[default]
    Leaf,
    Sequence(Box<[Placed]>),
    /// By name, names written as in a path.
    Mapping(Box<[(Box<str>, Placed)]>),
}

type Placed = (Place, Node);

impl Node {
    fn child(&self, name: &str) -> Option<&Placed> {
        match self {
            Self::Leaf => None,
            Self::Sequence(items) => items.get(name.parse::<usize>().ok()?),
            Self::Mapping(members) => {
                let at = members.binary_search_by(|(member, _)| (**member).cmp(name)).ok()?;
                members.get(at).map(|(_, child)| child)
            }
        }
    }
}

fn placed(node: Spanned<Node>) -> Placed {
    (node.referenced.into(), node.value)
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
                    nodes.push(placed(node));
                }
                Ok(Node::Sequence(nodes.into()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Node, A::Error> {
                let mut nodes = Vec::new();
                while let Some((name, node)) = members.next_entry::<String, _>()? {
                    nodes.push((name.replace('~', "~0").replace('/', "~1").into(), placed(node)));
                }
                nodes.sort_by(|(a, _): &(Box<str>, _), (b, _)| a.cmp(b));
                Ok(Node::Mapping(nodes.into()))
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
    fn the_whole_culprit_is_underlined() {
        let underlined = |text: &str, path: &str| {
            let source = source(text);
            let (_, places) = parse::<Garden>(&source).unwrap();
            let finding = source.at(Severity::Error, places.of(path), "no", None).to_string();
            finding.lines().nth(2).unwrap().split_once("| ").unwrap().1.to_owned()
        };
        assert_eq!(underlined("beds:\n  - plant: leek\n    rows: 3\n", "beds/0/plant"), "           ^^^^");
        assert_eq!(underlined("beds: [{ rows: 3, plant: \"é\" }]\r\n", "beds/0/plant"), "                         ^^^");
        assert_eq!(underlined("beds:\n  - plant: leek\n    rows: 3\n", "beds/0"), "    ^");
        assert_eq!(underlined("beds: [{\trows: 3, plant: é }]", "beds/0/rows"), "        \t      ^");
    }

    #[test]
    fn a_long_document_is_read_and_its_last_line_is_found() {
        let text = "beds:\n".to_owned() + &"  - { plant: leek, rows: 3 }\n".repeat(100_000);
        let source = source(&text);
        let (garden, places) = parse::<Garden>(&source).unwrap();
        let finding = source.at(Severity::Error, places.of("beds/99999/rows"), "too few rows", None);
        assert_eq!((garden.beds.len(), finding.line, finding.column), (100_000, 100_001, 26));
        assert_eq!(finding.excerpt.as_deref(), Some("  - { plant: leek, rows: 3 }"));
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
