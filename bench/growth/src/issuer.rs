//! An issuer of workload tokens.

use aws_lc_rs::{
    rand::{SystemRandom, fill},
    rsa::{KeyPair as RsaKeyPair, KeySize},
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
        RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use serde_json::{Value, json};
use stepgate::clock::Clock;

pub use stepgate::identity::Algorithm;

/// For whom its tokens are.
pub const AUDIENCE: &str = "stepgate";
/// The text of `iss`. Nobody asks there: the room is told where the keys are.
pub const ISSUER: &str = "https://issuer.example";

const LIFETIME: i64 = 12 * 60 * 60;

/// The keys of an issuer, one for each kind of algorithm.
pub struct Issuer {
    rsa: RsaKeyPair,
    p256: EcdsaKeyPair,
    p384: EcdsaKeyPair,
    ed: Ed25519KeyPair,
}

impl Issuer {
    /// An issuer with new keys.
    pub fn new() -> Self {
        let ec = |algorithm| EcdsaKeyPair::generate(algorithm).expect("a key");
        Self {
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).expect("a key"),
            p256: ec(&ECDSA_P256_SHA256_FIXED_SIGNING),
            p384: ec(&ECDSA_P384_SHA384_FIXED_SIGNING),
            ed: Ed25519KeyPair::generate().expect("a key"),
        }
    }

    /// Two issuers with new keys. A signature of the second is below the modulus of the first: it is refused only once it is
    /// computed, where one above it is refused unseen.
    pub fn and_a_rogue() -> (Self, Self) {
        let (one, other) = (Self::new(), Self::new());
        let modulus = |issuer: &Self| issuer.rsa.public_key().modulus().big_endian_without_leading_zero().to_vec();
        if modulus(&one) > modulus(&other) { (one, other) } else { (other, one) }
    }

    /// What it publishes: `others` RSA keys that nobody signs with, and its own behind them.
    pub fn jwks(&self, others: usize) -> String {
        let rsa = |kid: &str, n: &[u8], e: &[u8]| json!({"kty": "RSA", "use": "sig", "kid": kid, "n": encode(n), "e": encode(e)});
        let ec = |kid: &str, curve: &str, pair: &EcdsaKeyPair| {
            // A point is written as one byte of 4 and its two halves.
            let point = pair.public_key().as_ref().get(1..).unwrap_or_default();
            let (x, y) = point.split_at(point.len() / 2);
            json!({"kty": "EC", "kid": kid, "crv": curve, "x": encode(x), "y": encode(y)})
        };
        let public = self.rsa.public_key();
        let (n, e) = (public.modulus(), public.exponent());
        let own = [
            ec("ES256", "P-256", &self.p256),
            ec("ES384", "P-384", &self.p384),
            json!({"kty": "OKP", "kid": "EdDSA", "crv": "Ed25519", "x": encode(self.ed.public_key().as_ref())}),
            rsa("RSA", n.big_endian_without_leading_zero(), e.big_endian_without_leading_zero()),
        ];
        // Any odd number of that length is as good a modulus as another to whoever only looks for a key.
        let other = |number: usize| {
            let mut modulus = [0; 256];
            fill(&mut modulus).expect("randomness");
            let [first, .., last] = &mut modulus;
            (*first, *last) = (*first | 0x80, *last | 1);
            rsa(&format!("other-{number}"), &modulus, &[1, 0, 1])
        };
        let keys: Vec<Value> = (0..others).map(other).chain(own).collect();
        json!({ "keys": keys }).to_string()
    }

    /// A request with a token that says `claims`, of the key for `algorithm`.
    pub fn request(&self, algorithm: Algorithm, claims: &Value) -> HeaderMap {
        let kid = match algorithm {
            Algorithm::ES256 | Algorithm::ES384 | Algorithm::EdDSA => algorithm.as_str(),
            _ => "RSA",
        };
        request(&self.token(algorithm, kid, claims))
    }

    /// The token, with the id of whatever key.
    pub fn token(&self, algorithm: Algorithm, kid: &str, claims: &Value) -> String {
        let header = json!({"alg": algorithm.as_str(), "kid": kid, "typ": "at+jwt"});
        let message = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        let signature = self.signature(algorithm, message.as_bytes());
        format!("{message}.{}", encode(signature))
    }

    fn signature(&self, algorithm: Algorithm, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        let rsa = |encoding: &'static dyn RsaEncoding| {
            let mut signature = vec![0; self.rsa.public_modulus_len()];
            self.rsa.sign(encoding, &random, message, &mut signature).expect("a signature");
            signature
        };
        let ec = |pair: &EcdsaKeyPair| pair.sign(&random, message).expect("a signature").as_ref().to_vec();
        match algorithm {
            Algorithm::RS256 => rsa(&RSA_PKCS1_SHA256),
            Algorithm::PS256 => rsa(&RSA_PSS_SHA256),
            Algorithm::ES256 => ec(&self.p256),
            Algorithm::ES384 => ec(&self.p384),
            Algorithm::EdDSA => self.ed.sign(message).as_ref().to_vec(),
            other => panic!("{other} is not benched"),
        }
    }
}

impl Default for Issuer {
    fn default() -> Self {
        Self::new()
    }
}

/// What the token of the workload with this number says, as long as usual. No two are the same.
pub fn claims(number: usize) -> Value {
    let (client, now) = (format!("workload-{number}"), Clock::System.now().as_secs());
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": client, "client_id": client, "token_kind": "workload",
        "roles": ["cosmos.reader", "cosmos.writer"], "jti": format!("019a8c1e-8f5b-7c60-b5a5-{number:012x}"),
        "iat": now, "exp": now + LIFETIME,
    })
}

/// A request that carries `token`.
pub fn request(token: &str) -> HeaderMap {
    let value = HeaderValue::try_from(format!("Bearer {token}")).expect("a header value");
    HeaderMap::from_iter([(AUTHORIZATION, value)])
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
