//! The account key in use, and how the ring comes to another.
//!
//! [`Keyring::keep_fresh`] reads the source at intervals and when its file changes; a request never waits for that. Only when
//! Cosmos refuses the key at hand is the source searched within a request, at most every half second however many ask, and
//! then everywhere a key may stand in the middle of a rotation. Where none is found the request waits a while for one: whoever
//! rotates a key changes the account and the source one after the other, and a workflow should not see the gap.
//!
//! A key that Cosmos refused is not tried again before ten minutes have passed, unless there is no other. A source that cannot
//! be read leaves the key in use: Cosmos decides whether it is still good.

use std::{
    future::pending,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use aws_lc_rs::rand;
use moka::{
    future::Cache,
    ops::compute::{CompResult, Op},
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};

use super::{
    account_key::{AccountKey, Found, KeyError, KeySource, Position, Search},
    secrets_manager::SecretsManager,
    watch::FileWatch,
};
use crate::clock::{Clock, Timestamp};

/// How often the source is searched for a key that Cosmos takes, however many ask; and how long a failure to read the first
/// key answers for those after it.
const PAUSE: Duration = Duration::from_millis(500);
/// How often it is searched once that has been in vain for a while.
const LONG_PAUSE: Duration = Duration::from_secs(1);
const A_WHILE: Duration = Duration::from_secs(30);
/// How long requests wait for a key, counted from when Cosmos refused the last that was known. After that each waits for one
/// search.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a key that Cosmos refused is not preferred again where another is taken.
const REFUSED_FOR: Duration = Duration::from_secs(600);
/// When it is tried again where there is no other: the account may be behind its own rotation.
const TRIED_AGAIN: Duration = Duration::from_secs(2);
/// How soon a source is read again that could not be read.
const RETRY: Duration = Duration::from_secs(10);

/// The account key and its source.
#[derive(Debug)]
pub(super) struct Keyring {
    source: KeySource,
    aws: SecretsManager,
    clock: Clock,
    /// One entry: moka lets one caller read while the others wait for what it finds.
    ring: Cache<(), Ring>,
    /// Counts the changes of what the ring holds and uses; whoever waits for another key hears of them.
    turns: watch::Sender<u64>,
    /// Rung when Cosmos has refused all there is.
    exhausted: Notify,
    /// Whether Cosmos has refused the key in use, as far as is known.
    in_doubt: AtomicBool,
    trouble: ArcSwapOption<Trouble>,
}

/// What has been found, and which of it is used.
#[derive(Clone, Debug)]
struct Ring {
    found: Arc<[Found]>,
    in_use: Found,
    since: Timestamp,
    read: Timestamp,
    /// When the source was last searched everywhere.
    searched: Option<Instant>,
    /// The keys that Cosmos refused, and when.
    refused: Vec<(Arc<AccountKey>, Instant)>,
    /// Since when Cosmos has refused every key there is.
    exhausted: Option<Instant>,
}

#[derive(Debug)]
struct Trouble {
    at: Instant,
    told: KeyTrouble,
}

/// The last reading of the source that failed.
#[derive(Clone, Debug)]
pub struct KeyTrouble {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub error: KeyError,
}

/// How the account key stands. Nothing here is derived from the key itself.
#[derive(Clone, Debug)]
pub struct KeyStatus {
    /// `file`, `env` or `aws_secrets_manager`.
    pub source: &'static str,
    /// Where the key in use was found; `None` before the first was read.
    pub position: Option<Position>,
    /// Since when the key in use is in use.
    pub since: Option<Timestamp>,
    /// When the source was last read.
    pub read: Option<Timestamp>,
    /// Whether Cosmos has refused every key there is.
    pub exhausted: bool,
    /// The last failure to read the source, unless a later reading succeeded.
    pub last_error: Option<KeyTrouble>,
}

impl Keyring {
    pub(super) fn new(source: KeySource, clock: Clock) -> Self {
        Self {
            source,
            aws: SecretsManager::default(),
            clock,
            ring: Cache::new(1),
            turns: watch::Sender::default(),
            exhausted: Notify::new(),
            in_doubt: AtomicBool::new(false),
            trouble: ArcSwapOption::empty(),
        }
    }

    /// The key to sign with.
    pub(super) async fn current(&self) -> Result<Arc<AccountKey>, KeyError> {
        if let Some(ring) = self.ring.get(&()).await {
            return Ok(ring.in_use.key);
        }
        let read = self.turn(async |ring| match (ring, self.recent_trouble()) {
            (Some(_), _) => Ok(None),
            (None, Some(error)) => Err(error),
            (None, None) => self.read(None, Search::Usual).await.map(Some),
        });
        Ok(read.await?.in_use.key)
    }

    /// The key to sign with after Cosmos refused `refused`: another that stands in the source, or comes to stand there before
    /// `until` and before patience ends. `None` when there is none.
    pub(super) async fn another(&self, refused: &AccountKey, until: Instant) -> Option<Arc<AccountKey>> {
        let mut turns = self.turns.subscribe();
        let began = Instant::now();
        let mut refused_now = Some(began);
        loop {
            turns.borrow_and_update();
            let ring = self.search(refused, refused_now.take()).await.ok()?;
            if !ring.in_use.key.matches(refused) {
                return Some(ring.in_use.key);
            }
            let patience = ring.exhausted.map_or(until, |since| until.min(since + PATIENCE));
            let looked = ring.searched.is_some_and(|at| at >= began);
            if Instant::now() + PAUSE > if looked { patience } else { until } {
                return None;
            }
            // Running out of it leads to the next search.
            let _ = timeout(PAUSE, turns.changed()).await;
        }
    }

    /// Hears that Cosmos took `key`.
    pub(super) async fn accepted(&self, key: &AccountKey) {
        if !self.in_doubt.load(Ordering::Relaxed) {
            return;
        }
        let cleared = self.turn(async |ring| Ok(ring.and_then(|ring| ring.accepting(key))));
        // Without a ring nothing is in doubt.
        let _ = cleared.await;
    }

    /// Counts the changes of what the ring holds and uses: a failure from before the last says nothing any more.
    pub(super) fn turns(&self) -> u64 {
        *self.turns.borrow()
    }

    /// Reads the source now, and tries again what Cosmos refused.
    pub(super) async fn reload(&self) -> Result<(), KeyError> {
        self.turn(async |ring| {
            let ring = ring.map(|ring| Ring { refused: Vec::new(), ..ring });
            self.read(ring, Search::Usual).await.map(Some)
        })
        .await
        .map(drop)
    }

    /// Reads the source at intervals, when its file changes, and again and again while Cosmos takes no key; until dropped.
    pub(super) async fn keep_fresh(&self) {
        let Some(refresh) = self.source.refresh() else { return pending().await };
        let mut watch = match &self.source {
            KeySource::File { path, .. } => Some(FileWatch::new(path)),
            _ => None,
        };
        loop {
            let changed = async {
                match &mut watch {
                    Some(watch) => watch.changed().await,
                    None => pending().await,
                }
            };
            let exhausted = pin!(self.exhausted.notified());
            let ring = self.refresh().await;
            tokio::select! {
                () = tokio::time::sleep(self.rest(ring.as_ref(), refresh)) => {}
                () = changed => {}
                () = exhausted => {}
            }
        }
    }

    pub(super) async fn status(&self) -> KeyStatus {
        let ring = self.ring.get(&()).await;
        KeyStatus {
            source: self.source.kind(),
            position: ring.as_ref().map(|ring| ring.in_use.at.clone()),
            since: ring.as_ref().map(|ring| ring.since),
            read: ring.as_ref().map(|ring| ring.read),
            exhausted: ring.is_some_and(|ring| ring.exhausted.is_some()),
            last_error: self.trouble.load().as_ref().map(|trouble| trouble.told.clone()),
        }
    }

    /// Reads the source as it is to be read at an interval; gives the ring as it is then.
    async fn refresh(&self) -> Option<Ring> {
        let read = self.turn(async |ring| {
            let search = match &ring {
                Some(Ring { exhausted: Some(_), .. }) => Search::Everywhere,
                _ => Search::Usual,
            };
            self.read(ring, search).await.map(Some)
        });
        match read.await {
            Ok(ring) => Some(ring),
            Err(_) => self.ring.get(&()).await,
        }
    }

    /// How long until the next reading. Replicas that started together must not go on together, so it is up to a tenth less.
    fn rest(&self, ring: Option<&Ring>, refresh: Duration) -> Duration {
        let whole = match ring.and_then(|ring| ring.exhausted) {
            Some(since) if since.elapsed() < A_WHILE => PAUSE,
            Some(_) => LONG_PAUSE,
            None if self.trouble.load().is_some() => refresh.min(RETRY),
            None => refresh,
        };
        let mut random = [0];
        // Without randomness all replicas ask together, and no harm is done otherwise.
        let _ = rand::fill(&mut random);
        let [random] = random;
        whole - (whole / 10).mul_f64(f64::from(random) / 255.0)
    }

    /// The ring after a search for another key than `refused`, unless one was found by then. `refused_now`: Cosmos refused it
    /// just now.
    async fn search(&self, refused: &AccountKey, refused_now: Option<Instant>) -> Result<Ring, KeyError> {
        self.turn(async |ring| {
            let Some(ring) = ring.filter(|ring| ring.in_use.key.matches(refused)) else { return Ok(None) };
            let ring = match refused_now {
                Some(at) => ring.refusing(at),
                None => ring,
            };
            if ring.searched.is_some_and(|at| at.elapsed() < PAUSE) {
                return Ok(Some(ring.choosing(self.clock.now())));
            }
            // What a failed search leaves is chosen from all the same.
            Ok(Some(match self.read(Some(ring.clone()), Search::Everywhere).await {
                Ok(ring) => ring,
                Err(_) => Ring { searched: Some(Instant::now()), ..ring }.choosing(self.clock.now()),
            }))
        })
        .await
    }

    /// Reads the source, and gives what becomes of `ring` by it.
    async fn read(&self, ring: Option<Ring>, search: Search) -> Result<Ring, KeyError> {
        let found = match self.source.read(&self.aws, search).await {
            Ok(found) => found,
            Err(error) => {
                self.note(&error);
                return Err(error);
            }
        };
        if self.trouble.swap(None).is_some() {
            tracing::info!(source = %self.source, "the account key could be read again");
        }
        let now = self.clock.now();
        let searched = (search == Search::Everywhere).then(Instant::now);
        // A source never gives none.
        let first = found.first().cloned().ok_or_else(|| KeyError::NotAKey { place: self.source.to_string() })?;
        let found: Arc<[Found]> = found.into();
        Ok(match ring {
            None => {
                let (refused, exhausted) = (Vec::new(), None);
                Ring { found, in_use: first, since: now, read: now, searched, refused, exhausted }
            }
            Some(ring) => {
                let searched = searched.or(ring.searched);
                Ring { found, read: now, searched, ..ring }.choosing(now)
            }
        })
    }

    /// Lets `change` make another ring of the one there is, one caller at a time, and tells whoever has to know. `None` from
    /// it leaves the ring as it is.
    async fn turn(
        &self,
        change: impl AsyncFnOnce(Option<Ring>) -> Result<Option<Ring>, KeyError>,
    ) -> Result<Ring, KeyError> {
        let turned = self.ring.entry(()).and_try_compute_with(async |entry| {
            let before = entry.map(moka::Entry::into_value);
            let after = change(before.clone()).await?;
            Ok::<_, KeyError>(match after {
                None => Op::Nop,
                Some(after) => {
                    self.tell(before.as_ref(), &after);
                    Op::Put(after)
                }
            })
        });
        match turned.await? {
            CompResult::Inserted(entry) | CompResult::ReplacedWith(entry) | CompResult::Unchanged(entry) => {
                Ok(entry.into_value())
            }
            // Only a nop on an empty ring comes here.
            _ => Err(KeyError::NotAKey { place: self.source.to_string() }),
        }
    }

    fn tell(&self, before: Option<&Ring>, after: &Ring) {
        self.in_doubt.store(after.is_in_doubt(), Ordering::Relaxed);
        let another_in_use = before.is_none_or(|before| !before.in_use.key.matches(&after.in_use.key));
        if another_in_use || before.is_some_and(|before| before.in_use.at != after.in_use.at) {
            let version = after.in_use.at.version.as_deref();
            tracing::info!(source = %self.source, position = %after.in_use.at, version, "account key in use");
        }
        let holds = |ring: &Ring, key: &AccountKey| ring.found.iter().any(|found| found.key.matches(key));
        let another_found = before.is_some_and(|before| after.found.iter().any(|found| !holds(before, &found.key)));
        if another_in_use || another_found {
            self.turns.send_modify(|turns| *turns += 1);
        }
        if after.exhausted.is_some() && before.is_some_and(|before| before.exhausted.is_none()) {
            tracing::warn!(source = %self.source, "Cosmos refuses every account key there is; looking for another");
            self.exhausted.notify_one();
        }
    }

    fn note(&self, error: &KeyError) {
        tracing::warn!(%error, "the account key could not be read");
        let told = KeyTrouble { at: self.clock.now(), error: error.clone() };
        self.trouble.store(Some(Arc::new(Trouble { at: Instant::now(), told })));
    }

    fn recent_trouble(&self) -> Option<KeyError> {
        let trouble = self.trouble.load_full()?;
        (trouble.at.elapsed() < PAUSE).then(|| trouble.told.error.clone())
    }
}

impl Ring {
    /// When `key` was last refused, if that still counts.
    fn refused(&self, key: &AccountKey) -> Option<Instant> {
        let (_, at) = self.refused.iter().find(|(refused, _)| refused.matches(key))?;
        (at.elapsed() < REFUSED_FOR).then_some(*at)
    }

    fn is_in_doubt(&self) -> bool {
        self.exhausted.is_some() || self.refused(&self.in_use.key).is_some()
    }

    /// With the key in use refused at `at`.
    fn refusing(mut self, at: Instant) -> Self {
        let key = Arc::clone(&self.in_use.key);
        // What is found no more is forgotten, so there are never more than the source can hold.
        self.refused
            .retain(|(refused, _)| !refused.matches(&key) && self.found.iter().any(|found| found.key.matches(refused)));
        self.refused.push((key, at));
        self
    }

    /// With `key` accepted; `None` where that is no news.
    fn accepting(mut self, key: &AccountKey) -> Option<Self> {
        self.refused(key)?;
        self.refused.retain(|(refused, _)| !refused.matches(key));
        if self.in_use.key.matches(key) {
            self.exhausted = None;
        }
        Some(self)
    }

    /// With the first key in use that Cosmos has not refused; where it refused all, with the one whose refusal is the oldest,
    /// once it is old enough for another try.
    fn choosing(mut self, now: Timestamp) -> Self {
        let first = self.found.iter().find(|found| self.refused(&found.key).is_none()).cloned();
        let chosen = first.clone().or_else(|| {
            let refused = self.found.iter().filter_map(|found| Some((self.refused(&found.key)?, found)));
            let (_, oldest) = refused.filter(|(at, _)| at.elapsed() >= TRIED_AGAIN).min_by_key(|(at, _)| *at)?;
            Some(oldest.clone())
        });
        if first.is_some() || self.refused(&self.in_use.key).is_none() {
            self.exhausted = None;
        } else {
            self.exhausted = self.exhausted.or_else(|| Some(Instant::now()));
        }
        if let Some(chosen) = chosen {
            if !chosen.key.matches(&self.in_use.key) {
                self.since = now;
            }
            self.in_use = chosen;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, fs, sync::Mutex};

    use http::StatusCode;

    use super::*;
    use crate::{
        clock::ManualClock,
        exchange::{
            scripted::{Reply, Scripted},
            secrets_manager::Stage,
        },
    };

    fn key(text: &str) -> AccountKey {
        AccountKey::from_base64(text).unwrap()
    }

    fn keyring(source: KeySource) -> Keyring {
        Keyring::new(source, Clock::Manual(ManualClock::new(Timestamp::from_secs(1_000))))
    }

    fn file(path: &std::path::Path) -> Keyring {
        keyring(KeySource::File { path: path.to_owned(), field: None })
    }

    /// Asks for another key, and does not wait for one to come.
    async fn another(keyring: &Keyring, refused: &str) -> Option<Arc<AccountKey>> {
        keyring.another(&key(refused), Instant::now()).await
    }

    /// The versions of a secret by stage, changed by hand; and the stages that were asked for.
    #[derive(Clone, Default)]
    struct Aws {
        versions: Arc<Mutex<HashMap<&'static str, String>>>,
        asked: Arc<Mutex<Vec<String>>>,
    }

    impl Aws {
        fn stage(&self, stage: &'static str, primary: &str, secondary: &str) {
            let text = format!(r#"{{"primaryMasterKey": "{primary}", "secondaryMasterKey": "{secondary}"}}"#);
            self.versions.lock().unwrap().insert(stage, text);
        }

        fn asked(&self) -> Vec<String> {
            std::mem::take(&mut *self.asked.lock().unwrap())
        }

        async fn serve(&self) -> (Keyring, Scripted) {
            let aws = self.clone();
            let server = Scripted::start(move |request| {
                let question: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
                let stage = question["VersionStage"].as_str().unwrap();
                aws.asked.lock().unwrap().push(stage.to_owned());
                match aws.versions.lock().unwrap().get(stage) {
                    Some(text) => Reply::new(StatusCode::OK)
                        .body(serde_json::json!({"SecretString": text, "VersionId": format!("v-{stage}")}).to_string()),
                    None => Reply::new(StatusCode::BAD_REQUEST).body(r#"{"__type": "ResourceNotFoundException"}"#),
                }
            })
            .await;
            let source = KeySource::AwsSecretsManager {
                secret_id: "prod/cosmos".into(),
                field: "primaryMasterKey".into(),
                refresh: Duration::from_secs(300),
            };
            (Keyring { aws: SecretsManager::of(&server), ..keyring(source) }, server)
        }
    }

    #[tokio::test]
    async fn a_refused_key_is_looked_for_where_a_rotation_may_have_left_another() {
        let aws = Aws::default();
        aws.stage("AWSCURRENT", "b25l", "dHdv");
        aws.stage("AWSPENDING", "dGhyZWU=", "dHdv");
        aws.stage("AWSPREVIOUS", "emVybw==", "dHdv");
        let (keyring, _server) = aws.serve().await;
        assert!(keyring.current().await.unwrap().matches(&key("b25l")));
        assert_eq!(aws.asked(), ["AWSCURRENT"]);

        let mut positions = Vec::new();
        let mut refused = "b25l";
        for next in ["dHdv", "dGhyZWU=", "emVybw=="] {
            assert!(another(&keyring, refused).await.unwrap().matches(&key(next)), "{next} after {refused}");
            positions.push(keyring.status().await.position.unwrap().to_string());
            refused = next;
        }
        let expected = [
            "AWSCURRENT, field secondaryMasterKey",
            "AWSPENDING, field primaryMasterKey",
            "AWSPREVIOUS, field primaryMasterKey",
        ];
        assert_eq!(positions, expected);
        let mut asked = aws.asked();
        asked.sort();
        assert_eq!(asked, ["AWSCURRENT", "AWSPENDING", "AWSPREVIOUS"], "one search served them all");
        assert!(another(&keyring, refused).await.is_none(), "there is no other");
        assert!(keyring.status().await.exhausted);
        assert_eq!(aws.asked().len(), 0, "and it was searched a moment ago");
    }

    #[tokio::test]
    async fn the_key_of_a_pending_version_is_the_current_one_once_the_rotation_ends() {
        let aws = Aws::default();
        aws.stage("AWSCURRENT", "b25l", "b25l");
        aws.stage("AWSPENDING", "dHdv", "dHdv");
        let (keyring, _server) = aws.serve().await;
        keyring.current().await.unwrap();
        another(&keyring, "b25l").await.unwrap();
        let turns = keyring.turns();
        keyring.refresh().await.unwrap();
        let status = keyring.status().await;
        assert_eq!(status.position.unwrap().stage, Some(Stage::Pending), "the refused one is not preferred again");
        assert!(keyring.current().await.unwrap().matches(&key("dHdv")));

        aws.stage("AWSCURRENT", "dHdv", "dHdv");
        keyring.refresh().await.unwrap();
        let position = keyring.status().await.position.unwrap();
        assert_eq!((position.stage, position.version.as_deref()), (Some(Stage::Current), Some("v-AWSCURRENT")));
        assert_eq!(keyring.turns(), turns + 1, "only what was found is new");
    }

    #[tokio::test]
    async fn a_rotated_source_is_noticed_when_the_key_is_refused_and_when_it_is_read_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(&path, "b25l").unwrap();
        let keyring = file(&path);
        assert!(keyring.current().await.unwrap().matches(&key("b25l")));
        fs::write(&path, "dHdv").unwrap();
        assert!(keyring.current().await.unwrap().matches(&key("b25l")), "a key that works is not read again at once");
        assert!(another(&keyring, "b25l").await.unwrap().matches(&key("dHdv")));
        assert!(another(&keyring, "b25l").await.unwrap().matches(&key("dHdv")), "it is found already");

        fs::write(&path, "dGhyZWU=").unwrap();
        assert!(another(&keyring, "dHdv").await.is_none(), "too soon to look again");
        keyring.reload().await.unwrap();
        assert!(keyring.current().await.unwrap().matches(&key("dGhyZWU=")));
        assert!(!keyring.status().await.exhausted);
    }

    #[tokio::test]
    async fn whoever_was_refused_waits_for_the_key_that_comes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(&path, "b25l").unwrap();
        let keyring = file(&path);
        keyring.current().await.unwrap();
        let one = key("b25l");
        let (found, ()) = tokio::join!(keyring.another(&one, Instant::now() + PATIENCE), async {
            while !keyring.status().await.exhausted {
                tokio::task::yield_now().await;
            }
            fs::write(&path, "dHdv").unwrap();
        });
        assert!(found.unwrap().matches(&key("dHdv")));
    }

    #[tokio::test]
    async fn a_watched_file_is_read_as_soon_as_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(&path, "b25l").unwrap();
        let keyring = file(&path);
        let mut turns = keyring.turns.subscribe();
        let watched = async {
            turns.wait_for(|turns| *turns == 1).await.unwrap();
            // As a kubelet does it: another file takes the name.
            fs::write(dir.path().join("new"), "dHdv").unwrap();
            fs::rename(dir.path().join("new"), &path).unwrap();
            turns.wait_for(|turns| *turns == 2).await.unwrap();
        };
        tokio::select! {
            () = keyring.keep_fresh() => {}
            waited = timeout(Duration::from_secs(20), watched) => waited.expect("the change is noticed"),
        }
        assert!(keyring.current().await.unwrap().matches(&key("dHdv")));
    }

    #[tokio::test]
    async fn a_key_stays_in_use_while_its_source_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let keyring = file(&path);
        assert!(keyring.current().await.is_err());
        assert!(keyring.status().await.last_error.is_some());
        fs::write(&path, "b25l").unwrap();
        assert!(keyring.current().await.is_err(), "a failure holds for a moment");
        tokio::time::sleep(PAUSE).await;
        assert!(keyring.current().await.is_ok());
        assert!(keyring.status().await.last_error.is_none());

        fs::remove_file(&path).unwrap();
        assert!(keyring.reload().await.is_err());
        keyring.refresh().await.unwrap();
        assert!(keyring.current().await.unwrap().matches(&key("b25l")));
        assert!(keyring.status().await.last_error.is_some());
    }

    #[tokio::test]
    async fn a_key_that_cosmos_takes_after_all_is_no_longer_in_doubt() {
        let source =
            KeySource::Env { variable: "K".into(), value: crate::secret::Secret::new("b25l".into()), field: None };
        let keyring = keyring(source);
        keyring.current().await.unwrap();
        assert!(another(&keyring, "b25l").await.is_none());
        assert!(keyring.status().await.exhausted);
        keyring.accepted(&key("b25l")).await;
        assert!(!keyring.status().await.exhausted);
    }
}
