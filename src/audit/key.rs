//! The Ed25519 key that signs checkpoints, and the public keys that check them, both as PEM (RFC 8410), so that openssl
//! reads them too.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use aws_lc_rs::{
    digest::{self, SHA256},
    signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use super::journal::AuditError;

/// The SubjectPublicKeyInfo of an Ed25519 key up to the key's own 32 bytes (RFC 8410, section 10.1).
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const PRIVATE: (&str, &str) = ("-----BEGIN PRIVATE KEY-----\n", "\n-----END PRIVATE KEY-----\n");
const PUBLIC: (&str, &str) = ("-----BEGIN PUBLIC KEY-----\n", "\n-----END PUBLIC KEY-----\n");

/// A key file that holds no usable key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyProblem {
    /// Not PEM of the expected kind.
    #[error("it is not PEM of an Ed25519 key")]
    Form,
    /// The key pair is not usable.
    #[error("it is PEM, but of no Ed25519 key")]
    Key,
}

/// The key that signs checkpoints. It has no `Debug` that shows it, and is never serialised but at its making.
pub(super) struct SigningKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({:02x?})", self.public.id())
    }
}

impl SigningKey {
    /// The key in `path`; a new one, written with mode 0600, when the file is absent.
    pub(super) fn load_or_make(path: &Path) -> Result<Self, AuditError> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::from_pem(&Zeroizing::new(text))
                .map_err(|problem| AuditError::Key { file: path.to_owned(), problem }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::make(path),
            Err(source) => Err(AuditError::at(path, "read the signing key", source)),
        }
    }

    fn from_pem(text: &str) -> Result<Self, KeyProblem> {
        let base64 = text.trim_end().strip_prefix(PRIVATE.0.trim_end()).ok_or(KeyProblem::Form)?;
        let base64 = base64.strip_suffix(PRIVATE.1.trim_end()).ok_or(KeyProblem::Form)?;
        let base64: Zeroizing<String> = Zeroizing::new(base64.split_ascii_whitespace().collect());
        let der = Zeroizing::new(STANDARD.decode(base64.as_bytes()).map_err(|_| KeyProblem::Form)?);
        let pair = Ed25519KeyPair::from_pkcs8(&der).map_err(|_| KeyProblem::Key)?;
        Self::from_pair(pair)
    }

    fn from_pair(pair: Ed25519KeyPair) -> Result<Self, KeyProblem> {
        let public = pair.public_key().as_ref().try_into().map_err(|_| KeyProblem::Key)?;
        Ok(Self { pair, public: PublicKey(public) })
    }

    fn make(path: &Path) -> Result<Self, AuditError> {
        let unusable = |problem| AuditError::Key { file: path.to_owned(), problem };
        let pair = Ed25519KeyPair::generate().map_err(|_| unusable(KeyProblem::Key))?;
        let der = pair.to_pkcs8v1().map_err(|_| unusable(KeyProblem::Key))?;
        let base64 = Zeroizing::new(STANDARD.encode(der.as_ref()));
        let pem = Zeroizing::new(format!("{}{}{}", PRIVATE.0, *base64, PRIVATE.1));
        let failed = |source| AuditError::at(path, "make the signing key", source);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
        file.write_all(pem.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
        }
        Self::from_pair(pair).map_err(unusable)
    }

    pub(super) fn public(&self) -> PublicKey {
        self.public
    }

    pub(super) fn sign(&self, message: &[u8]) -> Option<[u8; 64]> {
        self.pair.try_sign(message).ok()?.as_ref().try_into().ok()
    }
}

/// A key that checks checkpoints.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// The name of the key in a signature line, with the algorithm's byte (C2SP signed-note, "Ed25519 signatures").
    pub(super) fn id(&self) -> [u8; 4] {
        let mut input = Vec::with_capacity(64);
        input.extend_from_slice(super::checkpoint::ORIGIN.as_bytes());
        input.extend_from_slice(b"\n\x01");
        input.extend_from_slice(&self.0);
        let mut id = [0; 4];
        id.iter_mut().zip(digest::digest(&SHA256, &input).as_ref()).for_each(|(to, from)| *to = *from);
        id
    }

    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(message, signature).is_ok()
    }

    pub(super) fn to_pem(self) -> String {
        let mut der = SPKI.to_vec();
        der.extend_from_slice(&self.0);
        format!("{}{}{}", PUBLIC.0, STANDARD.encode(der), PUBLIC.1)
    }
}

/// The public keys of a PEM file: more than one when the signing key was changed during the log's life.
pub(super) fn read_public_keys(text: &str) -> Result<Vec<PublicKey>, KeyProblem> {
    let mut keys = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (base64, after) =
            rest.strip_prefix(PUBLIC.0).and_then(|rest| rest.split_once(PUBLIC.1)).ok_or(KeyProblem::Form)?;
        let der = STANDARD.decode(base64).map_err(|_| KeyProblem::Form)?;
        let key = der.strip_prefix(&SPKI).and_then(|key| key.try_into().ok()).ok_or(KeyProblem::Key)?;
        keys.push(PublicKey(key));
        rest = after;
    }
    if keys.is_empty() { Err(KeyProblem::Form) } else { Ok(keys) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_made_once_for_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("signing.key");
        let made = SigningKey::load_or_make(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let loaded = SigningKey::load_or_make(&path).unwrap();
        assert_eq!(made.public(), loaded.public());
        let signature = made.sign(b"text").unwrap();
        assert!(loaded.public().verifies(b"text", &signature));
        assert!(!loaded.public().verifies(b"texts", &signature));
    }

    #[test]
    fn a_file_that_is_no_key_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("signing.key");
        std::fs::write(&path, "hunter2").unwrap();
        let error = SigningKey::load_or_make(&path).unwrap_err();
        assert!(error.to_string().contains("signing.key"), "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }

    #[test]
    fn public_keys_round_trip_through_pem() {
        let keys = [PublicKey([7; 32]), PublicKey([9; 32])];
        let text: String = keys.iter().map(|key| key.to_pem()).collect();
        assert_eq!(read_public_keys(&text).unwrap(), keys);
        assert_eq!(read_public_keys(""), Err(KeyProblem::Form));
        assert_eq!(read_public_keys("x"), Err(KeyProblem::Form));
    }
}
