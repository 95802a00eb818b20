//! One write, as it must be done once: the batch that does it, and the reading of what came of it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};

use super::{
    Found, IdempotencyError, Layout,
    act::{self, Act, Done},
    key,
    mac::MacKey,
    marker::{self, Marker},
};
use crate::{
    access::{Action, ItemId, Operation, PartitionKey},
    question::Question,
};

/// Most operations beside the marker.
const MOST: usize = 99;

/// A write that policy permitted, and the marker it is done under.
#[derive(Clone, Debug)]
pub struct Write<'a> {
    /// The marker's id, which is the key.
    pub marker: ItemId,
    /// What is asked.
    pub question: &'a Question,
    /// The partition it runs in.
    pub partition_key: Option<&'a PartitionKey>,
    /// Its condition.
    pub if_match: Option<&'a str>,
    /// Its other condition.
    pub if_none_match: Option<&'a str>,
}

/// The answer to a write as the caller gets it, and as a marker keeps it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The etag, of a point operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// The body, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Whether nobody knows any more how it was told the first time: it was lost, and somebody else has written the item since.
    /// Then the body is what was written, or of a patch the item as it was found.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub changed: bool,
}

impl Answer {
    /// An answer that Cosmos itself gave.
    pub(super) fn given(status: u16, etag: Option<String>, body: Option<String>) -> Self {
        Self { status, etag, body, changed: false }
    }
}

/// What came of a batch.
#[derive(Clone, PartialEq, Debug)]
pub enum Outcome {
    /// The write was done, by this batch.
    Done {
        /// How it is answered.
        answer: Answer,
        /// The marker's etag: the answer is noted in this version of it.
        marker: Option<String>,
    },
    /// The marker was there already: the write was done before.
    Marked,
    /// Nothing was done, for this reason.
    Failed {
        /// The status of the operation that failed, or 207 for a batch that the caller sent as one.
        status: StatusCode,
        /// Its substatus, where there is one.
        substatus: Option<u32>,
        /// The body that a caller knows for it.
        body: Bytes,
    },
    /// It is no answer to the batch but to the request as a whole: throttled, unavailable, malformed.
    Unread,
}

/// What a marker tells whoever comes with its key again.
#[derive(Clone, PartialEq, Debug)]
pub enum Told {
    /// The first answer.
    Answer(Answer),
    /// That the write was done; the answer was not noted.
    Nothing,
}

/// A write under its marker.
#[derive(Debug)]
pub struct Once<'a> {
    write: Write<'a>,
    acts: Vec<Act>,
    fingerprint: String,
    /// Where the marker stands: its container, partition and id.
    place: String,
    /// The marker without what it says: its id, its partition and how long it lives.
    document: Map<String, Value>,
    keys: Arc<Vec<Arc<MacKey>>>,
}

impl<'a> Once<'a> {
    pub(super) fn new(
        write: Write<'a>,
        layout: &Layout,
        keys: Arc<Vec<Arc<MacKey>>>,
        ttl: Duration,
    ) -> Result<Self, IdempotencyError> {
        let acts = act::acts(write.question);
        if acts.len() > MOST {
            return Err(IdempotencyError::TooMany);
        }
        let mut document = Map::from_iter([
            ("id".to_owned(), Value::from(write.marker.as_str())),
            ("ttl".to_owned(), Value::from(ttl.as_secs())),
        ]);
        layout.place(&write.question.container, write.partition_key, &write.marker, &mut document)?;
        let partition = write.partition_key.map(ToString::to_string).unwrap_or_default();
        let place = format!("{}\n{partition}\n{}", write.question.container.link(), write.marker.as_str());
        let fingerprint = fingerprint(&write, &partition);
        Ok(Self { write, acts, fingerprint, place, document, keys })
    }

    /// The marker's id.
    pub fn marker(&self) -> &ItemId {
        &self.write.marker
    }

    /// The items that the write is about, in the order of its operations.
    pub fn items(&self) -> impl Iterator<Item = Option<&ItemId>> {
        self.acts.iter().map(|act| act.item.as_ref())
    }

    /// The body of the batch.
    pub fn batch(&self) -> Result<Bytes, IdempotencyError> {
        let marker = self.sealed(None)?;
        act::batch(&self.write, &marker).map_err(|_| IdempotencyError::Unreadable("the request's own body"))
    }

    /// What came of the batch.
    pub fn read(&self, status: StatusCode, body: &[u8]) -> Outcome {
        let Ok(results) = serde_json::from_slice::<Vec<Done<'_>>>(body) else { return Outcome::Unread };
        let Some((marker, results)) = results.split_first() else { return Outcome::Unread };
        if marker.status_code == StatusCode::CONFLICT {
            return Outcome::Marked;
        }
        let fails = |done: &Done<'_>| done.status_code >= 400 && done.status_code != 424;
        match results.iter().find(|done| fails(done)) {
            Some(failed) => self.failed(failed, body),
            // The marker could not be written for a reason of its own: throttled, or the partition is full.
            None if fails(marker) => Self::failed_alone(marker),
            None if status == StatusCode::OK => {
                let answer = match results {
                    [done] if !self.is_batch() => done.answer(),
                    _ => Answer::given(200, None, Some(text_of(&without_first(body)))),
                };
                Outcome::Done { answer, marker: marker.etag() }
            }
            None => Outcome::Unread,
        }
    }

    /// What the marker says, which was found where this write's would stand.
    pub fn told(&self, document: &[u8]) -> Result<Told, IdempotencyError> {
        let Marker { fingerprint, answer } = Marker::open(document, &self.keys, &self.place)?;
        if fingerprint != self.fingerprint {
            return Err(IdempotencyError::Mismatch);
        }
        Ok(answer.map_or(Told::Nothing, Told::Answer))
    }

    /// The answer that nobody heard, told from the marker and the items as they are now.
    pub fn rebuild(&self, marker: &Found, items: &[Option<Found>]) -> Answer {
        act::rebuild(&self.acts, &act::sent(self.write.question), self.is_batch(), marker, items)
    }

    /// The marker with the answer noted in it: with its body where there is room for it.
    pub fn noted(&self, answer: &Answer) -> Result<Bytes, IdempotencyError> {
        let whole = self.sealed(Some(answer.clone()))?;
        if marker::fits(&whole) {
            return Ok(whole.into());
        }
        let bytes = answer.body.as_deref().unwrap_or_default().len();
        let stub = format!(r#"{{"stepgate":{{"bodyDropped":true,"bytes":{bytes}}}}}"#);
        self.sealed(Some(Answer { body: Some(stub), ..answer.clone() })).map(Bytes::from)
    }

    fn is_batch(&self) -> bool {
        self.write.question.action == Action::Operation(Operation::Batch)
    }

    fn sealed(&self, answer: Option<Answer>) -> Result<String, IdempotencyError> {
        let unwritten = |_| IdempotencyError::Unreadable("the marker to be written");
        let key = self.keys.first().ok_or(IdempotencyError::Unbelievable)?;
        let marker = Marker { fingerprint: self.fingerprint.clone(), answer };
        let mut document = self.document.clone();
        document.insert("stepgate".to_owned(), marker.seal(key, &self.place).map_err(unwritten)?);
        serde_json::to_string(&document).map_err(unwritten)
    }

    /// What the caller is told of a batch that was not done.
    fn failed(&self, failed: &Done<'_>, body: &[u8]) -> Outcome {
        if self.is_batch() {
            Outcome::Failed { status: StatusCode::MULTI_STATUS, substatus: None, body: without_first(body) }
        } else {
            Self::failed_alone(failed)
        }
    }

    /// The failure of one operation, as a point operation is answered.
    fn failed_alone(failed: &Done<'_>) -> Outcome {
        let status = StatusCode::from_u16(failed.status_code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let message = match failed.status_code {
            404 => "Entity with the specified id does not exist in the system.",
            409 => "Entity with the specified id already exists in the system.",
            412 => "One of the specified pre-condition is not met.",
            413 => "Request size is too large",
            _ => "The write was not done.",
        };
        let code = status.canonical_reason().unwrap_or("Unknown").replace(' ', "");
        let body = serde_json::json!({ "code": code, "message": message }).to_string().into();
        Outcome::Failed { status, substatus: failed.sub_status_code, body }
    }
}

/// What two sendings of the same request have in common, and two requests have not.
fn fingerprint(write: &Write<'_>, partition: &str) -> String {
    let told = |text: Option<&str>| text.map_or_else(String::new, |text| format!("={text}"));
    let question = write.question;
    key::digest(&[
        question.action.as_str().as_bytes(),
        question.path.as_bytes(),
        partition.as_bytes(),
        told(write.if_match).as_bytes(),
        told(write.if_none_match).as_bytes(),
        &question.body,
    ])
}

/// The results of a batch without the marker's, each as it was written.
fn without_first(body: &[u8]) -> Bytes {
    let results: Vec<&RawValue> = serde_json::from_slice(body).unwrap_or_default();
    serde_json::to_vec(results.get(1..).unwrap_or_default()).unwrap_or_default().into()
}

fn text_of(body: &[u8]) -> String {
    String::from_utf8_lossy(body).into_owned()
}

impl Found {
    /// A document as Cosmos answered it.
    pub fn new(headers: &HeaderMap, body: Bytes) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let lsn = text("x-ms-item-lsn").and_then(|lsn| lsn.parse().ok());
        Self { lsn, etag: text("etag").map(str::to_owned), body }
    }
}
