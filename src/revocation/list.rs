//! The list as it is kept: one JSON document, the same in a file and in a container.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{
    Full, MOST,
    target::{Order, Target, time},
};
use crate::clock::Timestamp;

/// A target that is refused.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Revocation {
    /// What it is called; made from the target.
    pub id: String,
    /// Whose requests are refused.
    pub target: Target,
    /// Why, in the operator's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when.
    #[serde(serialize_with = "write_time", deserialize_with = "read_time")]
    pub since: Timestamp,
    /// When it ends by itself.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "write_end",
        deserialize_with = "read_end"
    )]
    pub until: Option<Timestamp>,
}

impl Revocation {
    /// Whether it is in force.
    pub fn holds(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// A list that cannot be understood. It is not taken for an empty one.
#[derive(Debug, thiserror::Error)]
#[error("this is no list of revocations: {0}")]
pub struct Unreadable(#[from] serde_json::Error);

/// Every revocation, oldest first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct List(Vec<Arc<Revocation>>);

/// The list as it is written.
#[derive(Serialize, Deserialize)]
pub(super) struct Document {
    /// The document's id in a container; its partition key too.
    id: String,
    revocations: Vec<Arc<Revocation>>,
}

/// The id of the document.
pub(super) const DOCUMENT: &str = "revocations";

impl List {
    pub(super) fn parse(text: &[u8]) -> Result<Self, Unreadable> {
        let document: Document = serde_json::from_slice(text)?;
        if document.id != DOCUMENT {
            return Err(Unreadable(serde_json::Error::custom(format_args!("its id is not `{DOCUMENT}`"))));
        }
        Ok(Self(document.revocations))
    }

    pub(super) fn render(&self) -> Result<Vec<u8>, Unreadable> {
        Ok(serde_json::to_vec_pretty(&self.to_document())?)
    }

    /// The document of the list.
    pub(super) fn to_document(&self) -> Document {
        Document { id: DOCUMENT.to_owned(), revocations: self.0.clone() }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Revocation>> {
        self.0.iter()
    }

    pub(super) fn get(&self, id: &str) -> Option<Arc<Revocation>> {
        self.0.iter().find(|revocation| revocation.id == id).cloned()
    }

    /// Adds what an order asks for. Said again, it takes the new reason and the new end, and keeps its beginning.
    pub(super) fn add(&mut self, order: Order, now: Timestamp) -> Result<Arc<Revocation>, Full> {
        let id = order.target.id();
        let since = self.get(&id).map_or(now, |before| before.since);
        let revocation = Revocation { id, target: order.target, reason: order.reason, since, until: order.until };
        self.put(Arc::new(revocation))
    }

    /// Puts a revocation in, in the place of one of the same id.
    pub(super) fn put(&mut self, revocation: Arc<Revocation>) -> Result<Arc<Revocation>, Full> {
        let is_full = self.0.len() >= MOST;
        match self.0.iter_mut().find(|known| known.id == revocation.id) {
            Some(known) => *known = Arc::clone(&revocation),
            None if is_full => return Err(Full),
            None => self.0.push(Arc::clone(&revocation)),
        }
        Ok(revocation)
    }

    pub(super) fn without(&self, id: &str) -> Self {
        Self(self.0.iter().filter(|revocation| revocation.id != id).cloned().collect())
    }

    pub(super) fn without_ended(&self, now: Timestamp) -> Self {
        Self(self.0.iter().filter(|revocation| revocation.holds(now)).cloned().collect())
    }
}

impl fmt::Display for Revocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} since {}", self.target, self.since.rfc3339())
    }
}

fn write_time<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time.rfc3339())
}

fn write_end<S: Serializer>(end: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    end.map(Timestamp::rfc3339).serialize(serializer)
}

fn read_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    let text = String::deserialize(deserializer)?;
    time(&text).ok_or_else(|| D::Error::custom(format_args!("`{text}` is no time")))
}

fn read_end<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    read_time(deserializer).map(Some)
}
