//! Seeing that the account key's file changed.
//!
//! What is watched is the directory, since a secret is renewed by putting another file or link under the name, and every
//! directory in which a link on the way to the file stands. The watch says only that something happened; the reading says what.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};
use tokio::sync::Notify;

/// How long a changed file is left alone before it is read: whoever writes it may not be done.
const SETTLE: Duration = Duration::from_millis(50);
/// Most links followed.
const MOST_LINKS: usize = 16;

/// A watch on one file. Where the file system tells nothing, it stays silent.
#[derive(Debug)]
pub(super) struct FileWatch {
    path: PathBuf,
    happened: Arc<Notify>,
    watcher: Option<RecommendedWatcher>,
}

impl FileWatch {
    /// Begins to watch.
    pub(super) fn new(path: &Path) -> Self {
        let happened = Arc::new(Notify::new());
        let tell = happened.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.is_ok_and(|event| may_matter(event.kind)) {
                tell.notify_one();
            }
        });
        let mut watch = Self { path: path.to_owned(), happened, watcher: watcher.ok() };
        watch.arm();
        watch
    }

    /// Waits until something happened beside the file since the last call.
    pub(super) async fn changed(&mut self) {
        self.happened.notified().await;
        tokio::time::sleep(SETTLE).await;
        // Links may lead elsewhere now.
        self.arm();
    }

    fn arm(&mut self) {
        let Some(watcher) = &mut self.watcher else { return };
        for folder in folders(&self.path) {
            if let Err(error) = watcher.watch(&folder, RecursiveMode::NonRecursive) {
                let folder = folder.display();
                tracing::warn!(%folder, %error, "the account key's file cannot be watched; it is read every minute");
            }
        }
    }
}

/// Reading is an event too, and no change.
fn may_matter(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

/// The directories in which a change may be one of the file: its own, and that of every link on the way to it. In a volume
/// of Kubernetes it is `key -> ..data/key` and `..data -> ..2026_11_26`, both in one directory, of which the second is swapped.
fn folders(path: &Path) -> BTreeSet<PathBuf> {
    let mut folders = BTreeSet::new();
    let mut path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for _ in 0..MOST_LINKS {
        let Some(folder) = path.parent() else { break };
        folders.insert(folder.to_owned());
        folders.extend(fs::canonicalize(folder));
        match fs::read_link(&path) {
            Ok(target) => path = folder.join(target),
            Err(_) => break,
        }
    }
    folders.retain(|folder| folder.is_dir());
    folders
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[tokio::test]
    async fn a_swapped_link_is_a_change() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path();
        for (version, key) in [("..1", "one"), ("..2", "two")] {
            fs::create_dir(home.join(version)).unwrap();
            fs::write(home.join(version).join("key"), key).unwrap();
        }
        symlink("..1", home.join("..data")).unwrap();
        symlink("..data/key", home.join("key")).unwrap();
        let mut watch = FileWatch::new(&home.join("key"));
        symlink("..2", home.join("..new")).unwrap();
        fs::rename(home.join("..new"), home.join("..data")).unwrap();
        tokio::time::timeout(Duration::from_secs(20), watch.changed()).await.expect("it is told");
        assert_eq!(fs::read_to_string(home.join("key")).unwrap(), "two");
    }

    #[test]
    fn every_directory_with_a_link_on_the_way_is_watched() {
        let home = tempfile::tempdir().unwrap();
        let home = fs::canonicalize(home.path()).unwrap();
        for folder in ["a", "b"] {
            fs::create_dir(home.join(folder)).unwrap();
        }
        fs::write(home.join("b/key"), "k").unwrap();
        symlink("../b/key", home.join("a/key")).unwrap();
        let watched = folders(&home.join("a/key"));
        assert!(watched.contains(&home.join("a")) && watched.iter().any(|folder| folder.ends_with("b")), "{watched:?}");
    }
}
