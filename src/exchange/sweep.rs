//! The sweep: takes away users and permissions of scopes that nobody has used for long.
//!
//! **Whose.** Only a user whose id has the form that [`is_an_id`] knows, check digits and all, and that holds nothing but the
//! one permission of the same id. Everything else in the account is somebody else's.
//!
//! **Used by whom.** Any gateway: replicas, and other installations on the same account. They need not know of each other, since
//! the account itself remembers. A mint writes the permission anew when that was last done long ago (`permission`), so `_ts` of a
//! scope in use is never older than a day and a half, and nothing younger than two days can be swept. Both are read by Cosmos'
//! clock, so that a gateway whose clock was moved sweeps nothing that is in use.
//!
//! **If it errs.** A token lives without its permission, and a permission that is missing is made at the next mint. What is
//! swept too early costs some request units and fails no request; what is not swept today is swept tomorrow. So the sweep needs
//! no lock among replicas.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use aws_lc_rs::rand;
use http::{HeaderValue, Method, StatusCode, header::IF_MATCH};
use serde::{Deserialize, de::DeserializeOwned};

use super::{
    ExchangeError,
    budget::Urgency,
    scope::is_an_id,
    signed::{Account, Answer, Call, activity, bad, date},
};
use crate::{
    access::headers::{CONTINUATION, MAX_ITEM_COUNT},
    clock::{Clock, Timestamp},
    transport::percent_encode,
};

/// How often. The first is somewhere within this of the start, so that replicas do not go together.
const EVERY: Duration = Duration::from_secs(24 * 3_600);
/// How many entries of a feed are asked for at a time.
const PAGE: u32 = 100;
/// Most pages of one feed; a feed without an end is none.
const MOST_PAGES: usize = 10_000;

/// The sweeper of one gateway.
#[derive(Debug)]
pub(super) struct Sweeper {
    account: Arc<Account>,
    clock: Clock,
    unused_for: Duration,
    last: ArcSwapOption<SweepStatus>,
}

/// How the last sweep went.
#[derive(Clone, Debug)]
pub struct SweepStatus {
    /// When it ended.
    pub at: Timestamp,
    /// Scopes in the account, in use or not.
    pub scopes: u64,
    /// Scopes that were taken away.
    pub removed: u64,
    /// Why it ended early, if it did.
    pub error: Option<ExchangeError>,
}

#[derive(Deserialize)]
struct Databases {
    #[serde(rename = "Databases")]
    databases: Vec<Database>,
}

#[derive(Deserialize)]
struct Database {
    id: String,
}

#[derive(Deserialize)]
struct Users {
    #[serde(rename = "Users")]
    users: Vec<Entry>,
}

#[derive(Deserialize)]
struct Permissions {
    #[serde(rename = "Permissions")]
    permissions: Vec<Entry>,
}

/// What the sweep reads of a user or a permission. A permission's token is skipped over, not copied.
#[derive(Deserialize)]
struct Entry {
    id: String,
    #[serde(rename = "_ts")]
    written: i64,
    #[serde(rename = "_etag")]
    etag: String,
}

impl Sweeper {
    pub(super) fn new(account: Arc<Account>, clock: Clock, unused_for: Duration) -> Self {
        Self { account, clock, unused_for, last: ArcSwapOption::empty() }
    }

    /// How long a scope must not have been used.
    pub(super) fn unused_for(&self) -> Duration {
        self.unused_for
    }

    pub(super) fn status(&self) -> Option<Arc<SweepStatus>> {
        self.last.load_full()
    }

    /// Sweeps once a day, until dropped.
    pub(super) async fn keep_sweeping(&self) {
        let mut random = [0; 2];
        // Without randomness replicas sweep together, and no harm is done otherwise.
        let _ = rand::fill(&mut random);
        tokio::time::sleep(EVERY.mul_f64(f64::from(u16::from_be_bytes(random)) / 65_535.0)).await;
        loop {
            self.sweep().await;
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Sweeps now.
    pub(super) async fn sweep(&self) {
        let (mut scopes, mut removed) = (0, 0);
        let error = self.sweep_all(&mut scopes, &mut removed).await.err();
        match &error {
            None => tracing::info!(scopes, removed, "scopes that nobody used for long were swept"),
            Some(error) => tracing::warn!(scopes, removed, %error, "the sweep of unused scopes ended early"),
        }
        self.last.store(Some(Arc::new(SweepStatus { at: self.clock.now(), scopes, removed, error })));
    }

    async fn sweep_all(&self, scopes: &mut u64, removed: &mut u64) -> Result<(), ExchangeError> {
        let mut databases = Feed::new("dbs", "/dbs".to_owned(), String::new());
        while let Some((Databases { databases }, _)) = self.next(&mut databases).await? {
            for database in databases {
                let path = format!("/dbs/{}/users", percent_encode(&database.id));
                let mut users = Feed::new("users", path, format!("dbs/{}", database.id));
                while let Some((Users { users }, now)) = self.next(&mut users).await? {
                    for user in users.iter().filter(|user| is_an_id(&user.id)) {
                        *scopes += 1;
                        if self.is_old(user, now) && self.take_away(&database.id, user).await? {
                            *removed += 1;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes a user away, if its permission is as old; says whether it did.
    async fn take_away(&self, database: &str, user: &Entry) -> Result<bool, ExchangeError> {
        let link = format!("dbs/{database}/users/{}", user.id);
        let path = format!("/dbs/{}/users/{}", percent_encode(database), user.id);
        let mut feed = Feed::new("permissions", format!("{path}/permissions"), link.clone());
        while let Some((Permissions { permissions }, now)) = self.next(&mut feed).await? {
            let is_swept = |permission: &Entry| permission.id == user.id && self.is_old(permission, now);
            if !permissions.iter().all(is_swept) {
                return Ok(false);
            }
            for permission in &permissions {
                // Only as it was read: another gateway may have written it anew by now.
                let Ok(etag) = HeaderValue::try_from(&permission.etag) else { return Ok(false) };
                let (path, link) =
                    (format!("{path}/permissions/{}", permission.id), format!("{link}/permissions/{}", permission.id));
                let call = Call::new(Method::DELETE, "permissions", path, link).header(IF_MATCH, etag);
                if !self.delete(&call).await? {
                    return Ok(false);
                }
            }
        }
        self.delete(&Call::new(Method::DELETE, "users", path, link)).await
    }

    /// Whether it is gone now. It is not when it is another by now.
    async fn delete(&self, call: &Call) -> Result<bool, ExchangeError> {
        match self.send(call).await?.response.status() {
            StatusCode::NO_CONTENT | StatusCode::OK | StatusCode::NOT_FOUND => Ok(true),
            StatusCode::PRECONDITION_FAILED => Ok(false),
            status => Err(bad(status)),
        }
    }

    fn is_old(&self, entry: &Entry, now: Timestamp) -> bool {
        now.since(Timestamp::from_secs(entry.written)) > self.unused_for
    }

    /// The next page of a feed, and what time it was at Cosmos; `None` at its end, or when what it belongs to is gone.
    async fn next<P: DeserializeOwned>(&self, feed: &mut Feed) -> Result<Option<(P, Timestamp)>, ExchangeError> {
        let Some(call) = feed.call() else { return Ok(None) };
        let answer = self.send(&call).await?;
        let status = answer.response.status();
        match status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            _ => return Err(bad(status)),
        }
        feed.turn(answer.response.headers().get(CONTINUATION).cloned());
        // Without Cosmos' time there is no telling what is old.
        let now = date(&answer.response).ok_or_else(|| bad(status))?;
        let page = serde_json::from_slice(answer.response.body()).map_err(|_| bad(status))?;
        Ok(Some((page, now)))
    }

    async fn send(&self, call: &Call) -> Result<Answer, ExchangeError> {
        self.account.send(call, &activity(), Urgency::Sweep, None).await
    }
}

/// A feed that is read page by page.
struct Feed {
    resource_type: &'static str,
    path: String,
    link: String,
    next: Option<HeaderValue>,
    pages: usize,
}

impl Feed {
    fn new(resource_type: &'static str, path: String, link: String) -> Self {
        Self { resource_type, path, link, next: None, pages: 0 }
    }

    /// The call for the next page; `None` at the end.
    fn call(&self) -> Option<Call> {
        if self.pages >= MOST_PAGES || (self.pages > 0 && self.next.is_none()) {
            return None;
        }
        let call = Call::new(Method::GET, self.resource_type, self.path.clone(), self.link.clone());
        let call = call.header(MAX_ITEM_COUNT, PAGE);
        Some(match &self.next {
            Some(next) => call.header(CONTINUATION, next.clone()),
            None => call,
        })
    }

    fn turn(&mut self, next: Option<HeaderValue>) {
        self.next = next;
        self.pages += 1;
    }
}

#[cfg(test)]
#[cfg(feature = "dev")]
mod tests {
    use std::sync::atomic::AtomicI64;

    use tokio::net::TcpListener;
    use url::Url;

    use super::*;
    use crate::{
        clock::ManualClock,
        config::dev::{ContainerSeed, DatabaseSeed, Seed},
        dev::cosmos::{self, Cosmos, WELL_KNOWN_KEY},
        exchange::{KeySource, budget::Budget, keyring::Keyring},
        secret::Secret,
        transport::Transport,
    };

    const DAY: Duration = Duration::from_secs(86_400);
    const IN_USE: &str = "stepgate.cognito.app.orders.all.97927e2a6b591536e243d9a26e3dbd07-3be0d366";

    /// The account of a stand-in, whose clock is moved by hand.
    async fn account(hand: &ManualClock) -> (Cosmos, Arc<Account>) {
        let container = ContainerSeed {
            id: "orders".into(),
            partition_key: vec!["/tenant".into()],
            throughput: None,
            items: Vec::new(),
            procedures: Vec::new(),
        };
        let databases = ["shop", "empty"].map(|id| DatabaseSeed { id: id.into(), containers: vec![container.clone()] });
        let config = cosmos::Config { seed: Seed { databases: databases.into() }, ..cosmos::Config::default() };
        let clock = Clock::Manual(hand.clone());
        let cosmos = Cosmos::new(config, clock.clone()).await.unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let endpoint = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        tokio::spawn(cosmos::serve(listener, cosmos.clone(), std::future::pending()));
        let value = Secret::new(WELL_KNOWN_KEY.to_owned());
        let source = KeySource::Env { variable: "KEY".into(), value, field: None };
        let account = Account {
            endpoint,
            keyring: Keyring::new(source, clock.clone()),
            budget: Budget::new(240),
            transport: Transport::new(None).unwrap(),
            clock,
            ahead: AtomicI64::new(0),
        };
        (cosmos, Arc::new(account))
    }

    /// A user of `shop`, with a permission of this id if one is named.
    async fn make(account: &Account, user: &str, permission: Option<&str>) {
        let call = Call::new(Method::POST, "users", "/dbs/shop/users".into(), "dbs/shop".into());
        let send = async |call: Call| account.send(&call, &activity(), Urgency::Caller, None).await.unwrap();
        send(call.json(&serde_json::json!({ "id": user }))).await;
        if let Some(permission) = permission {
            let link = format!("dbs/shop/users/{user}");
            let call = Call::new(Method::POST, "permissions", format!("/{link}/permissions"), link);
            let body = serde_json::json!({
                "id": permission, "permissionMode": "All", "resource": "dbs/shop/colls/orders",
            });
            assert_eq!(send(call.json(&body)).await.response.status(), StatusCode::CREATED);
        }
    }

    async fn users(account: &Account) -> Vec<String> {
        let call = Call::new(Method::GET, "users", "/dbs/shop/users".into(), "dbs/shop".into());
        let call = call.header(MAX_ITEM_COUNT, 1_000);
        let answer = account.send(&call, &activity(), Urgency::Caller, None).await.unwrap();
        let Users { users } = serde_json::from_slice(answer.response.body()).unwrap();
        users.into_iter().map(|user| user.id).collect()
    }

    fn unlike(n: usize) -> String {
        crate::exchange::scope::an_id_for_test(n)
    }

    #[tokio::test]
    async fn only_what_is_ours_and_unused_for_long_is_taken_away() {
        let hand = ManualClock::new(Timestamp::from_secs(1_795_375_762));
        let (_cosmos, account) = account(&hand).await;
        for n in 0..3 {
            let id = unlike(n);
            make(&account, &id, Some(&id)).await;
        }
        let (bare, shared) = (unlike(10), unlike(11));
        make(&account, &bare, None).await;
        make(&account, &shared, Some("theirs")).await;
        make(&account, "tenant-7", Some("tenant-7")).await;
        make(&account, "stepgate.mine", None).await;
        hand.advance(DAY * 6);
        make(&account, IN_USE, Some(IN_USE)).await;

        let sweeper = Sweeper::new(Arc::clone(&account), Clock::Manual(hand.clone()), DAY * 7);
        sweeper.sweep().await;
        assert_eq!((users(&account).await.len(), sweeper.status().unwrap().removed), (8, 0), "nothing is old yet");
        // A clock that is moved makes nothing old: the sweep goes by Cosmos'.
        let astray = ManualClock::new(hand_time(&hand).plus(DAY * 100));
        let with_clock = Account { clock: Clock::Manual(astray), ..another(&account) };
        let lost = Sweeper::new(Arc::new(with_clock), Clock::System, DAY * 7);
        lost.sweep().await;
        let status = lost.status().unwrap();
        assert_eq!((status.removed, status.error.is_none()), (0, true), "{status:?}");

        hand.advance(DAY * 2);
        sweeper.sweep().await;
        let status = sweeper.status().unwrap();
        assert_eq!((status.scopes, status.removed, status.error.is_none()), (6, 4, true), "{status:?}");
        let mut left = vec![IN_USE.to_owned(), "stepgate.mine".to_owned(), shared, "tenant-7".to_owned()];
        left.sort();
        assert_eq!(users(&account).await, left);
    }

    fn hand_time(hand: &ManualClock) -> Timestamp {
        Clock::Manual(hand.clone()).now()
    }

    /// The same account, for a gateway of another process.
    fn another(account: &Account) -> Account {
        let value = Secret::new(WELL_KNOWN_KEY.to_owned());
        let source = KeySource::Env { variable: "KEY".into(), value, field: None };
        Account {
            endpoint: account.endpoint.clone(),
            keyring: Keyring::new(source, Clock::System),
            budget: Budget::new(240),
            transport: account.transport.clone(),
            clock: Clock::System,
            ahead: AtomicI64::new(0),
        }
    }
}
