//! Request bodies: read whole, in time, within their cap and within the memory all bodies share.

use std::time::Duration;

use bytes::Bytes;
use http_body::Body as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use crate::{
    answer::{Condition, Refusal},
    transport::BodyMemory,
};

/// Reads a body of at most `largest` bytes, which must have come whole within `time`. A body of unknown length takes the memory
/// of the largest one; no body has the length 0, whether a header says so or not.
pub(super) async fn read(
    body: axum::body::Body,
    largest: usize,
    memory: &BodyMemory,
    time: Duration,
) -> Result<Bytes, Refusal> {
    let too_large = || {
        Refusal::new(Condition::ItemTooLarge, format!("the body is larger than {largest} bytes, the largest accepted"))
    };
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    let length = body.size_hint().exact().map_or(largest, |length| usize::try_from(length).unwrap_or(usize::MAX));
    if length > largest {
        return Err(too_large());
    }
    let share = memory.take(length).ok_or_else(Refusal::overloaded)?;
    let whole = tokio::time::timeout(time, Limited::new(body, largest).collect()).await;
    let whole =
        whole.map_err(|_| Refusal::new(Condition::Malformed, format!("the body did not come within {time:?}")))?;
    let bytes = whole.map_err(|error| {
        if error.is::<LengthLimitError>() {
            too_large()
        } else {
            Refusal::new(Condition::Malformed, "the body ended before it was complete")
        }
    })?;
    Ok(share.hold(bytes.to_bytes()))
}
