//! What retention removed from the front of a log, and who says so.
//!
//! A log that has lost its beginning is either cut or kept by a policy, and only a signature tells which. Before segments are
//! removed, a statement of them is written: a signed note with the size, root and chain of the tree up to there, which is
//! what the first remaining segment goes on from. It stands in `removed.note`, and each replaces the one before.
//!
//! ```text
//! stepgate/audit/removed
//! 120000
//! R9Xk…=
//! chain 8dPq…=
//! tree Zk1u…=
//! time 2026-11-22T21:24:18.123Z
//! segments 3
//! until 2026-08-22T00:00:00.000Z
//!
//! — stepgate/audit 3rT0…
//! ```

use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
};

use super::{
    chain::Head,
    checkpoint,
    journal::AuditError,
    key::{PublicKey, SigningKey},
    recover::sync_directory,
    segment::{Damage, Segment, Wrong},
};
use crate::clock::Timestamp;

const FILE: &str = "removed.note";
const ORIGIN: &str = "stepgate/audit/removed";
const SEGMENTS: &str = "segments ";
const UNTIL: &str = "until ";

/// What was removed, as it was signed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Removed {
    /// The head after the last removed record.
    pub(super) head: Head,
    /// How many segments, from the first on.
    pub(super) segments: u64,
    /// When the first remaining segment began, in RFC 3339: every removed record is older.
    pub(super) until: String,
}

/// The statement in `directory`, if there is one; signed by one of `keys`.
pub(super) fn read(directory: &Path, keys: &[PublicKey]) -> Result<Option<Removed>, AuditError> {
    let file = directory.join(FILE);
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(AuditError::at(&file, "read", source)),
    };
    let damage = |wrong| Damage { file: file.clone(), line: 0, sequence: None, wrong };
    let note = text.strip_suffix('\n').unwrap_or_default();
    let text = checkpoint::signed_text(note, keys).map_err(damage)?;
    Ok(Some(parse(&text).ok_or_else(|| damage(Wrong::RemovedForm))?))
}

fn parse(text: &str) -> Option<Removed> {
    let (head, rest) = checkpoint::head(ORIGIN, text)?;
    let mut lines = rest.lines();
    let segments = lines.next()?.strip_prefix(SEGMENTS)?.parse().ok()?;
    let until = lines.next()?.strip_prefix(UNTIL)?.to_owned();
    Some(Removed { head, segments, until })
}

/// Signs for the removal of `removed`, and then removes them. `head` is the head after the last of them.
pub(super) fn remove(
    directory: &Path,
    removed: &[Segment],
    head: &Head,
    until: Timestamp,
    now: Timestamp,
    key: &SigningKey,
) -> Result<(), AuditError> {
    let Some(last) = removed.last() else { return Ok(()) };
    let body = checkpoint::body(ORIGIN, head, now);
    let text = format!("{body}{SEGMENTS}{}\n{UNTIL}{}\n", last.name.number, until.rfc3339());
    let note = checkpoint::sign_text(&text, key).ok_or(AuditError::Sign)?;
    let (file, fresh) = (directory.join(FILE), directory.join("removed.note.new"));
    let write = || {
        let mut note_file = File::create(&fresh)?;
        note_file.write_all(note.as_bytes())?;
        note_file.sync_all()?;
        std::fs::rename(&fresh, &file)?;
        sync_directory(directory)
    };
    write().map_err(|source| AuditError::at(&file, "write", source))?;
    sweep(directory, removed)
}

/// Removes the files of segments that are signed for as removed.
pub(super) fn sweep(directory: &Path, removed: &[Segment]) -> Result<(), AuditError> {
    for segment in removed {
        let name = segment.name;
        for file in [name.lines(directory), name.packed(directory), name.checkpoints(directory)] {
            unlink(file)?;
        }
    }
    Ok(())
}

fn unlink(file: PathBuf) -> Result<(), AuditError> {
    match std::fs::remove_file(&file) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(AuditError::at(&file, "remove", source)),
        _ => Ok(()),
    }
}
