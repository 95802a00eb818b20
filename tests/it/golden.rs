//! What people read, word for word. `UPDATE_GOLDEN=1 cargo test --test it golden` writes the files anew.

use std::{env, fs, path::PathBuf};

use serde_json::json;

use crate::{commands::run, rig::Rig};

/// Compares `text` with the committed file, or writes it.
#[track_caller]
pub(crate) fn is_golden(name: &str, text: &str) {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&file, text).unwrap();
    }
    let golden = fs::read_to_string(&file).unwrap_or_default();
    assert!(golden == text, "{} differs; it is now:\n{text}", file.display());
}

const BROKEN: &str = r#"listen: 0.0.0.0:8080
admin: 127.0.0.1:9090
issuers:
  - name: local
    kind: oidc
    url: http://issuer.example
    audiences: []
    algorithms: [RS256, HS256]
cosmos:
  endpoint: https://account.documents.azure.com/
  credential:
    kind: resource_token
    lifetime: 48h
    account_key: { kind: env, variable: NOT_SET_ANYWHERE }
policies: { directory: policies }
audit: { directory: audit }
limits: { concurrency: 0 }
"#;

const BROKEN_POLICY: &str = r#"roles:
  reader:
    grants:
      - { container: shop/orders, operations: [items/read] }
bindings:
  - role: raeder
    workloads: [{ issuer: local, claims: { client_id: c } }]
  - role: reader
    workloads: [{ issuer: elsewhere, claims: {} }]
"#;

#[test]
fn a_check_with_many_findings() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("policies")).unwrap();
    fs::write(home.path().join("policies/shop.yaml"), BROKEN_POLICY).unwrap();
    let file = home.path().join("stepgate.yaml");
    fs::write(&file, BROKEN).unwrap();
    let output = run(&["check", "--config", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(4));
    let text = String::from_utf8(output.stderr).unwrap() + &String::from_utf8(output.stdout).unwrap();
    is_golden("check.txt", &text.replace(home.path().to_str().unwrap(), "/etc/stepgate"));
}

#[test]
fn an_explained_denial() {
    let home = tempfile::tempdir().unwrap();
    let request = home.path().join("request.yaml");
    let text = "given: { issuer: local, claims: { client_id: fulfilment, tenant: t1 } }\n\
        when: { operation: items/read, container: shop/orders, partition_key: [t2] }\n";
    fs::write(&request, text).unwrap();
    let policies = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("policies");
    let arguments =
        ["policy", "explain", "--policies", policies.to_str().unwrap(), "--request", request.to_str().unwrap()];
    let text = String::from_utf8(run(&arguments).stdout).unwrap();
    let (text, _) = text.rsplit_once("policy ").unwrap();
    is_golden("explain.txt", &format!("{text}policy REVISION\n"));
}

const POLICY_BEFORE: &str = r#"roles:
  writer:
    grants:
      - { container: shop/orders, partition_key: ["{claims.tenant}"], operations: [items/read, items/upsert] }
bindings:
  - { role: writer, workloads: [{ issuer: local, claims: { client_id: [fulfilment, returns] } }] }
"#;

const POLICY_AFTER: &str = r#"roles:
  writer:
    grants:
      - { container: shop/orders, operations: [items/read, query] }
bindings:
  - { role: writer, workloads: [{ issuer: local, claims: { client_id: fulfilment } }] }
"#;

const LAX_CASES: &str = r#"cases:
  - name: fulfilment writes its own
    given: { issuer: local, claims: { client_id: fulfilment, tenant: t1 } }
    when: { operation: items/upsert, container: shop/orders, partition_key: [t1] }
    then: allow
"#;

#[test]
fn a_comparison_and_what_tests_overlook() {
    let home = tempfile::tempdir().unwrap();
    let side = |name: &str, text: &str| {
        let side = home.path().join(name);
        fs::create_dir(&side).unwrap();
        fs::write(side.join("shop.yaml"), text).unwrap();
        side.to_str().unwrap().to_owned()
    };
    let (base, head) = (side("base", POLICY_BEFORE), side("head", POLICY_AFTER));
    let printed = |arguments: &[&str], code| {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    is_golden("diff.md", &printed(&["policy", "diff", &base, &head, "--format", "markdown", "--fail-on-widening"], 4));
    is_golden("diff.txt", &printed(&["policy", "diff", &base, &head], 0));
    fs::write(home.path().join("base/shop.test.yaml"), LAX_CASES).unwrap();
    is_golden("mutate.txt", &printed(&["policy", "test", &base, "--mutate"], 4));
}

#[tokio::test]
async fn a_denial_in_each_form() {
    let rig = Rig::start().await;
    let mut text = String::new();
    for form in ["distinct", "cosmos", "envelope"] {
        let call = rig.call("GET", "/dbs/shop/colls/orders/docs/o-2001").token("fulfilment").partition("t2");
        let answer = call.header("x-stepgate-errors", form).send().await;
        let mut body = answer.json();
        body["requestId"] = json!("01a20500-0000-7000-8000-000000000000");
        text += &format!("{form}: {}\n{:#}\n\n", answer.status(), body);
    }
    is_golden("denial.txt", &text);
}
