//! Walking a segment: every line against the chain, every checkpoint against the line it signs. The journal walks the end
//! of the log before it writes to it, `verify` walks all of it.
//!
//! What a line says by itself is looked at on every processor at once; that one follows the other, one after another.

use std::{iter::Peekable, num::NonZero, path::Path, slice, thread};

use super::{
    chain::{self, Head, Misfit, Seen},
    checkpoint::{self, Checkpoint},
    journal::AuditError,
    key::PublicKey,
    segment::{Blocks, Damage, LONGEST_LINE, Line, Segment, Wrong},
};

/// Fewer lines are looked at sooner than another thread begins.
const WORTH_A_THREAD: usize = 64;

/// A walk along a log, from wherever its head was set.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    pub(super) directory: &'a Path,
    pub(super) keys: &'a [PublicKey],
    pub(super) head: Head,
}

/// What a whole segment showed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Walked {
    /// Bytes of finished lines.
    pub(super) length: u64,
    /// Whether bytes of an unfinished line follow; in the last segment alone.
    pub(super) torn: bool,
    /// How many checkpoints it has.
    pub(super) checkpoints: u64,
    /// The records signed by the last of them.
    pub(super) signed: u64,
}

impl Walk<'_> {
    /// Walks `segment`. Stops at the first record or checkpoint that does not fit, with the head before it.
    pub(super) fn segment(
        &mut self,
        segment: &Segment,
        is_last: bool,
        mut visit: impl FnMut(Line<'_>, &Head),
    ) -> Result<Walked, AuditError> {
        let name = segment.name;
        let (lines, notes) = (segment.path(self.directory), name.checkpoints(self.directory));
        if !segment.has_checkpoints {
            return Err(self.damage(&lines, 0, Wrong::CheckpointsMissing));
        }
        if segment.lines.is_none() && !is_last {
            return Err(self.damage(&lines, 0, Wrong::LinesMissing));
        }
        let expected = self.head.records().saturating_add(1);
        if name.first != expected {
            return Err(self.damage(&lines, 0, Wrong::SegmentStart { named: name.first, expected }));
        }
        let text = std::fs::read(&notes).map_err(|source| AuditError::at(&notes, "read", source))?;
        let text = String::from_utf8(text).map_err(|_| self.damage(&notes, 0, Wrong::CheckpointForm))?;
        let (checkpoints, wrong) = checkpoint::read(&text, self.keys);
        self.opening(&notes, &checkpoints, wrong.as_ref())?;

        let mut due = checkpoints.iter().peekable();
        let mut walked = Walked { checkpoints: checkpoints.len() as u64, ..Walked::default() };
        self.settle(&notes, &mut due, &mut walked)?;
        if segment.lines.is_some() {
            self.lines(&lines, &notes, is_last, &mut due, &mut walked, &mut visit)?;
        }
        if let Some(ahead) = due.next() {
            let wrong = Wrong::CutBack { signed: ahead.head.records(), found: self.head.records() };
            return Err(self.damage(&notes, ahead.line, wrong));
        }
        match wrong {
            Some((line, wrong)) => Err(self.damage(&notes, line, wrong)),
            None => Ok(walked),
        }
    }

    /// The first checkpoint of a segment signs everything before it.
    fn opening(
        &self,
        notes: &Path,
        checkpoints: &[Checkpoint<'_>],
        wrong: Option<&(u64, Wrong)>,
    ) -> Result<(), AuditError> {
        let expected = self.head.records();
        match (checkpoints.first(), wrong) {
            (Some(first), _) if first.head.records() == expected => Ok(()),
            (Some(first), _) => {
                Err(self.damage(notes, first.line, Wrong::CheckpointOrder { expected, found: first.head.records() }))
            }
            (None, Some((line, wrong))) => Err(self.damage(notes, *line, wrong.clone())),
            (None, None) => Err(self.damage(notes, 0, Wrong::CheckpointsMissing)),
        }
    }

    fn lines(
        &mut self,
        path: &Path,
        notes: &Path,
        is_last: bool,
        due: &mut Peekable<slice::Iter<'_, Checkpoint<'_>>>,
        walked: &mut Walked,
        visit: &mut impl FnMut(Line<'_>, &Head),
    ) -> Result<(), AuditError> {
        let mut blocks = Blocks::open(path).map_err(|source| AuditError::at(path, "open", source))?;
        loop {
            let lines = blocks.next().map_err(|source| AuditError::at(path, "read", source))?;
            if lines.is_empty() {
                return Ok(());
            }
            for (line, seen) in lines.iter().zip(see(&lines)) {
                if line.bytes.len() > LONGEST_LINE {
                    return Err(self.damage(path, line.number, Misfit::TooLong.into()));
                }
                if !line.finished && !is_last {
                    return Err(self.damage(path, line.number, Misfit::Unfinished.into()));
                }
                if !line.finished {
                    walked.torn = true;
                    return Ok(());
                }
                let followed = seen.and_then(|seen| seen.follow(&mut self.head));
                followed.map_err(|misfit| self.damage(path, line.number, misfit.into()))?;
                walked.length = line.end();
                visit(*line, &self.head);
                self.settle(notes, due, walked)?;
            }
        }
    }

    /// Checks the checkpoints that sign the head.
    fn settle(
        &self,
        notes: &Path,
        due: &mut Peekable<slice::Iter<'_, Checkpoint<'_>>>,
        walked: &mut Walked,
    ) -> Result<(), AuditError> {
        while let Some(checkpoint) = due.next_if(|checkpoint| checkpoint.head.records() <= self.head.records()) {
            let signed = &checkpoint.head;
            if signed.records() < self.head.records() {
                let wrong = Wrong::CheckpointOrder { expected: self.head.records(), found: signed.records() };
                return Err(self.damage(notes, checkpoint.line, wrong));
            }
            if *signed != self.head {
                let wrong = Wrong::CheckpointHash(signed.records());
                let sequence = Some(signed.records());
                return Err(Damage { file: notes.to_owned(), line: checkpoint.line, sequence, wrong }.into());
            }
            walked.signed = signed.records();
        }
        Ok(())
    }

    /// What is wrong after the head.
    pub(super) fn damage(&self, file: &Path, line: u64, wrong: Wrong) -> AuditError {
        let sequence = Some(self.head.records().saturating_add(1));
        Damage { file: file.to_owned(), line, sequence, wrong }.into()
    }
}

/// Looks at every line, with as many threads as there are processors.
fn see(lines: &[Line<'_>]) -> Vec<Result<Seen, Misfit>> {
    let alone = |lines: &[Line<'_>]| lines.iter().map(|line| chain::see(line.bytes)).collect::<Vec<_>>();
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(lines.len() / WORTH_A_THREAD);
    if threads < 2 {
        return alone(lines);
    }
    let (own, others) = lines.split_at(lines.len() / threads);
    thread::scope(|scope| {
        let others: Vec<_> = others
            .chunks(own.len().max(WORTH_A_THREAD))
            .map(|lines| (lines, thread::Builder::new().spawn_scoped(scope, move || alone(lines))))
            .collect();
        let mut seen = alone(own);
        for (lines, thread) in others {
            // A thread that did not begin, or did not end, leaves its lines to this one.
            let theirs = thread.ok().and_then(|thread| thread.join().ok());
            seen.extend(theirs.unwrap_or_else(|| alone(lines)));
        }
        seen
    })
}
