//! The users and permissions of the REST API: bodies and headers in, the directory asked, a fresh token in every answer.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE};
use serde_json::{Value, json};

use super::{
    Cosmos,
    directory::{Grant, Link, Permission, Place},
    keyring::{Claim, Mode},
    partition::Key,
    refusal::Refusal,
    request::{Asked, Target, header},
};
use crate::clock::Timestamp;

/// Lifetime of a token in seconds: the default, and the range the service takes.
const DEFAULT_LIFETIME: i64 = 3600;
const LONGEST_LIFETIME: i64 = 86_400;
const SHORTEST_LIFETIME: i64 = 600;
/// How many entries a page of a feed has where the caller does not say.
const PAGE: usize = 100;

/// A metadata operation's charge, in request units: a plausible number, since the service publishes none.
const READ_CHARGE: &str = "2";
const WRITE_CHARGE: &str = "4.95";

/// Answers a request on users or permissions that the account key has signed.
pub(super) async fn answer(cosmos: &Cosmos, asked: &Asked) -> Result<Response<Bytes>, Refusal> {
    let (Target::Users { database }
    | Target::User { database, .. }
    | Target::Permissions { database, .. }
    | Target::Permission { database, .. }) = &asked.target
    else {
        return Err(Refusal::InvalidPath);
    };
    if asked.flag(header::QUERY) {
        return Err(Refusal::QueryNotServed);
    }
    let database_rid = cosmos.0.emulator.database(database).await.ok_or(Refusal::OwnerNotFound)?;
    let at = Place { database, database_rid: &database_rid, now: cosmos.0.clock.now() };
    match &asked.target {
        Target::Users { .. } | Target::User { .. } => users(cosmos, asked, at),
        Target::Permissions { user, .. } => match asked.method.as_str() {
            "GET" => list(cosmos, asked, at, user).await,
            "POST" => create(cosmos, asked, at, user).await,
            method => Err(Refusal::NotServed(method.to_owned())),
        },
        Target::Permission { user, permission, .. } => one(cosmos, asked, at, user, permission).await,
        _ => Err(Refusal::InvalidPath),
    }
}

fn users(cosmos: &Cosmos, asked: &Asked, at: Place<'_>) -> Result<Response<Bytes>, Refusal> {
    let mut directory = cosmos.directory();
    match (&asked.target, asked.method.as_str()) {
        (Target::Users { .. }, "GET") => {
            let users = directory.users(at.database).into_iter().map(|(id, user)| (user.to_json(&id), id)).collect();
            page(asked, at.database_rid, "Users", users)
        }
        (Target::Users { .. }, "POST") => {
            let id = body_id(&body(asked)?)?;
            let (user, is_new) = directory.create_user(at, &id, asked.flag(header::UPSERT))?;
            Ok(written(is_new, &user.to_json(&id)))
        }
        (Target::User { user, .. }, "GET") => {
            Ok(json_answer(StatusCode::OK, READ_CHARGE, &directory.user(at.database, user)?.to_json(user)))
        }
        (Target::User { user, .. }, "PUT") => {
            let id = body_id(&body(asked)?)?;
            Ok(written(false, &directory.rename_user(at, user, &id)?.to_json(&id)))
        }
        (Target::User { user, .. }, "DELETE") => directory.delete_user(at.database, user).map(|()| deleted()),
        (_, method) => Err(Refusal::NotServed(method.to_owned())),
    }
}

async fn list(cosmos: &Cosmos, asked: &Asked, at: Place<'_>, user: &str) -> Result<Response<Bytes>, Refusal> {
    let lifetime = lifetime(asked)?;
    let (rid, permissions) = cosmos.directory().permissions(at.database, user)?;
    let mut entries = Vec::with_capacity(permissions.len());
    for (id, permission) in permissions {
        entries.push((with_token(cosmos, at.now, user, &id, &permission, lifetime).await, id));
    }
    page(asked, &rid, "Permissions", entries)
}

async fn create(cosmos: &Cosmos, asked: &Asked, at: Place<'_>, user: &str) -> Result<Response<Bytes>, Refusal> {
    let lifetime = lifetime(asked)?;
    let (id, grant) = grant(cosmos, asked, at).await?;
    let upsert = asked.flag(header::UPSERT);
    let (permission, is_new) = cosmos.directory().create_permission(at, user, &id, grant, upsert)?;
    Ok(written(is_new, &with_token(cosmos, at.now, user, &id, &permission, lifetime).await))
}

async fn one(cosmos: &Cosmos, asked: &Asked, at: Place<'_>, user: &str, id: &str) -> Result<Response<Bytes>, Refusal> {
    match asked.method.as_str() {
        "GET" => {
            let lifetime = lifetime(asked)?;
            let permission = cosmos.directory().permission(at.database, user, id)?;
            let body = with_token(cosmos, at.now, user, id, &permission, lifetime).await;
            Ok(json_answer(StatusCode::OK, READ_CHARGE, &body))
        }
        "PUT" => {
            let lifetime = lifetime(asked)?;
            let (new, grant) = grant(cosmos, asked, at).await?;
            let permission = cosmos.directory().replace_permission(at, user, id, &new, grant)?;
            Ok(written(false, &with_token(cosmos, at.now, user, &new, &permission, lifetime).await))
        }
        "DELETE" => cosmos.directory().delete_permission(at.database, user, id).map(|()| deleted()),
        method => Err(Refusal::NotServed(method.to_owned())),
    }
}

/// The permission with a token that nobody has had before.
async fn with_token(
    cosmos: &Cosmos,
    now: Timestamp,
    user: &str,
    id: &str,
    permission: &Permission,
    lifetime: i64,
) -> Value {
    let Grant { mode, link, key } = &permission.grant;
    let container = cosmos.0.emulator.container(&link.database, &link.container).await;
    let claim = Claim {
        user: user.to_owned(),
        permission: id.to_owned(),
        permission_rid: permission.rid().to_owned(),
        mode: *mode,
        database: link.database.clone(),
        container: link.container.clone(),
        // Of a container that is gone the token opens nothing.
        container_rid: container.map(|container| container.rid).unwrap_or_default(),
        child: link.child.clone(),
        key: key.clone(),
        start: now.as_secs(),
        expiry: now.as_secs().saturating_add(lifetime),
    };
    permission.to_json(id, cosmos.mint(claim))
}

fn body(asked: &Asked) -> Result<Value, Refusal> {
    let body: Value = serde_json::from_slice(&asked.body).map_err(|_| Refusal::InvalidBody)?;
    if body.is_object() { Ok(body) } else { Err(Refusal::InvalidBody) }
}

fn text<'a>(body: &'a Value, name: &str) -> Option<&'a str> {
    body.get(name).and_then(Value::as_str)
}

fn body_id(body: &Value) -> Result<String, Refusal> {
    let id = text(body, "id").ok_or_else(|| Refusal::MissingProperties("id".to_owned()))?;
    let is_sound = (1..=255).contains(&id.chars().count()) && !id.contains(['/', '\\', '?', '#']);
    if is_sound { Ok(id.to_owned()) } else { Err(Refusal::InvalidId) }
}

/// The id and the grant in the body of a permission.
async fn grant(cosmos: &Cosmos, asked: &Asked, at: Place<'_>) -> Result<(String, Grant), Refusal> {
    let body = body(asked)?;
    let missing: Vec<&str> =
        ["id", "permissionMode", "resource"].into_iter().filter(|name| text(&body, name).is_none()).collect();
    if !missing.is_empty() {
        return Err(Refusal::MissingProperties(missing.join("; ")));
    }
    let id = body_id(&body)?;
    let mode = match text(&body, "permissionMode").unwrap_or_default() {
        "All" => Mode::All,
        "Read" => Mode::Read,
        other => return Err(Refusal::InvalidPermissionMode(other.to_owned())),
    };
    let resource = text(&body, "resource").unwrap_or_default();
    let link = Link::parse(resource).filter(|link| link.database == at.database);
    let link = link.ok_or_else(|| Refusal::InvalidResourceLink(resource.to_owned()))?;
    let container = cosmos.0.emulator.container(&link.database, &link.container).await.ok_or(Refusal::NotFound)?;
    let key = body.get("resourcePartitionKey").cloned();
    if let Some(key) = &key {
        let key = Key::from_json(key).ok_or(Refusal::InvalidPartitionKey)?;
        if !(1..=container.key_paths.len()).contains(&key.depth()) {
            return Err(Refusal::InvalidPartitionKey);
        }
    }
    Ok((id, Grant { mode, link, key }))
}

/// How long the token asked for shall live, in seconds.
fn lifetime(asked: &Asked) -> Result<i64, Refusal> {
    let Some(value) = asked.header(header::EXPIRY) else { return Ok(DEFAULT_LIFETIME) };
    match value.trim().parse::<i64>() {
        Ok(seconds) if (0..SHORTEST_LIFETIME).contains(&seconds) => Err(Refusal::ExpiryTooSmall),
        Ok(seconds) if (SHORTEST_LIFETIME..=LONGEST_LIFETIME).contains(&seconds) => Ok(seconds),
        _ => Err(Refusal::InvalidExpiry(value.to_owned())),
    }
}

/// One page of a feed. The continuation is the id after which the next page begins.
fn page(asked: &Asked, rid: &str, name: &str, entries: Vec<(Value, String)>) -> Result<Response<Bytes>, Refusal> {
    let most = asked.header(header::MAX_ITEM_COUNT).and_then(|count| count.parse().ok()).unwrap_or(PAGE).max(1);
    let after = asked.header(header::CONTINUATION).unwrap_or_default();
    let mut rest = entries.into_iter().skip_while(|(_, id)| !after.is_empty() && id.as_str() <= after).peekable();
    let page: Vec<(Value, String)> = rest.by_ref().take(most).collect();
    let next = rest.peek().and(page.last()).map(|(_, id)| id.clone());
    let count = page.len();
    let values: Vec<Value> = page.into_iter().map(|(value, _)| value).collect();
    let mut response = json_answer(StatusCode::OK, READ_CHARGE, &json!({ "_rid": rid, name: values, "_count": count }));
    response.headers_mut().insert(header::ITEM_COUNT, HeaderValue::from(count));
    if let Some(next) = next {
        let next = HeaderValue::try_from(next).map_err(|_| Refusal::InvalidId)?;
        response.headers_mut().insert(header::CONTINUATION, next);
    }
    Ok(response)
}

fn written(is_new: bool, body: &Value) -> Response<Bytes> {
    json_answer(if is_new { StatusCode::CREATED } else { StatusCode::OK }, WRITE_CHARGE, body)
}

fn deleted() -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::REQUEST_CHARGE, HeaderValue::from_static(WRITE_CHARGE));
    response
}

/// An answer with a JSON body, its charge, and its etag where it has one.
pub(super) fn json_answer(status: StatusCode, charge: &'static str, body: &Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::REQUEST_CHARGE, HeaderValue::from_static(charge));
    if let Some(etag) = text(body, "_etag").and_then(|etag| HeaderValue::try_from(etag).ok()) {
        response.headers_mut().insert(http::header::ETAG, etag);
    }
    response
}
