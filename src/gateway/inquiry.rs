//! What comes by a front that speaks another protocol than Cosmos' own: tools for agents.
//!
//! A tool that touches data is a request like any other and takes the walk. The rest are inquiries, which policy alone answers:
//! what the caller holds, and why something is granted to it or not. They are about the caller and nobody else, wait for the
//! same identity, revocations and context, and are recorded in the same way.

use std::net::SocketAddr;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header, request::Parts};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument as _, Span};

use super::{Gateway, ledger, preflight};
use crate::{
    access::{ContainerName, ExecutionContext, Operation, PartitionKey},
    answer::{Condition, CosmosAnswer, Form, Refusal},
    audit::{Asked, Entry, Phase, Ruling, UserAgentKind, Verdict},
    context::{self, RequestContext, RequestId},
    identity::VerifiedSubject,
    policy::{self, Clause},
    question::Need,
    telemetry::trace,
};

/// Most operations that a caller is told it holds; each costs a decision.
const MOST_HOLDINGS: usize = 500;

/// What a tool wants of the gateway.
#[derive(Clone, Debug)]
pub enum Tool {
    /// What the request asks, as if it had come over the wire.
    Request,
    /// Something about the caller.
    Inquiry(Inquiry),
}

/// What a caller asks about itself.
#[derive(Clone, Debug)]
pub enum Inquiry {
    /// What it holds.
    Grants,
    /// Whether it would be let do something, and why.
    Explain(Need),
    /// Nothing that can be read, and why it cannot.
    Unreadable(String),
}

impl Gateway {
    /// Takes in a request in another protocol: its caller must be a workload that is not revoked, and its body within the bounds.
    /// What is refused is recorded here, and answered as Cosmos clients are; what is let in is recorded when it asks for something.
    pub async fn receive(&self, peer: SocketAddr, head: &Parts, body: Body) -> Result<Bytes, Box<Response<Bytes>>> {
        let started = Instant::now();
        let patience = context::patience(&head.headers, self.limits.deadline);
        let deadline = started + *patience.as_ref().unwrap_or(&self.limits.deadline);
        let request = RequestContext { id: RequestId::new(), deadline };
        let mut entry = Box::new(Entry::new(Phase::Outcome, &request.id));
        entry.peer = Some(peer);
        entry.user_agent = UserAgentKind::Mcp;
        let taken = async {
            patience?;
            let _place = self.in_flight.try_acquire().map_err(|_| Refusal::overloaded())?;
            self.enter(&head.headers, &mut entry).await?;
            self.read(body, &mut entry).await
        };
        let refusal = match timeout_at(deadline, taken).await.unwrap_or_else(|_| Err(Refusal::deadline())) {
            Ok(body) => return Ok(body),
            Err(refusal) => refusal,
        };
        let trace = trace::trace_of(&Span::current(), &head.headers);
        Err(Box::new(self.close(&request, Form::Cosmos, entry, Err(refusal), trace, started).await))
    }

    /// Holds an answer that was made of others within the memory that all bodies share, if there is room.
    pub fn hold(&self, body: Bytes) -> Option<Bytes> {
        Some(self.body_memory.take(body.len())?.hold(body))
    }

    /// Answers a tool of an agent: the same walk, by another door.
    pub async fn answer_tool(
        &self,
        peer: SocketAddr,
        encrypted: bool,
        request: Request<Body>,
        tool: Tool,
    ) -> Response<Bytes> {
        let span = trace::request(&request, encrypted);
        Box::pin(self.attend(peer, encrypted, request, Some(tool))).instrument(span).await
    }

    /// Answers an inquiry.
    pub(super) async fn inquire(
        &self,
        inquiry: &Inquiry,
        headers: &HeaderMap,
        entry: &mut Entry,
    ) -> Result<CosmosAnswer, Refusal> {
        let _place = self.in_flight.try_acquire().map_err(|_| Refusal::overloaded())?;
        let (subject, context) = self.enter(headers, entry).await?;
        let told = match inquiry {
            Inquiry::Grants => self.grants(&subject, &context, entry)?,
            Inquiry::Explain(need) => self.explain(&subject, &context, need, entry),
            Inquiry::Unreadable(reason) => return Err(Refusal::new(Condition::Malformed, reason)),
        };
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        Ok(CosmosAnswer { status: StatusCode::OK, headers, body: told.to_string().into() })
    }

    /// The containers that the caller's grants name, with the partition and the operations of each, less what is denied; and the
    /// globs that it holds beside them.
    fn grants(
        &self,
        subject: &VerifiedSubject,
        context: &ExecutionContext,
        entry: &mut Entry,
    ) -> Result<Value, Refusal> {
        entry.question.action = Some(Asked::Grants);
        let policies = self.rooms.policy.current();
        let needs = preflight::held(subject, context, &policies, MOST_HOLDINGS, entry)?;
        let revision = Some(policies.revision().into());
        entry.decision = Some(Ruling { verdict: Verdict::Allow, clauses: [].into(), revision });
        let globs = policy::globs(&policies, preflight::bearer(subject, context), MOST_HOLDINGS);
        let complete = needs.len() < MOST_HOLDINGS && globs.len() < MOST_HOLDINGS;
        let glob = |(container, operations): (String, Vec<_>)| json!({ "container": container, "operations": words(&operations) });
        Ok(json!({
            "containers": by_partition(&needs),
            "globs": globs.into_iter().map(glob).collect::<Vec<_>>(),
            "complete": complete,
        }))
    }

    /// What policy says to a need of the caller's, in a sentence that may be told to the caller.
    fn explain(&self, subject: &VerifiedSubject, context: &ExecutionContext, need: &Need, entry: &mut Entry) -> Value {
        entry.question = ledger::explained(need);
        let decision = preflight::decide(subject, context, &self.rooms.policy.current(), need);
        let mut told = json!({
            "decision": if decision.is_allow() { "allow" } else { "deny" },
            "sentence": decision.sentence(),
            "because": names(decision.clauses()),
        });
        if let (Ok(permit), Value::Object(members)) = (ledger::ruled(entry, decision), &mut told) {
            members.insert("partition_key".into(), json!(permit.partition_key().map(PartitionKey::to_json)));
        }
        told
    }
}

/// The needs, those of one partition together.
fn by_partition(needs: &[Need]) -> Vec<Value> {
    let mut places: Vec<(&ContainerName, &Option<PartitionKey>, Vec<_>)> = Vec::new();
    for Need { operation, container, partition_key } in needs {
        match places.iter_mut().find(|(c, key, _)| *c == container && *key == partition_key) {
            Some((_, _, operations)) => operations.push(*operation),
            None => places.push((container, partition_key, vec![*operation])),
        }
    }
    let place = |(container, key, operations): (&ContainerName, &Option<PartitionKey>, Vec<_>)| {
        let mut place = json!({ "container": container.as_str(), "operations": words(&operations) });
        if let (Some(key), Value::Object(members)) = (key, &mut place) {
            members.insert("partition_key".into(), key.to_json());
        }
        place
    };
    places.into_iter().map(place).collect()
}

fn words(operations: &[Operation]) -> Vec<&'static str> {
    operations.iter().map(|operation| operation.as_str()).collect()
}

fn names(clauses: &[Clause]) -> Vec<&str> {
    clauses.iter().map(|clause| &*clause.name).collect()
}
