//! Users and permissions: the Cosmos REST calls that end in a resource token.
//!
//! Each scope has a Cosmos user of its own with one permission, so the rule of one permission per user and resource never
//! bites. Reading a permission makes a fresh token, so a read is the first thing tried: one call for every renewal and
//! after every restart, and only a scope never seen before costs the creates.
//!
//! A permission says by `_ts` when it was last written. A mint that finds that long ago writes it anew, so that the sweeps of
//! all gateways see that the scope is in use.

use std::{sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, Method, StatusCode};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::{
    ExchangeError,
    budget::{Admission, Urgency},
    scope::TokenScope,
    signed::{Account, Answer, Call, activity, bad},
    token::header_value,
};
use crate::{
    access::{PartitionKey, headers::MAX_ITEM_COUNT},
    clock::Timestamp,
    secret::Secret,
    transport::percent_encode,
};

/// How long a permission's token lives, in seconds.
const EXPIRY: HeaderName = HeaderName::from_static("x-ms-documentdb-expiry-seconds");
/// How old the last writing of a permission may be when a token is minted by it. A scope in use is therefore never older than
/// this and the life of one token, which is a day at most; the sweep leaves alone what is younger than two days.
pub(super) const WRITTEN_ANEW: Duration = Duration::from_secs(12 * 3_600);

/// The maker of tokens.
#[derive(Debug)]
pub(super) struct PermissionClient {
    pub(super) account: Arc<Account>,
    pub(super) lifetime: Duration,
}

/// A token fresh from Cosmos.
#[derive(Debug)]
pub(super) struct Minted {
    pub(super) authorization: HeaderValue,
    /// When it was asked for; its life cannot have begun earlier.
    pub(super) asked: Timestamp,
    /// The same, by the running clock.
    pub(super) asked_running: Duration,
}

/// A permission as it is written. `resource_partition_key` is an array; Cosmos refuses the bare value.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Wanted<'a> {
    id: &'a str,
    permission_mode: &'static str,
    resource: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_partition_key: Option<Value>,
}

/// A permission as it is read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    permission_mode: String,
    resource: String,
    resource_partition_key: Option<Value>,
    #[serde(rename = "_token", deserialize_with = "secret")]
    token: Secret,
    /// When it was last written, in seconds.
    #[serde(rename = "_ts")]
    written: Option<i64>,
}

impl Wanted<'_> {
    /// Whether `found` opens exactly this. A resource that Cosmos writes by its rid counts as another: which name it has
    /// now cannot be seen from it.
    fn is(&self, found: &Found) -> bool {
        let key = |key: &Option<Value>| key.as_ref().map(PartitionKey::from_json);
        found.permission_mode == self.permission_mode
            && found.resource.trim_matches('/') == self.resource
            && key(&found.resource_partition_key) == key(&self.resource_partition_key)
    }
}

/// One mint under way.
struct Mint<'a> {
    client: &'a PermissionClient,
    activity: HeaderValue,
    database: &'a str,
    wanted: Wanted<'a>,
}

impl PermissionClient {
    /// A fresh token for `scope`: reads its permission, and makes or mends user and permission where they are not as they
    /// should be. `activity` is the id under which Azure logs the calls; `admission` is leave for the first of them, where it
    /// was given before.
    pub(super) async fn mint(
        &self,
        scope: &TokenScope,
        id: &str,
        activity: &str,
        admission: Option<Admission>,
    ) -> Result<Minted, ExchangeError> {
        let wanted = Wanted {
            id,
            permission_mode: scope.mode().as_str(),
            resource: scope.container().link(),
            resource_partition_key: scope.partition_key().and_then(|key| serde_json::from_str(key).ok()),
        };
        let activity = HeaderValue::from_str(activity).unwrap_or_else(|_| HeaderValue::from_static(""));
        Mint { client: self, activity, database: scope.container().database(), wanted }.run(admission).await
    }
}

impl PermissionClient {
    /// Whether users could be read now.
    pub(super) async fn look(&self, database: &str) -> Result<(), ExchangeError> {
        let path = format!("/dbs/{}/users", percent_encode(database));
        let call = Call::new(Method::GET, "users", path, format!("dbs/{database}")).header(MAX_ITEM_COUNT, 1);
        match self.account.send(&call, &activity(), Urgency::Renewal, None).await?.response.status() {
            StatusCode::OK => Ok(()),
            status => Err(bad(status)),
        }
    }
}

impl Mint<'_> {
    async fn run(&self, admission: Option<Admission>) -> Result<Minted, ExchangeError> {
        if let Some(minted) = self.read(admission).await? {
            return Ok(minted);
        }
        let made = match self.make().await? {
            // A sweep took the user away in between; it was very old.
            Made::WithoutUser => self.make().await?,
            made => made,
        };
        match made {
            Made::Token(minted) => Ok(minted),
            // Another gateway was quicker.
            Made::ThereAlready => self.read(None).await?.ok_or_else(|| bad(StatusCode::CONFLICT)),
            Made::WithoutUser => Err(bad(StatusCode::NOT_FOUND)),
        }
    }

    /// The permission's fresh token; `None` when there is no such permission.
    async fn read(&self, admission: Option<Admission>) -> Result<Option<Minted>, ExchangeError> {
        let answer = self.send(&self.call(Method::GET), admission).await?;
        match answer.response.status() {
            status if status.is_success() => {
                let found = found(&answer)?;
                if !self.wanted.is(&found) {
                    return self.replace().await.map(Some);
                }
                if is_long_ago(&found, answer.asked)
                    && let Ok(minted) = self.replace().await
                {
                    return Ok(Some(minted));
                }
                minted(&answer, &found).map(Some)
            }
            StatusCode::NOT_FOUND => Ok(None),
            status => Err(bad(status)),
        }
    }

    async fn replace(&self) -> Result<Minted, ExchangeError> {
        let answer = self.send(&self.call(Method::PUT).json(&self.wanted), None).await?;
        match answer.response.status() {
            status if status.is_success() => minted(&answer, &found(&answer)?),
            status => Err(bad(status)),
        }
    }

    /// Makes user and permission.
    async fn make(&self) -> Result<Made, ExchangeError> {
        let link = format!("dbs/{}", self.database);
        let path = format!("/dbs/{}/users", percent_encode(self.database));
        let user = Call::new(Method::POST, "users", path, link).json(&serde_json::json!({ "id": self.wanted.id }));
        match self.send(&user, None).await?.response.status() {
            StatusCode::CREATED | StatusCode::CONFLICT => {}
            status => return Err(bad(status)),
        }
        let answer = self.send(&self.call(Method::POST).json(&self.wanted), None).await?;
        match answer.response.status() {
            StatusCode::CREATED => Ok(Made::Token(minted(&answer, &found(&answer)?)?)),
            StatusCode::CONFLICT => Ok(Made::ThereAlready),
            StatusCode::NOT_FOUND => Ok(Made::WithoutUser),
            status => Err(bad(status)),
        }
    }

    /// A call on the permission, or, for `POST`, on the user's list of permissions.
    fn call(&self, method: Method) -> Call {
        let id = self.wanted.id;
        let mut link = format!("dbs/{}/users/{id}", self.database);
        let mut path = format!("/dbs/{}/users/{id}/permissions", percent_encode(self.database));
        if method != Method::POST {
            link = format!("{link}/permissions/{id}");
            path = format!("{path}/{id}");
        }
        let lifetime = self.client.lifetime.as_secs();
        Call::new(method, "permissions", path, link).header(EXPIRY, lifetime)
    }

    async fn send(&self, call: &Call, admission: Option<Admission>) -> Result<Answer, ExchangeError> {
        self.client.account.send(call, &self.activity, Urgency::Caller, admission).await
    }
}

/// What came of making user and permission.
enum Made {
    Token(Minted),
    ThereAlready,
    /// The user, or the container, is not there.
    WithoutUser,
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
    String::deserialize(deserializer).map(Secret::new)
}

fn is_long_ago(found: &Found, now: Timestamp) -> bool {
    found.written.is_some_and(|written| now.since(Timestamp::from_secs(written)) > WRITTEN_ANEW)
}

fn found(answer: &Answer) -> Result<Found, ExchangeError> {
    serde_json::from_slice(answer.response.body()).map_err(|_| bad(answer.response.status()))
}

fn minted(answer: &Answer, found: &Found) -> Result<Minted, ExchangeError> {
    if !found.token.expose().starts_with("type=resource&") {
        return Err(bad(answer.response.status()));
    }
    let authorization = header_value(found.token.expose());
    Ok(Minted { authorization, asked: answer.asked, asked_running: answer.asked_running })
}
