//! The journal: one log in one directory, written by one thread of one process.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use super::{
    anchors::Anchors,
    bell::{Bell, Ring},
    key::{self, KeyProblem, PublicKey, SigningKey},
    record::{Entry, Sequence},
    recover,
    refusals::Refusals,
    reply,
    segment::Damage,
    status::{Counters, Health, Shared, Status},
    writer::{Append, Message, Parts, Writer},
};
use crate::clock::{Clock, Timestamp};

/// The file that holds the public keys of the checkpoints.
pub(super) const PUBLIC_KEY: &str = "checkpoint.pub";
const LOCK: &str = "lock";
/// How long a stop waits for the last records and checkpoint, and how long for the anchors.
const LAST_WRITE: Duration = Duration::from_secs(30);
const LAST_ANCHORING: Duration = Duration::from_secs(5);

/// When a record counts as written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// When the disk has it: it survives the loss of power.
    Fsync,
    /// When the kernel has it: it survives the loss of the process.
    Write,
    /// At once, before it is written: for development.
    Memory,
}

/// What a journal is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// The log's directory; made when absent. One process at a time writes there.
    pub directory: PathBuf,
    /// When a record counts as written.
    pub durability: Durability,
    /// The Ed25519 key that signs checkpoints (PKCS#8 PEM); made with mode 0600 when absent.
    pub signing_key: PathBuf,
    /// The longest time that records stay unsigned.
    pub checkpoint_interval: Duration,
    /// The most records that stay unsigned.
    pub checkpoint_records: u64,
    /// A segment that has grown to this many bytes is closed and the next one begun.
    pub segment_bytes: u64,
    /// Refusals of unknown callers written per second; the rest are counted.
    pub refusals_per_second: u32,
    /// Bytes of a segment that refusals may fill; the rest are counted.
    pub refusal_bytes: u64,
    /// Appends that may wait for the writer; more wait for a place.
    pub queue: usize,
    /// A segment this old is closed and the next one begun.
    pub segment_age: Duration,
    /// Room on the disk that is taken ahead, for outcomes of writes that have begun when it is full.
    pub room: u64,
    /// The longest time that an append waits for the disk.
    pub deadline: Duration,
    /// Whether closed segments are compressed.
    pub pack: bool,
    /// How long records are kept; `None` for ever.
    pub retain: Option<Duration>,
}

impl Config {
    /// The values of a log that nobody configured further: fsync, the key beside the log, 64 MiB segments of which
    /// refusals may fill an eighth, each no older than a day and none packed or removed, a checkpoint each minute or 10,000
    /// records, 20 refusals a second, 1,024 appends waiting for up to 5 s, 8 MiB of room.
    pub fn in_directory(directory: impl Into<PathBuf>) -> Self {
        let directory = directory.into();
        Self {
            durability: Durability::Fsync,
            signing_key: directory.join("signing.key"),
            directory,
            checkpoint_interval: Duration::from_secs(60),
            checkpoint_records: 10_000,
            segment_bytes: 64 * 1024 * 1024,
            refusals_per_second: 20,
            refusal_bytes: 8 * 1024 * 1024,
            queue: 1024,
            segment_age: Duration::from_secs(24 * 60 * 60),
            room: 8 * 1024 * 1024,
            deadline: Duration::from_secs(5),
            pack: false,
            retain: None,
        }
    }
}

/// A log that cannot be opened, read or verified.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// Another process writes there.
    #[error("the audit log in {} is in use by another process: give each gateway a directory of its own", .0.display())]
    InUse(PathBuf),
    /// A file or directory.
    #[error("cannot {doing} {}: {source}", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// A key file.
    #[error("{} cannot be used: {problem}", file.display())]
    Key {
        /// Which.
        file: PathBuf,
        /// Why not.
        problem: KeyProblem,
    },
    /// There is no log to read.
    #[error("there is no audit log in {}", .0.display())]
    NoLog(PathBuf),
    /// The log was damaged or changed.
    #[error("{0}: the audit log was damaged or changed; keep it as evidence and start the gateway in a new directory")]
    Damaged(#[from] Damage),
    /// A file of the log was removed or replaced while the journal was open.
    #[error("{} is gone: put it back, or start the gateway with a new directory", .0.display())]
    Gone(PathBuf),
    /// A file of the log was written to by somebody else while the journal was open.
    #[error("{} was changed by another program: restore it, or start the gateway with a new directory", .0.display())]
    Changed(PathBuf),
    /// The disk is full, or nearly.
    #[error(
        "the disk has no room for {}: requests are refused, and outcomes of writes that have begun still fit; free some space",
        .0.display()
    )]
    Full(PathBuf),
    /// The disk does not answer.
    #[error("the disk of the audit log has not answered for {} s", .0.as_secs())]
    Hung(Duration),
    /// The segment failed before.
    #[error("segment {0} of the audit log has failed")]
    Shut(u64),
    /// A reader cannot leave a note of its reading.
    #[error("reading the audit log is recorded, and a note of it cannot be left in {}: {source}; have its owner let you write there, or read a copy", place.display())]
    Unnoted {
        /// Where.
        place: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A record is longer than a line may be.
    #[error("the record is longer than a line of the audit log may be")]
    TooLong,
    /// The signing key cannot sign.
    #[error("the signing key cannot sign")]
    Sign,
    /// The writer's thread.
    #[error("cannot start the audit writer: {0}")]
    Thread(io::Error),
}

impl AuditError {
    pub(super) fn at(file: &Path, doing: &'static str, source: io::Error) -> Self {
        Self::File { file: file.to_owned(), doing, source }
    }
}

/// A record that was not written: the act it stands for must not happen, or its answer must not leave.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Unavailable {
    /// The log cannot be written at the moment.
    #[error("the audit log cannot be written: {0}")]
    Failed(Arc<AuditError>),
    /// The journal was closed.
    #[error("the audit log is closed")]
    Closed,
    /// The record is longer than a line may be.
    #[error("the record is longer than a line of the audit log may be")]
    TooLong,
}

/// The log, open for writing. Shared by reference (or in an `Arc`); every method takes `&self`.
#[derive(Debug)]
pub struct Journal {
    messages: mpsc::Sender<Message>,
    /// Rings a last time when the journal is dropped: a writer that nobody can reach any more ends. It stands after `messages`,
    /// which must be gone by then.
    bell: Ring,
    deadline: Duration,
    anchors: Arc<Anchors>,
    refusals: Arc<Refusals>,
    shared: Arc<Shared>,
    closed: watch::Receiver<Option<Result<(), Unavailable>>>,
    clock: Clock,
}

impl Journal {
    /// Opens the log in `config.directory`, making it when absent. An unfinished last line is cut; intents that never had
    /// an outcome get a `recovered` record; any other damage refuses the start. Each checkpoint goes to `anchors`.
    pub fn open(config: Config, anchors: Anchors, clock: Clock) -> Result<Self, AuditError> {
        let directory = config.directory.clone();
        std::fs::create_dir_all(&directory)
            .map_err(|source| AuditError::at(&directory, "make the directory", source))?;
        let lock = lock(&directory)?;
        let key = SigningKey::load_or_make(&config.signing_key)?;
        let keys = publish(&directory, key.public())?;
        let found = recover::recover(&directory, &keys)?;

        let refusals = Arc::new(Refusals::new(config.refusals_per_second, clock.now()));
        let shared = Arc::new(Shared::default());
        let (messages, inbox) = mpsc::channel(config.queue.max(1));
        let bell = Arc::<Bell>::default();
        let (done, closed) = watch::channel(None);
        let (deadline, anchors) = (config.deadline, Arc::new(anchors));
        let parts = Parts {
            config,
            clock: clock.clone(),
            key,
            keys,
            lock,
            refusals: Arc::clone(&refusals),
            shared: Arc::clone(&shared),
            anchors: Arc::clone(&anchors),
        };
        let writer = Writer::open(parts, found)?;
        std::thread::Builder::new()
            .name("audit".into())
            .spawn({
                let bell = Arc::clone(&bell);
                move || {
                    done.send_replace(Some(writer.run(inbox, &bell)));
                }
            })
            .map_err(AuditError::Thread)?;
        let bell = Ring(bell);
        Ok(Self { messages, bell, deadline, anchors, refusals, shared, closed, clock })
    }

    /// Writes a record and resolves when it is as durable as the configuration wants; an error when it is not within the
    /// deadline. A caller that stops waiting does not unwrite the record.
    pub async fn append(&self, entry: impl Into<Box<Entry>>) -> Result<Sequence, Unavailable> {
        let (waiter, waiting) = reply::waiter();
        let message = Message::Append(Append { entry: entry.into(), time: self.clock.now(), waiter });
        if let Some(hung) = self.hung() {
            // It is left with the writer all the same, which then knows what nobody waited for.
            drop(waiting);
            let _ = self.messages.try_send(message);
            return Err(Unavailable::Failed(Arc::new(hung)));
        }
        let append = pin!(async {
            self.messages.send(message).await.map_err(|_| Unavailable::Closed)?;
            self.bell.0.ring_for_all().await;
            waiting.written().await
        });
        let hung = || Unavailable::Failed(Arc::new(AuditError::Hung(self.deadline)));
        timeout(self.deadline, append).await.unwrap_or_else(|_| Err(hung()))
    }

    /// Whether the writer has been at the disk for longer than anyone waits.
    fn hung(&self) -> Option<AuditError> {
        let busy = self.shared.busy_for();
        (busy >= self.deadline).then_some(AuditError::Hung(busy))
    }

    /// Takes note of a request refused before an identity is known. Never waits: it is written with the next commit,
    /// within a second, unless too many come; then it is counted.
    pub fn refuse(&self, entry: Entry) {
        self.refusals.offer(entry, self.clock.now());
    }

    /// Whether the log can be written, for `/readyz`.
    pub fn status(&self) -> Status {
        let mut status = Status { anchors: self.anchors.status(), ..self.shared.status() };
        if let Some(hung) = self.hung() {
            let busy = i64::try_from(self.shared.busy_for().as_millis()).unwrap_or(i64::MAX);
            let since = Timestamp::from_millis(self.clock.now().as_millis().saturating_sub(busy));
            status.health = Health::Failed { since, error: Arc::new(hung) };
        }
        status
    }

    /// Sends checkpoints to the anchors until dropped. The server owns it.
    pub async fn keep_anchored(&self) {
        self.anchors.run().await;
    }

    /// Sends what the anchors do not have yet, the last checkpoint above all. To be called after [`Journal::close`].
    pub async fn finish_anchoring(&self) {
        self.anchors.finish(LAST_ANCHORING).await;
    }

    /// What was written so far, for metrics.
    pub fn counters(&self) -> Counters {
        self.shared.counters()
    }

    /// Appends that wait for the writer.
    pub fn waiting(&self) -> usize {
        self.messages.max_capacity() - self.messages.capacity()
    }

    /// Writes what waits, signs a last checkpoint and ends the writer. Later calls wait for the same end.
    pub async fn close(&self) -> Result<(), Unavailable> {
        // A writer that is gone has closed already, or died: the watch tells which.
        let close = async {
            let _ = self.messages.send(Message::Close).await;
            self.bell.0.ring();
            let mut closed = self.closed.clone();
            match closed.wait_for(Option::is_some).await {
                Ok(result) => result.clone().unwrap_or(Err(Unavailable::Closed)),
                Err(_) => Err(Unavailable::Closed),
            }
        };
        let hung = || Unavailable::Failed(Arc::new(AuditError::Hung(LAST_WRITE)));
        timeout(LAST_WRITE, close).await.unwrap_or_else(|_| Err(hung()))
    }
}

/// Takes the directory for this process; the lock ends with the file.
pub(super) fn lock(directory: &Path) -> Result<File, AuditError> {
    let path = directory.join(LOCK);
    let open = File::options().create(true).truncate(false).write(true).open(&path);
    let file = open.map_err(|source| AuditError::at(&path, "open", source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(AuditError::InUse(directory.to_owned())),
        Err(std::fs::TryLockError::Error(source)) => Err(AuditError::at(&path, "lock", source)),
    }
}

/// Puts the public key beside the log, after those of earlier signing keys, and gives them all.
fn publish(directory: &Path, public: PublicKey) -> Result<Vec<PublicKey>, AuditError> {
    let path = directory.join(PUBLIC_KEY);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(source) => return Err(AuditError::at(&path, "read", source)),
    };
    let mut keys = Vec::new();
    if !text.is_empty() {
        keys = key::read_public_keys(&text).map_err(|problem| AuditError::Key { file: path.clone(), problem })?;
    }
    if keys.contains(&public) {
        return Ok(keys);
    }
    keys.push(public);
    // Written beside and renamed, so that a crash leaves the old keys or the new ones and never half a file.
    let fresh = directory.join("checkpoint.pub.new");
    let pem: String = keys.iter().map(|key| key.to_pem()).collect();
    let written = std::fs::write(&fresh, pem)
        .and_then(|()| File::open(&fresh)?.sync_all())
        .and_then(|()| std::fs::rename(&fresh, &path))
        .and_then(|()| recover::sync_directory(directory));
    written.map_err(|source| AuditError::at(&path, "write", source))?;
    Ok(keys)
}
