//! Users and their permissions: what exists, and which of them may not exist together.
//!
//! Ids are unique in their parent, and a user has at most one permission for a resource, whatever its partition key (REST
//! reference, "Create a permission"; whether the partition key is part of that rule nobody says, so it is not).

use std::collections::{BTreeMap, HashMap};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{keyring::Mode, refusal::Refusal};
use crate::clock::Timestamp;

/// A user of one database.
#[derive(Clone, Debug)]
pub(super) struct User {
    stamp: Stamp,
    permissions: BTreeMap<String, Permission>,
}

/// A permission of one user.
#[derive(Clone, Debug)]
pub(super) struct Permission {
    stamp: Stamp,
    pub(super) grant: Grant,
}

/// What a permission gives.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Grant {
    pub(super) mode: Mode,
    pub(super) link: Link,
    /// `resourcePartitionKey`: a JSON array.
    pub(super) key: Option<Value>,
}

/// `resource`: a container by name, or one thing in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Link {
    pub(super) database: String,
    pub(super) container: String,
    /// Its kind and id: `("docs", "1")`.
    pub(super) child: Option<(String, String)>,
}

impl Link {
    /// The link in `text`, which must be shorter than 256 characters and more than a database's.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let segments: Vec<&str> = text.trim_matches('/').split('/').collect();
        let ["dbs", database, "colls", container, child @ ..] = segments.as_slice() else { return None };
        let child = match child {
            [] => None,
            [kind @ ("docs" | "sprocs" | "triggers" | "udfs"), id] => Some(((*kind).to_owned(), (*id).to_owned())),
            _ => return None,
        };
        let is_sound = text.chars().count() < 256 && segments.iter().all(|segment| !segment.is_empty());
        is_sound.then(|| Self { database: (*database).into(), container: (*container).into(), child })
    }

    fn text(&self) -> String {
        let container = format!("dbs/{}/colls/{}", self.database, self.container);
        match &self.child {
            None => container,
            Some((kind, id)) => format!("{container}/{kind}/{id}"),
        }
    }
}

/// `_rid`, `_ts` and `_etag`.
#[derive(Clone, Debug)]
struct Stamp {
    rid: String,
    link: String,
    ts: i64,
    etag: String,
}

impl User {
    /// The user as JSON.
    pub(super) fn to_json(&self, id: &str) -> Value {
        self.stamp.around(json!({ "id": id, "_permissions": "permissions/" }))
    }
}

impl Permission {
    pub(super) fn rid(&self) -> &str {
        &self.stamp.rid
    }

    /// The permission as JSON, with a token.
    pub(super) fn to_json(&self, id: &str, token: String) -> Value {
        let mut body = json!({
            "id": id, "permissionMode": self.grant.mode, "resource": self.grant.link.text(), "_token": token,
        });
        if let (Some(key), Some(members)) = (&self.grant.key, body.as_object_mut()) {
            members.insert("resourcePartitionKey".to_owned(), key.clone());
        }
        self.stamp.around(body)
    }
}

impl Stamp {
    fn around(&self, mut body: Value) -> Value {
        if let Some(members) = body.as_object_mut() {
            members.insert("_rid".to_owned(), self.rid.clone().into());
            members.insert("_self".to_owned(), self.link.clone().into());
            members.insert("_ts".to_owned(), self.ts.into());
            members.insert("_etag".to_owned(), self.etag.clone().into());
        }
        body
    }
}

/// All users and permissions of the account.
#[derive(Default)]
pub(super) struct Directory {
    databases: HashMap<String, BTreeMap<String, User>>,
    made: u64,
}

/// Where in the directory something is, with the rid of the database it is in.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) database: &'a str,
    pub(super) database_rid: &'a str,
    pub(super) now: Timestamp,
}

impl Directory {
    /// Forgets the users of a database that is gone.
    pub(super) fn forget(&mut self, database: &str) {
        self.databases.remove(database);
    }

    /// The users of a database, by id.
    pub(super) fn users(&self, database: &str) -> Vec<(String, User)> {
        self.databases.get(database).into_iter().flatten().map(|(id, user)| (id.clone(), user.clone())).collect()
    }

    pub(super) fn user(&self, database: &str, id: &str) -> Result<User, Refusal> {
        self.databases.get(database).and_then(|users| users.get(id)).cloned().ok_or(Refusal::NotFound)
    }

    /// Creates a user; `upsert` takes one that is there already. The flag says whether it is new.
    pub(super) fn create_user(&mut self, at: Place<'_>, id: &str, upsert: bool) -> Result<(User, bool), Refusal> {
        match self.user(at.database, id) {
            Ok(user) if upsert => return Ok((user, false)),
            Ok(_) => return Err(Refusal::Conflict),
            Err(_) => {}
        }
        let parent = STANDARD.decode(at.database_rid).unwrap_or_default();
        let rid = self.next_rid(parent, 4);
        let link = format!("dbs/{}/users/{rid}/", at.database_rid);
        let user = User { stamp: self.stamp(rid, link, at.now), permissions: BTreeMap::new() };
        self.databases.entry(at.database.to_owned()).or_default().insert(id.to_owned(), user.clone());
        Ok((user, true))
    }

    /// Renames a user; its permissions go with it.
    pub(super) fn rename_user(&mut self, at: Place<'_>, id: &str, new: &str) -> Result<User, Refusal> {
        let mut user = self.user(at.database, id)?;
        if id != new && self.user(at.database, new).is_ok() {
            return Err(Refusal::Conflict);
        }
        user.stamp = self.stamp(user.stamp.rid, user.stamp.link, at.now);
        let users = self.databases.entry(at.database.to_owned()).or_default();
        users.remove(id);
        users.insert(new.to_owned(), user.clone());
        Ok(user)
    }

    pub(super) fn delete_user(&mut self, database: &str, id: &str) -> Result<(), Refusal> {
        self.databases.get_mut(database).and_then(|users| users.remove(id)).map(|_| ()).ok_or(Refusal::NotFound)
    }

    /// The rid of a user, and its permissions by id.
    pub(super) fn permissions(
        &self,
        database: &str,
        user: &str,
    ) -> Result<(String, Vec<(String, Permission)>), Refusal> {
        let user = self.user(database, user).map_err(|_| Refusal::OwnerNotFound)?;
        Ok((user.stamp.rid, user.permissions.into_iter().collect()))
    }

    pub(super) fn permission(&self, database: &str, user: &str, id: &str) -> Result<Permission, Refusal> {
        let user = self.user(database, user).map_err(|_| Refusal::OwnerNotFound)?;
        user.permissions.get(id).cloned().ok_or(Refusal::NotFound)
    }

    /// Creates a permission, or with `upsert` replaces the one of that id. The flag says whether it is new.
    pub(super) fn create_permission(
        &mut self,
        at: Place<'_>,
        user: &str,
        id: &str,
        grant: Grant,
        upsert: bool,
    ) -> Result<(Permission, bool), Refusal> {
        match self.permission(at.database, user, id) {
            Ok(_) if upsert => return Ok((self.replace_permission(at, user, id, id, grant)?, false)),
            Ok(_) => return Err(Refusal::Conflict),
            Err(Refusal::NotFound) => {}
            Err(other) => return Err(other),
        }
        let owner = self.user(at.database, user).map_err(|_| Refusal::OwnerNotFound)?;
        if owner.holds(&grant.link, None) {
            return Err(Refusal::Conflict);
        }
        let rid = self.next_rid(STANDARD.decode(&owner.stamp.rid).unwrap_or_default(), 8);
        let link = format!("{}permissions/{rid}/", owner.stamp.link);
        let permission = Permission { stamp: self.stamp(rid, link, at.now), grant };
        self.put(at.database, user, id, permission.clone());
        Ok((permission, true))
    }

    /// Replaces a permission, and renames it where `new` is another id.
    pub(super) fn replace_permission(
        &mut self,
        at: Place<'_>,
        user: &str,
        id: &str,
        new: &str,
        grant: Grant,
    ) -> Result<Permission, Refusal> {
        let old = self.permission(at.database, user, id)?;
        let owner = self.user(at.database, user)?;
        if owner.holds(&grant.link, Some(id)) || (id != new && owner.permissions.contains_key(new)) {
            return Err(Refusal::Conflict);
        }
        let permission = Permission { stamp: self.stamp(old.stamp.rid, old.stamp.link, at.now), grant };
        self.delete_permission(at.database, user, id)?;
        self.put(at.database, user, new, permission.clone());
        Ok(permission)
    }

    pub(super) fn delete_permission(&mut self, database: &str, user: &str, id: &str) -> Result<(), Refusal> {
        let owner = self.databases.get_mut(database).and_then(|users| users.get_mut(user));
        let owner = owner.ok_or(Refusal::OwnerNotFound)?;
        owner.permissions.remove(id).map(|_| ()).ok_or(Refusal::NotFound)
    }

    fn put(&mut self, database: &str, user: &str, id: &str, permission: Permission) {
        if let Some(owner) = self.databases.get_mut(database).and_then(|users| users.get_mut(user)) {
            owner.permissions.insert(id.to_owned(), permission);
        }
    }

    /// A rid is its parent's, and a number of its own.
    fn next_rid(&mut self, mut parent: Vec<u8>, width: usize) -> String {
        self.made += 1;
        let number = self.made.to_be_bytes();
        parent.extend(number.iter().skip(number.len().saturating_sub(width)));
        STANDARD.encode(parent).replace('/', "-")
    }

    fn stamp(&mut self, rid: String, link: String, now: Timestamp) -> Stamp {
        self.made += 1;
        Stamp { rid, link, ts: now.as_secs(), etag: format!("\"{:08x}-0000-0000-0000-000000000000\"", self.made) }
    }
}

impl User {
    /// Whether a permission other than `except` is for `link`.
    fn holds(&self, link: &Link, except: Option<&str>) -> bool {
        self.permissions.iter().any(|(id, held)| held.grant.link == *link && Some(id.as_str()) != except)
    }
}
