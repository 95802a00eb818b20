//! The segment that is being written, and what it takes to know that its bytes are where they belong.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use super::{
    chain::{self, Hash},
    journal::AuditError,
    recover::sync_directory,
    segment::SegmentName,
};

/// The log names workloads and data: for its owner, and for the group that a log shipper is in.
const MODE: u32 = 0o640;

/// A segment open for writing. Lengths count what was written as a whole; bytes after them are a failed write's.
#[derive(Debug)]
pub(super) struct OpenSegment {
    pub(super) name: SegmentName,
    path: PathBuf,
    lines: File,
    identity: (u64, u64),
    length: u64,
    /// Where the last line begins.
    tail: u64,
    /// How far the write that failed could have come.
    attempted: u64,
    notes_path: PathBuf,
    notes: File,
    notes_length: u64,
    sync: bool,
}

impl OpenSegment {
    /// A new segment. Its first checkpoint is on disk before its first line can be.
    pub(super) fn create(directory: &Path, name: SegmentName, opening: &str, sync: bool) -> Result<Self, AuditError> {
        let notes_path = name.checkpoints(directory);
        let failed = |source| AuditError::at(&notes_path, "make", source);
        // Written beside and renamed, so that no reader and no crash sees half of it.
        let fresh = notes_path.with_extension("checkpoints.new");
        let mut notes =
            OpenOptions::new().create(true).write(true).truncate(true).mode(MODE).open(&fresh).map_err(failed)?;
        notes.write_all(opening.as_bytes()).map_err(failed)?;
        if sync {
            notes.sync_all().map_err(failed)?;
        }
        std::fs::rename(&fresh, &notes_path).map_err(failed)?;
        if sync {
            sync_directory(directory).map_err(failed)?;
        }
        Self::resume(directory, name, 0, 0, sync)
    }

    /// The segment `name`, whose lines end at `length` and whose last line begins at `tail`.
    pub(super) fn resume(
        directory: &Path,
        name: SegmentName,
        length: u64,
        tail: u64,
        sync: bool,
    ) -> Result<Self, AuditError> {
        let path = name.lines(directory);
        let failed = |source| AuditError::at(&path, "open", source);
        let lines = OpenOptions::new().create(true).append(true).mode(MODE).open(&path).map_err(failed)?;
        if sync {
            // What an earlier process wrote may still be in the kernel alone.
            lines.sync_all().and_then(|()| sync_directory(directory)).map_err(failed)?;
        }
        let metadata = lines.metadata().map_err(failed)?;
        if metadata.len() != length {
            return Err(AuditError::Changed(path));
        }
        let notes_path = name.checkpoints(directory);
        let notes = OpenOptions::new().append(true).open(&notes_path);
        let notes = notes.map_err(|source| AuditError::at(&notes_path, "open", source))?;
        let notes_length = notes.metadata().map_err(|source| AuditError::at(&notes_path, "read", source))?.len();
        let identity = (metadata.dev(), metadata.ino());
        Ok(Self { name, path, lines, identity, length, tail, attempted: length, notes_path, notes, notes_length, sync })
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Writes finished lines, the last of which begins at `tail` of them.
    pub(super) fn write(&mut self, bytes: &[u8], tail: u64) -> Result<(), AuditError> {
        self.check_place(self.length)?;
        self.attempted = self.length + bytes.len() as u64;
        self.lines.write_all(bytes).map_err(|source| AuditError::at(&self.path, "write", source))?;
        if self.sync {
            self.lines.sync_data().map_err(|source| AuditError::at(&self.path, "sync", source))?;
        }
        self.tail = self.length + tail;
        self.length = self.attempted;
        Ok(())
    }

    /// Writes a checkpoint.
    pub(super) fn note(&mut self, text: &str) -> Result<(), AuditError> {
        let failed = |source| AuditError::at(&self.notes_path, "write", source);
        self.notes.write_all(text.as_bytes()).map_err(failed)?;
        if self.sync {
            self.notes.sync_data().map_err(failed)?;
        }
        self.notes_length += text.len() as u64;
        Ok(())
    }

    /// Cuts what a failed write left, after reading back that the last whole line is the one that `last` is the hash of.
    ///
    /// The files are opened anew: a kernel that failed to write a page reports it to each open file once and then calls
    /// the page clean, so a second sync of the same file proves nothing (PostgreSQL's "fsyncgate"). What is synced here
    /// is a length, over bytes that an earlier sync had already vouched for.
    pub(super) fn mend(&self, last: Hash) -> Result<(), AuditError> {
        self.check_place(self.attempted)?;
        let failed = |source| AuditError::at(&self.path, "mend", source);
        let lines = OpenOptions::new().read(true).write(true).open(&self.path).map_err(failed)?;
        if self.length > 0 {
            let mut line = vec![0; usize::try_from(self.length - self.tail).unwrap_or(0)];
            lines.read_exact_at(&mut line, self.tail).map_err(failed)?;
            let hash = line.strip_suffix(b"\n").and_then(chain::claimed);
            if hash != Some(last.to_string().as_str()) {
                return Err(AuditError::Changed(self.path.clone()));
            }
        }
        lines.set_len(self.length).and_then(|()| lines.sync_all()).map_err(failed)?;
        let failed = |source| AuditError::at(&self.notes_path, "mend", source);
        let notes = OpenOptions::new().write(true).open(&self.notes_path).map_err(failed)?;
        notes.set_len(self.notes_length).and_then(|()| notes.sync_all()).map_err(failed)
    }

    /// Whether the file at the path is the one that is open, and as long as it was left, up to a write that failed.
    fn check_place(&self, longest: u64) -> Result<(), AuditError> {
        let metadata = match std::fs::metadata(&self.path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(AuditError::Gone(self.path.clone()));
            }
            Err(source) => return Err(AuditError::at(&self.path, "find", source)),
        };
        if (metadata.dev(), metadata.ino()) != self.identity {
            return Err(AuditError::Gone(self.path.clone()));
        }
        if metadata.len() < self.length || metadata.len() > longest {
            return Err(AuditError::Changed(self.path.clone()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(directory: &Path) -> (OpenSegment, Hash) {
        let mut segment = OpenSegment::create(directory, SegmentName::FIRST, "notes", true).unwrap();
        let mut line = br#"{"prev":""}"#.to_vec();
        let hash = chain::seal(Hash::GENESIS, &mut line);
        segment.write(&line, 0).unwrap();
        (segment, hash)
    }

    /// What a write leaves that stops halfway: bytes beyond the length, no longer than it tried.
    #[test]
    fn the_bytes_of_a_failed_write_are_cut_and_the_rest_stays() {
        let directory = tempfile::tempdir().unwrap();
        let (mut segment, last) = segment(directory.path());
        let whole = std::fs::read(&segment.path).unwrap();
        segment.attempted += 100;
        segment.lines.write_all(b"half a rec").unwrap();
        segment.notes.write_all(b"half a note").unwrap();
        assert!(matches!(segment.write(b"more\n", 0), Err(AuditError::Changed(_))), "never written behind");

        segment.mend(last).unwrap();
        assert_eq!(std::fs::read(&segment.path).unwrap(), whole);
        assert_eq!(std::fs::read(&segment.notes_path).unwrap(), b"notes");
    }

    #[test]
    fn what_another_program_did_to_the_file_is_not_mended_away() {
        let directory = tempfile::tempdir().unwrap();
        let (mut segment, last) = segment(directory.path());
        segment.lines.write_all(b"planted").unwrap();
        assert!(matches!(segment.mend(last), Err(AuditError::Changed(_))));

        let (segment, _) = self::segment(tempfile::tempdir().unwrap().path());
        assert!(matches!(segment.mend(last), Err(AuditError::Gone(_))));

        let directory = tempfile::tempdir().unwrap();
        let (segment, last) = self::segment(directory.path());
        let text = std::fs::read_to_string(&segment.path).unwrap();
        std::fs::write(&segment.path, text.replace("\"hash\":\"", "\"hash\":\"0").replacen('}', "", 1)).unwrap();
        assert!(matches!(segment.mend(last), Err(AuditError::Changed(_))));
    }
}
