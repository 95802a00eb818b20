//! The policy a gateway runs under, and its replacement: whole, or not at all.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use tracing::{error, info};

use super::{
    Config,
    load::{self, Directory},
    model::PolicySet,
    watch::Watch,
};
use crate::{
    clock::{Clock, Timestamp},
    diagnostic::Diagnostic,
};

/// The running policy. Clones share it.
#[derive(Clone, Debug)]
pub struct RunningPolicy(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Config,
    clock: Clock,
    current: ArcSwap<PolicySet>,
    status: ArcSwap<PolicyStatus>,
    /// The digest of the files tried last, good or bad; `None` when they could not be read. Held for the length of a reload, so
    /// that a slow one never overwrites a later one.
    tried: Mutex<Option<String>>,
}

/// What is to be known of the policy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PolicyStatus {
    /// What decides.
    pub running: RunningStatus,
    /// The newer files that were not taken, if any.
    pub rejected: Option<RejectedStatus>,
}

/// The policy that decides.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunningStatus {
    /// Its revision.
    pub revision: String,
    /// Since when.
    pub since: Timestamp,
}

/// Files that were not taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RejectedStatus {
    /// Their revision; `null` when they could not be read.
    pub revision: Option<String>,
    /// Everything that is wrong with them.
    pub error: String,
    /// Since when.
    pub since: Timestamp,
}

impl RunningPolicy {
    /// Loads the policy for the first time. Blocks on files and on git.
    pub fn load(config: Config, clock: Clock) -> Result<Self, Vec<Diagnostic>> {
        let directory = Directory::read(&config.directory)?;
        let set = load::build(&directory, directory.revision(), &config)?;
        let status = PolicyStatus { running: RunningStatus::of(&set, &clock), rejected: None };
        Ok(Self(Arc::new(Inner {
            config,
            clock,
            current: ArcSwap::from_pointee(set),
            status: ArcSwap::from_pointee(status),
            tried: Mutex::new(Some(directory.digest())),
        })))
    }

    /// The policy to decide by. A request takes it once and keeps it to its end.
    pub fn current(&self) -> Arc<PolicySet> {
        self.0.current.load_full()
    }

    /// What is running, and what was rejected.
    pub fn status(&self) -> Arc<PolicyStatus> {
        self.0.status.load_full()
    }

    /// Reads the directory again and swaps the policy in, or leaves the last good one running. Blocks on files and on git.
    pub fn reload(&self) -> Result<Arc<PolicySet>, Vec<Diagnostic>> {
        let mut tried = self.0.tried.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = Directory::read(&self.0.config.directory);
        *tried = directory.as_ref().ok().map(Directory::digest);
        let (revision, built) = match directory {
            Ok(directory) => {
                let revision = directory.revision();
                (Some(revision.to_string()), load::build(&directory, revision, &self.0.config))
            }
            Err(diagnostics) => (None, Err(diagnostics)),
        };
        match built {
            Ok(set) => Ok(self.take(Arc::new(set))),
            Err(diagnostics) => {
                self.reject(revision, &diagnostics);
                Err(diagnostics)
            }
        }
    }

    fn take(&self, set: Arc<PolicySet>) -> Arc<PolicySet> {
        let before = self.status();
        let running = if before.running.revision == set.revision().as_str() {
            before.running.clone()
        } else {
            info!(policy.revision = %set.revision(), "policy reloaded");
            RunningStatus::of(&set, &self.0.clock)
        };
        self.0.current.store(set.clone());
        self.0.status.store(Arc::new(PolicyStatus { running, rejected: None }));
        set
    }

    fn reject(&self, revision: Option<String>, diagnostics: &[Diagnostic]) {
        let error: Vec<_> = diagnostics.iter().map(ToString::to_string).collect();
        let error = error.join("\n");
        let running = self.status().running.clone();
        error!(policy.running = %running.revision, policy.rejected = revision.as_deref(), %error, "policy rejected");
        let rejected = RejectedStatus { revision, error, since: self.0.clock.now() };
        self.0.status.store(Arc::new(PolicyStatus { running, rejected: Some(rejected) }));
    }

    /// A watch on the directory. Whoever runs the gateway waits on it, again and again.
    pub fn watch(&self) -> Watch {
        Watch::new(self.clone())
    }

    pub(super) fn directory(&self) -> &Path {
        &self.0.config.directory
    }

    /// Does what blocks on files away from the runtime's threads; `None` when the runtime is going down.
    pub(super) async fn away<T: Send + 'static>(&self, work: impl FnOnce(&Self) -> T + Send + 'static) -> Option<T> {
        let policy = self.clone();
        tokio::task::spawn_blocking(move || work(&policy)).await.ok()
    }

    /// The digest of the files, when it is not the one tried last. Files that cannot be read have the digest `None` too, so they
    /// are written as an empty one.
    pub(super) fn changed(&self) -> Option<String> {
        let now = Directory::read(&self.0.config.directory).ok().map(|directory| directory.digest());
        let tried = self.0.tried.lock().unwrap_or_else(PoisonError::into_inner);
        (now != *tried).then(|| now.unwrap_or_default())
    }
}

impl RunningStatus {
    fn of(set: &PolicySet, clock: &Clock) -> Self {
        Self { revision: set.revision().to_string(), since: clock.now() }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, time::Duration};

    use tokio::time::timeout;

    use super::*;
    use crate::clock::ManualClock;

    const GOOD: &str = "roles: { r: { grants: [{ container: a/b, operations: [query] }] } }\n\
                        bindings: [{ role: r, workloads: [{ issuer: i }] }]\n";
    const BETTER: &str = "roles: { s: { grants: [{ container: a/b, operations: [query] }] } }\n\
                          bindings: [{ role: s, workloads: [{ issuer: i }] }]\n";
    const BAD: &str = "bindings: [{ role: absent, workloads: [{ issuer: i }] }]\n";

    struct Bench {
        directory: tempfile::TempDir,
        hand: ManualClock,
        policy: RunningPolicy,
    }

    impl Bench {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            fs::write(directory.path().join("p.yaml"), GOOD).unwrap();
            let hand = ManualClock::new(Timestamp::from_secs(0));
            let config = Config { directory: directory.path().to_owned(), issuers: None };
            let policy = RunningPolicy::load(config, Clock::Manual(hand.clone())).unwrap();
            Self { directory, hand, policy }
        }

        fn write(&self, text: &str) {
            self.hand.advance(Duration::from_secs(1));
            fs::write(self.directory.path().join("p.yaml"), text).unwrap();
        }

        fn role(&self) -> String {
            self.policy.current().clauses().next().unwrap().name.to_string()
        }
    }

    #[test]
    fn a_reload_is_whole_or_nothing() {
        let bench = Bench::new();
        let first = bench.policy.status();
        assert_eq!((first.running.since, &first.rejected), (Timestamp::from_secs(0), &None));
        assert!(first.running.revision.starts_with("sha256:"));

        bench.write(BAD);
        assert_eq!(bench.policy.reload().unwrap_err().len(), 1);
        let status = bench.policy.status();
        let rejected = status.rejected.as_ref().unwrap();
        assert_eq!((bench.role().as_str(), &status.running), ("r", &first.running));
        assert!(rejected.error.contains("there is no role `absent`"), "{}", rejected.error);
        assert_eq!(rejected.since, Timestamp::from_secs(1));
        assert!(rejected.revision.as_ref().is_some_and(|revision| *revision != first.running.revision));

        bench.write(BETTER);
        bench.policy.reload().unwrap();
        let status = bench.policy.status();
        assert_eq!((bench.role().as_str(), &status.rejected), ("s", &None));
        assert_eq!(status.running.since, Timestamp::from_secs(2));

        fs::remove_file(bench.directory.path().join("p.yaml")).unwrap();
        bench.policy.reload().unwrap_err();
        assert_eq!(bench.role(), "s");
        assert_eq!(bench.policy.status().rejected.as_ref().unwrap().revision, None);
    }

    #[tokio::test]
    async fn a_changed_directory_is_reloaded_and_each_change_once() {
        let bench = Bench::new();
        let mut watch = bench.policy.watch();
        assert_eq!(bench.policy.changed(), None);
        bench.write(BAD);
        watch.next_reload().await.unwrap_err();
        assert_eq!(bench.policy.changed(), None, "a bad policy is not tried again until it changes");
        bench.write(BETTER);
        watch.next_reload().await.unwrap();
        assert_eq!(bench.role(), "s");
    }

    /// Replaces the link at `link` by one to `target`, in one step.
    fn swap(link: &Path, target: &str) {
        let new = link.with_file_name("new-link");
        symlink(target, &new).unwrap();
        fs::rename(new, link).unwrap();
    }

    fn generations(root: &Path, names: [&str; 2]) {
        for (name, text) in names.into_iter().zip([GOOD, BETTER]) {
            fs::create_dir_all(root.join(name)).unwrap();
            fs::write(root.join(name).join("p.yaml"), text).unwrap();
        }
    }

    fn running(directory: &Path) -> RunningPolicy {
        let config = Config { directory: directory.to_owned(), issuers: None };
        RunningPolicy::load(config, Clock::System).unwrap()
    }

    /// The change happens while the watch waits, so that it is seen by being told: the next look of its own is a minute away.
    async fn after(policy: &RunningPolicy, change: impl FnOnce()) -> String {
        let mut watch = policy.watch();
        let reloaded = {
            let mut waiting = std::pin::pin!(watch.next_reload());
            assert!(timeout(Duration::from_millis(50), &mut waiting).await.is_err());
            change();
            timeout(Duration::from_secs(20), waiting).await.expect("it is told").unwrap()
        };
        reloaded.clauses().next().unwrap().name.to_string()
    }

    #[tokio::test]
    async fn a_configmap_is_swapped_by_its_data_link() {
        let root = tempfile::tempdir().unwrap();
        let mount = root.path().join("mount");
        generations(&mount, ["..2026_11_22", "..2026_11_23"]);
        symlink("..2026_11_22", mount.join("..data")).unwrap();
        symlink("..data/p.yaml", mount.join("p.yaml")).unwrap();
        let policy = running(&mount);
        assert_eq!(after(&policy, || swap(&mount.join("..data"), "..2026_11_23")).await, "s");
    }

    #[tokio::test]
    async fn a_git_sync_checkout_is_swapped_by_the_link_before_it() {
        let root = tempfile::tempdir().unwrap();
        generations(root.path(), ["worktrees/aaa/policies", "worktrees/bbb/policies"]);
        symlink("worktrees/aaa", root.path().join("current")).unwrap();
        let policy = running(&root.path().join("current/policies"));
        assert_eq!(after(&policy, || swap(&root.path().join("current"), "worktrees/bbb")).await, "s");
        fs::remove_dir_all(root.path().join("worktrees/aaa")).unwrap();
        let edited = root.path().join("worktrees/bbb/policies/p.yaml");
        assert_eq!(after(&policy, || fs::write(&edited, GOOD).unwrap()).await, "r", "the new one is watched");
    }

    #[tokio::test]
    async fn a_directory_that_is_renamed_away_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        generations(root.path(), ["policies", "next"]);
        let policy = running(&root.path().join("policies"));
        let role = after(&policy, || {
            fs::rename(root.path().join("policies"), root.path().join("before")).unwrap();
            fs::rename(root.path().join("next"), root.path().join("policies")).unwrap();
        });
        assert_eq!(role.await, "s");
    }
}
