//! What a state may hold: 262,144 bytes (Step Functions service quotas), counted over the whole task result.

use http::HeaderMap;

/// The quota on a state's input or output, in bytes of UTF-8.
const LARGEST_STATE: usize = 262_144;
/// `{"Headers":{},"ResponseBody":,"StatusCode":200,"StatusText":"..."}` and a margin for what AWS adds.
const AROUND: usize = 512;

/// Whether a task result of these headers and this body fits into a state. A JSON body counts as it stands; the quotes and
/// brackets around each header are counted too. A body that is not JSON becomes a JSON string, escapes included.
pub fn fits_a_state(headers: &HeaderMap, body: &[u8]) -> bool {
    let headers: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 10).sum();
    let body = match serde_json::from_slice::<serde::de::IgnoredAny>(body) {
        Ok(_) => body.len(),
        Err(_) => serde_json::to_string(&String::from_utf8_lossy(body)).map_or(usize::MAX, |text| text.len()),
    };
    body.saturating_add(headers).saturating_add(AROUND) <= LARGEST_STATE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_result_is_counted() {
        let body = |len: usize| format!("\"{}\"", "x".repeat(len - 2)).into_bytes();
        let mut headers = HeaderMap::new();
        assert!(fits_a_state(&headers, &body(262_144 - 512)));
        assert!(!fits_a_state(&headers, &body(262_144 - 511)));
        headers.insert("etag", "\"1\"".parse().unwrap());
        assert!(!fits_a_state(&headers, &body(262_144 - 512)));
    }

    #[test]
    fn text_is_counted_with_its_escapes() {
        assert!(!fits_a_state(&HeaderMap::new(), "\"\n".repeat(70_000).as_bytes()));
    }
}
