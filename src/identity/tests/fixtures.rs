//! Tokens as nine kinds of issuers write them: `fixtures.yaml`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    super::{Expect, IssuerConfig},
    bearer, is_golden,
    notary::{self, NOW},
    present, reason, word,
};
use crate::access::{IssuerName, WorkloadKind};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fixtures {
    issuers: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    issuer: Issuer,
    base: Map<String, Value>,
    tokens: Vec<Token>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Issuer {
    kind: WorkloadKind,
    name: Option<String>,
    url: String,
    #[serde(default)]
    audiences: Vec<String>,
    #[serde(default)]
    clients: Vec<String>,
    #[serde(default)]
    workload: BTreeMap<String, Value>,
    #[serde(default)]
    human: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    name: String,
    verdict: String,
    #[serde(default)]
    with: Map<String, Value>,
}

impl Issuer {
    fn config(&self) -> IssuerConfig {
        let rules = |rules: &BTreeMap<String, Value>| {
            rules.iter().map(|(claim, value)| (claim.clone(), Expect::from(value.clone()))).collect()
        };
        let name = IssuerName::new(self.name.as_deref().unwrap_or(self.kind.as_str()));
        IssuerConfig {
            audiences: self.audiences.clone(),
            clients: self.clients.clone(),
            workload: rules(&self.workload),
            human: rules(&self.human),
            ..IssuerConfig::new(name, self.kind, self.url.clone())
        }
    }
}

/// `base` with `changes`, member by member; `null` takes a member away.
fn change(base: &mut Map<String, Value>, changes: &Map<String, Value>) {
    for (name, value) in changes {
        match (base.get_mut(name), value) {
            (_, Value::Null) => drop(base.remove(name)),
            (Some(Value::Object(inner)), Value::Object(changes)) => change(inner, changes),
            (_, value) => drop(base.insert(name.clone(), value.clone())),
        }
    }
}

#[tokio::test]
async fn every_kind_of_issuer_lets_workloads_pass_and_nobody_else() {
    let fixtures: Fixtures = serde_saphyr::from_str(include_str!("fixtures.yaml")).unwrap();
    let (room, _) = notary::room(fixtures.issuers.iter().map(|group| group.issuer.config()).collect());
    let mut table = String::new();
    let (mut count, mut wrong) = (0, Vec::new());
    for group in &fixtures.issuers {
        let config = group.issuer.config();
        table.push_str(&format!("{}\n", config.name));
        for token in &group.tokens {
            let mut claims = group.base.clone();
            for (name, value) in [("iss", json!(config.url)), ("iat", json!(NOW - 60)), ("exp", json!(NOW + 300))] {
                claims.insert(name.to_owned(), value);
            }
            change(&mut claims, &token.with);
            let verdict = present(&room, &bearer(&notary::token(&Value::Object(claims)))).await;
            if word(&verdict) != token.verdict {
                wrong.push(format!("{}, {}: {}", config.name, token.name, reason(&verdict)));
            }
            table.push_str(&format!("  {:<9} {}\n            {}\n", token.verdict, token.name, reason(&verdict)));
            count += 1;
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(count >= 80, "{count} tokens");
    is_golden("identity-fixtures.txt", &table);
}

#[test]
fn every_kind_has_fixtures_of_each_verdict() {
    let fixtures: Fixtures = serde_saphyr::from_str(include_str!("fixtures.yaml")).unwrap();
    for kind in ["oidc", "cognito", "entra", "auth0", "okta", "keycloak", "aws-sts", "kubernetes", "github"] {
        for verdict in ["workload", "human", "invalid"] {
            let groups = fixtures.issuers.iter().filter(|group| group.issuer.kind.as_str() == kind);
            let found = groups.flat_map(|group| &group.tokens).any(|token| token.verdict == verdict);
            assert!(found, "{kind}: {verdict}");
        }
    }
}
