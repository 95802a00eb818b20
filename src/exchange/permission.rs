//! Users and permissions: the Cosmos REST calls that end in a resource token.
//!
//! Each scope has a Cosmos user of its own with one permission, so the rule of one permission per user and resource never
//! bites. Reading a permission makes a fresh token, so a read is the first thing tried: one call for every renewal and
//! after every restart, and only a scope never seen before costs the creates.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::Full;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;
use url::Url;

use super::{ExchangeError, keyring::Keyring, scope::TokenScope, signature::ToSign, token::header_value};
use crate::{
    access::PartitionKey,
    clock::{Clock, Timestamp},
    secret::Secret,
    transport::{Transport, percent_encode},
};

/// The version of the REST API that every current SDK speaks.
const API_VERSION: HeaderValue = HeaderValue::from_static("2020-07-15");
/// Largest answer read; a permission is about one kilobyte.
const LARGEST_ANSWER: usize = 64 * 1024;
/// How long one mint may take, with all its calls and waits.
const DEADLINE: Duration = Duration::from_secs(10);
/// How often one call is sent again after a failure that may pass. Every call here can be repeated: what an earlier try
/// created, a later one finds.
const REPEATS: u32 = 3;
/// The wait before the first repeat; each later one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// The client of the users and permissions API, signing with the account key.
#[derive(Debug)]
pub(super) struct PermissionClient {
    pub(super) endpoint: Url,
    pub(super) keyring: Keyring,
    pub(super) lifetime: Duration,
    pub(super) transport: Transport,
    pub(super) clock: Clock,
}

/// A token fresh from Cosmos.
#[derive(Debug)]
pub(super) struct Minted {
    pub(super) authorization: HeaderValue,
    /// When it was asked for; its life cannot have begun earlier.
    pub(super) asked: Timestamp,
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
    #[serde(rename = "_token")]
    token: String,
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
    deadline: Instant,
}

/// One call: where, and what is signed for it.
struct Call {
    method: Method,
    resource_type: &'static str,
    path: String,
    link: String,
    body: Bytes,
}

impl PermissionClient {
    /// A fresh token for `scope`: reads its permission, and makes or mends user and permission where they are not as they
    /// should be. `activity` is the id under which Azure logs the calls.
    pub(super) async fn mint(&self, scope: &TokenScope, id: &str, activity: &str) -> Result<Minted, ExchangeError> {
        let wanted = Wanted {
            id,
            permission_mode: scope.mode().as_str(),
            resource: scope.container().link(),
            resource_partition_key: scope.partition_key().and_then(|key| serde_json::from_str(key).ok()),
        };
        let activity = HeaderValue::from_str(activity).unwrap_or_else(|_| HeaderValue::from_static(""));
        let deadline = Instant::now() + DEADLINE;
        let mint = Mint { client: self, activity, database: scope.container().database(), wanted, deadline };
        mint.run().await
    }
}

impl Mint<'_> {
    async fn run(&self) -> Result<Minted, ExchangeError> {
        if let Some(minted) = self.read().await? {
            return Ok(minted);
        }
        self.create_user().await?;
        if let Some(minted) = self.create().await? {
            return Ok(minted);
        }
        // Another gateway was quicker.
        self.read().await?.ok_or(ExchangeError::BadAnswer { status: StatusCode::CONFLICT })
    }

    /// The permission's fresh token; `None` when there is no such permission.
    async fn read(&self) -> Result<Option<Minted>, ExchangeError> {
        let (asked, answer) = self.send(&self.call(Method::GET)).await?;
        match answer.status() {
            StatusCode::OK => {
                let found = found(&answer)?;
                if self.wanted.is(&found) {
                    return minted(asked, &answer, found).map(Some);
                }
                self.replace().await.map(Some)
            }
            StatusCode::NOT_FOUND => Ok(None),
            status => Err(ExchangeError::BadAnswer { status }),
        }
    }

    async fn replace(&self) -> Result<Minted, ExchangeError> {
        let (asked, answer) = self.send(&self.call(Method::PUT)).await?;
        match answer.status() {
            StatusCode::OK => minted(asked, &answer, found(&answer)?),
            status => Err(ExchangeError::BadAnswer { status }),
        }
    }

    async fn create_user(&self) -> Result<(), ExchangeError> {
        let link = format!("dbs/{}", self.database);
        let path = format!("/dbs/{}/users", percent_encode(self.database));
        let body = json(&serde_json::json!({ "id": self.wanted.id }));
        let call = Call { method: Method::POST, resource_type: "users", path, link, body };
        match self.send(&call).await?.1.status() {
            StatusCode::CREATED | StatusCode::CONFLICT => Ok(()),
            status => Err(ExchangeError::BadAnswer { status }),
        }
    }

    /// The new permission's token; `None` when there is such a permission already.
    async fn create(&self) -> Result<Option<Minted>, ExchangeError> {
        let (asked, answer) = self.send(&self.call(Method::POST)).await?;
        match answer.status() {
            StatusCode::CREATED => minted(asked, &answer, found(&answer)?).map(Some),
            StatusCode::CONFLICT => Ok(None),
            status => Err(ExchangeError::BadAnswer { status }),
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
        let body = if method == Method::GET { Bytes::new() } else { json(&self.wanted) };
        Call { method, resource_type: "permissions", path, link, body }
    }

    /// Sends `call` until it has an answer that is about the call: waits out what passes, and signs with another key when
    /// Cosmos refuses the one at hand.
    async fn send(&self, call: &Call) -> Result<(Timestamp, Response<Bytes>), ExchangeError> {
        let mut key = self.client.keyring.current().await?;
        let mut repeats = 0;
        loop {
            let asked = self.client.clock.now();
            let request = self.sign(call, asked, &key)?;
            let left = self.deadline.saturating_duration_since(Instant::now());
            let sent = self.client.transport.exchange(request, LARGEST_ANSWER, left).await;
            let again = repeats < REPEATS;
            match sent {
                Ok(answer) if answer.status() == StatusCode::UNAUTHORIZED => {
                    let another = self.client.keyring.another(&key, self.deadline).await;
                    key = another.ok_or_else(|| refused(&answer))?;
                    continue;
                }
                Ok(answer) if answer.status() == StatusCode::FORBIDDEN => return Err(refused(&answer)),
                Ok(answer) => match passing(&answer, repeats) {
                    None => {
                        self.client.keyring.accepted(&key).await;
                        return Ok((asked, answer));
                    }
                    Some(wait) if again && self.wait(wait).await => {}
                    Some(wait) => return Err(gave_up(&answer, wait)),
                },
                Err(_) if again && self.wait(FIRST_WAIT * 2_u32.pow(repeats)).await => {}
                Err(error) => return Err(ExchangeError::Unreachable(Arc::new(error))),
            }
            repeats += 1;
        }
    }

    /// Waits, if that leaves time before the deadline.
    async fn wait(&self, wait: Duration) -> bool {
        let enough = Instant::now() + wait < self.deadline;
        if enough {
            tokio::time::sleep(wait).await;
        }
        enough
    }

    fn sign(
        &self,
        call: &Call,
        now: Timestamp,
        key: &super::AccountKey,
    ) -> Result<Request<Full<Bytes>>, ExchangeError> {
        let date = now.http_date();
        let signed = ToSign { method: &call.method, resource_type: call.resource_type, link: &call.link, date: &date };
        let endpoint = &self.client.endpoint;
        let uri = Uri::builder().scheme(endpoint.scheme()).authority(endpoint.authority());
        let uri = uri.path_and_query(call.path.as_str()).build();
        let uri = uri.map_err(|error| ExchangeError::Unsendable(Arc::new(error)))?;
        let request = Request::builder()
            .method(call.method.clone())
            .uri(uri)
            .header(header::AUTHORIZATION, signed.authorization(key))
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/json")
            .header("x-ms-date", date)
            .header("x-ms-version", API_VERSION)
            .header("x-ms-activity-id", self.activity.clone())
            .header("x-ms-documentdb-expiry-seconds", self.client.lifetime.as_secs())
            .body(Full::new(call.body.clone()));
        request.map_err(|error| ExchangeError::Unsendable(Arc::new(error)))
    }
}

fn json(value: &impl Serialize) -> Bytes {
    // Strings and plain values always serialize.
    serde_json::to_vec(value).unwrap_or_default().into()
}

fn found(answer: &Response<Bytes>) -> Result<Found, ExchangeError> {
    serde_json::from_slice(answer.body()).map_err(|_| ExchangeError::BadAnswer { status: answer.status() })
}

fn minted(asked: Timestamp, answer: &Response<Bytes>, found: Found) -> Result<Minted, ExchangeError> {
    let token = Secret::new(found.token);
    if !token.expose().starts_with("type=resource&") {
        return Err(ExchangeError::BadAnswer { status: answer.status() });
    }
    Ok(Minted { authorization: header_value(token.expose()), asked })
}

fn refused(answer: &Response<Bytes>) -> ExchangeError {
    let substatus = number(answer.headers(), "x-ms-substatus").and_then(|n| u32::try_from(n).ok());
    ExchangeError::CosmosRefusedKey { status: answer.status(), substatus }
}

/// How long to wait before the same call may be answered otherwise; `None` when the answer is about the call.
fn passing(answer: &Response<Bytes>, repeats: u32) -> Option<Duration> {
    let own = FIRST_WAIT * 2_u32.pow(repeats);
    match answer.status().as_u16() {
        429 => Some(number(answer.headers(), "x-ms-retry-after-ms").map_or(own, Duration::from_millis)),
        408 | 410 | 449 | 500 | 503 => Some(own),
        _ => None,
    }
}

fn gave_up(answer: &Response<Bytes>, retry_after: Duration) -> ExchangeError {
    match answer.status() {
        StatusCode::TOO_MANY_REQUESTS => ExchangeError::Throttled { retry_after },
        status => ExchangeError::BadAnswer { status },
    }
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}
