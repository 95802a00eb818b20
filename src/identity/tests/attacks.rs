//! The attack matrix: tokens as attackers, broken libraries and unlucky proxies send them, each with its verdict. The
//! reasons stand in `tests/golden/identity-attacks.txt`.

use std::{sync::LazyLock, time::Duration};

use aws_lc_rs::digest;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    super::{Expect, Identity, IssuerConfig, config::Algorithm},
    bearer, is_golden,
    notary::{self, NOW, ROGUE, TRUSTED, compact, encode, hmac256, kid},
    present, reason, word,
};
use crate::access::{IssuerName, WorkloadKind};

const URL: &str = "https://idp.example.test/tenant";
const AUDIENCE: &str = "https://stepgate.example.test";

/// Header lines of a request.
type Lines = Vec<(&'static str, Vec<u8>)>;

fn issuer(name: &str, url: &str) -> IssuerConfig {
    IssuerConfig {
        audiences: vec![AUDIENCE.to_owned()],
        workload: [("token_kind".to_owned(), Expect::Is(json!("workload")))].into(),
        ..IssuerConfig::new(IssuerName::new(name.to_owned()), WorkloadKind::Oidc, url.to_owned())
    }
}

/// Two issuers of one company: each has keys of its own, and one accepts RS256 alone.
fn room() -> Identity {
    let narrow = IssuerConfig { algorithms: vec![Algorithm::RS256], ..issuer("narrow", "https://narrow.example.test") };
    let (room, _) = notary::room(vec![issuer("idp", URL), narrow]);
    notary::publish(&room, "narrow", &ROGUE.jwks("narrow-"));
    room
}

fn header() -> Value {
    json!({"alg": "RS256", "typ": "JWT", "kid": "rsa"})
}

fn claims() -> Value {
    json!({"iss": URL, "sub": "fulfilment", "aud": AUDIENCE, "iat": NOW - 60, "exp": NOW + 300, "token_kind": "workload"})
}

/// `base` with `changes`; `null` takes a member away.
fn with(mut base: Value, changes: Value) -> Value {
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(base.as_object_mut().unwrap().remove(name)),
            value => base[name] = value.clone(),
        }
    }
    base
}

fn rs256(message: &[u8]) -> Vec<u8> {
    TRUSTED.signature(Algorithm::RS256, message)
}

/// A token whose header and claims are exactly these texts, rightly signed.
fn raw(header: &[u8], claims: &[u8]) -> String {
    compact(header, claims, rs256)
}

fn of_header(changes: Value) -> String {
    raw(with(header(), changes).to_string().as_bytes(), claims().to_string().as_bytes())
}

fn of_claims(changes: Value) -> String {
    raw(header().to_string().as_bytes(), with(claims(), changes).to_string().as_bytes())
}

/// The claims as a text with `from` replaced, for what a JSON value cannot hold.
fn of_text(from: &str, to: &str) -> String {
    let text = claims().to_string();
    assert!(text.contains(from), "{from}");
    raw(header().to_string().as_bytes(), text.replacen(from, to, 1).as_bytes())
}

fn good(algorithm: Algorithm) -> String {
    let header = json!({"alg": algorithm.as_str(), "typ": "at+jwt", "kid": kid(algorithm)});
    compact(header.to_string().as_bytes(), claims().to_string().as_bytes(), |message| {
        TRUSTED.signature(algorithm, message)
    })
}

/// A token that says `algorithm` under the RSA key's id, signed as told.
fn signed_as(algorithm: &str, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let header = json!({"alg": algorithm, "typ": "JWT", "kid": "rsa"});
    compact(header.to_string().as_bytes(), claims().to_string().as_bytes(), sign)
}

fn es256(sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let header = json!({"alg": "ES256", "typ": "JWT", "kid": "p256"});
    compact(header.to_string().as_bytes(), claims().to_string().as_bytes(), sign)
}

/// The three parts of a good token.
fn parts() -> [String; 3] {
    let token = good(Algorithm::RS256);
    let parts: Vec<&str> = token.split('.').collect();
    [parts[0].to_owned(), parts[1].to_owned(), parts[2].to_owned()]
}

/// A good token with one of its parts rewritten as text.
fn respelled(part: usize, spell: impl FnOnce(&str) -> String) -> String {
    let mut parts = parts();
    parts[part] = spell(&parts[part]);
    parts.join(".")
}

/// The last character of a base64url text with its unused bits set: another spelling of the same bytes.
fn with_trailing_bits(part: &str) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    assert_ne!(part.len() % 4, 0, "no unused bits");
    let (head, last) = part.split_at(part.len() - 1);
    let at = ALPHABET.iter().position(|byte| *byte == last.as_bytes()[0]).unwrap();
    format!("{head}{}", ALPHABET[at | 1] as char)
}

fn algorithms() -> Vec<(String, &'static str, Lines)> {
    let mut rows = Vec::new();
    for algorithm in Algorithm::ALL {
        rows.push((format!("a good token, {algorithm}"), "workload", bearer(&good(algorithm))));
    }
    let mut invalid = |name: &str, token: String| rows.push((name.to_owned(), "invalid", bearer(&token)));
    for spelling in ["none", "None", "NONE", "nOnE", ""] {
        invalid(&format!("alg `{spelling}`, no signature"), signed_as(spelling, |_| Vec::new()));
    }
    invalid("alg none with a good signature", signed_as("none", rs256));
    invalid("HS256 with the public key as PEM", signed_as("HS256", |m| hmac256(TRUSTED.public_pem().as_bytes(), m)));
    let trimmed = TRUSTED.public_pem().trim_end().to_owned();
    invalid("HS256 with the public key as PEM, trimmed", signed_as("HS256", |m| hmac256(trimmed.as_bytes(), m)));
    invalid("HS256 with the public key as DER", signed_as("HS256", |m| hmac256(&TRUSTED.public_der(), m)));
    let jwk = TRUSTED.jwks("")["keys"][0].clone();
    invalid("HS256 with the public key as JWK", signed_as("HS256", |m| hmac256(jwk.to_string().as_bytes(), m)));
    let modulus = jwk["n"].as_str().unwrap().to_owned();
    invalid("HS256 with the modulus", signed_as("HS256", |m| hmac256(modulus.as_bytes(), m)));
    invalid("HS256 with an empty secret", signed_as("HS256", |m| hmac256(b"", m)));
    invalid("HS512 in name, RS256 in truth", signed_as("HS512", rs256));
    invalid("RS384 in name, RS256 in truth", signed_as("RS384", rs256));
    invalid("PS256 in name, RS256 in truth", signed_as("PS256", rs256));
    invalid("ES256 in name, with the RSA key's id", signed_as("ES256", rs256));
    invalid("rs256 in lower case", signed_as("rs256", rs256));
    invalid("an algorithm nobody knows", signed_as("RS1", rs256));
    invalid("ES256K", signed_as("ES256K", rs256));
    invalid("no alg", of_header(json!({"alg": null})));
    invalid("alg as a number", of_header(json!({"alg": 256})));
    invalid("alg as a list", of_header(json!({"alg": ["RS256"]})));
    let narrow = with(claims(), json!({"iss": "https://narrow.example.test"})).to_string();
    let header = json!({"alg": "ES256", "kid": "narrow-p256"}).to_string();
    let sign = |message: &[u8]| ROGUE.signature(Algorithm::ES256, message);
    invalid("an algorithm its issuer does not use", compact(header.as_bytes(), narrow.as_bytes(), sign));
    rows
}

fn keys() -> Vec<(String, &'static str, Lines)> {
    let rogue = ROGUE.jwks("")["keys"][0].clone();
    let forged = |more: Value| {
        let header = with(header(), more).to_string();
        compact(header.as_bytes(), claims().to_string().as_bytes(), |m| ROGUE.signature(Algorithm::RS256, m))
    };
    let cross = |kid: &str, notary: &'static notary::Notary| {
        let header = with(header(), json!({"kid": kid})).to_string();
        compact(header.as_bytes(), claims().to_string().as_bytes(), |m| notary.signature(Algorithm::RS256, m))
    };
    let rows = vec![
        ("a key of nobody", forged(json!({}))),
        ("an embedded jwk", forged(json!({"jwk": rogue}))),
        ("an embedded jwk and no kid", forged(json!({"jwk": rogue, "kid": null}))),
        ("jku at the attacker's", forged(json!({"jku": "https://evil.example.test/jwks"}))),
        ("jku at the issuer's own", forged(json!({"jku": format!("{URL}/jwks")}))),
        ("x5u", forged(json!({"x5u": "https://evil.example.test/cert.pem"}))),
        ("x5c", forged(json!({"x5c": ["MIIB"]}))),
        ("x5t of another certificate", forged(json!({"x5t": "AAAA"}))),
        ("another issuer's kid, and its key", cross("narrow-rsa", &ROGUE)),
        ("another issuer's kid, and this one's key", cross("narrow-rsa", &TRUSTED)),
        ("this issuer's kid, and another's key", cross("rsa", &ROGUE)),
        ("kid of a key for another algorithm", of_header(json!({"kid": "p256"}))),
        ("kid of nobody", of_header(json!({"kid": "absent"}))),
        ("kid with a path", of_header(json!({"kid": "../../../../dev/null"}))),
        ("kid with SQL", of_header(json!({"kid": "' UNION SELECT 'key'--"}))),
        ("kid with a command", of_header(json!({"kid": "rsa; cat /etc/passwd"}))),
        ("kid with NUL", of_header(json!({"kid": "rsa\u{0}"}))),
        ("kid in another case", of_header(json!({"kid": "RSA"}))),
        ("kid with a space", of_header(json!({"kid": "rsa "}))),
        ("an empty kid", of_header(json!({"kid": ""}))),
        ("kid as null", raw(br#"{"alg":"RS256","kid":null}"#, claims().to_string().as_bytes())),
        ("kid as a number", of_header(json!({"kid": 7}))),
        ("kid as a list", of_header(json!({"kid": ["rsa"]}))),
        ("kid as an object", of_header(json!({"kid": {"rsa": 1}}))),
        ("a kid of 8 KiB", of_header(json!({"kid": "k".repeat(8 * 1024)}))),
    ];
    let mut rows: Vec<_> = rows.into_iter().map(|(name, token)| (name.to_owned(), "invalid", bearer(&token))).collect();
    // Exactly one published key fits RS256, so a token that names none is not ambiguous.
    rows.push(("no kid, and one key that fits".to_owned(), "workload", bearer(&of_header(json!({"kid": null})))));
    rows
}

fn forms() -> Vec<(String, &'static str, Lines)> {
    let [head, body, tail] = parts();
    let standard = |bytes: &[u8]| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes);
    let utf16: Vec<u8> = claims().to_string().encode_utf16().flat_map(u16::to_be_bytes).collect();
    let nested = |depth: usize| {
        let deep = format!("{}0{}", "[".repeat(depth), "]".repeat(depth));
        of_text("\"token_kind\"", &format!("\"deep\":{deep},\"token_kind\""))
    };
    let inner = encode(good(Algorithm::RS256).as_bytes());
    let der = es256(|message| TRUSTED.der_signature(message));
    let half = es256(|message| TRUSTED.signature(Algorithm::ES256, message)[..32].to_vec());
    let longer = es256(|message| [TRUSTED.signature(Algorithm::ES256, message), vec![0]].concat());
    let text = claims().to_string();
    let rows = vec![
        ("crit", of_header(json!({"crit": ["exp"]}))),
        ("an empty crit", of_header(json!({"crit": []}))),
        ("b64 false, named in crit", of_header(json!({"crit": ["b64"], "b64": false}))),
        ("an ID token by its typ", of_header(json!({"typ": "id+jwt"}))),
        ("a logout token", of_header(json!({"typ": "logout+jwt"}))),
        ("a DPoP proof", of_header(json!({"typ": "dpop+jwt"}))),
        ("typ as a list", of_header(json!({"typ": ["JWT"]}))),
        ("alg twice in the header", raw(br#"{"alg":"none","kid":"rsa","alg":"RS256"}"#, text.as_bytes())),
        ("kid twice in the header", raw(br#"{"alg":"RS256","kid":"x","kid":"rsa"}"#, text.as_bytes())),
        ("sub twice", of_text("\"sub\":", "\"sub\":\"admin\",\"sub\":")),
        ("sub twice, once escaped", of_text("\"sub\":", "\"\\u0073ub\":\"admin\",\"sub\":")),
        ("iss twice", of_text("\"iss\":", "\"iss\":\"https://evil.example.test\",\"iss\":")),
        ("a member twice, deep down", of_text("\"sub\":", "\"x\":{\"a\":[{\"b\":1,\"b\":2}]},\"sub\":")),
        ("a header that is a list", raw(br#"["RS256"]"#, text.as_bytes())),
        ("claims that are a list", raw(header().to_string().as_bytes(), format!("[{text}]").as_bytes())),
        ("claims that are a text", raw(header().to_string().as_bytes(), b"\"fulfilment\"")),
        ("claims with more behind them", raw(header().to_string().as_bytes(), format!("{text}{{}}").as_bytes())),
        ("claims with a comma too many", of_text("\"sub\":\"fulfilment\"", "\"sub\":\"fulfilment\",")),
        ("claims with a comment", of_text("\"sub\":", "/* */\"sub\":")),
        ("claims with a single quote", of_text("\"fulfilment\"", "'fulfilment'")),
        ("claims in UTF-16", raw(header().to_string().as_bytes(), &utf16)),
        ("claims with a byte order mark", raw(header().to_string().as_bytes(), format!("\u{feff}{text}").as_bytes())),
        ("claims that are not UTF-8", raw(header().to_string().as_bytes(), b"{\"sub\":\"\xff\xfe\"}")),
        ("claims with an unpaired surrogate", of_text("\"fulfilment\"", "\"\\ud800\"")),
        ("claims with a raw control character", of_text("fulfilment", "ful\u{1}filment")),
        ("empty claims", raw(header().to_string().as_bytes(), b"{}")),
        ("no claims", raw(header().to_string().as_bytes(), b"")),
        ("claims 200 levels deep", nested(200)),
        ("claims 3,000 levels deep", nested(3_000)),
        ("a token of more than 16 KiB", of_claims(json!({"filler": "x".repeat(16 * 1024)}))),
        ("padding after the header", respelled(0, |part| format!("{part}="))),
        ("padding after the claims", respelled(1, |part| format!("{part}=="))),
        ("padding after the signature", respelled(2, |part| format!("{part}=="))),
        ("unused bits in the signature", respelled(2, with_trailing_bits)),
        ("standard base64", format!("{head}.{}.{tail}", standard(format!("{text}???>>>").as_bytes()))),
        ("a line break in the claims", respelled(1, |part| format!("{part} "))),
        ("no signature", format!("{head}.{body}.")),
        ("no signature and no dot", format!("{head}.{body}")),
        ("four parts", format!("{head}.{body}.{tail}.{tail}")),
        ("five parts, as an encrypted token", format!("{head}.{body}.{tail}.{tail}.{tail}")),
        ("an encrypted token's header", {
            let header = encode(br#"{"alg":"RSA-OAEP","enc":"A256GCM"}"#);
            format!("{header}.{body}.{tail}.{tail}.{tail}")
        }),
        ("dots alone", "..".to_owned()),
        (
            "JSON serialisation",
            json!({"protected": head, "payload": body, "signature": tail}).to_string().replace(',', ";"),
        ),
        ("a JWT in a JWT", raw(br#"{"alg":"RS256","kid":"rsa","cty":"JWT"}"#, inner.as_bytes())),
        (
            "signature of another token",
            format!("{head}.{body}.{}", of_claims(json!({"sub": "x"})).rsplit('.').next().unwrap()),
        ),
        (
            "claims of another token",
            format!("{head}.{}.{tail}", of_claims(json!({"sub": "x"})).split('.').nth(1).unwrap()),
        ),
        ("a signature cut by a byte", respelled(2, |part| part.split_at(part.len() - 4).0.to_owned())),
        ("a signature with a byte more", respelled(2, |part| format!("{part}AAAA"))),
        ("an RSA signature of zeros", respelled(2, |_| encode(&[0; 256]))),
        ("an RSA signature of ones", respelled(2, |_| encode(&[0xff; 256]))),
        (
            "the hash in the signature's place",
            respelled(2, |_| encode(digest::digest(&digest::SHA256, body.as_bytes()).as_ref())),
        ),
        ("ES256 as DER", der),
        ("ES256 of zeros (psychic signature)", es256(|_| vec![0; 64])),
        ("ES256 with r and s of the order", es256(|_| ORDER_TWICE.to_vec())),
        ("half an ES256 signature", half),
        ("an ES256 signature with a byte more", longer),
        ("ES256 signed with P-384", es256(|message| TRUSTED.signature(Algorithm::ES384, message))),
    ];
    let mut rows: Vec<_> = rows.into_iter().map(|(name, token)| (name.to_owned(), "invalid", bearer(&token))).collect();
    for typ in ["JWT", "jwt", "at+jwt", "application/at+jwt", "AT+JWT"] {
        rows.push((format!("typ `{typ}`"), "workload", bearer(&of_header(json!({"typ": typ})))));
    }
    rows.push(("no typ".to_owned(), "workload", bearer(&of_header(json!({"typ": null})))));
    rows.push((
        "b64 false, not in crit: not understood, and so not obeyed".to_owned(),
        "workload",
        bearer(&of_header(json!({"b64": false}))),
    ));
    rows.push(("claims 50 levels deep".to_owned(), "workload", bearer(&nested(50))));
    rows
}

/// The order of P-256, twice: a signature of it is zero to a verifier that reduces first and looks later.
const ORDER_TWICE: [u8; 64] = {
    let order = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa, 0xad,
        0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let mut twice = [0; 64];
    let mut at = 0;
    while at < 64 {
        twice[at] = order[at % 32];
        at += 1;
    }
    twice
};

fn times() -> Vec<(String, &'static str, Lines)> {
    [
        ("exp half a minute ago, less a second: within the leeway", json!({"exp": NOW - 29}), "workload"),
        ("exp half a minute ago", json!({"exp": NOW - 30}), "invalid"),
        ("exp an hour ago", json!({"exp": NOW - 3600}), "invalid"),
        ("exp with a fraction", json!({"exp": NOW as f64 + 0.5}), "workload"),
        ("exp as a text", json!({"exp": (NOW + 300).to_string()}), "invalid"),
        ("exp as a list", json!({"exp": [NOW + 300]}), "invalid"),
        ("exp true", json!({"exp": true}), "invalid"),
        ("exp negative", json!({"exp": -1}), "invalid"),
        ("exp zero", json!({"exp": 0}), "invalid"),
        ("no exp", json!({"exp": null}), "invalid"),
        ("nbf in half a minute: within the leeway", json!({"nbf": NOW + 30}), "workload"),
        ("nbf in 31 seconds", json!({"nbf": NOW + 31}), "invalid"),
        ("nbf as a text", json!({"nbf": "0"}), "invalid"),
        ("nbf beyond all bounds", json!({"nbf": 1e300}), "invalid"),
        ("iat in half a minute: within the leeway", json!({"iat": NOW + 30}), "workload"),
        ("iat in 31 seconds", json!({"iat": NOW + 31}), "invalid"),
        ("iat as a text", json!({"iat": "yesterday"}), "invalid"),
        ("no iat", json!({"iat": null}), "workload"),
    ]
    .into_iter()
    .map(|(name, changes, verdict)| (name.to_owned(), verdict, bearer(&of_claims(changes))))
    .chain([
        ("exp beyond all numbers".to_owned(), "invalid", bearer(&of_text(&format!("{}", NOW + 300), "1e999"))),
        ("exp is null".to_owned(), "invalid", bearer(&of_text(&format!("{}", NOW + 300), "null"))),
        ("exp is NaN".to_owned(), "invalid", bearer(&of_text(&format!("{}", NOW + 300), "NaN"))),
    ])
    .collect()
}

fn names() -> Vec<(String, &'static str, Lines)> {
    let issuers = [
        ("a slash more", format!("{URL}/")),
        ("a slash less", URL.trim_end_matches("/tenant").to_owned()),
        ("in capitals", URL.to_uppercase()),
        ("the host in capitals", URL.replace("idp.example.test", "IDP.example.test")),
        ("with its port", URL.replace(".test/", ".test:443/")),
        ("with user information", URL.replace("https://", "https://idp.example.test@")),
        ("http", URL.replace("https", "http")),
        ("with a query", format!("{URL}?")),
        ("with a fragment", format!("{URL}#")),
        ("with a dot segment", URL.replace("/tenant", "/./tenant")),
        ("percent-encoded", URL.replace("/tenant", "/%74enant")),
        ("a longer host", URL.replace(".test/", ".test.evil.test/")),
        ("a Cyrillic letter", URL.replace("example", "ex\u{0430}mple")),
        ("with a space", format!(" {URL}")),
        ("with a NUL", format!("{URL}\u{0}")),
        ("its name in the configuration", "idp".to_owned()),
        ("nothing", String::new()),
    ];
    let audiences = [
        ("a prefix", json!("https://stepgate.example")),
        ("a longer one", json!(format!("{AUDIENCE}/"))),
        ("in capitals", json!(AUDIENCE.to_uppercase())),
        ("an empty text", json!("")),
        ("an empty list", json!([])),
        ("a list in a list", json!([[AUDIENCE]])),
        ("a list with a number", json!([AUDIENCE, 7])),
        ("an object", json!({AUDIENCE: true})),
        ("a number", json!(7)),
        ("several in one text", json!(format!("other {AUDIENCE}"))),
        ("somebody else", json!("https://other.example.test")),
    ];
    let mut rows = Vec::new();
    for (name, url) in issuers {
        rows.push((format!("iss: {name}"), "invalid", bearer(&of_claims(json!({"iss": url})))));
    }
    for (name, value) in [("a list", json!([URL])), ("an object", json!({"url": URL})), ("absent", Value::Null)] {
        rows.push((format!("iss: {name}"), "invalid", bearer(&of_claims(json!({"iss": value})))));
    }
    for (name, audience) in audiences {
        rows.push((format!("aud: {name}"), "invalid", bearer(&of_claims(json!({"aud": audience})))));
    }
    rows.push(("aud: absent".to_owned(), "invalid", bearer(&of_claims(json!({"aud": null})))));
    let among = json!(["https://other.example.test", AUDIENCE]);
    rows.push(("aud: one of a list".to_owned(), "workload", bearer(&of_claims(json!({"aud": among})))));
    rows
}

fn carriers() -> Vec<(String, &'static str, Lines)> {
    let token = good(Algorithm::RS256);
    let (bearer, aad) = (format!("Bearer {token}"), format!("type=aad&ver=1.0&sig={token}"));
    let line = |name: &'static str, value: &str| (name, value.as_bytes().to_vec());
    let authorization = |value: &str| vec![line("authorization", value)];
    let own = |value: &str| vec![line("x-stepgate-token", value)];
    let both = |value: &str| vec![line("authorization", value), line("x-stepgate-token", &token)];
    let encoded = aad.replace('=', "%3D").replace('&', "%26");
    [
        ("bearer in capitals", authorization(&format!("BEARER {token}")), "workload"),
        ("several spaces", authorization(&format!("Bearer    {token}  ")), "workload"),
        ("a tab instead of the space", authorization(&format!("Bearer\t{token}")), "invalid"),
        ("no space", authorization(&format!("Bearer{token}")), "invalid"),
        ("the token without a scheme", authorization(&token), "invalid"),
        ("Basic with the token", authorization(&format!("Basic {token}")), "invalid"),
        ("DPoP with the token", authorization(&format!("DPoP {token}")), "invalid"),
        ("the scheme alone", authorization("Bearer"), "invalid"),
        ("two words", authorization(&format!("Bearer {token} {token}")), "invalid"),
        ("in quotes", authorization(&format!("Bearer \"{token}\"")), "invalid"),
        ("a parameter behind it", authorization(&format!("Bearer {token};x=1")), "invalid"),
        ("two tokens joined by a proxy", authorization(&format!("{bearer}, {bearer}")), "rejected"),
        ("Authorization twice", [authorization(&bearer), authorization(&bearer)].concat(), "rejected"),
        ("Authorization twice, the second empty", [authorization(&bearer), authorization("")].concat(), "rejected"),
        ("x-stepgate-token", own(&token), "workload"),
        ("x-stepgate-token with a scheme", own(&bearer), "invalid"),
        ("x-stepgate-token twice", [own(&token), own(&token)].concat(), "rejected"),
        ("an empty x-stepgate-token", own(""), "invalid"),
        ("two carriers", both(&bearer), "rejected"),
        ("two carriers, the first forged", both("Bearer a.b.c"), "rejected"),
        ("two carriers, the first as an SDK sends it", both(&aad), "rejected"),
        ("a connection's own header beside it", both("Basic dTpw"), "workload"),
        ("an account key's signature beside it", both("type=master&ver=1.0&sig=AAAA"), "workload"),
        ("as an SDK sends it", authorization(&aad), "workload"),
        ("as an SDK sends it, encoded", authorization(&encoded), "workload"),
        ("as an SDK sends it, encoded twice", authorization(&encoded.replace('%', "%25")), "invalid"),
        ("as an SDK sends it, in another order", authorization(&format!("ver=1.0&type=aad&sig={token}")), "invalid"),
        ("as an SDK sends it, with two signatures", authorization(&format!("{aad}&sig={token}")), "invalid"),
        ("as an SDK sends it, another version", authorization(&aad.replace("1.0", "2.0")), "invalid"),
        ("a resource token's form", authorization(&aad.replace("aad", "resource")), "invalid"),
        ("an account key's form", authorization(&aad.replace("aad", "master")), "invalid"),
        ("bytes that are no text", vec![("authorization", b"Bearer \xff\xfe".to_vec())], "invalid"),
        ("a token in a cookie", vec![line("cookie", &format!("token={token}"))], "invalid"),
        ("a token in proxy-authorization", vec![line("proxy-authorization", &bearer)], "invalid"),
        ("no token", Vec::new(), "invalid"),
    ]
    .into_iter()
    .map(|(name, lines, verdict)| (name.to_owned(), verdict, lines))
    .collect()
}

#[tokio::test]
async fn the_attack_matrix() {
    let room = room();
    let groups = [
        ("algorithms", algorithms()),
        ("keys", keys()),
        ("forms", forms()),
        ("times", times()),
        ("issuers and audiences", names()),
        ("carriers", carriers()),
    ];
    let (mut table, mut wrong, mut refused) = (String::new(), Vec::new(), 0);
    for (title, rows) in groups {
        table.push_str(&format!("{title}\n"));
        for (name, expected, lines) in rows {
            let verdict = present(&room, &lines).await;
            if word(&verdict) != expected {
                wrong.push(format!("{title}, {name}: {}, {}", word(&verdict), reason(&verdict)));
            }
            refused += usize::from(verdict.is_err());
            table.push_str(&format!("  {expected:<9} {name}\n            {}\n", reason(&verdict)));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(refused >= 150, "{refused} refusals");
    is_golden("identity-attacks.txt", &table);
}

/// The same name written in another way that JSON allows is the same name: nothing is told apart by its spelling.
#[tokio::test]
async fn an_escaped_name_is_the_name() {
    let room = room();
    let verdict = present(&room, &bearer(&of_text("\"token_kind\"", "\"token\\u005fkind\""))).await;
    assert_eq!(word(&verdict), "workload", "{}", reason(&verdict));
    let verdict = present(&room, &bearer(&of_text("\"workload\"", "\"work\\u006coad\""))).await;
    assert_eq!(word(&verdict), "workload", "{}", reason(&verdict));
}

#[tokio::test]
async fn a_token_that_was_believed_is_not_believed_past_its_end() {
    let (room, hand) = notary::room(vec![issuer("idp", URL)]);
    let token = bearer(&good(Algorithm::RS256));
    assert_eq!(word(&present(&room, &token).await), "workload");
    hand.advance(Duration::from_secs(329));
    assert_eq!(word(&present(&room, &token).await), "workload", "within the leeway");
    hand.advance(Duration::from_secs(1));
    assert_eq!(reason(&present(&room, &token).await), "the token has expired");
}

/// An hour without the issuer, on a clock that is moved by hand; its port is closed, so that every fetch fails at once.
#[tokio::test]
async fn while_an_issuer_is_out_its_last_keys_hold_until_they_are_too_old() {
    let config = IssuerConfig {
        jwks_uri: Some("http://127.0.0.1:9/jwks".parse().unwrap()),
        max_staleness: Duration::from_secs(30 * 60),
        ..issuer("idp", URL)
    };
    let (room, hand) = notary::room(vec![config]);
    let serial = std::cell::Cell::new(0);
    // Another token each time, so that none is answered from the cache.
    let ask = async || {
        serial.set(serial.get() + 1);
        present(&room, &bearer(&of_claims(json!({"exp": NOW + 7200, "jti": serial.get()})))).await
    };
    let hour = async {
        for minute in 0..60 {
            let (verdict, usable) = (ask().await, room.status()[0].usable);
            let expected = if minute <= 30 { "workload" } else { "unavailable" };
            assert_eq!((word(&verdict), usable), (expected, minute <= 30), "minute {minute}: {}", reason(&verdict));
            hand.advance(Duration::from_secs(60));
        }
        assert_eq!(reason(&ask().await), "the keys of issuer `idp` cannot be fetched at the moment");
        notary::publish(&room, "idp", &TRUSTED.jwks(""));
        assert_eq!(word(&ask().await), "workload", "no restart is needed");
    };
    tokio::select! {
        () = hour => {}
        () = room.keep_fresh() => unreachable!(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn a_good_token_with_any_byte_changed_is_refused(
        algorithm in prop::sample::select(&Algorithm::ALL[..]), at in any::<prop::sample::Index>(), to in any::<u8>(),
    ) {
        let token = good(algorithm);
        let mut bytes = token.clone().into_bytes();
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != to && (to >= 0x20 && to != 0x7f));
        bytes[at] = to;
        let line = vec![("authorization", [b"Bearer ".as_slice(), &bytes].concat())];
        static ROOM: LazyLock<Identity> = LazyLock::new(room);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let verdict = runtime.block_on(present(&ROOM, &line));
        // Blanks around a token are the header's, not the token's.
        let blank = to == b' ' && (at == 0 || at == bytes.len() - 1);
        prop_assert!(verdict.is_err() || blank, "{algorithm}, byte {at}: {}", reason(&verdict));
    }
}
