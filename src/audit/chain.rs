//! The chain: every line carries the hash of the line before and its own.
//!
//! A line is one JSON object whose last members are `"prev"` and `"hash"`. The hash is SHA-256 over the 32 bytes of the
//! previous hash and then the line's own bytes as they stand, without the member `hash` and its comma. Nothing is parsed
//! and written again to check it, so no two spellings of a record share a hash.

use std::fmt;

use aws_lc_rs::digest::{Context, SHA256};
use serde::Deserialize;

use super::merkle::{self, Tree};

/// What stands before the last 64 digits of a line, and after them.
const BEFORE: &[u8] = b",\"hash\":\"";
const AFTER: &[u8] = b"\"}";
const DIGITS: usize = 64;

/// A link of the chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hash([u8; 32]);

impl Hash {
    /// What the first record chains on.
    pub const GENESIS: Self = Self([0; 32]);

    pub(super) const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(super) const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The end of a log: the hash of its last record, and the tree over all of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Head {
    pub(super) hash: Hash,
    pub(super) tree: Tree,
}

impl Head {
    /// The end of a log that has no record yet.
    pub(super) fn genesis() -> Self {
        Self { hash: Hash::GENESIS, tree: Tree::default() }
    }

    /// How many records the log has.
    pub(super) fn records(&self) -> u64 {
        self.tree.size()
    }

    /// Moves on by a record: its line without the newline, and the hash in it.
    pub(super) fn advance(&mut self, line: &[u8], hash: Hash) {
        self.hash = hash;
        self.tree.push(merkle::leaf(line));
    }
}

/// Why a line does not follow the one before it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Misfit {
    /// The line has no newline at its end.
    #[error("the line is not finished")]
    Unfinished,
    /// The line is longer than any record.
    #[error("the line is longer than any record")]
    TooLong,
    /// The line does not end in a hash, or is not JSON, or has no sequence.
    #[error("the line is not a record of this log")]
    NotARecord,
    /// A record is missing, repeated or out of order.
    #[error("sequence {found} stands where {expected} belongs")]
    Sequence {
        /// What follows the record before.
        expected: u64,
        /// What the line says.
        found: u64,
    },
    /// The line names another predecessor.
    #[error("it does not chain on the record before it")]
    Prev,
    /// The line was changed after it was written.
    #[error("its content does not match its hash")]
    Hash,
}

#[derive(Deserialize)]
struct Links<'a> {
    metadata: Metadata,
    #[serde(borrow)]
    prev: &'a str,
}

#[derive(Deserialize)]
struct Metadata {
    sequence: u64,
}

/// Ends `body`, a JSON object whose last member is `prev`, with its hash and a newline.
pub(super) fn seal(prev: Hash, body: &mut Vec<u8>) -> Hash {
    let hash = digest(prev, body.strip_suffix(b"}").unwrap_or(body));
    body.pop();
    body.extend_from_slice(BEFORE);
    body.extend_from_slice(hash.to_string().as_bytes());
    body.extend_from_slice(AFTER);
    body.push(b'\n');
    hash
}

/// Moves `head` on by `line` (without its newline), if that follows it.
pub(super) fn follow(head: &mut Head, line: &[u8]) -> Result<(), Misfit> {
    let (content, digits) = split(line).ok_or(Misfit::NotARecord)?;
    let links: Links<'_> = serde_json::from_slice(line).map_err(|_| Misfit::NotARecord)?;
    let expected = head.records().saturating_add(1);
    if links.metadata.sequence != expected {
        return Err(Misfit::Sequence { expected, found: links.metadata.sequence });
    }
    if links.prev != head.hash.to_string() {
        return Err(Misfit::Prev);
    }
    let hash = digest(head.hash, content);
    if hash.to_string().as_bytes() != digits {
        return Err(Misfit::Hash);
    }
    head.advance(line, hash);
    Ok(())
}

/// The hash a line claims to have, unchecked.
pub(super) fn claimed(line: &[u8]) -> Option<&str> {
    split(line).and_then(|(_, digits)| std::str::from_utf8(digits).ok())
}

/// A line's content without its closing brace, and the digits of its hash.
fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let line = line.strip_suffix(AFTER)?;
    let (content, digits) = line.split_at_checked(line.len().checked_sub(DIGITS)?)?;
    Some((content.strip_suffix(BEFORE)?, digits))
}

fn digest(prev: Hash, content: &[u8]) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(&prev.0);
    context.update(content);
    context.update(b"}");
    let mut bytes = [0; 32];
    bytes.copy_from_slice(context.finish().as_ref());
    Hash(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(sequence: u64, prev: Hash) -> (Vec<u8>, Hash) {
        let mut body = format!(r#"{{"metadata":{{"sequence":{sequence}}},"prev":"{prev}"}}"#).into_bytes();
        let hash = seal(prev, &mut body);
        assert_eq!(body.pop(), Some(b'\n'));
        (body, hash)
    }

    #[test]
    fn a_sealed_line_follows_its_predecessor_only() {
        let (first, hash) = line(1, Hash::GENESIS);
        let mut head = Head::genesis();
        follow(&mut head, &first).unwrap();
        assert_eq!((head.records(), head.hash), (1, hash));
        let (second, _) = line(2, hash);
        assert_eq!(follow(&mut Head::genesis(), &second), Err(Misfit::Sequence { expected: 1, found: 2 }));
        let (other, _) = line(2, Hash::GENESIS);
        assert_eq!(follow(&mut head, &other), Err(Misfit::Prev));
        follow(&mut head, &second).unwrap();
        assert_eq!(head.records(), 2);
    }

    /// Anyone can recompute the chain with a SHA-256 tool: the bytes of the previous hash, then the line without `hash`.
    #[test]
    fn the_hash_is_plain_sha256_over_the_line() {
        let (first, hash) = line(1, Hash::GENESIS);
        let text = String::from_utf8(first).unwrap();
        let (content, _) = text.rsplit_once(",\"hash\"").unwrap();
        let mut input = vec![0; 32];
        input.extend_from_slice(content.as_bytes());
        input.push(b'}');
        assert_eq!(aws_lc_rs::digest::digest(&SHA256, &input).as_ref(), hash.as_bytes());
    }
}
