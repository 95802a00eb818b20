//! Where checkpoints are sent so that the owner of the log's host cannot take them back.
//!
//! A checkpoint kept elsewhere is all it takes to see a log that was cut back or written anew (`verify`, with `--anchor`). So
//! each one that is signed goes to every anchor, in order. Nothing waits for it: an anchor that cannot be reached costs no
//! request, but the gateway says that it is degraded, and tries again with growing pauses. What waits is bounded, and
//! what is given up first is the oldest, since a later checkpoint says all that an earlier one did.

mod cosmos;
mod file;
mod s3;
mod webhook;

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{sync::Notify, time::timeout};
use url::Url;

use self::{cosmos::CosmosAnchor, file::FileAnchor, s3::S3Anchor, webhook::WebhookAnchor};
use super::chain::Head;
use crate::{
    clock::{Clock, Timestamp},
    secret::{AccountKeyReader, Secret},
    transport::{Transport, TransportError},
};

pub use cosmos::CosmosAnchorError;

/// Checkpoints that may wait for one anchor.
const WAITING: usize = 256;
/// How long one try may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pauses between tries grow from the first to the last of these.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

/// One place where checkpoints are kept.
#[derive(Clone, Debug)]
pub enum AnchorConfig {
    /// A directory, on another disk or mount.
    File {
        /// The directory.
        path: PathBuf,
    },
    /// A bucket of S3 or of something that speaks as S3 does.
    S3 {
        /// The bucket.
        bucket: String,
        /// What every key begins with.
        prefix: String,
        /// The region, if not the one that every AWS tool takes.
        region: Option<String>,
        /// The address, if not S3's own; then the bucket is part of the path.
        endpoint: Option<Url>,
        /// How long the bucket must keep each checkpoint from everybody (object lock in compliance mode).
        retain: Option<Duration>,
    },
    /// A container of Cosmos DB whose partition key is `/id`.
    Cosmos {
        /// The account.
        endpoint: Url,
        /// The database.
        database: String,
        /// The container.
        container: String,
    },
    /// An address that takes each checkpoint as the body of a POST.
    Webhook {
        /// The address.
        url: Url,
        /// The value of the header `authorization`.
        authorization: Option<Secret>,
    },
}

/// What anchors need of the rooms around them.
#[derive(Clone, Debug)]
pub struct Means {
    /// For webhooks and S3.
    pub transport: Transport,
    /// For Cosmos DB.
    pub account_key: AccountKeyReader,
}

/// A checkpoint on its way.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Checkpoint {
    size: u64,
    /// The root of the tree, in hexadecimal: with the size it names the checkpoint, in whichever log.
    root: String,
    note: Arc<str>,
    signed: Timestamp,
}

impl Checkpoint {
    /// A name that sorts by size, and that no other checkpoint has.
    fn name(&self) -> String {
        let root = self.root.get(..16).unwrap_or(&self.root);
        format!("{:020}-{root}", self.size)
    }
}

/// A try that failed.
#[derive(Debug, thiserror::Error)]
pub enum AnchorError {
    /// A file or directory.
    #[error("cannot write {}: {source}", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The other side, or the way there.
    #[error("{to}: {source}")]
    Unreachable {
        /// Whither.
        to: String,
        /// Why not.
        source: TransportError,
    },
    /// The other side refused it.
    #[error("{to} answers {status}: {detail}")]
    Refused {
        /// Whither.
        to: String,
        /// The HTTP status.
        status: u16,
        /// What it said.
        detail: String,
    },
    /// The request cannot be made.
    #[error("the request to {0} cannot be made")]
    Request(String),
    /// AWS credentials.
    #[error("no AWS credentials for the bucket {0}: set them as for every AWS tool")]
    Credentials(String),
    /// AWS region.
    #[error("no AWS region for the bucket {0}: set `region` or AWS_REGION")]
    Region(String),
    /// The container.
    #[error(transparent)]
    Cosmos(#[from] CosmosAnchorError),
    /// No answer in time.
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Deadline,
}

/// How an anchor stands, for `/readyz`, `/status` and metrics.
#[derive(Clone, Debug)]
pub struct AnchorStatus {
    /// `file`, `s3`, `cosmos` or `webhook`, and where.
    pub name: String,
    /// Checkpoints it has taken since the start.
    pub anchored: u64,
    /// Tries that failed since the start.
    pub failures: u64,
    /// Checkpoints given up because too many waited.
    pub dropped: u64,
    /// Checkpoints that wait.
    pub waiting: usize,
    /// The records that the newest anchored checkpoint signs.
    pub size: Option<u64>,
    /// Since when it cannot be reached, and why not.
    pub trouble: Option<(Timestamp, Arc<AnchorError>)>,
}

/// All anchors of a log.
#[derive(Debug, Default)]
pub struct Anchors(Vec<Anchor>);

#[derive(Debug)]
struct Anchor {
    sink: tokio::sync::Mutex<Sink>,
    queue: Mutex<Queue>,
    offered: Notify,
    clock: Clock,
}

#[derive(Debug)]
struct Queue {
    waiting: VecDeque<Checkpoint>,
    status: AnchorStatus,
}

#[derive(Debug)]
enum Sink {
    File(FileAnchor),
    S3(Box<S3Anchor>),
    Cosmos(Box<CosmosAnchor>),
    Webhook(Box<WebhookAnchor>),
}

impl Anchors {
    /// The anchors of these places. None by `Anchors::default()`.
    pub fn new(configs: Vec<AnchorConfig>, means: &Means, clock: &Clock) -> Self {
        let mut anchors: Vec<Anchor> = Vec::with_capacity(configs.len());
        for config in configs {
            let anchor = Anchor::new(config, means, clock.clone());
            let name = anchor.status().name;
            let namesakes = anchors.iter().filter(|other| other.status().name.starts_with(&name)).count();
            if namesakes > 0 {
                // Metrics and people tell them apart by their place in the configuration.
                anchor.queue().status.name = format!("{name} ({})", namesakes + 1);
            }
            anchors.push(anchor);
        }
        Self(anchors)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes a checkpoint that was signed. Never waits.
    pub(super) fn offer(&self, head: &Head, note: &str, signed: Timestamp) {
        let note: Arc<str> = note.strip_suffix('\n').unwrap_or(note).into();
        let checkpoint = Checkpoint { size: head.records(), root: head.tree.root().to_string(), note, signed };
        for anchor in &self.0 {
            anchor.offer(checkpoint.clone());
        }
    }

    /// Sends what is offered, until dropped.
    pub(super) async fn run(&self) {
        join_all(self.0.iter().map(Anchor::run)).await;
    }

    /// Sends what still waits, for at most `longest`; what fails once is not tried again.
    pub(super) async fn finish(&self, longest: Duration) {
        // What is left then is said by each anchor's status, and by the log.
        let _ = timeout(longest, join_all(self.0.iter().map(Anchor::finish))).await;
    }

    pub(super) fn status(&self) -> Vec<AnchorStatus> {
        self.0.iter().map(Anchor::status).collect()
    }
}

impl Anchor {
    fn new(config: AnchorConfig, means: &Means, clock: Clock) -> Self {
        let (name, sink) = match config {
            AnchorConfig::File { path } => (format!("file {}", path.display()), Sink::File(FileAnchor::new(path))),
            AnchorConfig::S3 { bucket, prefix, region, endpoint, retain } => {
                let name = format!("s3 {bucket}/{prefix}");
                let transport = means.transport.clone();
                let anchor = S3Anchor::new(transport, bucket, prefix, region, endpoint, retain, clock.clone());
                (name, Sink::S3(Box::new(anchor)))
            }
            AnchorConfig::Cosmos { endpoint, database, container } => {
                let name = format!("cosmos {database}/{container}");
                let anchor = CosmosAnchor::new(endpoint, database, container, means.account_key.clone());
                (name, Sink::Cosmos(Box::new(anchor)))
            }
            AnchorConfig::Webhook { url, authorization } => {
                let host = url.host_str().unwrap_or_default();
                let name = format!("webhook {host}");
                (name, Sink::Webhook(Box::new(WebhookAnchor::new(means.transport.clone(), url, authorization))))
            }
        };
        let status = AnchorStatus { name, anchored: 0, failures: 0, dropped: 0, waiting: 0, size: None, trouble: None };
        let queue = Mutex::new(Queue { waiting: VecDeque::new(), status });
        Self { sink: tokio::sync::Mutex::new(sink), queue, offered: Notify::new(), clock }
    }

    fn offer(&self, checkpoint: Checkpoint) {
        let mut queue = self.queue();
        queue.waiting.push_back(checkpoint);
        while queue.waiting.len() > WAITING {
            queue.waiting.pop_front();
            queue.status.dropped += 1;
        }
        drop(queue);
        self.offered.notify_one();
    }

    async fn run(&self) {
        let mut pause = PAUSES.0;
        loop {
            let Some(next) = self.next() else {
                self.offered.notified().await;
                continue;
            };
            if self.send(next).await {
                pause = PAUSES.0;
            } else {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSES.1);
            }
        }
    }

    async fn finish(&self) {
        while let Some(next) = self.next() {
            if !self.send(next).await {
                return;
            }
        }
    }

    fn next(&self) -> Option<Checkpoint> {
        self.queue().waiting.front().cloned()
    }

    /// Tries once, and says whether that went well.
    async fn send(&self, checkpoint: Checkpoint) -> bool {
        let sent = async { self.sink.lock().await.send(&checkpoint).await };
        let sent = timeout(PATIENCE, sent).await.unwrap_or(Err(AnchorError::Deadline));
        let now = self.clock.now();
        let mut queue = self.queue();
        match sent {
            Ok(()) => {
                if queue.waiting.front() == Some(&checkpoint) {
                    queue.waiting.pop_front();
                }
                if queue.status.trouble.take().is_some() {
                    tracing::info!(anchor = queue.status.name, "checkpoints of the audit log are anchored again");
                }
                queue.status.anchored += 1;
                queue.status.size = Some(checkpoint.size);
                true
            }
            Err(error) => {
                if queue.status.trouble.is_none() {
                    tracing::error!(anchor = queue.status.name, %error, "checkpoints of the audit log are not anchored");
                }
                let since = queue.status.trouble.as_ref().map_or(now, |(since, _)| *since);
                queue.status.failures += 1;
                queue.status.trouble = Some((since, Arc::new(error)));
                false
            }
        }
    }

    fn status(&self) -> AnchorStatus {
        let queue = self.queue();
        AnchorStatus { waiting: queue.waiting.len(), ..queue.status.clone() }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Every change under the lock is complete before anything could panic.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink {
    async fn send(&mut self, checkpoint: &Checkpoint) -> Result<(), AnchorError> {
        match self {
            Self::File(file) => file.send(checkpoint).await,
            Self::S3(s3) => s3.send(checkpoint).await,
            Self::Cosmos(cosmos) => cosmos.send(checkpoint).await,
            Self::Webhook(webhook) => webhook.send(checkpoint).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{chain::Hash, checkpoint, key::SigningKey};

    fn head(size: u8) -> Head {
        let mut head = Head::genesis();
        (0..size).for_each(|n| head.advance(Hash::from_bytes([n; 32])));
        head
    }

    fn anchors(path: PathBuf) -> Anchors {
        let means = Means {
            transport: Transport::new(None).unwrap(),
            account_key: AccountKeyReader::new(|_| Box::pin(async { Err("none".into()) })),
        };
        Anchors::new(vec![AnchorConfig::File { path }], &means, &Clock::System)
    }

    #[tokio::test]
    async fn what_waits_is_bounded_and_the_newest_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let blocked = directory.path().join("anchor");
        std::fs::write(&blocked, "a file where a directory belongs").unwrap();
        let anchors = anchors(blocked.clone());
        let key = SigningKey::load_or_make(&directory.path().join("key")).unwrap();
        for n in 0..=255_u8 {
            let head = head(n);
            let note = checkpoint::sign(&head, Timestamp::from_millis(0), &key).unwrap();
            anchors.offer(&head, &note, Timestamp::from_millis(0));
        }
        anchors.offer(&head(255), "one more\n", Timestamp::from_millis(1));
        anchors.finish(Duration::from_secs(5)).await;
        let status = anchors.status().remove(0);
        assert_eq!((status.anchored, status.failures, status.dropped, status.waiting), (0, 1, 1, WAITING));
        assert!(status.trouble.unwrap().1.to_string().contains("anchor"));

        std::fs::remove_file(&blocked).unwrap();
        anchors.finish(Duration::from_secs(5)).await;
        let status = anchors.status().remove(0);
        assert_eq!((status.anchored, status.waiting, status.size), (256, 0, Some(255)));
        assert!(status.trouble.is_none());
    }
}
