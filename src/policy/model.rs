//! The policy, checked and compiled: names resolved, patterns parsed, and an index from issuer and container to grants, so that
//! a decision looks only at what could matter to it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    decision::{Clause, Revision},
    glob::ContainerPattern,
    selector::{ContextTest, Match, Selector},
    template::KeyTemplate,
};
use crate::{
    access::{AccessRequest, ContainerName, IssuerName, Operation},
    diagnostic::Diagnostic,
};

/// A complete policy. Made from a directory by [`super::load`]; never changed afterwards.
#[derive(Debug)]
pub struct PolicySet {
    revision: Revision,
    warnings: Vec<Diagnostic>,
    entitlements: Vec<Entitlement>,
    grants: Vec<Arc<Grant>>,
    denies: Vec<Arc<Deny>>,
    entitlements_of: HashMap<IssuerName, ByContainer<Entitlement>>,
    denies_on: ByContainer<Arc<Deny>>,
}

/// What a role allows on a container.
#[derive(Debug)]
pub(super) struct Grant {
    pub(super) clause: Clause,
    pub(super) container: ContainerPattern,
    pub(super) partition: Option<KeyTemplate>,
    pub(super) operations: Operations,
}

impl Grant {
    /// Smaller is narrower: a longer partition key before a shorter one before none, an exact container before a glob.
    pub(super) fn breadth(&self) -> (usize, bool) {
        let components = self.partition.as_ref().map_or(0, KeyTemplate::len);
        (usize::MAX - components, !self.container.is_exact())
    }
}

/// What is refused.
#[derive(Debug)]
pub(super) struct Deny {
    pub(super) clause: Clause,
    pub(super) container: ContainerPattern,
    pub(super) partition: Option<KeyTemplate>,
    /// With what falls along.
    pub(super) operations: Operations,
    /// `None` is `all`.
    pub(super) workloads: Option<Vec<Selector>>,
    pub(super) context: ContextTest,
}

impl Deny {
    /// Whether the caller is, or may be, one that the deny is about.
    pub(super) fn is_about(&self, request: &AccessRequest<'_>) -> bool {
        let caller = self.workloads.as_ref().map_or(Match::Yes, |selectors| {
            let tests = selectors.iter().map(|s| s.test(&request.subject.issuer, request.claims, request.context));
            tests.max().unwrap_or(Match::No)
        });
        caller.and(self.context.test(request.context)) != Match::No
    }
}

/// A grant in the hands of the workloads that one selector of a binding describes.
#[derive(Clone, Debug)]
pub(super) struct Entitlement {
    pub(super) grant: Arc<Grant>,
    pub(super) holder: Arc<Selector>,
}

/// Things that stand on containers, found by a container's name.
#[derive(Debug)]
struct ByContainer<T> {
    exact: HashMap<ContainerName, Vec<T>>,
    globbed: Vec<(ContainerPattern, T)>,
}

impl<T> Default for ByContainer<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), globbed: Vec::new() }
    }
}

impl<T> ByContainer<T> {
    fn insert(&mut self, container: &ContainerPattern, thing: T) {
        match container.exact() {
            Some(name) => self.exact.entry(name).or_default().push(thing),
            None => self.globbed.push((container.clone(), thing)),
        }
    }

    fn on<'a>(&'a self, container: &'a ContainerName) -> impl Iterator<Item = &'a T> {
        let globbed =
            self.globbed.iter().filter(move |(pattern, _)| pattern.matches(container)).map(|(_, thing)| thing);
        self.exact.get(container).into_iter().flatten().chain(globbed)
    }
}

/// Set of operations.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Operations(u16);

impl Operations {
    /// What a word of a policy file stands for.
    pub(super) fn of_word(word: &str) -> Option<Self> {
        match word {
            "*" => Some(Operation::ALL.into_iter().collect()),
            "items/*" => Some(Operation::ALL.into_iter().filter(|o| o.as_str().starts_with("items/")).collect()),
            _ => word.parse::<Operation>().ok().map(|operation| [operation].into_iter().collect()),
        }
    }

    pub(super) fn contains(self, operation: Operation) -> bool {
        self.0 & bit(operation) != 0
    }

    pub(super) fn contains_all(self, others: Self) -> bool {
        others.0 & !self.0 == 0
    }

    pub(super) fn iter(self) -> impl Iterator<Item = Operation> {
        Operation::ALL.into_iter().filter(move |operation| self.contains(*operation))
    }

    /// What falls when these are denied: an upsert could replace, and a stored procedure could do any of the item writes.
    pub(super) fn with_what_falls_along(self) -> Self {
        let mut all = self;
        if self.contains(Operation::ItemsReplace) {
            all.0 |= bit(Operation::ItemsUpsert);
        }
        if self.iter().any(Operation::is_item_write) {
            all.0 |= bit(Operation::Execute);
        }
        all
    }
}

impl FromIterator<Operation> for Operations {
    fn from_iter<I: IntoIterator<Item = Operation>>(operations: I) -> Self {
        Self(operations.into_iter().fold(0, |bits, operation| bits | bit(operation)))
    }
}

impl Extend<Self> for Operations {
    fn extend<I: IntoIterator<Item = Self>>(&mut self, others: I) {
        others.into_iter().for_each(|other| self.0 |= other.0);
    }
}

const fn bit(operation: Operation) -> u16 {
    1 << operation as u16
}

/// A checked binding: a role's grants, and the selectors of those who hold them.
#[derive(Debug)]
pub(super) struct Binding {
    pub(super) grants: Vec<Arc<Grant>>,
    pub(super) holders: Vec<Arc<Selector>>,
}

impl PolicySet {
    /// `grants` and `denies` in the order of file path and position.
    pub(super) fn new(
        revision: Revision,
        grants: Vec<Arc<Grant>>,
        bindings: &[Binding],
        denies: Vec<Arc<Deny>>,
        warnings: Vec<Diagnostic>,
    ) -> Self {
        let order: HashMap<*const Grant, usize> =
            grants.iter().enumerate().map(|(i, grant)| (Arc::as_ptr(grant), i)).collect();
        let mut entitlements: Vec<Entitlement> = Vec::new();
        for binding in bindings {
            for grant in &binding.grants {
                let held =
                    binding.holders.iter().map(|holder| Entitlement { grant: grant.clone(), holder: holder.clone() });
                entitlements.extend(held);
            }
        }
        // Stable, so that of equally narrow grants the one that stands first is met first.
        entitlements.sort_by_key(|e| (e.grant.breadth(), order.get(&Arc::as_ptr(&e.grant)).copied()));
        let mut entitlements_of: HashMap<IssuerName, ByContainer<Entitlement>> = HashMap::new();
        for entitlement in &entitlements {
            let of_issuer = entitlements_of.entry(entitlement.holder.issuer.clone()).or_default();
            of_issuer.insert(&entitlement.grant.container, entitlement.clone());
        }
        let mut denies_on = ByContainer::default();
        for deny in &denies {
            denies_on.insert(&deny.container, deny.clone());
        }
        Self { revision, warnings, entitlements, grants, denies, entitlements_of, denies_on }
    }

    /// Which policy this is.
    pub fn revision(&self) -> &Revision {
        &self.revision
    }

    /// What deserves a look, though the set loads.
    pub fn warnings(&self) -> &[Diagnostic] {
        &self.warnings
    }

    /// Every grant and deny, in the order of the files.
    pub fn clauses(&self) -> impl Iterator<Item = &Clause> {
        self.grants.iter().map(|grant| &grant.clause).chain(self.denies.iter().map(|deny| &deny.clause))
    }

    /// Entitlements of the issuer's workloads on the container; those on exact containers first, each group narrowest first.
    pub(super) fn entitlements_on<'a>(
        &'a self,
        issuer: &IssuerName,
        container: &'a ContainerName,
    ) -> impl Iterator<Item = &'a Entitlement> {
        self.entitlements_of.get(issuer).into_iter().flat_map(move |entitlements| entitlements.on(container))
    }

    pub(super) fn denies_on<'a>(&'a self, container: &'a ContainerName) -> impl Iterator<Item = &'a Deny> {
        self.denies_on.on(container).map(|deny| &**deny)
    }

    /// All entitlements, narrowest first.
    pub(super) fn entitlements(&self) -> &[Entitlement] {
        &self.entitlements
    }

    pub(super) fn denies(&self) -> &[Arc<Deny>] {
        &self.denies
    }

    /// Every claim that some clause asks for.
    pub(super) fn claim_names(&self) -> HashSet<Arc<str>> {
        let holders = self.entitlements.iter().map(|entitlement| &*entitlement.holder);
        let denied = self.denies.iter().flat_map(|deny| deny.workloads.iter().flatten());
        let tested = holders.chain(denied).flat_map(|selector| selector.claims.iter().map(|test| test.name.clone()));
        tested.chain(self.templates().flat_map(|template| template.claim_names().map(Arc::from))).collect()
    }

    /// Every partition key that some clause writes.
    pub(super) fn templates(&self) -> impl Iterator<Item = &KeyTemplate> {
        let granted = self.grants.iter().filter_map(|grant| grant.partition.as_ref());
        granted.chain(self.denies.iter().filter_map(|deny| deny.partition.as_ref()))
    }

    /// Every container pattern that some clause writes.
    pub(super) fn containers(&self) -> impl Iterator<Item = &ContainerPattern> {
        self.grants.iter().map(|grant| &grant.container).chain(self.denies.iter().map(|deny| &deny.container))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Operations {
        let mut all = Operations::default();
        all.extend(words.iter().map(|word| Operations::of_word(word).unwrap()));
        all
    }

    #[test]
    fn words_stand_for_operations() {
        assert_eq!(words(&["*"]).iter().count(), 10);
        assert_eq!(words(&["items/*"]).iter().count(), 6);
        assert!(!words(&["items/*"]).contains(Operation::Batch));
        assert_eq!(Operations::of_word("items"), None);
    }

    #[test]
    fn what_falls_along_with_a_deny() {
        let falls = |word| words(&[word]).with_what_falls_along();
        assert_eq!(falls("items/replace"), words(&["items/replace", "items/upsert", "execute"]));
        assert_eq!(falls("items/create"), words(&["items/create", "execute"]));
        assert_eq!(falls("items/read"), words(&["items/read"]));
        assert_eq!(falls("batch"), words(&["batch"]));
    }
}
