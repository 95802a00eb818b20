//! Whether a log is what was written: every hash, every link, every signature, in one pass over the files.
//!
//! What a pass can promise depends on whose key checked it, and [`Report::promise`] says which. With the key that lies
//! beside the log, whoever can rewrite the directory can rewrite the key too; with a copy of the reader's own, nobody
//! without the private key changed a signed record. Neither shows a log cut back to an earlier checkpoint together with
//! everything that came after it: that takes a later checkpoint kept elsewhere, an anchor.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{
    anchored::Anchored,
    journal::{AuditError, PUBLIC_KEY},
    key::{self, PublicKey},
    recover,
    segment::{self, Damage, Log, Wrong},
    walk::Walk,
};

/// Whose key checked the signatures.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trust {
    /// The one that lies beside the log.
    SelfAsserted,
    /// One that the reader brought.
    Given,
}

/// What the reader holds the log against.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// The public keys to trust (PEM), instead of those beside the log.
    pub public_key: Option<PathBuf>,
    /// Checkpoints that were kept elsewhere: files of them, or directories of such files. The log must extend each.
    pub anchors: Vec<PathBuf>,
}

/// Which records to look at. The segments that hold them are read whole, from their signed beginnings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// The first, from 1.
    pub from: u64,
    /// The last.
    pub to: u64,
}

impl Range {
    /// The whole log.
    pub const ALL: Self = Self { from: 1, to: u64::MAX };
}

/// What a verification found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Report {
    /// Whether everything fits.
    pub ok: bool,
    /// The sequence of the last record that fits.
    pub records: u64,
    /// The sequence of the first record that was read: 1, unless retention removed what was before, or a range was asked for.
    pub from: u64,
    /// Records that retention removed, as it signed for them.
    pub removed: u64,
    /// The sequence up to which records are signed.
    pub signed: u64,
    /// Checkpoints whose signature was checked.
    pub checkpoints: u64,
    /// Segments read to their end.
    pub segments: u64,
    /// Whether the last line is still being written, or was when its writer died. It was never acknowledged.
    pub unfinished: bool,
    /// Checkpoints kept elsewhere that the log extends.
    pub anchored: u64,
    /// Checkpoints kept elsewhere that sign less than was read, so that nothing is said about them.
    pub anchored_before: u64,
    /// Whose key checked the signatures.
    pub key: Trust,
    /// What this result promises, in words.
    pub promise: String,
    /// The first thing that does not fit.
    pub first_bad: Option<FirstBad>,
}

/// Where a log stops to fit.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct FirstBad {
    /// The file.
    pub file: String,
    /// The line, from 1; 0 for the file as a whole.
    pub line: u64,
    /// The sequence that belongs there, or that the checkpoint signs.
    pub sequence: Option<u64>,
    /// What is wrong.
    pub wrong: String,
}

impl From<Damage> for FirstBad {
    fn from(damage: Damage) -> Self {
        Self {
            file: damage.file.display().to_string(),
            line: damage.line,
            sequence: damage.sequence,
            wrong: damage.wrong.to_string(),
        }
    }
}

/// Verifies the log in `directory`, by itself and against `evidence`. An error means that the files could not be read; a log
/// that does not fit is a report.
pub fn verify(directory: &Path, evidence: &Evidence, range: Range) -> Result<Report, AuditError> {
    let trust = if evidence.public_key.is_some() { Trust::Given } else { Trust::SelfAsserted };
    let mut tally = Tally::default();
    let first_bad = match pass(directory, evidence, range, &mut tally) {
        Ok(()) => None,
        Err(AuditError::Damaged(damage)) => Some(FirstBad::from(damage)),
        Err(error) => return Err(error),
    };
    Ok(Report {
        ok: first_bad.is_none(),
        records: tally.records,
        from: tally.from + 1,
        removed: tally.removed,
        signed: tally.signed,
        checkpoints: tally.checkpoints,
        segments: tally.segments,
        unfinished: tally.unfinished,
        anchored: tally.anchored.0,
        anchored_before: tally.anchored.1,
        key: trust,
        promise: promise(first_bad.is_none(), trust, &tally),
        first_bad,
    })
}

#[derive(Default)]
struct Tally {
    records: u64,
    /// How many records are before the first that was read.
    from: u64,
    removed: u64,
    signed: u64,
    checkpoints: u64,
    segments: u64,
    unfinished: bool,
    /// Whether the end of the log was not read.
    stopped: bool,
    anchored: (u64, u64),
}

fn pass(directory: &Path, evidence: &Evidence, range: Range, tally: &mut Tally) -> Result<(), AuditError> {
    let listing = segment::list(directory).map_err(|source| AuditError::at(directory, "list", source))?;
    if listing.segments.is_empty() && listing.strangers.is_empty() {
        return Err(Damage { file: directory.to_owned(), line: 0, sequence: None, wrong: Wrong::NoLog }.into());
    }
    let keys = match &evidence.public_key {
        Some(path) => given_keys(path)?,
        None => keys_beside(directory)?,
    };
    let log = Log::list(directory, &keys)?;
    tally.removed = log.removed.as_ref().map_or(0, |removed| removed.head.records());
    let start = log.segments.iter().rposition(|segment| segment.name.first <= range.from).unwrap_or(0);
    let head = match log.segments.get(start) {
        Some(segment) if start > 0 => recover::opening_head(directory, segment, &keys)?,
        _ => log.before(),
    };
    (tally.from, tally.records) = (head.records(), head.records());
    let mut anchored = Anchored::read(&evidence.anchors, &keys)?;
    anchored.begin(&head);
    let mut walk = Walk { directory, keys: &keys, head };
    let last = log.segments.last().copied();
    for segment in log.segments.iter().skip(start) {
        tally.stopped = segment.name.first > range.to;
        if tally.stopped {
            break;
        }
        let walked = walk.segment(segment, Some(*segment) == last, |_, head| anchored.meet(head));
        tally.records = walk.head.records();
        let walked = walked?;
        anchored.first_bad()?;
        tally.segments += 1;
        tally.checkpoints += walked.checkpoints;
        tally.signed = tally.signed.max(walked.signed);
        tally.unfinished = walked.torn;
    }
    anchored.first_bad()?;
    tally.anchored = if tally.stopped { anchored.so_far() } else { anchored.extended(tally.records)? };
    Ok(())
}

pub(super) fn given_keys(path: &Path) -> Result<Vec<PublicKey>, AuditError> {
    let text = std::fs::read_to_string(path).map_err(|source| AuditError::at(path, "read", source))?;
    key::read_public_keys(&text).map_err(|problem| AuditError::Key { file: path.to_owned(), problem })
}

pub(super) fn keys_beside(directory: &Path) -> Result<Vec<PublicKey>, AuditError> {
    let file = directory.join(PUBLIC_KEY);
    let keys = std::fs::read_to_string(&file).ok().and_then(|text| key::read_public_keys(&text).ok());
    keys.ok_or_else(|| Damage { file, line: 0, sequence: None, wrong: Wrong::PublicKey }.into())
}

fn promise(ok: bool, trust: Trust, tally: &Tally) -> String {
    if !ok {
        return format!("does not verify after record {}", tally.records);
    }
    let key = match trust {
        Trust::SelfAsserted => "key self-asserted",
        Trust::Given => "unchanged by anyone without the given key",
    };
    let mut promise = format!("consistent, {key}, signed up to record {}", tally.signed);
    let unsigned = tally.records.saturating_sub(tally.signed);
    match (unsigned, tally.stopped) {
        (0, _) => {}
        (_, true) => promise.push_str(&format!("; the {unsigned} after it are signed in segments that were not read")),
        (_, false) => promise.push_str(&format!("; the {unsigned} after it are chained and not yet signed")),
    }
    if tally.removed > 0 {
        promise.push_str(&format!("; the first {} were removed by retention, which signed for them", tally.removed));
    }
    if tally.from > tally.removed || tally.stopped {
        promise.push_str(&format!("; only records {} to {} were read", tally.from + 1, tally.records));
    }
    if tally.anchored.0 > 0 && !tally.stopped {
        promise.push_str("; nothing anchored was cut back or changed");
    }
    promise
}
