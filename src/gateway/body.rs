//! Request bodies: read whole, within their cap and within the memory all bodies share.

use std::sync::Arc;

use bytes::Bytes;
use http_body::Body as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::answer::{Condition, Refusal};

/// A body, and its share of the memory for bodies: the share ends with the value.
pub(super) struct Whole {
    pub(super) bytes: Bytes,
    _share: OwnedSemaphorePermit,
}

/// Reads a body of at most `largest` bytes. A body of unknown length takes the share of the largest one; no body has the
/// length 0, whether a header says so or not.
pub(super) async fn read(body: axum::body::Body, largest: usize, memory: &Arc<Semaphore>) -> Result<Whole, Refusal> {
    let too_large = || {
        Refusal::new(Condition::ItemTooLarge, format!("the body is larger than {largest} bytes, the largest accepted"))
    };
    let length = body.size_hint().exact().map_or(largest, |length| usize::try_from(length).unwrap_or(usize::MAX));
    if length > largest {
        return Err(too_large());
    }
    let share = u32::try_from(length).ok().and_then(|share| memory.clone().try_acquire_many_owned(share).ok());
    let share = share.ok_or_else(Refusal::overloaded)?;
    let bytes = Limited::new(body, largest).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            too_large()
        } else {
            Refusal::new(Condition::Malformed, "the body ended before it was complete")
        }
    })?;
    Ok(Whole { bytes: bytes.to_bytes(), _share: share })
}
