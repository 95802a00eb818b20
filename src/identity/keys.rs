//! One issuer's verification keys, as one complete set.

use std::sync::Arc;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384,
    RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents, VerificationAlgorithm,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{
    DecodingKey, DecodingKeyKind,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::Value;

use super::config::Algorithm;
use crate::clock::Timestamp;

/// A key that can verify signatures.
#[derive(Debug)]
pub(super) struct Key {
    jwk: Jwk,
    /// One for each algorithm that the key may verify, parsed when the key is fetched: `jsonwebtoken` parses it again for each
    /// signature, which is a good part of what an RSA signature costs.
    parsed: Vec<(Algorithm, ParsedPublicKey)>,
    first_seen: Timestamp,
}

impl Key {
    /// The key that a JWK stands for; `None` for kinds of keys that no accepted algorithm uses, and for what is no such key.
    fn new(jwk: Jwk, first_seen: Timestamp) -> Option<Self> {
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        let fitting = Algorithm::ALL.into_iter().filter(|algorithm| may_verify(&jwk, *algorithm));
        let parsed: Vec<_> = fitting.filter_map(|algorithm| Some((algorithm, parse(&key, algorithm)?))).collect();
        (!parsed.is_empty()).then_some(Self { jwk, parsed, first_seen })
    }

    pub(super) fn id(&self) -> Option<&str> {
        self.jwk.common.key_id.as_deref()
    }

    pub(super) fn first_seen(&self) -> Timestamp {
        self.first_seen
    }

    /// Whether the key may verify signatures of that algorithm.
    pub(super) fn fits(&self, algorithm: Algorithm) -> bool {
        self.parsed(algorithm).is_some()
    }

    /// Whether `signature` (base64url) is this key's over `message`.
    pub(super) fn verifies(&self, algorithm: Algorithm, message: &str, signature: &str) -> bool {
        let (Some(key), Ok(signature)) = (self.parsed(algorithm), URL_SAFE_NO_PAD.decode(signature)) else {
            return false;
        };
        key.verify_sig(message.as_bytes(), &signature).is_ok()
    }

    fn parsed(&self, algorithm: Algorithm) -> Option<&ParsedPublicKey> {
        self.parsed.iter().find(|(fitting, _)| *fitting == algorithm).map(|(_, key)| key)
    }
}

/// Whether a key is for signatures of that algorithm: its type and curve, and its `alg`, `use` and `key_ops` where it has
/// them (RFC 7517, section 4; AWS publishes an RSA key without `alg`).
fn may_verify(jwk: &Jwk, algorithm: Algorithm) -> bool {
    let common = &jwk.common;
    has_type_for(jwk, algorithm)
        && common.key_algorithm.is_none_or(|named| named == KeyAlgorithm::from(algorithm.for_jsonwebtoken()))
        && common.public_key_use.as_ref().is_none_or(|purpose| *purpose == PublicKeyUse::Signature)
        && common.key_operations.as_ref().is_none_or(|operations| operations.contains(&KeyOperations::Verify))
}

fn has_type_for(jwk: &Jwk, algorithm: Algorithm) -> bool {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    match (&jwk.algorithm, algorithm) {
        (AlgorithmParameters::RSA(_), RS256 | RS384 | RS512 | PS256 | PS384 | PS512) => true,
        (AlgorithmParameters::EllipticCurve(key), ES256) => key.curve == EllipticCurve::P256,
        (AlgorithmParameters::EllipticCurve(key), ES384) => key.curve == EllipticCurve::P384,
        (AlgorithmParameters::OctetKeyPair(key), EdDSA) => key.curve == EllipticCurve::Ed25519,
        _ => false,
    }
}

/// The key as signatures of that algorithm are verified with it. An RSA key of less than 2048 bits is parsed and verifies
/// nothing.
fn parse(key: &DecodingKey, algorithm: Algorithm) -> Option<ParsedPublicKey> {
    let rsa = |parameters: &'static RsaParameters| match key.kind() {
        DecodingKeyKind::RsaModulusExponent { n, e } => {
            RsaPublicKeyComponents { n, e }.to_parsed_public_key(parameters).ok()
        }
        DecodingKeyKind::SecretOrDer(_) => None,
    };
    let point = |algorithm: &'static dyn VerificationAlgorithm| match key.kind() {
        DecodingKeyKind::SecretOrDer(point) => ParsedPublicKey::new(algorithm, point).ok(),
        DecodingKeyKind::RsaModulusExponent { .. } => None,
    };
    match algorithm {
        Algorithm::RS256 => rsa(&RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => rsa(&RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => rsa(&RSA_PKCS1_2048_8192_SHA512),
        Algorithm::PS256 => rsa(&RSA_PSS_2048_8192_SHA256),
        Algorithm::PS384 => rsa(&RSA_PSS_2048_8192_SHA384),
        Algorithm::PS512 => rsa(&RSA_PSS_2048_8192_SHA512),
        Algorithm::ES256 => point(&ECDSA_P256_SHA256_FIXED),
        Algorithm::ES384 => point(&ECDSA_P384_SHA384_FIXED),
        Algorithm::EdDSA => point(&ED25519),
    }
}

/// Why a set has no key for a token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NoKey {
    /// The set has no key of that id, or, for a token without one, none that fits.
    Unknown,
    /// The key of that id is for something else.
    Unfit,
    /// More than one key would do.
    Ambiguous,
}

/// All keys an issuer published at one time; never empty.
#[derive(Debug)]
pub(super) struct KeySet(Vec<Arc<Key>>);

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

impl KeySet {
    /// The set in a JWKS document. Keys of kinds that are not understood are left out (RFC 7517, section 5); `None` when no
    /// key is left or the text is no key set. A key that `previous` had stays the same object, so that its age and the
    /// tokens verified with it live on.
    pub(super) fn parse(document: &[u8], now: Timestamp, previous: Option<&Self>) -> Option<Self> {
        let document: Document = serde_json::from_slice(document).ok()?;
        let jwks = document.keys.into_iter().filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
        let keys: Vec<Arc<Key>> = jwks
            .filter_map(|jwk| match previous.and_then(|set| set.same(&jwk)) {
                Some(known) => Some(Arc::clone(known)),
                None => Key::new(jwk, now).map(Arc::new),
            })
            .collect();
        (!keys.is_empty()).then_some(Self(keys))
    }

    fn same(&self, jwk: &Jwk) -> Option<&Arc<Key>> {
        self.0.iter().find(|key| key.jwk == *jwk)
    }

    /// The one key for a token with this `kid` and algorithm.
    pub(super) fn select(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<Arc<Key>, NoKey> {
        let named: Vec<&Arc<Key>> = self.0.iter().filter(|key| kid.is_none() || key.id() == kid).collect();
        let mut fitting = named.iter().filter(|key| key.fits(algorithm));
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Ok(Arc::clone(key)),
            (Some(_), Some(_)) => Err(NoKey::Ambiguous),
            (None, _) if kid.is_some() && !named.is_empty() => Err(NoKey::Unfit),
            (None, _) => Err(NoKey::Unknown),
        }
    }

    /// Whether `key`, from this set or an earlier one, is still published.
    pub(super) fn holds(&self, key: &Arc<Key>) -> bool {
        self.0.iter().any(|known| Arc::ptr_eq(known, key))
    }

    /// Whether there is a key here that `previous` did not have.
    pub(super) fn has_new(&self, previous: Option<&Self>) -> bool {
        self.0.iter().any(|key| !previous.is_some_and(|previous| previous.holds(key)))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Key> {
        self.0.iter().map(Arc::as_ref)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const EARLY: Timestamp = Timestamp::from_secs(1);
    const LATE: Timestamp = Timestamp::from_secs(2);

    fn set(keys: &Value, previous: Option<&KeySet>, now: Timestamp) -> Option<KeySet> {
        KeySet::parse(json!({ "keys": keys }).to_string().as_bytes(), now, previous)
    }

    fn rsa(kid: &str) -> Value {
        json!({"kty": "RSA", "kid": kid, "n": "u1SU1LfVLPHCozMxH2Mo4lgOEePzNm0tRgeLezV6ffAt0gunVTLw7onLRnrq0_IzW7yWR7QkrmBL7jTKEn5u", "e": "AQAB"})
    }

    fn with(mut key: Value, name: &str, value: Value) -> Value {
        key[name] = value;
        key
    }

    fn ec(kid: &str, curve: &str) -> Value {
        let (x, y) = match curve {
            "P-384" => (
                "qofKIr6LBTeOscce8yCtdG4dO2KLp5uYWfdB4IJUKjhVAvJdv1UpbDpUXjhydgq3",
                "NhfeSpYmLG9dnpi_kpLcKfj0Hb0omhR86doxE7XwuMAKYLHOHX6BnXpDHXyQ6g5f",
            ),
            _ => ("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"),
        };
        json!({"kty": "EC", "kid": kid, "crv": curve, "x": x, "y": y})
    }

    #[test]
    fn what_is_no_key_and_keys_of_unknown_kinds_are_left_out() {
        let odd = json!([
            {"kty": "AKP", "kid": "pq", "alg": "ML-DSA-65", "pub": "AAAA"},
            {"kty": "EC", "kid": "k1", "crv": "secp256k1", "x": "AA", "y": "AA"},
            {"kty": "oct", "kid": "secret", "k": "AAAA"},
            {"kty": "RSA", "kid": 7, "n": "AA", "e": "AQAB"},
            {"kty": "RSA", "kid": "half", "n": "AA"},
            "garbage",
            with(rsa("empty"), "n", json!("")),
            with(ec("beside the curve", "P-256"), "y", json!("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU")),
            with(ec("of another curve", "P-256"), "crv", json!("P-384")),
            {"kty": "OKP", "kid": "short", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQH"},
            with(rsa("enc"), "use", json!("enc")),
            with(rsa("oaep"), "alg", json!("RSA-OAEP")),
            with(rsa("ops"), "key_ops", json!(["wrapKey"])),
            rsa("good"),
        ]);
        let keys = set(&odd, None, EARLY).unwrap();
        assert_eq!(keys.iter().map(Key::id).collect::<Vec<_>>(), [Some("good")]);
    }

    #[test]
    fn a_document_without_usable_keys_is_no_set() {
        for text in ["", "{}", "[]", r#"{"keys":{}}"#, r#"{"keys":[]}"#, r#"{"keys":[{"kty":"oct","k":"AA"}]}"#] {
            assert!(KeySet::parse(text.as_bytes(), EARLY, None).is_none(), "{text}");
        }
    }

    #[test]
    fn a_key_must_fit_the_algorithm() {
        let keys = json!([
            rsa("rsa"),
            with(rsa("rs512"), "alg", json!("RS512")),
            ec("p256", "P-256"),
            ec("p384", "P-384"),
            {"kty": "OKP", "kid": "ed", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
        ]);
        let keys = set(&keys, None, EARLY).unwrap();
        let fitting = |kid: &str| -> Vec<&str> {
            let fits = |algorithm: &Algorithm| keys.select(Some(kid), *algorithm).is_ok();
            Algorithm::ALL.into_iter().filter(fits).map(Algorithm::as_str).collect()
        };
        assert_eq!(fitting("rsa"), ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]);
        assert_eq!(fitting("rs512"), ["RS512"]);
        assert_eq!(fitting("p256"), ["ES256"]);
        assert_eq!(fitting("p384"), ["ES384"]);
        assert_eq!(fitting("ed"), ["EdDSA"]);
        assert_eq!(keys.select(Some("p256"), Algorithm::RS256).unwrap_err(), NoKey::Unfit);
        assert_eq!(keys.select(Some("absent"), Algorithm::RS256).unwrap_err(), NoKey::Unknown);
    }

    #[test]
    fn without_a_kid_exactly_one_key_must_fit() {
        let keys = set(&json!([rsa("a"), ec("b", "P-256"), ec("c", "P-256")]), None, EARLY).unwrap();
        assert_eq!(keys.select(None, Algorithm::RS256).unwrap().id(), Some("a"));
        assert_eq!(keys.select(None, Algorithm::ES256).unwrap_err(), NoKey::Ambiguous);
        assert_eq!(keys.select(None, Algorithm::EdDSA).unwrap_err(), NoKey::Unknown);
    }

    #[test]
    fn a_key_that_stays_keeps_its_age_and_one_that_changed_is_new() {
        let old = set(&json!([rsa("a"), rsa("b")]), None, EARLY).unwrap();
        let a = old.select(Some("a"), Algorithm::RS256).unwrap();
        let b = old.select(Some("b"), Algorithm::RS256).unwrap();
        let changed = with(rsa("b"), "e", json!("Aw"));
        let new = set(&json!([rsa("a"), changed]), Some(&old), LATE).unwrap();
        assert!(new.holds(&a) && !new.holds(&b));
        assert_eq!(new.iter().map(Key::first_seen).collect::<Vec<_>>(), [EARLY, LATE]);
    }

    mod signatures {
        use aws_lc_rs::{
            rand::SystemRandom,
            rsa::KeySize,
            signature::{
                ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
                Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256,
                RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
            },
        };
        use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

        use super::*;

        const MESSAGE: &str = "header.claims";

        fn encode(bytes: &[u8]) -> String {
            URL_SAFE_NO_PAD.encode(bytes)
        }

        fn rsa(pair: &RsaKeyPair, encoding: &'static dyn RsaEncoding) -> (Value, String) {
            let mut signature = vec![0; pair.public_modulus_len()];
            pair.sign(encoding, &SystemRandom::new(), MESSAGE.as_bytes(), &mut signature).unwrap();
            let (n, e) = (pair.public_key().modulus(), pair.public_key().exponent());
            let (n, e) = (n.big_endian_without_leading_zero(), e.big_endian_without_leading_zero());
            (json!({"kty": "RSA", "n": encode(n), "e": encode(e)}), encode(&signature))
        }

        fn ec(algorithm: &'static EcdsaSigningAlgorithm, curve: &str) -> (Value, String) {
            let pair = EcdsaKeyPair::generate(algorithm).unwrap();
            let signature = pair.sign(&SystemRandom::new(), MESSAGE.as_bytes()).unwrap();
            let point = &pair.public_key().as_ref()[1..];
            let (x, y) = point.split_at(point.len() / 2);
            (json!({"kty": "EC", "crv": curve, "x": encode(x), "y": encode(y)}), encode(signature.as_ref()))
        }

        fn ed() -> (Value, String) {
            let pair = Ed25519KeyPair::generate().unwrap();
            let signature = pair.sign(MESSAGE.as_bytes());
            let x = encode(pair.public_key().as_ref());
            (json!({"kty": "OKP", "crv": "Ed25519", "x": x}), encode(signature.as_ref()))
        }

        #[test]
        fn each_algorithm_verifies_its_own_signature_and_no_other() {
            let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
            let made = [
                (Algorithm::RS256, rsa(&pair, &RSA_PKCS1_SHA256)),
                (Algorithm::RS384, rsa(&pair, &RSA_PKCS1_SHA384)),
                (Algorithm::RS512, rsa(&pair, &RSA_PKCS1_SHA512)),
                (Algorithm::PS256, rsa(&pair, &RSA_PSS_SHA256)),
                (Algorithm::PS384, rsa(&pair, &RSA_PSS_SHA384)),
                (Algorithm::PS512, rsa(&pair, &RSA_PSS_SHA512)),
                (Algorithm::ES256, ec(&ECDSA_P256_SHA256_FIXED_SIGNING, "P-256")),
                (Algorithm::ES384, ec(&ECDSA_P384_SHA384_FIXED_SIGNING, "P-384")),
                (Algorithm::EdDSA, ed()),
            ];
            assert_eq!(made.each_ref().map(|(algorithm, _)| *algorithm), Algorithm::ALL);
            for (signed, (jwk, signature)) in &made {
                let keys = set(&json!([jwk]), None, EARLY).unwrap();
                for algorithm in Algorithm::ALL {
                    let key = keys.select(None, algorithm);
                    let verifies = key.is_ok_and(|key| key.verifies(algorithm, MESSAGE, signature));
                    assert_eq!(verifies, algorithm == *signed, "{signed} as {algorithm}");
                }
                let key = keys.select(None, *signed).unwrap();
                assert!(!key.verifies(*signed, "header.other", signature), "{signed}");
            }
        }
    }
}
