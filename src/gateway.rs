//! The corridor: the only function that knows all rooms, and every branch a request can take.
//!
//! [`Gateway::answer`] takes a request and always gives an answer; `Gateway::walk` is the way between. The audit entry
//! grows along the walk and is closed in one place, so no branch can forget it: a write's intent is durable before it
//! leaves for Cosmos, an outcome before the answer leaves for the caller.

mod account;
mod body;
mod errand;
mod inquiry;
mod ledger;
mod masking;
mod once;
mod preflight;
mod release;

use std::{net::SocketAddr, pin::pin, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, request::Parts};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};
use tracing::{Instrument as _, Span};
use url::Url;

pub use self::inquiry::{Inquiry, Tool};
use crate::{
    access::{AccessRequest, Action, ExecutionContext, Operation},
    answer::{self, Condition, CosmosAnswer, Form, Refusal, Select},
    audit::{Entry, Journal, Phase, Ruling, Verdict},
    clock::Clock,
    context::{self, ContextError, RequestContext, RequestId},
    exchange::{Exchange, Warrant},
    idempotency::Idempotency,
    identity::{Identity, IdentityError, VerifiedSubject},
    limits::{self, Admission},
    mask::Veil,
    overload::{Overload, Place, Shed, Signal},
    policy::{self, Permit, RunningPolicy},
    question::{self, Question, Route},
    revocation::{Revocation, Revocations, Unwelcome},
    secret::Secret,
    telemetry::{
        Finished, Metrics, set,
        trace::{self, Trace, room},
    },
    transport::BodyMemory,
    upstream::{Errand, Failure, SessionKey, Upstream, UpstreamAnswer, UpstreamError},
};

/// With less time left than this, a turn is of no use.
const LEAST: Duration = Duration::from_millis(100);

/// Bounds on requests.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest request body, in bytes.
    pub request_body: usize,
    /// Memory for all bodies in flight, requests and answers, in bytes.
    pub body_memory: usize,
    /// Requests in flight.
    pub concurrency: usize,
    /// How long a request may take in all.
    pub deadline: Duration,
    /// How long its body may take to come.
    pub read_timeout: Duration,
}

/// The rooms a request walks through, in walking order.
#[derive(Debug)]
pub struct Rooms {
    /// Who.
    pub identity: Identity,
    /// Whom an operator no longer lets in.
    pub revocations: Revocations,
    /// May they.
    pub policy: RunningPolicy,
    /// How much.
    pub limits: limits::Limits,
    /// Whose turn.
    pub overload: Overload,
    /// The ledger.
    pub journal: Journal,
    /// Once.
    pub idempotency: Idempotency,
    /// Which key fits.
    pub exchange: Exchange,
    /// The errand.
    pub upstream: Upstream,
    /// What time it is.
    pub clock: Clock,
}

/// The rooms, and the bounds on what may be in them at once.
#[derive(Debug)]
pub struct Gateway {
    /// The rooms.
    pub rooms: Rooms,
    /// What operators count.
    pub metrics: Metrics,
    limits: Limits,
    public_url: Option<Url>,
    in_flight: Semaphore,
    body_memory: BodyMemory,
}

/// What policy permitted, with the proofs that the rooms behind it demand.
struct Permitted<'a> {
    request: &'a RequestContext,
    subject: &'a VerifiedSubject,
    context: &'a ExecutionContext,
    /// The token that proved the subject, where the exchange must pass it on.
    presented: Option<&'a Secret>,
    permit: &'a Permit,
    /// What of the answer is covered.
    veil: Option<&'a Veil>,
    admission: &'a Admission,
    place: &'a Place,
    question: &'a Question,
    session: Option<SessionKey>,
}

impl Gateway {
    /// A gateway of these rooms, which hold bodies in `body_memory`. `public_url` is what the account document names.
    pub fn new(rooms: Rooms, limits: Limits, body_memory: BodyMemory, public_url: Option<Url>) -> Self {
        Self {
            rooms,
            metrics: Metrics::default(),
            in_flight: Semaphore::new(limits.concurrency),
            body_memory,
            limits,
            public_url,
        }
    }

    /// The address under which clients reach the gateway: the configured one, or on loopback the one they named.
    pub fn address(&self, head: &Parts, encrypted: bool) -> Option<Url> {
        account::address(self.public_url.as_ref(), &head.uri, &head.headers, encrypted)
    }

    /// Copies how full the gateway is into the metrics.
    pub fn observe(&self) {
        let Limits { concurrency, body_memory, .. } = self.limits;
        set(&self.metrics.requests_in_flight, concurrency.saturating_sub(self.in_flight.available_permits()));
        set(&self.metrics.requests_in_flight_limit, concurrency);
        set(&self.metrics.body_memory, body_memory.saturating_sub(self.body_memory.free()));
        set(&self.metrics.body_memory_limit, body_memory);
    }

    /// Answers one request; whatever happens on the way, there is an answer and a record.
    pub async fn answer(&self, peer: SocketAddr, encrypted: bool, request: Request<Body>) -> Response<Bytes> {
        let span = trace::request(&request, encrypted);
        // A walk is large, and whoever takes a future by value copies it: it has its own place from the start. What is pinned further
        // on stays where it is for the same reason.
        Box::pin(self.attend(peer, encrypted, request, None)).instrument(span).await
    }

    async fn attend(
        &self,
        peer: SocketAddr,
        encrypted: bool,
        request: Request<Body>,
        tool: Option<Tool>,
    ) -> Response<Bytes> {
        let started = Instant::now();
        let (head, body) = request.into_parts();
        let patience = context::patience(&head.headers, self.limits.deadline);
        let deadline = started + *patience.as_ref().unwrap_or(&self.limits.deadline);
        let request = RequestContext { id: RequestId::new(), deadline };
        // It goes from hand to hand until it is written, and is large.
        let mut entry = Box::new(Entry::new(Phase::Outcome, &request.id));
        entry.peer = Some(peer);
        entry.user_agent = ledger::user_agent(&head.headers, tool.is_some());
        let wanted = Form::wanted(&head.headers);
        let form = match wanted {
            // An OAuth client reads what RFC 6749 says, in whatever form other answers are wanted.
            Some(_) if self.is_release(&head) => Form::Cosmos,
            wanted => wanted.unwrap_or_else(|| Form::of_user_agent(&head.headers)),
        };
        let walked = match (wanted, patience) {
            (Some(_), Ok(_)) if let Some(Tool::Inquiry(inquiry)) = &tool => {
                let inquire = Box::pin(self.inquire(inquiry, &head.headers, &mut entry));
                timeout_at(request.deadline, inquire).await.unwrap_or_else(|_| Err(Refusal::deadline()))
            }
            (Some(_), Ok(_)) if self.is_release(&head) => {
                let release = Box::pin(self.release(&request, &head, body, &mut entry));
                timeout_at(request.deadline, release).await.map_err(|_| Refusal::deadline())
            }
            (Some(_), Ok(_)) => {
                let walk = pin!(self.walk(&request, encrypted, form, &head, body, &mut entry));
                timeout_at(request.deadline, walk).await.unwrap_or_else(|_| Err(Refusal::deadline()))
            }
            (None, _) => {
                Err(Refusal::new(Condition::Malformed, "x-stepgate-errors is one of distinct, cosmos, envelope"))
            }
            (_, Err(error)) => Err(error.into()),
        };
        let trace = trace::trace_of(&Span::current(), &head.headers);
        self.close(&request, form, entry, walked, trace, started).await
    }

    /// The walk: each step demands what the step before it gave.
    async fn walk(
        &self,
        request: &RequestContext,
        encrypted: bool,
        form: Form,
        head: &Parts,
        body: Body,
        entry: &mut Entry,
    ) -> Result<CosmosAnswer, Refusal> {
        let _place = self.in_flight.try_acquire().map_err(|_| Refusal::overloaded())?;
        let (subject, context) = self.enter(&head.headers, entry).await?;
        let wants_token = self.rooms.exchange.wants_workflow_token();
        let presented = wants_token.then(|| Identity::presented(&head.headers)).flatten();
        let session = context::session(&head.headers, &context)?;
        let select = Select::wanted(&head.headers)?;
        let route = room!("question").in_scope(|| question::route(&head.method, &head.uri, &head.headers))?;
        let body = self.read(body, entry).instrument(room!("question")).await?;
        let route = match route {
            Route::Account => return account::document(self.address(head, encrypted)),
            Route::Preflight => {
                let (subject, context, presented) = (&subject, &context, presented.as_ref());
                let caller = preflight::Caller { request, form, subject, context, presented };
                return Box::pin(self.preflight(&caller, &body, entry)).await;
            }
            Route::Container(route) => route,
        };
        let question = room!("question").in_scope(|| route.with_body(&head.headers, body))?;
        entry.question = ledger::asked(&question);
        let permit = room!("policy").in_scope(|| self.decide(&subject, &context, &question, entry))?;
        let veil = masking::veil(&permit, &question, &head.headers, entry)?;
        let admission = room!("limits").in_scope(|| self.admit(&permit, entry))?;
        let place = self.turn(request, &permit).instrument(room!("overload")).await?;
        let permitted = Permitted {
            request,
            subject: &subject,
            context: &context,
            presented: presented.as_ref(),
            permit: &permit,
            veil: veil.as_ref(),
            admission: &admission,
            place: &place,
            question: &question,
            session: session.map(|execution| SessionKey {
                subject: subject.subject().clone(),
                execution,
                container: question.container.clone(),
            }),
        };
        self.carry_out(&permitted, form, select.as_ref(), &head.headers, entry).await
    }

    /// Who asks, and in which execution: a workload that no operator has revoked.
    async fn enter(
        &self,
        headers: &HeaderMap,
        entry: &mut Entry,
    ) -> Result<(VerifiedSubject, ExecutionContext), Refusal> {
        let authenticated = pin!(self.rooms.identity.authenticate(headers)).instrument(room!("identity")).await;
        self.let_in(authenticated, headers, entry)
    }

    /// Who asks, as far as it goes beyond the token.
    fn let_in(
        &self,
        authenticated: Result<VerifiedSubject, IdentityError>,
        headers: &HeaderMap,
        entry: &mut Entry,
    ) -> Result<(VerifiedSubject, ExecutionContext), Refusal> {
        entry.who = ledger::who(&authenticated);
        let subject = authenticated?;
        ledger::noted(entry, room!("revocation").in_scope(|| self.rooms.revocations.check_caller(&subject)))?;
        let context = room!("context").in_scope(|| self.agree(&subject, headers))?;
        entry.context = context.clone();
        ledger::noted(entry, room!("revocation").in_scope(|| self.rooms.revocations.check_execution(&context)))?;
        Ok((subject, context))
    }

    /// What the request and its token say of the execution, where they do not contradict each other.
    fn agree(&self, subject: &VerifiedSubject, headers: &HeaderMap) -> Result<ExecutionContext, ContextError> {
        context::agree(context::claimed(headers)?, subject.context(), self.rooms.clock.now())
    }

    /// Reads the body; its share of the memory for bodies is held as long as it is.
    async fn read(&self, body: Body, entry: &mut Entry) -> Result<Bytes, Refusal> {
        let (largest, time) = (self.limits.request_body, self.limits.read_timeout);
        let body = body::read(body, largest, &self.body_memory, time).await?;
        entry.bytes_in = body.len() as u64;
        Ok(body)
    }

    /// Asks policy, and records what it said.
    fn decide(
        &self,
        subject: &VerifiedSubject,
        context: &ExecutionContext,
        question: &Question,
        entry: &mut Entry,
    ) -> Result<Permit, Refusal> {
        let access = AccessRequest {
            subject: subject.subject(),
            client: subject.client(),
            claims: subject.claims(),
            context,
            action: question.action,
            container: &question.container,
            partition_key: question.partition_key.as_ref(),
        };
        let policies = self.rooms.policy.current();
        let decision = match question.action {
            Action::Operation(Operation::Batch) => {
                let inside = question.batch.iter().map(|inside| (inside.operation, inside.partition_key.clone()));
                policy::decide_batch(&policies, &access, &inside.collect::<Vec<_>>())
            }
            _ => policy::decide(&policies, &access),
        };
        let permit = ledger::ruled(entry, decision)?;
        entry.question.partition_key = permit.partition_key().cloned();
        Ok(permit)
    }

    /// Waits for the request's turn at its container.
    async fn turn(&self, request: &RequestContext, permit: &Permit) -> Result<Place, Shed> {
        self.rooms.overload.enter(permit, request.left().saturating_sub(LEAST)).await
    }

    /// Asks whether the binding may ask for more, and records it when it may not.
    fn admit(&self, permit: &Permit, entry: &mut Entry) -> Result<Admission, Refusal> {
        self.rooms.limits.admit(permit).map_err(|exceeded| {
            self.metrics.limited(&exceeded.binding.role, &exceeded.binding.place);
            entry.decision = Some(Ruling { verdict: Verdict::Reject, ..permit.into() });
            exceeded.into()
        })
    }

    /// Carries out what policy permitted: a write's intent first, then the credential, then the errand.
    async fn carry_out(
        &self,
        permitted: &Permitted<'_>,
        form: Form,
        select: Option<&Select>,
        headers: &HeaderMap,
        entry: &mut Entry,
    ) -> Result<CosmosAnswer, Refusal> {
        let Permitted { request, subject, presented, permit, question, session, .. } = permitted;
        let marker = self.marker(permitted, headers)?;
        if question.action.is_write() {
            let intent = Entry { phase: Phase::Intent, ..entry.clone() };
            self.record(Box::new(intent)).await?;
        }
        let warrant = {
            let exchange = pin!(self.rooms.exchange.exchange(subject, permit, *presented, request.id.as_str()));
            exchange.instrument(room!("exchange")).await?
        };
        let mut errand = errand::prepare(request, permit, question, headers);
        errand.session.clone_from(session);
        let mut answer = match marker {
            // What not every request needs has a place of its own, so that every request is smaller.
            Some(marker) => Box::pin(self.once(marker, permitted, &errand, &warrant, entry)).await?,
            None => self.run(permitted, &errand, &warrant, entry).await?,
        };
        answer = answer::view(question.action, select, masking::covered(permitted, answer, entry)?)?;
        let mut asked = u32::MAX;
        while let Some(rows) = errand::fewer_rows(form, question.action, &answer).filter(|rows| *rows < asked) {
            asked = rows;
            errand.headers.set_max_item_count(rows);
            answer = self.run(permitted, &errand, &warrant, entry).await?;
            answer = answer::view(question.action, select, masking::covered(permitted, answer, entry)?)?;
        }
        room!("answer").in_scope(|| answer::settle(form, question.action, answer))
    }

    /// Runs an errand. When Cosmos refuses the gateway's own credential, one is minted anew and the errand run once more.
    async fn run(
        &self,
        permitted: &Permitted<'_>,
        errand: &Errand<'_>,
        warrant: &Warrant,
        entry: &mut Entry,
    ) -> Result<CosmosAnswer, Refusal> {
        let answer = self.forward(permitted, errand, warrant, entry).await?;
        if !answer.refused_credential() {
            return Ok(answer.into());
        }
        let Permitted { subject, permit, presented, .. } = permitted;
        let renewal = self.rooms.exchange.renew(subject, permit, warrant, *presented, errand.activity_id);
        let warrant = renewal.instrument(room!("exchange")).await?;
        ledger::noted(entry, self.still_welcome(permitted))?;
        Ok(self.forward(permitted, errand, &warrant, entry).await?.into())
    }

    /// Whether the caller was revoked since it was let in.
    fn still_welcome(&self, permitted: &Permitted<'_>) -> Result<(), Unwelcome> {
        self.rooms.revocations.check_caller(permitted.subject)?;
        self.rooms.revocations.check_execution(permitted.context)
    }

    /// Sends an errand, again where that is safe and the caller may still ask; records what came of it.
    async fn forward(
        &self,
        permitted: &Permitted<'_>,
        errand: &Errand<'_>,
        warrant: &Warrant,
        entry: &mut Entry,
    ) -> Result<UpstreamAnswer, Refusal> {
        let left = Instant::now();
        entry.credential = Some(ledger::credential(permitted.permit, warrant));
        let may_retry =
            || self.rooms.clock.now() < permitted.subject.expires() && self.still_welcome(permitted).is_ok();
        let span = trace::errand(permitted.question.action, &permitted.question.container);
        let throttled = || permitted.place.hear(Signal::Throttled);
        let forwarding = pin!(self.rooms.upstream.forward(errand, warrant, may_retry, throttled));
        let forwarded = forwarding.instrument(span.clone()).await;
        trace::returned(&span, &forwarded);
        if let Ok(answer) = &forwarded {
            self.rooms.exchange.note_refusal(answer.status.as_u16(), answer.substatus);
        }
        permitted
            .admission
            .charge(forwarded.as_ref().ok().and_then(|answer| answer.request_charge).unwrap_or_default());
        let took = left.elapsed();
        permitted.place.hear(ledger::signal(&forwarded, took));
        ledger::upstream(entry, &forwarded, took);
        if matches!(forwarded, Err(Failure { error: UpstreamError::Withdrawn { .. }, .. })) {
            ledger::noted(entry, self.still_welcome(permitted))?;
        }
        forwarded.map_err(|failure| failure.error.into())
    }

    /// Records what an operator did to a revocation; resolves when that is durable.
    pub async fn record_change(&self, phase: Phase, revocation: &Revocation, peer: SocketAddr) -> Result<(), Refusal> {
        let revocation = Some(ledger::recorded(revocation));
        let entry = Entry { revocation, peer: Some(peer), ..Entry::new(phase, &RequestId::new()) };
        self.record(Box::new(entry)).await
    }

    /// Waits until a record is durable.
    async fn record(&self, entry: Box<Entry>) -> Result<(), Refusal> {
        Ok(pin!(self.rooms.journal.append(entry)).instrument(room!("audit")).await.map(drop)?)
    }

    /// Closes the record and lets the answer go; without a record there is no answer.
    async fn close(
        &self,
        request: &RequestContext,
        form: Form,
        mut entry: Box<Entry>,
        walked: Result<CosmosAnswer, Refusal>,
        trace: Option<Trace>,
        started: Instant,
    ) -> Response<Bytes> {
        let condition = walked.as_ref().err().map(|refusal| refusal.condition);
        let mut response = match walked {
            Ok(answer) => answer::succeed(form, &request.id, answer),
            Err(refusal) => answer::refuse(form, &request.id, &refusal),
        };
        ledger::answered(&mut entry, &response, condition, started.elapsed());
        trace::answered(&Span::current(), &entry);
        let mut finished = Finished::of(&entry, trace);
        if entry.who.is_none() {
            self.rooms.journal.refuse(Entry { phase: Phase::Refusal, ..*entry });
        } else if let Err(refusal) = self.record(entry).await {
            response = answer::refuse(form, &request.id, &refusal);
            finished.status = response.status().as_u16();
            finished.error = Some(refusal.condition.as_str().into());
        }
        finished.took = started.elapsed();
        self.metrics.request(&finished);
        finished.log();
        response
    }
}
