use std::{fs, path::Path};

use ::http::StatusCode;
use serde_json::{Value, json};
use url::{Url, form_urlencoded};

use super::*;
use crate::{
    access::IssuerName,
    clock::ManualClock,
    exchange::scripted::{Reply, Scripted, Seen},
};

fn subject(id: &str) -> Subject {
    Subject { issuer: IssuerName::new("local"), id: id.into() }
}

fn granted(jwt: &str, expires_in: u64) -> Reply {
    let body = json!({ "token_type": "Bearer", "expires_in": expires_in, "access_token": jwt });
    Reply::new(StatusCode::OK).header("content-type", "application/json").body(body.to_string())
}

fn refused(code: i32) -> Reply {
    let body = json!({ "error": "invalid_client", "error_codes": [code], "error_description": "no" });
    Reply::new(StatusCode::UNAUTHORIZED).header("content-type", "application/json").body(body.to_string())
}

fn secret_of(directory: &Path) -> EntraIdentity {
    let path = directory.join("secret");
    fs::write(&path, "s3cret\n").unwrap();
    EntraIdentity::ClientSecret {
        tenant_id: "tenant".into(),
        client_id: "gateway".into(),
        secret: SecretSource::File { path },
    }
}

fn federated(assertion: AssertionSource) -> EntraIdentity {
    EntraIdentity::Federated { tenant_id: "tenant".into(), client_id: "gateway".into(), assertion }
}

fn entra(server: &Scripted, identity: EntraIdentity) -> (Entra, ManualClock) {
    let hand = ManualClock::new(Timestamp::from_secs(1_795_375_762));
    let config = EntraConfig {
        endpoint: server.url().clone(),
        authority: server.url().clone(),
        scope: "https://cosmos.azure.com/.default".into(),
        identity,
    };
    (Entra::new(config, Transport::new(None).unwrap(), Clock::Manual(hand.clone())), hand)
}

fn form(seen: &Seen) -> Vec<(String, String)> {
    form_urlencoded::parse(&seen.body).into_owned().collect()
}

fn parameter(seen: &Seen, name: &str) -> Option<String> {
    form(seen).into_iter().find(|(n, _)| n == name).map(|(_, value)| value)
}

#[tokio::test]
async fn a_secret_is_traded_for_a_token_and_the_token_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let server = Scripted::start(|_| granted("h.p.s", 3_600)).await;
    let (entra, _) = entra(&server, secret_of(directory.path()));
    for id in ["w1", "w2"] {
        let token = entra.token(&subject(id), None).await.unwrap();
        assert_eq!(token.authorization, "type%3Daad%26ver%3D1.0%26sig%3Dh.p.s");
        assert!(token.authorization.is_sensitive());
    }
    assert_eq!(server.lines(), ["POST /tenant/oauth2/v2.0/token"]);
    let mut sent = form(&server.seen()[0]);
    sent.sort();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        sent,
        [
            pair("client_id", "gateway"),
            pair("client_secret", "s3cret"),
            pair("grant_type", "client_credentials"),
            pair("scope", "https://cosmos.azure.com/.default"),
        ]
    );
    let status = entra.status().await;
    assert_eq!((status.identity, status.fetches, status.last_error.is_some()), ("client_secret", 1, false));
    assert!(!format!("{entra:?}").contains("s3cret"));
}

#[tokio::test]
async fn a_token_is_renewed_ahead_of_its_end_and_used_until_shortly_before_it() {
    let directory = tempfile::tempdir().unwrap();
    let server = Scripted::start(|seen| if seen.index == 0 { granted("one", 3_600) } else { refused(7_000_215) }).await;
    let (entra, hand) = entra(&server, secret_of(directory.path()));
    let first = entra.token(&subject("w"), None).await.unwrap();
    hand.advance(Duration::from_secs(3_000));
    let second = entra.token(&subject("w"), None).await.unwrap();
    assert_eq!(first.serial, second.serial, "nobody waits for a renewal");
    entra.renewals.close();
    entra.renewals.wait().await;
    assert_eq!(server.lines().len(), 2, "it was tried in the background");
    let error = entra.status().await.last_error.unwrap().error;
    assert!(matches!(&error, EntraError::Refused { status: 401, code: Some(code) } if code == "7000215"), "{error:?}");
    hand.advance(Duration::from_secs(500));
    assert_eq!(entra.token(&subject("w"), None).await.unwrap().serial, first.serial);
    hand.advance(Duration::from_secs(60));
    assert!(entra.token(&subject("w"), None).await.is_err(), "in its last minute it is not used");
}

#[tokio::test]
async fn a_refused_token_is_replaced_and_a_fresh_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let server = Scripted::start(|seen| granted(if seen.index == 0 { "one" } else { "two" }, 3_600)).await;
    let (entra, hand) = entra(&server, secret_of(directory.path()));
    let stale = entra.token(&subject("w"), None).await.unwrap();
    assert!(matches!(entra.renew(&stale, None).await, Err(EntraError::Throttled { .. })), "another would not help");
    hand.advance(PAUSE);
    let (a, b) = tokio::join!(entra.renew(&stale, None), entra.renew(&stale, None));
    assert_eq!((a.unwrap().serial, b.unwrap().serial), (2, 2), "one fetch for all who ask");
    assert_eq!(entra.token(&subject("w"), None).await.unwrap().serial, 2);
}

#[tokio::test]
async fn a_failure_answers_for_a_moment() {
    let directory = tempfile::tempdir().unwrap();
    let server = Scripted::start(|_| refused(700_016)).await;
    let (entra, _) = entra(&server, secret_of(directory.path()));
    for _ in 0..5 {
        let error = entra.token(&subject("w"), None).await.unwrap_err();
        assert!(error.to_string().contains("AADSTS700016"), "{error}");
    }
    assert_eq!(server.lines().len(), 1);
}

#[tokio::test]
async fn each_workflow_can_have_a_token_of_its_own() {
    let server = Scripted::start(|_| granted("h.p.s", 3_600)).await;
    let (entra, _) = entra(&server, federated(AssertionSource::WorkflowToken));
    for id in ["w1", "w2", "w1"] {
        let presented = Secret::new(format!("jwt-of-{id}"));
        entra.token(&subject(id), Some(&presented)).await.unwrap();
    }
    let assertions: Vec<_> = server.seen().iter().map(|seen| parameter(seen, "client_assertion").unwrap()).collect();
    assert_eq!(assertions, ["jwt-of-w1", "jwt-of-w2"]);
    let kind = parameter(&server.seen()[0], "client_assertion_type").unwrap();
    assert_eq!(kind, "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
    assert!(matches!(entra.own().await, Err(EntraError::PerWorkflow)));
}

#[tokio::test]
async fn an_assertion_in_a_file_is_read_for_each_token() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    let server = Scripted::start(|_| granted("h.p.s", 3_600)).await;
    let (entra, hand) = entra(&server, federated(AssertionSource::File { path: path.clone() }));
    let missing = entra.own().await.unwrap_err();
    assert!(matches!(missing, EntraError::Assertion(AssertionError::File { .. })), "{missing:?}");
    for text in ["first", "second"] {
        fs::write(&path, format!("{text}\n")).unwrap();
        hand.advance(Duration::from_secs(3_600));
        entra.desk.failures.invalidate_all();
        entra.own().await.unwrap();
    }
    let assertions: Vec<_> = server.seen().iter().map(|seen| parameter(seen, "client_assertion").unwrap()).collect();
    assert_eq!(assertions, ["first", "second"]);
}

#[tokio::test]
async fn a_kubernetes_token_file_stands_for_the_gateway() {
    let directory = tempfile::tempdir().unwrap();
    let token_file = directory.path().join("token");
    fs::write(&token_file, "projected").unwrap();
    let server = Scripted::start(|_| granted("h.p.s", 3_600)).await;
    let identity =
        EntraIdentity::WorkloadIdentity { tenant_id: "tenant".into(), client_id: "gateway".into(), token_file };
    let (entra, _) = entra(&server, identity);
    entra.own().await.unwrap();
    assert_eq!(parameter(&server.seen()[0], "client_assertion").as_deref(), Some("projected"));
}

#[tokio::test]
async fn a_certificate_signs_what_entra_can_check() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("gateway.pem");
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["gateway".into()]).unwrap().self_signed(&key).unwrap();
    fs::write(&file, format!("{}{}", certificate.pem(), key.serialize_pem())).unwrap();
    let server = Scripted::start(|_| granted("h.p.s", 3_600)).await;
    let identity = EntraIdentity::ClientCertificate {
        tenant_id: "tenant".into(),
        client_id: "gateway".into(),
        file: file.clone(),
    };
    let (entra, hand) = entra(&server, identity);
    entra.own().await.unwrap();
    let assertion = parameter(&server.seen()[0], "client_assertion").unwrap();

    let parts: Vec<&str> = assertion.split('.').collect();
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let read = |part: &str| -> Value { serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap() };
    let thumbprint = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate.der());
    assert_eq!(read(parts[0]), json!({"alg": "PS256", "typ": "JWT", "x5t#S256": URL_SAFE_NO_PAD.encode(thumbprint)}));
    let claims = read(parts[1]);
    assert_eq!((&claims["iss"], &claims["sub"]), (&json!("gateway"), &json!("gateway")));
    assert_eq!(claims["aud"], format!("{}tenant/oauth2/v2.0/token", server.url()));
    use crate::clock::Timestamp;
    let now = Timestamp::from_secs(1_795_375_762);
    assert_eq!(claims["exp"], now.plus(Duration::from_secs(300)).as_secs());
    let signed = format!("{}.{}", parts[0], parts[1]);
    let public = aws_lc_rs::signature::UnparsedPublicKey::new(
        &aws_lc_rs::signature::RSA_PSS_2048_8192_SHA256,
        key.public_key_raw(),
    );
    public.verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(parts[2]).unwrap()).expect("the signature holds");

    fs::write(&file, "nothing").unwrap();
    hand.advance(Duration::from_secs(3_600));
    let error = entra.own().await.unwrap_err();
    assert!(matches!(error, EntraError::Assertion(AssertionError::Certificate { .. })), "{error:?}");
}

#[test]
fn only_the_authority_may_be_plain() {
    let authority: Url = "http://127.0.0.1:8091/".parse().unwrap();
    let over = OverTransport { transport: Transport::new(None).unwrap(), authority };
    assert_eq!(over.authority_by_https(), "https://127.0.0.1:8091");
    assert!(over.is_authority(&"https://127.0.0.1:8091/tenant/oauth2/v2.0/token".parse().unwrap()));
    assert!(!over.is_authority(&"https://127.0.0.1/tenant".parse().unwrap()));
    assert!(!over.is_authority(&"https://login.example/".parse().unwrap()));
}
