//! Signed checkpoints: how many records there were, the hash of the last, and when, under an Ed25519 signature.
//!
//! The form is a C2SP checkpoint (<https://c2sp.org/tlog-checkpoint>) in a signed note (<https://c2sp.org/signed-note>): the
//! size and the root of the tree, then lines of our own. Notes stand one after another in a file, each followed by an
//! empty line:
//!
//! ```text
//! stepgate/audit
//! 42
//! R9Xk…=
//! chain 8dPq…=
//! tree Zk1u…=
//! time 2026-11-22T21:24:18.123Z
//!
//! — stepgate/audit 3rT0…
//!
//! ```
//!
//! `chain` is the hash of the last record; `tree` the roots of the complete subtrees, from which the log is continued
//! without its earlier records.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    chain::{Hash, Head},
    key::{PublicKey, SigningKey},
    merkle::Tree,
    segment::Wrong,
};
use crate::clock::Timestamp;

/// The first line of every checkpoint, and the name of its signer.
pub(super) const ORIGIN: &str = "stepgate/audit";
const SIGNER: &str = "\u{2014} stepgate/audit ";
const CHAIN: &str = "chain ";
const TREE: &str = "tree ";
const TIME: &str = "time ";
/// The lines of a note in a file: six of text, an empty one, the signature, an empty one.
const LINES: usize = 9;

/// A checkpoint whose signature was checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Checkpoint<'a> {
    pub(super) head: Head,
    /// The signed note, without the empty line after it.
    pub(super) note: &'a str,
    /// The line of the file at which it begins, from 1.
    pub(super) line: u64,
}

/// The checkpoint of `head`, signed; `None` when the key cannot sign.
pub(super) fn sign(head: &Head, time: Timestamp, key: &SigningKey) -> Option<String> {
    sign_text(&body(ORIGIN, head, time), key)
}

/// The lines that describe `head`.
pub(super) fn body(origin: &str, head: &Head, time: Timestamp) -> String {
    let base64 = |hash: Hash| STANDARD.encode(hash.as_bytes());
    let (size, root, chain) = (head.records(), base64(head.tree.root()), base64(head.hash));
    let peaks: Vec<u8> = head.tree.peaks().iter().flat_map(Hash::as_bytes).copied().collect();
    let (tree, time) = (STANDARD.encode(peaks), time.rfc3339());
    format!("{origin}\n{size}\n{root}\n{CHAIN}{chain}\n{TREE}{tree}\n{TIME}{time}\n")
}

/// A note of `text`, followed by an empty line.
pub(super) fn sign_text(text: &str, key: &SigningKey) -> Option<String> {
    let mut signature = key.public().id().to_vec();
    signature.extend_from_slice(&key.sign(text.as_bytes())?);
    Some(format!("{text}\n{SIGNER}{}\n\n", STANDARD.encode(signature)))
}

/// The checkpoints of a file in order, and what is wrong at which line after the last good one.
pub(super) fn read<'a>(text: &'a str, keys: &[PublicKey]) -> (Vec<Checkpoint<'a>>, Option<(u64, Wrong)>) {
    let mut checkpoints = Vec::new();
    let mut rest = text;
    let mut line = 1;
    while !rest.is_empty() {
        let Some(end) = end_of_note(rest) else {
            return (checkpoints, Some((line, Wrong::CheckpointUnfinished)));
        };
        let (note, after) = rest.split_at(end);
        let note = note.strip_suffix('\n').unwrap_or(note);
        match open(note, keys) {
            Ok(head) => checkpoints.push(Checkpoint { head, note, line }),
            Err(wrong) => return (checkpoints, Some((line, wrong))),
        }
        rest = after;
        line += LINES as u64;
    }
    (checkpoints, None)
}

/// How many bytes of `text` are finished notes.
pub(super) fn finished(text: &str) -> usize {
    let mut length = 0;
    while let Some(end) = text.get(length..).and_then(end_of_note) {
        length += end;
    }
    length
}

fn end_of_note(text: &str) -> Option<usize> {
    text.match_indices('\n').nth(LINES - 1).map(|(at, _)| at + 1)
}

/// The head that a note signs, if one of `keys` signed it.
pub(super) fn open(note: &str, keys: &[PublicKey]) -> Result<Head, Wrong> {
    let text = signed_text(note, keys)?;
    head(ORIGIN, &text).map(|(head, _)| head).ok_or(Wrong::CheckpointForm)
}

/// The text of a note, if one of `keys` signed it.
pub(super) fn signed_text(note: &str, keys: &[PublicKey]) -> Result<String, Wrong> {
    let (text, signature) = note.split_once("\n\n").ok_or(Wrong::CheckpointForm)?;
    let text = format!("{text}\n");
    let signature = signature
        .strip_prefix(SIGNER)
        .and_then(|rest| rest.strip_suffix('\n'))
        .and_then(|base64| STANDARD.decode(base64).ok())
        .ok_or(Wrong::CheckpointForm)?;
    let (id, signature) = signature.split_first_chunk::<4>().ok_or(Wrong::CheckpointForm)?;
    if !keys.iter().any(|key| key.id() == *id && key.verifies(text.as_bytes(), signature)) {
        return Err(Wrong::Signature);
    }
    Ok(text)
}

/// The head that a signed text describes, if its parts agree, and the lines after it.
pub(super) fn head<'a>(origin: &str, text: &'a str) -> Option<(Head, &'a str)> {
    let mut rest = text;
    let mut next = || {
        let (line, after) = rest.split_once('\n')?;
        rest = after;
        Some(line)
    };
    if next()? != origin {
        return None;
    }
    let size = next()?.parse().ok()?;
    let root = hash(next()?)?;
    let chain = hash(next()?.strip_prefix(CHAIN)?)?;
    let peaks = STANDARD.decode(next()?.strip_prefix(TREE)?).ok()?;
    next()?.strip_prefix(TIME)?;
    let (peaks, []) = peaks.as_chunks::<32>() else { return None };
    let tree = Tree::new(size, peaks.iter().copied().map(Hash::from_bytes).collect())?;
    (tree.root() == root).then_some((Head { hash: chain, tree }, rest))
}

/// A hash as it is written in a note.
pub(super) fn hash(base64: &str) -> Option<Hash> {
    STANDARD.decode(base64).ok()?.try_into().ok().map(Hash::from_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_read_back_in_order_and_a_torn_one_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let key = SigningKey::load_or_make(&directory.path().join("key")).unwrap();
        let time = Timestamp::from_secs(1_795_375_762);
        let mut later = Head::genesis();
        (0..42_u8).for_each(|n| later.advance(Hash::from_bytes([n; 32])));
        let heads = [Head::genesis(), later];
        let text: String = heads.iter().map(|head| sign(head, time, &key).unwrap()).collect();

        let (checkpoints, wrong) = read(&text, &[key.public()]);
        assert_eq!(wrong, None);
        assert_eq!(checkpoints.iter().map(|c| c.head.clone()).collect::<Vec<_>>(), heads);
        assert_eq!(checkpoints[1].line, 10);

        let torn = text.strip_suffix('\n').unwrap();
        let (checkpoints, wrong) = read(torn, &[key.public()]);
        assert_eq!((checkpoints.len(), wrong), (1, Some((10, Wrong::CheckpointUnfinished))));
        assert_eq!(finished(torn), sign(&heads[0], time, &key).unwrap().len());

        let other = SigningKey::load_or_make(&directory.path().join("other")).unwrap();
        assert_eq!(read(&text, &[other.public()]).1, Some((1, Wrong::Signature)));
    }
}
