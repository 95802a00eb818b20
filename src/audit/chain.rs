//! The chain: every line carries the hash of the line before and its own.
//!
//! A line is one JSON object that begins with `metadata` and its `sequence`, and whose last members are `"prev"` and
//! `"hash"`. The hash is SHA-256 over the 32 bytes of the previous hash and then the line's own bytes as they stand, without
//! the member `hash` and its comma. Nothing is parsed to check it, let alone written again, so no two spellings of a
//! record share a hash, and a check costs little more than its hashing.

use std::fmt;

use super::merkle::{self, Tree};
use aws_lc_rs::digest::{Context, SHA256};

/// What a line begins with, up to its sequence.
const FIRST: &[u8] = b"{\"metadata\":{\"sequence\":";
/// What stands before the digits of the hash, and after them, at a line's end.
const BEFORE: &[u8] = b",\"hash\":\"";
const AFTER: &[u8] = b"\"}";
/// What stands before the digits of the previous hash; what stands after them is a quote.
const PREV: &[u8] = b",\"prev\":\"";
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
        f.write_str(str::from_utf8(&self.digits()).unwrap_or_default())
    }
}

impl Hash {
    /// The lower-case digits. Every record spells two hashes, and a `String` is made digit by digit.
    fn digits(&self) -> [u8; DIGITS] {
        let mut digits = [0; DIGITS];
        // It fails for a length that is not twice the other.
        let _ = hex::encode_to_slice(self.0, &mut digits);
        digits
    }

    /// The hash that lower-case digits spell.
    pub(super) fn from_digits(digits: &[u8]) -> Option<Self> {
        let (pairs, []) = digits.as_chunks::<2>() else { return None };
        let mut hash = [0; 32];
        if pairs.len() != hash.len() {
            return None;
        }
        for (byte, [high, low]) in hash.iter_mut().zip(pairs) {
            *byte = value(*high)? << 4 | value(*low)?;
        }
        Some(Self(hash))
    }
}

const fn value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
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

    /// Moves on by a record, whose hash is its leaf in the tree.
    pub(super) fn advance(&mut self, hash: Hash) {
        self.hash = hash;
        self.tree.push(merkle::leaf(hash.as_bytes()));
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

/// What a line says of its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Links<'a> {
    sequence: u64,
    prev: Hash,
    hash: Hash,
    /// The line without its hash and its closing brace.
    content: &'a [u8],
}

/// A line by itself: what it says of its place, and its hash recomputed. Lines can be looked at in any order, and at the same
/// time; only [`Seen::follow`] needs them one after another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Seen {
    sequence: u64,
    prev: Hash,
    hash: Hash,
    fits: bool,
}

/// Ends the record that begins at `begun` of `lines`, a JSON object whose last member is `prev`, with its hash and a newline.
pub(super) fn seal(prev: Hash, lines: &mut Vec<u8>, begun: usize) -> Hash {
    let body = lines.get(begun..).unwrap_or_default();
    let hash = digest(prev, body.strip_suffix(b"}").unwrap_or(body));
    lines.pop();
    lines.extend_from_slice(BEFORE);
    lines.extend_from_slice(&hash.digits());
    lines.extend_from_slice(AFTER);
    lines.push(b'\n');
    hash
}

/// Looks at a line (without its newline) by itself.
pub(super) fn see(line: &[u8]) -> Result<Seen, Misfit> {
    let Links { sequence, prev, hash, content } = links(line).ok_or(Misfit::NotARecord)?;
    Ok(Seen { sequence, prev, hash, fits: digest(prev, content) == hash })
}

impl Seen {
    /// The hash that the line has, if it is the hash of what stands in it.
    pub(super) fn hash(self) -> Option<Hash> {
        self.fits.then_some(self.hash)
    }

    /// Moves `head` on by this line, if that follows it.
    pub(super) fn follow(self, head: &mut Head) -> Result<(), Misfit> {
        let expected = head.records().saturating_add(1);
        if self.sequence != expected {
            return Err(Misfit::Sequence { expected, found: self.sequence });
        }
        if self.prev != head.hash {
            return Err(Misfit::Prev);
        }
        if !self.fits {
            return Err(Misfit::Hash);
        }
        head.advance(self.hash);
        Ok(())
    }
}

fn links(line: &[u8]) -> Option<Links<'_>> {
    let rest = line.strip_prefix(FIRST)?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let sequence = rest.get(..digits)?;
    // One spelling: neither a leading zero nor anything but a member after it.
    let is_plain = sequence.first() != Some(&b'0') && rest.get(digits) == Some(&b',');
    let sequence = std::str::from_utf8(sequence).ok().filter(|_| is_plain)?.parse().ok()?;
    let (content, hash) = member(line.strip_suffix(AFTER)?, BEFORE)?;
    let (_, prev) = member(content.strip_suffix(b"\"")?, PREV)?;
    Some(Links { sequence, prev, hash, content })
}

/// What stands before a member of digits at the end of `text`, and the hash they spell.
fn member<'a>(text: &'a [u8], name: &[u8]) -> Option<(&'a [u8], Hash)> {
    let (before, digits) = text.split_at_checked(text.len().checked_sub(DIGITS)?)?;
    Some((before.strip_suffix(name)?, Hash::from_digits(digits)?))
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
        let mut body =
            format!(r#"{{"metadata":{{"sequence":{sequence},"version":"1"}},"prev":"{prev}"}}"#).into_bytes();
        let hash = seal(prev, &mut body, 0);
        assert_eq!(body.pop(), Some(b'\n'));
        (body, hash)
    }

    fn follow(head: &mut Head, line: &[u8]) -> Result<(), Misfit> {
        see(line)?.follow(head)
    }

    #[test]
    fn a_sealed_line_follows_its_predecessor_only() {
        let (first, hash) = line(1, Hash::GENESIS);
        let mut head = Head::genesis();
        follow(&mut head, &first).unwrap();
        assert_eq!((head.records(), head.hash), (1, hash));
        assert_eq!(head.tree.root(), merkle::leaf(hash.as_bytes()), "the tree's entry is the line's hash");
        let (second, _) = line(2, hash);
        assert_eq!(follow(&mut Head::genesis(), &second), Err(Misfit::Sequence { expected: 1, found: 2 }));
        let (other, _) = line(2, Hash::GENESIS);
        assert_eq!(follow(&mut head, &other), Err(Misfit::Prev));
        follow(&mut head, &second).unwrap();
        assert_eq!(head.records(), 2);
    }

    #[test]
    fn a_place_has_one_spelling() {
        let (first, _) = line(1, Hash::GENESIS);
        let text = String::from_utf8(first).unwrap();
        for (from, to) in [
            ("{\"metadata", "{ \"metadata"),
            ("\"sequence\":1", "\"sequence\":01"),
            ("\"sequence\":1", "\"sequence\":1.0"),
            ("\"prev\":\"0", "\"prev\":\"A"),
        ] {
            let other = text.replacen(from, to, 1);
            assert_ne!(other, text);
            assert_eq!(see(other.as_bytes()), Err(Misfit::NotARecord), "{other}");
        }
        let spaced = format!("{} }}", text.strip_suffix('}').unwrap());
        assert_eq!(see(spaced.as_bytes()), Err(Misfit::NotARecord));
        let other = text.replacen("\"version\":\"1\"", "\"version\":\"2\"", 1);
        assert_eq!(follow(&mut Head::genesis(), other.as_bytes()), Err(Misfit::Hash));
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
