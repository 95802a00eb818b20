//! What of Cosmos' answer is the caller's to see: no marker of the gateway's own in a page, and of each item the members that
//! were asked for.

use std::{borrow::Cow, collections::BTreeMap};

use bytes::Bytes;
use http::HeaderValue;
use serde::Deserialize;
use serde_json::{
    Value,
    value::{RawValue, to_raw_value},
};

use super::{Condition, CosmosAnswer, Refusal, Select};
use crate::access::{Action, Operation, RESERVED};

/// Digits of a marker's id after what all reserved ids begin with.
const DIGITS: usize = 64;

/// The answer without what is not the caller's. One that has to be read for that, and cannot be, does not leave: it could show
/// what was not asked for. The echo of a write is left out instead, since the write stands.
pub fn view(action: Action, select: Option<&Select>, mut answer: CosmosAnswer) -> Result<CosmosAnswer, Refusal> {
    let Action::Operation(operation) = action else { return Ok(answer) };
    if !answer.status.is_success() || answer.body.is_empty() {
        return Ok(answer);
    }
    let viewed = match (operation, select) {
        (Operation::Query | Operation::Feed, _) if select.is_some() || may_show_a_marker(&answer.body) => {
            page(&mut answer, select)
        }
        (Operation::Query | Operation::Feed | Operation::Execute, _) | (_, None) => return Ok(answer),
        (Operation::Batch, Some(select)) => results(&answer.body, select),
        (_, Some(select)) => item(&answer.body, select),
    };
    answer.body = match viewed {
        Some(body) => body,
        None if operation.is_write() => Bytes::new(),
        None => return Err(Refusal::new(Condition::BadAnswer, "Cosmos' answer is not of the form that was asked for")),
    };
    Ok(answer)
}

/// How many rows a page has; `None` when it is none.
pub fn rows(body: &[u8]) -> Option<usize> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Page {
        documents: Vec<serde::de::IgnoredAny>,
    }
    serde_json::from_slice::<Page>(body).ok().map(|page| page.documents.len())
}

type Members<'a> = BTreeMap<Cow<'a, str>, Cow<'a, RawValue>>;

fn may_show_a_marker(body: &[u8]) -> bool {
    memchr::memmem::find(body, RESERVED.as_bytes()).is_some()
}

fn item(body: &[u8], select: &Select) -> Option<Bytes> {
    Some(select.of(serde_json::from_slice(body).ok()?).to_string().into())
}

fn page(answer: &mut CosmosAnswer, select: Option<&Select>) -> Option<Bytes> {
    let mut page: Members<'_> = serde_json::from_slice(&answer.body).ok()?;
    let rows: Vec<&RawValue> = serde_json::from_str(page.get("Documents")?.get()).ok()?;
    let before = rows.len();
    let rows = rows.into_iter().filter(|row| !shows_a_marker(row.get()));
    let rows: Vec<Cow<'_, RawValue>> = match select {
        None => rows.map(Cow::Borrowed).collect(),
        Some(select) => rows.map(|row| selected(select, row).map(Cow::Owned)).collect::<Option<_>>()?,
    };
    let count = rows.len();
    let rows = to_raw_value(&rows).ok()?;
    page.insert("Documents".into(), Cow::Owned(rows));
    if page.contains_key("_count") {
        page.insert("_count".into(), Cow::Owned(to_raw_value(&count).ok()?));
    }
    let body = serde_json::to_vec(&page).ok()?;
    if count != before && answer.headers.contains_key("x-ms-item-count") {
        answer.headers.insert("x-ms-item-count", HeaderValue::from(count));
    }
    Some(body.into())
}

/// Whether a row holds the id of a marker, under whatever name a query gave it.
fn shows_a_marker(row: &str) -> bool {
    row.match_indices(RESERVED).any(|(at, _)| {
        let (before, after) = (row.get(..at), row.get(at + RESERVED.len()..));
        let Some((digits, end)) = after.and_then(|after| after.split_at_checked(DIGITS)) else { return false };
        before.is_some_and(|before| before.ends_with('"'))
            && end.starts_with('"')
            && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
    })
}

/// The results of a batch, each item with the members that are wanted.
fn results(body: &[u8], select: &Select) -> Option<Bytes> {
    let mut results: Vec<Members<'_>> = serde_json::from_slice(body).ok()?;
    for result in &mut results {
        if let Some(item) = result.get_mut("resourceBody") {
            *item = Cow::Owned(selected(select, item)?);
        }
    }
    serde_json::to_vec(&results).ok().map(Into::into)
}

fn selected(select: &Select, value: &RawValue) -> Option<Box<RawValue>> {
    let value: Value = serde_json::from_str(value.get()).ok()?;
    to_raw_value(&select.of(value)).ok()
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};
    use serde_json::json;

    use super::*;
    use crate::answer::select::SELECT;

    fn answer(body: &Value) -> CosmosAnswer {
        let headers = HeaderMap::from_iter([("x-ms-item-count".parse().unwrap(), "3".parse().unwrap())]);
        CosmosAnswer { status: StatusCode::OK, headers, body: body.to_string().into() }
    }

    fn select(pointers: &'static str) -> Option<Select> {
        Select::wanted(&HeaderMap::from_iter([(SELECT, HeaderValue::from_static(pointers))])).unwrap()
    }

    fn viewed(operation: Operation, select: Option<&Select>, body: &Value) -> (Value, CosmosAnswer) {
        let answer = view(Action::Operation(operation), select, answer(body)).unwrap();
        (serde_json::from_slice(&answer.body).unwrap(), answer)
    }

    fn marker() -> String {
        format!("{RESERVED}{}", "0a".repeat(32))
    }

    #[test]
    fn markers_are_in_no_page_and_the_count_is_right() {
        let rows = json!([{ "id": "1" }, { "id": marker() }, marker(), { "x": { "payload": { "n": marker() } } }]);
        let page = json!({ "_rid": "r", "Documents": rows, "_count": 4 });
        for operation in [Operation::Query, Operation::Feed] {
            let (body, answer) = viewed(operation, None, &page);
            assert_eq!(body, json!({ "_rid": "r", "Documents": [{ "id": "1" }], "_count": 1 }));
            assert_eq!(answer.headers["x-ms-item-count"], "1");
        }
    }

    #[test]
    fn what_only_looks_like_a_marker_stays() {
        let rows = json!([
            { "id": "~stepgate~" },
            { "note": format!("see {}", marker()) },
            { "note": format!("{} and more", marker()) },
            { "note": format!("\"{}\"", marker()) },
            { "n": 1.10, "large": 123_456_789_012_345_678_u64 },
        ]);
        let page = json!({ "Documents": rows, "_count": 5 });
        assert_eq!(viewed(Operation::Query, None, &page).0, page);
        let text = r#"{"Documents":[1.10,1e2,"~stepgate~"],"_count":3}"#;
        let answer =
            view(Action::Operation(Operation::Query), None, answer(&serde_json::from_str(text).unwrap())).unwrap();
        assert!(answer.body.starts_with(b"{\"Documents\":"), "{answer:?}");
    }

    #[test]
    fn what_has_to_be_read_and_cannot_be_does_not_leave() {
        let seen = |operation, select: Option<&Select>, body: String| {
            let answer = CosmosAnswer { body: body.into(), ..answer(&Value::Null) };
            view(Action::Operation(operation), select, answer).map(|answer| answer.body)
        };
        let (id, torn) = (select("/id"), format!("{{\"Documents\": [\"{}\"]", marker()));
        for (operation, select) in
            [(Operation::Query, None), (Operation::Feed, id.as_ref()), (Operation::ItemsRead, id.as_ref())]
        {
            let refused = seen(operation, select, torn.clone()).unwrap_err();
            assert_eq!(refused.condition, Condition::BadAnswer, "{operation:?}");
        }
        assert_eq!(seen(Operation::ItemsUpsert, id.as_ref(), torn).unwrap(), "", "the write stands");
        assert_eq!(seen(Operation::ItemsDelete, id.as_ref(), String::new()).unwrap(), "");
    }

    #[test]
    fn what_is_selected_is_all_that_is_seen() {
        let id = select("/id");
        let item = json!({ "id": "1", "n": 1 });
        assert_eq!(viewed(Operation::ItemsRead, id.as_ref(), &item).0, json!({ "id": "1" }));
        assert_eq!(viewed(Operation::ItemsUpsert, id.as_ref(), &item).0, json!({ "id": "1" }));
        let page = json!({ "Documents": [item, 7], "_count": 2 });
        let seen = json!({ "Documents": [{ "id": "1" }, 7], "_count": 2 });
        assert_eq!(viewed(Operation::Feed, id.as_ref(), &page).0, seen);
        let batch = json!([{ "statusCode": 201, "eTag": "e", "resourceBody": item }, { "statusCode": 204 }]);
        let seen = json!([{ "statusCode": 201, "eTag": "e", "resourceBody": { "id": "1" } }, { "statusCode": 204 }]);
        assert_eq!(viewed(Operation::Batch, id.as_ref(), &batch).0, seen);
        assert_eq!(viewed(Operation::Execute, id.as_ref(), &item).0, item, "a procedure answers no item");
    }
}
