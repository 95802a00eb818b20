//! The segment that is being written, and what it takes to know that its bytes are where they belong.
//!
//! Room for what is still to come is taken ahead of time, so that a disk that fills up is noticed while the outcomes of
//! writes that have begun still fit. Where the file system cannot keep room, the free space is asked instead.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{FallocateFlags, fallocate, fstatvfs};

use super::{
    chain::Head,
    journal::AuditError,
    key::PublicKey,
    recover::{self, sync_directory},
    segment::{Kept, Segment, SegmentName},
    walk::Walk,
};

/// The log names workloads and data: for its owner, and for the group that a log shipper is in.
const MODE: u32 = 0o640;
/// Room for checkpoints, taken ahead: a few hundred of them.
const NOTES_ROOM: u64 = 128 * 1024;

/// How a segment is kept on its disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Care {
    /// Whether what was written is synced.
    pub(super) sync: bool,
    /// The room for records that is kept ahead of the last one.
    pub(super) room: u64,
}

/// A file of a segment, with the room that was taken for it.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    file: File,
    length: u64,
    /// How far room was taken.
    taken: u64,
    /// The least that is kept free after the length.
    room: u64,
}

/// A segment open for writing. Lengths count what was written as a whole; bytes after them are a failed write's.
#[derive(Debug)]
pub(super) struct OpenSegment {
    pub(super) name: SegmentName,
    lines: Place,
    identity: (u64, u64),
    /// How far the write that failed could have come.
    attempted: u64,
    notes: Place,
    sync: bool,
}

/// A segment that failed. No file of it is open, so that its disk can be taken away, mended and brought back.
#[derive(Clone, Debug)]
pub(super) struct ShutSegment {
    pub(super) name: SegmentName,
    path: PathBuf,
    length: u64,
    attempted: u64,
    notes_path: PathBuf,
    notes_length: u64,
}

impl OpenSegment {
    /// A new segment. Its first checkpoint is on disk before its first line can be. When there is no room for it, nothing
    /// of it is there.
    pub(super) fn create(directory: &Path, name: SegmentName, opening: &str, care: Care) -> Result<Self, AuditError> {
        let (path, notes_path) = (name.lines(directory), name.checkpoints(directory));
        // Written beside and renamed, so that no reader and no crash sees half of it.
        let (fresh, fresh_notes) = (path.with_extension("jsonl.new"), notes_path.with_extension("checkpoints.new"));
        let made = Self::make(&fresh, &fresh_notes, opening, care);
        if made.is_err() {
            // What is left of it takes room that the segment before needs; the next attempt writes it anew.
            let _ = (std::fs::remove_file(&fresh), std::fs::remove_file(&fresh_notes));
        }
        made?;
        let failed = |source| AuditError::at(&notes_path, "make", source);
        std::fs::rename(&fresh_notes, &notes_path).map_err(failed)?;
        std::fs::rename(&fresh, &path).map_err(failed)?;
        Self::resume(directory, name, 0, care)
    }

    fn make(fresh: &Path, fresh_notes: &Path, opening: &str, care: Care) -> Result<(), AuditError> {
        let make = |path: &Path| {
            let open = OpenOptions::new().create(true).write(true).truncate(true).mode(MODE).open(path);
            open.map_err(|source| AuditError::at(path, "make", source))
        };
        Place::new(fresh.to_owned(), make(fresh)?, 0, care.room).take_room()?;
        let mut notes = Place::new(fresh_notes.to_owned(), make(fresh_notes)?, 0, NOTES_ROOM);
        notes.take_room()?;
        notes.write(opening.as_bytes(), care.sync)
    }

    /// The segment `name`, whose lines end at `length`.
    pub(super) fn resume(directory: &Path, name: SegmentName, length: u64, care: Care) -> Result<Self, AuditError> {
        let path = name.lines(directory);
        let failed = |source| AuditError::at(&path, "open", source);
        let lines = OpenOptions::new().create(true).append(true).mode(MODE).open(&path).map_err(failed)?;
        if care.sync {
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
        Ok(Self {
            name,
            lines: Place::new(path, lines, length, care.room),
            identity: (metadata.dev(), metadata.ino()),
            attempted: length,
            notes: Place::new(notes_path, notes, notes_length, NOTES_ROOM),
            sync: care.sync,
        })
    }

    pub(super) fn length(&self) -> u64 {
        self.lines.length
    }

    /// Takes the room that is kept ahead of the last record, where it is not taken yet.
    pub(super) fn take_room(&mut self) -> Result<(), AuditError> {
        self.lines.take_room()?;
        self.notes.take_room()
    }

    /// Writes finished lines.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), AuditError> {
        self.check_place()?;
        self.attempted = self.lines.length + bytes.len() as u64;
        self.lines.write(bytes, self.sync)
    }

    /// Writes a checkpoint.
    pub(super) fn note(&mut self, text: &str) -> Result<(), AuditError> {
        self.notes.write(text.as_bytes(), self.sync)
    }

    /// Gives the room back that was taken and not used.
    pub(super) fn finish(&self) {
        for place in [&self.lines, &self.notes] {
            if let Err(error) = place.file.set_len(place.length) {
                tracing::warn!(file = %place.path.display(), %error, "room taken for the audit log is not given back");
            }
        }
    }

    /// What is left to know of it when its files are closed.
    pub(super) fn shut(&self) -> ShutSegment {
        ShutSegment {
            name: self.name,
            path: self.lines.path.clone(),
            length: self.lines.length,
            attempted: self.attempted,
            notes_path: self.notes.path.clone(),
            notes_length: self.notes.length,
        }
    }

    /// Whether the file at the path is the one that is open, and as long as it was left.
    fn check_place(&self) -> Result<(), AuditError> {
        let metadata = find(&self.lines.path)?;
        if (metadata.dev(), metadata.ino()) != self.identity {
            return Err(AuditError::Gone(self.lines.path.clone()));
        }
        if metadata.len() != self.lines.length {
            return Err(AuditError::Changed(self.lines.path.clone()));
        }
        Ok(())
    }
}

impl ShutSegment {
    /// Cuts what a failed write left, and reads back that all before it is the log that ends in `head`.
    ///
    /// The files are opened anew: a kernel that failed to write a page reports it to each open file once and then calls
    /// the page clean, so a second sync of the same file proves nothing (PostgreSQL's "fsyncgate"). What is synced here
    /// is a length, over bytes that an earlier sync had already vouched for.
    pub(super) fn mend(&self, directory: &Path, keys: &[PublicKey], head: &Head) -> Result<(), AuditError> {
        let metadata = find(&self.path)?;
        if metadata.len() < self.length || metadata.len() > self.attempted {
            return Err(AuditError::Changed(self.path.clone()));
        }
        for (path, length) in [(&self.path, self.length), (&self.notes_path, self.notes_length)] {
            let cut = OpenOptions::new().write(true).open(path).and_then(|file| {
                file.set_len(length)?;
                file.sync_all()
            });
            cut.map_err(|source| AuditError::at(path, "mend", source))?;
        }
        let segment = Segment { name: self.name, lines: Some(Kept::Plain), has_checkpoints: true };
        let mut walk = Walk { directory, keys, head: recover::opening_head(directory, &segment, keys)? };
        walk.segment(&segment, true, |_, _| {})?;
        if walk.head != *head {
            return Err(AuditError::Changed(self.path.clone()));
        }
        Ok(())
    }
}

impl Place {
    fn new(path: PathBuf, file: File, length: u64, room: u64) -> Self {
        Self { path, file, length, taken: length, room }
    }

    fn write(&mut self, bytes: &[u8], sync: bool) -> Result<(), AuditError> {
        self.file.write_all(bytes).map_err(|source| AuditError::at(&self.path, "write", source))?;
        if sync {
            self.file.sync_data().map_err(|source| AuditError::at(&self.path, "sync", source))?;
        }
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Takes twice the room that must be there, so that it is not taken for each record.
    fn take_room(&mut self) -> Result<(), AuditError> {
        if self.taken >= self.length + self.room {
            return Ok(());
        }
        let wanted = 2 * self.room;
        let taken = match fallocate(&self.file, FallocateFlags::KEEP_SIZE, self.length, wanted) {
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => free_space(&self.file, wanted),
            taken => taken.map_err(io::Error::from),
        };
        taken.map_err(|source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => AuditError::Full(self.path.clone()),
            _ => AuditError::at(&self.path, "take room for", source),
        })?;
        self.taken = self.length + wanted;
        Ok(())
    }
}

/// On a file system that keeps no room: whether there is as much free at the moment.
fn free_space(file: &File, wanted: u64) -> io::Result<()> {
    let disk = fstatvfs(file)?;
    if disk.f_bavail.saturating_mul(disk.f_frsize) < wanted { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
}

fn find(path: &Path) -> Result<std::fs::Metadata, AuditError> {
    std::fs::metadata(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => AuditError::Gone(path.to_owned()),
        _ => AuditError::at(path, "find", source),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        audit::{
            chain::{self, Hash},
            checkpoint,
            key::SigningKey,
        },
        clock::Timestamp,
    };

    const CARE: Care = Care { sync: true, room: 64 * 1024 };

    struct Written {
        directory: tempfile::TempDir,
        segment: OpenSegment,
        head: Head,
        keys: Vec<PublicKey>,
    }

    impl Written {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let key = SigningKey::load_or_make(&directory.path().join("key")).unwrap();
            let mut head = Head::genesis();
            let opening = checkpoint::sign(&head, Timestamp::from_millis(0), &key).unwrap();
            let mut segment = OpenSegment::create(directory.path(), SegmentName::FIRST, &opening, CARE).unwrap();
            let mut line = format!(r#"{{"metadata":{{"sequence":1,"x":1}},"prev":"{}"}}"#, Hash::GENESIS).into_bytes();
            let hash = chain::seal(Hash::GENESIS, &mut line, 0);
            segment.write(&line).unwrap();
            head.advance(hash);
            Self { directory, segment, head, keys: vec![key.public()] }
        }

        fn mend(&self) -> Result<(), AuditError> {
            self.segment.shut().mend(self.directory.path(), &self.keys, &self.head)
        }
    }

    /// What a write leaves that stops halfway: bytes beyond the length, no longer than it tried.
    #[test]
    fn the_bytes_of_a_failed_write_are_cut_and_the_rest_stays() {
        let mut written = Written::new();
        let segment = &mut written.segment;
        let (lines, notes) = (std::fs::read(&segment.lines.path).unwrap(), std::fs::read(&segment.notes.path).unwrap());
        segment.attempted += 100;
        segment.lines.file.write_all(b"half a rec").unwrap();
        segment.notes.file.write_all(b"half a note").unwrap();
        assert!(matches!(segment.write(b"more\n"), Err(AuditError::Changed(_))), "never written behind");
        segment.attempted += 95;

        written.mend().unwrap();
        assert_eq!(std::fs::read(&written.segment.lines.path).unwrap(), lines);
        assert_eq!(std::fs::read(&written.segment.notes.path).unwrap(), notes);
    }

    #[test]
    fn what_another_program_did_to_the_file_is_not_mended_away() {
        let mut written = Written::new();
        written.segment.lines.file.write_all(b"planted").unwrap();
        assert!(matches!(written.mend(), Err(AuditError::Changed(_))));

        let written = Written::new();
        std::fs::remove_file(&written.segment.lines.path).unwrap();
        assert!(matches!(written.mend(), Err(AuditError::Gone(_))));

        let written = Written::new();
        let text = std::fs::read_to_string(&written.segment.lines.path).unwrap();
        std::fs::write(&written.segment.lines.path, text.replace("\"x\":1", "\"x\":2")).unwrap();
        assert!(matches!(written.mend(), Err(AuditError::Damaged(_))));
    }

    /// A copy in its place is as good as the file: what counts is what is in it.
    #[test]
    fn a_segment_that_was_put_back_is_taken() {
        let written = Written::new();
        let text = std::fs::read(&written.segment.lines.path).unwrap();
        std::fs::remove_file(&written.segment.lines.path).unwrap();
        std::fs::write(&written.segment.lines.path, text).unwrap();
        written.mend().unwrap();
    }

    #[test]
    fn room_is_taken_ahead_and_given_back() {
        let written = Written::new();
        let mut segment = written.segment;
        segment.take_room().unwrap();
        let blocks = |segment: &OpenSegment| std::fs::metadata(&segment.lines.path).unwrap().blocks() * 512;
        assert!(blocks(&segment) >= 2 * CARE.room, "{}", blocks(&segment));
        assert_eq!(std::fs::metadata(&segment.lines.path).unwrap().len(), segment.length(), "readers see no zeros");
        segment.finish();
        assert!(blocks(&segment) < CARE.room, "{}", blocks(&segment));
    }
}
