//! Reading the log is itself recorded: who read, with which command, and what was asked for.
//!
//! A reader is another process than the writer, often another user, and the gateway may not be running. So a reader leaves a
//! note in the directory `readings` before it shows anything, and the writer takes the notes into the log, within a second
//! or at its next start. Whose note it is the file's owner says, which the system sets and not the reader. A reader that
//! cannot leave a note shows nothing.
//!
//! Against whoever can read the files without this program it does not help; those are for the file system's own audit.

use std::{
    fs::{DirBuilder, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;
use serde::Deserialize;
use uuid::Uuid;

use super::{
    journal::AuditError,
    record::{Entry, Phase, Reading},
};
use crate::{clock::Timestamp, json};

const DIRECTORY: &str = "readings";
/// Made by the first reader, or by whoever lets a group read: its members may leave notes, and not remove another's.
const MODE: u32 = 0o1770;
/// The most notes in one commit, and the longest note: a reader must not be able to fill the log.
const MOST: usize = 64;
const LONGEST: u64 = 4096;
/// What a note's command is called that cannot be read.
const UNREADABLE: &str = "unreadable";

/// What a reader says of itself.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Left {
    command: String,
    selection: String,
    time: i64,
}

/// A note and the file it stands in.
#[derive(Debug)]
pub(super) struct Note {
    file: PathBuf,
    reading: Reading,
}

impl Note {
    /// The record of it. The file's name is the request id, so that a note that is taken twice, after a crash, shows as one.
    pub(super) fn entry(&self) -> Entry {
        let id = self.file.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Entry { reading: Some(self.reading.clone()), ..Entry::new(Phase::Reading, id) }
    }
}

/// Leaves a note in the log in `directory` that `command` reads what `selection` names. To be called before anything is shown.
pub fn note_reading(directory: &Path, command: &str, selection: &str, now: Timestamp) -> Result<(), AuditError> {
    if !directory.is_dir() {
        return Err(AuditError::NoLog(directory.to_owned()));
    }
    let place = directory.join(DIRECTORY);
    let failed = |source| AuditError::Unnoted { place: place.clone(), source };
    let mut text = Vec::new();
    json::object(&mut text, |it| {
        it.text("command", command);
        it.text("selection", &shorten(selection));
        it.value("time", &now.as_millis());
    });
    let id = Uuid::now_v7();
    let (fresh, file) = (place.join(format!("{id}.new")), place.join(format!("{id}.json")));
    let leave = || {
        match DirBuilder::new().mode(MODE).create(&place) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let mut note = OpenOptions::new().create_new(true).write(true).mode(0o640).open(&fresh)?;
        note.write_all(&text)?;
        note.sync_all()?;
        std::fs::rename(&fresh, &file)
    };
    leave().map_err(failed)
}

fn shorten(text: &str) -> String {
    text.chars().take(512).collect()
}

/// The notes that wait, oldest first.
pub(super) fn left(directory: &Path) -> Vec<Note> {
    let Ok(entries) = directory.join(DIRECTORY).read_dir() else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|file| file.extension().is_some_and(|ending| ending == "json"))
        .collect();
    files.sort();
    files.truncate(MOST);
    files.into_iter().filter_map(read).collect()
}

/// A note, or that there is one which cannot be read; `None` when it is gone, or is none.
fn read(file: PathBuf) -> Option<Note> {
    let metadata = std::fs::symlink_metadata(&file).ok()?;
    if metadata.is_dir() {
        return None;
    }
    let reading = match parse(&file) {
        Some((left, uid)) => {
            Reading { command: left.command, selection: left.selection, uid, time: Timestamp::from_millis(left.time) }
        }
        None => Reading {
            command: UNREADABLE.to_owned(),
            selection: String::new(),
            uid: metadata.uid(),
            time: Timestamp::from_millis(metadata.mtime().saturating_mul(1000)),
        },
    };
    Some(Note { file, reading })
}

/// What a note says, and whose it is. Never follows a link, nor waits for the other end of a pipe.
fn parse(file: &Path) -> Option<(Left, u32)> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let note = OpenOptions::new().read(true).custom_flags(i32::try_from(flags).ok()?).open(file).ok()?;
    let metadata = note.metadata().ok().filter(|metadata| metadata.is_file() && metadata.len() <= LONGEST)?;
    let mut text = Vec::new();
    note.take(LONGEST).read_to_end(&mut text).ok()?;
    Some((serde_json::from_slice(&text).ok()?, metadata.uid()))
}

/// Removes notes that are in the log.
pub(super) fn forget(notes: Vec<Note>) {
    for note in notes {
        if let Err(error) = std::fs::remove_file(&note.file) {
            tracing::warn!(file = %note.file.display(), %error, "a reader's note cannot be removed: it will be recorded again");
        }
    }
}
