//! Text that must not be seen: redacted `Debug`, no `Display`, no `Serialize`, wiped when dropped.

use std::{error::Error, fmt, sync::Arc};

use azure_core::credentials::TokenCredential;
use azure_data_cosmos::{AccountEndpoint, AccountReference};
use futures_util::future::BoxFuture;
use zeroize::Zeroizing;

/// A secret text. Printing it prints `[redacted]`; reading it takes the word [`Secret::expose`], which a reviewer can find.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the text; the copy kept here is wiped on drop.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `other` is the same text, compared in constant time.
    pub fn matches(&self, other: &str) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(self.0.as_bytes(), other.as_bytes()).is_ok()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Why the account key cannot be read.
pub type KeyError = Box<dyn Error + Send + Sync>;

/// What opens the account to a client of its own.
#[derive(Clone)]
pub enum AccountCredential {
    /// The account key.
    Key(Secret),
    /// An Entra credential, for accounts that take no keys.
    Entra(Arc<dyn TokenCredential>),
}

impl AccountCredential {
    /// The account at `endpoint`, opened by this.
    pub fn open(&self, endpoint: AccountEndpoint) -> AccountReference {
        match self {
            Self::Key(key) => AccountReference::with_authentication_key(endpoint, key.expose().to_owned()),
            Self::Entra(credential) => AccountReference::with_credential(endpoint, Arc::clone(credential)),
        }
    }

    /// The key, where it is one.
    pub fn into_key(self) -> Option<Secret> {
        match self {
            Self::Key(key) => Some(key),
            Self::Entra(_) => None,
        }
    }
}

/// A credential on its way.
pub type Reading = BoxFuture<'static, Result<AccountCredential, KeyError>>;

/// Reads the account key that is in use, or what stands in for it. A function, since the key is one room's, and those that keep something in Cosmos
/// know nothing of that room.
#[derive(Clone)]
pub struct AccountKeyReader(Arc<dyn Fn(Option<Secret>) -> Reading + Send + Sync>);

impl AccountKeyReader {
    /// A reader that calls `read` whenever a client has to be made, with the key that Cosmos has just refused, if one.
    pub fn new<R>(read: R) -> Self
    where
        R: Fn(Option<Secret>) -> Reading + Send + Sync + 'static,
    {
        Self(Arc::new(read))
    }

    /// The credential; another key than `refused`, if the source has one.
    pub fn read(&self, refused: Option<Secret>) -> Reading {
        (self.0)(refused)
    }
}

impl fmt::Debug for AccountKeyReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccountKeyReader")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_print() {
        assert_eq!(format!("{:?}", Secret::new("hunter2".into())), "[redacted]");
    }

    #[test]
    fn a_secret_matches_itself_only() {
        let secret = Secret::new("hunter2".into());
        assert!(secret.matches("hunter2"));
        assert!(!secret.matches("hunter"));
        assert!(!secret.matches("hunter3"));
    }
}
