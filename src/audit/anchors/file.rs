//! Checkpoints in files of another disk: one file a day, each checkpoint as it was signed and an empty line.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use tokio::task::JoinHandle;

use super::{AnchorError, Checkpoint};
use crate::audit::{checkpoint, recover::sync_directory};

#[derive(Debug)]
pub(super) struct FileAnchor {
    directory: PathBuf,
    /// A write that did not end in time. A disk that hangs may hold one thread and no more.
    hanging: Option<JoinHandle<Result<(), AnchorError>>>,
}

impl FileAnchor {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory, hanging: None }
    }

    /// Dropped while it waits, it leaves the write to be waited for by the next call.
    pub(super) async fn send(&mut self, checkpoint: &Checkpoint) -> Result<(), AnchorError> {
        if let Some(hanging) = &mut self.hanging {
            // Whatever came of it, the checkpoint is written again: twice is no harm.
            let _ = hanging.await;
            self.hanging = None;
        }
        let (directory, checkpoint) = (self.directory.clone(), checkpoint.clone());
        let write = self.hanging.insert(tokio::task::spawn_blocking(move || write(&directory, &checkpoint)));
        let written = write.await;
        self.hanging = None;
        written.unwrap_or(Err(AnchorError::Deadline))
    }
}

fn write(directory: &Path, checkpoint: &Checkpoint) -> Result<(), AnchorError> {
    let day = checkpoint.signed.rfc3339();
    let file = directory.join(format!("{}.checkpoints", day.get(..10).unwrap_or("undated")));
    append(directory, &file, &checkpoint.note).map_err(|source| AnchorError::File { file, source })
}

fn append(directory: &Path, file: &Path, note: &str) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let is_new = !file.exists();
    let mut to = OpenOptions::new().create(true).append(true).open(file)?;
    if !is_new {
        cut_unfinished(file, &to)?;
    }
    to.write_all(format!("{note}\n").as_bytes())?;
    to.sync_all()?;
    if is_new {
        sync_directory(directory)?;
    }
    Ok(())
}

/// A crash may have left half a checkpoint, after which nothing could be read.
fn cut_unfinished(file: &Path, open: &File) -> io::Result<()> {
    let text = std::fs::read_to_string(file)?;
    let finished = checkpoint::finished(&text);
    if finished < text.len() { open.set_len(finished as u64) } else { Ok(()) }
}
