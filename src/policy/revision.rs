//! Which policy is running: a name that an auditor can look up.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use super::decision::Revision;

/// The commit of a clean checkout, `<commit>-dirty-<sha256>` of a changed one, `sha256:<hex>` without git. A directory with links
/// that lead out of it is never clean: the commit would not say what is behind them.
pub(super) fn of_directory(directory: &Path, self_contained: bool, digest: &str) -> Revision {
    let revision = match commit(directory, "HEAD") {
        Some(commit) if self_contained && is_clean(directory) => commit,
        Some(commit) => format!("{commit}-dirty-{digest}"),
        None => format!("sha256:{digest}"),
    };
    Revision(revision.into())
}

/// The commit that a git revision names, seen from `directory`.
pub(super) fn commit(directory: &Path, revision: &str) -> Option<String> {
    let commit =
        git(directory, &["rev-parse", "--verify", "--quiet", "--end-of-options", &format!("{revision}^{{commit}}")])?;
    String::from_utf8(commit).ok().map(|commit| commit.trim().to_owned()).filter(|commit| !commit.is_empty())
}

/// An ignored file is read like any other, so it counts as a change.
fn is_clean(directory: &Path) -> bool {
    let changes = git(directory, &["status", "--porcelain", "--untracked-files=all", "--ignored", "--", "."]);
    changes.is_some_and(|changes| changes.is_empty())
}

/// The output of a git command run in `directory`; `None` when git is missing or refuses.
pub(super) fn git(directory: &Path, arguments: &[&str]) -> Option<Vec<u8>> {
    let mut command = Command::new("git");
    // What is asked is the repository around the directory, whichever one a hook or a shell has chosen; and asking must neither
    // write an index nor run the monitor that the repository's own configuration may name.
    for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"] {
        command.env_remove(variable);
    }
    command.arg("-C").arg(directory).args(["--no-optional-locks", "-c", "core.fsmonitor=false"]).args(arguments);
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then_some(output.stdout)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_revision_says_whether_git_knows_the_files() {
        let root = tempfile::tempdir().unwrap();
        let policies = root.path().join("policies");
        fs::create_dir(&policies).unwrap();
        fs::write(policies.join("p.yaml"), "deny: []\n").unwrap();
        let revision = |self_contained| of_directory(&policies, self_contained, "abc").to_string();
        assert_eq!(revision(true), "sha256:abc");
        let in_git = |arguments: &[&str]| {
            let identity = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"];
            git(root.path(), &[&identity, arguments].concat()).unwrap()
        };
        in_git(&["init", "--quiet"]);
        assert_eq!(revision(true), "sha256:abc", "no commit yet");
        in_git(&["add", "."]);
        in_git(&["commit", "--quiet", "-m", "one"]);
        let commit = revision(true);
        assert!(commit.len() == 40 && commit.bytes().all(|b| b.is_ascii_hexdigit()), "{commit}");
        assert_eq!(revision(false), format!("{commit}-dirty-abc"), "a link leads out");
        fs::write(root.path().join("elsewhere"), "").unwrap();
        assert_eq!(revision(true), commit, "a change elsewhere is none of ours");
        fs::write(root.path().join(".git/info/exclude"), "ignored.yaml\n").unwrap();
        fs::write(policies.join("ignored.yaml"), "").unwrap();
        assert_eq!(revision(true), format!("{commit}-dirty-abc"), "an ignored file is read too");
        fs::remove_file(policies.join("ignored.yaml")).unwrap();
        fs::write(policies.join("p.yaml"), "deny: [ ]\n").unwrap();
        assert_eq!(revision(true), format!("{commit}-dirty-abc"));
    }
}
