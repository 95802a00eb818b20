//! The issuer's key pairs, made at start-up and never written down.
//!
//! They sign through aws-lc-rs itself: a generated RSA pair cannot be handed to `jsonwebtoken`, which wants PKCS #1 where
//! aws-lc-rs writes PKCS #8, and the verifying side then meets signatures that its own library did not make.

use aws_lc_rs::{
    encoding::{AsDer as _, PublicKeyX509Der},
    error::Unspecified,
    hmac,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair},
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::config::dev::SigningAlgorithm;

/// The cryptographic library refused to make a key or a signature.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the cryptographic library could not make a key or a signature")]
pub struct SigningError;

impl From<Unspecified> for SigningError {
    fn from(_: Unspecified) -> Self {
        Self
    }
}

/// A key pair with its id.
#[derive(Debug)]
pub(super) struct SigningKey {
    /// Fresh with every key, so that a gateway that outlives the issuer never takes a new key for the old one.
    pub(super) kid: String,
    pair: Pair,
}

#[derive(Debug)]
enum Pair {
    Rsa(Box<RsaKeyPair>),
    P256(EcdsaKeyPair),
}

/// How a token is to be signed; all but the first on purpose wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Signature {
    /// As the key does.
    Proper,
    /// Not at all.
    Empty,
    /// HMAC-SHA-256 with the public key's PEM text as the secret.
    HmacWithPem,
    /// The same with its DER form.
    HmacWithDer,
}

impl SigningKey {
    pub(super) fn generate(algorithm: SigningAlgorithm) -> Result<Self, SigningError> {
        let pair = match algorithm {
            SigningAlgorithm::RS256 => Pair::Rsa(Box::new(RsaKeyPair::generate(KeySize::Rsa2048)?)),
            SigningAlgorithm::ES256 => Pair::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?),
        };
        let kid = format!("{}-{}", algorithm.as_str().to_ascii_lowercase(), Uuid::new_v4().simple());
        Ok(Self { kid, pair })
    }

    pub(super) fn algorithm(&self) -> SigningAlgorithm {
        match self.pair {
            Pair::Rsa(_) => SigningAlgorithm::RS256,
            Pair::P256(_) => SigningAlgorithm::ES256,
        }
    }

    /// A token in compact form (RFC 7515, section 7.1).
    pub(super) fn token(
        &self,
        header: &Map<String, Value>,
        claims: &Map<String, Value>,
        signature: Signature,
    ) -> Result<String, SigningError> {
        let part = |members: &Map<String, Value>| URL_SAFE_NO_PAD.encode(Value::Object(members.clone()).to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let signature = match signature {
            Signature::Proper => self.sign(message.as_bytes())?,
            Signature::Empty => Vec::new(),
            Signature::HmacWithPem => hmac_sha256(self.public_pem()?.as_bytes(), &message),
            Signature::HmacWithDer => hmac_sha256(self.public_der()?.as_ref(), &message),
        };
        Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SigningError> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)?;
                Ok(signature)
            }
            Pair::P256(pair) => Ok(pair.sign(&random, message)?.as_ref().to_vec()),
        }
    }

    /// The public half as a JWK (RFC 7517).
    pub(super) fn jwk(&self) -> Value {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = match &self.pair {
            Pair::Rsa(pair) => {
                let key = pair.public_key();
                json!({
                    "kty": "RSA",
                    "n": encode(key.modulus().big_endian_without_leading_zero()),
                    "e": encode(key.exponent().big_endian_without_leading_zero()),
                })
            }
            Pair::P256(pair) => {
                // SEC 1, section 2.3.3: a point is 04, then both coordinates.
                let coordinates = pair.public_key().as_ref().get(1..).unwrap_or_default();
                let (x, y) = coordinates.split_at(coordinates.len() / 2);
                json!({"kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y)})
            }
        };
        if let Value::Object(members) = &mut jwk {
            members.insert("kid".to_owned(), self.kid.clone().into());
            members.insert("use".to_owned(), "sig".into());
            members.insert("alg".to_owned(), self.algorithm().as_str().into());
        }
        jwk
    }

    fn public_der(&self) -> Result<PublicKeyX509Der<'static>, SigningError> {
        Ok(match &self.pair {
            Pair::Rsa(pair) => pair.public_key().as_der()?,
            Pair::P256(pair) => pair.public_key().as_der()?,
        })
    }

    fn public_pem(&self) -> Result<String, SigningError> {
        let text = STANDARD.encode(self.public_der()?.as_ref());
        let lines: Vec<&str> =
            text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap_or_default()).collect();
        Ok(format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n")))
    }
}

fn hmac_sha256(key: &[u8], message: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message.as_bytes()).as_ref().to_vec()
}
