//! What crosses: the allow-list of request headers in, and of response headers out.
//!
//! Nothing here rejects. What would change which data is touched without passing the policy (triggers, a method override, a
//! repeated discriminator) was rejected when the question was read; what is merely not needed is dropped here.

use std::num::NonZeroU32;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::access::{
    PartitionKey,
    headers::{BATCH_ATOMIC, IS_BATCH, MAX_ITEM_COUNT, PARTITION_KEY, SESSION_TOKEN, number},
};

/// A stepgate header and the standard one it stands in for, since HTTP Tasks cannot set the standard one.
const STAND_INS: [(HeaderName, HeaderName); 2] = [
    (HeaderName::from_static("x-stepgate-if-match"), header::IF_MATCH),
    (HeaderName::from_static("x-stepgate-if-none-match"), header::IF_NONE_MATCH),
];

const PREFER: HeaderName = HeaderName::from_static("prefer");
const CONTENT_ON_WRITE: HeaderName = HeaderName::from_static("x-ms-cosmos-populate-content-response-on-write");
/// What belongs to one point operation.
const POINT: &[&str] = &[
    "content-type",
    "if-match",
    "if-none-match",
    "prefer",
    "x-ms-cosmos-populate-content-response-on-write",
    "x-ms-documentdb-is-upsert",
];
/// What belongs to a batch.
const FRESHNESS: &[&str] =
    &["x-ms-consistency-level", "x-ms-cosmos-read-consistency-strategy", "x-ms-dedicatedgateway-max-age"];
const BATCH: &[&str] = &[
    "x-ms-cosmos-batch-atomic",
    "x-ms-cosmos-batch-continue-on-error",
    "x-ms-cosmos-batch-ordered",
    "x-ms-cosmos-is-batch-request",
];

/// Request headers that go to Cosmos. Not here, on purpose: `Range` (every HTTP Task sends one), what negotiates an
/// encoding or a binary form (answers must be read), and everything that authenticates or addresses.
const REQUEST: &[&str] = &[
    "accept",
    "content-type",
    "prefer",
    // Conditions and the change feed.
    "a-im",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "x-ms-cosmos-changefeed-wire-format-version",
    // Which operation, in which partition: read by the policy before.
    "x-ms-cosmos-batch-atomic",
    "x-ms-cosmos-batch-continue-on-error",
    "x-ms-cosmos-batch-ordered",
    "x-ms-cosmos-is-batch-request",
    "x-ms-cosmos-is-query-plan-request",
    "x-ms-documentdb-is-upsert",
    "x-ms-documentdb-isquery",
    "x-ms-documentdb-partitionkey",
    // Consistency.
    "x-ms-consistency-level",
    "x-ms-cosmos-allow-tentative-writes",
    "x-ms-cosmos-read-consistency-strategy",
    "x-ms-session-token",
    // Paging.
    "x-ms-continuation",
    "x-ms-documentdb-responsecontinuationtokenlimitinkb",
    "x-ms-max-item-count",
    // Queries and what they report.
    "x-ms-cosmos-populateindexmetrics",
    "x-ms-cosmos-populateindexmetrics-v2",
    "x-ms-cosmos-populatequeryadvice",
    "x-ms-cosmos-query-optimisticdirectexecute",
    "x-ms-cosmos-query-version",
    "x-ms-cosmos-supported-query-features",
    "x-ms-documentdb-populatepartitionstatistics",
    "x-ms-documentdb-populatequerymetrics",
    "x-ms-documentdb-populatequotainfo",
    "x-ms-documentdb-query-enable-scan",
    "x-ms-documentdb-query-enable-low-precision-order-by",
    "x-ms-documentdb-query-iscontinuationexpected",
    "x-ms-documentdb-query-parallelizecrosspartitionquery",
    "x-ms-documentdb-script-enable-logging",
    // How the service treats the call.
    "x-ms-cosmos-correlated-activityid",
    "x-ms-cosmos-intended-collection-rid",
    "x-ms-cosmos-populate-content-response-on-write",
    "x-ms-cosmos-priority-level",
    "x-ms-cosmos-sdk-supportedcapabilities",
    "x-ms-cosmos-throughput-bucket",
    "x-ms-dedicatedgateway-bypass-cache",
    "x-ms-dedicatedgateway-max-age",
    "x-ms-noretry-449",
    "x-ms-version",
];

/// Headers that reach past one partition key: all partitions, or physical ranges (the Python change feed sends only those).
pub(super) const RANGE_ADDRESSING: &[&str] = &[
    "x-ms-documentdb-partitionkeyrangeid",
    "x-ms-documentdb-query-enablecrosspartition",
    "x-ms-end-epk",
    "x-ms-read-key-type",
    "x-ms-start-epk",
];

/// Response headers that go to the caller. Not here, on purpose: what belongs to the connection (RFC 9110, section 7.6.1)
/// and to the framing, which the answer gets anew.
const RESPONSE: &[&str] = &[
    "content-type",
    "date",
    "etag",
    "lsn",
    "preference-applied",
    "x-ms-activity-id",
    "x-ms-alt-content-path",
    "x-ms-content-path",
    "x-ms-continuation",
    "x-ms-cosmos-index-utilization",
    "x-ms-cosmos-is-partition-key-delete-pending",
    "x-ms-cosmos-item-llsn",
    "x-ms-cosmos-llsn",
    "x-ms-cosmos-physical-partition-id",
    "x-ms-cosmos-query-advice",
    "x-ms-cosmos-query-execution-info",
    "x-ms-cosmos-quorum-acked-llsn",
    "x-ms-documentdb-collection-index-transformation-progress",
    "x-ms-documentdb-collection-lazy-indexing-progress",
    "x-ms-documentdb-partitionkeyrangeid",
    "x-ms-documentdb-query-metrics",
    "x-ms-documentdb-script-log-results",
    "x-ms-gatewayversion",
    "x-ms-global-committed-lsn",
    "x-ms-item-count",
    "x-ms-item-lsn",
    "x-ms-last-state-change-utc",
    "x-ms-number-of-read-regions",
    "x-ms-quorum-acked-lsn",
    "x-ms-request-charge",
    "x-ms-request-duration-ms",
    "x-ms-resource-quota",
    "x-ms-resource-usage",
    "x-ms-retry-after-ms",
    "x-ms-schemaversion",
    "x-ms-serviceversion",
    "x-ms-session-token",
    "x-ms-substatus",
    "x-ms-throttle-retry-count",
    "x-ms-throttle-retry-wait-time-ms",
    "x-ms-transport-request-id",
];

/// Whether headers that reach past one partition key may go along.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RangeAddressing {
    /// Where the request runs under no partition key.
    Pass,
    /// Where it does: the key takes their place.
    Drop,
}

/// Request headers that passed the allow-list; there is no other way to make them.
#[derive(Clone, Debug, Default)]
pub struct RequestHeaders(HeaderMap);

impl RequestHeaders {
    /// What of the caller's headers goes to Cosmos. A stand-in (`x-stepgate-if-match`) goes as what it stands for.
    pub fn allow(downstream: &HeaderMap, ranges: RangeAddressing) -> Self {
        let mut allowed = pick(downstream, REQUEST);
        if ranges == RangeAddressing::Pass {
            allowed.extend(pick(downstream, RANGE_ADDRESSING));
        }
        for (stand_in, name) in STAND_INS {
            if let Some(value) = downstream.get(stand_in) {
                allowed.insert(name, value.clone());
            }
        }
        Self(allowed)
    }

    /// Names the partition, in place of what the caller named.
    pub fn set_partition_key(&mut self, key: &PartitionKey) {
        // The text of a key is ASCII without control characters, which JSON escapes, so it is always a header value.
        if let Ok(value) = HeaderValue::try_from(key.to_string()) {
            self.0.insert(PARTITION_KEY, value);
        }
    }

    /// Marks the body as a query. HTTP Tasks send plain JSON unless told otherwise; Cosmos wants its own media type.
    pub fn set_query_content(&mut self) {
        self.0.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/query+json"));
    }

    /// Makes a batch atomic, whatever the caller left out.
    pub fn set_atomic(&mut self) {
        self.0.insert(BATCH_ATOMIC, HeaderValue::from_static("True"));
    }

    /// Asks for pages of at most `most` items, where more are asked for or no number is.
    pub fn cap_item_count(&mut self, most: NonZeroU32) {
        let asked: Option<u32> = number(&self.0, &MAX_ITEM_COUNT);
        if asked.is_none_or(|asked| asked == 0 || asked > most.get()) {
            self.set_max_item_count(most.get());
        }
    }

    /// Asks for pages of at most `items` items.
    pub fn set_max_item_count(&mut self, items: u32) {
        self.0.insert(MAX_ITEM_COUNT, items.into());
    }

    /// The headers of a batch in the place of this point operation: without its conditions, which stand in the batch, and with
    /// every result told whole.
    pub fn of_batch(&self) -> Self {
        let mut batch = self.without(&[POINT, BATCH].concat());
        for name in [IS_BATCH, BATCH_ATOMIC, HeaderName::from_static("x-ms-cosmos-batch-ordered")] {
            batch.0.insert(name, HeaderValue::from_static("True"));
        }
        batch.0.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        batch
    }

    /// The headers of a point operation on a document beside the items of this request: the same partition, none of the conditions.
    /// How old the document may be is not the caller's to say: a marker that is there must be seen.
    pub fn of_document(&self) -> Self {
        self.without(&[POINT, BATCH, FRESHNESS].concat())
    }

    /// Reads no older state than the one in which `token` was given.
    pub fn set_session(&mut self, token: &HeaderValue) {
        self.0.insert(SESSION_TOKEN, token.clone());
    }

    /// Makes the request hold for one etag alone.
    pub fn set_if_match(&mut self, etag: &str) {
        if let Ok(etag) = HeaderValue::try_from(etag) {
            self.0.insert(header::IF_MATCH, etag);
        }
    }

    /// Whether the caller wants no body back from a write.
    pub fn wants_no_content(&self) -> bool {
        let says = |name: &HeaderName, what: &str| {
            self.0.get_all(name).iter().any(|value| value.as_bytes().eq_ignore_ascii_case(what.as_bytes()))
        };
        says(&PREFER, "return=minimal") || says(&CONTENT_ON_WRITE, "false")
    }

    fn without(&self, names: &[&str]) -> Self {
        let mut headers = self.0.clone();
        names.iter().for_each(|name| drop(headers.remove(*name)));
        Self(headers)
    }

    /// Whether the request holds for one etag alone.
    pub fn is_conditional(&self) -> bool {
        self.0.contains_key(header::IF_MATCH)
    }

    /// Puts a value in the place of the one that passed.
    pub(super) fn set(&mut self, name: HeaderName, value: HeaderValue) {
        self.0.insert(name, value);
    }

    /// The headers.
    pub fn as_map(&self) -> &HeaderMap {
        &self.0
    }
}

/// What of Cosmos' headers goes to the caller.
pub(super) fn response(upstream: &HeaderMap) -> HeaderMap {
    pick(upstream, RESPONSE)
}

fn pick(headers: &HeaderMap, names: &'static [&'static str]) -> HeaderMap {
    // A request has a handful of headers, and the lists have dozens.
    let named = headers.iter().filter(|(name, _)| names.contains(&name.as_str()));
    let mut picked = HeaderMap::with_capacity(headers.len());
    picked.extend(named.map(|(name, value)| (name.clone(), value.clone())));
    picked
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(headers: &[(&str, &str)]) -> HeaderMap {
        headers.iter().map(|(n, v)| (n.parse::<HeaderName>().unwrap(), v.parse::<HeaderValue>().unwrap())).collect()
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn what_authenticates_addresses_or_encodes_stays_here() {
        let dropped = map(&[
            ("authorization", "Bearer t"),
            ("x-stepgate-token", "t"),
            ("x-stepgate-execution", "arn"),
            ("x-ms-date", "now"),
            ("x-ms-activity-id", "mine"),
            ("host", "gateway"),
            ("cookie", "a=b"),
            ("range", "bytes=0-262144"),
            ("accept-encoding", "gzip"),
            ("connection", "close"),
            ("transfer-encoding", "chunked"),
            ("content-length", "3"),
            ("x-http-method", "DELETE"),
            ("x-ms-documentdb-pre-trigger-include", "t"),
            ("x-ms-documentdb-expiry-seconds", "86400"),
            ("x-ms-cosmos-supported-serialization-formats", "CosmosBinary"),
            ("x-ms-documentdb-content-serialization-format", "CosmosBinary"),
            ("x-ms-cosmos-use-thinclient", "true"),
            ("x-ms-thinclient-proxy-operation-type", "1"),
            ("x-forwarded-for", "10.0.0.1"),
        ]);
        assert_eq!(names(RequestHeaders::allow(&dropped, RangeAddressing::Pass).as_map()), [""; 0]);
    }

    #[test]
    fn a_stand_in_goes_as_what_it_stands_for() {
        let task = map(&[("x-stepgate-if-match", "\"1\""), ("x-stepgate-if-none-match", "*"), ("content-type", "a/b")]);
        let allowed = RequestHeaders::allow(&task, RangeAddressing::Drop);
        assert_eq!(names(allowed.as_map()), ["content-type", "if-match", "if-none-match"]);
        assert_eq!(allowed.as_map()["if-match"], "\"1\"");
    }

    #[test]
    fn ranges_pass_only_under_a_grant_on_the_container() {
        let sdk = map(&[("x-ms-documentdb-partitionkeyrangeid", "0"), ("x-ms-start-epk", "00"), ("a-im", "x")]);
        let of = |ranges| names(RequestHeaders::allow(&sdk, ranges).as_map()).len();
        assert_eq!((of(RangeAddressing::Drop), of(RangeAddressing::Pass)), (1, 3));
    }

    #[test]
    fn the_partition_key_replaces_the_callers() {
        let mut headers =
            RequestHeaders::allow(&map(&[("x-ms-documentdb-partitionkey", "[\"t2\"]")]), RangeAddressing::Drop);
        headers.set_partition_key(&"[\"é\\n\"]".parse().unwrap());
        let values: Vec<_> = headers.as_map().get_all("x-ms-documentdb-partitionkey").iter().collect();
        assert_eq!(values, ["[\"\\u00e9\\n\"]"]);
    }

    #[test]
    fn a_point_operation_becomes_a_batch_without_its_conditions() {
        let caller = map(&[
            ("if-match", "\"1\""),
            ("prefer", "return=minimal"),
            ("x-ms-documentdb-is-upsert", "True"),
            ("x-ms-session-token", "0:1"),
            ("x-ms-consistency-level", "Eventual"),
            ("content-type", "application/json_patch+json"),
        ]);
        let headers = RequestHeaders::allow(&caller, RangeAddressing::Drop);
        assert!(headers.wants_no_content());
        let batch = headers.of_batch();
        assert_eq!(
            names(batch.as_map()),
            [
                "content-type",
                "x-ms-consistency-level",
                "x-ms-cosmos-batch-atomic",
                "x-ms-cosmos-batch-ordered",
                "x-ms-cosmos-is-batch-request",
                "x-ms-session-token"
            ]
        );
        assert!(!batch.is_conditional() && !batch.wants_no_content());
        assert_eq!(names(batch.of_document().as_map()), ["x-ms-session-token"]);
    }

    fn any_header() -> impl Strategy<Value = (String, String)> {
        let known = proptest::sample::select([REQUEST, RANGE_ADDRESSING, RESPONSE].concat()).prop_map(str::to_owned);
        (prop_oneof![known, "(x-ms-|x-stepgate-|)[a-z-]{1,12}"], "[ -~]{0,8}")
    }

    proptest! {
        #[test]
        fn no_header_outside_the_lists_crosses(headers in proptest::collection::vec(any_header(), 0..40)) {
            let pairs: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            let headers = map(&pairs);
            for name in names(RequestHeaders::allow(&headers, RangeAddressing::Drop).as_map()) {
                prop_assert!(REQUEST.contains(&name), "{name}");
            }
            for name in names(&response(&headers)) {
                prop_assert!(RESPONSE.contains(&name), "{name}");
            }
        }
    }
}
