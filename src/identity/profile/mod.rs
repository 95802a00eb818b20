//! Workload or human: which claims prove it, per kind of issuer.
//!
//! A signature says who issued a token and nothing about who holds it. Here a token is taken for a workload's only on
//! positive proof by its issuer's profile; everything else is refused as human, and the refusal names the claim that
//! decided. The profiles are data (`table`), and this page is all that reads them; `docs/identity.md` says how to set up
//! each issuer.

mod sign;
mod table;

#[cfg(test)]
mod page;

use std::sync::Arc;

use serde_json::Value;

pub use sign::{Part, Test};
pub(super) use table::Profile;

use super::{
    config::IssuerConfig,
    error::{Proof, Reason},
    verify::VerifiedClaims,
};
use crate::access::{Claims, WorkloadKind};

/// Who a token proves to be asking.
#[derive(Debug)]
pub(super) struct Workload {
    /// The issuer's identifier for the workload.
    pub(super) id: Arc<str>,
    /// The OAuth client.
    pub(super) client: Option<Arc<str>>,
}

/// The workload that `verified` proves, or what is missing from the proof.
pub(super) fn prove(verified: &VerifiedClaims, issuer: &IssuerConfig) -> Result<Workload, Reason> {
    let (claims, profile) = (verified.claims(), Profile::of(issuer.kind));
    match issuer.kind {
        WorkloadKind::Oidc => by_rules(claims, issuer)?,
        _ => by_profile(claims, profile)?,
    }
    let client = client(claims, issuer, profile)?;
    if !issuer.clients.is_empty() && !client.as_deref().is_some_and(|client| listed(&issuer.clients, client)) {
        return Err(Reason::WrongClient);
    }
    let id = text(claims, &issuer.subject_claim)?;
    let id = id.ok_or_else(|| Reason::MissingClaim(issuer.subject_claim.clone()))?;
    Ok(Workload { id, client })
}

fn by_profile(claims: &Claims, profile: &Profile) -> Result<(), Reason> {
    if let Some(sign) = profile.human.iter().find(|sign| sign.holds(claims)) {
        return Err(Reason::Human { claim: sign.claim.to_owned() });
    }
    match profile.workload.iter().find(|sign| !sign.holds(claims)) {
        Some(sign) => Err(Reason::NotProven { claim: sign.claim.to_owned(), expected: Proof::Profile(sign.test) }),
        None => Ok(()),
    }
}

fn by_rules(claims: &Claims, issuer: &IssuerConfig) -> Result<(), Reason> {
    if let Some((claim, _)) = issuer.human.iter().find(|(claim, rule)| rule.holds(claims.get(claim))) {
        return Err(Reason::Human { claim: claim.clone() });
    }
    if issuer.workload.is_empty() {
        return Err(Reason::NoWorkloadRules);
    }
    match issuer.workload.iter().find(|(claim, rule)| !rule.holds(claims.get(claim))) {
        Some((claim, rule)) => Err(Reason::NotProven { claim: claim.clone(), expected: Proof::Rule(rule.clone()) }),
        None => Ok(()),
    }
}

fn listed(clients: &[String], client: &str) -> bool {
    clients.iter().any(|accepted| accepted == client)
}

fn client(claims: &Claims, issuer: &IssuerConfig, profile: &Profile) -> Result<Option<Arc<str>>, Reason> {
    if let Some(configured) = &issuer.client_claim {
        return text(claims, configured);
    }
    for claim in profile.client {
        if let Some(client) = text(claims, claim)? {
            return Ok(Some(client));
        }
    }
    Ok(None)
}

/// A claim that is absent or a text that is not empty.
fn text(claims: &Claims, name: &str) -> Result<Option<Arc<str>>, Reason> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) if !text.is_empty() => Ok(Some(text.as_str().into())),
        Some(_) => Err(Reason::MalformedClaim { claim: name.to_owned(), expected: "a text" }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{access::IssuerName, identity::Expect};

    /// The workload's id and client, or the claim that decided against it.
    fn proof(issuer: &IssuerConfig, claims: Value) -> Result<(String, Option<String>), String> {
        let Value::Object(claims) = claims else { panic!("claims are an object") };
        match prove(&VerifiedClaims::for_test(Claims::new(claims)), issuer) {
            Ok(workload) => Ok((workload.id.to_string(), workload.client.map(|client| client.to_string()))),
            Err(Reason::Human { claim }) => Err(format!("human by {claim}")),
            Err(Reason::NotProven { claim, .. }) => Err(format!("not proven by {claim}")),
            Err(other) => Err(other.to_string()),
        }
    }

    fn issuer(kind: WorkloadKind) -> IssuerConfig {
        IssuerConfig::new(IssuerName::new("issuer"), kind, "https://issuer.test".to_owned())
    }

    /// `base` with `changes`; a change to `null` takes the claim away.
    fn changed(base: &Value, changes: Value) -> Value {
        let mut claims = base.clone();
        for (name, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
                value => claims[name] = value.clone(),
            }
        }
        claims
    }

    #[test]
    fn explicit_rules_prove_only_what_they_say() {
        let mut issuer = issuer(WorkloadKind::Oidc);
        let base = json!({"sub": "w", "azp": "w1", "token_kind": "workload", "roles": ["machine", "writer"]});
        assert_eq!(proof(&issuer, base.clone()), Err(Reason::NoWorkloadRules.to_string()));
        issuer.workload.insert("token_kind".into(), Expect::from(json!("workload")));
        issuer.workload.insert("roles".into(), Expect::from(json!("machine")));
        issuer.human.insert("email".into(), Expect::from(json!("*")));
        issuer.human.insert("roles".into(), Expect::from(json!("person")));
        assert_eq!(proof(&issuer, base.clone()), Ok(("w".into(), Some("w1".into()))));
        for (change, decided) in [
            (json!({"email": "jo@example.test"}), "human by email"),
            (json!({"email": ""}), "human by email"),
            (json!({"roles": ["machine", "person"]}), "human by roles"),
            (json!({"roles": []}), "not proven by roles"),
            (json!({"token_kind": "human"}), "not proven by token_kind"),
            (json!({"token_kind": null}), "not proven by token_kind"),
            (json!({"token_kind": true}), "not proven by token_kind"),
        ] {
            assert_eq!(proof(&issuer, changed(&base, change.clone())), Err(decided.into()), "{change}");
        }
        assert!(proof(&issuer, changed(&base, json!({"sub": null}))).unwrap_err().contains("`sub`"));
        assert!(proof(&issuer, changed(&base, json!({"sub": ""}))).unwrap_err().contains("`sub`"));
        assert!(proof(&issuer, changed(&base, json!({"azp": 7}))).unwrap_err().contains("`azp`"));
    }

    #[test]
    fn subject_and_client_come_from_the_configured_claims() {
        let issuer = IssuerConfig {
            workload: [("sub".to_owned(), Expect::Present)].into(),
            subject_claim: "oid".into(),
            client_claim: Some("appid".into()),
            clients: vec!["app".into()],
            ..issuer(WorkloadKind::Oidc)
        };
        let base = json!({"sub": "pairwise", "oid": "object", "appid": "app", "client_id": "ignored"});
        assert_eq!(proof(&issuer, base.clone()), Ok(("object".into(), Some("app".into()))));
        let refused = Err(Reason::WrongClient.to_string());
        assert_eq!(proof(&issuer, changed(&base, json!({"appid": null}))), refused);
    }
}
