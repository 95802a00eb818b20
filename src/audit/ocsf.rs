//! A record as OCSF 1.3.0 Datastore Activity: what a SIEM reads in the members it knows, and everything exact in the
//! member `stepgate`, from which [`parse`] reads the record back.
//!
//! Schema: <https://schema.ocsf.io/1.3.0/classes/datastore_activity>, with the `security_control` profile for `action_id`.
//! `tests/peers/ocsf.py` holds records of every phase against it. Three members are not the schema's but an extension's,
//! which `metadata.extensions` names.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{
    chain::Hash,
    fields::{Fields, Unreadable},
    record::{Asked, Entry, Phase, Record, Sequence, Verdict},
};
use crate::{
    access::{Action, Operation},
    clock::Timestamp,
};

const SCHEMA_VERSION: &str = "1.3.0";
const CLASS: u32 = 6005;
const CATEGORY: u32 = 6;

#[derive(Serialize)]
struct Event<'a> {
    /// First, with the sequence as its first member: so `chain` finds the sequence without parsing the rest.
    metadata: Metadata<'a>,
    class_uid: u32,
    class_name: &'static str,
    category_uid: u32,
    category_name: &'static str,
    activity_id: u32,
    activity_name: &'a str,
    type_uid: u32,
    time: i64,
    severity_id: u32,
    severity: &'static str,
    status_id: u32,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_detail: Option<&'a str>,
    action_id: u32,
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration: Option<u64>,
    message: String,
    actor: Actor<'a>,
    src_endpoint: Endpoint,
    database: Named<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    table: Option<Table<'a>>,
    stepgate: Fields,
    prev: &'a str,
}

#[derive(Serialize)]
struct Metadata<'a> {
    sequence: u64,
    version: &'static str,
    product: Product,
    profiles: [&'static str; 1],
    extensions: [Extension; 1],
    log_name: &'static str,
    event_code: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    correlation_uid: &'a str,
}

/// That the members `stepgate`, `prev` and `hash` are ours and not the schema's.
#[derive(Serialize)]
struct Extension {
    name: &'static str,
    /// 999 is what OCSF gives to extensions that are not registered.
    uid: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
struct Product {
    name: &'static str,
    vendor_name: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
struct Actor<'a> {
    user: User<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    app_uid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idp: Option<Idp<'a>>,
}

#[derive(Serialize)]
struct User<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<Cow<'a, str>>,
    type_id: u32,
}

#[derive(Serialize)]
struct Idp<'a> {
    name: &'a str,
}

#[derive(Serialize)]
struct Endpoint {
    #[serde(skip_serializing_if = "Option::is_none")]
    ip: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'static str>,
}

#[derive(Serialize)]
struct Named<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    type_id: u32,
}

#[derive(Serialize)]
struct Table<'a> {
    name: &'a str,
}

/// Writes a record after `lines`, as one JSON object whose last member is `prev`, without a newline. Where it fails, a part of
/// it may be there.
pub(super) fn render(
    lines: &mut Vec<u8>,
    sequence: Sequence,
    time: Timestamp,
    entry: &Entry,
    prev: Hash,
) -> Result<(), serde_json::Error> {
    let (activity_id, activity_name) = activity(entry);
    let (severity_id, severity) = severity(entry);
    let (status_id, status) = status(entry);
    let (action_id, action) = action(entry);
    let event = Event {
        metadata: Metadata {
            sequence: sequence.0,
            version: SCHEMA_VERSION,
            product: Product { name: "stepgate", vendor_name: "stepgate", version: env!("CARGO_PKG_VERSION") },
            profiles: ["security_control"],
            extensions: [Extension { name: "stepgate", uid: "999", version: env!("CARGO_PKG_VERSION") }],
            log_name: "audit",
            event_code: entry.phase.as_str(),
            correlation_uid: &entry.request_id,
        },
        class_uid: CLASS,
        class_name: "Datastore Activity",
        category_uid: CATEGORY,
        category_name: "Application Activity",
        activity_id,
        activity_name,
        type_uid: CLASS * 100 + activity_id,
        time: time.as_millis(),
        severity_id,
        severity,
        status_id,
        status,
        status_code: entry.answer.as_ref().map(|answer| answer.status.to_string()),
        status_detail: entry.answer.as_ref().and_then(|answer| answer.error.as_deref()),
        action_id,
        action,
        duration: entry.answer.as_ref().map(|answer| u64::try_from(answer.duration.as_millis()).unwrap_or(u64::MAX)),
        message: message(entry),
        actor: actor(entry),
        src_endpoint: endpoint(entry),
        database: match &entry.question.container {
            Some(container) => Named { name: container.database(), kind: "NoSQL", type_id: 6 },
            None => Named { name: "unknown", kind: "Unknown", type_id: 0 },
        },
        table: entry.question.container.as_ref().map(|container| Table { name: container.container() }),
        stepgate: Fields::from(entry),
        prev: &prev.to_string(),
    };
    serde_json::to_writer(lines, &event)
}

fn activity(entry: &Entry) -> (u32, &'static str) {
    if matches!(entry.phase, Phase::Revoke | Phase::Lift) {
        return (99, entry.phase.as_str());
    }
    if entry.phase == Phase::Reading {
        return (1, "Read");
    }
    match entry.question.action {
        Some(Asked::Action(Action::Operation(operation))) => match operation {
            Operation::ItemsRead => (1, "Read"),
            Operation::ItemsReplace | Operation::ItemsPatch => (2, "Update"),
            Operation::Query => (4, "Query"),
            Operation::ItemsUpsert | Operation::Batch => (5, "Write"),
            Operation::ItemsCreate => (6, "Create"),
            Operation::ItemsDelete => (7, "Delete"),
            Operation::Feed => (8, "List"),
            Operation::Execute => (99, "execute"),
        },
        Some(other) => (99, other.as_str()),
        None => (0, "Unknown"),
    }
}

fn severity(entry: &Entry) -> (u32, &'static str) {
    let refused = entry.decision.as_ref().is_some_and(|ruling| ruling.verdict != Verdict::Allow);
    if refused || matches!(entry.phase, Phase::Recovered | Phase::Suppressed | Phase::Revoke | Phase::Lift) {
        (3, "Medium")
    } else if failed(entry) {
        (2, "Low")
    } else {
        (1, "Informational")
    }
}

fn failed(entry: &Entry) -> bool {
    entry.answer.as_ref().is_some_and(|answer| answer.status >= 400 || answer.error.is_some())
}

fn status(entry: &Entry) -> (u32, &'static str) {
    match (entry.phase, &entry.answer) {
        (Phase::Recovered, _) | (_, None) => (0, "Unknown"),
        (_, Some(_)) if failed(entry) => (2, "Failure"),
        (_, Some(_)) => (1, "Success"),
    }
}

fn action(entry: &Entry) -> (u32, &'static str) {
    match entry.decision.as_ref().map(|ruling| ruling.verdict) {
        Some(Verdict::Allow) => (1, "Allowed"),
        Some(Verdict::Deny | Verdict::Reject) => (2, "Denied"),
        None => (0, "Unknown"),
    }
}

fn actor(entry: &Entry) -> Actor<'_> {
    match &entry.who {
        Some(who) => Actor {
            user: User {
                name: &who.subject.id,
                uid: Some(Cow::Borrowed(&*who.subject.id)),
                // 3 is System, which OCSF gives to accounts that are no person; a human was never proven a workload.
                type_id: if who.kind.is_some() { 3 } else { 1 },
            },
            app_uid: who.client.as_deref(),
            idp: Some(Idp { name: who.subject.issuer.as_str() }),
        },
        None if entry.reading.is_some() => reader(entry),
        None => Actor { user: User { name: "unknown", uid: None, type_id: 0 }, app_uid: None, idp: None },
    }
}

/// The user who read the log.
fn reader(entry: &Entry) -> Actor<'_> {
    let uid = entry.reading.as_ref().map(|reading| reading.uid.to_string().into());
    Actor { user: User { name: "local user", uid, type_id: 1 }, app_uid: None, idp: None }
}

fn endpoint(entry: &Entry) -> Endpoint {
    match entry.peer {
        Some(peer) => Endpoint { ip: Some(peer.ip().to_string()), port: Some(peer.port()), name: None },
        None => Endpoint { ip: None, port: None, name: Some("unknown") },
    }
}

/// One sentence for the person who reads the SIEM's list.
fn message(entry: &Entry) -> String {
    if let Some(suppressed) = entry.suppressed {
        return format!("{} refusals counted and not written since {}", suppressed.count, suppressed.since.rfc3339());
    }
    if let (Phase::Revoke | Phase::Lift, Some(revocation)) = (entry.phase, &entry.revocation) {
        return format!("{} {}", entry.phase.as_str(), revocation.target);
    }
    if let Some(reading) = &entry.reading {
        return format!("uid {} read the audit log: {} {}", reading.uid, reading.command, reading.selection);
    }
    let verdict = match (entry.phase, entry.decision.as_ref().map(|ruling| ruling.verdict)) {
        (Phase::Intent, _) => "about to",
        (Phase::Recovered, _) => "outcome unknown:",
        (_, Some(verdict)) => verdict.as_str(),
        (_, None) => "undecided",
    };
    let mut text = verdict.to_owned();
    if let Some(action) = entry.question.action {
        text.push(' ');
        text.push_str(action.as_str());
    }
    if let Some(container) = &entry.question.container {
        text.push_str(&format!(" on {container}"));
    }
    if let Some(who) = &entry.who {
        text.push_str(&format!(" by {}", who.subject));
    }
    if let Some(answer) = &entry.answer {
        text.push_str(&format!(": {}", answer.status));
        if let Some(error) = &answer.error {
            text.push_str(&format!(" {error}"));
        }
    }
    text
}

#[derive(Deserialize)]
struct Stored {
    time: i64,
    metadata: StoredMetadata,
    stepgate: Fields,
}

#[derive(Deserialize)]
struct StoredMetadata {
    sequence: u64,
}

/// The record that a line of a segment stands for. The chain is not looked at.
pub(super) fn parse(line: &[u8]) -> Result<Record, Unreadable> {
    let stored: Stored = serde_json::from_slice(line)?;
    Ok(Record {
        sequence: Sequence(stored.metadata.sequence),
        time: Timestamp::from_millis(stored.time),
        entry: stored.stepgate.try_into()?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::audit::samples;

    fn rendered(phase: Phase) -> Value {
        let entry = samples::entry(phase, "0193-request");
        let record = Record { sequence: Sequence(7), time: Timestamp::from_millis(1_795_375_762_123), entry };
        serde_json::from_slice(&samples::line(&record, Hash::GENESIS)).unwrap()
    }

    /// The fields that the contract lists for a record, each under the name that scripts know.
    #[test]
    fn an_outcome_has_every_field_it_must_have() {
        let record = rendered(Phase::Outcome);
        for pointer in [
            "/time",
            "/metadata/sequence",
            "/stepgate/request_id",
            "/stepgate/issuer",
            "/stepgate/subject",
            "/stepgate/client",
            "/stepgate/workload_kind",
            "/stepgate/execution/value",
            "/stepgate/execution/assurance",
            "/stepgate/state/value",
            "/stepgate/state/assurance",
            "/stepgate/entered/value",
            "/stepgate/attempt/value",
            "/stepgate/attempt/assurance",
            "/stepgate/redrive/value",
            "/stepgate/item/value",
            "/stepgate/item/assurance",
            "/stepgate/operation",
            "/stepgate/database",
            "/stepgate/container",
            "/stepgate/partition_key/0",
            "/stepgate/item_id",
            "/stepgate/batch/0/operation",
            "/stepgate/batch/0/item_id",
            "/stepgate/batch/0/partition_key",
            "/stepgate/decision",
            "/stepgate/clauses/0/name",
            "/stepgate/policy_revision",
            "/stepgate/credential/scope/container",
            "/stepgate/credential/scope/partition_key",
            "/stepgate/credential/mode",
            "/stepgate/credential/permission_id",
            "/stepgate/credential/enforced_by",
            "/stepgate/upstream/status",
            "/stepgate/upstream/substatus",
            "/stepgate/upstream/activity_id",
            "/stepgate/upstream/region",
            "/stepgate/upstream/attempts",
            "/stepgate/upstream/request_units",
            "/stepgate/upstream/latency_ms",
            "/stepgate/answer/status",
            "/stepgate/masked/0",
            "/stepgate/bytes_in",
            "/stepgate/bytes_out",
            "/stepgate/peer",
            "/stepgate/user_agent",
        ] {
            assert!(record.pointer(pointer).is_some(), "{pointer} is missing in {record:#}");
        }
        assert_eq!(record.pointer("/stepgate/request_id"), Some(&"0193-request".into()));
    }

    #[test]
    fn every_phase_has_what_ocsf_requires() {
        for phase in [Phase::Intent, Phase::Outcome, Phase::Refusal, Phase::Suppressed, Phase::Recovered] {
            let record = rendered(phase);
            assert_eq!(record["class_uid"], 6005);
            assert_eq!(record["category_uid"], 6);
            let (class, activity) = (6005, record["activity_id"].as_u64().unwrap());
            assert_eq!(record["type_uid"], class * 100 + activity);
            assert_eq!(record["time"], 1_795_375_762_123_u64);
            assert!(record["severity_id"].is_u64());
            assert_eq!(record["metadata"]["version"], SCHEMA_VERSION);
            assert_eq!(record["metadata"]["product"]["name"], "stepgate");
            assert!(record["actor"]["user"]["name"].is_string());
            assert!(record["src_endpoint"]["ip"].is_string());
            assert!(record["database"]["name"].is_string());
        }
    }

    #[test]
    fn an_unanswered_intent_says_so() {
        assert_eq!(rendered(Phase::Recovered)["stepgate"]["outcome"], "unknown");
        assert_eq!(rendered(Phase::Outcome)["stepgate"]["outcome"], Value::Null);
    }

    proptest! {
        #[test]
        fn a_rendered_record_reads_back_the_same(entry in samples::any_entry(), millis in 0..4_000_000_000_000_i64) {
            let record = Record { sequence: Sequence(7), time: Timestamp::from_millis(millis), entry };
            let line = samples::line(&record, Hash::GENESIS);
            prop_assert!(!line.contains(&b'\n'));
            let read = parse(&line).unwrap();
            prop_assert_eq!(read, record);
        }
    }
}
