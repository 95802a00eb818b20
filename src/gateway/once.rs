//! A write that is done once: the batch with its marker, and what is answered when the marker was there already.
//!
//! What the marker means is the room's (`idempotency`); here is the order in which things are asked of Cosmos. Each question
//! is an errand like any other: it is recorded, charged, and tried again within the caller's deadline. The batch may be tried
//! again even when its outcome is in doubt, since the marker stands in the way of a second time.

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use tokio::time::{Duration, Instant};

use super::{Gateway, Permitted, ledger};
use crate::{
    access::{
        Action, ItemId, Operation,
        headers::{SESSION_TOKEN, SUBSTATUS},
    },
    answer::{CosmosAnswer, Refusal},
    audit::{Entry, Telling},
    exchange::Warrant,
    idempotency::{self, Answer, Found, IDEMPOTENCY_KEY, IdempotencyError, Layout, Once, Outcome, Told, Write},
    upstream::{Errand, Safety},
};

/// Whose answer it is, as [`Telling`] has it.
const IDEMPOTENCY: HeaderName = HeaderName::from_static("x-stepgate-idempotency");
/// How often a batch is sent whose marker was there and then was not: it expired in between.
const ROUNDS: usize = 3;
/// Longest that noting an answer may keep the caller from it. What could not be noted can be rebuilt.
const NOTING: Duration = Duration::from_secs(2);
/// Headers that speak of one document, which is not the one that the caller wrote.
const OF_A_DOCUMENT: [&str; 6] =
    ["etag", "x-ms-alt-content-path", "x-ms-content-path", "x-ms-cosmos-item-llsn", "x-ms-item-lsn", "x-ms-substatus"];

/// What it takes to ask Cosmos something for one request.
struct Asking<'a, 'b> {
    permitted: &'a Permitted<'b>,
    errand: &'a Errand<'b>,
    warrant: &'a Warrant,
    entry: &'a mut Entry,
}

impl Gateway {
    /// The marker of a write that must be done once; `None` where policy does not ask for it.
    pub(super) fn marker(&self, permitted: &Permitted<'_>, headers: &HeaderMap) -> Result<Option<ItemId>, Refusal> {
        let Permitted { permit, subject, context, question, .. } = permitted;
        if !permit.is_idempotent() {
            let procedure = question.action == Action::Operation(Operation::Execute);
            if procedure && permit.wants_idempotency() && headers.contains_key(IDEMPOTENCY_KEY) {
                return Err(IdempotencyError::NotForProcedures.into());
            }
            return Ok(None);
        }
        Ok(Some(idempotency::marker_id(subject.subject(), headers, context)?))
    }

    /// Does the write of `errand` under its marker, or answers as it was answered when it was done.
    pub(super) async fn once(
        &self,
        marker: ItemId,
        permitted: &Permitted<'_>,
        errand: &Errand<'_>,
        warrant: &Warrant,
        entry: &mut Entry,
    ) -> Result<CosmosAnswer, Refusal> {
        let mut asking = Asking { permitted, errand, warrant, entry };
        let layout = match self.layout(&mut asking).await? {
            Ok(layout) => layout,
            Err(refused) => return Ok(refused),
        };
        let condition = |name| errand.headers.as_map().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let write = Write {
            marker,
            question: permitted.question,
            partition_key: permitted.permit.partition_key(),
            if_match: condition(header::IF_MATCH),
            if_none_match: condition(header::IF_NONE_MATCH),
        };
        let once = self.rooms.idempotency.once(write, &layout).await?;
        for _ in 0..ROUNDS {
            let batch = Errand {
                method: Method::POST,
                path: permitted.question.items_path(),
                headers: errand.headers.of_batch(),
                body: once.batch()?,
                safety: Safety::Repeatable,
                ..errand.clone()
            };
            let answer = self.ask(&mut asking, &batch).await?;
            match once.read(answer.status, &answer.body) {
                Outcome::Done { answer: done, marker } => {
                    let done = asking.as_wanted(done);
                    if let Some(version) = marker {
                        self.note(&mut asking, &once, &done, &version, &answer).await;
                    }
                    return Ok(asking.told(done, &answer.headers, Telling::First));
                }
                Outcome::Marked => {
                    if let Some(answer) = self.repeat(&mut asking, &once, &answer).await? {
                        return Ok(answer);
                    }
                }
                Outcome::Failed { status, substatus, body } => return Ok(failed(status, substatus, body, answer)),
                Outcome::Unread => {
                    if answer.status == StatusCode::BAD_REQUEST {
                        self.rooms.idempotency.forget(&permitted.question.container).await;
                    }
                    return Ok(answer);
                }
            }
        }
        Err(IdempotencyError::Restless.into())
    }

    /// How the container is laid out, read once in a while; or what Cosmos answered instead.
    async fn layout(
        &self,
        asking: &mut Asking<'_, '_>,
    ) -> Result<Result<std::sync::Arc<Layout>, CosmosAnswer>, Refusal> {
        let (room, question) = (&self.rooms.idempotency, asking.permitted.question);
        if let Some(layout) = room.layout(&question.container).await {
            return Ok(Ok(layout));
        }
        let read = asking.document(Method::GET, question.container_path(), Safety::Read);
        let answer = self.ask(asking, &read).await?;
        if !answer.status.is_success() {
            return Ok(Err(answer));
        }
        let layout = Layout::read(&answer.body).ok_or(IdempotencyError::Unreadable("the container"))?;
        if !layout.expires() {
            tracing::warn!(
                container = %question.container,
                "time to live is off, so the markers of idempotent writes stay for good; set the container's default TTL to -1"
            );
        }
        Ok(Ok(room.learn(&question.container, layout).await))
    }

    /// What is answered when the marker was there already; `None` when it is gone by now. `refused` is what said so: what is
    /// read next may be no older.
    async fn repeat(
        &self,
        asking: &mut Asking<'_, '_>,
        once: &Once<'_>,
        refused: &CosmosAnswer,
    ) -> Result<Option<CosmosAnswer>, Refusal> {
        let answer = self.look_up(asking, once.marker(), refused).await?;
        if is_absent(&answer) {
            return Ok(None);
        }
        if !answer.status.is_success() {
            return Ok(Some(answer));
        }
        let first = match once.told(&answer.body)? {
            Told::Answer(first) => first,
            Told::Nothing => {
                let marker = Found::new(&answer.headers, answer.body.clone());
                let rebuilt = match self.items(asking, once, refused).await? {
                    Ok(items) => once.rebuild(&marker, &items),
                    Err(unread) => return Ok(Some(unread)),
                };
                if let Some(version) = &marker.etag {
                    self.note(asking, once, &rebuilt, version, refused).await;
                }
                rebuilt
            }
        };
        let whose = if first.changed { Telling::Changed } else { Telling::Repeated };
        Ok(Some(asking.told(asking.as_wanted(first), &answer.headers, whose)))
    }

    /// The items of the write as they are now; or what Cosmos answered instead.
    async fn items(
        &self,
        asking: &mut Asking<'_, '_>,
        once: &Once<'_>,
        refused: &CosmosAnswer,
    ) -> Result<Result<Vec<Option<Found>>, CosmosAnswer>, Refusal> {
        let mut items = Vec::new();
        for item in once.items() {
            let Some(item) = item else {
                items.push(None);
                continue;
            };
            let answer = self.look_up(asking, item, refused).await?;
            if answer.status.is_success() {
                items.push(Some(Found::new(&answer.headers, answer.body)));
            } else if is_absent(&answer) {
                items.push(None);
            } else {
                return Ok(Err(answer));
            }
        }
        Ok(Ok(items))
    }

    /// Reads a document, no older than what `after` knew.
    async fn look_up(
        &self,
        asking: &mut Asking<'_, '_>,
        id: &ItemId,
        after: &CosmosAnswer,
    ) -> Result<CosmosAnswer, Refusal> {
        let path = asking.permitted.question.item_path(id.clone());
        let mut errand = asking.document(Method::GET, path, Safety::Read);
        if let Some(session) = after.headers.get(SESSION_TOKEN) {
            errand.headers.set_session(session);
        }
        self.ask(asking, &errand).await
    }

    /// Notes an answer in this version of the marker. Whoever else noted one first is right, and what cannot be noted can be
    /// rebuilt: so nothing of this reaches the caller.
    async fn note(
        &self,
        asking: &mut Asking<'_, '_>,
        once: &Once<'_>,
        answer: &Answer,
        version: &str,
        after: &CosmosAnswer,
    ) {
        let Ok(body) = once.noted(answer) else { return };
        let path = asking.permitted.question.item_path(once.marker().clone());
        let mut errand = asking.document(Method::PUT, path, Safety::Repeatable);
        errand.headers.set_if_match(version);
        if let Some(session) = after.headers.get(SESSION_TOKEN) {
            errand.headers.set_session(session);
        }
        errand.body = body;
        errand.deadline = errand.deadline.min(Instant::now() + NOTING);
        // The record tells how the write fared; of this it tells what it cost.
        let fared = asking.entry.upstream.clone();
        let noted = self.ask(asking, &errand).await;
        ledger::aside(asking.entry, fared);
        if !noted.is_ok_and(|noted| noted.status.is_success()) {
            tracing::debug!("an answer was not noted in its marker");
        }
    }

    async fn ask(&self, asking: &mut Asking<'_, '_>, errand: &Errand<'_>) -> Result<CosmosAnswer, Refusal> {
        self.run(asking.permitted, errand, asking.warrant, asking.entry).await
    }
}

impl<'b> Asking<'_, 'b> {
    /// An errand to a document beside the items of the request.
    fn document(&self, method: Method, path: String, safety: Safety) -> Errand<'b> {
        let headers = self.errand.headers.of_document();
        Errand { method, path, headers, body: bytes::Bytes::new(), safety, ..self.errand.clone() }
    }

    /// The answer without its body, where the caller wants none.
    fn as_wanted(&self, answer: Answer) -> Answer {
        if self.errand.headers.wants_no_content() { Answer { body: None, ..answer } } else { answer }
    }

    /// An answer as the caller gets it, with what Cosmos said around it; the record says whose it is.
    fn told(&mut self, answer: Answer, around: &HeaderMap, whose: Telling) -> CosmosAnswer {
        self.entry.told = Some(whose);
        let mut headers = around.clone();
        OF_A_DOCUMENT.iter().for_each(|name| drop(headers.remove(*name)));
        headers.insert(IDEMPOTENCY, HeaderValue::from_static(whose.as_str()));
        if let Some(etag) = answer.etag.and_then(|etag| HeaderValue::try_from(etag).ok()) {
            headers.insert(header::ETAG, etag);
        }
        match answer.body {
            Some(_) => headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
            None => headers.remove(header::CONTENT_TYPE),
        };
        let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
        CosmosAnswer { status, headers, body: answer.body.unwrap_or_default().into() }
    }
}

/// Whether there is no such document.
fn is_absent(answer: &CosmosAnswer) -> bool {
    answer.status == StatusCode::NOT_FOUND && matches!(answer.substatus(), None | Some(0))
}

/// A write that was not done, as Cosmos would have refused it by itself.
fn failed(status: StatusCode, substatus: Option<u32>, body: bytes::Bytes, batch: CosmosAnswer) -> CosmosAnswer {
    let mut headers = batch.headers;
    OF_A_DOCUMENT.iter().for_each(|name| drop(headers.remove(*name)));
    if let Some(substatus) = substatus {
        headers.insert(SUBSTATUS, HeaderValue::from(substatus));
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    CosmosAnswer { status, headers, body }
}
