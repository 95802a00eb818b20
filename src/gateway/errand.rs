//! From a permitted question to the request that leaves for Cosmos.

use http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_TYPE};
use serde::{Deserialize, de::IgnoredAny};

use crate::{
    access::{Action, Operation},
    answer::{CosmosAnswer, fits_a_state},
    context::RequestContext,
    policy::Permit,
    question::{PARTITION_KEY, Question},
    upstream::{self, Errand},
};

const MAX_ITEM_COUNT: HeaderName = HeaderName::from_static("x-ms-max-item-count");
const BATCH_ATOMIC: HeaderName = HeaderName::from_static("x-ms-cosmos-batch-atomic");
/// Headers that address physical ranges instead of a partition key.
const RANGES: [HeaderName; 4] = [
    HeaderName::from_static("x-ms-documentdb-partitionkeyrangeid"),
    HeaderName::from_static("x-ms-start-epk"),
    HeaderName::from_static("x-ms-end-epk"),
    HeaderName::from_static("x-ms-read-key-type"),
];

/// The errand of a permitted question. Under a partition lock the key is filled in, and range headers, which would read
/// past it, are left out.
pub(super) fn prepare<'a>(
    request: &'a RequestContext,
    permit: &Permit,
    question: &Question,
    headers: &HeaderMap,
) -> Errand<'a> {
    let mut headers = upstream::inward(headers);
    if let Some(key) = permit.partition_key().and_then(|key| HeaderValue::try_from(key.to_string()).ok()) {
        headers.insert(PARTITION_KEY, key);
    }
    if permit.scope().partition_key.is_some() {
        for range in RANGES {
            headers.remove(range);
        }
    }
    match question.action {
        Action::Operation(Operation::Query) | Action::QueryPlan => {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/query+json"));
        }
        Action::Operation(Operation::Batch) => {
            headers.insert(BATCH_ATOMIC, HeaderValue::from_static("True"));
        }
        _ => {}
    }
    Errand {
        method: question.method.clone(),
        path: question.path.clone(),
        headers,
        body: question.body.clone(),
        action: question.action,
        activity_id: request.id.as_str(),
        deadline: request.deadline,
    }
}

/// Asks for a smaller page when the last one would not fit into a state; `false` when it fits, or cannot be made smaller.
pub(super) fn ask_for_less(errand: &mut Errand<'_>, answer: &CosmosAnswer) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Page {
        documents: Vec<IgnoredAny>,
    }
    let pages = matches!(errand.action, Action::Operation(Operation::Query | Operation::Feed));
    if !pages || !answer.status.is_success() || fits_a_state(&answer.headers, &answer.body) {
        return false;
    }
    match serde_json::from_slice::<Page>(&answer.body) {
        Ok(Page { documents }) if documents.len() > 1 => {
            errand.headers.insert(MAX_ITEM_COUNT, HeaderValue::from(documents.len() / 2));
            true
        }
        _ => false,
    }
}
