//! The symbolic links on the way to files.
//!
//! Policies are replaced in one step by swapping a link: the `..data` of a Kubernetes ConfigMap, the `current` of git-sync. A
//! directory that was read while one of its links moved may be half old and half new, so the links are noted on the way and
//! looked at again at the end. And a link moves in the directory that holds it, so that is where to watch for it.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// How many links may lead from one to the next; the system itself gives up at 40 (ELOOP).
const MOST_HOPS: usize = 40;

/// Links, and where each led when it was followed.
#[derive(Debug, Default)]
pub(super) struct Links {
    followed: BTreeMap<PathBuf, Link>,
    /// A link was followed twice and was another one the second time.
    moved: bool,
}

/// A link as it was: one that was put back to its first target is another one.
#[derive(PartialEq, Eq, Debug)]
struct Link {
    target: PathBuf,
    inode: u64,
    modified: Option<SystemTime>,
}

impl Link {
    fn at(path: &Path) -> Option<Self> {
        let (target, metadata) = (fs::read_link(path).ok()?, fs::symlink_metadata(path).ok()?);
        Some(Self { target, inode: metadata.ino(), modified: metadata.modified().ok() })
    }
}

impl Links {
    /// Notes every link on the way to `path`.
    pub(super) fn follow(&mut self, path: &Path) {
        self.hop(&std::path::absolute(path).unwrap_or_else(|_| path.to_owned()), MOST_HOPS);
    }

    fn hop(&mut self, path: &Path, hops: usize) {
        let mut at = PathBuf::new();
        for component in path.components() {
            at.push(component);
            let (Some(link), Some(folder)) = (Link::at(&at), at.parent()) else { continue };
            let target = folder.join(&link.target);
            match self.followed.get(&at) {
                Some(before) => self.moved |= *before != link,
                None => {
                    self.followed.insert(at.clone(), link);
                    if hops > 0 {
                        self.hop(&target, hops - 1);
                    }
                }
            }
        }
    }

    /// Whether every link is still the one that was followed.
    pub(super) fn hold(&self) -> bool {
        !self.moved && self.followed.iter().all(|(path, link)| Link::at(path).as_ref() == Some(link))
    }

    /// The directories that hold the links.
    pub(super) fn folders(&self) -> impl Iterator<Item = &Path> {
        self.followed.keys().filter_map(|link| link.parent())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_behind_links_are_noted_and_a_swap_is_seen() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for generation in ["v1", "v2"] {
            fs::create_dir(at(generation)).unwrap();
            fs::write(at(generation).join("p.yaml"), generation).unwrap();
        }
        symlink("v1", at("..data")).unwrap();
        symlink("..data/p.yaml", at("p.yaml")).unwrap();
        let mut links = Links::default();
        links.follow(&at("p.yaml"));
        assert_eq!(links.followed.len(), 2);
        assert!(links.hold() && links.folders().all(|folder| folder == root.path()));
        symlink("v2", at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        assert!(!links.hold());
        links.follow(&at("p.yaml"));
        assert!(!links.hold(), "read before and after");
        let mut links = Links::default();
        links.follow(&at("p.yaml"));
        assert!(links.hold());
        symlink("loop", at("loop")).unwrap();
        links.follow(&at("loop"));
    }
}
