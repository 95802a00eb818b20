//! A record as OCSF 1.3.0 Datastore Activity: what a SIEM reads in the members it knows, and everything exact in the
//! member `stepgate`, from which [`parse`] reads the record back.
//!
//! Schema: <https://schema.ocsf.io/1.3.0/classes/datastore_activity>, with the `security_control` profile for `action_id`.
//! `tests/peers/ocsf.py` holds records of every phase against it. Three members are not the schema's but an extension's,
//! which `metadata.extensions` names.

use std::fmt;

use serde::Deserialize;

use super::{
    chain::Hash,
    fields::{self, Fields, Unreadable},
    record::{Asked, Entry, Phase, Record, Sequence, Verdict},
};
use crate::{
    access::{Action, Operation},
    clock::Timestamp,
    json::{self, Object},
};

const SCHEMA_VERSION: &str = "1.3.0";
const CLASS: u32 = 6005;
const CATEGORY: u32 = 6;

/// Writes a record after `lines`, as one JSON object whose last member is `prev`, without a newline.
pub(super) fn render(lines: &mut Vec<u8>, sequence: Sequence, time: Timestamp, entry: &Entry, prev: Hash) {
    json::object(lines, |event| {
        // First, with the sequence as its first member: so `chain` finds the sequence without parsing the rest.
        event.object("metadata", |it| metadata(it, sequence, entry));
        class(event, entry);
        event.value("time", &time.as_millis());
        outcome(event, entry);
        event.display("message", &Message(entry));
        event.object("actor", |it| actor(it, entry));
        event.object("src_endpoint", |it| endpoint(it, entry));
        event.object("database", |it| database(it, entry));
        if let Some(container) = &entry.question.container {
            event.object("table", |it| it.text("name", container.container()));
        }
        event.object("stepgate", |it| fields::write(it, entry));
        event.display("prev", &prev);
    });
}

fn metadata(it: &mut Object<'_>, sequence: Sequence, entry: &Entry) {
    it.value("sequence", &sequence.0);
    it.text("version", SCHEMA_VERSION);
    it.object("product", |product| {
        product.text("name", "stepgate");
        product.text("vendor_name", "stepgate");
        product.text("version", env!("CARGO_PKG_VERSION"));
    });
    it.value("profiles", &["security_control"]);
    // That the members `stepgate`, `prev` and `hash` are ours and not the schema's. 999 is what OCSF gives to extensions that are
    // not registered.
    it.objects("extensions", ["stepgate"], |extension, name| {
        extension.text("name", name);
        extension.text("uid", "999");
        extension.text("version", env!("CARGO_PKG_VERSION"));
    });
    it.text("log_name", "audit");
    it.text("event_code", entry.phase.as_str());
    if !entry.request_id.is_empty() {
        it.text("correlation_uid", &entry.request_id);
    }
}

fn class(event: &mut Object<'_>, entry: &Entry) {
    let (activity_id, activity) = activity(entry);
    event.value("class_uid", &CLASS);
    event.text("class_name", "Datastore Activity");
    event.value("category_uid", &CATEGORY);
    event.text("category_name", "Application Activity");
    event.value("activity_id", &activity_id);
    event.text("activity_name", activity);
    event.value("type_uid", &(CLASS * 100 + activity_id));
}

fn outcome(event: &mut Object<'_>, entry: &Entry) {
    named(event, ["severity_id", "severity"], severity(entry));
    named(event, ["status_id", "status"], status(entry));
    if let Some(answer) = &entry.answer {
        event.display("status_code", &answer.status);
        event.maybe_text("status_detail", answer.error.as_deref());
    }
    named(event, ["action_id", "action"], action(entry));
    if let Some(answer) = &entry.answer {
        event.value("duration", &answer.duration.as_millis());
    }
}

/// A value of one of the schema's enumerations, by its number and its name.
fn named(event: &mut Object<'_>, [id, name]: [&'static str; 2], (value, caption): (u32, &str)) {
    event.value(id, &value);
    event.text(name, caption);
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

fn actor(it: &mut Object<'_>, entry: &Entry) {
    let Some(who) = &entry.who else { return it.object("user", |user| nobody_proven(user, entry)) };
    it.object("user", |user| {
        user.text("name", &who.subject.id);
        user.text("uid", &who.subject.id);
        // 3 is System, which OCSF gives to accounts that are no person; a human was never proven a workload.
        user.value("type_id", if who.kind.is_some() { &3 } else { &1 });
    });
    it.maybe_text("app_uid", who.client.as_deref());
    it.object("idp", |idp| idp.text("name", who.subject.issuer.as_str()));
}

/// The user who read the log, or nobody.
fn nobody_proven(user: &mut Object<'_>, entry: &Entry) {
    if let Some(reading) = &entry.reading {
        user.text("name", "local user");
        user.display("uid", &reading.uid);
        user.value("type_id", &1);
    } else {
        user.text("name", "unknown");
        user.value("type_id", &0);
    }
}

fn endpoint(it: &mut Object<'_>, entry: &Entry) {
    match entry.peer {
        Some(peer) => {
            it.display("ip", &peer.ip());
            it.value("port", &peer.port());
        }
        None => it.text("name", "unknown"),
    }
}

fn database(it: &mut Object<'_>, entry: &Entry) {
    let container = entry.question.container.as_ref();
    it.text("name", container.map_or("unknown", |container| container.database()));
    let (kind, id) = if container.is_some() { ("NoSQL", 6) } else { ("Unknown", 0) };
    it.text("type", kind);
    it.value("type_id", &id);
}

/// One sentence for the person who reads the SIEM's list.
struct Message<'a>(&'a Entry);

impl fmt::Display for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(entry) = self;
        if let Some(suppressed) = entry.suppressed {
            return write!(
                f,
                "{} refusals counted and not written since {}",
                suppressed.count,
                suppressed.since.rfc3339()
            );
        }
        if let (Phase::Revoke | Phase::Lift, Some(revocation)) = (entry.phase, &entry.revocation) {
            return write!(f, "{} {}", entry.phase.as_str(), revocation.target);
        }
        if let Some(reading) = &entry.reading {
            return write!(f, "uid {} read the audit log: {} {}", reading.uid, reading.command, reading.selection);
        }
        f.write_str(match (entry.phase, entry.decision.as_ref().map(|ruling| ruling.verdict)) {
            (Phase::Intent, _) => "about to",
            (Phase::Recovered, _) => "outcome unknown:",
            (_, Some(verdict)) => verdict.as_str(),
            (_, None) => "undecided",
        })?;
        if let Some(action) = entry.question.action {
            write!(f, " {}", action.as_str())?;
        }
        if let Some(container) = &entry.question.container {
            write!(f, " on {container}")?;
        }
        if let Some(who) = &entry.who {
            write!(f, " by {}", who.subject)?;
        }
        if let Some(answer) = &entry.answer {
            write!(f, ": {}", answer.status)?;
            if let Some(error) = &answer.error {
                write!(f, " {error}")?;
            }
        }
        Ok(())
    }
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
