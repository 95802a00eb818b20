//! What the permit masks: looked at before the request goes, and covered in what comes back.

use bytes::Bytes;
use http::HeaderMap;

use super::{Permitted, errand};
use crate::{
    answer::{self, Condition, CosmosAnswer, Refusal},
    audit::{Entry, Ruling, Verdict},
    mask::{Pointer, Unreadable, Veil},
    policy::Permit,
    question::Question,
};

/// The veil over the answer, where the permit masks something; a request that could tell of it is denied.
pub(super) fn veil(
    permit: &Permit,
    question: &Question,
    headers: &HeaderMap,
    entry: &mut Entry,
) -> Result<Option<Veil>, Refusal> {
    let Some(mask) = permit.mask() else { return Ok(None) };
    let change_feed = headers.contains_key("a-im");
    mask.veil(question.action, change_feed, &question.body).map(Some).map_err(|exposed| {
        entry.decision = Some(Ruling { verdict: Verdict::Deny, ..permit.into() });
        exposed.into()
    })
}

/// The answer as its caller may see it: with what is masked covered, and no more rows than the binding allows. The etag stays
/// what Cosmos gave, since it names the item and not what is shown of it.
pub(super) fn covered(
    permitted: &Permitted<'_>,
    mut answer: CosmosAnswer,
    entry: &mut Entry,
) -> Result<CosmosAnswer, Refusal> {
    if !answer.status.is_success() {
        return Ok(answer);
    }
    if errand::has_rows(permitted.question.action)
        && let Some(most) = permitted.permit.rows()
        && answer::rows(&answer.body).is_none_or(|rows| rows > most.get() as usize)
    {
        return Err(Refusal::new(Condition::BadAnswer, format!("Cosmos' answer is no page of at most {most} rows")));
    }
    let Some(veil) = permitted.veil else { return Ok(answer) };
    answer.body = match veil.cover(&answer.body) {
        Ok(covered) => {
            entry.masked = covered.masked.iter().map(Pointer::to_string).map(Into::into).collect();
            covered.body.into()
        }
        // The write stands: what is not shown of it is its echo.
        Err(Unreadable) if permitted.question.action.is_write() => Bytes::new(),
        Err(unreadable) => return Err(unreadable.into()),
    };
    Ok(answer)
}
