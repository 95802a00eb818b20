//! TLS on the gateway listener, and certificates that are exchanged under it.

use std::{fs, path::Path, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use serde_json::{Value, json};
use stepgate::transport::{Transport, TransportError};

use crate::rig::{PATIENCE, Rig};

/// A new certificate for 127.0.0.1 with its key, in the place of those that were there.
fn issue(home: &Path) {
    let issued = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    fs::write(home.join("tls.crt"), issued.cert.pem()).unwrap();
    fs::write(home.join("tls.key"), issued.signing_key.serialize_pem()).unwrap();
}

async fn encrypted(home: &Path) -> Rig {
    issue(home);
    let files = json!({ "certificate": home.join("tls.crt"), "private_key": home.join("tls.key") });
    super::with(|raw| raw.tls = Some(serde_json::from_value(files).unwrap())).await
}

/// Asks for the account document over a connection of its own, trusting what `trusted` trusts.
async fn account(rig: &Rig, trusted: &Transport) -> Result<Response<Bytes>, TransportError> {
    let request = Request::get(rig.server.gateway_url())
        .header("authorization", format!("Bearer {}", rig.token("fulfilment")))
        .body(Full::default());
    trusted.exchange(request.unwrap(), 1 << 20, PATIENCE).await
}

#[tokio::test]
async fn only_who_trusts_the_certificate_gets_through() {
    let home = tempfile::tempdir().unwrap();
    let rig = encrypted(home.path()).await;
    let answer = account(&rig, &Transport::new(Some(&home.path().join("tls.crt"))).unwrap()).await.unwrap();
    assert_eq!(answer.status(), 200);
    let document: Value = serde_json::from_slice(answer.body()).unwrap();
    let named = document["writableLocations"][0]["databaseAccountEndpoint"].as_str().unwrap();
    assert_eq!(named, format!("{}/", rig.server.gateway_url()), "the document names the encrypted address");
    let stranger = account(&rig, &Transport::new(None).unwrap()).await.unwrap_err();
    assert!(stranger.is_before_sending(), "{stranger}");
}

#[tokio::test]
async fn plain_http_gets_no_answer_from_an_encrypted_listener() {
    let home = tempfile::tempdir().unwrap();
    let rig = encrypted(home.path()).await;
    let plain = rig.server.gateway_url().replace("https", "http");
    let request = Request::get(plain).body(Full::default()).unwrap();
    let refused = Transport::new(None).unwrap().exchange(request, 1024, Duration::from_secs(20)).await;
    assert!(matches!(refused, Err(TransportError::Broken(_))), "{refused:?}");
}

#[tokio::test]
async fn a_reload_takes_a_new_certificate_and_keeps_the_old_one_from_a_bad_file() {
    let home = tempfile::tempdir().unwrap();
    let rig = encrypted(home.path()).await;
    let certificate = home.path().join("tls.crt");
    let first = Transport::new(Some(&certificate)).unwrap();
    account(&rig, &first).await.unwrap();

    issue(home.path());
    rig.server.reload().await;
    let second = Transport::new(Some(&certificate)).unwrap();
    account(&rig, &second).await.unwrap();
    account(&rig, &first).await.expect("an open connection outlives its certificate");

    fs::write(&certificate, "no certificate").unwrap();
    rig.server.reload().await;
    account(&rig, &second).await.expect("the last good certificate stays");
}
