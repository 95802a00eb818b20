//! Labels, and the bound on what callers and policy files can put into them.

use std::{
    collections::HashSet,
    sync::{Arc, PoisonError, RwLock},
};

use prometheus_client::encoding::EncodeLabelSet;

/// The labels of a finished request.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct RequestLabels {
    /// The operation's word, or `-` when the request was refused before it was known.
    pub operation: &'static str,
    /// `database/container`, or `-` when nothing on it was granted.
    pub container: Arc<str>,
    /// `allow`, `deny` or `reject`.
    pub decision: &'static str,
    /// The status answered.
    pub status: u16,
}

/// The labels of a finished request's duration.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct DurationLabels {
    /// As of [`RequestLabels`].
    pub operation: &'static str,
    /// As of [`RequestLabels`].
    pub container: Arc<str>,
}

/// The labels of a request that a clause decided.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct ClauseLabels {
    /// The grant that a binding gave, or the deny: `order-writer (shop.yaml:4)`; `other` once there are many.
    pub clause: Arc<str>,
    /// `2xx`, `3xx`, `4xx` or `5xx`.
    pub class: &'static str,
}

/// The label of a binding.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct BindingLabel {
    /// Its role and place, such as `order-writer (shop.yaml:31)`; `other` once there are many.
    pub binding: Arc<str>,
}

/// The labels of request units.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct UnitsLabels {
    /// The operation's word.
    pub operation: &'static str,
    /// `issuer/client`, or `issuer/subject` where the issuer names no client; `other` once there are many.
    pub workload: Arc<str>,
}

/// The labels of attempts at Cosmos.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct AttemptLabels {
    /// The region, or `account` for the account's own endpoint.
    pub region: String,
    /// `good`, or `bad` where it spoke against the region.
    pub result: &'static str,
}

/// The label of a region.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct RegionLabel {
    /// The region, or `account`.
    pub region: String,
}

/// The label of a container.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct ContainerLabel {
    /// `database/container`; `other` once there are many.
    pub container: Arc<str>,
}

/// The label of a retry.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct CauseLabel {
    /// The row of the table of retries.
    pub cause: &'static str,
}

/// The label of an issuer.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct IssuerLabel {
    /// The issuer's configured name.
    pub issuer: String,
}

/// The label of an anchor of the audit log.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct AnchorLabel {
    /// Its kind and place.
    pub anchor: String,
}

/// The label of a dependency.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct DependencyLabel {
    /// Its name in `/readyz`.
    pub dependency: String,
}

/// The label of a policy revision.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct RevisionLabel {
    /// As audit records carry it.
    pub revision: String,
}

/// The label of what can go well or not.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct ResultLabel {
    /// Such as `applied` or `rejected`.
    pub result: &'static str,
}

/// The label of an exemplar.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
pub struct TraceLabel {
    /// The trace's id.
    pub trace_id: String,
}

/// Names that have series of their own, up to a number; the rest share one. A container or a workload can be new at any
/// time, and the places of clauses move whenever files are edited, so without this there would be no end of them.
#[derive(Debug, Default)]
pub(super) struct Names(RwLock<HashSet<Arc<str>>>);

impl Names {
    /// How many names have series of their own.
    const MOST: usize = 200;

    /// The name, or `other`.
    pub(super) fn bound(&self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Arc::clone(known);
        }
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() < Self::MOST || known.contains(name) {
            let name = Arc::<str>::from(name);
            known.insert(Arc::clone(&name));
            return name;
        }
        "other".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beyond_the_bound_share_a_series() {
        let names = Names::default();
        let given: Vec<_> = (0..1_000).map(|i| names.bound(&i.to_string())).collect();
        assert_eq!((&*given[0], &*given[199], &*given[200], &*given[999]), ("0", "199", "other", "other"));
        assert_eq!(&*names.bound("7"), "7", "who was known stays known");
    }
}
