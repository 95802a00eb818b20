//! Where a decision looks: from a container and the caller's claims to the clauses that could matter, so that their number does
//! not matter.
//!
//! A clause is found by its container first (a hash of the name, or the beginning of the pattern), then by issuer, then by one of
//! the claims it tests: the one whose values fewest other clauses share, each value an entry of its own. What is found may still
//! fail the other tests, and is asked; what is not found would have failed for certain. A pattern is found by the text before its
//! `*`: a request tries the beginnings of its own text that some pattern has, which are no more than it has characters.
//!
//! A binding that gives one grant to one client keeps about 400 bytes, its entry here included; `bench/README.md` has the figures.
//!
//! What stays linear: clauses on one container that neither claims nor issuer tell apart (a thousand states of one workload, a
//! thousand grants of one role on one container, denies for all on single partitions), and denies by a claim the caller does not
//! show, all of which apply.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
    sync::Arc,
};

use serde_json::Value;

use super::{
    glob::ContainerPattern,
    selector::{ClaimPattern, ClaimTest, Match, Selector, usable_values},
};
use crate::access::{Claims, ContainerName};

/// So few clauses are asked one after the other faster than they are looked up, and need no index. The tests, whose policies are
/// small, always go through it.
const FEW: usize = if cfg!(test) { 1 } else { 8 };

/// A clause, by its position in the policy's list of them.
pub(super) type Position = u32;

/// Things that stand on containers, found by a container's name.
#[derive(Debug)]
pub(super) struct ByContainer<T> {
    exact: HashMap<ContainerName, T>,
    patterns: ByBeginning<HashMap<ContainerPattern, T>>,
}

impl<T> Default for ByContainer<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), patterns: ByBeginning::default() }
    }
}

impl<T: Default> ByContainer<T> {
    /// What stands on the containers of `pattern`, for filling.
    pub(super) fn at(&mut self, pattern: &ContainerPattern) -> &mut T {
        match pattern.exact() {
            Some(name) => self.exact.entry(name).or_default(),
            None => self.patterns.at(&pattern.fixed_beginning()).entry(pattern.clone()).or_default(),
        }
    }
}

impl<T> ByContainer<T> {
    /// All that stands on the container.
    pub(super) fn on(&self, container: &ContainerName) -> Vec<&T> {
        let mut found: Vec<&T> = self.exact.get(container).into_iter().collect();
        if !self.patterns.is_empty() {
            let beginning = self.patterns.of(container.as_str()).flatten();
            found.extend(beginning.filter(|(pattern, _)| pattern.matches(container)).map(|(_, thing)| thing));
        }
        found
    }

    /// Everything, wherever it stands.
    pub(super) fn all(&self) -> impl Iterator<Item = &T> {
        self.exact.values().chain(self.patterns.all().flat_map(HashMap::values))
    }

    pub(super) fn map<U>(self, make: impl Fn(T) -> U) -> ByContainer<U> {
        let patterns = |things: HashMap<ContainerPattern, T>| {
            things.into_iter().map(|(pattern, thing)| (pattern, make(thing))).collect()
        };
        ByContainer {
            patterns: self.patterns.map(patterns),
            exact: self.exact.into_iter().map(|(name, thing)| (name, make(thing))).collect(),
        }
    }
}

/// Things found by how a text begins.
#[derive(Debug)]
struct ByBeginning<T> {
    lengths: BTreeSet<usize>,
    things: HashMap<Box<str>, T>,
}

impl<T> Default for ByBeginning<T> {
    fn default() -> Self {
        Self { lengths: BTreeSet::new(), things: HashMap::new() }
    }
}

impl<T> ByBeginning<T> {
    fn at(&mut self, beginning: &str) -> &mut T
    where
        T: Default,
    {
        self.lengths.insert(beginning.len());
        self.things.entry(beginning.into()).or_default()
    }

    fn of<'a, 'b>(&'a self, text: &'b str) -> impl Iterator<Item = &'a T> + use<'a, 'b, T> {
        self.lengths.iter().filter_map(|&length| self.things.get(text.get(..length)?))
    }

    fn all(&self) -> impl Iterator<Item = &T> {
        self.things.values()
    }

    fn is_empty(&self) -> bool {
        self.things.is_empty()
    }

    fn map<U>(self, make: impl Fn(T) -> U) -> ByBeginning<U> {
        let things = self.things.into_iter().map(|(beginning, thing)| (beginning, make(thing)));
        ByBeginning { lengths: self.lengths, things: things.collect() }
    }
}

/// Selectors of one issuer, found by what a caller claims.
#[derive(Debug, Default)]
pub(super) struct ByClaims {
    by_name: Vec<(Arc<str>, ByValue)>,
    /// Those that no claim finds.
    others: Vec<Position>,
}

/// Selectors that test one claim, found by its values.
#[derive(Debug, Default)]
struct ByValue {
    texts: HashMap<Box<str>, Vec<Position>>,
    numbers: HashMap<u64, Vec<Position>>,
    booleans: HashMap<bool, Vec<Position>>,
    beginnings: ByBeginning<Vec<Position>>,
}

/// Under what a pattern is found.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Key<'a> {
    Text(&'a str),
    Number(u64),
    Boolean(bool),
    Beginning(&'a str),
}

impl<'a> Key<'a> {
    fn of(pattern: &'a ClaimPattern) -> Option<Self> {
        match pattern {
            ClaimPattern::Text(glob) => Some(Self::Beginning(glob.fixed_beginning())),
            ClaimPattern::Exact(Value::String(text)) => Some(Self::Text(text)),
            ClaimPattern::Exact(Value::Number(number)) => Some(Self::Number(bits(number))),
            ClaimPattern::Exact(Value::Bool(boolean)) => Some(Self::Boolean(*boolean)),
            ClaimPattern::Exact(_) => None,
        }
    }
}

/// Numbers that are compared as equal have the same bits; large ones that are not may share them too.
fn bits(number: &serde_json::Number) -> u64 {
    // Zero has two signs.
    (number.as_f64().unwrap_or(f64::NAN) + 0.0).to_bits()
}

impl ByClaims {
    pub(super) fn new(selectors: &[(Position, &Selector)]) -> Self {
        let mut index = Self::default();
        if selectors.len() <= FEW {
            index.others = selectors.iter().map(|(position, _)| *position).collect();
            return index;
        }
        let shared = Shared::count(selectors);
        for (position, selector) in selectors {
            match shared.most_telling(selector) {
                Some(test) => index.insert(test, *position),
                None => index.others.push(*position),
            }
        }
        index
    }

    fn insert(&mut self, test: &ClaimTest, position: Position) {
        let at = self.by_name.iter().position(|(name, _)| *name == test.name).unwrap_or_else(|| {
            self.by_name.push((test.name.clone(), ByValue::default()));
            self.by_name.len() - 1
        });
        let Some((_, values)) = self.by_name.get_mut(at) else { return };
        for key in test.any_of.iter().filter_map(Key::of) {
            let found = match key {
                Key::Text(text) => values.texts.entry(text.into()).or_default(),
                Key::Number(number) => values.numbers.entry(number).or_default(),
                Key::Boolean(boolean) => values.booleans.entry(boolean).or_default(),
                Key::Beginning(beginning) => values.beginnings.at(beginning),
            };
            found.push(position);
        }
    }

    /// Adds to `found` every selector whose tests of these claims may come out as `least` or better; [`Match::Unknown`] also finds
    /// those that ask for a claim the caller does not show.
    pub(super) fn find(&self, claims: &Claims, least: Match, found: &mut Vec<Position>) {
        found.extend(&self.others);
        for (name, values) in &self.by_name {
            let mut shown = usable_values(claims, name).peekable();
            if shown.peek().is_none() && least == Match::Unknown {
                found.extend(values.all());
            }
            shown.for_each(|value| values.find(value, found));
        }
    }
}

impl ByValue {
    fn find(&self, value: &Value, found: &mut Vec<Position>) {
        let exact = match value {
            Value::String(text) => {
                found.extend(self.beginnings.of(text).flatten());
                self.texts.get(text.as_str())
            }
            Value::Number(number) => self.numbers.get(&bits(number)),
            Value::Bool(boolean) => self.booleans.get(boolean),
            _ => None,
        };
        found.extend(exact.into_iter().flatten());
    }

    fn all(&self) -> impl Iterator<Item = Position> {
        let exact = self.texts.values().chain(self.numbers.values()).chain(self.booleans.values());
        exact.chain(self.beginnings.things.values()).flatten().copied()
    }
}

/// How many selectors share each value of each claim.
struct Shared<'a>(HashMap<(&'a str, Key<'a>), usize>);

impl<'a> Shared<'a> {
    fn count(selectors: &[(Position, &'a Selector)]) -> Self {
        let mut shared = HashMap::new();
        for test in selectors.iter().flat_map(|(_, selector)| &*selector.claims) {
            for key in test.any_of.iter().filter_map(Key::of) {
                *shared.entry((&*test.name, key)).or_default() += 1;
            }
        }
        Self(shared)
    }

    /// The test whose values the fewest selectors share; of equals one without a pattern.
    fn most_telling(&self, selector: &'a Selector) -> Option<&'a ClaimTest> {
        let usable = selector.claims.iter().filter(|test| !test.any_of.is_empty());
        usable.min_by_key(|test| {
            let keys = test.any_of.iter().filter_map(Key::of);
            let sharers: usize = keys.filter_map(|key| self.0.get(&(&*test.name, key))).sum();
            (sharers, test.any_of.iter().any(|pattern| matches!(pattern, ClaimPattern::Text(_))))
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        super::{glob::Glob, selector::ContextTest},
        *,
    };
    use crate::access::IssuerName;

    fn selector(claims: &Value) -> Selector {
        let pattern = |value: &Value| match value.as_str() {
            Some(text) if text.ends_with('*') => ClaimPattern::Text(Glob::new(text)),
            _ => ClaimPattern::Exact(value.clone()),
        };
        let any_of =
            |value: &Value| value.as_array().map_or(vec![pattern(value)], |all| all.iter().map(pattern).collect());
        let tests = claims.as_object().unwrap().iter();
        let tests = tests.map(|(name, value)| ClaimTest { name: name.as_str().into(), any_of: any_of(value).into() });
        Selector { issuer: IssuerName::new("i"), claims: tests.collect(), context: ContextTest::default() }
    }

    fn found(of: &[Selector], claims: Value, least: Match) -> Vec<Position> {
        let placed: Vec<_> = of.iter().enumerate().map(|(i, selector)| (i as Position, selector)).collect();
        let mut found = Vec::new();
        ByClaims::new(&placed).find(&Claims::new(claims.as_object().unwrap().clone()), least, &mut found);
        found.sort_unstable();
        found
    }

    #[test]
    fn what_is_not_found_could_not_have_matched() {
        let written = [
            json!({"c": "a"}),
            json!({"c": "b"}),
            json!({"c": ["a", "b"]}),
            json!({"c": "a*"}),
            json!({"c": "*"}),
            json!({"c": "ab*"}),
            json!({"n": 7}),
            json!({"n": 9_007_199_254_740_993_u64}),
            json!({"b": true}),
            json!({}),
            json!({"c": "a", "n": 7}),
            json!({"c": "a", "b": false}),
            json!({"n": 0}),
        ];
        let all: Vec<_> = written.iter().map(selector).collect();
        for claims in [
            json!({}),
            json!({"c": "a"}),
            json!({"c": "abc"}),
            json!({"c": "é"}),
            json!({"c": ["b", "x"]}),
            json!({"n": 7.0}),
            json!({"n": 9_007_199_254_740_992.0}),
            json!({"n": -0.0}),
            json!({"b": true}),
            json!({"b": [false]}),
            json!({"c": null, "n": {}}),
            json!({"c": "a", "n": 7, "b": false}),
            json!({"c": 7, "n": "a"}),
        ] {
            for least in [Match::Yes, Match::Unknown] {
                let found = found(&all, claims.clone(), least);
                for (i, selector) in all.iter().enumerate() {
                    let shown = Claims::new(claims.as_object().unwrap().clone());
                    let matches = selector.test(&selector.issuer, &shown, &Default::default()) >= least;
                    assert!(!matches || found.contains(&(i as Position)), "{} of {claims}", written[i]);
                }
            }
        }
    }

    #[test]
    fn a_caller_meets_no_more_than_its_own() {
        let tenants: Vec<_> =
            (0..1000).map(|i| selector(&json!({"team": "shop", "client_id": format!("c{i}")}))).collect();
        assert_eq!(found(&tenants, json!({"team": "shop", "client_id": "c17"}), Match::Yes), [17]);
        assert_eq!(found(&tenants, json!({"team": "shop", "client_id": "c17"}), Match::Unknown), [17]);
        assert_eq!(found(&tenants, json!({"team": "shop"}), Match::Unknown).len(), 1000);
        let families: Vec<_> = (0..1000).map(|i| selector(&json!({"client_id": format!("family{i:04}-*")}))).collect();
        assert_eq!(found(&families, json!({"client_id": "family0017-x"}), Match::Yes), [17]);
    }

    #[test]
    fn containers_are_found_by_name_and_by_pattern() {
        let mut index: ByContainer<Vec<&str>> = ByContainer::default();
        for pattern in ["shop/orders", "shop/*", "shop/or*", "*/orders", "s*/o*s", "*/*", "shop/audit*", "shop/orders*"]
        {
            index.at(&ContainerPattern::parse(pattern).unwrap()).push(pattern);
        }
        let index = index.map(|names| names.join(" "));
        let mut found: Vec<_> = index.on(&"shop/orders".parse().unwrap()).into_iter().cloned().collect();
        found.sort();
        assert_eq!(found, ["*/*", "*/orders", "s*/o*s", "shop/*", "shop/or*", "shop/orders", "shop/orders*"]);
    }
}
