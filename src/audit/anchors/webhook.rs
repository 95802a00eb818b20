//! Checkpoints as the bodies of POSTs, to whatever keeps them: a transparency log's front, a mailbox, another company.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};
use http_body_util::Full;
use url::Url;

use super::{AnchorError, Checkpoint, PATIENCE};
use crate::{secret::Secret, transport::Transport};

/// Nobody needs more of an answer than its beginning.
const LARGEST: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct WebhookAnchor {
    transport: Transport,
    url: Url,
    authorization: Option<Secret>,
}

impl WebhookAnchor {
    pub(super) fn new(transport: Transport, url: Url, authorization: Option<Secret>) -> Self {
        Self { transport, url, authorization }
    }

    pub(super) async fn send(&self, checkpoint: &Checkpoint) -> Result<(), AnchorError> {
        let to = self.url.host_str().unwrap_or_default().to_owned();
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(self.url.as_str())
            .header(header::CONTENT_TYPE, "text/plain; charset=utf-8")
            // A checkpoint that is sent twice is one checkpoint.
            .header("idempotency-key", checkpoint.name());
        if let Some(authorization) = &self.authorization {
            let value = HeaderValue::from_str(authorization.expose()).map_err(|_| AnchorError::Request(to.clone()))?;
            request = request.header(header::AUTHORIZATION, value);
        }
        let body = Full::new(Bytes::from(checkpoint.note.to_string()));
        let request = request.body(body).map_err(|_| AnchorError::Request(to.clone()))?;
        let answer = self.transport.exchange(request, LARGEST, PATIENCE).await;
        let answer = answer.map_err(|source| AnchorError::Unreachable { to: to.clone(), source })?;
        accepted(&to, &answer)
    }
}

/// Whether an answer says that the checkpoint was taken.
pub(super) fn accepted(to: &str, answer: &http::Response<Bytes>) -> Result<(), AnchorError> {
    if answer.status().is_success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(answer.body());
    let detail = said.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect();
    Err(AnchorError::Refused { to: to.to_owned(), status: answer.status().as_u16(), detail })
}
