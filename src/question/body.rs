//! Bodies: read as far as policy and audit must know them, and no further.

use std::{borrow::Cow, fmt};

use http::{HeaderMap, header::CONTENT_TYPE};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny, MapAccess, Visitor},
};

use super::{Rejection, discriminator::media_type, item_named};
use crate::access::ItemId;

/// First bytes of what the gateway does not read: of Cosmos' binary JSON, in which the Rust SDK writes unless it is told
/// otherwise, and of HybridRow, in which the .NET SDK sends batches.
const BINARY: [u8; 2] = [0x80, 0x81];

/// The `id` of an item; Cosmos' .NET and JavaScript SDKs may leave it to the service, so it may be absent.
pub(super) fn item_id(body: &[u8]) -> Result<Option<ItemId>, Rejection> {
    let ItemHead { id } = parse(body, "a JSON object with one `id`")?;
    id.map(|id| item_named(&id)).transpose()
}

/// A patch is `{"operations": [...]}` or, as the JavaScript SDK sends it, the bare array.
pub(super) fn check_patch(body: &[u8]) -> Result<(), Rejection> {
    const EXPECTED: &str = "a patch: an array of operations, or an object with `operations` and perhaps `condition`";
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Patch<'a> {
        #[serde(borrow)]
        #[allow(dead_code, reason = "read so that a repeated or unknown member is refused")]
        operations: Vec<&'a serde_json::value::RawValue>,
        #[allow(dead_code, reason = "read so that a repeated or unknown member is refused")]
        condition: Option<Cow<'a, str>>,
    }
    if body.trim_ascii_start().first() == Some(&b'[') {
        parse::<Vec<IgnoredAny>>(body, EXPECTED).map(drop)
    } else {
        parse::<Patch<'_>>(body, EXPECTED).map(drop)
    }
}

/// A query is `{"query": "...", "parameters": [...]}` under a query content type or plain JSON.
pub(super) fn check_query(headers: &HeaderMap, body: &[u8]) -> Result<(), Rejection> {
    const EXPECTED: &str = "a query: an object with a text `query` and perhaps an array `parameters`";
    #[derive(Deserialize)]
    struct Query<'a> {
        #[serde(borrow)]
        #[allow(dead_code, reason = "read so that a body without a query is refused")]
        query: Cow<'a, str>,
        #[allow(dead_code, reason = "read so that a repeated member is refused")]
        parameters: Option<Vec<IgnoredAny>>,
    }
    let content = headers.get(CONTENT_TYPE).map(|value| media_type(value.as_bytes())).unwrap_or_default();
    if content != b"application/query+json" && content != b"application/json" {
        return Err(Rejection::Body("a query: the content type is application/query+json or application/json"));
    }
    parse::<Query<'_>>(body, EXPECTED).map(drop)
}

/// The arguments of a stored procedure are a JSON array.
pub(super) fn check_arguments(body: &[u8]) -> Result<(), Rejection> {
    parse::<Vec<IgnoredAny>>(body, "a JSON array of arguments").map(drop)
}

/// Reads JSON, naming what was expected when it is something else.
pub(super) fn parse<'a, T: Deserialize<'a>>(body: &'a [u8], expected: &'static str) -> Result<T, Rejection> {
    if body.first().is_some_and(|first| BINARY.contains(first)) {
        return Err(Rejection::Body("text: binary JSON and HybridRow are not accepted; switch the SDK to text JSON"));
    }
    serde_json::from_slice(body).map_err(|_| Rejection::Body(expected))
}

/// The one member of an item that the gateway must know.
struct ItemHead<'a> {
    id: Option<Cow<'a, str>>,
}

impl<'de> Deserialize<'de> for ItemHead<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ItemVisitor;
        impl<'de> Visitor<'de> for ItemVisitor {
            type Value = ItemHead<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an item")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<ItemHead<'de>, A::Error> {
                let mut id = None;
                while let Some(name) = members.next_key::<Cow<'de, str>>()? {
                    if name != "id" {
                        members.next_value::<IgnoredAny>()?;
                    } else if id.replace(members.next_value()?).is_some() {
                        return Err(A::Error::duplicate_field("id"));
                    }
                }
                Ok(ItemHead { id })
            }
        }
        deserializer.deserialize_map(ItemVisitor)
    }
}
