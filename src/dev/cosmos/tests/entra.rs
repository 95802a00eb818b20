//! Entra-style tokens, from an issuer on a socket of its own.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use axum::{Json, Router, routing::get};
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};

use super::*;
use crate::dev::cosmos::{Aad, Authorization};

const ISSUER: &str = "https://login.example/tenant";
const ONE: &str = "/dbs/shop/colls/orders/docs/1";
const A: (&str, &str) = (header::PARTITION_KEY, r#"["a"]"#);

struct Issuer {
    key: EncodingKey,
    stand: Stand,
}

impl Issuer {
    async fn new() -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
        let keys =
            json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "kid": "k", "alg": "EdDSA", "use": "sig", "x": x }] });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let jwks_uri = format!("http://{}/keys", listener.local_addr().unwrap()).parse().unwrap();
        let app = Router::new().route("/keys", get(|| async { Json(keys) }));
        tokio::spawn(async { axum::serve(listener, app).await.unwrap() });
        let aad = Some(Aad { issuer: ISSUER.to_owned(), jwks_uri });
        let stand = Stand::with(Config { seed: seed(), aad, ..Config::default() }).await;
        Self { key: EncodingKey::from_ed_der(pkcs8.as_ref()), stand }
    }

    fn token(&self, change: Value) -> String {
        let mut claims = json!({
            "iss": ISSUER, "aud": "https://cosmos.azure.com", "sub": "s",
            "nbf": NOW.as_secs(), "exp": NOW.as_secs() + 600,
        });
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let header = Header { kid: Some("k".to_owned()), ..Header::new(Algorithm::EdDSA) };
        format!("type=aad&ver=1.0&sig={}", encode(&header, &claims, &self.key).unwrap())
    }

    async fn ask(&self, token: &str, method: &str, path: &str, body: Value) -> Answer {
        self.stand.ask(By::Header(token), method, path, &[A], body).await
    }
}

#[tokio::test]
async fn data_is_open_and_management_is_not() {
    let issuer = Issuer::new().await;
    let token = issuer.token(json!({}));
    for path in ["/", "/dbs/shop/colls/orders", "/dbs/shop/colls/orders/pkranges", ONE] {
        issuer.ask(&token, "GET", path, Value::Null).await.expect(200);
    }
    issuer.ask(&token, "PUT", ONE, json!({ "id": "1", "tenant": "a" })).await.expect(200);
    for (method, path) in [
        ("POST", "/dbs/shop/users"),
        ("GET", "/dbs/shop/users"),
        ("POST", "/dbs/shop/users/u/permissions"),
        ("POST", "/dbs"),
        ("POST", "/dbs/shop/colls"),
        ("DELETE", "/dbs/shop/colls/orders"),
        ("POST", "/dbs/shop/colls/orders/sprocs"),
    ] {
        let answer = issuer.ask(&token, method, path, json!({ "id": "x" })).await.expect(403);
        assert_eq!(answer.substatus(), 5300);
        let text = format!(
            "The given request [{method} {path}] cannot be authorized by AAD token in data plane. Learn more: \
             https://aka.ms/cosmos-native-rbac."
        );
        assert!(answer.message().ends_with(&text), "{}", answer.body);
    }
    assert_eq!(issuer.stand.cosmos.recorded()[0].authorization, Authorization::Aad);
}

#[tokio::test]
async fn a_token_of_others_is_refused() {
    let issuer = Issuer::new().await;
    let own = issuer.token(json!({ "aud": format!("http://{}", issuer.stand.address) }));
    issuer.ask(&own, "GET", ONE, Value::Null).await.expect(200);
    let now = NOW.as_secs();
    for (change, substatus) in [
        (json!({ "iss": "https://login.example/other" }), 5003),
        (json!({ "aud": "api://else" }), 5008),
        (json!({ "exp": now - 301 }), 5006),
        (json!({ "nbf": now + 301 }), 5006),
    ] {
        let answer = issuer.ask(&issuer.token(change.clone()), "GET", ONE, Value::Null).await.expect(401);
        assert_eq!(answer.substatus(), substatus, "{change}");
    }
    let token = issuer.token(json!({}));
    let (rest, signature) = token.rsplit_once('.').unwrap();
    let flipped: String = signature.chars().rev().collect();
    let answer = issuer.ask(&format!("{rest}.{flipped}"), "GET", ONE, Value::Null).await.expect(401);
    assert_eq!(answer.substatus(), 5003);
    let other = Issuer::new().await;
    issuer.ask(&other.token(json!({})), "GET", ONE, Value::Null).await.expect(401);
}
