//! What a row of a profile asks of a claim.

use std::fmt;

use serde_json::Value;

use crate::access::Claims;

/// A claim, by name or JSON pointer (RFC 6901), and what it must be for the sign to be there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sign {
    pub(super) claim: &'static str,
    pub(super) test: Test,
}

/// What a claim must be.
#[derive(Clone, Copy, Debug)]
pub enum Test {
    /// There, whatever its value; `null` counts as absent.
    Present,
    /// This text.
    Is(&'static str),
    /// A text of words between spaces, or a list, with one of these in it.
    Words(&'static [&'static str]),
    /// The text that these make one after the other.
    Joined(&'static [Part]),
    /// A text of which this holds, and the words for it.
    Form(fn(&str) -> bool, &'static str),
    /// An object, and the words for it.
    Members(&'static str),
}

/// A piece of a text that a claim must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// These characters.
    Text(&'static str),
    /// What another claim says.
    Claim(&'static str),
    /// What another claim says, in lower case.
    Lower(&'static str),
}

impl Sign {
    pub(super) const fn present(claim: &'static str) -> Self {
        Self { claim, test: Test::Present }
    }

    pub(super) const fn is(claim: &'static str, text: &'static str) -> Self {
        Self { claim, test: Test::Is(text) }
    }

    pub(super) const fn words(claim: &'static str, words: &'static [&'static str]) -> Self {
        Self { claim, test: Test::Words(words) }
    }

    pub(super) const fn joined(claim: &'static str, parts: &'static [Part]) -> Self {
        Self { claim, test: Test::Joined(parts) }
    }

    /// Whether `claims` show it.
    pub(super) fn holds(&self, claims: &Claims) -> bool {
        let Some(value) = claims.get(self.claim).filter(|value| !value.is_null()) else { return false };
        match (self.test, value) {
            (Test::Present, _) | (Test::Members(_), Value::Object(_)) => true,
            (Test::Is(wanted), Value::String(text)) => text == wanted,
            (Test::Words(words), Value::String(text)) => {
                text.split_ascii_whitespace().any(|word| words.contains(&word))
            }
            (Test::Words(words), Value::Array(list)) => {
                list.iter().filter_map(Value::as_str).any(|word| words.contains(&word))
            }
            (Test::Joined(parts), Value::String(text)) => join(claims, parts).is_some_and(|joined| joined == *text),
            (Test::Form(holds, _), Value::String(text)) => holds(text),
            _ => false,
        }
    }
}

/// The parts as one text, if every claim in them is a text and none is empty.
fn join(claims: &Claims, parts: &[Part]) -> Option<String> {
    let text = |claim: &str| claims.text(claim).filter(|text| !text.is_empty());
    parts.iter().try_fold(String::new(), |joined, part| {
        Some(match part {
            Part::Text(characters) => joined + characters,
            Part::Claim(claim) => joined + text(claim)?,
            Part::Lower(claim) => joined + &text(claim)?.to_lowercase(),
        })
    })
}

impl PartialEq for Test {
    /// Two forms are the same when they are called the same.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Present, Self::Present) => true,
            (Self::Is(one), Self::Is(other))
            | (Self::Form(_, one), Self::Form(_, other))
            | (Self::Members(one), Self::Members(other)) => one == other,
            (Self::Words(one), Self::Words(other)) => one == other,
            (Self::Joined(one), Self::Joined(other)) => one == other,
            _ => false,
        }
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Present => f.write_str("present"),
            Self::Is(text) => write!(f, "`{text}`"),
            Self::Words(words) => write!(f, "one of {}", words.join(", ")),
            Self::Joined(parts) => parts.iter().enumerate().try_for_each(|(index, part)| {
                let then = if index > 0 { " followed by " } else { "" };
                match part {
                    Part::Text(characters) => write!(f, "{then}`{characters}`"),
                    Part::Claim(claim) => write!(f, "{then}the claim `{claim}`"),
                    Part::Lower(claim) => write!(f, "{then}the claim `{claim}` in lower case"),
                }
            }),
            Self::Form(_, words) | Self::Members(words) => f.write_str(words),
        }
    }
}
