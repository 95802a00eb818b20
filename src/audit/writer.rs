//! The one writer. It takes what waits, writes it with one sync, and then answers everyone who waited (group commit).
//!
//! A failed write poisons the segment: its files are closed, nothing more is written to it, and every append is refused until
//! its tail was read back and a new segment begun, which is tried at most once a second. A disk that is nearly full is told
//! apart: the outcomes of writes that have begun go on into the room that was kept for them, and nothing else does.

use std::{
    fs::File,
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::sync::mpsc::{self, error::TryRecvError};

use super::{
    anchors::Anchors,
    bell::Bell,
    chain::{self, Head},
    checkpoint,
    disk::{Care, OpenSegment, ShutSegment},
    journal::{self, AuditError, Config, Durability, Unavailable},
    key::{PublicKey, SigningKey},
    ocsf, pack, readings,
    record::{Entry, Phase, Sequence, Verdict},
    recover::{self, Found},
    refusals::Refusals,
    reply::{self, Waiter},
    retention,
    segment::{self, LONGEST_LINE, Log, SegmentName},
    status::Shared,
};
use crate::clock::{Clock, Timestamp};

/// The most appends in one commit.
const GROUP: usize = 1024;
/// About the length of a line, in bytes: room for it is taken at once.
const USUAL_LINE: usize = 2048;
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
    Append(Append),
    Close,
}

#[derive(Debug)]
pub(super) struct Append {
    pub(super) entry: Box<Entry>,
    pub(super) time: Timestamp,
    pub(super) waiter: Waiter,
}

/// What a writer shares with the journal, and what it alone may use.
pub(super) struct Parts {
    pub(super) config: Config,
    pub(super) clock: Clock,
    pub(super) key: SigningKey,
    pub(super) keys: Vec<PublicKey>,
    /// Holds the directory for this process.
    pub(super) lock: File,
    pub(super) refusals: Arc<Refusals>,
    pub(super) shared: Arc<Shared>,
    pub(super) anchors: Arc<Anchors>,
}

pub(super) struct Writer {
    config: Config,
    clock: Clock,
    key: SigningKey,
    keys: Vec<PublicKey>,
    refusals: Arc<Refusals>,
    shared: Arc<Shared>,
    anchors: Arc<Anchors>,
    disk: Disk,
    head: Head,
    /// How many records are signed, and since when.
    signed: (u64, Timestamp),
    /// When this segment began.
    born: Timestamp,
    /// Bytes of refusals in this segment.
    refusal_bytes: u64,
    counted: Timestamp,
    /// Why no more than the outcomes of writes that have begun are written.
    full: Option<Arc<AuditError>>,
    orphans: Vec<Entry>,
    /// When notes of readers were last looked for.
    looked: Option<Timestamp>,
    packing: Option<JoinHandle<()>>,
}

/// The end of the log.
enum Disk {
    /// It can be written. The lock holds the directory for this process.
    Open { segment: OpenSegment, _lock: File },
    /// It cannot: why not, and when that was last tried. No file is open, the lock's neither.
    Shut { segment: ShutSegment, error: Arc<AuditError>, tried: Timestamp },
}

impl Writer {
    /// A writer at the end of what was found, with the intents that had no outcome written as recovered.
    pub(super) fn open(parts: Parts, found: Option<Found>) -> Result<Self, AuditError> {
        let Parts { config, clock, key, keys, lock, refusals, shared, anchors } = parts;
        let now = clock.now();
        let care = care(&config);
        let is_new = found.is_none();
        let (segment, head, signed, born, orphans) = match found {
            Some(found) => {
                let segment = OpenSegment::resume(&config.directory, found.segment, found.length, care)?;
                (segment, found.head, found.signed, found.born.unwrap_or(now), found.unanswered)
            }
            None => {
                let opening = checkpoint::sign(&Head::genesis(), now, &key).ok_or(AuditError::Sign)?;
                let segment = OpenSegment::create(&config.directory, SegmentName::FIRST, &opening, care)?;
                (segment, Head::genesis(), 0, now, Vec::new())
            }
        };
        let mut writer = Self {
            config,
            clock,
            key,
            keys,
            refusals,
            shared,
            anchors,
            disk: Disk::Open { segment, _lock: lock },
            head,
            signed: (signed, now),
            born,
            refusal_bytes: 0,
            counted: now,
            full: None,
            orphans: Vec::new(),
            looked: None,
            packing: None,
        };
        let mut batch = Batch::new(writer.head.clone(), orphans.len());
        for orphan in orphans {
            batch.push(now, &orphan.recovered())?;
        }
        if !batch.bytes.is_empty() {
            writer.write(batch)?;
        }
        // What the last process signed may never have reached an anchor.
        if !is_new && (writer.head.records() > writer.signed.0 || !writer.anchors.is_empty()) {
            writer.sign(now)?;
        }
        writer.keep_house(now);
        Ok(writer)
    }

    /// Writes until the journal is closed or dropped, then signs a last checkpoint.
    pub(super) fn run(mut self, mut inbox: mpsc::Receiver<Message>, bell: &Bell) -> Result<(), Unavailable> {
        let (mut is_over, mut is_full) = (false, false);
        while !is_over {
            if !is_full {
                // Without a ring, too: there is more to do than to append.
                bell.rest(TICK);
            }
            let mut appends = Vec::new();
            while appends.len() < GROUP {
                match inbox.try_recv() {
                    Ok(Message::Append(append)) => appends.push(append),
                    Ok(Message::Close) => inbox.close(),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => {
                        is_over = true;
                        break;
                    }
                }
            }
            is_full = appends.len() == GROUP;
            self.commit(appends, false);
        }
        self.commit(Vec::new(), true);
        if let Some(packing) = self.packing.take() {
            // It has said itself why it ended.
            let _ = packing.join();
        }
        match &self.disk {
            Disk::Shut { error, .. } => Err(Unavailable::Failed(Arc::clone(error))),
            Disk::Open { segment, .. } => {
                segment.finish();
                Ok(())
            }
        }
    }

    /// One group commit, and what else is due.
    fn commit(&mut self, appends: Vec<Append>, is_last: bool) {
        let shared = Arc::clone(&self.shared);
        let _busy = shared.busy();
        let now = self.clock.now();
        let ready = self.mend(now).and_then(|()| self.take_room(now)).and_then(|()| self.leave_old(now));
        if let Err(error) = ready {
            return self.refuse(appends, &error);
        }
        let mut batch = Batch::new(self.head.clone(), appends.len());
        let (appends, orphans) = match self.full.clone() {
            None => (appends, std::mem::take(&mut self.orphans)),
            Some(error) => {
                let (begun, others) = appends.into_iter().partition(Append::ends_a_write);
                self.refuse(others, &error);
                (begun, Vec::new())
            }
        };
        for orphan in &orphans {
            // An outcome that could be rendered once can be rendered again.
            let _ = batch.push(now, orphan);
        }
        let mut written = self.gather(&mut batch, appends);
        if self.config.durability == Durability::Memory {
            self.confirm(std::mem::take(&mut written));
        }
        let (refusal_bytes, uncounted) = self.gather_refusals(&mut batch, now, is_last);
        let noted = self.gather_readings(&mut batch, now);
        if batch.bytes.is_empty() {
            return self.keep_up(now, is_last);
        }
        match self.write(batch) {
            Ok(()) => {
                self.refusal_bytes += refusal_bytes;
                readings::forget(noted);
                self.confirm(written);
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

    /// Takes room for what is to come. A disk that is full is no failure yet: what has begun still fits.
    fn take_room(&mut self, now: Timestamp) -> Result<(), Arc<AuditError>> {
        let Disk::Open { segment, .. } = &mut self.disk else { return Ok(()) };
        match segment.take_room() {
            Ok(()) => {
                if self.full.take().is_some() {
                    tracing::info!("there is room for the audit log again");
                    self.shared.mended();
                }
                Ok(())
            }
            Err(error @ AuditError::Full(_)) => {
                self.fill(error, now);
                Ok(())
            }
            Err(error) => Err(self.fail(error, now)),
        }
    }

    fn fill(&mut self, error: AuditError, now: Timestamp) {
        let error = Arc::new(error);
        if self.full.is_none() {
            tracing::error!(%error, "the audit log has no room: requests are refused");
        }
        self.shared.failed(now, &error);
        self.full = Some(error);
    }

    /// Puts appends into the batch. Those that cannot be rendered are answered.
    fn gather(&self, batch: &mut Batch, appends: Vec<Append>) -> Vec<(Append, Sequence)> {
        let mut gathered = Vec::with_capacity(appends.len());
        for append in appends {
            let pushed = match (append.waiter.is_gone(), append.entry.phase) {
                (false, _) => batch.push(append.time, &append.entry),
                // Whoever waited for it has refused its request already, so nothing came of it.
                (true, Phase::Intent) => continue,
                (true, _) => batch.push(append.time, &append.entry.clone().recovered()),
            };
            match pushed {
                Ok(sequence) => gathered.push((append, sequence)),
                Err(AuditError::TooLong) => append.waiter.tell(Err(Unavailable::TooLong)),
                Err(error) => append.waiter.tell(Err(Unavailable::Failed(Arc::new(error)))),
            }
        }
        gathered
    }

    /// Puts the refusals that wait into the batch, within their share of the segment, and the count of those that do not
    /// fit; on a full disk they are all counted, and the count is kept for later. Gives the bytes, and how many refusals go
    /// uncounted if the batch is not written.
    fn gather_refusals(&self, batch: &mut Batch, now: Timestamp, is_last: bool) -> (u64, u64) {
        let (mut bytes, mut refusals) = (0, 0);
        for (time, entry) in self.refusals.take() {
            let before = batch.bytes.len();
            if self.full.is_none()
                && self.refusal_bytes + bytes < self.config.refusal_bytes
                && batch.push(time, &entry).is_ok()
            {
                bytes += (batch.bytes.len() - before) as u64;
                refusals += 1;
            } else {
                self.refusals.suppress(1, time);
            }
        }
        let is_due = self.full.is_none() && (is_last || now.since(self.counted) >= SUPPRESSED_EVERY);
        if let Some(suppressed) = is_due.then(|| self.refusals.take_suppressed()).flatten() {
            let entry = Entry { suppressed: Some(suppressed), ..Entry::new(Phase::Suppressed, "") };
            if batch.push(now, &entry).is_ok() {
                batch.suppressed = suppressed.count;
                refusals += suppressed.count;
            }
        }
        (bytes, refusals)
    }

    /// Puts the notes of readers into the batch, and gives the files that held them.
    fn gather_readings(&mut self, batch: &mut Batch, now: Timestamp) -> Vec<readings::Note> {
        if self.full.is_some() || self.looked.is_some_and(|looked| now >= looked && now.since(looked) < TICK) {
            return Vec::new();
        }
        self.looked = Some(now);
        let mut notes = readings::left(&self.config.directory);
        notes.retain(|note| batch.push(now, &note.entry()).is_ok());
        notes
    }

    /// Writes a batch and moves the head.
    fn write(&mut self, batch: Batch) -> Result<(), AuditError> {
        let begun = Instant::now();
        let segment = self.disk.segment()?;
        segment.write(&batch.bytes)?;
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
        let result = if self.may_rotate() && self.disk.length() >= self.config.segment_bytes {
            self.rotate(now)
        } else if is_last && unsigned > 0
            || unsigned >= self.config.checkpoint_records
            || (unsigned > 0 && now.since(self.signed.1) >= self.config.checkpoint_interval)
        {
            self.sign(now)
        } else {
            Ok(())
        };
        match result {
            Ok(()) => {}
            Err(error @ AuditError::Full(_)) => self.fill(error, now),
            Err(error) => {
                self.fail(error, now);
            }
        }
    }

    /// Leaves a segment that is old before anything more is written to it.
    fn leave_old(&mut self, now: Timestamp) -> Result<(), Arc<AuditError>> {
        if !self.may_rotate() || now.since(self.born) < self.config.segment_age {
            return Ok(());
        }
        match self.rotate(now) {
            Ok(()) => Ok(()),
            Err(error @ AuditError::Full(_)) => {
                self.fill(error, now);
                Ok(())
            }
            Err(error) => Err(self.fail(error, now)),
        }
    }

    /// An empty segment is never left, and none on a full disk: a new one would want room of its own.
    fn may_rotate(&self) -> bool {
        self.full.is_none() && self.disk.length() > 0
    }

    fn sign(&mut self, now: Timestamp) -> Result<(), AuditError> {
        let note = checkpoint::sign(&self.head, now, &self.key).ok_or(AuditError::Sign)?;
        self.disk.segment()?.note(&note)?;
        self.has_signed(now, &note);
        Ok(())
    }

    /// Begins the next segment, whose first checkpoint signs all before it.
    fn rotate(&mut self, now: Timestamp) -> Result<(), AuditError> {
        let segment = self.disk.segment()?;
        let name = SegmentName { number: segment.name.number + 1, first: self.head.records() + 1 };
        let opening = checkpoint::sign(&self.head, now, &self.key).ok_or(AuditError::Sign)?;
        let next = OpenSegment::create(&self.config.directory, name, &opening, care(&self.config))?;
        std::mem::replace(segment, next).finish();
        self.begun_segment(now, &opening);
        Ok(())
    }

    fn begun_segment(&mut self, now: Timestamp, opening: &str) {
        self.refusal_bytes = 0;
        self.born = now;
        self.has_signed(now, opening);
        self.keep_house(now);
    }

    fn has_signed(&mut self, now: Timestamp, note: &str) {
        self.signed = (self.head.records(), now);
        self.shared.checkpoints.fetch_add(1, Ordering::Relaxed);
        self.anchors.offer(&self.head, note, now);
    }

    /// Packs segments that are closed, and removes those that are older than the policy keeps them. What fails here is
    /// tried again with the next segment, and takes nothing from the log.
    fn keep_house(&mut self, now: Timestamp) {
        if let Some(retain) = self.config.retain
            && let Err(error) = self.remove_old(now, retain)
        {
            tracing::warn!(%error, "old segments of the audit log are not removed");
        }
        if self.config.pack && self.packing.as_ref().is_none_or(JoinHandle::is_finished) {
            let (directory, open) = (self.config.directory.clone(), self.disk.name());
            let packing = std::thread::Builder::new().name("audit-pack".into());
            match packing.spawn(move || pack::pack_before(&directory, open)) {
                Ok(packing) => self.packing = Some(packing),
                Err(error) => tracing::warn!(%error, "closed segments of the audit log are not packed"),
            }
        }
    }

    fn remove_old(&self, now: Timestamp, retain: Duration) -> Result<(), AuditError> {
        let directory = &self.config.directory;
        let Log { segments, removed } = Log::list(directory, &self.keys)?;
        let gone = removed.map_or(0, |removed| removed.segments);
        let mut listing = segment::list(directory).map_err(|source| AuditError::at(directory, "list", source))?;
        listing.segments.retain(|segment| segment.name.number <= gone);
        retention::sweep(directory, &listing.segments)?;
        let mut old = 0;
        let mut until = None;
        for (at, next) in segments.iter().enumerate().skip(1) {
            // A segment is old when the next one began long enough ago.
            let Some(began) = recover::first_time(directory, next)?.map(Timestamp::from_millis) else { break };
            if began.plus(retain) > now {
                break;
            }
            (old, until) = (at, Some(began));
        }
        let (Some(until), Some(first)) = (until, segments.get(old)) else { return Ok(()) };
        let head = recover::opening_head(directory, first, &self.keys)?;
        let old = segments.get(..old).unwrap_or_default();
        tracing::info!(segments = old.len(), records = head.records(), "old segments of the audit log are removed");
        retention::remove(directory, old, &head, until, now, &self.key)
    }

    /// Makes the log writable again if it was not.
    fn mend(&mut self, now: Timestamp) -> Result<(), Arc<AuditError>> {
        let Disk::Shut { segment, error, tried } = &self.disk else { return Ok(()) };
        let too_soon = now >= *tried && now.since(*tried) < RETRY;
        if too_soon {
            return Err(Arc::clone(error));
        }
        match self.reopen(&segment.clone(), now) {
            Ok(()) => {
                tracing::info!(segment = self.disk.name().number, "the audit log can be written again");
                self.full = None;
                self.shared.mended();
                Ok(())
            }
            Err(error) => Err(self.fail(error, now)),
        }
    }

    /// Reads the segment that failed back, and goes on in a new one.
    fn reopen(&mut self, shut: &ShutSegment, now: Timestamp) -> Result<(), AuditError> {
        let directory = self.config.directory.clone();
        let lock = journal::lock(&directory)?;
        shut.mend(&directory, &self.keys, &self.head)?;
        let name = SegmentName { number: shut.name.number + 1, first: self.head.records() + 1 };
        let opening = checkpoint::sign(&self.head, now, &self.key).ok_or(AuditError::Sign)?;
        let segment = OpenSegment::create(&directory, name, &opening, care(&self.config))?;
        self.disk = Disk::Open { segment, _lock: lock };
        self.begun_segment(now, &opening);
        Ok(())
    }

    fn fail(&mut self, error: AuditError, now: Timestamp) -> Arc<AuditError> {
        tracing::error!(%error, "the audit log cannot be written: requests are refused");
        let error = Arc::new(error);
        self.shared.failed(now, &error);
        let segment = match &self.disk {
            Disk::Open { segment, .. } => segment.shut(),
            Disk::Shut { segment, .. } => segment.clone(),
        };
        self.disk = Disk::Shut { segment, error: Arc::clone(&error), tried: now };
        error
    }

    /// Answers appends that were not written, and remembers the outcomes among them.
    fn refuse(&mut self, appends: Vec<Append>, error: &Arc<AuditError>) {
        for append in appends {
            let Append { entry, waiter, .. } = append;
            self.remember(entry);
            waiter.tell(Err(Unavailable::Failed(Arc::clone(error))));
        }
    }

    /// Answers appends that were written. Of an answer that does not leave, since its caller waits no longer, the record tells all
    /// the same; so another one follows.
    fn confirm(&mut self, written: Vec<(Append, Sequence)>) {
        let mut waiters = Vec::with_capacity(written.len());
        for (append, sequence) in written {
            if append.waiter.is_gone() {
                self.remember(append.entry);
            } else {
                waiters.push((append.waiter, sequence));
            }
        }
        reply::tell_all(waiters);
    }

    /// Remembers an outcome whose answer does not leave, to write it as recovered.
    fn remember(&mut self, entry: Box<Entry>) {
        if entry.phase == Phase::Outcome && self.orphans.len() < ORPHANS {
            self.orphans.push(entry.recovered());
        }
    }
}

impl Disk {
    fn segment(&mut self) -> Result<&mut OpenSegment, AuditError> {
        match self {
            Self::Open { segment, .. } => Ok(segment),
            Self::Shut { segment, .. } => Err(AuditError::Shut(segment.name.number)),
        }
    }

    /// Bytes of the segment that is written to.
    fn length(&self) -> u64 {
        match self {
            Self::Open { segment, .. } => segment.length(),
            Self::Shut { .. } => 0,
        }
    }

    fn name(&self) -> SegmentName {
        match self {
            Self::Open { segment, .. } => segment.name,
            Self::Shut { segment, .. } => segment.name,
        }
    }
}

fn care(config: &Config) -> Care {
    Care { sync: config.durability == Durability::Fsync, room: config.room }
}

impl Append {
    /// Whether it is the outcome of a write that may have reached Cosmos.
    fn ends_a_write(&self) -> bool {
        let entry = &self.entry;
        let was_allowed = entry.decision.as_ref().is_some_and(|ruling| ruling.verdict == Verdict::Allow);
        entry.phase == Phase::Outcome && was_allowed && entry.question.action.is_some_and(|action| action.is_write())
    }
}

/// Lines that are written together.
struct Batch {
    bytes: Vec<u8>,
    /// The head after them.
    head: Head,
    /// Refusals that the batch counts.
    suppressed: u64,
}

impl Batch {
    /// A batch that is about to hold this many lines.
    fn new(head: Head, lines: usize) -> Self {
        Self { bytes: Vec::with_capacity(lines * USUAL_LINE), head, suppressed: 0 }
    }

    fn push(&mut self, time: Timestamp, entry: &Entry) -> Result<Sequence, AuditError> {
        let sequence = Sequence(self.head.records() + 1);
        let begun = self.bytes.len();
        ocsf::render(&mut self.bytes, sequence, time, entry, self.head.hash);
        let hash = chain::seal(self.head.hash, &mut self.bytes, begun);
        if self.bytes.len() - begun > LONGEST_LINE {
            self.bytes.truncate(begun);
            return Err(AuditError::TooLong);
        }
        self.head.advance(hash);
        Ok(sequence)
    }
}
