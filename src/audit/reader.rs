//! Reading a log's records in order, across segments, while it may still be written.

use std::path::{Path, PathBuf};

use super::{
    chain::Misfit,
    journal::AuditError,
    ocsf,
    record::Record,
    segment::{self, Damage, Lines, SegmentName, Wrong},
};

/// The records of a log, one after another. It checks no hashes: that is `verify`'s.
#[derive(Debug)]
pub struct Reader {
    directory: PathBuf,
    name: SegmentName,
    lines: Lines,
    /// The segment after this one, once it was seen.
    next: Option<SegmentName>,
}

impl Reader {
    /// From the first record on.
    pub fn from_start(directory: &Path) -> Result<Self, AuditError> {
        Self::open(directory, usize::MAX)
    }

    /// From the beginning of the segment before the last: what is recent.
    pub fn from_recent(directory: &Path) -> Result<Self, AuditError> {
        Self::open(directory, 1)
    }

    fn open(directory: &Path, back: usize) -> Result<Self, AuditError> {
        let segments = with_lines(directory)?;
        let at = segments.len().saturating_sub(1).saturating_sub(back);
        let name = segments.get(at).copied().ok_or_else(|| AuditError::NoLog(directory.to_owned()))?;
        let path = name.lines(directory);
        let lines = Lines::open(&path).map_err(|source| AuditError::at(&path, "open", source))?;
        Ok(Self { directory: directory.to_owned(), name, lines, next: None })
    }

    /// The next record whose line `wanted` admits; `None` at the end, which may have moved by the next call.
    pub fn next(&mut self, wanted: impl Fn(&[u8]) -> bool) -> Result<Option<Record>, AuditError> {
        let mut path = self.name.lines(&self.directory);
        loop {
            let line = self.lines.next().map_err(|source| AuditError::at(&path, "read", source))?;
            let unfinished = match line {
                Some(line) if line.finished => {
                    if wanted(line.bytes) {
                        let number = line.number;
                        let unknown =
                            |_| Damage { file: path, line: number, sequence: None, wrong: Wrong::UnknownForm };
                        return Ok(Some(ocsf::parse(line.bytes).map_err(unknown)?));
                    }
                    continue;
                }
                Some(line) => Some((line.number, line.offset)),
                None => None,
            };
            if let Some((number, offset)) = unfinished {
                if self.next.is_some() {
                    let wrong = Misfit::Unfinished.into();
                    return Err(Damage { file: path, line: number, sequence: None, wrong }.into());
                }
                self.lines.rewind_to(offset).map_err(|source| AuditError::at(&path, "read", source))?;
            }
            match self.next.take() {
                Some(next) => {
                    self.name = next;
                    path = next.lines(&self.directory);
                    self.lines = Lines::open(&path).map_err(|source| AuditError::at(&path, "open", source))?;
                }
                None => {
                    // Once the next segment is there this one is complete, and only then is its end its end.
                    self.next = with_lines(&self.directory)?.into_iter().find(|name| *name > self.name);
                    if self.next.is_none() {
                        return Ok(None);
                    }
                }
            }
        }
    }
}

impl Reader {
    /// The line of the record that [`Reader::next`] gave last, as it stands in the log.
    pub fn raw(&self) -> &[u8] {
        self.lines.last()
    }
}

fn with_lines(directory: &Path) -> Result<Vec<SegmentName>, AuditError> {
    let listing = segment::list(directory).map_err(|source| AuditError::at(directory, "list", source))?;
    Ok(listing.segments.into_iter().filter(|segment| segment.has_lines).map(|segment| segment.name).collect())
}
