//! The list in a file, for one gateway.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use super::list::{List, Unreadable};

/// A file that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file system.
    #[error("cannot {doing} the revocations in {}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The content.
    #[error("{}: {source}; restore the file from a copy, or remove it if nobody is to stay revoked", path.display())]
    Content {
        /// Where.
        path: PathBuf,
        /// What is wrong.
        source: Unreadable,
    },
    /// This gateway has left it.
    #[error("the gateway is stopping and has left {}", .0.display())]
    Closed(PathBuf),
    /// Another gateway has it.
    #[error("the revocations in {} are another gateway's: give each a file of its own, or share a Cosmos container", .0.display())]
    InUse(PathBuf),
}

/// A file that is this process' alone, and is replaced as a whole.
#[derive(Debug)]
pub(super) struct FileStore {
    path: PathBuf,
    /// Held until the store is closed.
    lock: Option<File>,
}

impl FileStore {
    /// The store and what is in it; an absent file is an empty list.
    pub(super) fn open(path: PathBuf) -> Result<(Self, List), FileError> {
        let failed = |doing| {
            let path = path.clone();
            move |source| FileError::Io { path, doing, source }
        };
        let lock_path = path.with_added_extension("lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&lock_path).map_err(failed("lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(FileError::InUse(path)),
            Err(fs::TryLockError::Error(source)) => return Err(failed("lock")(source)),
        }
        let list = match fs::read(&path) {
            Ok(text) => List::parse(&text).map_err(|source| FileError::Content { path: path.clone(), source })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => List::default(),
            Err(source) => return Err(failed("read")(source)),
        };
        Ok((Self { path, lock: Some(lock) }, list))
    }

    /// Leaves the file to whoever comes next.
    pub(super) fn close(&mut self) {
        self.lock = None;
    }

    /// Replaces the list: written beside, synced and renamed, so that a crash leaves the old list or the new one.
    pub(super) fn write(&self, list: &List) -> Result<(), FileError> {
        if self.lock.is_none() {
            return Err(FileError::Closed(self.path.clone()));
        }
        let text = list.render().map_err(|source| FileError::Content { path: self.path.clone(), source })?;
        let fresh = self.path.with_added_extension("new");
        let written = replace(&fresh, &self.path, &text);
        written.map_err(|source| FileError::Io { path: self.path.clone(), doing: "write", source })
    }
}

fn replace(fresh: &Path, path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = File::options().create(true).truncate(true).write(true).mode(0o600).open(fresh)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(fresh, path)?;
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}
