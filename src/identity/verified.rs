//! Tokens that were verified lately, so that a workflow's next request costs a hash instead of a signature.
//!
//! An entry answers only while everything that made it still holds: the token has not ended, and the key that verified it
//! is still published by its issuer. Revocation is not asked here but by the gateway, on a hit as on a miss.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::digest;
use moka::future::Cache;

use super::{issuer::Issuer, keys::Key, subject::VerifiedSubject};
use crate::clock::Timestamp;

/// Most tokens remembered.
const MOST_TOKENS: u64 = 10_000;

/// How long a token is remembered at most; then it is verified again.
const LIFETIME: Duration = Duration::from_secs(10 * 60);

/// SHA-256 of a token: the token itself is not kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Fingerprint([u8; 32]);

impl Fingerprint {
    pub(super) fn of(token: &str) -> Self {
        let mut bytes = [0; 32];
        bytes
            .iter_mut()
            .zip(digest::digest(&digest::SHA256, token.as_bytes()).as_ref())
            .for_each(|(to, from)| *to = *from);
        Self(bytes)
    }
}

/// What a verified token proved, and what that rests on.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) subject: VerifiedSubject,
    pub(super) issuer: Arc<Issuer>,
    pub(super) key: Arc<Key>,
}

impl Entry {
    fn holds(&self, now: Timestamp) -> bool {
        now < self.subject.expires().plus(self.issuer.config().leeway)
            && self.issuer.keys().keys(now).is_some_and(|keys| keys.holds(&self.key))
    }
}

/// The cache.
#[derive(Clone, Debug)]
pub(super) struct VerifiedTokens(Cache<Fingerprint, Arc<Entry>>);

impl VerifiedTokens {
    pub(super) fn new() -> Self {
        Self(Cache::builder().max_capacity(MOST_TOKENS).time_to_live(LIFETIME).build())
    }

    /// The subject of a token that was verified before and still holds.
    pub(super) async fn get(&self, token: Fingerprint, now: Timestamp) -> Option<VerifiedSubject> {
        let entry = self.0.get(&token).await?;
        if entry.holds(now) {
            return Some(entry.subject.clone());
        }
        self.0.invalidate(&token).await;
        None
    }

    pub(super) async fn insert(&self, token: Fingerprint, entry: Entry) {
        self.0.insert(token, Arc::new(entry)).await;
    }
}
