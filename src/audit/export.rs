//! The lines of a time, as they stand in the log, for whoever keeps or reads them elsewhere.

use std::{
    io::{self, Write},
    path::Path,
};

use serde::Deserialize;

use super::{
    journal::AuditError,
    recover,
    segment::{self, Blocks},
};
use crate::clock::Timestamp;

/// An export that did not end.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] AuditError),
    /// The other side cannot be written.
    #[error("cannot write the export: {0}")]
    Output(#[from] io::Error),
}

/// Writes the lines of records from `since` on and before `until` to `out`, and gives their number. A line that is still
/// being written is left out.
pub fn export(directory: &Path, since: Timestamp, until: Timestamp, out: &mut impl Write) -> Result<u64, ExportError> {
    #[derive(Deserialize)]
    struct Timed {
        time: i64,
    }
    let listing = segment::list(directory).map_err(|source| AuditError::at(directory, "list", source))?;
    let segments: Vec<_> = listing.segments.into_iter().filter(|segment| segment.lines.is_some()).collect();
    if segments.is_empty() {
        return Err(AuditError::NoLog(directory.to_owned()).into());
    }
    let mut start = 0;
    for (index, segment) in segments.iter().enumerate().skip(1) {
        match recover::first_time(directory, segment)? {
            // A little later than asked for: the order of the log is that of commits, which is nearly that of times.
            Some(time) if Timestamp::from_millis(time).plus(recover::WINDOW) > since => break,
            Some(_) => start = index,
            None => {}
        }
    }
    let mut exported = 0;
    for segment in segments.iter().skip(start) {
        let path = segment.path(directory);
        let mut blocks = Blocks::open(&path).map_err(|source| AuditError::at(&path, "open", source))?;
        loop {
            let lines = blocks.next().map_err(|source| AuditError::at(&path, "read", source))?;
            if lines.is_empty() {
                break;
            }
            for line in lines.iter().filter(|line| line.finished) {
                let Ok(Timed { time }) = serde_json::from_slice(line.bytes) else { continue };
                let time = Timestamp::from_millis(time);
                if time >= since && time < until {
                    out.write_all(line.bytes)?;
                    out.write_all(b"\n")?;
                    exported += 1;
                }
            }
        }
    }
    Ok(exported)
}
