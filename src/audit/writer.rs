//! The one writer. It takes what waits, writes it with one sync, and then answers everyone who waited (group commit).
//!
//! A failed write poisons the segment: nothing more is written to it, and every append is refused until its tail was read
//! back and a new segment begun, which is tried at most once a second.

use std::{
    fs::File,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};

use super::{
    chain::{self, Head},
    checkpoint,
    disk::OpenSegment,
    journal::{AuditError, Config, Durability, Unavailable},
    key::SigningKey,
    ocsf,
    record::{Entry, Phase, Record, Sequence},
    recover::Found,
    refusals::Refusals,
    segment::{LONGEST_LINE, SegmentName},
    status::Shared,
};
use crate::clock::{Clock, Timestamp};

/// The most appends in one commit.
const GROUP: usize = 1024;
/// How often the writer looks up when nothing comes: refusals, checkpoints and mending wait no longer.
const TICK: Duration = Duration::from_secs(1);
/// How often a segment that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How often suppressed refusals are written down.
const SUPPRESSED_EVERY: Duration = Duration::from_secs(10);
/// Outcomes that failed and are written as recovered when the log is writable again. More are found at the next start,
/// by their intents.
const ORPHANS: usize = 4096;

#[derive(Debug)]
pub(super) enum Message {
    Append(Box<Append>),
    Close,
}

#[derive(Debug)]
pub(super) struct Append {
    pub(super) entry: Entry,
    pub(super) time: Timestamp,
    pub(super) waiter: oneshot::Sender<Result<Sequence, Unavailable>>,
}

pub(super) struct Writer {
    config: Config,
    clock: Clock,
    key: SigningKey,
    /// Holds the directory for this process as long as the writer lives.
    _lock: File,
    refusals: Arc<Refusals>,
    shared: Arc<Shared>,
    segment: OpenSegment,
    head: Head,
    /// How many records are signed, and since when.
    signed: (u64, Timestamp),
    /// Bytes of refusals in this segment.
    refusal_bytes: u64,
    counted: Timestamp,
    poison: Option<Poison>,
    orphans: Vec<Entry>,
}

/// Why nothing can be written, and when that was last tried.
struct Poison {
    error: Arc<AuditError>,
    tried: Timestamp,
}

impl Writer {
    /// A writer at the end of what was found, with the intents that had no outcome written as recovered.
    pub(super) fn open(
        config: Config,
        clock: Clock,
        key: SigningKey,
        lock: File,
        found: Option<Found>,
        refusals: Arc<Refusals>,
        shared: Arc<Shared>,
    ) -> Result<Self, AuditError> {
        let now = clock.now();
        let sync = config.durability == Durability::Fsync;
        let (segment, head, signed, orphans) = match found {
            Some(found) => {
                let segment = OpenSegment::resume(&config.directory, found.segment, found.length, found.tail, sync)?;
                (segment, found.head, found.signed, found.unanswered)
            }
            None => {
                let opening = checkpoint::sign(&Head::genesis(), now, &key).ok_or(AuditError::Sign)?;
                let segment = OpenSegment::create(&config.directory, SegmentName::FIRST, &opening, sync)?;
                (segment, Head::genesis(), 0, Vec::new())
            }
        };
        let mut writer = Self {
            config,
            clock,
            key,
            _lock: lock,
            refusals,
            shared,
            segment,
            head,
            signed: (signed, now),
            refusal_bytes: 0,
            counted: now,
            poison: None,
            orphans: Vec::new(),
        };
        let mut batch = Batch::new(writer.head.clone());
        for orphan in orphans {
            batch.push(now, orphan.recovered())?;
        }
        if !batch.bytes.is_empty() {
            writer.write(batch)?;
        }
        Ok(writer)
    }

    /// Writes until the journal is closed or dropped, then signs a last checkpoint.
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Message>) -> Result<(), Unavailable> {
        let mut messages = Vec::with_capacity(GROUP);
        loop {
            let received = tokio::time::timeout(TICK, inbox.recv_many(&mut messages, GROUP)).await;
            if received == Ok(0) {
                break;
            }
            let mut appends = Vec::with_capacity(messages.len());
            for message in messages.drain(..) {
                match message {
                    Message::Append(append) => appends.push(*append),
                    Message::Close => inbox.close(),
                }
            }
            self.commit(appends, false);
        }
        self.commit(Vec::new(), true);
        match &self.poison {
            Some(poison) => Err(Unavailable::Failed(Arc::clone(&poison.error))),
            None => Ok(()),
        }
    }

    /// One group commit, and what else is due.
    fn commit(&mut self, appends: Vec<Append>, is_last: bool) {
        let now = self.clock.now();
        if let Err(error) = self.mend(now) {
            return self.refuse(appends, &error);
        }
        let mut batch = Batch::new(self.head.clone());
        let orphans = std::mem::take(&mut self.orphans);
        for orphan in &orphans {
            // An outcome that could be rendered once can be rendered again.
            let _ = batch.push(now, orphan.clone());
        }
        let written = self.gather(&mut batch, appends);
        let (refusal_bytes, uncounted) = self.gather_refusals(&mut batch, now, is_last);
        if batch.bytes.is_empty() {
            return self.keep_up(now, is_last);
        }
        match self.write(batch) {
            Ok(()) => {
                self.refusal_bytes += refusal_bytes;
                written.into_iter().for_each(|(append, sequence)| append.answer(Ok(sequence)));
                self.keep_up(now, is_last);
            }
            Err(error) => {
                self.orphans = orphans;
                self.refusals.suppress(uncounted, now);
                let error = self.fail(error, now);
                self.refuse(written.into_iter().map(|(append, _)| append).collect(), &error);
            }
        }
    }

    /// Puts appends into the batch. Those that cannot be rendered are answered; with durability `memory` all are.
    fn gather(&self, batch: &mut Batch, appends: Vec<Append>) -> Vec<(Append, Sequence)> {
        let mut gathered = Vec::with_capacity(appends.len());
        for append in appends {
            match batch.push(append.time, append.entry.clone()) {
                Ok(sequence) if self.config.durability == Durability::Memory => append.answer(Ok(sequence)),
                Ok(sequence) => gathered.push((append, sequence)),
                Err(AuditError::TooLong) => append.answer(Err(Unavailable::TooLong)),
                Err(error) => append.answer(Err(Unavailable::Failed(Arc::new(error)))),
            }
        }
        gathered
    }

    /// Puts the refusals that wait into the batch, within their share of the segment, and the count of those that do not
    /// fit. Gives the bytes, and how many refusals go uncounted if the batch is not written.
    fn gather_refusals(&self, batch: &mut Batch, now: Timestamp, is_last: bool) -> (u64, u64) {
        let (mut bytes, mut refusals) = (0, 0);
        for (time, entry) in self.refusals.take() {
            let before = batch.bytes.len();
            if self.refusal_bytes + bytes < self.config.refusal_bytes && batch.push(time, entry).is_ok() {
                bytes += (batch.bytes.len() - before) as u64;
                refusals += 1;
            } else {
                self.refusals.suppress(1, time);
            }
        }
        let is_due = is_last || now.since(self.counted) >= SUPPRESSED_EVERY;
        if let Some(suppressed) = is_due.then(|| self.refusals.take_suppressed()).flatten() {
            let entry = Entry { suppressed: Some(suppressed), ..Entry::new(Phase::Suppressed, "") };
            if batch.push(now, entry).is_ok() {
                batch.suppressed = suppressed.count;
                refusals += suppressed.count;
            }
        }
        (bytes, refusals)
    }

    /// Writes a batch and moves the head.
    fn write(&mut self, batch: Batch) -> Result<(), AuditError> {
        let begun = Instant::now();
        self.segment.write(&batch.bytes, batch.tail)?;
        if self.config.durability == Durability::Fsync {
            self.shared.synced(begun.elapsed());
        }
        self.shared.records.fetch_add(batch.head.records() - self.head.records(), Ordering::Relaxed);
        self.shared.suppressed.fetch_add(batch.suppressed, Ordering::Relaxed);
        if batch.suppressed > 0 {
            self.counted = self.clock.now();
        }
        self.head = batch.head;
        Ok(())
    }

    /// Signs and rotates when that is due.
    fn keep_up(&mut self, now: Timestamp, is_last: bool) {
        let unsigned = self.head.records() - self.signed.0;
        let result = if self.segment.length() >= self.config.segment_bytes {
            self.rotate(now)
        } else if is_last
            || unsigned >= self.config.checkpoint_records
            || (unsigned > 0 && now.since(self.signed.1) >= self.config.checkpoint_interval)
        {
            self.sign(now)
        } else {
            Ok(())
        };
        if let Err(error) = result {
            self.fail(error, now);
        }
    }

    fn sign(&mut self, now: Timestamp) -> Result<(), AuditError> {
        let note = checkpoint::sign(&self.head, now, &self.key).ok_or(AuditError::Sign)?;
        self.segment.note(&note)?;
        self.has_signed(now);
        Ok(())
    }

    /// Begins the next segment, whose first checkpoint signs all before it.
    fn rotate(&mut self, now: Timestamp) -> Result<(), AuditError> {
        let name = SegmentName { number: self.segment.name.number + 1, first: self.head.records() + 1 };
        let opening = checkpoint::sign(&self.head, now, &self.key).ok_or(AuditError::Sign)?;
        let sync = self.config.durability == Durability::Fsync;
        self.segment = OpenSegment::create(&self.config.directory, name, &opening, sync)?;
        self.refusal_bytes = 0;
        self.has_signed(now);
        Ok(())
    }

    fn has_signed(&mut self, now: Timestamp) {
        self.signed = (self.head.records(), now);
        self.shared.checkpoints.fetch_add(1, Ordering::Relaxed);
    }

    /// Makes the log writable again if it was not.
    fn mend(&mut self, now: Timestamp) -> Result<(), Arc<AuditError>> {
        let Some(poison) = &mut self.poison else { return Ok(()) };
        let too_soon = now >= poison.tried && now.since(poison.tried) < RETRY;
        if too_soon {
            return Err(Arc::clone(&poison.error));
        }
        match self.segment.mend(self.head.hash).and_then(|()| self.rotate(now)) {
            Ok(()) => {
                tracing::info!(segment = self.segment.name.number, "the audit log can be written again");
                self.poison = None;
                self.shared.mended();
                Ok(())
            }
            Err(error) => Err(self.fail(error, now)),
        }
    }

    fn fail(&mut self, error: AuditError, now: Timestamp) -> Arc<AuditError> {
        tracing::error!(%error, "the audit log cannot be written: requests are refused");
        let error = Arc::new(error);
        self.shared.failed(now, &error);
        self.poison = Some(Poison { error: Arc::clone(&error), tried: now });
        error
    }

    /// Answers appends that were not written, and remembers the outcomes among them.
    fn refuse(&mut self, appends: Vec<Append>, error: &Arc<AuditError>) {
        for append in appends {
            if append.entry.phase == Phase::Outcome && self.orphans.len() < ORPHANS {
                self.orphans.push(append.entry.clone().recovered());
            }
            append.answer(Err(Unavailable::Failed(Arc::clone(error))));
        }
    }
}

impl Append {
    fn answer(self, result: Result<Sequence, Unavailable>) {
        // A caller that no longer waits has lost nothing: the record stands.
        let _ = self.waiter.send(result);
    }
}

/// Lines that are written together.
struct Batch {
    bytes: Vec<u8>,
    /// Where the last line begins.
    tail: u64,
    /// The head after them.
    head: Head,
    /// Refusals that the batch counts.
    suppressed: u64,
}

impl Batch {
    fn new(head: Head) -> Self {
        Self { bytes: Vec::new(), tail: 0, head, suppressed: 0 }
    }

    fn push(&mut self, time: Timestamp, entry: Entry) -> Result<Sequence, AuditError> {
        let sequence = Sequence(self.head.records() + 1);
        let record = Record { sequence, time, entry };
        let mut line = ocsf::render(&record, &self.head.hash.to_string()).map_err(AuditError::Record)?;
        let hash = chain::seal(self.head.hash, &mut line);
        if line.len() > LONGEST_LINE {
            return Err(AuditError::TooLong);
        }
        self.tail = self.bytes.len() as u64;
        self.bytes.extend_from_slice(&line);
        self.head.advance(line.strip_suffix(b"\n").unwrap_or(&line), hash);
        Ok(sequence)
    }
}
