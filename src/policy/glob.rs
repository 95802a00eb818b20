//! Patterns with `*`.

use std::{fmt, sync::Arc};

use crate::access::{ContainerName, MalformedName};

/// What stands for `*` when a pattern is turned into an example of what it matches.
const EXAMPLE: &str = "~any";

/// A text in which `*` stands for any run of characters other than `:` and `/`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Glob(Arc<str>);

impl Glob {
    pub(super) fn new(text: &str) -> Self {
        Self(text.into())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn is_exact(&self) -> bool {
        !self.0.contains('*')
    }

    /// Only the last `*` is ever stretched: an earlier one would have to cross the same separator that stopped the last.
    pub(super) fn matches(&self, text: &str) -> bool {
        let (mut pattern, mut text) = (self.0.as_bytes(), text.as_bytes());
        let mut star = None;
        loop {
            match (pattern.split_first(), text.split_first()) {
                (Some((b'*', after)), _) => {
                    star = Some((after, text));
                    pattern = after;
                }
                (Some((wanted, pattern_rest)), Some((found, text_rest))) if wanted == found => {
                    (pattern, text) = (pattern_rest, text_rest);
                }
                (None, None) => return true,
                _ => match star.and_then(|(after, eaten)| Some((after, eaten.split_first()?))) {
                    Some((after, (next, rest))) if !matches!(next, b':' | b'/') => {
                        star = Some((after, rest));
                        (pattern, text) = (after, rest);
                    }
                    _ => return false,
                },
            }
        }
    }

    /// Whether everything `other` matches is matched by `self`. `*` is a character like others to the outer pattern, so
    /// this holds for every pattern, not only for exact ones.
    pub(super) fn covers(&self, other: &Self) -> bool {
        self.matches(&other.0)
    }

    /// Whether some text may match both. Exact unless both have a `*` before their end.
    pub(super) fn may_meet(&self, other: &Self) -> bool {
        if self.is_exact() || other.is_exact() {
            return self.matches(&other.0) || other.matches(&self.0);
        }
        let (a, b) = (self.fixed_beginning(), other.fixed_beginning());
        a.starts_with(b) || b.starts_with(a)
    }

    /// The text before the first `*`.
    pub(super) fn fixed_beginning(&self) -> &str {
        self.0.split('*').next().unwrap_or_default()
    }

    /// A text that the pattern matches, and that hardly any other pattern names.
    pub(super) fn example(&self) -> String {
        self.0.replace('*', EXAMPLE)
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `database/container`, with `*` allowed in either.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct ContainerPattern {
    database: Glob,
    container: Glob,
}

impl ContainerPattern {
    pub(super) fn parse(text: &str) -> Result<Self, MalformedName> {
        let (database, container) = text.split_once('/').ok_or(MalformedName::NotAContainer)?;
        let pattern = Self { database: Glob::new(database), container: Glob::new(container) };
        pattern.checked_example()?;
        Ok(pattern)
    }

    /// The one container it names, when it has no `*`.
    pub(super) fn exact(&self) -> Option<ContainerName> {
        if self.is_exact() { self.checked_example().ok() } else { None }
    }

    pub(super) fn is_exact(&self) -> bool {
        self.database.is_exact() && self.container.is_exact()
    }

    /// How the names of its containers begin, written `database/container`.
    pub(super) fn fixed_beginning(&self) -> String {
        match self.database.is_exact() {
            true => format!("{}/{}", self.database, self.container.fixed_beginning()),
            false => self.database.fixed_beginning().to_owned(),
        }
    }

    pub(super) fn matches(&self, name: &ContainerName) -> bool {
        self.database.matches(name.database()) && self.container.matches(name.container())
    }

    pub(super) fn covers(&self, other: &Self) -> bool {
        self.database.covers(&other.database) && self.container.covers(&other.container)
    }

    /// A container that the pattern matches.
    pub(super) fn checked_example(&self) -> Result<ContainerName, MalformedName> {
        ContainerName::new(&self.database.example(), &self.container.example())
    }
}

impl fmt::Display for ContainerPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.database, self.container)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_does_not_cross_a_separator() {
        for (pattern, text, matches) in [
            ("Fulfil*", "Fulfil", true),
            ("Fulfil*", "FulfilOrders", true),
            ("Fulfil*", "Fulfil:run", false),
            ("*", "", true),
            ("*", "a/b", false),
            ("repo:octo/*", "repo:octo/shop", true),
            ("repo:octo/*", "repo:octo/shop:ref", false),
            ("repo:octo/*:*", "repo:octo/shop:ref", true),
            ("*-eu-*", "a-eu-eu-b", true),
            ("a*b", "ab:ab", false),
            ("*b", "abb", true),
            ("exact", "exactly", false),
        ] {
            assert_eq!(Glob::new(pattern).matches(text), matches, "{pattern} {text}");
        }
    }

    #[test]
    fn a_pattern_covers_what_is_narrower() {
        assert!(Glob::new("svc-*").covers(&Glob::new("svc-a*")));
        assert!(!Glob::new("svc-a*").covers(&Glob::new("svc-*")));
        assert!(Glob::new("svc-*").may_meet(&Glob::new("s*")));
        assert!(!Glob::new("svc-*").may_meet(&Glob::new("job-*")));
    }

    #[test]
    fn container_patterns_have_two_parts() {
        let pattern = ContainerPattern::parse("shop/*").unwrap();
        assert!(pattern.matches(&"shop/orders".parse().unwrap()));
        assert!(!pattern.matches(&"finance/orders".parse().unwrap()));
        assert_eq!(pattern.exact(), None);
        assert_eq!(ContainerPattern::parse("shop/orders").unwrap().exact(), "shop/orders".parse().ok());
        for text in ["*", "shop", "shop/", "shop/a/b", "/orders", "a b#/c"] {
            assert!(ContainerPattern::parse(text).is_err(), "{text}");
        }
    }
}
