//! `POST /preflight`: the walk, without the operation. Each need is decided as its request would be; then every credential
//! that the permits want is fetched, and one quick read made with it. What is refused is refused as the request itself would be,
//! so a workflow that begins with this state hears of a missing grant before it has done half of its work.

use std::collections::HashSet;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::{Gateway, Permitted, errand, ledger};
use crate::{
    access::{AccessRequest, Action, ExecutionContext, ItemId, PartitionKey},
    answer::{self, Condition, CosmosAnswer, Form, Refusal},
    audit::{Asked, Entry, Ruling},
    context::RequestContext,
    exchange::Warrant,
    identity::VerifiedSubject,
    policy::{self, Bearer, Permit, PolicySet},
    question::{self, MOST_NEEDS, Need, Question},
    secret::Secret,
    upstream,
};

/// An item that is not there: its id has a prefix that callers cannot write.
const ABSENT: &str = "~stepgate~preflight";

/// Whose preflight it is.
pub(super) struct Caller<'a> {
    pub(super) request: &'a RequestContext,
    pub(super) form: Form,
    pub(super) subject: &'a VerifiedSubject,
    pub(super) context: &'a ExecutionContext,
    pub(super) presented: Option<&'a Secret>,
}

impl Gateway {
    /// The list of what is granted and works, or the first thing that is broken: what is malformed before what is denied, and
    /// that before what fails.
    pub(super) async fn preflight(
        &self,
        caller: &Caller<'_>,
        body: &Bytes,
        entry: &mut Entry,
    ) -> Result<CosmosAnswer, Refusal> {
        entry.question.action = Some(Asked::Preflight);
        let needs = question::needs(body)?;
        let policies = self.rooms.policy.current();
        let needs =
            if needs.is_empty() { held(caller.subject, caller.context, &policies, MOST_NEEDS, entry)? } else { needs };
        entry.question = ledger::needed(&needs);
        let mut permits = Vec::with_capacity(needs.len());
        for (index, need) in needs.iter().enumerate() {
            let decided = ledger::ruled(entry, decide(caller.subject, caller.context, &policies, need));
            permits.push(decided.map_err(|refusal| at(index, refusal))?);
        }
        entry.decision = Some(granted(&permits, &policies));
        let mut looked = HashSet::new();
        let mut report = Vec::with_capacity(needs.len());
        for (index, (need, permit)) in needs.iter().zip(&permits).enumerate() {
            let look = self.look(caller, need, permit, &mut looked, entry).await;
            report.push(look.map_err(|refusal| at(index, refusal))?);
        }
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        Ok(CosmosAnswer { status: StatusCode::OK, headers, body: Value::Array(report).to_string().into() })
    }

    /// Fetches the permit's credential, and reads with it once for each partition that the needs name.
    async fn look(
        &self,
        caller: &Caller<'_>,
        need: &Need,
        permit: &Permit,
        looked: &mut HashSet<(String, String)>,
        entry: &mut Entry,
    ) -> Result<Value, Refusal> {
        let Caller { request, subject, context, presented, .. } = *caller;
        let warrant = self.rooms.exchange.exchange(subject, permit, presented, request.id.as_str()).await?;
        let partition = permit.partition_key().map(PartitionKey::to_string).unwrap_or_default();
        if looked.insert((warrant.scope().id(), partition)) {
            let admission = self.admit(permit, entry)?;
            let question = Question::of_container(&need.container);
            let (admission, question) = (&admission, &question);
            let place = &self.turn(request, permit).await?;
            let (session, veil) = (None, None);
            let permitted =
                Permitted { request, subject, context, presented, permit, veil, admission, place, question, session };
            let depth = self.read_depth(&permitted, caller.form, &warrant, entry).await?;
            if let Some(key) = permit.partition_key() {
                self.read_partition(&permitted, caller.form, key, depth, &warrant, entry).await?;
            }
        }
        Ok(told(need, permit, &warrant))
    }

    /// Reads the container: that it is there, that the credential opens it, and how many levels its partition key has.
    async fn read_depth(
        &self,
        permitted: &Permitted<'_>,
        form: Form,
        warrant: &Warrant,
        entry: &mut Entry,
    ) -> Result<usize, Refusal> {
        let errand = errand::prepare(permitted.request, permitted.permit, permitted.question, &HeaderMap::new());
        let answer = answer::settle(form, Action::Metadata, self.run(permitted, &errand, warrant, entry).await?)?;
        upstream::partition_key_levels(&answer.body)
            .ok_or_else(|| Refusal::new(Condition::BadAnswer, "Cosmos' answer does not describe a container"))
    }

    /// Reads an item that is not there, in the partition: 404 is the good answer. A key that is only the outer part of the
    /// container's names no item, and is not read with.
    async fn read_partition(
        &self,
        permitted: &Permitted<'_>,
        form: Form,
        key: &PartitionKey,
        depth: usize,
        warrant: &Warrant,
        entry: &mut Entry,
    ) -> Result<(), Refusal> {
        let levels = key.components().len();
        if levels > depth {
            let detail = format!("partition key {key} has {levels} levels, and the container's has {depth}");
            return Err(Refusal::new(Condition::Malformed, detail));
        }
        let Ok(absent) = ItemId::new(ABSENT) else { return Ok(()) };
        if levels < depth {
            return Ok(());
        }
        let question = Question::of_item(&permitted.permit.scope().container, key, absent);
        let permitted = Permitted { question: &question, session: None, ..*permitted };
        let errand = errand::prepare(permitted.request, permitted.permit, &question, &HeaderMap::new());
        let answer = self.run(&permitted, &errand, warrant, entry).await?;
        if answer.status == StatusCode::NOT_FOUND && matches!(answer.substatus(), None | Some(0)) {
            return Ok(());
        }
        answer::settle(form, question.action, answer).map(drop)
    }
}

/// What the caller holds by name, at most `most` of it.
pub(super) fn held(
    subject: &VerifiedSubject,
    context: &ExecutionContext,
    policies: &PolicySet,
    most: usize,
    entry: &mut Entry,
) -> Result<Vec<Need>, Refusal> {
    let holdings = policy::holdings(policies, bearer(subject, context), most).map_err(|reasons| {
        entry.decision = Some((&reasons).into());
        Refusal::from(reasons)
    })?;
    let need = |held: policy::Holding| Need {
        operation: held.operation,
        container: held.container,
        partition_key: held.partition_key,
    };
    Ok(holdings.into_iter().map(need).collect())
}

pub(super) fn bearer<'a>(subject: &'a VerifiedSubject, context: &'a ExecutionContext) -> Bearer<'a> {
    Bearer { subject: subject.subject(), client: subject.client(), claims: subject.claims(), context }
}

/// What policy says to a need of the caller's.
pub(super) fn decide(
    subject: &VerifiedSubject,
    context: &ExecutionContext,
    policies: &PolicySet,
    need: &Need,
) -> policy::Decision {
    let asked = AccessRequest {
        subject: subject.subject(),
        client: subject.client(),
        claims: subject.claims(),
        context,
        action: Action::Operation(need.operation),
        container: &need.container,
        partition_key: need.partition_key.as_ref(),
    };
    policy::decide(policies, &asked)
}

/// The ruling on the whole: every clause that granted something, once.
fn granted(permits: &[Permit], policies: &PolicySet) -> Ruling {
    let mut seen = HashSet::new();
    let clauses =
        permits.iter().flat_map(|permit| permit.clauses().iter()).filter(|clause| seen.insert(*clause)).cloned();
    Ruling {
        verdict: crate::audit::Verdict::Allow,
        clauses: clauses.collect(),
        revision: Some(policies.revision().into()),
    }
}

/// The same refusal, with the entry that it is about.
fn at(index: usize, mut refusal: Refusal) -> Refusal {
    refusal.detail = format!("entry {index} of the preflight: {}", refusal.detail);
    refusal
}

fn told(need: &Need, permit: &Permit, warrant: &Warrant) -> Value {
    json!({
        "operation": need.operation.as_str(),
        "container": need.container.as_str(),
        "partition_key": permit.partition_key().map(PartitionKey::to_json),
        "granted_by": permit.clauses().iter().map(ToString::to_string).collect::<Vec<_>>(),
        "mode": permit.scope().mode.as_str(),
        "permission_id": warrant.permission_id(),
        "enforced_by": warrant.enforcer().as_str(),
    })
}
