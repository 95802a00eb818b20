//! The policy, checked and compiled: names resolved, patterns parsed, and an index (`index`) to what could matter to a request.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    decision::{BindingLimits, Clause, Revision},
    glob::ContainerPattern,
    index::{ByClaims, ByContainer, Position},
    selector::{ContextTest, Match, Selector},
    template::KeyTemplate,
};
use crate::{
    access::{AccessRequest, Claims, ContainerName, IssuerName, Operation},
    diagnostic::Diagnostic,
    mask::Mask,
};

/// A complete policy. Made from a directory by [`super::load`]; never changed afterwards.
#[derive(Debug)]
pub struct PolicySet {
    revision: Revision,
    warnings: Vec<Diagnostic>,
    entitlements: Vec<Entitlement>,
    grants: Vec<Arc<Grant>>,
    denies: Vec<Arc<Deny>>,
    entitlements_of: HashMap<IssuerName, ByContainer<ByClaims>>,
    denies_on: ByContainer<Denied>,
}

/// What a role allows on a container.
#[derive(Debug)]
pub(super) struct Grant {
    pub(super) clause: Clause,
    pub(super) container: ContainerPattern,
    pub(super) partition: Option<KeyTemplate>,
    pub(super) operations: Operations,
    /// Those that are named by their own word.
    pub(super) named: Operations,
    /// Whether a write is done once, however often it is sent.
    pub(super) idempotent: bool,
    /// What of an item is covered in every answer.
    pub(super) mask: Option<Mask>,
}

impl Grant {
    /// Smaller is narrower: a longer partition key before a shorter one before none, an exact container before a glob.
    pub(super) fn breadth(&self) -> (usize, bool) {
        let components = self.partition.as_ref().map_or(0, KeyTemplate::len);
        (usize::MAX - components, !self.container.is_exact())
    }

    /// What of the grant an agent gets: what reads, and of what writes that which is named by its own word.
    pub(super) fn of_agent(&self) -> Option<Self> {
        let gets = |operation: &Operation| !operation.is_write() || self.named.contains(*operation);
        let operations: Operations = self.operations.iter().filter(gets).collect();
        let some = operations.iter().next().is_some();
        some.then(|| Self {
            clause: self.clause.clone(),
            container: self.container.clone(),
            partition: self.partition.clone(),
            operations,
            named: self.named,
            idempotent: self.idempotent,
            mask: self.mask.clone(),
        })
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
    /// Where the binding stands.
    pub(super) binding: Arc<str>,
    pub(super) limits: Option<Arc<BindingLimits>>,
}

/// The denies on a container, found by whom they are about.
#[derive(Debug, Default)]
struct Denied {
    all: Vec<Position>,
    /// Those about everyone.
    everyone: Vec<Position>,
    of: HashMap<IssuerName, ByClaims>,
}

impl Denied {
    fn new(all: Vec<Position>, denies: &[Arc<Deny>]) -> Self {
        let mut everyone = Vec::new();
        let mut of: HashMap<&IssuerName, Vec<(Position, &Selector)>> = HashMap::new();
        for (position, deny) in all.iter().filter_map(|position| Some((*position, denies.get(*position as usize)?))) {
            match &deny.workloads {
                None => everyone.push(position),
                Some(selectors) => {
                    selectors.iter().for_each(|s| of.entry(&s.issuer).or_default().push((position, s)));
                }
            }
        }
        let of = of.into_iter().map(|(issuer, selectors)| (issuer.clone(), ByClaims::new(&selectors))).collect();
        Self { all, everyone, of }
    }

    fn find(&self, issuer: &IssuerName, claims: &Claims, found: &mut Vec<Position>) {
        found.extend(&self.everyone);
        if let Some(selectors) = self.of.get(issuer) {
            selectors.find(claims, Match::Unknown, found);
        }
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

/// A checked binding: a role's grants, the selectors of those who hold them, and how much they may ask for.
#[derive(Debug)]
pub(super) struct Binding {
    pub(super) grants: Arc<[Arc<Grant>]>,
    pub(super) holders: Vec<Arc<Selector>>,
    /// Where it stands: `shop.yaml:31`.
    pub(super) place: Arc<str>,
    pub(super) limits: Option<Arc<BindingLimits>>,
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
        // By clause, since an agent's grant is a part of the one that was written.
        let order: HashMap<&Clause, usize> = grants.iter().enumerate().map(|(i, grant)| (&grant.clause, i)).collect();
        let mut entitlements: Vec<Entitlement> = Vec::new();
        for Binding { grants, holders, place, limits } in bindings {
            for grant in grants.iter() {
                let held = holders.iter().map(|holder| Entitlement {
                    grant: grant.clone(),
                    holder: holder.clone(),
                    binding: place.clone(),
                    limits: limits.clone(),
                });
                entitlements.extend(held);
            }
        }
        // Stable, so that of equally narrow grants the one that stands first is met first.
        entitlements.sort_by_cached_key(|e| (e.grant.breadth(), order.get(&e.grant.clause).copied()));
        let entitlements_of = index_entitlements(&entitlements);
        let mut denies_on: ByContainer<Vec<Position>> = ByContainer::default();
        for (position, deny) in (0..).zip(&denies) {
            denies_on.at(&deny.container).push(position);
        }
        let denies_on = denies_on.map(|positions| Denied::new(positions, &denies));
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

    /// The entitlements on the request's container that may be the caller's, narrowest first.
    pub(super) fn entitlements_on(&self, request: &AccessRequest<'_>) -> impl Iterator<Item = &Entitlement> + use<'_> {
        let mut found = Vec::new();
        if let Some(of_issuer) = self.entitlements_of.get(&request.subject.issuer) {
            let on_container = of_issuer.on(request.container);
            on_container.into_iter().for_each(|held| held.find(request.claims, Match::Yes, &mut found));
        }
        in_order(found).filter_map(|position| self.entitlements.get(position as usize))
    }

    /// The entitlements on any container that may be those of a caller of `issuer` with these claims, narrowest first.
    pub(super) fn entitlements_of(
        &self,
        issuer: &IssuerName,
        claims: &Claims,
    ) -> impl Iterator<Item = &Entitlement> + use<'_> {
        let mut found = Vec::new();
        let containers = self.entitlements_of.get(issuer).into_iter().flat_map(ByContainer::all);
        containers.for_each(|held| held.find(claims, Match::Yes, &mut found));
        in_order(found).filter_map(|position| self.entitlements.get(position as usize))
    }

    /// The denies on the request's container that may be about the caller, in the order of the files.
    pub(super) fn denies_about(&self, request: &AccessRequest<'_>) -> impl Iterator<Item = &Deny> + use<'_> {
        let mut found = Vec::new();
        let on_container = self.denies_on.on(request.container);
        on_container.into_iter().for_each(|denied| denied.find(&request.subject.issuer, request.claims, &mut found));
        in_order(found).filter_map(|position| self.denies.get(position as usize)).map(|deny| &**deny)
    }

    /// The denies on the container, in the order of the files.
    pub(super) fn denies_on(&self, container: &ContainerName) -> impl Iterator<Item = &Deny> + use<'_> {
        let found = self.denies_on.on(container).into_iter().flat_map(|denied| &denied.all).copied().collect();
        in_order(found).filter_map(|position| self.denies.get(position as usize)).map(|deny| &**deny)
    }

    /// All entitlements, narrowest first.
    pub(super) fn entitlements(&self) -> &[Entitlement] {
        &self.entitlements
    }

    pub(super) fn denies(&self) -> &[Arc<Deny>] {
        &self.denies
    }

    /// The grants that name their container without a glob.
    pub fn named_grants(&self) -> impl Iterator<Item = NamedGrant<'_>> {
        self.grants.iter().filter_map(|grant| {
            Some(NamedGrant {
                container: grant.container.exact()?,
                levels: grant.partition.as_ref().map_or(0, KeyTemplate::len),
                idempotent: grant.idempotent,
                clause: &grant.clause,
            })
        })
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

/// What a grant on a named container wants of that container.
#[derive(Clone, Debug)]
pub struct NamedGrant<'a> {
    /// The container.
    pub container: ContainerName,
    /// How many levels of its partition key the grant fixes.
    pub levels: usize,
    /// Whether its writes are done once, which leaves markers that must expire.
    pub idempotent: bool,
    /// The grant.
    pub clause: &'a Clause,
}

/// Each position once: a list of values may lead to a clause more than once.
fn in_order(mut positions: Vec<Position>) -> impl Iterator<Item = Position> {
    positions.sort_unstable();
    positions.dedup();
    positions.into_iter()
}

fn index_entitlements(entitlements: &[Entitlement]) -> HashMap<IssuerName, ByContainer<ByClaims>> {
    let mut of: HashMap<&IssuerName, ByContainer<Vec<(Position, &Selector)>>> = HashMap::new();
    for (position, Entitlement { grant, holder, .. }) in (0..).zip(entitlements) {
        of.entry(&holder.issuer).or_default().at(&grant.container).push((position, &**holder));
    }
    of.into_iter().map(|(issuer, on)| (issuer.clone(), on.map(|selectors| ByClaims::new(&selectors)))).collect()
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
