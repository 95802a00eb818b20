//! The headers of Cosmos DB that more than one room reads or writes
//! (<https://learn.microsoft.com/en-us/rest/api/cosmos-db/common-cosmosdb-rest-response-headers>, and the page beside it on requests).

use std::str::FromStr;

use http::{HeaderMap, HeaderName};

/// The id under which Azure's log has the request.
pub const ACTIVITY_ID: HeaderName = HeaderName::from_static("x-ms-activity-id");
/// Where the next page of a query or feed begins.
pub const CONTINUATION: HeaderName = HeaderName::from_static("x-ms-continuation");
/// Most entries of a page.
pub const MAX_ITEM_COUNT: HeaderName = HeaderName::from_static("x-ms-max-item-count");
/// What the request cost, in request units.
pub const REQUEST_CHARGE: HeaderName = HeaderName::from_static("x-ms-request-charge");
/// How long to wait before trying again, in milliseconds.
pub const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("x-ms-retry-after-ms");
/// What the caller has seen of each partition: what it reads next is no older.
pub const SESSION_TOKEN: HeaderName = HeaderName::from_static("x-ms-session-token");
/// What tells apart the conditions that share a status.
pub const SUBSTATUS: HeaderName = HeaderName::from_static("x-ms-substatus");

/// The number in a header; `None` when there is none.
pub fn number<T: FromStr>(headers: &HeaderMap, name: &HeaderName) -> Option<T> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}
