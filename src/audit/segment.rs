//! The files of a log: how they are named, listed and read line by line.
//!
//! A segment `0000000001-1.jsonl` holds the records from the sequence after the dash; `0000000001-1.checkpoints` beside it
//! holds the signed checkpoints made while it grew, the first of them over everything before the segment. The
//! checkpoints are on disk before the segment is, so a segment without them was tampered with. A closed segment may be
//! packed: then its lines are in `0000000001-1.jsonl.gz`.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead as _, BufReader, Read},
    path::{Path, PathBuf},
};

use flate2::read::MultiGzDecoder;
use memchr::{memchr_iter, memrchr};

use super::{
    chain::{Head, Misfit},
    journal::AuditError,
    key::PublicKey,
    retention::{self, Removed},
};

const LINES: &str = ".jsonl";
const PACKED: &str = ".jsonl.gz";
const CHECKPOINTS: &str = ".checkpoints";

/// No record is longer: a batch of 100 operations with the longest ids and keys stays below it.
pub(super) const LONGEST_LINE: usize = 4 * 1024 * 1024;
/// How much of a segment is looked at at once.
const BLOCK: usize = 4 * 1024 * 1024;

/// A place in a file of the log at which something is wrong.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}:{line}: {wrong}", file.display())]
pub struct Damage {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1; 0 for the file as a whole.
    pub line: u64,
    /// The sequence that belongs there, or that a checkpoint signs.
    pub sequence: Option<u64>,
    /// What is wrong.
    pub wrong: Wrong,
}

/// What can be wrong with a log.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Wrong {
    /// A record does not follow the one before it.
    #[error(transparent)]
    Record(#[from] Misfit),
    /// A record cannot be read, although its hash fits.
    #[error("the record is of no known form")]
    UnknownForm,
    /// The directory holds no log.
    #[error("there is no audit log here")]
    NoLog,
    /// The public key beside the log is missing or no key.
    #[error("the public key of the checkpoints is missing or unusable")]
    PublicKey,
    /// A file that ends like a segment and is none.
    #[error("this is no segment of the log")]
    Stranger,
    /// A segment is missing before this one.
    #[error("segment {0} is missing before this one")]
    SegmentMissing(u64),
    /// The segment's own file is gone and only its checkpoints stand.
    #[error("the segment is missing, its checkpoints are not")]
    LinesMissing,
    /// The segment's checkpoints are gone.
    #[error("the segment's checkpoints are missing")]
    CheckpointsMissing,
    /// The segment's name says another first sequence than the chain.
    #[error("the segment begins at sequence {named} by its name, and at {expected} by the chain")]
    SegmentStart {
        /// By its name.
        named: u64,
        /// By the chain.
        expected: u64,
    },
    /// A checkpoint is not in the form of one.
    #[error("this is no checkpoint")]
    CheckpointForm,
    /// A checkpoint file ends in the middle of a checkpoint.
    #[error("the last checkpoint is not finished")]
    CheckpointUnfinished,
    /// A checkpoint is signed by no trusted key, or its signature does not fit.
    #[error("no trusted key signed this checkpoint")]
    Signature,
    /// A checkpoint signs other records than the log has.
    #[error("the checkpoint signs another record {0} than the log has")]
    CheckpointHash(u64),
    /// Checkpoints run backwards, or the first does not sign what is before the segment.
    #[error("the checkpoint signs {found} records where at least {expected} belong")]
    CheckpointOrder {
        /// The least it may sign.
        expected: u64,
        /// What it signs.
        found: u64,
    },
    /// What is said to have been removed by retention is not signed for.
    #[error("the statement of what retention removed is not in the form of one")]
    RemovedForm,
    /// A checkpoint kept elsewhere was made of other records.
    #[error("the log is not the one that was anchored: its first {0} records are others")]
    Anchor(u64),
    /// The log was cut back below a signed checkpoint.
    #[error("the log was cut back: {signed} records are signed, {found} are here")]
    CutBack {
        /// What the checkpoint signs.
        signed: u64,
        /// What the log has.
        found: u64,
    },
}

/// The name of a segment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct SegmentName {
    /// From 1, without gaps.
    pub(super) number: u64,
    /// The sequence of its first record.
    pub(super) first: u64,
}

impl SegmentName {
    pub(super) const FIRST: Self = Self { number: 1, first: 1 };

    fn stem(self) -> String {
        format!("{:010}-{}", self.number, self.first)
    }

    pub(super) fn lines(self, directory: &Path) -> PathBuf {
        directory.join(self.stem() + LINES)
    }

    pub(super) fn packed(self, directory: &Path) -> PathBuf {
        directory.join(self.stem() + PACKED)
    }

    pub(super) fn checkpoints(self, directory: &Path) -> PathBuf {
        directory.join(self.stem() + CHECKPOINTS)
    }

    /// The name that a stem spells; only the one spelling that [`SegmentName::stem`] gives.
    fn parse(stem: &str) -> Option<Self> {
        let (number, first) = stem.split_once('-')?;
        let name = Self { number: number.parse().ok()?, first: first.parse().ok()? };
        (name.stem() == stem).then_some(name)
    }
}

/// How a segment's lines are kept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Kept {
    Packed,
    /// As they were written; where both are there, packing did not end, and this is the one.
    Plain,
}

/// A segment and which of its two files are there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Segment {
    pub(super) name: SegmentName,
    pub(super) lines: Option<Kept>,
    pub(super) has_checkpoints: bool,
}

impl Segment {
    /// The file of its lines, where it is or would be.
    pub(super) fn path(&self, directory: &Path) -> PathBuf {
        match self.lines {
            Some(Kept::Packed) => self.name.packed(directory),
            Some(Kept::Plain) | None => self.name.lines(directory),
        }
    }
}

/// A log as its file names tell it: numbered without gaps, from the first segment or from where retention ends.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) segments: Vec<Segment>,
    /// What retention removed.
    pub(super) removed: Option<Removed>,
}

impl Log {
    /// The log in `directory`. Files below what retention removed are what it had no time to remove.
    pub(super) fn list(directory: &Path, keys: &[PublicKey]) -> Result<Self, AuditError> {
        let listing = list(directory).map_err(|source| AuditError::at(directory, "list", source))?;
        if let Some(stranger) = listing.strangers.into_iter().next() {
            return Err(Damage { file: stranger, line: 0, sequence: None, wrong: Wrong::Stranger }.into());
        }
        let removed = retention::read(directory, keys)?;
        let gone = removed.as_ref().map_or(0, |removed| removed.segments);
        let mut segments = listing.segments;
        segments.retain(|segment| segment.name.number > gone);
        for (segment, expected) in segments.iter().zip(gone + 1..) {
            if segment.name.number != expected {
                let file = segment.name.lines(directory);
                return Err(Damage { file, line: 0, sequence: None, wrong: Wrong::SegmentMissing(expected) }.into());
            }
        }
        if let (Some(removed), true) = (&removed, segments.is_empty()) {
            let wrong = Wrong::SegmentMissing(removed.segments + 1);
            return Err(Damage { file: directory.to_owned(), line: 0, sequence: None, wrong }.into());
        }
        Ok(Self { segments, removed })
    }

    /// The head before the first segment that is here.
    pub(super) fn before(&self) -> Head {
        self.removed.as_ref().map_or_else(Head::genesis, |removed| removed.head.clone())
    }
}

/// The segments of a directory in order, and the files that only look like one.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) segments: Vec<Segment>,
    pub(super) strangers: Vec<PathBuf>,
}

pub(super) fn list(directory: &Path) -> io::Result<Listing> {
    let mut segments = BTreeMap::new();
    let mut strangers = Vec::new();
    for file in directory.read_dir()? {
        let name = file?.file_name();
        let text = name.to_string_lossy();
        let found = [(LINES, Some(Kept::Plain)), (PACKED, Some(Kept::Packed)), (CHECKPOINTS, None)]
            .into_iter()
            .find_map(|(ending, kept)| text.strip_suffix(ending).map(|stem| (stem, kept)));
        let Some((stem, kept)) = found else { continue };
        let Some(name) = SegmentName::parse(stem) else {
            strangers.push(directory.join(name));
            continue;
        };
        let segment = segments.entry(name).or_insert(Segment { name, lines: None, has_checkpoints: false });
        match kept {
            Some(_) => segment.lines = segment.lines.max(kept),
            None => segment.has_checkpoints = true,
        }
    }
    strangers.sort();
    Ok(Listing { segments: segments.into_values().collect(), strangers })
}

/// The bytes of a segment's lines, unpacked.
#[derive(Debug)]
enum Source {
    Plain(File),
    Packed(Box<MultiGzDecoder<BufReader<File>>>),
}

impl Source {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        Ok(if path.extension().is_some_and(|ending| ending == "gz") {
            Self::Packed(Box::new(MultiGzDecoder::new(BufReader::new(file))))
        } else {
            Self::Plain(file)
        })
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.read(buffer),
            Self::Packed(decoder) => decoder.read(buffer),
        }
    }
}

/// The lines of a segment, one at a time, through one buffer.
#[derive(Debug)]
pub(super) struct Lines {
    reader: BufReader<Source>,
    buffer: Vec<u8>,
    number: u64,
    offset: u64,
}

/// A line of a segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<'a> {
    /// From 1.
    pub(super) number: u64,
    /// Where it begins, in bytes.
    pub(super) offset: u64,
    /// Its bytes, without the newline.
    pub(super) bytes: &'a [u8],
    /// Whether a newline ended it.
    pub(super) finished: bool,
}

impl Line<'_> {
    /// Where the next line begins.
    pub(super) fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64 + u64::from(self.finished)
    }
}

impl Lines {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let reader = BufReader::with_capacity(256 * 1024, Source::open(path)?);
        Ok(Self { reader, buffer: Vec::new(), number: 0, offset: 0 })
    }

    /// The next line; a last line without a newline is given once, as unfinished. A line over [`LONGEST_LINE`] is given
    /// up to that length, as unfinished.
    pub(super) fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        self.buffer.clear();
        let longest = LONGEST_LINE as u64 + 1;
        let read = self.reader.by_ref().take(longest).read_until(b'\n', &mut self.buffer)?;
        if read == 0 {
            return Ok(None);
        }
        let offset = self.offset;
        self.offset += read as u64;
        self.number += 1;
        let (bytes, finished) = match self.buffer.strip_suffix(b"\n") {
            Some(bytes) => (bytes, true),
            None => (self.buffer.as_slice(), false),
        };
        Ok(Some(Line { number: self.number, offset, bytes, finished }))
    }

    /// The line that was given last, without its newline.
    pub(super) fn last(&self) -> &[u8] {
        self.buffer.strip_suffix(b"\n").unwrap_or(&self.buffer)
    }

    /// Goes back to the beginning of a line that was unfinished, to read it again when more of it is there. A packed
    /// segment has grown all it will.
    pub(super) fn rewind_to(&mut self, offset: u64) -> io::Result<()> {
        use std::io::{Seek as _, SeekFrom};
        // What the reader holds is a line that begins at `offset`, and nothing after it.
        self.reader.consume(self.reader.buffer().len());
        if let Source::Plain(file) = self.reader.get_mut() {
            file.seek(SeekFrom::Start(offset))?;
            self.number = self.number.saturating_sub(1);
            self.offset = offset;
        }
        Ok(())
    }
}

/// A segment a few megabytes at a time, in whole lines: how a whole log is read.
#[derive(Debug)]
pub(super) struct Blocks {
    source: Source,
    buffer: Vec<u8>,
    /// Bytes of the buffer that were given already.
    given: usize,
    number: u64,
    offset: u64,
    ended: bool,
}

impl Blocks {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { source: Source::open(path)?, buffer: Vec::new(), given: 0, number: 0, offset: 0, ended: false })
    }

    /// The next lines, at least one. Only the last of a segment may be unfinished, or longer than any line may be.
    pub(super) fn next(&mut self) -> io::Result<Vec<Line<'_>>> {
        self.buffer.drain(..self.given);
        let mut whole = 0;
        while !self.ended && whole == 0 && self.buffer.len() <= LONGEST_LINE {
            let before = self.buffer.len();
            let read = self.source.by_ref().take(BLOCK as u64).read_to_end(&mut self.buffer)?;
            self.ended = read < BLOCK;
            let fresh = self.buffer.get(before..).unwrap_or_default();
            whole = memrchr(b'\n', fresh).map_or(0, |at| before + at + 1);
        }
        if self.ended || whole == 0 {
            whole = self.buffer.len();
        }
        self.given = whole;
        let (mut lines, mut start) = (Vec::new(), 0);
        let block = self.buffer.get(..whole).unwrap_or_default();
        let unfinished = (!block.is_empty() && !block.ends_with(b"\n")).then_some(block.len());
        for end in memchr_iter(b'\n', block).chain(unfinished) {
            self.number += 1;
            let bytes = block.get(start..end).unwrap_or_default();
            let line = Line { number: self.number, offset: self.offset, bytes, finished: end < block.len() };
            (start, self.offset) = (end + 1, line.end());
            lines.push(line);
        }
        Ok(lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_has_one_spelling() {
        let name = SegmentName { number: 7, first: 42 };
        assert_eq!(name.stem(), "0000000007-42");
        assert_eq!(SegmentName::parse("0000000007-42"), Some(name));
        for text in ["7-42", "0000000007-042", "0000000007", "0000000007-+42", "x-1"] {
            assert_eq!(SegmentName::parse(text), None, "{text}");
        }
    }
}
