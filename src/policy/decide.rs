//! The one evaluator. Pure and synchronous: no clock, no file, no lock.
//!
//! 1. Of the grants that cover the request for this caller, the narrowest decides.
//! 2. It says under which partition key the request runs: the one named, or the one the grant fixes.
//! 3. Any deny that may be about the request under that key refuses it, whatever the grant says.
//! 4. What any grant masks that the caller holds there, and that is as narrow as the deciding one, is masked: so the order of grants
//!    shows nobody more, and neither does the echo of a write under another of them.

use std::{collections::HashSet, sync::Arc};

use super::{
    decision::{Clause, Decision, Permit, Reasons, Scope},
    explain,
    model::{Deny, Entitlement, Grant, PolicySet},
    selector::Match,
};
use crate::{
    access::{AccessRequest, Action, Operation, PartitionKey},
    mask::Mask,
};

/// Whether the policy allows the request.
pub fn decide(set: &PolicySet, request: &AccessRequest<'_>) -> Decision {
    match request.action {
        Action::Operation(operation) => decide_operation(set, request, operation),
        Action::QueryPlan => decide_without_data(set, request, |grant, denies| {
            grant.operations.contains(Operation::Query) && !is_closed(Operation::Query, denies)
        }),
        Action::Metadata => decide_without_data(set, request, |grant, denies| {
            grant.operations.iter().any(|operation| !is_closed(operation, denies))
        }),
    }
}

/// Whether the policy allows a transactional batch: the batch itself, and every operation inside, each under its own partition
/// key or, where it names none, under the batch's.
pub fn decide_batch(
    set: &PolicySet,
    request: &AccessRequest<'_>,
    operations: &[(Operation, Option<PartitionKey>)],
) -> Decision {
    let mut permit =
        match decide(set, &AccessRequest { action: Action::Operation(Operation::Batch), ..request.clone() }) {
            Decision::Allow(permit) => permit,
            refused => return refused,
        };
    let mut clauses = permit.clauses.to_vec();
    for (position, (operation, partition_key)) in operations.iter().enumerate() {
        let inner = AccessRequest {
            action: Action::Operation(*operation),
            partition_key: partition_key.as_ref().or(permit.partition_key.as_ref()),
            ..request.clone()
        };
        match decide(set, &inner) {
            Decision::Allow(inner) => {
                clauses.extend(inner.clauses.iter().cloned());
                permit.idempotent |= inner.idempotent;
                permit.mask = either(permit.mask, inner.mask.as_ref());
                // The operation was allowed under the key its grant fixes, so that is where the batch must run.
                if partition_key.is_none() {
                    permit.partition_key = inner.partition_key;
                }
            }
            Decision::Deny(reasons) => {
                let sentence = format!("Operation {} of the batch: {}", position + 1, reasons.sentence);
                return Decision::Deny(Reasons { sentence, ..reasons });
            }
            ambiguous @ Decision::Ambiguous(_) => return ambiguous,
        }
    }
    let mut seen = HashSet::new();
    clauses.retain(|clause| seen.insert(clause.clone()));
    permit.clauses = clauses.into();
    Decision::Allow(permit)
}

fn decide_operation(set: &PolicySet, request: &AccessRequest<'_>, operation: Operation) -> Decision {
    let verdict = narrowest(set, request, operation);
    let fixed = match &verdict {
        Verdict::Granted { keys, .. } => sole(keys),
        Verdict::PrefixOnly | Verdict::NotGranted => None,
    };
    let key = request.partition_key.or(fixed).cloned();
    let key = key.as_ref();
    let denies: Vec<&Deny> = denies_hit(set, request, operation, key).collect();
    if !denies.is_empty() {
        let sentence = explain::denied(request, &denies, key.is_some());
        return refuse(set, denies.iter().map(|deny| deny.clause.clone()), sentence, false);
    }
    match verdict {
        Verdict::NotGranted => refuse(set, [], explain::not_granted(set, request), false),
        Verdict::PrefixOnly => refuse(set, [], explain::prefix_only(request), true),
        Verdict::Granted { keys, .. } if keys.len() > 1 => Decision::Ambiguous(keys),
        Verdict::Granted { by, mask: Some(mask), .. } if writes_whole(operation) => {
            refuse(set, [by.grant.clause.clone()], explain::masked(request, by, &mask), false)
        }
        Verdict::Granted { by, keys, mask } => {
            Decision::Allow(Permit { mask, ..permit(set, request, by, keys.first(), key) })
        }
    }
}

/// Whether an operation would overwrite what its caller cannot see; or, as a stored procedure could, show or change anything.
fn writes_whole(operation: Operation) -> bool {
    matches!(operation, Operation::ItemsUpsert | Operation::ItemsReplace | Operation::Execute)
}

/// What is masked by either.
fn either(one: Option<Mask>, other: Option<&Mask>) -> Option<Mask> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.union(other)),
        (one, other) => one.or_else(|| other.cloned()),
    }
}

/// What the grants say before any deny.
enum Verdict<'s> {
    /// The narrowest grant, and the grant's own partition key for this caller: none for the whole container, several only when
    /// the request names no key; and what grants as narrow as it mask.
    Granted { by: &'s Entitlement, keys: Vec<PartitionKey>, mask: Option<Mask> },
    /// Granted only on a prefix of the key that a query or feed names.
    PrefixOnly,
    /// No grant covers it.
    NotGranted,
}

/// How far a grant's partition key reaches over a request.
pub(super) enum Reach {
    /// The grant is on the whole container.
    Container,
    /// The grant's own keys for this caller that the request may run under.
    Partitions(Vec<PartitionKey>),
    /// The request is a query or feed on a key longer than the grant's.
    PrefixOnly,
    /// The request is outside of it.
    Outside,
}

pub(super) fn reach(grant: &Grant, request: &AccessRequest<'_>, operation: Operation) -> Reach {
    let Some(template) = &grant.partition else { return Reach::Container };
    let Some(key) = request.partition_key else {
        let candidates = template.candidates(request.claims);
        return if candidates.is_empty() { Reach::Outside } else { Reach::Partitions(candidates) };
    };
    let named = key.components();
    if named.len() < template.len() || template.compare(request.claims, key) != Match::Yes {
        return Reach::Outside;
    }
    // A query under a prefix would be run over every partition below it, and Cosmos refuses it to a resource token.
    if named.len() > template.len() && matches!(operation, Operation::Query | Operation::Feed) {
        return Reach::PrefixOnly;
    }
    let own = named.iter().take(template.len()).cloned().collect();
    PartitionKey::new(own).map_or(Reach::Outside, |own| Reach::Partitions(vec![own]))
}

fn narrowest<'s>(set: &'s PolicySet, request: &AccessRequest<'_>, operation: Operation) -> Verdict<'s> {
    let mut best: Option<(&Entitlement, Vec<PartitionKey>)> = None;
    let mut masks: Vec<(&Grant, &Mask)> = Vec::new();
    let mut prefix_only = false;
    for entitlement in set.entitlements_on(request) {
        let grant = &*entitlement.grant;
        if best.as_ref().is_some_and(|(best, _)| grant.breadth() > best.grant.breadth()) {
            break;
        }
        let covers = grant.operations.contains(operation);
        if (!covers && grant.mask.is_none()) || !is_held(entitlement, request) {
            continue;
        }
        let keys = match reach(grant, request, operation) {
            Reach::Outside => continue,
            Reach::PrefixOnly => {
                prefix_only |= covers;
                continue;
            }
            Reach::Container => Vec::new(),
            Reach::Partitions(keys) => keys,
        };
        masks.extend(grant.mask.as_ref().map(|mask| (grant, mask)));
        if !covers {
            continue;
        }
        match &mut best {
            // Equally narrow grants that fix different keys leave the choice to the caller, not to the order of the files.
            Some((_, fixed)) => {
                fixed.extend(keys.into_iter().filter(|key| !fixed.contains(key)).collect::<Vec<_>>());
            }
            None => best = Some((entitlement, keys)),
        }
    }
    match best {
        Some((by, keys)) => {
            let as_narrow = masks.iter().filter(|(grant, _)| grant.breadth() == by.grant.breadth());
            let mask = as_narrow.fold(None, |all, (_, mask)| either(all, Some(*mask)));
            Verdict::Granted { by, keys, mask }
        }
        None if prefix_only => Verdict::PrefixOnly,
        None => Verdict::NotGranted,
    }
}

/// Whether the caller is one that the binding gives the grant to.
pub(super) fn is_held(entitlement: &Entitlement, request: &AccessRequest<'_>) -> bool {
    entitlement.holder.test(&request.subject.issuer, request.claims, request.context) == Match::Yes
}

/// The denies that are, or may be, about the request when it runs under `key`; without a key it meets every partition deny.
pub(super) fn denies_hit<'s>(
    set: &'s PolicySet,
    request: &'s AccessRequest<'_>,
    operation: Operation,
    key: Option<&'s PartitionKey>,
) -> impl Iterator<Item = &'s Deny> {
    set.denies_about(request).filter(move |deny| {
        let partition = match (&deny.partition, key) {
            (Some(template), Some(key)) => template.compare(request.claims, key),
            _ => Match::Unknown,
        };
        deny.operations.contains(operation) && partition != Match::No && deny.is_about(request)
    })
}

/// Requests that read no item: the partition does not matter, so neither do partition denies.
fn decide_without_data(
    set: &PolicySet,
    request: &AccessRequest<'_>,
    covers: impl Fn(&Grant, &[&Deny]) -> bool,
) -> Decision {
    let about = set.denies_about(request).filter(|deny| deny.partition.is_none() && deny.is_about(request));
    let denies: Vec<&Deny> = about.collect();
    let mut closed = false;
    for entitlement in set.entitlements_on(request) {
        let grant = &*entitlement.grant;
        let own = match grant.partition.as_ref().map(|template| template.candidates(request.claims).into_iter().next())
        {
            Some(None) => continue,
            own => own.flatten(),
        };
        if !is_held(entitlement, request) || !covers(grant, &[]) {
            continue;
        }
        if covers(grant, &denies) {
            return Decision::Allow(permit(set, request, entitlement, own.as_ref(), request.partition_key));
        }
        closed = true;
    }
    if closed {
        let sentence = explain::denied(request, &denies, true);
        return refuse(set, denies.iter().map(|deny| deny.clause.clone()), sentence, false);
    }
    refuse(set, [], explain::not_granted(set, request), false)
}

fn is_closed(operation: Operation, denies: &[&Deny]) -> bool {
    denies.iter().any(|deny| deny.operations.contains(operation))
}

fn sole(keys: &[PartitionKey]) -> Option<&PartitionKey> {
    match keys {
        [one] => Some(one),
        _ => None,
    }
}

fn permit(
    set: &PolicySet,
    request: &AccessRequest<'_>,
    by: &Entitlement,
    own: Option<&PartitionKey>,
    key: Option<&PartitionKey>,
) -> Permit {
    Permit {
        subject: request.subject.clone(),
        client: request.client.map(Arc::from),
        action: request.action,
        scope: Scope { container: request.container.clone(), partition_key: own.cloned(), mode: request.action.mode() },
        partition_key: key.cloned(),
        clauses: Arc::new([by.grant.clause.clone()]),
        revision: set.revision().clone(),
        binding: by.binding.clone(),
        limits: by.limits.clone(),
        idempotent: by.grant.idempotent,
        mask: by.grant.mask.clone(),
    }
}

fn refuse(
    set: &PolicySet,
    clauses: impl IntoIterator<Item = Clause>,
    sentence: String,
    prefix_query: bool,
) -> Decision {
    Decision::Deny(reasons(set, clauses, sentence, prefix_query))
}

pub(super) fn reasons(
    set: &PolicySet,
    clauses: impl IntoIterator<Item = Clause>,
    sentence: String,
    prefix_query: bool,
) -> Reasons {
    Reasons { prefix_query, clauses: clauses.into_iter().collect(), sentence, revision: set.revision().clone() }
}
