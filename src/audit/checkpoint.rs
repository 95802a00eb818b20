//! Signed checkpoints: how many records there were, the hash of the last, and when, under an Ed25519 signature.
//!
//! The form is that of a C2SP signed note (<https://c2sp.org/signed-note>) over a text like a C2SP tlog-checkpoint, with
//! the hash of the chain in the place of a tree's root. Notes stand one after another in a file, each followed by an
//! empty line:
//!
//! ```text
//! stepgate/audit
//! 42
//! R9Xk…=
//! time 2026-11-22T21:24:18.123Z
//!
//! — stepgate/audit 3rT0…
//!
//! ```

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    chain::{Hash, Head},
    key::{PublicKey, SigningKey},
    segment::Wrong,
};
use crate::clock::Timestamp;

/// The first line of every checkpoint, and the name of its signer.
pub(super) const ORIGIN: &str = "stepgate/audit";
const SIGNER: &str = "\u{2014} stepgate/audit ";
/// The lines of a note in a file: four of text, an empty one, the signature, an empty one.
const LINES: usize = 7;

/// A checkpoint whose signature was checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Checkpoint {
    pub(super) head: Head,
    /// The line of the file at which it begins, from 1.
    pub(super) line: u64,
}

/// The checkpoint of `head`, signed; `None` when the key cannot sign.
pub(super) fn sign(head: Head, time: Timestamp, key: &SigningKey) -> Option<String> {
    let hash = STANDARD.encode(head.hash.as_bytes());
    let text = format!("{ORIGIN}\n{}\n{hash}\ntime {}\n", head.records, time.rfc3339());
    let mut signature = key.public().id().to_vec();
    signature.extend_from_slice(&key.sign(text.as_bytes())?);
    Some(format!("{text}\n{SIGNER}{}\n\n", STANDARD.encode(signature)))
}

/// The checkpoints of a file in order, and what is wrong at which line after the last good one.
pub(super) fn read(text: &str, keys: &[PublicKey]) -> (Vec<Checkpoint>, Option<(u64, Wrong)>) {
    let mut checkpoints = Vec::new();
    let mut rest = text;
    let mut line = 1;
    while !rest.is_empty() {
        let Some(end) = end_of_note(rest) else {
            return (checkpoints, Some((line, Wrong::CheckpointUnfinished)));
        };
        let (note, after) = rest.split_at(end);
        match open(note, keys) {
            Ok(head) => checkpoints.push(Checkpoint { head, line }),
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

fn open(note: &str, keys: &[PublicKey]) -> Result<Head, Wrong> {
    let (text, signature) = note.split_once("\n\n").ok_or(Wrong::CheckpointForm)?;
    let text = format!("{text}\n");
    let signature = signature
        .strip_prefix(SIGNER)
        .and_then(|rest| rest.strip_suffix("\n\n"))
        .and_then(|base64| STANDARD.decode(base64).ok())
        .ok_or(Wrong::CheckpointForm)?;
    let (id, signature) = signature.split_first_chunk::<4>().ok_or(Wrong::CheckpointForm)?;
    if !keys.iter().any(|key| key.id() == *id && key.verifies(text.as_bytes(), signature)) {
        return Err(Wrong::Signature);
    }
    let mut lines = text.lines();
    let (Some(ORIGIN), Some(records), Some(hash)) = (lines.next(), lines.next(), lines.next()) else {
        return Err(Wrong::CheckpointForm);
    };
    let records = records.parse().map_err(|_| Wrong::CheckpointForm)?;
    let hash = STANDARD.decode(hash).ok().and_then(|hash| hash.try_into().ok()).ok_or(Wrong::CheckpointForm)?;
    Ok(Head { records, hash: Hash::from_bytes(hash) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_read_back_in_order_and_a_torn_one_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let key = SigningKey::load_or_make(&directory.path().join("key")).unwrap();
        let time = Timestamp::from_secs(1_795_375_762);
        let heads = [Head::GENESIS, Head { records: 42, hash: Hash::from_bytes([3; 32]) }];
        let text: String = heads.iter().map(|head| sign(*head, time, &key).unwrap()).collect();

        let (checkpoints, wrong) = read(&text, &[key.public()]);
        assert_eq!(wrong, None);
        assert_eq!(checkpoints.iter().map(|c| c.head).collect::<Vec<_>>(), heads);
        assert_eq!(checkpoints[1].line, 8);

        let torn = text.strip_suffix('\n').unwrap();
        let (checkpoints, wrong) = read(torn, &[key.public()]);
        assert_eq!((checkpoints.len(), wrong), (1, Some((8, Wrong::CheckpointUnfinished))));
        assert_eq!(finished(torn), sign(heads[0], time, &key).unwrap().len());

        let other = SigningKey::load_or_make(&directory.path().join("other")).unwrap();
        assert_eq!(read(&text, &[other.public()]).1, Some((1, Wrong::Signature)));
    }
}
