//! Secrets are in no text that leaves the process, nor in any that its own types can be made to print.

use std::fmt::Debug;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;
use stepgate::{
    config,
    dev::cosmos::{Effect, Fault, On, WELL_KNOWN_KEY},
    exchange::{AccountKey, KeySource, ToSign},
    secret::Secret,
};

use crate::rig::{ADMIN_TOKEN, Rig};

const ITEM: &str = "/dbs/shop/colls/orders/docs/o-1001";

/// Whatever a secret may look like once it is printed.
fn forms(secret: &str) -> Vec<String> {
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    let list = |bytes: &[u8]| bytes.iter().take(12).map(u8::to_string).collect::<Vec<_>>().join(", ");
    let escaped: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let mut forms = vec![secret.to_owned(), hex, list(secret.as_bytes()), escaped, STANDARD.encode(secret)];
    // A key also exists as the bytes that it encodes.
    forms.extend(STANDARD.decode(secret).ok().filter(|bytes| bytes.len() > 16).map(|bytes| list(&bytes)));
    forms
}

/// What resource tokens and signatures look like, whosever they are.
const TELLTALES: [&str; 4] = ["type=resource", "type%3Dresource", "type=master", "type%3Dmaster"];

fn assert_silent(what: &str, text: &str, secrets: &[&str]) {
    for secret in secrets {
        for form in forms(secret) {
            assert!(!text.contains(&form), "{what} tells {form}");
        }
    }
    for telltale in TELLTALES {
        assert!(!text.contains(telltale), "{what} tells {telltale}");
    }
}

/// Both forms of `Debug`; line breaks and blanks do not hide a list.
fn printed(value: &impl Debug) -> String {
    let pretty = format!("{value:#?}");
    format!("{value:?}\n{}", pretty.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[test]
fn the_forms_are_found_where_they_are() {
    #[derive(Debug)]
    #[allow(dead_code, reason = "it is printed")]
    struct Leaky {
        text: &'static str,
        bytes: Vec<u8>,
    }
    let leaky = Leaky { text: WELL_KNOWN_KEY, bytes: STANDARD.decode(WELL_KNOWN_KEY).unwrap() };
    let text = printed(&leaky);
    assert!(forms(WELL_KNOWN_KEY).iter().filter(|form| text.contains(*form)).count() >= 2, "{text}");
}

#[test]
fn secrets_do_not_print() {
    let secret = Secret::new(WELL_KNOWN_KEY.to_owned());
    let source = |field: Option<&str>, value: &str| KeySource::Env {
        variable: "KEY".into(),
        value: Secret::new(value.to_owned()),
        field: field.map(str::to_owned),
    };
    let key = AccountKey::from_base64(WELL_KNOWN_KEY).unwrap();
    let signed = ToSign { method: &http::Method::GET, resource_type: "dbs", link: "dbs/d", date: "now" };
    let authorization = signed.authorization(&key);
    let signature = signed.signature(&key);
    for (what, text) in [
        ("Secret", printed(&secret)),
        ("AccountKey", printed(&key)),
        ("KeySource", printed(&source(None, WELL_KNOWN_KEY))),
        ("KeySource as text", source(Some("field"), WELL_KNOWN_KEY).to_string()),
        ("ToSign", printed(&signed)),
        ("a signed header", printed(&authorization)),
        ("NotAKey", printed(&AccountKey::from_base64(&format!("{WELL_KNOWN_KEY}!")).unwrap_err())),
    ] {
        assert_silent(what, &text, &[WELL_KNOWN_KEY, &signature]);
    }
}

/// A gateway that has seen every secret, printed as a whole: whatever a field deep inside holds, it must not print it.
#[tokio::test]
async fn a_gateway_at_work_does_not_print_what_it_knows() {
    let rig = Rig::start().await;
    let jwt = rig.token("fulfilment");
    let read = || rig.call("GET", ITEM).of_task().bearer(&jwt).send();
    read().await.expect(200);
    rig.cosmos().expire_tokens();
    read().await.expect(200);
    let [primary, secondary] = rig.cosmos().keys();
    let rotated = rig.cosmos().rotate_key().unwrap();
    std::fs::write(rig.file("config/emulator-account-key"), rotated.expose()).unwrap();
    read().await.expect(200);
    // What fails is remembered, too.
    rig.cosmos()
        .add_fault(Fault::once(Effect::Any { status: 403, substatus: Some(5300) }).times(10).on(On::Permissions));
    rig.task("tenants", "GET", ITEM).partition("t1").send().await.refused(503, "credential.unavailable");
    rig.call("GET", ITEM).of_task().bearer(&format!("{jwt}x")).send().await.refused(401, "identity.invalid_token");

    let signature = jwt.rsplit_once('.').unwrap().1;
    let secrets = [primary.expose(), secondary.expose(), rotated.expose(), ADMIN_TOKEN, signature];
    let server: &stepgate::server::Server = &rig.server;
    let text = printed(server);
    assert!(
        text.contains("ResourceToken") && text.contains("AccountKey"),
        "what holds secrets is printed: {}",
        text.len()
    );
    assert_silent("the server", &text, &secrets);
    for path in ["/status", "/readyz", "/metrics"] {
        assert_silent(path, &rig.admin("GET", path, None).await.1, &secrets);
    }
    let records =
        std::fs::read_dir(rig.log()).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    for file in records {
        assert_silent(&file.display().to_string(), &String::from_utf8_lossy(&std::fs::read(&file).unwrap()), &secrets);
    }
}

#[test]
fn a_configuration_does_not_print_the_secrets_it_holds() {
    let home = tempfile::tempdir().unwrap();
    let mut written = crate::rig::unpack(home.path());
    let env = json!({"kind": "env", "variable": "CANARY"});
    written.raw.cosmos.credential =
        serde_json::from_value(json!({"kind": "resource_token", "account_key": env})).unwrap();
    let environment = [("CANARY".to_owned(), WELL_KNOWN_KEY.to_owned())];
    let loaded = config::settle(&written, &environment).unwrap();
    assert_silent("the configuration", &printed(&loaded.config), &[WELL_KNOWN_KEY, ADMIN_TOKEN]);
}
