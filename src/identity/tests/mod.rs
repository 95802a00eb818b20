//! The whole room at once, on tokens that are signed here: what passes, what does not, and for which reason.

mod attacks;
mod fixtures;
mod notary;

use std::{env, fs, path::Path};

use http::{HeaderMap, HeaderValue};

use super::{Class, Identity, IdentityError, VerifiedSubject};

/// Compares `text` with the committed file, or writes it when `UPDATE_GOLDEN` is set.
#[track_caller]
fn is_golden(name: &str, text: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&file, text).unwrap();
    }
    let golden = fs::read_to_string(&file).unwrap_or_default();
    assert!(golden == text, "run the tests with UPDATE_GOLDEN=1 and read the diff of {name}; it is now:\n{text}");
}

async fn present(room: &Identity, lines: &[(&str, Vec<u8>)]) -> Result<VerifiedSubject, IdentityError> {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(name.parse::<http::HeaderName>().unwrap(), HeaderValue::from_bytes(value).unwrap());
    }
    room.authenticate(&headers).await
}

fn bearer(token: &str) -> Vec<(&'static str, Vec<u8>)> {
    vec![("authorization", format!("Bearer {token}").into_bytes())]
}

/// A verdict in a word.
fn word(verdict: &Result<VerifiedSubject, IdentityError>) -> &'static str {
    match verdict.as_ref().map_err(IdentityError::class) {
        Ok(_) => "workload",
        Err(Class::Rejected) => "rejected",
        Err(Class::InvalidToken) => "invalid",
        Err(Class::Human) => "human",
        Err(Class::Unavailable) => "unavailable",
    }
}

/// Why, in a sentence.
fn reason(verdict: &Result<VerifiedSubject, IdentityError>) -> String {
    match verdict {
        Ok(subject) => {
            let client = subject.client().map(|client| format!(", client {client}")).unwrap_or_default();
            format!("{}{client}", subject.subject())
        }
        Err(error) => error.to_string(),
    }
}
