//! The operations of a write: how they stand in a batch, what their results mean, and how their results are told from the
//! items once nobody heard them.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{json, value::RawValue};

use super::once::{Answer, Write};
use crate::{
    access::{Action, ItemId, Operation},
    question::Question,
};

/// One operation of a write.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Act {
    pub(super) operation: Operation,
    /// On which item; `None` where the caller leaves the id to the service, which refuses that in a batch.
    pub(super) item: Option<ItemId>,
}

/// An operation as a batch has it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    operation_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_body: Option<Cow<'a, RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    if_match: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    if_none_match: Option<&'a str>,
}

/// The operations of a question, in order.
pub(super) fn acts(question: &Question) -> Vec<Act> {
    match question.action {
        Action::Operation(Operation::Batch) => {
            question.batch.iter().map(|inside| Act { operation: inside.operation, item: inside.item.clone() }).collect()
        }
        Action::Operation(operation) => vec![Act { operation, item: question.item.clone() }],
        Action::QueryPlan | Action::Metadata => Vec::new(),
    }
}

/// The items that the operations write whole, in order.
pub(super) fn sent(question: &Question) -> Vec<Option<&RawValue>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Inside<'a> {
        #[serde(borrow)]
        operation_type: Cow<'a, str>,
        #[serde(default, borrow)]
        resource_body: Option<&'a RawValue>,
    }
    match question.action {
        Action::Operation(Operation::Batch) => {
            let written: Vec<Inside<'_>> = serde_json::from_slice(&question.body).unwrap_or_default();
            written
                .into_iter()
                .map(|inside| inside.resource_body.filter(|_| inside.operation_type != "Patch"))
                .collect()
        }
        Action::Operation(Operation::ItemsCreate | Operation::ItemsUpsert | Operation::ItemsReplace) => {
            vec![serde_json::from_slice(&question.body).ok()]
        }
        _ => vec![None],
    }
}

/// A batch of the marker's creation and what the question asks, in text JSON.
pub(super) fn batch(write: &Write<'_>, marker: &str) -> Result<Bytes, serde_json::Error> {
    let create = RawValue::from_string(format!(r#"{{"operationType":"Create","resourceBody":{marker}}}"#))?;
    let mut operations: Vec<Cow<'_, RawValue>> = vec![Cow::Owned(create)];
    match write.question.action {
        Action::Operation(Operation::Batch) => {
            let written: Vec<&RawValue> = serde_json::from_slice(&write.question.body)?;
            operations.extend(written.into_iter().map(Cow::Borrowed));
        }
        Action::Operation(operation) => operations.push(Cow::Owned(single(write, operation)?)),
        Action::QueryPlan | Action::Metadata => {}
    }
    serde_json::to_vec(&operations).map(Bytes::from)
}

/// A point operation as an operation of a batch.
fn single(write: &Write<'_>, operation: Operation) -> Result<Box<RawValue>, serde_json::Error> {
    let body = || serde_json::from_slice::<&RawValue>(&write.question.body);
    let resource_body = match operation {
        Operation::ItemsDelete => None,
        // The bare list that some callers send is no patch in a batch.
        Operation::ItemsPatch if write.question.body.trim_ascii_start().starts_with(b"[") => {
            Some(Cow::Owned(RawValue::from_string(format!(r#"{{"operations":{}}}"#, body()?.get()))?))
        }
        _ => Some(Cow::Borrowed(body()?)),
    };
    let operation_type = match operation {
        Operation::ItemsCreate => "Create",
        Operation::ItemsUpsert => "Upsert",
        Operation::ItemsReplace => "Replace",
        Operation::ItemsPatch => "Patch",
        _ => "Delete",
    };
    let named = !matches!(operation, Operation::ItemsCreate | Operation::ItemsUpsert);
    let id = write.question.item.as_ref().filter(|_| named).map(ItemId::as_str);
    let (if_match, if_none_match) = (write.if_match, write.if_none_match);
    serde_json::value::to_raw_value(&Written { operation_type, id, resource_body, if_match, if_none_match })
}

/// What became of one operation.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Done<'a> {
    pub(super) status_code: u16,
    #[serde(default)]
    pub(super) sub_status_code: Option<u32>,
    #[serde(default, borrow)]
    e_tag: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    resource_body: Option<&'a RawValue>,
}

impl Done<'_> {
    pub(super) fn etag(&self) -> Option<String> {
        self.e_tag.as_deref().map(str::to_owned)
    }

    /// What a point operation would have been answered. One that deletes has neither etag nor body.
    pub(super) fn answer(&self) -> Answer {
        let gone = self.status_code == 204;
        let body = self.resource_body.filter(|_| !gone).map(|body| body.get().to_owned());
        Answer::given(self.status_code, self.etag().filter(|_| !gone), body)
    }
}

/// An item as it was found after the batch, or the marker itself.
#[derive(Clone, PartialEq, Debug)]
pub struct Found {
    /// `x-ms-item-lsn`: the transaction that wrote it last.
    pub lsn: Option<u64>,
    /// Its etag.
    pub etag: Option<String>,
    /// The document.
    pub body: Bytes,
}

/// The service's own members of a document.
#[derive(Deserialize, Default)]
struct System<'a> {
    #[serde(default, rename = "_rid", borrow)]
    rid: Option<Cow<'a, str>>,
    #[serde(default, rename = "_ts")]
    ts: Option<u64>,
}

impl Found {
    fn system(&self) -> System<'_> {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Whether the transaction that wrote `marker` wrote it last, or (`read`) found it as it still is. Where Cosmos does not
    /// tell the transaction, the second in which it happened must do.
    fn is_as_left(&self, marker: &Self, read: bool) -> bool {
        let (own, batch) = match (self.lsn, marker.lsn) {
            (Some(own), Some(batch)) => (Some(own), Some(batch)),
            _ => (self.system().ts, marker.system().ts),
        };
        own.is_some() && if read { own <= batch } else { own == batch }
    }

    /// Whether it was made after `marker`, which is made first in its batch. The last half of a document's rid counts the
    /// documents of its partition, with the least significant byte first.
    fn is_younger_than(&self, marker: &Self) -> bool {
        let ordinal = |found: &Self| -> Option<u64> {
            let rid = STANDARD.decode(found.system().rid?.replace('-', "/")).ok()?;
            rid.get(8..16)?.try_into().ok().map(u64::from_le_bytes)
        };
        matches!((ordinal(self), ordinal(marker)), (Some(own), Some(marker)) if own > marker)
    }
}

/// What stands in the place of a body that nobody knows any more.
const GONE: &str = r#"{"stepgate":{"bodyDropped":true,"reason":"the answer was lost, and the item is gone"}}"#;

/// The answer that nobody heard, told from what was sent, from the marker and from the items as they are now; each in the order
/// of the acts.
pub(super) fn rebuild(
    acts: &[Act],
    sent: &[Option<&RawValue>],
    is_batch: bool,
    marker: &Found,
    items: &[Option<Found>],
) -> Answer {
    let told = acts.iter().enumerate().map(|(at, act)| {
        let later = acts.iter().skip(at + 1).any(|later| later.item == act.item);
        let found = items.get(at).and_then(Option::as_ref);
        Told::of(act, found, sent.get(at).copied().flatten(), later, marker)
    });
    let told: Vec<Told<'_>> = told.collect();
    match told.as_slice() {
        [told] if !is_batch => {
            let body = told.body.as_deref().map(str::to_owned);
            Answer { status: told.status, etag: told.etag.map(str::to_owned), body, changed: told.changed }
        }
        told => {
            let results = serde_json::Value::from_iter(told.iter().map(Told::as_result));
            let changed = told.iter().any(|told| told.changed);
            Answer { status: 200, etag: None, body: Some(results.to_string()), changed }
        }
    }
}

/// What is told of one act.
struct Told<'a> {
    status: u16,
    etag: Option<&'a str>,
    body: Option<Cow<'a, str>>,
    changed: bool,
}

impl<'a> Told<'a> {
    /// `later`: another act of the same batch was about the same item, so what was found is that one's.
    fn of(act: &Act, found: Option<&'a Found>, sent: Option<&'a RawValue>, later: bool, marker: &Found) -> Self {
        let status = match act.operation {
            Operation::ItemsDelete => return Self { status: 204, etag: None, body: None, changed: false },
            Operation::ItemsCreate => 201,
            Operation::ItemsUpsert if found.is_some_and(|found| found.is_younger_than(marker)) => 201,
            _ => 200,
        };
        let as_left = found.filter(|found| !later && found.is_as_left(marker, act.operation == Operation::ItemsRead));
        if let Some(found) = as_left {
            return Self { status, etag: found.etag.as_deref(), body: Some(found.text()), changed: false };
        }
        // What was written whole is known; of anything else the item as it is now is the nearest.
        let body = sent.map(|sent| sent.get().into()).or_else(|| found.map(Found::text));
        Self { status, etag: None, body: Some(body.unwrap_or(GONE.into())), changed: true }
    }

    fn as_result(&self) -> serde_json::Value {
        let mut result = json!({ "statusCode": self.status, "requestCharge": 0 });
        if let (Some(body), Some(members)) = (&self.body, result.as_object_mut()) {
            members.insert("resourceBody".to_owned(), serde_json::from_str(body).unwrap_or_default());
            if let Some(etag) = self.etag {
                members.insert("eTag".to_owned(), etag.into());
            }
        }
        result
    }
}

impl Found {
    fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn found(lsn: Option<u64>, ordinal: u64, ts: u64) -> Found {
        let rid = STANDARD.encode([&[1; 8][..], &ordinal.to_le_bytes()].concat()).replace('/', "-");
        let body = json!({ "id": "a", "_rid": rid, "_ts": ts }).to_string().into();
        Found { lsn, etag: Some("\"1\"".into()), body }
    }

    fn act(operation: Operation, id: &str) -> Act {
        Act { operation, item: Some(ItemId::new(id).unwrap()) }
    }

    #[test]
    fn an_answer_is_rebuilt_where_the_item_is_as_the_batch_left_it() {
        let marker = found(Some(7), 256, 100);
        let sent: &RawValue = serde_json::from_str(r#"{"sent":true}"#).unwrap();
        for (operation, item, status, known) in [
            (Operation::ItemsCreate, Some(found(Some(7), 257, 100)), 201, true),
            (Operation::ItemsCreate, Some(found(Some(8), 257, 100)), 201, false),
            (Operation::ItemsCreate, None, 201, false),
            (Operation::ItemsUpsert, Some(found(Some(7), 257, 100)), 201, true),
            (Operation::ItemsUpsert, Some(found(Some(7), 255, 100)), 200, true),
            (Operation::ItemsPatch, Some(found(Some(7), 2, 100)), 200, true),
            (Operation::ItemsPatch, Some(found(None, 2, 100)), 200, true),
            (Operation::ItemsPatch, Some(found(None, 2, 101)), 200, false),
            (Operation::ItemsPatch, None, 200, false),
            (Operation::ItemsReplace, Some(found(Some(9), 2, 100)), 200, false),
        ] {
            let whole = (operation != Operation::ItemsPatch).then_some(sent);
            let answer = rebuild(&[act(operation, "a")], &[whole], false, &marker, std::slice::from_ref(&item));
            assert_eq!((answer.status, answer.etag.is_some()), (status, known), "{operation} {item:?}");
            let shown = match (&item, whole) {
                (Some(item), _) if known => item.text(),
                (_, Some(sent)) => sent.get().into(),
                (Some(item), None) => item.text(),
                (None, None) => GONE.into(),
            };
            assert_eq!((answer.body.as_deref(), answer.changed), (Some(&*shown), !known), "{operation} {item:?}");
        }
        let deleted = rebuild(&[act(Operation::ItemsDelete, "a")], &[None], false, &marker, &[None]);
        assert_eq!(deleted, Answer::given(204, None, None));
    }

    #[test]
    fn the_results_of_a_batch_are_rebuilt_one_by_one() {
        let marker = found(Some(7), 10, 100);
        let acts = [
            act(Operation::ItemsCreate, "a"),
            act(Operation::ItemsPatch, "a"),
            act(Operation::ItemsRead, "b"),
            act(Operation::ItemsDelete, "c"),
        ];
        let items = [Some(found(Some(7), 11, 100)), Some(found(Some(7), 11, 100)), Some(found(Some(3), 2, 9)), None];
        let sent: &RawValue = serde_json::from_str(r#"{"sent":true}"#).unwrap();
        let answer = rebuild(&acts, &[Some(sent), None, None, None], true, &marker, &items);
        let results: Value = serde_json::from_str(&answer.body.unwrap()).unwrap();
        let told: Vec<_> = results
            .as_array()
            .unwrap()
            .iter()
            .map(|result| {
                let (status, body) = (result["statusCode"].as_u64().unwrap(), result.get("resourceBody"));
                (status, result.get("eTag").is_some(), body.map(|body| body.get("sent").is_some()))
            })
            .collect();
        let first_shows_what_was_sent = (201, false, Some(true));
        assert_eq!(
            told,
            [first_shows_what_was_sent, (200, true, Some(false)), (200, true, Some(false)), (204, false, None)]
        );
        assert!(answer.changed);
    }

    #[test]
    fn what_is_sent_whole_is_read_from_the_question() {
        let question = |action, body: &'static str| Question {
            action: Action::Operation(action),
            container: "shop/orders".parse().unwrap(),
            partition_key: None,
            item: None,
            batch: Vec::new(),
            method: http::Method::POST,
            path: String::new(),
            body: Bytes::from_static(body.as_bytes()),
        };
        let told = |question: &Question| -> Vec<Option<String>> {
            sent(question).into_iter().map(|sent| sent.map(|sent| sent.get().to_owned())).collect()
        };
        assert_eq!(told(&question(Operation::ItemsReplace, r#"{"id":"1"}"#)), [Some(r#"{"id":"1"}"#.to_owned())]);
        assert_eq!(told(&question(Operation::ItemsPatch, "[]")), [None]);
        let batch = r#"[{"operationType":"Create","resourceBody":{"id":"1"}},{"operationType":"Patch","id":"1","resourceBody":{}},{"operationType":"Delete","id":"1"}]"#;
        assert_eq!(told(&question(Operation::Batch, batch)), [Some(r#"{"id":"1"}"#.to_owned()), None, None]);
    }
}
