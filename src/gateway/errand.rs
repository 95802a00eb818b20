//! From a permitted question to the request that leaves for Cosmos.

use std::time::Duration;

use http::HeaderMap;

use crate::{
    access::{Action, Operation},
    answer::{self, CosmosAnswer, Form},
    context::RequestContext,
    policy::Permit,
    question::Question,
    upstream::{Errand, RangeAddressing, RequestHeaders, Safety},
};

/// An errand ends this much before the walk does, so that what came of it is still recorded, and a write that was done still
/// answered.
const TELLING: Duration = Duration::from_millis(20);

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
    if let (true, Some(most)) = (has_rows(question.action), permit.rows()) {
        headers.cap_item_count(most);
    }
    Errand {
        method: question.method.clone(),
        path: question.path.clone(),
        safety: Safety::of(question.action, headers.is_conditional()),
        session: None,
        headers,
        body: question.body.clone(),
        activity_id: request.id.as_str(),
        deadline: request.deadline.checked_sub(TELLING).unwrap_or(request.deadline),
    }
}

/// Whether what an action answers is a page.
pub(super) fn has_rows(action: Action) -> bool {
    matches!(action, Action::Operation(Operation::Query | Operation::Feed))
}

/// How many rows a page may have to fit into a state; `None` when it fits, or cannot have fewer.
pub(super) fn fewer_rows(form: Form, action: Action, answer: &CosmosAnswer) -> Option<u32> {
    if !has_rows(action) || !form.is_workflow() || !answer.status.is_success() || answer.fits_a_state(form) {
        return None;
    }
    let rows = answer::rows(&answer.body).filter(|rows| *rows > 1)?;
    u32::try_from(answer.rows_that_fit(form, rows)).ok()
}
