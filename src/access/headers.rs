//! The headers of Cosmos DB that more than one room reads or writes
//! (<https://learn.microsoft.com/en-us/rest/api/cosmos-db/common-cosmosdb-rest-response-headers>, and the page beside it on requests).

use std::str::FromStr;

use http::{HeaderMap, HeaderName, HeaderValue};

/// The version of the REST API that every current SDK speaks.
pub const API_VERSION: HeaderValue = HeaderValue::from_static("2020-07-15");

/// The id under which Azure's log has the request.
pub const ACTIVITY_ID: HeaderName = HeaderName::from_static("x-ms-activity-id");
/// All of a batch or nothing.
pub const BATCH_ATOMIC: HeaderName = HeaderName::from_static("x-ms-cosmos-batch-atomic");
/// Where the next page of a query or feed begins.
pub const CONTINUATION: HeaderName = HeaderName::from_static("x-ms-continuation");
/// When the request was signed.
pub const DATE: HeaderName = HeaderName::from_static("x-ms-date");
/// The body is a transactional batch.
pub const IS_BATCH: HeaderName = HeaderName::from_static("x-ms-cosmos-is-batch-request");
/// The body is a query.
pub const IS_QUERY: HeaderName = HeaderName::from_static("x-ms-documentdb-isquery");
/// The body is a query, of which the plan is asked for.
pub const IS_QUERY_PLAN: HeaderName = HeaderName::from_static("x-ms-cosmos-is-query-plan-request");
/// Most items of a page.
pub const MAX_ITEM_COUNT: HeaderName = HeaderName::from_static("x-ms-max-item-count");
/// The partition, as a JSON array.
pub const PARTITION_KEY: HeaderName = HeaderName::from_static("x-ms-documentdb-partitionkey");
/// What the request cost, in request units.
pub const REQUEST_CHARGE: HeaderName = HeaderName::from_static("x-ms-request-charge");
/// How long to wait before trying again, in milliseconds.
pub const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("x-ms-retry-after-ms");
/// What the caller has seen of each partition: what it reads next is no older.
pub const SESSION_TOKEN: HeaderName = HeaderName::from_static("x-ms-session-token");
/// What tells apart the conditions that share a status.
pub const SUBSTATUS: HeaderName = HeaderName::from_static("x-ms-substatus");
/// The version of the REST API.
pub const VERSION: HeaderName = HeaderName::from_static("x-ms-version");

/// The number in a header; `None` when there is none.
pub fn number<T: FromStr>(headers: &HeaderMap, name: &HeaderName) -> Option<T> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}
