//! TLS on the gateway listener, and certificates that are exchanged under it.

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
    version::{TLS12, TLS13},
};
use serde_json::{Value, json};
use stepgate::transport::{Transport, TransportError};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

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

/// What a handshake came to, and whether a request then gets an answer: under TLS 1.3 a client learns only from the first
/// record after the handshake that its certificate is not wanted.
async fn shake(
    rig: &Rig,
    home: &Path,
    versions: &[&'static SupportedProtocolVersion],
    protocols: &[&str],
    client: Option<(&str, &str)>,
) -> std::io::Result<(ProtocolVersion, Option<String>)> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(home.join("tls.crt")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    let config = config.with_root_certificates(roots);
    let mut config = match client {
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
            config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap()
        }
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let address = rig.server.gateway_url().replace("https://", "");
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(address).await?).await?;
    let connection = stream.get_ref().1;
    let version = connection.protocol_version().unwrap();
    let protocol = connection.alpn_protocol().map(|protocol| String::from_utf8(protocol.to_vec()).unwrap());
    if protocol.as_deref() != Some("h2") {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n").await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        assert!(answer.starts_with(b"HTTP/1.1 401"), "{}", String::from_utf8_lossy(&answer));
    }
    Ok((version, protocol))
}

#[tokio::test]
async fn the_protocol_is_agreed_in_the_handshake() {
    let home = tempfile::tempdir().unwrap();
    let rig = encrypted(home.path()).await;
    for (versions, protocols, version, protocol) in [
        (&[&TLS13, &TLS12][..], &["h2", "http/1.1"][..], ProtocolVersion::TLSv1_3, Some("h2")),
        (&[&TLS12], &["h2", "http/1.1"], ProtocolVersion::TLSv1_2, Some("h2")),
        (&[&TLS13], &["http/1.1"], ProtocolVersion::TLSv1_3, Some("http/1.1")),
        (&[&TLS13], &[], ProtocolVersion::TLSv1_3, None),
    ] {
        let agreed = shake(&rig, home.path(), versions, protocols, None).await.unwrap();
        assert_eq!(agreed, (version, protocol.map(str::to_owned)), "{versions:?} {protocols:?}");
    }
    shake(&rig, home.path(), &[&TLS13], &["spdy/3"], None).await.expect_err("no protocol in common");
}

#[tokio::test]
async fn nothing_below_tls_12_is_spoken() {
    let home = tempfile::tempdir().unwrap();
    let rig = encrypted(home.path()).await;
    let mut stream = TcpStream::connect(rig.server.gateway_url().replace("https://", "")).await.unwrap();
    // The head of a ClientHello of TLS 1.0 with one cipher suite, TLS_RSA_WITH_AES_128_CBC_SHA, and no extension.
    let mut hello = vec![22, 3, 1, 0, 45, 1, 0, 0, 41, 3, 1];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0, 0x2f, 1, 0]);
    stream.write_all(&hello).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    // A fatal alert (handshake_failure: it offers nothing that is accepted), and no ServerHello.
    assert_eq!((answer[0], &answer[5..]), (21, &[2, 40][..]), "{answer:?}");
}

#[tokio::test]
async fn where_callers_need_certificates_only_those_of_the_authority_get_through() {
    let home = tempfile::tempdir().unwrap();
    issue(home.path());
    let authority = || {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    };
    let (ours, theirs) = (authority(), authority());
    fs::write(home.path().join("callers.crt"), ours.pem()).unwrap();
    let files = json!({
        "certificate": home.path().join("tls.crt"),
        "private_key": home.path().join("tls.key"),
        "client_ca": home.path().join("callers.crt"),
    });
    let rig = Rig::with(|raw| raw.tls = Some(serde_json::from_value(files).unwrap())).await;
    let caller = |authority: &CertifiedIssuer<'_, KeyPair>| {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["caller".to_owned()]).unwrap();
        (params.signed_by(&key, authority).unwrap().pem(), key.serialize_pem())
    };
    let (good, bad) = (caller(&ours), caller(&theirs));
    for versions in [&[&TLS13][..], &[&TLS12]] {
        let with = async |client: Option<&(String, String)>| {
            let client = client.map(|(certificate, key)| (certificate.as_str(), key.as_str()));
            shake(&rig, home.path(), versions, &["http/1.1"], client).await
        };
        with(Some(&good)).await.unwrap();
        with(None).await.expect_err("a caller without a certificate");
        with(Some(&bad)).await.expect_err("a certificate of another authority");
    }
    // The authority is exchanged like the certificate.
    fs::write(home.path().join("callers.crt"), theirs.pem()).unwrap();
    rig.server.reload().await;
    let with = async |(certificate, key): &(String, String)| {
        shake(&rig, home.path(), &[&TLS13], &["http/1.1"], Some((certificate, key))).await
    };
    with(&bad).await.unwrap();
    with(&good).await.expect_err("its authority is no longer asked for");
}

/// A gateway whose callers have 300 ms for a handshake, and again for a head.
async fn impatient(home: &Path, encrypted: bool) -> Rig {
    issue(home);
    let files = json!({ "certificate": home.join("tls.crt"), "private_key": home.join("tls.key") });
    Rig::with(|raw| {
        raw.limits.read_timeout = Duration::from_millis(300);
        raw.tls = encrypted.then(|| serde_json::from_value(files).unwrap());
    })
    .await
}

/// Says `opening`, and then `more` again and again, until the gateway hangs up: how long that took, and what it had said.
async fn held_on(rig: &Rig, opening: &[u8], more: &[u8]) -> (Duration, Vec<u8>) {
    let address = rig.server.gateway_url().split_once("//").unwrap().1.to_owned();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let began = Instant::now();
    stream.write_all(opening).await.unwrap();
    let (mut heard, mut buffer) = (Vec::new(), [0; 1024]);
    loop {
        assert!(began.elapsed() < PATIENCE, "the connection is still open");
        match timeout(Duration::from_millis(50), stream.read(&mut buffer)).await {
            Ok(Ok(0) | Err(_)) => return (began.elapsed(), heard),
            Ok(Ok(length)) => heard.extend_from_slice(&buffer[..length]),
            // What it no longer reads is lost, and the next read says so.
            Err(_) => drop(stream.write_all(more).await),
        }
    }
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_given_up() {
    let home = tempfile::tempdir().unwrap();
    let rig = impatient(home.path(), true).await;
    // Nothing; the head of a ClientHello of 512 bytes; and such a ClientHello a byte at a time.
    let hello = [22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3];
    for (opening, more) in [(&[][..], &[][..]), (&hello, &[]), (&hello, &[7])] {
        let (took, _) = held_on(&rig, opening, more).await;
        assert!(took >= Duration::from_millis(250) && took < Duration::from_secs(10), "{took:?}");
    }
    account(&rig, &Transport::new(Some(&home.path().join("tls.crt"))).unwrap()).await.unwrap();
}

/// A frame of HTTP/2 (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
}

#[tokio::test]
async fn a_head_that_never_ends_is_given_up() {
    let home = tempfile::tempdir().unwrap();
    let rig = impatient(home.path(), false).await;
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let (settings, headers, continuation) = (4, 1, 9);
    let opened = [PREFACE, &frame(settings, 0, 0, &[])].concat();
    // `:method: GET`, `:path: /`, `:scheme: http`, `:authority: g`, by the static table of HPACK.
    let request = [0x82, 0x84, 0x86, 0x41, 1, b'g'];
    let (end_stream, end_headers) = (1, 4);
    let unfinished = |stream| frame(headers, end_stream, stream, &request);
    let whole = frame(headers, end_stream | end_headers, 1, &request);
    // One more field, `a: b`, which is not indexed.
    let field = |stream| frame(continuation, 0, stream, &[0, 1, b'a', 1, b'b']);
    for (what, opening, more) in [
        ("silence", Vec::new(), Vec::new()),
        ("half a preface", PREFACE[..10].to_vec(), Vec::new()),
        ("no request", opened.clone(), Vec::new()),
        ("HTTP/1, a header without an end", b"GET / HTTP/1.1\r\nhost: g\r\na: ".to_vec(), b"b".to_vec()),
        ("HTTP/2, a head without an end", [&opened[..], &unfinished(1)].concat(), Vec::new()),
        ("HTTP/2, one field after the other", [&opened[..], &unfinished(1)].concat(), field(1)),
        ("HTTP/2, after a request", [&opened[..], &whole, &unfinished(3)].concat(), Vec::new()),
        (
            "HTTP/2, after a request, one field after the other",
            [&opened[..], &whole, &unfinished(3)].concat(),
            field(3),
        ),
    ] {
        let (took, heard) = held_on(&rig, &opening, &more).await;
        assert!(took >= Duration::from_millis(250) && took < Duration::from_secs(10), "{what}: {took:?}");
        assert_eq!(what.contains("after a request"), heard.len() > 100, "{what}: {heard:?}");
    }
    rig.call("GET", "/").send().await.expect(401);
}
