//! What is told of files that are wrong, or that deserve a look.

use super::{
    Config, KnownIssuer, PolicySet,
    decision::Revision,
    load::{self, Directory},
};
use crate::{
    access::IssuerName,
    diagnostic::{Diagnostic, Severity},
};

/// The policy of files that exist only here.
pub(super) fn build(files: &[(&str, &str)], issuers: Option<Vec<KnownIssuer>>) -> Result<PolicySet, Vec<Diagnostic>> {
    let files = files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    let directory = Directory::of("policies".as_ref(), files);
    let config = Config { directory: "policies".into(), issuers };
    load::build(&directory, Revision("sha256:test".into()), &config)
}

const WHOLE: &str = r#"{ container: shop/orders, operations: ["*"] }"#;

fn findings(text: &str, severity: Severity) -> Vec<String> {
    let issuers = vec![
        KnownIssuer { name: IssuerName::new("local"), shared: false },
        KnownIssuer { name: IssuerName::new("github"), shared: true },
    ];
    let findings = match build(&[("p.yaml", text)], Some(issuers)) {
        Ok(set) => set.warnings().to_vec(),
        Err(diagnostics) => diagnostics,
    };
    assert!(findings.iter().all(|finding| finding.line > 0 && finding.mend.is_some()), "{findings:?}");
    let of_severity = findings.into_iter().filter(|finding| finding.severity == severity);
    of_severity.map(|finding| format!("{}:{}: {}", finding.line, finding.column, finding.message)).collect()
}

#[test]
fn every_error_is_told_at_once_with_its_place() {
    let text = "\
roles:
  r:
    include: [other]
    grants:
      - container: shop
        operations: [items/red]
        mask: [card]
      - container: shop/orders
        partition_key: [\"{claims.a}-{claims.b}\"]
        operations: []
bindings:
  - role: absent
    workloads:
      - { issuer: nowhere, claims: { client_id: [] } }
      - { issuer: local, claims: {} }
      - { issuer: local, claims: { client_id: a*b }, state_machines: [Fulfil*] }
    limits: { requests_per_second: 0.5 }
deny:
  - { name: d, container: shop/orders, operations: [query], workloads: [] }
";
    let found = findings(text, Severity::Error);
    let expected = [
        "3:15: there is no role `other` to include",
        "5:20: `shop` is not a container",
        "6:22: `items/red` is not an operation",
        "7:16: `card` cannot be masked",
        "9:25: a template stands for a whole component",
        "10:21: an empty list means nothing",
        "12:11: there is no role `absent`",
        "14:19: there is no issuer `nowhere`",
        "14:49: an empty list means nothing",
        "15:34: an empty list of claims",
        "16:47: `*` may only end the value of a claim",
        "16:71: `Fulfil*` is not the ARN",
        "17:36: 0.5 is no limit",
        "19:72: an empty list means nothing",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found} should be {expected}");
    }
}

#[test]
fn unknown_keys_wrong_types_and_bad_syntax_are_errors() {
    for text in [
        "roels: {}\n",
        "roles: { r: { grants: [{ container: a/b, operations: [query], partitionKey: [x] }] } }\n",
        "roles: [r]\n",
        "bindings: [{ role: r, workloads: [{ issuer: local, assurance: sure }] }]\n",
        "deny: [{ name: d, container: a/b, operations: [query], workloads: everyone }]\n",
        "deny: [{ name: d, container: a/b, operations: [query] }]\n",
        "roles: {\n",
    ] {
        assert_eq!(findings(text, Severity::Error).len(), 1, "{text}");
    }
}

#[test]
fn a_binding_to_a_shared_issuer_pins_one_owner() {
    let with = |claims: &str| {
        findings(
            &format!(
                "roles: {{ r: {{ grants: [{WHOLE}] }} }}\nbindings: [{{ role: r, workloads: [{{ issuer: github{claims} }}] }}]\n\
                 deny: [{{ name: d, container: a/b, operations: [query], workloads: [{{ issuer: github }}] }}]\n"
            ),
            Severity::Error,
        )
    };
    for claims in [
        "",
        ", claims: { ref: refs/heads/main }",
        ", claims: { repository_owner: octo* }",
        ", claims: { repository_owner: [octo, other] }",
        ", claims: { repo_property_team: red }",
    ] {
        assert_eq!(with(claims).len(), 1, "{claims}");
    }
    for claims in
        [", claims: { repository_owner_id: \"65\", ref: refs/heads/* }", ", claims: { repository: [octo/shop] }"]
    {
        assert!(with(claims).is_empty(), "{claims}");
    }
}

#[test]
fn warnings_do_not_refuse_the_set() {
    let text = "\
roles:
  unused: { grants: [{ container: shop/orders, operations: [query] }] }
  denied: { grants: [{ container: shop/orders, operations: [items/delete] }] }
bindings:
  - role: denied
    workloads: [{ issuer: local, states: [Purge], assurance: signed }]
  - role: denied
    workloads: [{ issuer: local, states: [Purge], assurance: proven }]
deny:
  - { name: no-deletes, container: shop/*, operations: ['items/*'], workloads: all }
  - { name: in-purge, container: shop/*, operations: [query], workloads: all, states: [Purge] }
";
    let found = findings(text, Severity::Warning);
    let expected = [
        "2:11: nobody is bound to the role `unused`",
        "3:22: everything that this grant of `denied` allows is denied by `no-deletes`",
        "6:17: this rests on a fact that the caller can choose",
        "11:5: `in-purge` rests on a fact that the caller can choose",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for expected in expected {
        assert!(found.iter().any(|found| found.starts_with(expected)), "{expected} in {found:#?}");
    }
}

#[test]
fn an_empty_file_is_an_empty_policy() {
    for text in ["", "# nothing yet\n", "{}\n"] {
        assert!(build(&[("p.yaml", text)], None).is_ok(), "{text:?}");
    }
}
