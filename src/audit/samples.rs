//! Entries for tests: a full one, and any one.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use proptest::{option, prelude::*};

use super::{
    chain::Hash,
    ocsf,
    record::{
        Answer, Asked, Credential, Entry, Inside, Phase, Question, Reading, Record, Revocation, Ruling, Suppressed,
        Telling, Upstream, UserAgentKind, Verdict, Who,
    },
};
use crate::{
    access::{
        Action, Assurance, Attempt, Enforcer, ExecutionContext, Fact, IssuerName, ItemId, Operation, PartitionKey,
        PermissionMode, Subject, WorkloadKind,
    },
    clock::Timestamp,
    policy::{Clause, ClauseKind, Scope},
};

pub(super) const EXECUTION: &str = "arn:aws:states:us-east-1:111122223333:execution:Fulfil:run-1";

/// An entry in which everything is known that can be at `phase`.
pub(super) fn entry(phase: Phase, request_id: &str) -> Entry {
    let entry = Entry { peer: Some(SocketAddr::from(([10, 0, 0, 1], 40000))), ..Entry::new(phase, request_id) };
    match phase {
        Phase::Refusal => Entry {
            decision: Some(Ruling::reject()),
            answer: Some(answer(401, Some("identity.invalid_token"))),
            ..entry
        },
        Phase::Intent => Entry { decision: Some(allowed()), ..asked(entry) },
        _ => Entry {
            decision: Some(allowed()),
            upstream: Some(upstream(201, 6.29, 12)),
            answer: Some(answer(201, None)),
            masked: vec!["/card/number".into()],
            bytes_out: 20,
            ..asked(entry)
        },
    }
}

fn asked(entry: Entry) -> Entry {
    let container = "shop/orders".parse().unwrap();
    let partition_key: PartitionKey = r#"["t1"]"#.parse().unwrap();
    Entry {
        who: Some(who()),
        context: context("SaveOrder", 0),
        question: Question {
            action: Some(Asked::Action(Action::Operation(Operation::Batch))),
            container: Some(container),
            partition_key: Some(partition_key.clone()),
            item: Some(ItemId::new("o-17").unwrap()),
            batch: vec![Inside {
                operation: Operation::ItemsUpsert,
                container: None,
                item: Some(ItemId::new("o-17").unwrap()),
                partition_key: Some(partition_key.clone()),
            }],
        },
        credential: Some(Credential {
            scope: Scope {
                container: "shop/orders".parse().unwrap(),
                partition_key: Some(partition_key),
                mode: PermissionMode::All,
            },
            permission_id: Some("cognito~7h2kexample~orders".into()),
            enforced_by: Enforcer::Cosmos,
        }),
        bytes_in: 117,
        user_agent: UserAgentKind::StepFunctions,
        ..entry
    }
}

pub(super) fn who() -> Who {
    Who {
        subject: Subject { issuer: IssuerName::new("cognito"), id: "7h2kexample".into() },
        client: Some("7h2kexample".into()),
        kind: Some(WorkloadKind::Cognito),
    }
}

/// A context as an HTTP Task's headers claim it.
pub(super) fn context(state: &str, attempt: u32) -> ExecutionContext {
    ExecutionContext {
        run: None,
        execution: Some(claimed(EXECUTION.parse().unwrap())),
        state: Some(claimed(state.parse().unwrap())),
        entered: Some(claimed("2026-11-22T19:29:22.000Z".into())),
        attempt: Some(claimed(Attempt(attempt))),
        redrive: Some(claimed(0)),
        item: Some(claimed(3)),
    }
}

fn claimed<T>(value: T) -> Fact<T> {
    Fact { value, assurance: Assurance::Claimed }
}

pub(super) fn clause(kind: ClauseKind, name: &str, place: &str) -> Clause {
    Clause { kind, name: name.into(), index: 0, place: place.into() }
}

pub(super) fn allowed() -> Ruling {
    Ruling {
        verdict: Verdict::Allow,
        clauses: Arc::new([clause(ClauseKind::Grant, "order-writer", "shop.yaml:4")]),
        revision: Some("sha256:abc".into()),
    }
}

pub(super) fn upstream(status: u16, request_units: f64, millis: u64) -> Upstream {
    Upstream {
        status: Some(status),
        substatus: Some(0),
        activity_id: Some("5f0c3a52-0000-7000-8000-000000000001".into()),
        region: Some("West Europe".into()),
        attempts: 1,
        request_units,
        latency: Duration::from_millis(millis),
    }
}

pub(super) fn answer(status: u16, error: Option<&str>) -> Answer {
    Answer { status, error: error.map(Into::into), duration: Duration::from_millis(15) }
}

fn fact<T: std::fmt::Debug>(value: impl Strategy<Value = T>) -> impl Strategy<Value = Option<Fact<T>>> {
    let assurance = prop::sample::select(vec![Assurance::Claimed, Assurance::Signed, Assurance::Proven]);
    option::of((value, assurance).prop_map(|(value, assurance)| Fact { value, assurance }))
}

fn key() -> impl Strategy<Value = PartitionKey> {
    let keys = [r#"["t1"]"#, "[1]", "[1.5]", "[null,true]", r#"[{},"a\"b","é"]"#, "[1e300]", "[9007199254740993]"];
    prop::sample::select(keys.map(|text| text.parse().unwrap()).to_vec())
}

fn text() -> impl Strategy<Value = Arc<str>> {
    "\\PC{0,12}".prop_map(Into::into)
}

fn micros() -> impl Strategy<Value = Duration> {
    (0..100_000_000_u64).prop_map(Duration::from_micros)
}

fn any_context() -> impl Strategy<Value = ExecutionContext> {
    let state = "[^\\p{C}]{1,40}".prop_map(|text| text.parse().unwrap());
    (
        fact(Just(EXECUTION.parse().unwrap())),
        fact("[!-~]{1,40}".prop_map(|text| text.parse().unwrap())),
        fact(state),
        fact(text()),
        fact(any::<u32>().prop_map(Attempt)),
        fact(any::<u32>()),
        fact(any::<u32>()),
    )
        .prop_map(|(execution, run, state, entered, attempt, redrive, item)| ExecutionContext {
            execution,
            run,
            state,
            entered,
            attempt,
            redrive,
            item,
        })
}

fn any_question() -> impl Strategy<Value = Question> {
    let action = prop::sample::select(
        [Action::QueryPlan, Action::Metadata]
            .into_iter()
            .chain(Operation::ALL.map(Action::Operation))
            .map(Asked::Action)
            .chain([Asked::Preflight, Asked::TokenExchange, Asked::Grants, Asked::Explain])
            .collect::<Vec<_>>(),
    );
    let item = "[^\\p{C}/\\\\?#.=]{1,20}".prop_map(|id| ItemId::new(&id).unwrap());
    let inside =
        (prop::sample::select(Operation::ALL.to_vec()), option::of(key())).prop_map(|(operation, partition_key)| {
            let container = partition_key.is_some().then(|| "shop/lines".parse().unwrap());
            Inside { operation, container, item: Some(ItemId::new("o-1").unwrap()), partition_key }
        });
    (option::of(action), option::of(key()), option::of(item), prop::collection::vec(inside, 0..3), any::<bool>())
        .prop_map(|(action, partition_key, item, batch, known)| Question {
            action,
            container: known.then(|| "shop/orders".parse().unwrap()),
            partition_key,
            item,
            batch,
        })
}

fn any_upstream() -> impl Strategy<Value = Option<Upstream>> {
    option::of(
        (
            option::of(100..600_u16),
            option::of(any::<u32>()),
            option::of(text()),
            option::of(text()),
            any::<u32>(),
            (0..100_000_000_u32).prop_map(|hundredths| f64::from(hundredths) / 100.0),
            micros(),
        )
            .prop_map(|(status, substatus, activity_id, region, attempts, request_units, latency)| Upstream {
                status,
                substatus,
                activity_id,
                region,
                attempts,
                request_units,
                latency,
            }),
    )
}

/// Any entry, with hostile text in it.
pub(super) fn any_entry() -> impl Strategy<Value = Entry> {
    let phase = prop::sample::select(vec![
        Phase::Intent,
        Phase::Outcome,
        Phase::Refusal,
        Phase::Suppressed,
        Phase::Recovered,
        Phase::Revoke,
        Phase::Reading,
    ]);
    let who =
        option::of((text(), text(), option::of(text()), any::<bool>()).prop_map(|(issuer, id, client, human)| Who {
            subject: Subject { issuer: IssuerName::new(issuer), id },
            client,
            kind: (!human).then_some(WorkloadKind::AwsSts),
        }));
    let answer =
        option::of((100..600_u16, option::of(text()), micros()).prop_map(|(status, error, duration)| Answer {
            status,
            error,
            duration,
        }));
    let suppressed = option::of(
        (any::<u64>(), any::<i64>())
            .prop_map(|(count, since)| Suppressed { count, since: Timestamp::from_millis(since) }),
    );
    let rest = (
        answer,
        suppressed,
        option::of(prop::sample::select(vec![Telling::First, Telling::Repeated, Telling::Changed])),
        prop::collection::vec(text(), 0..3),
        any::<(u64, u64)>(),
        option::of(any::<(std::net::IpAddr, u16)>().prop_map(SocketAddr::from)),
    );
    (phase, text(), who, any_context(), any_question(), any::<bool>(), any_upstream(), rest).prop_map(
        |(
            phase,
            request_id,
            who,
            context,
            question,
            decided,
            upstream,
            (answer, suppressed, told, masked, bytes, peer),
        )| {
            Entry {
                revocation: (phase == Phase::Revoke).then(|| Revocation {
                    id: "1f".into(),
                    target: "subject local/w".into(),
                    reason: None,
                }),
                phase,
                request_id,
                who,
                context,
                question,
                decision: decided.then(allowed),
                credential: decided.then(|| entry(Phase::Outcome, "").credential).flatten(),
                upstream,
                answer,
                told,
                masked,
                bytes_in: bytes.0,
                bytes_out: bytes.1,
                peer,
                user_agent: UserAgentKind::CosmosSdk,
                reading: (phase == Phase::Reading).then(|| Reading {
                    command: "trace".into(),
                    selection: "run-1".into(),
                    uid: 1000,
                    time: Timestamp::from_millis(7),
                }),
                suppressed,
            }
        },
    )
}

/// A record as a line that is not sealed yet.
pub(super) fn line(record: &Record, prev: Hash) -> Vec<u8> {
    let mut line = Vec::new();
    ocsf::render(&mut line, record.sequence, record.time, &record.entry, prev);
    line
}
