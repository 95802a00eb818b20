//! Seeing that the policy directory changed.
//!
//! The file system tells (inotify, through notify) of every directory that reading passes: those with the files, and those that
//! hold a link on the way, since a link is swapped there. What is told is only that something happened; whether the policy
//! changed is for its digest to say. So nothing depends on what exactly an editor, a kubelet or git does to replace a file.
//!
//! Some file systems tell nothing of what others write (NFS, many FUSE ones), and do not say that they do not. There is
//! therefore one look a minute in any case, and one every two seconds where a directory cannot be watched at all.

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
use tokio::{sync::Notify, time::timeout};

use super::{links::Links, model::PolicySet, running::RunningPolicy};
use crate::diagnostic::Diagnostic;

/// How often a directory is looked at that cannot be watched.
const UNTOLD: Duration = Duration::from_secs(2);
/// How often one is looked at that can be.
const TOLD: Duration = Duration::from_secs(60);
/// How long a changed directory must stay as it is before it is read: an editor or a checkout writes file by file.
const SETTLE: Duration = Duration::from_millis(200);

/// A watch on the directory of a running policy.
#[derive(Debug)]
pub struct Watch {
    policy: RunningPolicy,
    happened: Arc<Notify>,
    watcher: Option<RecommendedWatcher>,
    /// Whether it was told in the log that the directory cannot be watched.
    complained: bool,
}

impl Watch {
    /// Begins to watch.
    pub(super) fn new(policy: RunningPolicy) -> Self {
        let happened = Arc::new(Notify::new());
        let tell = happened.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.is_ok_and(|event| may_matter(event.kind)) {
                tell.notify_one();
            }
        });
        Self { policy, happened, watcher: watcher.ok(), complained: false }
    }

    /// Waits until the directory has changed, and gives what came of the reload. The owner calls it again and again; a change
    /// between two calls is not lost.
    pub async fn next_reload(&mut self) -> Result<Arc<PolicySet>, Vec<Diagnostic>> {
        loop {
            // Watched first and looked at then: what changes after the look is told.
            let watched = self.arm().await;
            let Some(seen) = self.policy.away(RunningPolicy::changed).await.flatten() else {
                let _ = timeout(if watched { TOLD } else { UNTOLD }, self.happened.notified()).await;
                continue;
            };
            tokio::time::sleep(SETTLE).await;
            if self.policy.away(RunningPolicy::changed).await.flatten() == Some(seen)
                && let Some(result) = self.policy.away(RunningPolicy::reload).await
            {
                return result;
            }
        }
    }

    /// Watches what is to be watched now; says whether all of it could be. A directory that was replaced is another one under
    /// the same name, so all are named again.
    async fn arm(&mut self) -> bool {
        let folders = self.policy.away(|policy| folders(policy.directory())).await.unwrap_or_default();
        let Some(watcher) = &mut self.watcher else { return false };
        let failed = folders.iter().find_map(|folder| {
            let error = watcher.watch(folder, RecursiveMode::NonRecursive).err()?;
            Some((folder, error))
        });
        if let Some((folder, error)) = &failed
            && !std::mem::replace(&mut self.complained, true)
        {
            let folder = folder.display();
            tracing::warn!(%folder, %error, "the policy directory cannot be watched; it is looked at every two seconds");
        }
        failed.is_none() && !folders.is_empty()
    }
}

/// Reading is an event too, and no change.
fn may_matter(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

/// The directories in which a change may be one of the policy: those that are read, those that hold a link on the way, and the
/// one around the policy directory, where it would be renamed.
fn folders(directory: &Path) -> BTreeSet<PathBuf> {
    let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    let mut links = Links::default();
    links.follow(&directory);
    let mut read = BTreeSet::new();
    let mut ahead = vec![directory.clone()];
    while let Some(folder) = ahead.pop() {
        let Ok(folder) = fs::canonicalize(&folder) else { continue };
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        if !read.insert(folder) {
            continue;
        }
        for entry in entries.filter_map(Result::ok) {
            let path = entry.path();
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            if entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
                links.follow(&path);
                read.extend(
                    fs::canonicalize(&path)
                        .ok()
                        .filter(|target| target.is_file())
                        .and_then(|f| Some(f.parent()?.to_owned())),
                );
            }
            if path.is_dir() {
                ahead.push(path);
            }
        }
    }
    let around = directory.parent().into_iter().chain(links.folders());
    read.extend(around.filter_map(|folder| fs::canonicalize(folder).ok()));
    read
}

#[cfg(test)]
mod tests {
    use super::{super::Config, *};
    use crate::clock::Clock;

    const DENY: &str = "deny: [{ name: NAME, container: a/b, operations: [query], workloads: all }]\n";

    #[tokio::test]
    async fn a_directory_that_cannot_be_watched_is_looked_at() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("p.yaml");
        fs::write(&file, DENY.replace("NAME", "first")).unwrap();
        let config = Config { directory: directory.path().to_owned(), issuers: None };
        let policy = RunningPolicy::load(config, Clock::System).unwrap();
        let mut watch = Watch { watcher: None, ..policy.watch() };
        let mut waiting = std::pin::pin!(watch.next_reload());
        assert!(timeout(Duration::from_millis(50), &mut waiting).await.is_err());
        fs::write(&file, DENY.replace("NAME", "second")).unwrap();
        let set = timeout(Duration::from_secs(20), waiting).await.expect("it is seen").unwrap();
        assert_eq!(&*set.clauses().next().unwrap().name, "second");
    }

    #[test]
    fn reading_is_no_change() {
        assert!(!may_matter(EventKind::Access(AccessKind::Open(AccessMode::Any))));
        assert!(may_matter(EventKind::Access(AccessKind::Close(AccessMode::Write))));
        assert!(may_matter(EventKind::Any));
    }
}
