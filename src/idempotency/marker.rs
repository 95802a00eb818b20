//! The marker: the document that says that a write was done, for what request, and how it was answered.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{IdempotencyError, mac::MacKey, once::Answer};

/// Largest marker that is written, in bytes: Cosmos takes documents of 2 MB, and adds to them.
const LARGEST: usize = 2_000_000;

/// What a marker says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Marker {
    pub(super) fingerprint: String,
    /// The first answer, once it is known.
    pub(super) answer: Option<Answer>,
}

/// The member `stepgate` of the document.
#[derive(Serialize, Deserialize)]
struct Sealed {
    version: u8,
    key: String,
    fingerprint: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answer: Option<Answer>,
    mac: String,
}

/// What of the document is read beside that.
#[derive(Deserialize)]
struct Document {
    stepgate: Sealed,
}

const VERSION: u8 = 1;

impl Marker {
    /// The member that a document at `place` carries.
    pub(super) fn seal(self, key: &MacKey, place: &str) -> Result<serde_json::Value, serde_json::Error> {
        let mac = key.seal(&self.parts(place, &self.status()));
        let Self { fingerprint, answer } = self;
        serde_json::to_value(Sealed { version: VERSION, key: key.name().to_owned(), fingerprint, answer, mac })
    }

    /// What the document says that was found at `place`, if one of the keys sealed it there.
    pub(super) fn open(document: &[u8], keys: &[Arc<MacKey>], place: &str) -> Result<Self, IdempotencyError> {
        let read = serde_json::from_slice(document).map_err(|_| IdempotencyError::Unbelievable)?;
        let Document { stepgate: Sealed { version, key, fingerprint, answer, mac } } = read;
        let marker = Self { fingerprint, answer };
        let key = keys.iter().find(|known| known.name() == key).ok_or(IdempotencyError::Unbelievable)?;
        if version == VERSION && key.holds(&marker.parts(place, &marker.status()), &mac) {
            Ok(marker)
        } else {
            Err(IdempotencyError::Unbelievable)
        }
    }

    fn status(&self) -> String {
        self.answer.as_ref().map_or_else(String::new, |answer| answer.status.to_string())
    }

    /// All it says, and where: the texts that the MAC covers.
    fn parts<'a>(&'a self, place: &'a str, status: &'a str) -> Vec<&'a str> {
        let told = |text: Option<&'a String>| text.map_or(["none", ""], |text| ["some", text.as_str()]);
        let answer = self.answer.as_ref();
        let etag = told(answer.and_then(|answer| answer.etag.as_ref()));
        let body = told(answer.and_then(|answer| answer.body.as_ref()));
        let changed = if answer.is_some_and(|answer| answer.changed) { "changed" } else { "" };
        [&["1", place, self.fingerprint.as_str(), status, changed][..], &etag, &body].concat()
    }
}

/// Whether a document is small enough to be written.
pub(super) fn fits(document: &str) -> bool {
    document.len() <= LARGEST
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::secret::Secret;

    fn key(text: &str) -> Arc<MacKey> {
        Arc::new(MacKey::of(&Secret::new(text.to_owned())))
    }

    fn marker() -> Marker {
        let answer = Answer::given(201, Some("\"1\"".into()), Some("{\"id\":\"1\"}".into()));
        Marker { fingerprint: "f".into(), answer: Some(answer) }
    }

    fn document(marker: Marker) -> Value {
        json!({ "id": "x", "_ts": 1, "stepgate": marker.seal(&key("one"), "here").unwrap() })
    }

    fn open(document: &Value, keys: &[Arc<MacKey>], place: &str) -> Result<Marker, IdempotencyError> {
        Marker::open(document.to_string().as_bytes(), keys, place)
    }

    #[test]
    fn a_marker_is_believed_where_it_was_sealed() {
        let keys = [key("two"), key("one")];
        for marker in [marker(), Marker { answer: None, ..marker() }] {
            assert_eq!(open(&document(marker.clone()), &keys, "here").unwrap(), marker);
            assert!(matches!(open(&document(marker.clone()), &keys, "there"), Err(IdempotencyError::Unbelievable)));
            assert!(matches!(open(&document(marker), &keys[..1], "here"), Err(IdempotencyError::Unbelievable)));
        }
    }

    #[test]
    fn nothing_that_a_marker_says_can_be_changed() {
        for (path, value) in [
            ("/stepgate/fingerprint", json!("g")),
            ("/stepgate/answer/status", json!(200)),
            ("/stepgate/answer/etag", json!("\"2\"")),
            ("/stepgate/answer/body", json!("{}")),
            ("/stepgate/answer/body", Value::Null),
            ("/stepgate/answer/changed", json!(true)),
            ("/stepgate/answer", Value::Null),
            ("/stepgate/version", json!(2)),
            ("/stepgate/mac", json!("00")),
        ] {
            let mut document = document(marker());
            let (holder, name) = path.rsplit_once('/').unwrap();
            document.pointer_mut(holder).unwrap()[name] = value;
            let opened = open(&document, &[key("one")], "here");
            assert!(matches!(opened, Err(IdempotencyError::Unbelievable)), "{path}");
        }
        for document in [json!({ "id": "x" }), json!([]), json!({ "stepgate": {} })] {
            assert!(matches!(open(&document, &[key("one")], "here"), Err(IdempotencyError::Unbelievable)));
        }
    }
}
