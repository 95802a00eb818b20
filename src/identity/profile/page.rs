//! The tables of `docs/identity.md`, made from the profiles. `UPDATE_GOLDEN=1` writes them anew.

use std::fmt::Write as _;

use super::{Profile, sign::Sign};
use crate::{access::WorkloadKind, identity::ContextClaim};

const KINDS: [WorkloadKind; 8] = [
    WorkloadKind::Cognito,
    WorkloadKind::Entra,
    WorkloadKind::Auth0,
    WorkloadKind::Okta,
    WorkloadKind::Keycloak,
    WorkloadKind::AwsSts,
    WorkloadKind::Kubernetes,
    WorkloadKind::Github,
];

fn table(profile: &Profile) -> String {
    let signs = |signs: &[Sign]| {
        let signs: Vec<_> = signs.iter().map(|sign| format!("`{}` {}", sign.claim, sign.test)).collect();
        if signs.is_empty() { "-".to_owned() } else { signs.join(" · ") }
    };
    let algorithms: Vec<_> = profile.algorithms.iter().map(|algorithm| algorithm.as_str()).collect();
    let client: Vec<_> = profile.client.iter().map(|claim| format!("`{claim}`")).collect();
    let mut text = String::from("| | |\n|---|---|\n");
    let rows = [
        ("any one refuses", signs(profile.human)),
        ("all must hold", signs(profile.workload)),
        ("client", if client.is_empty() { "-".to_owned() } else { client.join(", else ") }),
        ("algorithms", algorithms.join(" ")),
        ("context", context(profile)),
    ];
    for (name, value) in rows {
        writeln!(text, "| {name} | {value} |").unwrap();
    }
    text
}

fn context(profile: &Profile) -> String {
    let mapping = &profile.context;
    let facts: [(&str, &Option<ContextClaim>); 6] = [
        ("execution", &mapping.execution),
        ("state", &mapping.state),
        ("entered", &mapping.entered),
        ("attempt", &mapping.attempt),
        ("redrive", &mapping.redrive),
        ("item", &mapping.item),
    ];
    let told = facts.iter().filter_map(|(fact, claim)| Some((fact, claim.as_ref()?)));
    let told: Vec<_> =
        told.map(|(fact, claim)| format!("{fact} `{}` ({})", claim.claim, claim.assurance.as_str())).collect();
    if told.is_empty() { "-".to_owned() } else { told.join(" · ") }
}

#[test]
fn the_page_says_what_the_profiles_are() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/identity.md");
    let written = std::fs::read_to_string(path).unwrap();
    let mut page = written.clone();
    for kind in KINDS {
        let heading = format!("### `{}`", kind.as_str());
        let (before, section) = page.split_once(&heading).unwrap_or_else(|| panic!("{heading} is missing"));
        let (text, old) = section.split_once("| | |\n").unwrap_or_else(|| panic!("{heading} has no table"));
        let (_, after) = old.split_once("\n\n").unwrap();
        page = format!("{before}{heading}{text}{}\n{after}", table(Profile::of(kind)));
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    assert!(page == written || std::env::var_os("UPDATE_GOLDEN").is_some(), "docs/identity.md is old");
}
