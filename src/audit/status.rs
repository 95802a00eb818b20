//! What the journal says of itself, for `/readyz` and for metrics.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{anchors::AnchorStatus, journal::AuditError};
use crate::clock::Timestamp;

/// The upper bounds of the sync-time buckets, in seconds; the last bucket holds what is above them all.
pub const SYNC_BUCKETS: [f64; 10] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5];

/// Whether the log can be written.
#[derive(Clone, Debug, Default)]
pub enum Health {
    /// It can.
    #[default]
    Ok,
    /// It cannot.
    Failed {
        /// Since when.
        since: Timestamp,
        /// Why not, the last time it was tried.
        error: Arc<AuditError>,
    },
}

/// The journal's state.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Whether the log can be written now.
    pub health: Health,
    /// The last error, also after it was over.
    pub last_error: Option<(Timestamp, Arc<AuditError>)>,
    /// How each anchor stands.
    pub anchors: Vec<AnchorStatus>,
}

/// Counts since the start.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Counters {
    /// Records written.
    pub records: u64,
    /// Refusals counted instead of written.
    pub suppressed: u64,
    /// Checkpoints signed.
    pub checkpoints: u64,
    /// Syncs of a segment.
    pub syncs: u64,
    /// Seconds spent in them.
    pub sync_seconds: f64,
    /// How many syncs took up to each of [`SYNC_BUCKETS`] and more than the one before, and how many took longer than all.
    pub sync_buckets: [u64; SYNC_BUCKETS.len() + 1],
}

/// What the writer writes and everyone reads.
#[derive(Debug, Default)]
pub(super) struct Shared {
    status: Mutex<Status>,
    /// Since when the writer has been at the disk.
    busy: Mutex<Option<Instant>>,
    pub(super) records: AtomicU64,
    pub(super) suppressed: AtomicU64,
    pub(super) checkpoints: AtomicU64,
    sync_micros: AtomicU64,
    sync_buckets: [AtomicU64; SYNC_BUCKETS.len() + 1],
}

impl Shared {
    pub(super) fn status(&self) -> Status {
        self.inner().clone()
    }

    pub(super) fn failed(&self, now: Timestamp, error: &Arc<AuditError>) {
        let mut status = self.inner();
        let since = match status.health {
            Health::Failed { since, .. } => since,
            Health::Ok => now,
        };
        status.health = Health::Failed { since, error: Arc::clone(error) };
        status.last_error = Some((now, Arc::clone(error)));
    }

    pub(super) fn mended(&self) {
        self.inner().health = Health::Ok;
    }

    /// Marks the writer as being at the disk, until the mark is dropped.
    pub(super) fn busy(&self) -> Busy<'_> {
        *self.since() = Some(Instant::now());
        Busy(self)
    }

    /// How long the writer has been at the disk.
    pub(super) fn busy_for(&self) -> Duration {
        self.since().map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn synced(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = SYNC_BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(SYNC_BUCKETS.len());
        if let Some(bucket) = self.sync_buckets.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sync_micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn counters(&self) -> Counters {
        let sync_buckets = self.sync_buckets.each_ref().map(|bucket| bucket.load(Ordering::Relaxed));
        Counters {
            records: self.records.load(Ordering::Relaxed),
            suppressed: self.suppressed.load(Ordering::Relaxed),
            checkpoints: self.checkpoints.load(Ordering::Relaxed),
            syncs: sync_buckets.iter().sum(),
            sync_seconds: self.sync_micros.load(Ordering::Relaxed) as f64 / 1e6,
            sync_buckets,
        }
    }

    fn inner(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The writer is at the disk.
#[derive(Debug)]
pub(super) struct Busy<'a>(&'a Shared);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        *self.0.since() = None;
    }
}
