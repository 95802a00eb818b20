//! Everything a forger could try, and what each attempt is refused for.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use proptest::prelude::*;

use super::*;
use crate::{
    dev::issuer::{MintAlgorithm, MintKey, signing::SigningKey},
    identity::{Algorithm, Carrier, Class, Part, Proof},
};

fn encode(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

/// A token of these very texts, signed by the issuer's own key.
fn signed(key: &SigningKey, header: &str, claims: &str) -> String {
    let message = format!("{}.{}", encode(header), encode(claims));
    let signature = key.sign(message.as_bytes()).unwrap();
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn part(token: &str, index: usize) -> Map<String, Value> {
    let part = token.split('.').nth(index).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// `token` with another text in place of one of its parts.
fn replaced(token: &str, index: usize, text: &str) -> String {
    let mut parts: Vec<&str> = token.split('.').collect();
    parts[index] = text;
    parts.join(".")
}

struct Forge<'a> {
    issuer: &'a Issuer,
    other: &'a Issuer,
    good: String,
}

impl Forge<'_> {
    fn claims(&self, claims: Value) -> String {
        self.issuer.mint(Mint { claims: members(claims), ..Mint::default() }).unwrap()
    }

    fn header(&self, header: Value) -> String {
        self.issuer.mint(Mint { header: members(header), ..Mint::default() }).unwrap()
    }

    fn ttl(&self, ttl: i64) -> String {
        self.issuer.mint(Mint { ttl: Some(ttl), ..Mint::default() }).unwrap()
    }

    fn alg(&self, alg: MintAlgorithm) -> String {
        self.issuer.mint(Mint { alg: Some(alg), ..Mint::default() }).unwrap()
    }

    fn now(&self) -> i64 {
        part(&self.good, 1)["iat"].as_i64().unwrap()
    }

    /// The good token's texts with `from` replaced by `to`, signed again.
    fn rewritten(&self, index: usize, from: &str, to: &str) -> String {
        let mut texts = [0, 1].map(|index| Value::Object(part(&self.good, index)).to_string());
        assert!(texts[index].contains(from), "{}", texts[index]);
        texts[index] = texts[index].replacen(from, to, 1);
        signed(&self.issuer.keys().signing(None), &texts[0], &texts[1])
    }

    fn accepted(&self) -> Vec<(&'static str, String)> {
        let elliptic = self.issuer.token("elliptic").unwrap();
        let rogue = self.issuer.keys().rogue(SigningAlgorithm::RS256).unwrap().jwk();
        vec![
            ("RS256", self.good.clone()),
            ("ES256", elliptic),
            ("minted", self.claims(json!({}))),
            ("rewritten by nothing", self.rewritten(1, "orders", "orders")),
            ("aud as a list", self.claims(json!({"aud": ["other", "stepgate"]}))),
            ("expired within the leeway", self.ttl(-29)),
            ("exp with a fraction", self.claims(json!({"exp": self.now() as f64 + 0.5}))),
            ("nbf within the leeway", self.claims(json!({"nbf": self.now() + 30}))),
            ("no nbf and no iat", self.claims(json!({"nbf": null, "iat": null}))),
            ("no kid, one key of that type", self.header(json!({"kid": null}))),
            ("typ JWT", self.header(json!({"typ": "JWT"}))),
            ("typ application/at+jwt", self.header(json!({"typ": "application/at+JWT"}))),
            ("no typ", self.header(json!({"typ": null}))),
            ("embedded keys are not read", self.header(json!({"jwk": rogue, "jku": "https://evil.test", "x5u": "x"}))),
        ]
    }

    fn refused(&self) -> Vec<(&'static str, String, Reason)> {
        [self.bad_times(), self.bad_audiences(), self.bad_issuers(), self.bad_keys(), self.bad_forms(), self.humans()]
            .concat()
    }

    fn bad_times(&self) -> Vec<(&'static str, String, Reason)> {
        let now = self.now();
        let number = |claim: &str| Reason::MalformedClaim { claim: claim.into(), expected: "a number of seconds" };
        vec![
            ("expired", self.ttl(-30), Reason::Expired),
            ("expired at the epoch", self.claims(json!({"exp": 0})), Reason::Expired),
            ("exp below zero", self.claims(json!({"exp": -1e300})), Reason::Expired),
            ("no exp", self.claims(json!({"exp": null})), Reason::MissingClaim("exp".into())),
            ("exp as text", self.claims(json!({"exp": "9999999999"})), number("exp")),
            ("exp as list", self.claims(json!({"exp": [9_999_999_999_i64]})), number("exp")),
            ("not yet valid", self.claims(json!({"nbf": now + 31})), Reason::NotYetValid),
            ("nbf as text", self.claims(json!({"nbf": "0"})), number("nbf")),
            ("issued in the future", self.claims(json!({"iat": now + 31})), Reason::IssuedInTheFuture),
            ("iat as boolean", self.claims(json!({"iat": true})), number("iat")),
        ]
    }

    fn bad_audiences(&self) -> Vec<(&'static str, String, Reason)> {
        let wrong = || Reason::WrongAudience(vec!["stepgate".into()]);
        let malformed = || Reason::MalformedClaim { claim: "aud".into(), expected: "a string or a list of strings" };
        vec![
            ("another audience", self.claims(json!({"aud": "another"})), wrong()),
            ("audience in other case", self.claims(json!({"aud": "Stepgate"})), wrong()),
            ("audience with a blank", self.claims(json!({"aud": "stepgate "})), wrong()),
            ("no audience", self.claims(json!({"aud": null})), Reason::MissingClaim("aud".into())),
            ("empty audience list", self.claims(json!({"aud": []})), wrong()),
            ("audience list without us", self.claims(json!({"aud": ["a", "b"]})), wrong()),
            ("audience as number", self.claims(json!({"aud": 1})), malformed()),
            ("audience list with a number", self.claims(json!({"aud": ["stepgate", 1]})), malformed()),
        ]
    }

    fn bad_issuers(&self) -> Vec<(&'static str, String, Reason)> {
        let url = self.issuer.url();
        let says = |iss: Value| self.claims(json!({ "iss": iss }));
        vec![
            ("no iss", says(json!(null)), Reason::UnknownIssuer),
            ("another iss", says(json!("https://evil.test")), Reason::UnknownIssuer),
            ("iss with a slash", says(json!(format!("{url}/"))), Reason::UnknownIssuer),
            ("iss in upper case", says(json!(url.to_uppercase())), Reason::UnknownIssuer),
            ("iss with a path", says(json!(format!("{url}/jwks"))), Reason::UnknownIssuer),
            ("iss by another name", says(json!(url.replace("127.0.0.1", "localhost"))), Reason::UnknownIssuer),
            ("iss cut short", says(json!(url.split_at(url.len() - 1).0)), Reason::UnknownIssuer),
            ("iss as list", says(json!([url])), Reason::UnknownIssuer),
            ("iss empty", says(json!("")), Reason::UnknownIssuer),
            ("iss of another trusted issuer", says(json!(self.other.url())), Reason::UnknownKey),
        ]
    }

    fn bad_keys(&self) -> Vec<(&'static str, String, Reason)> {
        let not_allowed = || Reason::AlgorithmNotAllowed(vec![Algorithm::RS256, Algorithm::ES256]);
        let rogue = |header: Value| {
            self.issuer.mint(Mint { header: members(header), key: MintKey::Rogue, ..Mint::default() }).unwrap()
        };
        let rogue_jwk = self.issuer.keys().rogue(SigningAlgorithm::RS256).unwrap().jwk();
        let elliptic = self.issuer.token("elliptic").unwrap();
        let elliptic_kid = part(&elliptic, 0)["kid"].clone();
        let other_kid = self.other.keys().signing(None).kid.clone();
        let other_token =
            self.other.mint(Mint { claims: members(json!({"iss": self.issuer.url()})), ..Mint::default() });
        vec![
            ("alg none", self.alg(MintAlgorithm::None), not_allowed()),
            ("alg None", self.header(json!({"alg": "None"})), not_allowed()),
            ("alg nOnE and no signature", replaced(&self.header(json!({"alg": "nOnE"})), 2, ""), not_allowed()),
            ("no alg", self.header(json!({"alg": null})), not_allowed()),
            ("alg as list", self.header(json!({"alg": ["RS256"]})), not_allowed()),
            ("HS256 with the public key's PEM", self.alg(MintAlgorithm::HmacWithPem), not_allowed()),
            ("HS256 with the public key's DER", self.alg(MintAlgorithm::HmacWithDer), not_allowed()),
            ("alg in lower case", self.header(json!({"alg": "rs256"})), not_allowed()),
            ("alg that this issuer may not use", self.header(json!({"alg": "RS512"})), not_allowed()),
            ("alg of another type of key", self.header(json!({"alg": "ES256"})), Reason::UnfitKey),
            ("kid of a key of another type", self.header(json!({"kid": elliptic_kid})), Reason::UnfitKey),
            ("unknown kid", self.header(json!({"kid": "unknown"})), Reason::UnknownKey),
            ("empty kid", self.header(json!({"kid": ""})), Reason::UnknownKey),
            ("kid as a path", self.header(json!({"kid": "../../dev/null"})), Reason::UnknownKey),
            ("kid of another issuer", self.header(json!({"kid": other_kid})), Reason::UnknownKey),
            ("another issuer's whole token", other_token.unwrap(), Reason::UnknownKey),
            ("rogue key under a good kid", rogue(json!({})), Reason::BadSignature),
            ("rogue key without kid", rogue(json!({"kid": null})), Reason::BadSignature),
            ("rogue key embedded", rogue(json!({"jwk": rogue_jwk})), Reason::BadSignature),
            ("rogue key by address", rogue(json!({"jku": "http://127.0.0.1:1/jwks"})), Reason::BadSignature),
            ("no signature", replaced(&self.good, 2, ""), Reason::BadSignature),
            (
                "signature of another token",
                replaced(&self.good, 2, elliptic.split('.').nth(2).unwrap()),
                Reason::BadSignature,
            ),
            ("signature with padding", format!("{}==", self.good), Reason::BadSignature),
            (
                "claims of another token",
                replaced(&self.good, 1, elliptic.split('.').nth(1).unwrap()),
                Reason::BadSignature,
            ),
        ]
    }

    fn bad_forms(&self) -> Vec<(&'static str, String, Reason)> {
        let parts: Vec<&str> = self.good.split('.').collect();
        let standard = base64::engine::general_purpose::STANDARD.encode(br#"{"iss":"???>>>"}"#);
        let key = self.issuer.keys().signing(None);
        let header = |text: &str| signed(&key, text, &Value::Object(part(&self.good, 1)).to_string());
        let claims = |text: &str| signed(&key, &Value::Object(part(&self.good, 0)).to_string(), text);
        let subject = |value: Value| self.claims(json!({ "sub": value }));
        let not_text = |claim: &str| Reason::MalformedClaim { claim: claim.into(), expected: "a text" };
        vec![
            ("garbage", "garbage".into(), Reason::NotAJwt),
            ("two parts", format!("{}.{}", parts[0], parts[1]), Reason::NotAJwt),
            ("four parts", format!("{}.x", self.good), Reason::NotAJwt),
            ("five parts, as of a JWE", format!("{}.x.y", self.good), Reason::NotAJwt),
            ("only dots", "..".into(), Reason::NotAJwt),
            ("a dot before", format!(".{}", self.good), Reason::NotAJwt),
            ("the standard alphabet", replaced(&self.good, 1, &standard), Reason::NotAJwt),
            ("padded claims", replaced(&self.good, 1, &format!("{}=", parts[1])), Reason::NotAJwt),
            ("a blank inside", self.good.replacen('.', " .", 1), Reason::NotAJwt),
            ("header is a list", header("[]"), Reason::NotAJwt),
            ("claims are a list", claims("[]"), Reason::NotAJwt),
            ("claims are no JSON", claims("{"), Reason::NotAJwt),
            ("claims with something after", claims("{}{}"), Reason::NotAJwt),
            ("kid as number", self.header(json!({"kid": 7})), Reason::NotAJwt),
            ("crit", self.header(json!({"crit": ["b64"], "b64": false})), Reason::CriticalExtension),
            ("empty crit", self.header(json!({"crit": []})), Reason::CriticalExtension),
            ("typ of a logout token", self.header(json!({"typ": "logout+jwt"})), Reason::WrongType),
            ("typ of a DPoP proof", self.header(json!({"typ": "dpop+jwt"})), Reason::WrongType),
            ("typ as number", self.header(json!({"typ": 1})), Reason::WrongType),
            ("alg twice", self.rewritten(0, "{", r#"{"alg":"none","#), Reason::RepeatedMember(Part::Header)),
            (
                "kid twice, once escaped",
                self.rewritten(0, "{", r#"{"k\u0069d":"x","#),
                Reason::RepeatedMember(Part::Header),
            ),
            ("sub twice", self.rewritten(1, "{", r#"{"sub":"admin","#), Reason::RepeatedMember(Part::Claims)),
            (
                "a nested member twice",
                self.rewritten(1, "{", r#"{"n":{"a":1,"a":2},"#),
                Reason::RepeatedMember(Part::Claims),
            ),
            ("no sub", subject(json!(null)), Reason::MissingClaim("sub".into())),
            ("empty sub", subject(json!("")), not_text("sub")),
            ("sub as number", subject(json!(7)), not_text("sub")),
            ("client_id as list", self.claims(json!({"client_id": ["minted"]})), not_text("client_id")),
            ("huge", format!("{}{}", self.good, "A".repeat(16 * 1024)), Reason::TooLong(16 * 1024)),
        ]
    }

    fn humans(&self) -> Vec<(&'static str, String, Reason)> {
        let email = || Reason::Human { claim: "email".into() };
        let kind =
            || Reason::NotProven { claim: "token_kind".into(), expected: Proof::Rule(Expect::from(json!("workload"))) };
        vec![
            ("a human", self.issuer.token("jo").unwrap(), email()),
            ("a human who says workload", self.claims(json!({"email": "jo@example.test"})), email()),
            ("nobody says", self.claims(json!({"token_kind": null})), kind()),
            ("a human without email", self.claims(json!({"token_kind": "human"})), kind()),
            ("kind in other case", self.claims(json!({"token_kind": "Workload"})), kind()),
        ]
    }
}

/// Two issuers that the same gateway trusts, so that their keys could be mixed up.
async fn two_issuers() -> (Stage, Stage, std::sync::Arc<Identity>) {
    let (mut stage, other) = (Stage::open().await, Stage::open().await);
    let first = IssuerConfig { algorithms: vec![Algorithm::RS256, Algorithm::ES256], ..stage.trust() };
    let second = IssuerConfig { name: IssuerName::new("other"), ..other.trust() };
    let identity = stage.identity(vec![first, second]);
    (stage, other, identity)
}

#[tokio::test]
async fn every_attack_is_refused_for_its_own_reason() {
    let (stage, other, identity) = two_issuers().await;
    let good = stage.issuer.token("orders").unwrap();
    let forge = Forge { issuer: &stage.issuer, other: &other.issuer, good };

    for (name, token) in forge.accepted() {
        let accepted = ask(&identity, &token).await;
        assert!(accepted.is_ok(), "{name}: {}", accepted.unwrap_err());
    }
    let refused = forge.refused();
    assert!(refused.len() >= 60, "the matrix has lost rows: {}", refused.len());
    for (name, token, reason) in refused {
        // Twice, since a cache must not make a refused token good.
        for _ in 0..2 {
            let refused = ask(&identity, &token).await.map(|_| ()).unwrap_err();
            assert_eq!((refused.carrier, refused.reason), (Carrier::Authorization, reason.clone()), "{name}");
        }
        let mut headers = HeaderMap::new();
        headers.insert("x-stepgate-token", HeaderValue::from_str(&token).unwrap());
        let refused = identity.authenticate(&headers).await.unwrap_err();
        assert_eq!((refused.carrier, refused.reason), (Carrier::WorkflowHeader, reason), "{name}");
    }
}

#[tokio::test]
async fn what_a_refusal_says_is_in_no_token() {
    let (stage, other, identity) = two_issuers().await;
    let good = stage.issuer.token("orders").unwrap();
    let forge = Forge { issuer: &stage.issuer, other: &other.issuer, good };
    let mark = "mark-from-the-token";
    for claim in ["iss", "sub", "aud", "exp", "nbf", "token_kind", "email", "client_id"] {
        let token = forge.claims(json!({ claim: [mark] }));
        let said = ask(&identity, &token).await.unwrap_err();
        assert!(!format!("{said} {said:?}").contains(mark), "{claim}: {said:?}");
    }
    for member in ["alg", "typ", "kid"] {
        let said = ask(&identity, &forge.header(json!({ member: mark }))).await.unwrap_err();
        assert!(!format!("{said} {said:?}").contains(mark), "{member}: {said:?}");
    }
}

#[test]
fn the_classes_are_those_of_the_contract() {
    let class = |reason: Reason| reason.class();
    assert_eq!(class(Reason::TwoTokens), Class::Rejected);
    assert_eq!(class(Reason::NoToken), Class::InvalidToken);
    assert_eq!(class(Reason::Expired), Class::InvalidToken);
    assert_eq!(class(Reason::WrongClient), Class::InvalidToken);
    assert_eq!(class(Reason::Human { claim: "email".into() }), Class::Human);
    assert_eq!(class(Reason::NoWorkloadRules), Class::Human);
    assert_eq!(class(Reason::KeysUnavailable(IssuerName::new("local"))), Class::Unavailable);
}

#[test]
fn any_one_byte_change_of_a_good_token_is_refused() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (stage, _other, identity) = runtime.block_on(two_issuers());
    let tokens = ["orders", "elliptic"].map(|client| stage.issuer.token(client).unwrap());
    for token in &tokens {
        runtime.block_on(ask(&identity, token)).unwrap();
    }
    // Keys are fresh in every run, so a failing case would say nothing in the next.
    let config = ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(which in 0..2_usize, at in any::<prop::sample::Index>(), byte in 0x21..0x7f_u8)| {
        let mut bytes = tokens[which].clone().into_bytes();
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != byte);
        bytes[at] = byte;
        let changed = String::from_utf8(bytes).unwrap();
        prop_assert!(runtime.block_on(ask(&identity, &changed)).is_err(), "byte {at} as {}", byte as char);
    });
}
