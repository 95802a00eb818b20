//! The keys that markers are sealed with.
//!
//! With keys of their own, a fleet shares a file: its first line seals, every line is believed, so a key is changed by
//! putting a new one on top and taking the old one away once its last marker has expired. Without, a key is derived from
//! the account key, which every replica has. That one may be rotated at any time: the keys of the last few account keys that
//! this process has seen are believed too, but a process that starts after a rotation has seen one only.

use std::{error::Error, sync::Arc};

use arc_swap::ArcSwap;
use aws_lc_rs::hmac;

use super::key::digest;
use crate::secret::{AccountKeyReader, Secret};

/// What separates this use of a secret from every other.
const LABEL: &[u8] = b"stepgate idempotency marker v1";
/// How many account keys are remembered: the account has two, and each may change once while markers stand.
const MOST: usize = 4;

/// A key, and the name under which markers refer to it.
#[derive(Debug)]
pub(super) struct MacKey {
    name: String,
    key: hmac::Key,
}

impl MacKey {
    /// The key that is derived from a text.
    pub(super) fn of(secret: &Secret) -> Self {
        let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes()), LABEL);
        let name: String = digest(&[b"name", derived.as_ref()]).chars().take(16).collect();
        Self { name, key: hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()) }
    }

    /// How markers call it; nothing of the key can be told from it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The MAC over texts, each after its length.
    pub(super) fn seal(&self, parts: &[&str]) -> String {
        hex::encode(hmac::sign(&self.key, &message(parts)))
    }

    /// Whether `mac` is what [`seal`](Self::seal) gives.
    pub(super) fn holds(&self, parts: &[&str], mac: &str) -> bool {
        let bytes: Option<Vec<u8>> = mac.as_bytes().chunks(2).map(byte).collect();
        bytes.is_some_and(|mac| hmac::verify(&self.key, &message(parts), &mac).is_ok())
    }
}

fn message(parts: &[&str]) -> Vec<u8> {
    parts.iter().flat_map(|part| [&(part.len() as u64).to_be_bytes()[..], part.as_bytes()].concat()).collect()
}

fn byte(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// The keys at hand, the one that seals first.
#[derive(Debug)]
pub(super) struct MacKeys {
    keys: ArcSwap<Vec<Arc<MacKey>>>,
    /// Where the sealing key comes from, unless it is fixed.
    account: Option<AccountKeyReader>,
}

impl MacKeys {
    pub(super) fn fixed(keys: &[Secret]) -> Self {
        let keys = keys.iter().map(|secret| Arc::new(MacKey::of(secret))).collect();
        Self { keys: ArcSwap::from_pointee(keys), account: None }
    }

    pub(super) fn of_account(reader: AccountKeyReader) -> Self {
        Self { keys: ArcSwap::default(), account: Some(reader) }
    }

    /// The keys as they are now.
    pub(super) async fn at_hand(&self) -> Result<Arc<Vec<Arc<MacKey>>>, Box<dyn Error + Send + Sync>> {
        let Some(account) = &self.account else { return Ok(self.keys.load_full()) };
        let key = account.read(None).await?.into_key().ok_or("the account takes no keys; set `idempotency.key`")?;
        let newest = Arc::new(MacKey::of(&key));
        let held = self.keys.load_full();
        if held.first().is_some_and(|first| first.name == newest.name) {
            return Ok(held);
        }
        let older = held.iter().filter(|key| key.name != newest.name).take(MOST - 1).cloned();
        let keys = Arc::new(std::iter::once(newest.clone()).chain(older).collect());
        self.keys.store(Arc::clone(&keys));
        Ok(keys)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::secret::AccountCredential;

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    #[test]
    fn a_mac_holds_for_its_own_texts_and_key_alone() {
        let key = MacKey::of(&secret("one"));
        let mac = key.seal(&["a", "bc"]);
        assert!(key.holds(&["a", "bc"], &mac));
        assert!(!key.holds(&["ab", "c"], &mac), "where a text ends counts");
        assert!(!MacKey::of(&secret("two")).holds(&["a", "bc"], &mac));
        for broken in ["", "zz", &mac.repeat(2), &format!("{mac}0")] {
            assert!(!key.holds(&["a", "bc"], broken), "{broken}");
        }
    }

    #[tokio::test]
    async fn keys_of_earlier_account_keys_are_believed_and_the_newest_seals() {
        let now: &'static Mutex<&'static str> = Box::leak(Box::new(Mutex::new("k1")));
        let reader = AccountKeyReader::new(move |_| {
            let key = AccountCredential::Key(secret(*now.lock().unwrap()));
            Box::pin(async { Ok(key) })
        });
        let keys = MacKeys::of_account(reader);
        let names =
            async || -> Vec<String> { keys.at_hand().await.unwrap().iter().map(|key| key.name().to_owned()).collect() };
        let named = |text: &str| MacKey::of(&secret(text)).name().to_owned();
        assert_eq!(names().await, [named("k1")]);
        *now.lock().unwrap() = "k2";
        assert_eq!(names().await, [named("k2"), named("k1")]);
        *now.lock().unwrap() = "k1";
        assert_eq!(names().await, [named("k1"), named("k2")], "a key that comes back is not two");
    }
}
