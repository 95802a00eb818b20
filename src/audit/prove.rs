//! Proofs that a record is in the log, for somebody who has only the record and the public key.
//!
//! A proof is the record's line, the audit path of its hash in the Merkle tree, and a signed checkpoint of that tree, in the form
//! of a C2SP tlog-proof (<https://c2sp.org/tlog-proof>). To check one takes a SHA-256 and an Ed25519, and no program of ours.
//!
//! Making one reads a single segment: the subtrees before it stand in its first checkpoint. That segment is verified on
//! the way, since a proof from a log that does not fit would prove the wrong thing.

use std::{path::Path, str};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use memchr::memmem::Finder;
use serde::{Deserialize, Serialize};

use super::{
    chain::{self, Hash, Seen},
    checkpoint,
    journal::AuditError,
    key::PublicKey,
    merkle::{self, Known},
    ocsf, recover,
    segment::{Blocks, Log, Segment, Wrong},
    verify,
    walk::Walk,
};

/// The first line of a proof.
const FORM: &str = "c2sp.org/tlog-proof@v1";

/// The records of one request, each with its proof.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proven {
    /// The request.
    pub request_id: String,
    /// Its records, in the order of the log.
    pub records: Vec<ProvenRecord>,
}

/// A record and the proof that it is in the log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProvenRecord {
    /// The record's line as it stands in the log, without its newline. Its hash is the entry of the tree.
    pub line: String,
    /// The C2SP tlog-proof: the leaf's index, its audit path, and a signed checkpoint.
    pub proof: String,
}

/// Why a request's records cannot be proven.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    /// The log cannot be read, or does not verify.
    #[error(transparent)]
    Log(#[from] AuditError),
    /// The log has no record of it.
    #[error("no record of request {0} is in this log")]
    NoRecord(String),
    /// No checkpoint signs the record yet.
    #[error("record {0} is not signed yet: the next checkpoint will sign it")]
    Unsigned(u64),
    /// A line is not text, which no record of ours is.
    #[error("record {0} is not UTF-8")]
    NotText(u64),
}

/// Why a proof does not prove its record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotProven {
    /// The proof is not in the form of one.
    #[error("this is no proof: the form is that of c2sp.org/tlog-proof")]
    Form,
    /// The checkpoint is not signed by the key at hand.
    #[error("the checkpoint is not signed by this key")]
    Signature,
    /// The line does not have its hash, or the path does not lead from there to the checkpoint's root.
    #[error("the record is not in the log that the checkpoint signs")]
    Path,
    /// The record speaks of another request.
    #[error("the record is of another request")]
    Request,
}

/// The records of `request` in the log in `directory`, each with its proof.
pub fn prove(directory: &Path, request: &str) -> Result<Proven, ProveError> {
    let keys = verify::keys_beside(directory)?;
    let segments = Log::list(directory, &keys)?.segments;
    let mut records = Vec::new();
    for (index, segment) in segments.iter().enumerate().filter(|(_, segment)| segment.lines.is_some()) {
        if mentions(&segment.path(directory), request)? {
            let next = segments.get(index + 1);
            records.extend(prove_in(directory, segment, next, request, &keys)?);
        }
    }
    if records.is_empty() {
        return Err(ProveError::NoRecord(request.to_owned()));
    }
    Ok(Proven { request_id: request.to_owned(), records })
}

/// The public keys of a file, to check proofs with.
pub fn public_keys(path: &Path) -> Result<Vec<PublicKey>, AuditError> {
    verify::given_keys(path)
}

impl Proven {
    /// Checks every proof with `keys` alone. Gives how many records the newest of the checkpoints signs.
    pub fn check(&self, keys: &[PublicKey]) -> Result<u64, NotProven> {
        let mut newest = 0;
        for record in &self.records {
            let parsed = ocsf::parse(record.line.as_bytes()).map_err(|_| NotProven::Form)?;
            if *parsed.entry.request_id != *self.request_id {
                return Err(NotProven::Request);
            }
            newest = newest.max(record.check(keys)?);
        }
        if self.records.is_empty() { Err(NotProven::Form) } else { Ok(newest) }
    }
}

impl ProvenRecord {
    fn check(&self, keys: &[PublicKey]) -> Result<u64, NotProven> {
        let (path, note) = self.proof.split_once("\n\n").ok_or(NotProven::Form)?;
        let mut lines = path.lines();
        let (Some(FORM), Some(index)) = (lines.next(), lines.next()) else { return Err(NotProven::Form) };
        let index = index.strip_prefix("index ").and_then(|index| index.parse().ok()).ok_or(NotProven::Form)?;
        let path: Vec<Hash> = lines.map(checkpoint::hash).collect::<Option<_>>().ok_or(NotProven::Form)?;
        let head = checkpoint::open(note, keys).map_err(|wrong| match wrong {
            Wrong::Signature => NotProven::Signature,
            _ => NotProven::Form,
        })?;
        let hash = chain::see(self.line.as_bytes()).ok().and_then(Seen::hash).ok_or(NotProven::Path)?;
        let root = merkle::root_with(index, head.records(), merkle::leaf(hash.as_bytes()), &path);
        if root == Some(head.tree.root()) { Ok(head.records()) } else { Err(NotProven::Path) }
    }
}

/// Whether a segment has a line that mentions the request, so that not every segment need be verified.
fn mentions(path: &Path, request: &str) -> Result<bool, AuditError> {
    let mut blocks = Blocks::open(path).map_err(|source| AuditError::at(path, "open", source))?;
    let wanted = Finder::new(request);
    loop {
        let lines = blocks.next().map_err(|source| AuditError::at(path, "read", source))?;
        if lines.is_empty() {
            return Ok(false);
        }
        if lines.iter().any(|line| wanted.find(line.bytes).is_some()) {
            return Ok(true);
        }
    }
}

/// The request's records of one segment, proven against the newest checkpoint that knows no later segment.
fn prove_in(
    directory: &Path,
    segment: &Segment,
    next: Option<&Segment>,
    request: &str,
    keys: &[PublicKey],
) -> Result<Vec<ProvenRecord>, ProveError> {
    let head = recover::opening_head(directory, segment, keys)?;
    let mut leaves = Vec::new();
    let mut found = Vec::new();
    let mut walk = Walk { directory, keys, head: head.clone() };
    walk.segment(segment, next.is_none(), |line, at| {
        leaves.push(merkle::leaf(at.hash.as_bytes()));
        if ocsf::parse(line.bytes).is_ok_and(|record| *record.entry.request_id == *request) {
            found.push((head.records() + leaves.len() as u64, line.bytes.to_vec()));
        }
    })?;
    // What begins the next segment signs all of this one.
    let notes = next.unwrap_or(segment).name.checkpoints(directory);
    let text = std::fs::read_to_string(&notes).map_err(|source| AuditError::at(&notes, "read", source))?;
    let (checkpoints, _) = checkpoint::read(&text, keys);
    let signed = if next.is_some() { checkpoints.first() } else { checkpoints.last() };
    let size = signed.map_or(0, |signed| signed.head.records());

    let mut known = Known::after(head.tree.clone());
    let count = usize::try_from(size.saturating_sub(head.records())).unwrap_or(usize::MAX);
    leaves.into_iter().take(count).for_each(|leaf| known.push(leaf));
    let prove = |(sequence, line): (u64, Vec<u8>)| {
        let (Some(path), Some(signed)) = (known.path(sequence - 1), signed) else {
            return Err(ProveError::Unsigned(sequence));
        };
        let path: String = path.iter().map(|hash| STANDARD.encode(hash.as_bytes()) + "\n").collect();
        let proof = format!("{FORM}\nindex {}\n{path}\n{}", sequence - 1, signed.note);
        let line = String::from_utf8(line).map_err(|_| ProveError::NotText(sequence))?;
        Ok(ProvenRecord { line, proof })
    };
    found.into_iter().map(prove).collect()
}
