//! Checkpoints that were kept elsewhere, and whether a log extends them.
//!
//! Whoever owns the log's host can cut it back to an earlier state of which he has a copy, checkpoints and all; the log by
//! itself cannot tell. A later checkpoint that he could not reach does: a log that has fewer records than it signs, or
//! others, is not the log it was.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{
    chain::{Hash, Head},
    checkpoint,
    journal::AuditError,
    key::PublicKey,
    segment::{Damage, Wrong},
};

/// Anchored checkpoints, and which of them the log was held against.
#[derive(Debug, Default)]
pub(super) struct Anchored {
    /// By size, the largest first: the next to be met is the last.
    waiting: Vec<Anchor>,
    met: u64,
    /// Those that sign less than retention left.
    before: u64,
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
    /// The checkpoints in `paths`, each a file of them or a directory of such files (`*.checkpoints`, `*.checkpoint`, `*.json`). Every
    /// one must be signed by one of `keys`.
    pub(super) fn read(paths: &[PathBuf], keys: &[PublicKey]) -> Result<Self, AuditError> {
        let mut anchored = Self::default();
        for path in paths {
            for file in files(path)? {
                anchored.read_file(file, keys)?;
            }
        }
        anchored.waiting.sort_by_key(|anchor| std::cmp::Reverse(anchor.size));
        Ok(anchored)
    }

    fn read_file(&mut self, file: PathBuf, keys: &[PublicKey]) -> Result<(), AuditError> {
        let mut text = std::fs::read_to_string(&file).map_err(|source| AuditError::at(&file, "read", source))?;
        if text.starts_with(['{', '[']) {
            let documents = documents(&text);
            text = documents.ok_or_else(|| Damage {
                file: file.clone(),
                line: 0,
                sequence: None,
                wrong: Wrong::CheckpointForm,
            })?;
        }
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

    /// Takes the checkpoints out that sign less than `head`, where the reading begins, and holds those against it that sign as much.
    pub(super) fn begin(&mut self, head: &Head) {
        while self.waiting.pop_if(|anchor| anchor.size < head.records()).is_some() {
            self.before += 1;
        }
        self.meet(head);
    }

    /// Holds the checkpoints against the log that sign as much as was read.
    pub(super) fn meet(&mut self, head: &Head) {
        while let Some(anchor) = self.waiting.pop_if(|anchor| anchor.size <= head.records()) {
            if anchor.root != head.tree.root() {
                self.bad.get_or_insert_with(|| anchor.damage(Wrong::Anchor(anchor.size)));
            }
            self.met += 1;
        }
    }

    /// The first anchored checkpoint that does not fit, if one was met.
    pub(super) fn first_bad(&self) -> Result<(), AuditError> {
        self.bad.clone().map_or(Ok(()), |damage| Err(damage.into()))
    }

    /// How many checkpoints a log extends that ends after `records`, and how many sign less than where the reading began.
    pub(super) fn extended(mut self, records: u64) -> Result<(u64, u64), AuditError> {
        match self.waiting.pop() {
            Some(anchor) => Err(anchor.damage(Wrong::CutBack { signed: anchor.size, found: records }).into()),
            None => Ok((self.met, self.before)),
        }
    }

    /// How many checkpoints a log extends of which only the beginning was read.
    pub(super) fn so_far(&self) -> (u64, u64) {
        (self.met, self.before)
    }
}

/// The checkpoints of documents as Cosmos gives them: objects with a member `checkpoint`, one after another or in an array.
fn documents(json: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Document {
        checkpoint: String,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Documents {
        Many(Vec<Document>),
        One(Document),
    }
    let mut notes = String::new();
    for documents in serde_json::Deserializer::from_str(json).into_iter() {
        let documents = match documents.ok()? {
            Documents::Many(many) => many,
            Documents::One(one) => vec![one],
        };
        notes.extend(documents.into_iter().map(|document| document.checkpoint + "\n"));
    }
    Some(notes)
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
    let endings = ["checkpoints", "checkpoint", "json"];
    files.retain(|file| file.extension().is_some_and(|ending| endings.iter().any(|known| ending == *known)));
    files.sort();
    Ok(files)
}
