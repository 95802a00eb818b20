//! Walking a segment: every line against the chain, every checkpoint against the line it signs. The journal walks the end
//! of the log before it writes to it, `verify` walks all of it.

use std::{iter::Peekable, path::Path, slice};

use super::{
    chain::{self, Head, Misfit},
    checkpoint::{self, Checkpoint},
    journal::AuditError,
    key::PublicKey,
    segment::{Damage, LONGEST_LINE, Line, Lines, Segment, Wrong},
};

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
    /// Where the last finished line begins.
    pub(super) tail: u64,
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
        mut visit: impl FnMut(Line<'_>),
    ) -> Result<Walked, AuditError> {
        let name = segment.name;
        let (lines, notes) = (name.lines(self.directory), name.checkpoints(self.directory));
        if !segment.has_checkpoints {
            return Err(self.damage(&lines, 0, Wrong::CheckpointsMissing));
        }
        if !segment.has_lines && !is_last {
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
        if segment.has_lines {
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
        visit: &mut impl FnMut(Line<'_>),
    ) -> Result<(), AuditError> {
        let mut reader = Lines::open(path).map_err(|source| AuditError::at(path, "open", source))?;
        while let Some(line) = reader.next().map_err(|source| AuditError::at(path, "read", source))? {
            if !line.finished {
                if line.bytes.len() > LONGEST_LINE {
                    return Err(self.damage(path, line.number, Misfit::TooLong.into()));
                }
                if !is_last {
                    return Err(self.damage(path, line.number, Misfit::Unfinished.into()));
                }
                walked.torn = true;
                break;
            }
            let followed = chain::follow(&mut self.head, line.bytes);
            followed.map_err(|misfit| self.damage(path, line.number, misfit.into()))?;
            (walked.tail, walked.length) = (line.offset, line.end());
            visit(line);
            self.settle(notes, due, walked)?;
        }
        Ok(())
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
