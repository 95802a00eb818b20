//! Workload or human: which claims prove it, per kind of issuer.
//!
//! A signature says who issued a token and nothing about who holds it. Here a token is taken for a workload's only on
//! positive proof by its issuer's profile; everything else is refused as human, and the refusal names the claim that
//! decided. The profiles are data from each issuer's own documentation.

use std::sync::Arc;

use serde_json::Value;

use super::{
    config::{Expect, IssuerConfig},
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

/// Claims that Cognito writes for people alone. A client-credentials token has neither a user nor a sign-in to tell of.
/// <https://docs.aws.amazon.com/cognito/latest/developerguide/amazon-cognito-user-pools-using-the-access-token.html>
const COGNITO_HUMAN_CLAIMS: [&str; 4] = ["username", "cognito:username", "cognito:groups", "origin_jti"];

/// Scopes that Cognito grants to people alone: a client-credentials grant has custom scopes only.
const COGNITO_HUMAN_SCOPES: [&str; 5] = ["openid", "aws.cognito.signin.user.admin", "profile", "email", "phone"];

/// Where AWS STS puts what it knows of the session, and what in it tells of a person behind a role: IAM Identity Center,
/// or a federated sign-in.
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_providers_outbound_token_claims.html>
const AWS_SESSION: &str = "/https:~1~1sts.amazonaws.com~1";
const AWS_HUMAN_CLAIMS: [&str; 3] = ["identity_store_user_id", "identity_store_arn", "federated_provider"];

/// The path of the roles that IAM Identity Center makes for people.
const AWS_HUMAN_ROLES: &str = "aws-reserved/sso.amazonaws.com/";

/// The workload that `verified` proves, or what is missing from the proof.
pub(super) fn prove(verified: &VerifiedClaims, issuer: &IssuerConfig) -> Result<Workload, Reason> {
    let claims = verified.claims();
    match issuer.kind {
        WorkloadKind::Oidc => by_rules(claims, issuer)?,
        WorkloadKind::Cognito => cognito(claims)?,
        WorkloadKind::AwsSts => aws_sts(claims)?,
    }
    let client = client(claims, issuer)?;
    if !issuer.clients.is_empty() && !client.as_deref().is_some_and(|client| listed(&issuer.clients, client)) {
        return Err(Reason::WrongClient);
    }
    let id = text(claims, &issuer.subject_claim)?;
    let id = id.ok_or_else(|| Reason::MissingClaim(issuer.subject_claim.clone()))?;
    Ok(Workload { id, client })
}

fn listed(clients: &[String], client: &str) -> bool {
    clients.iter().any(|accepted| accepted == client)
}

fn client(claims: &Claims, issuer: &IssuerConfig) -> Result<Option<Arc<str>>, Reason> {
    match &issuer.client_claim {
        Some(configured) => text(claims, configured),
        None => match text(claims, "client_id")? {
            None => text(claims, "azp"),
            found => Ok(found),
        },
    }
}

/// A claim that is absent or a text that is not empty.
fn text(claims: &Claims, name: &str) -> Result<Option<Arc<str>>, Reason> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) if !text.is_empty() => Ok(Some(text.as_str().into())),
        Some(_) => Err(Reason::MalformedClaim { claim: name.to_owned(), expected: "a text" }),
    }
}

fn by_rules(claims: &Claims, issuer: &IssuerConfig) -> Result<(), Reason> {
    if let Some((claim, _)) = issuer.human.iter().find(|(claim, rule)| rule.holds(claims.get(claim))) {
        return Err(human(claim));
    }
    if issuer.workload.is_empty() {
        return Err(Reason::NoWorkloadRules);
    }
    match issuer.workload.iter().find(|(claim, rule)| !rule.holds(claims.get(claim))) {
        Some((claim, rule)) => Err(Reason::NotProven { claim: claim.clone(), expected: Proof::Rule(rule.clone()) }),
        None => Ok(()),
    }
}

fn cognito(claims: &Claims) -> Result<(), Reason> {
    if let Some(claim) = COGNITO_HUMAN_CLAIMS.into_iter().find(|claim| claims.as_map().contains_key(*claim)) {
        return Err(human(claim));
    }
    let mut scopes = claims.text("scope").unwrap_or_default().split(' ');
    if scopes.any(|scope| COGNITO_HUMAN_SCOPES.contains(&scope)) {
        return Err(human("scope"));
    }
    expect(claims, "token_use", Expect::Is("access".into()))?;
    expect(claims, "client_id", Expect::Present)
}

fn aws_sts(claims: &Claims) -> Result<(), Reason> {
    let Some(Value::Object(session)) = claims.get(AWS_SESSION) else {
        return not_proven(AWS_SESSION, "the session that AWS STS describes");
    };
    if let Some(claim) = AWS_HUMAN_CLAIMS.into_iter().find(|claim| session.contains_key(*claim)) {
        return Err(human(&format!("{AWS_SESSION}/{claim}")));
    }
    match claims.text("sub").and_then(role_of) {
        Some(role) if role.starts_with(AWS_HUMAN_ROLES) => Err(human("sub")),
        Some(_) => Ok(()),
        None => not_proven("sub", "the ARN of an IAM role (arn:aws:iam::ACCOUNT:role/NAME)"),
    }
}

/// Path and name of the role whose ARN this is.
fn role_of(arn: &str) -> Option<&str> {
    let mut parts = arn.splitn(6, ':');
    let (Some("arn"), Some(partition), Some("iam"), Some(""), Some(account), Some(resource)) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    let is_account = account.len() == 12 && account.bytes().all(|digit| digit.is_ascii_digit());
    let role = resource.strip_prefix("role/")?;
    (is_account && partition.starts_with("aws") && !role.is_empty()).then_some(role)
}

fn expect(claims: &Claims, claim: &str, rule: Expect) -> Result<(), Reason> {
    if rule.holds(claims.get(claim)) {
        Ok(())
    } else {
        Err(Reason::NotProven { claim: claim.to_owned(), expected: Proof::Rule(rule) })
    }
}

fn human(claim: &str) -> Reason {
    Reason::Human { claim: claim.to_owned() }
}

fn not_proven(claim: &str, expected: &'static str) -> Result<(), Reason> {
    Err(Reason::NotProven { claim: claim.to_owned(), expected: Proof::Profile(expected) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::access::IssuerName;

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
    fn cognito_proves_a_workload_by_what_only_clients_have() {
        // After the sample of a client-credentials token in the developer guide.
        let base = json!({"sub": "7h2k", "client_id": "7h2k", "token_use": "access", "scope": "shop/orders.write",
            "auth_time": 1_676_312_777, "version": 2, "jti": "a1"});
        let issuer = issuer(WorkloadKind::Cognito);
        assert_eq!(proof(&issuer, base.clone()), Ok(("7h2k".into(), Some("7h2k".into()))));
        for (change, decided) in [
            (json!({"username": "jo"}), "human by username"),
            (json!({"cognito:username": "jo"}), "human by cognito:username"),
            (json!({"cognito:groups": []}), "human by cognito:groups"),
            (json!({"origin_jti": "o"}), "human by origin_jti"),
            (json!({"scope": "shop/orders.write openid"}), "human by scope"),
            (json!({"scope": "aws.cognito.signin.user.admin"}), "human by scope"),
            (json!({"token_use": "id"}), "not proven by token_use"),
            (json!({"token_use": null}), "not proven by token_use"),
            (json!({"client_id": null}), "not proven by client_id"),
        ] {
            assert_eq!(proof(&issuer, changed(&base, change.clone())), Err(decided.into()), "{change}");
        }
        let narrowed = IssuerConfig { clients: vec!["other".into()], ..issuer };
        assert_eq!(proof(&narrowed, base), Err(Reason::WrongClient.to_string()));
    }

    #[test]
    fn aws_sts_proves_a_workload_by_its_role() {
        let session =
            |more: Value| changed(&json!({"aws_account": "111122223333", "source_region": "us-east-1"}), more);
        let named = |role: &str| json!({"sub": role, "https://sts.amazonaws.com/": session(json!({}))});
        let issuer = issuer(WorkloadKind::AwsSts);
        let role = "arn:aws:iam::111122223333:role/Fulfilment";
        assert_eq!(proof(&issuer, named(role)), Ok((role.into(), None)));
        for role in ["arn:aws:iam::111122223333:role/service/Fulfilment", "arn:aws-cn:iam::111122223333:role/F"] {
            assert_eq!(proof(&issuer, named(role)), Ok((role.into(), None)));
        }
        for (sub, decided) in [
            ("arn:aws:iam::111122223333:user/jo", "not proven by sub"),
            ("arn:aws:iam::111122223333:root", "not proven by sub"),
            ("arn:aws:sts::111122223333:assumed-role/F/s", "not proven by sub"),
            ("arn:aws:iam::1111:role/F", "not proven by sub"),
            ("arn:aws:iam::111122223333:role/", "not proven by sub"),
            ("arn:evil:iam::111122223333:role/F", "not proven by sub"),
            ("arn:aws:iam:us-east-1:111122223333:role/F", "not proven by sub"),
            (
                "arn:aws:iam::111122223333:role/aws-reserved/sso.amazonaws.com/eu-west-1/AWSReservedSSO_A_1",
                "human by sub",
            ),
        ] {
            assert_eq!(proof(&issuer, named(sub)), Err(decided.into()), "{sub}");
        }
        for claim in AWS_HUMAN_CLAIMS {
            let claims = json!({"sub": role, "https://sts.amazonaws.com/": session(json!({claim: "x"}))});
            assert_eq!(proof(&issuer, claims), Err(format!("human by {AWS_SESSION}/{claim}")));
        }
        assert_eq!(proof(&issuer, json!({"sub": role})), Err(format!("not proven by {AWS_SESSION}")));
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
