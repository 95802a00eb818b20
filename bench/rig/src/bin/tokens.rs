//! Makes an RS256 key and tokens: `tokens DIRECTORY ISSUER AUDIENCE COUNT`.
//!
//! The directory gets `pub.pem`, `jwks.json`, the tokens `good`, `expired` and `rogue` (right in everything but the key that
//! signed it), and `fresh`: COUNT good ones that differ, one a line. The private keys are not kept.

use std::{
    error::Error,
    fs,
    io::{BufWriter, Write as _},
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    encoding::{AsDer as _, PublicKeyX509Der},
    rand::SystemRandom,
    rsa::{KeyPair, KeySize},
    signature::{KeyPair as _, RSA_PKCS1_SHA256},
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};

const KID: &str = "bench-1";
const LIFETIME: u64 = 12 * 60 * 60;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, issuer, audience, count] = arguments.as_slice() else {
        return Err("usage: tokens DIRECTORY ISSUER AUDIENCE COUNT".into());
    };
    let (directory, count) = (Path::new(directory), count.parse::<u64>()?);
    #[allow(clippy::disallowed_methods, reason = "a program beside the gateway, whose tokens are valid now")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let claims = |jti: &str, issued: u64| {
        json!({
            "iss": issuer, "aud": audience, "sub": "bench-workload", "client_id": "bench-workload", "token_kind": "workload",
            "roles": ["cosmos.reader", "cosmos.writer"], "jti": jti, "iat": issued, "exp": issued + LIFETIME,
        })
    };
    let (key, rogue) = (KeyPair::generate(KeySize::Rsa2048)?, KeyPair::generate(KeySize::Rsa2048)?);
    fs::write(directory.join("jwks.json"), jwks(&key).to_string())?;
    fs::write(directory.join("pub.pem"), pem(&key)?)?;
    fs::write(directory.join("good"), token(&key, &claims("good", now))?)?;
    fs::write(directory.join("expired"), token(&key, &claims("expired", now - 2 * LIFETIME))?)?;
    fs::write(directory.join("rogue"), token(&rogue, &claims("rogue", now))?)?;
    let mut fresh = BufWriter::new(fs::File::create(directory.join("fresh"))?);
    for number in 0..count {
        writeln!(fresh, "{}", token(&key, &claims(&number.to_string(), now))?)?;
    }
    Ok(fresh.flush()?)
}

fn token(key: &KeyPair, claims: &Value) -> Result<String, Box<dyn Error>> {
    let header = json!({"alg": "RS256", "kid": KID, "typ": "at+jwt"});
    let message =
        format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature)?;
    Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

fn jwks(key: &KeyPair) -> Value {
    let public = key.public_key();
    let number = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    json!({"keys": [{
        "kty": "RSA", "use": "sig", "alg": "RS256", "kid": KID,
        "n": number(public.modulus().big_endian_without_leading_zero()),
        "e": number(public.exponent().big_endian_without_leading_zero()),
    }]})
}

fn pem(key: &KeyPair) -> Result<String, Box<dyn Error>> {
    let der: PublicKeyX509Der<'_> = key.public_key().as_der()?;
    Ok(format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines(&STANDARD.encode(der.as_ref()))))
}

/// RFC 7468: at most 64 characters on a line.
fn lines(text: &str) -> String {
    text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect::<Vec<_>>().join("\n")
}
