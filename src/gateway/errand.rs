//! From a permitted question to the request that leaves for Cosmos.

use http::HeaderMap;
use serde::{Deserialize, de::IgnoredAny};

use crate::{
    access::{Action, Operation},
    answer::{CosmosAnswer, fits_a_state},
    context::RequestContext,
    policy::Permit,
    question::Question,
    upstream::{Errand, RangeAddressing, RequestHeaders, Safety},
};

/// The errand of a permitted question. Where it runs under a partition key, the key is filled in, and headers that would
/// read past it are left out.
pub(super) fn prepare<'a>(
    request: &'a RequestContext,
    permit: &Permit,
    question: &Question,
    headers: &HeaderMap,
) -> Errand<'a> {
    let ranges = match permit.partition_key().or(permit.scope().partition_key.as_ref()) {
        Some(_) => RangeAddressing::Drop,
        None => RangeAddressing::Pass,
    };
    let mut headers = RequestHeaders::allow(headers, ranges);
    if let Some(key) = permit.partition_key() {
        headers.set_partition_key(key);
    }
    match question.action {
        Action::Operation(Operation::Query) | Action::QueryPlan => headers.set_query_content(),
        Action::Operation(Operation::Batch) => headers.set_atomic(),
        _ => {}
    }
    Errand {
        method: question.method.clone(),
        path: question.path.clone(),
        safety: Safety::of(question.action, headers.is_conditional()),
        headers,
        body: question.body.clone(),
        activity_id: request.id.as_str(),
        deadline: request.deadline,
    }
}

/// Asks for a smaller page when the last one would not fit into a state; `false` when it fits, or cannot be made smaller.
pub(super) fn ask_for_less(errand: &mut Errand<'_>, action: Action, answer: &CosmosAnswer) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Page {
        documents: Vec<IgnoredAny>,
    }
    let pages = matches!(action, Action::Operation(Operation::Query | Operation::Feed));
    if !pages || !answer.status.is_success() || fits_a_state(&answer.headers, &answer.body) {
        return false;
    }
    match serde_json::from_slice::<Page>(&answer.body) {
        Ok(Page { documents }) if documents.len() > 1 => {
            errand.headers.set_max_item_count(u32::try_from(documents.len() / 2).unwrap_or(1));
            true
        }
        _ => false,
    }
}
