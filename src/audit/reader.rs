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
    path: PathBuf,
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
        let (path, lines) = open_lines(directory, name)?;
        Ok(Self { directory: directory.to_owned(), name, path, lines, next: None })
    }

    /// The next record whose line `wanted` admits; `None` at the end, which may have moved by the next call.
    pub fn next(&mut self, wanted: impl Fn(&[u8]) -> bool) -> Result<Option<Record>, AuditError> {
        loop {
            let line = self.lines.next().map_err(|source| AuditError::at(&self.path, "read", source))?;
            let unfinished = match line {
                Some(line) if line.finished => {
                    if wanted(line.bytes) {
                        let number = line.number;
                        let file = self.path.clone();
                        let unknown = |_| Damage { file, line: number, sequence: None, wrong: Wrong::UnknownForm };
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
                    return Err(Damage { file: self.path.clone(), line: number, sequence: None, wrong }.into());
                }
                self.lines.rewind_to(offset).map_err(|source| AuditError::at(&self.path, "read", source))?;
            }
            match self.next.take() {
                Some(next) => {
                    self.name = next;
                    (self.path, self.lines) = open_lines(&self.directory, next)?;
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
    Ok(listing.segments.into_iter().filter(|segment| segment.lines.is_some()).map(|segment| segment.name).collect())
}

/// The lines of a segment, which may be packed at any moment.
fn open_lines(directory: &Path, name: SegmentName) -> Result<(PathBuf, Lines), AuditError> {
    let plain = name.lines(directory);
    let (path, opened) = match Lines::open(&plain) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let packed = name.packed(directory);
            let opened = Lines::open(&packed);
            (packed, opened)
        }
        opened => (plain, opened),
    };
    let lines = opened.map_err(|source| AuditError::at(&path, "open", source))?;
    Ok((path, lines))
}
