//! Packing closed segments: the same lines, compressed with gzip, which every tool reads.
//!
//! A segment is packed beside itself, read back and compared, and only then removed; so there is no moment at which its
//! lines are not whole on the disk.

use std::{
    fs::File,
    io::{self, Read, Write as _},
    path::Path,
};

use aws_lc_rs::digest::{Context, Digest, SHA256};
use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};

use super::{
    journal::AuditError,
    recover::sync_directory,
    segment::{self, Kept, SegmentName},
};

const CHUNK: usize = 256 * 1024;

/// Packs every segment before `open` that is not packed yet. A segment that cannot be packed stays as it is.
pub(super) fn pack_before(directory: &Path, open: SegmentName) {
    let segments = match segment::list(directory) {
        Ok(listing) => listing.segments,
        Err(error) => return tracing::warn!(%error, "closed segments of the audit log are not packed"),
    };
    for segment in segments.iter().filter(|segment| segment.name < open && segment.lines == Some(Kept::Plain)) {
        if let Err(error) = pack(directory, segment.name) {
            tracing::warn!(%error, "a closed segment of the audit log is not packed");
        }
    }
}

fn pack(directory: &Path, name: SegmentName) -> Result<(), AuditError> {
    let (plain, packed) = (name.lines(directory), name.packed(directory));
    let fresh = packed.with_extension("gz.new");
    let work = || {
        let written = compress(&plain, &fresh)?;
        let read = digest(MultiGzDecoder::new(File::open(&fresh)?))?;
        if written.as_ref() != read.as_ref() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "what was packed reads back otherwise"));
        }
        std::fs::rename(&fresh, &packed)?;
        sync_directory(directory)?;
        std::fs::remove_file(&plain)
    };
    work().map_err(|source| AuditError::at(&plain, "pack", source))
}

/// Packs `plain` into `fresh`, and gives the digest of what was packed.
fn compress(plain: &Path, fresh: &Path) -> io::Result<Digest> {
    let (mut from, mut context) = (File::open(plain)?, Context::new(&SHA256));
    let to = File::create(fresh)?;
    to.set_permissions(from.metadata()?.permissions())?;
    let mut encoder = GzEncoder::new(to, Compression::default());
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = from.read(&mut chunk)?;
        let bytes = chunk.get(..read).unwrap_or_default();
        if bytes.is_empty() {
            break;
        }
        context.update(bytes);
        encoder.write_all(bytes)?;
    }
    encoder.finish()?.sync_all()?;
    Ok(context.finish())
}

fn digest(mut from: impl Read) -> io::Result<Digest> {
    let mut context = Context::new(&SHA256);
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = from.read(&mut chunk)?;
        match chunk.get(..read) {
            Some(bytes) if !bytes.is_empty() => context.update(bytes),
            _ => return Ok(context.finish()),
        }
    }
}
