//! The `issuers` section: whose tokens are trusted, and what proves that a workload holds them.

use std::collections::{BTreeMap, HashSet};

use super::{checked::Check, raw};
use crate::{
    access::{IssuerName, WorkloadKind},
    identity::{Algorithm, ContextClaim, ContextMapping, Expect, IssuerConfig},
};

impl Check<'_> {
    pub(super) fn issuers(&mut self, issuers: &[raw::Issuer]) -> Vec<IssuerConfig> {
        if issuers.is_empty() {
            self.refuse("issuers", "no issuer is trusted, so no request could pass", "name at least one issuer");
        }
        let (mut names, mut urls) = (HashSet::new(), HashSet::new());
        let mut checked = Vec::new();
        for (index, issuer) in issuers.iter().enumerate() {
            let at = |key: &str| format!("issuers/{index}/{key}");
            if issuer.name.is_empty() || !names.insert(&issuer.name) {
                self.refuse(
                    &at("name"),
                    format!("the name `{}` is empty or taken", issuer.name),
                    "give each issuer a name of its own",
                );
            }
            if !urls.insert(&issuer.url) {
                let mend = "make the two issuers one, with both lists of audiences and clients";
                self.refuse(&at("url"), format!("another issuer has the url {} too", issuer.url), mend);
            }
            self.endpoint(&at("url"), &issuer.url);
            self.proof(index, issuer);
            let algorithms = self.algorithms(index, issuer);
            checked.push(issuer_config(issuer, algorithms));
        }
        checked
    }

    /// Nothing is a workload's token by default: the profile or the rules must be able to prove it.
    fn proof(&mut self, index: usize, issuer: &raw::Issuer) {
        let at = |key: &str| format!("issuers/{index}/{key}");
        let held_by_client = issuer.kind == WorkloadKind::Cognito && !issuer.clients.is_empty();
        if issuer.audiences.is_empty() && !held_by_client {
            let mend = match issuer.kind {
                WorkloadKind::Cognito => "set `audiences` (resource binding), or `clients`",
                _ => "set `audiences` to what the issuer writes into `aud` for this gateway",
            };
            self.refuse(
                &at("name"),
                format!("issuer `{}` accepts no audience, so no token of it could pass", issuer.name),
                mend,
            );
        }
        if issuer.kind == WorkloadKind::Oidc && issuer.workload.is_empty() {
            let mend = "set `workload` to claims that only a workload's token has, such as `token_kind: workload`";
            self.refuse(&at("kind"), format!("issuer `{}` has no rule that proves a workload", issuer.name), mend);
        }
        if issuer.kind != WorkloadKind::Oidc && !(issuer.workload.is_empty() && issuer.human.is_empty()) {
            let mend = "leave `workload` and `human` out, or use `kind: oidc`";
            self.refuse(&at("kind"), format!("the profile `{}` has rules of its own", issuer.kind.as_str()), mend);
        }
    }

    /// The algorithms that are named; none when the profile's are to stand.
    fn algorithms(&mut self, index: usize, issuer: &raw::Issuer) -> Vec<Algorithm> {
        let mut known = Vec::new();
        for (i, name) in issuer.algorithms.iter().enumerate() {
            match Algorithm::ALL.into_iter().find(|algorithm| algorithm.as_str() == name) {
                Some(algorithm) => known.push(algorithm),
                None => {
                    let names = Algorithm::ALL.map(Algorithm::as_str).join(", ");
                    let message = format!("`{name}` is no accepted signature algorithm");
                    self.refuse(&format!("issuers/{index}/algorithms/{i}"), message, &format!("use some of {names}"));
                }
            }
        }
        known
    }
}

fn issuer_config(raw: &raw::Issuer, algorithms: Vec<Algorithm>) -> IssuerConfig {
    let mut config = IssuerConfig::new(IssuerName::new(raw.name.as_str()), raw.kind, raw.url.clone());
    let expect = |rules: &BTreeMap<String, String>| {
        rules
            .iter()
            .map(|(claim, value)| (claim.clone(), Expect::from(serde_json::Value::from(value.as_str()))))
            .collect()
    };
    config.audiences.clone_from(&raw.audiences);
    config.clients.clone_from(&raw.clients);
    if !algorithms.is_empty() {
        config.algorithms = algorithms;
    }
    config.workload = expect(&raw.workload);
    config.human = expect(&raw.human);
    config.client_claim.clone_from(&raw.client_claim);
    if let Some(shared) = raw.shared {
        config.shared = shared;
    }
    if let Some(context) = &raw.context {
        config.context = context_mapping(context);
    }
    if let Some(leeway) = raw.leeway {
        config.leeway = leeway;
    }
    if let Some(claim) = &raw.subject_claim {
        config.subject_claim.clone_from(claim);
    }
    if let Some(staleness) = raw.max_staleness {
        config.max_staleness = staleness;
    }
    config
}

fn context_mapping(context: &BTreeMap<raw::ContextFact, raw::ContextClaim>) -> ContextMapping {
    let claim = |fact: raw::ContextFact| {
        context.get(&fact).map(|claim| ContextClaim { claim: claim.claim.clone().into(), assurance: claim.assurance })
    };
    ContextMapping {
        execution: claim(raw::ContextFact::Execution),
        state: claim(raw::ContextFact::State),
        entered: claim(raw::ContextFact::Entered),
        attempt: claim(raw::ContextFact::Attempt),
        redrive: claim(raw::ContextFact::Redrive),
        item: claim(raw::ContextFact::Item),
    }
}
