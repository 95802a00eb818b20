//! What a journal finds when it opens a directory: where the log ends, and which intents never had an outcome.
//!
//! Only an unfinished last line is ever cut, and only when no checkpoint signs it: it was never acknowledged, since an
//! acknowledged record ends in a newline that was synced. Anything else that does not fit refuses the start, because a
//! gateway that mends its own evidence makes it worthless.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    path::Path,
    time::Duration,
};

use serde::Deserialize;

use super::{
    chain::Head,
    checkpoint,
    journal::AuditError,
    key::PublicKey,
    ocsf,
    record::{Entry, Phase},
    segment::{Damage, Lines, Log, Segment, SegmentName, Wrong},
    walk::Walk,
};
use crate::clock::Timestamp;

/// How far back of the last segment's beginning an intent may lie whose outcome is still to come. A request's deadline is
/// a minute; older segments are `verify`'s to read.
pub(super) const WINDOW: Duration = Duration::from_secs(15 * 60);

/// The end of a log.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) head: Head,
    pub(super) segment: SegmentName,
    /// Bytes of its finished lines.
    pub(super) length: u64,
    /// How many records are signed.
    pub(super) signed: u64,
    /// When the first record of the last segment was written.
    pub(super) born: Option<Timestamp>,
    /// The entries of intents without an outcome, in order.
    pub(super) unanswered: Vec<Entry>,
}

/// The end of the log in `directory`, cut to its last finished line; `None` when there is no log yet.
pub(super) fn recover(directory: &Path, keys: &[PublicKey]) -> Result<Option<Found>, AuditError> {
    let Log { mut segments, .. } = Log::list(directory, keys)?;
    drop_unborn(directory, &mut segments)?;
    let Some(last) = segments.last().copied() else { return Ok(None) };

    let start = window(directory, &segments)?;
    let head = opening_head(directory, segments.get(start).unwrap_or(&last), keys)?;
    let mut walk = Walk { directory, keys, head };
    let mut open = Intents::default();
    let mut walked = super::walk::Walked::default();
    for segment in segments.iter().skip(start) {
        walked = walk.segment(segment, *segment == last, |line, _| open.see(line.bytes))?;
    }
    if walked.torn {
        let path = last.name.lines(directory);
        let cut = OpenOptions::new().write(true).open(&path).and_then(|file| {
            file.set_len(walked.length)?;
            file.sync_all()
        });
        cut.map_err(|source| AuditError::at(&path, "cut the unfinished line of", source))?;
    }
    Ok(Some(Found {
        head: walk.head,
        segment: last.name,
        length: walked.length,
        signed: walked.signed,
        born: first_time(directory, &last)?.map(Timestamp::from_millis),
        unanswered: open.unanswered(&last.name.lines(directory))?,
    }))
}

/// Tidies the end of the checkpoints: a crash may have left an unfinished one, or a segment whose first checkpoint was
/// still being written and which therefore never held a record.
fn drop_unborn(directory: &Path, segments: &mut Vec<Segment>) -> Result<(), AuditError> {
    let Some(last) = segments.last().copied().filter(|last| last.has_checkpoints) else { return Ok(()) };
    let (lines, notes) = (last.name.lines(directory), last.name.checkpoints(directory));
    let bytes = std::fs::read(&notes).map_err(|source| AuditError::at(&notes, "read", source))?;
    let text = String::from_utf8_lossy(&bytes);
    let finished = checkpoint::finished(&text);
    if finished == text.len() && finished > 0 {
        return Ok(());
    }
    if finished > 0 {
        let cut = OpenOptions::new().write(true).open(&notes).and_then(|file| {
            file.set_len(finished as u64)?;
            file.sync_all()
        });
        return cut.map_err(|source| AuditError::at(&notes, "cut the unfinished checkpoint of", source));
    }
    let is_empty = last.lines.is_none() || std::fs::metadata(&lines).is_ok_and(|metadata| metadata.len() == 0);
    if is_empty {
        if last.lines.is_some() {
            std::fs::remove_file(&lines).map_err(|source| AuditError::at(&lines, "remove", source))?;
        }
        std::fs::remove_file(&notes).map_err(|source| AuditError::at(&notes, "remove", source))?;
        segments.pop();
    }
    Ok(())
}

/// Where to begin: the last segment with a record, and those before it that reach into [`WINDOW`].
fn window(directory: &Path, segments: &[Segment]) -> Result<usize, AuditError> {
    let mut newest = None;
    for (index, segment) in segments.iter().enumerate().rev() {
        let time = first_time(directory, segment)?;
        match (newest, time) {
            (None, _) => newest = time,
            (Some(newest), Some(time)) if time + WINDOW.as_millis() as i64 <= newest => return Ok(index),
            (Some(_), _) => {}
        }
    }
    Ok(0)
}

/// The time of a segment's first record, if it has one that can be read.
pub(super) fn first_time(directory: &Path, segment: &Segment) -> Result<Option<i64>, AuditError> {
    #[derive(Deserialize)]
    struct Timed {
        time: i64,
    }
    if segment.lines.is_none() {
        return Ok(None);
    }
    let path = segment.path(directory);
    let mut lines = Lines::open(&path).map_err(|source| AuditError::at(&path, "open", source))?;
    let line = lines.next().map_err(|source| AuditError::at(&path, "read", source))?;
    Ok(line.and_then(|line| serde_json::from_slice::<Timed>(line.bytes).ok()).map(|timed| timed.time))
}

/// The head before a segment, as its first checkpoint signs it.
pub(super) fn opening_head(directory: &Path, segment: &Segment, keys: &[PublicKey]) -> Result<Head, AuditError> {
    if segment.name == SegmentName::FIRST {
        return Ok(Head::genesis());
    }
    let notes = segment.name.checkpoints(directory);
    if !segment.has_checkpoints {
        let file = segment.name.lines(directory);
        let sequence = Some(segment.name.first);
        return Err(Damage { file, line: 0, sequence, wrong: Wrong::CheckpointsMissing }.into());
    }
    let bytes = std::fs::read(&notes).map_err(|source| AuditError::at(&notes, "read", source))?;
    let text = String::from_utf8_lossy(&bytes);
    let (checkpoints, wrong) = checkpoint::read(&text, keys);
    let damage = |line, wrong| Damage { file: notes.clone(), line, sequence: Some(segment.name.first), wrong };
    match (checkpoints.first(), wrong) {
        (Some(first), _) => Ok(first.head.clone()),
        (None, Some((line, wrong))) => Err(damage(line, wrong).into()),
        (None, None) => Err(damage(0, Wrong::CheckpointsMissing).into()),
    }
}

/// Intents that wait for their outcome, by request id.
#[derive(Debug, Default)]
struct Intents(HashMap<String, (u64, Vec<u8>)>);

impl Intents {
    fn see(&mut self, line: &[u8]) {
        #[derive(Deserialize)]
        struct Seen {
            metadata: SeenMetadata,
            stepgate: SeenFields,
        }
        #[derive(Deserialize)]
        struct SeenMetadata {
            sequence: u64,
        }
        #[derive(Deserialize)]
        struct SeenFields {
            phase: Phase,
            #[serde(default)]
            request_id: String,
        }
        let Ok(seen) = serde_json::from_slice::<Seen>(line) else { return };
        match seen.stepgate.phase {
            Phase::Intent => {
                self.0.insert(seen.stepgate.request_id, (seen.metadata.sequence, line.to_vec()));
            }
            Phase::Outcome | Phase::Recovered => {
                self.0.remove(&seen.stepgate.request_id);
            }
            Phase::Refusal | Phase::Suppressed | Phase::Revoke | Phase::Lift | Phase::Reading => {}
        }
    }

    fn unanswered(self, file: &Path) -> Result<Vec<Entry>, AuditError> {
        let mut lines: Vec<_> = self.0.into_values().collect();
        lines.sort_by_key(|(sequence, _)| *sequence);
        let entry = |(sequence, line): (u64, Vec<u8>)| {
            let unknown =
                Damage { file: file.to_owned(), line: 0, sequence: Some(sequence), wrong: Wrong::UnknownForm };
            ocsf::parse(&line).map(|record| record.entry).map_err(|_| unknown.into())
        };
        lines.into_iter().map(entry).collect()
    }
}

/// Makes the names of new files durable.
pub(super) fn sync_directory(directory: &Path) -> std::io::Result<()> {
    File::open(directory)?.sync_all()
}
