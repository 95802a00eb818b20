//! What tells one sending of a request from another request.

use aws_lc_rs::digest::{Context, SHA256};
use http::{HeaderMap, HeaderName};

use super::IdempotencyError;
use crate::access::{ExecutionContext, ItemId, RESERVED, Subject};

/// `idempotency-key`: the caller's own key. HTTP Tasks may set it.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Longest key of a caller's own.
const LONGEST: usize = 255;

/// The id of the marker: of the subject, and of the caller's own key or else of the state that sends the request.
///
/// A key that was derived from a state is the same for each of its attempts and another after a redrive, which enters the
/// state anew. The two kinds of key never meet, whatever a caller writes into its own.
pub fn marker_id(
    subject: &Subject,
    headers: &HeaderMap,
    context: &ExecutionContext,
) -> Result<ItemId, IdempotencyError> {
    let subject = [subject.issuer.as_str(), &*subject.id];
    let digest = match own(headers)? {
        Some(key) => digest(&[&subject[..], &["key", key]].concat()),
        None => {
            let (Some(execution), Some(state), Some(entered)) = (&context.execution, &context.state, &context.entered)
            else {
                return Err(IdempotencyError::NoKey);
            };
            let item = context.item.as_ref().map_or_else(String::new, |item| item.value.to_string());
            let state = ["state", execution.value.as_str(), state.value.as_str(), &entered.value, &item];
            digest(&[&subject[..], &state].concat())
        }
    };
    ItemId::new(&format!("{RESERVED}{digest}")).map_err(|_| IdempotencyError::MalformedKey)
}

fn own(headers: &HeaderMap) -> Result<Option<&str>, IdempotencyError> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    match (value.to_str(), values.next()) {
        (Ok(key), None) if (1..=LONGEST).contains(&key.len()) => Ok(Some(key)),
        _ => Err(IdempotencyError::MalformedKey),
    }
}

/// SHA-256 over texts, each after its length, so that no two lists have the same bytes.
pub(super) fn digest<T: AsRef<[u8]>>(parts: &[T]) -> String {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.as_ref().len() as u64).to_be_bytes());
        context.update(part.as_ref());
    }
    hex::encode(context.finish())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::access::{Assurance, Fact, IssuerName};

    fn subject(issuer: &str, id: &str) -> Subject {
        Subject { issuer: IssuerName::new(issuer), id: id.into() }
    }

    fn claimed<T>(value: T) -> Option<Fact<T>> {
        Some(Fact { value, assurance: Assurance::Claimed })
    }

    fn state(execution: &str, state: &str, entered: &str, item: Option<u32>) -> ExecutionContext {
        ExecutionContext {
            execution: claimed(
                format!("arn:aws:states:eu-west-1:111122223333:execution:M:{execution}").parse().unwrap(),
            ),
            state: claimed(state.parse().unwrap()),
            entered: claimed(entered.into()),
            item: item.and_then(claimed),
            ..Default::default()
        }
    }

    fn with_key(key: &str) -> HeaderMap {
        HeaderMap::from_iter([(IDEMPOTENCY_KEY, key.parse().unwrap())])
    }

    #[test]
    fn every_part_of_a_key_counts() {
        let (us, none) = (subject("a", "b"), HeaderMap::new());
        let now = "2026-11-22T21:24:18Z";
        let ids: Vec<_> = [
            marker_id(&us, &none, &state("r", "S", now, None)),
            marker_id(&us, &none, &state("q", "S", now, None)),
            marker_id(&us, &none, &state("r", "T", now, None)),
            marker_id(&us, &none, &state("r", "S", "2026-11-22T21:24:19Z", None)),
            marker_id(&us, &none, &state("r", "S", now, Some(0))),
            marker_id(&us, &none, &state("r", "S", now, Some(1))),
            marker_id(&us, &with_key("k"), &state("r", "S", now, None)),
            marker_id(&us, &with_key("l"), &ExecutionContext::default()),
            marker_id(&subject("ab", ""), &with_key("k"), &ExecutionContext::default()),
            marker_id(&subject("a", "c"), &with_key("k"), &ExecutionContext::default()),
        ]
        .map(|id| id.unwrap().as_str().to_owned())
        .into();
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
        assert!(ids.iter().all(|id| id.starts_with(RESERVED) && id.len() == RESERVED.len() + 64));
    }

    #[test]
    fn an_own_key_outlives_the_state_and_a_derived_one_its_attempts() {
        let us = subject("a", "b");
        let (first, redriven) =
            (state("r", "S", "2026-11-22T21:24:18Z", None), state("r", "S", "2026-11-23T09:00:00Z", None));
        let id = |headers: &HeaderMap, context| marker_id(&us, headers, context).unwrap();
        assert_eq!(id(&with_key("k"), &first), id(&with_key("k"), &redriven));
        let retried = ExecutionContext { attempt: claimed(crate::access::Attempt(3)), ..first.clone() };
        assert_eq!(id(&HeaderMap::new(), &first), id(&HeaderMap::new(), &retried));
        assert_ne!(id(&HeaderMap::new(), &first), id(&HeaderMap::new(), &redriven));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let us = subject("a", "b");
        let refused = |headers: &HeaderMap| marker_id(&us, headers, &ExecutionContext::default()).unwrap_err();
        assert!(matches!(refused(&HeaderMap::new()), IdempotencyError::NoKey));
        let mut twice = with_key("k");
        twice.append(IDEMPOTENCY_KEY, "k".parse().unwrap());
        for headers in [twice, with_key(""), with_key(&"k".repeat(256))] {
            assert!(matches!(refused(&headers), IdempotencyError::MalformedKey));
        }
        let half = ExecutionContext { entered: None, ..state("r", "S", "2026-11-22T21:24:18Z", None) };
        assert!(matches!(marker_id(&us, &HeaderMap::new(), &half), Err(IdempotencyError::NoKey)));
    }
}
