//! Checkpoints that were kept elsewhere, and whether a log extends them.
//!
//! Whoever owns the log's host can cut it back to an earlier state of which he has a copy, checkpoints and all; the log by
//! itself cannot tell. A later checkpoint that he could not reach does: a log that has fewer records than it signs, or
//! others, is not the log it was.

use std::path::{Path, PathBuf};

use super::{
    chain::Hash,
    checkpoint,
    journal::AuditError,
    key::PublicKey,
    merkle::{self, Tree},
    segment::{Damage, Wrong},
};

/// Anchored checkpoints, and the tree of the log as far as it was read.
#[derive(Debug, Default)]
pub(super) struct Anchored {
    /// By size, the largest first: the next to be met is the last.
    waiting: Vec<Anchor>,
    met: u64,
    tree: Tree,
    bad: Option<Damage>,
}

#[derive(Debug)]
struct Anchor {
    size: u64,
    root: Hash,
    file: PathBuf,
    line: u64,
}

impl Anchored {
    /// The checkpoints in `paths`, each a file of them or a directory of such files (`*.checkpoints`, `*.checkpoint`). Every one must be signed by one of
    /// `keys`.
    pub(super) fn read(paths: &[PathBuf], keys: &[PublicKey]) -> Result<Self, AuditError> {
        let mut anchored = Self::default();
        for path in paths {
            for file in files(path)? {
                anchored.read_file(file, keys)?;
            }
        }
        anchored.waiting.sort_by_key(|anchor| std::cmp::Reverse(anchor.size));
        anchored.meet();
        Ok(anchored)
    }

    fn read_file(&mut self, file: PathBuf, keys: &[PublicKey]) -> Result<(), AuditError> {
        let mut text = std::fs::read_to_string(&file).map_err(|source| AuditError::at(&file, "read", source))?;
        // A single note has no empty line after it, as C2SP has it; a file of several does.
        if !text.ends_with("\n\n") {
            text.push('\n');
        }
        let (checkpoints, wrong) = checkpoint::read(&text, keys);
        let wrong = wrong.or(checkpoints.is_empty().then_some((0, Wrong::CheckpointForm)));
        if let Some((line, wrong)) = wrong {
            return Err(Damage { file, line, sequence: None, wrong }.into());
        }
        self.waiting.extend(checkpoints.into_iter().map(|checkpoint| Anchor {
            size: checkpoint.head.records(),
            root: checkpoint.head.tree.root(),
            file: file.clone(),
            line: checkpoint.line,
        }));
        Ok(())
    }

    /// Takes in the next record's line. Does nothing when no checkpoint is waited for, so that a plain verification hashes
    /// each line no more often than it must.
    pub(super) fn see(&mut self, line: &[u8]) {
        if !self.waiting.is_empty() {
            self.tree.push(merkle::leaf(line));
            self.meet();
        }
    }

    fn meet(&mut self) {
        let size = self.tree.size();
        while let Some(anchor) = self.waiting.pop_if(|anchor| anchor.size <= size) {
            if anchor.root != self.tree.root() {
                self.bad.get_or_insert_with(|| anchor.damage(Wrong::Anchor(anchor.size)));
            }
            self.met += 1;
        }
    }

    /// The first anchored checkpoint that does not fit, if one was met.
    pub(super) fn first_bad(&self) -> Result<(), AuditError> {
        self.bad.clone().map_or(Ok(()), |damage| Err(damage.into()))
    }

    /// How many checkpoints a log extends that ends after `records`.
    pub(super) fn extended(mut self, records: u64) -> Result<u64, AuditError> {
        match self.waiting.pop() {
            Some(anchor) => Err(anchor.damage(Wrong::CutBack { signed: anchor.size, found: records }).into()),
            None => Ok(self.met),
        }
    }
}

impl Anchor {
    fn damage(&self, wrong: Wrong) -> Damage {
        Damage { file: self.file.clone(), line: self.line, sequence: Some(self.size), wrong }
    }
}

fn files(path: &Path) -> Result<Vec<PathBuf>, AuditError> {
    let failed = |source| AuditError::at(path, "read", source);
    if !std::fs::metadata(path).map_err(failed)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = path.read_dir().map_err(failed)?.map(|entry| entry.map(|entry| entry.path()));
    let mut files: Vec<PathBuf> = entries.collect::<Result<_, _>>().map_err(failed)?;
    files.retain(|file| file.extension().is_some_and(|ending| ending == "checkpoints" || ending == "checkpoint"));
    files.sort();
    Ok(files)
}
