//! The headers that turn `POST C/docs` into an upsert, a query, a query plan or a batch.

use http::{HeaderMap, HeaderName, header::CONTENT_TYPE};

use super::{Rejection, one_text};
use crate::access::{
    Action, Operation,
    headers::{IS_BATCH, IS_QUERY, IS_QUERY_PLAN},
};

const IS_UPSERT: HeaderName = HeaderName::from_static("x-ms-documentdb-is-upsert");

/// Which of the headers are set.
pub(super) struct Discriminator {
    upsert: bool,
    query: bool,
    query_plan: bool,
    batch: bool,
}

/// Reads the four headers; each may come once, as `True` or `False` in any case.
pub(super) fn read(headers: &HeaderMap) -> Result<Discriminator, Rejection> {
    Ok(Discriminator {
        upsert: flag(headers, IS_UPSERT)?,
        query: flag(headers, IS_QUERY)?,
        query_plan: flag(headers, IS_QUERY_PLAN)?,
        batch: flag(headers, IS_BATCH)?,
    })
}

/// A boolean header, absent meaning false.
pub(super) fn flag(headers: &HeaderMap, name: HeaderName) -> Result<bool, Rejection> {
    match one_text(headers, name.clone())? {
        None => Ok(false),
        Some(text) if text.eq_ignore_ascii_case("true") => Ok(true),
        Some(text) if text.eq_ignore_ascii_case("false") => Ok(false),
        Some(_) => Err(Rejection::NotABoolean(name)),
    }
}

impl Discriminator {
    /// `meaning`, which none of the headers may change.
    pub(super) fn none<T>(&self, meaning: T) -> Result<T, Rejection> {
        if self.upsert || self.query || self.query_plan || self.batch {
            return Err(Rejection::Contradiction("upsert, query and batch headers belong to POST on docs"));
        }
        Ok(meaning)
    }

    /// What `POST C/docs` means.
    pub(super) fn of_post(&self, headers: &HeaderMap) -> Result<Action, Rejection> {
        let query = self.query || self.query_plan;
        match (self.upsert, query, self.batch) {
            (false, true, false) if self.query_plan => Ok(Action::QueryPlan),
            (false, true, false) => Ok(Action::Operation(Operation::Query)),
            (false, false, true) => Ok(Action::Operation(Operation::Batch)),
            (_, false, false) if is_query_content(headers) => {
                Err(Rejection::Contradiction("a query body without x-ms-documentdb-isquery: True"))
            }
            (true, false, false) => Ok(Action::Operation(Operation::ItemsUpsert)),
            (false, false, false) => Ok(Action::Operation(Operation::ItemsCreate)),
            _ => Err(Rejection::Contradiction("two of upsert, query and batch")),
        }
    }
}

/// Whether the content type says that the body is a query.
fn is_query_content(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_TYPE).iter().any(|value| media_type(value.as_bytes()) == b"application/query+json")
}

/// The media type without its parameters, in lower case.
pub(super) fn media_type(value: &[u8]) -> Vec<u8> {
    value.split(|b| *b == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase()
}
