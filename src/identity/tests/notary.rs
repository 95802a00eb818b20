//! Signs whatever it is asked to, as issuers, attackers and broken libraries would.

use std::sync::LazyLock;

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    rsa::{KeyPair as RsaKeyPair, KeySize},
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
        EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512,
        RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::super::{Identity, IssuerConfig, config::Algorithm, keys::KeySet};
use crate::{
    clock::{Clock, ManualClock, Timestamp},
    transport::Transport,
};

/// The time at which every token of these tests is looked at.
pub(super) const NOW: i64 = 1_795_375_762;

/// The keys of one issuer, one for each kind of algorithm.
pub(super) struct Notary {
    rsa: RsaKeyPair,
    p256: EcdsaKeyPair,
    p256_der: EcdsaKeyPair,
    p384: EcdsaKeyPair,
    ed: Ed25519KeyPair,
}

/// The trusted one, and one whose keys no issuer publishes.
pub(super) static TRUSTED: LazyLock<Notary> = LazyLock::new(Notary::new);
pub(super) static ROGUE: LazyLock<Notary> = LazyLock::new(Notary::new);

impl Notary {
    fn new() -> Self {
        let p256 = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let pkcs8 = p256.to_pkcs8v1().unwrap();
        Self {
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
            p256,
            p256_der: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref()).unwrap(),
            p384: ec(&ECDSA_P384_SHA384_FIXED_SIGNING),
            ed: Ed25519KeyPair::generate().unwrap(),
        }
    }

    /// What the issuer publishes; key ids begin with `prefix`.
    pub(super) fn jwks(&self, prefix: &str) -> Value {
        let rsa = self.rsa.public_key();
        let n = encode(rsa.modulus().big_endian_without_leading_zero());
        let e = encode(rsa.exponent().big_endian_without_leading_zero());
        let ec = |pair: &EcdsaKeyPair, kid: &str, curve: &str| {
            let (x, y) = pair.public_key().as_ref()[1..].split_at((pair.public_key().as_ref().len() - 1) / 2);
            json!({"kty": "EC", "kid": format!("{prefix}{kid}"), "crv": curve, "x": encode(x), "y": encode(y)})
        };
        json!({"keys": [
            {"kty": "RSA", "kid": format!("{prefix}rsa"), "use": "sig", "n": n, "e": e},
            ec(&self.p256, "p256", "P-256"),
            ec(&self.p384, "p384", "P-384"),
            {"kty": "OKP", "kid": format!("{prefix}ed"), "crv": "Ed25519", "x": encode(self.ed.public_key().as_ref())},
        ]})
    }

    /// The RSA public key as it would lie in a file.
    pub(super) fn public_der(&self) -> Vec<u8> {
        use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
        let der: PublicKeyX509Der<'_> = self.rsa.public_key().as_der().unwrap();
        der.as_ref().to_vec()
    }

    pub(super) fn public_pem(&self) -> String {
        let base64 = base64::engine::general_purpose::STANDARD.encode(self.public_der());
        let lines: Vec<&str> = base64.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
    }

    fn rsa_signature(&self, encoding: &'static dyn RsaEncoding, message: &[u8]) -> Vec<u8> {
        let mut signature = vec![0; self.rsa.public_modulus_len()];
        self.rsa.sign(encoding, &SystemRandom::new(), message, &mut signature).unwrap();
        signature
    }

    pub(super) fn signature(&self, algorithm: Algorithm, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match algorithm {
            Algorithm::RS256 => self.rsa_signature(&RSA_PKCS1_SHA256, message),
            Algorithm::RS384 => self.rsa_signature(&RSA_PKCS1_SHA384, message),
            Algorithm::RS512 => self.rsa_signature(&RSA_PKCS1_SHA512, message),
            Algorithm::PS256 => self.rsa_signature(&RSA_PSS_SHA256, message),
            Algorithm::PS384 => self.rsa_signature(&RSA_PSS_SHA384, message),
            Algorithm::PS512 => self.rsa_signature(&RSA_PSS_SHA512, message),
            Algorithm::ES256 => self.p256.sign(&random, message).unwrap().as_ref().to_vec(),
            Algorithm::ES384 => self.p384.sign(&random, message).unwrap().as_ref().to_vec(),
            Algorithm::EdDSA => self.ed.sign(message).as_ref().to_vec(),
        }
    }

    /// An ECDSA signature as X.509 writes it, and JWS does not.
    pub(super) fn der_signature(&self, message: &[u8]) -> Vec<u8> {
        self.p256_der.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
    }
}

fn ec(algorithm: &'static EcdsaSigningAlgorithm) -> EcdsaKeyPair {
    EcdsaKeyPair::generate(algorithm).unwrap()
}

/// The `kid` under which [`Notary::jwks`] publishes the key for `algorithm`.
pub(super) fn kid(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::ES256 => "p256",
        Algorithm::ES384 => "p384",
        Algorithm::EdDSA => "ed",
        _ => "rsa",
    }
}

pub(super) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A token in compact form over these exact bytes.
pub(super) fn compact(header: &[u8], claims: &[u8], sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", encode(header), encode(claims));
    let signature = sign(message.as_bytes());
    format!("{message}.{}", encode(&signature))
}

/// HMAC-SHA-256 with `secret`, as a library signs that takes a public key for a shared one.
pub(super) fn hmac256(secret: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message).as_ref().to_vec()
}

/// A token of the trusted notary.
pub(super) fn token(claims: &Value) -> String {
    let header = json!({"alg": "RS256", "typ": "JWT", "kid": "rsa"});
    compact(header.to_string().as_bytes(), claims.to_string().as_bytes(), |message| {
        TRUSTED.signature(Algorithm::RS256, message)
    })
}

/// A room that trusts `issuers`, all of which publish the trusted notary's keys, at the time [`NOW`].
pub(super) fn room(issuers: Vec<IssuerConfig>) -> (Identity, ManualClock) {
    let now = Timestamp::from_secs(NOW);
    let hand = ManualClock::new(now);
    let transport = Transport::new(None).unwrap();
    let room = Identity::new(issuers, transport, Clock::Manual(hand.clone())).unwrap();
    for issuer in &room.issuers {
        publish(&room, issuer.config().name.as_str(), &TRUSTED.jwks(""));
    }
    (room, hand)
}

/// Publishes other keys at the issuer called `name`.
pub(super) fn publish(room: &Identity, name: &str, jwks: &Value) {
    let issuer = room.issuers.iter().find(|issuer| issuer.config().name.as_str() == name).unwrap();
    let keys = KeySet::parse(jwks.to_string().as_bytes(), Timestamp::from_secs(NOW), None).unwrap();
    issuer.keys().install(keys);
}
