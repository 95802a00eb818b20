//! Every row of the table of answers, in every form, brought about for real: what stands in `tests/golden/conditions.txt` is what
//! callers hear.

use std::{fmt::Write as _, fs, sync::Arc, time::Duration};

use serde_json::{Value, json};
use stepgate::{
    answer::Condition,
    dev::{
        cosmos::{Effect, Fault, On, Operation},
        issuer::{Mint, Outage},
    },
};

use crate::{
    golden::is_golden,
    rig::{ADMIN_TOKEN, Answer, Call, Rig, members, soon},
};

const DOCS: &str = "/dbs/shop/colls/orders/docs";
const ITEM: &str = "/dbs/shop/colls/orders/docs/o-1001";
const FORMS: [&str; 3] = ["distinct", "cosmos", "envelope"];

/// A stack on which a condition holds, and the request that meets it.
struct Stage {
    rig: Arc<Rig>,
    ask: fn(&Rig) -> Call<'_>,
    /// What keeps the condition up.
    held: Option<tokio::task::JoinHandle<()>>,
}

fn read(rig: &Rig) -> Call<'_> {
    rig.task("fulfilment", "GET", ITEM)
}

fn create(rig: &Rig) -> Call<'_> {
    rig.task("fulfilment", "POST", DOCS).json(&json!({"id": "o-1001", "tenant": "t1"}))
}

/// Cosmos does this to every request on data.
fn struck_by(rig: &Rig, effect: Effect) {
    rig.cosmos().add_fault(Fault::once(effect).times(1_000));
}

fn any(status: u16, substatus: u32) -> Effect {
    Effect::Any { status, substatus: Some(substatus) }
}

async fn stage(condition: Condition) -> Stage {
    let rig = match condition {
        Condition::Overloaded => Rig::with(|raw| raw.limits.concurrency = 1).await,
        Condition::Timeout => Rig::with(|raw| raw.limits.deadline = Duration::from_millis(300)).await,
        _ => Rig::start().await,
    };
    let mut stage = Stage { rig: Arc::new(rig), ask: read, held: None };
    let rig = &stage.rig;
    match condition {
        Condition::Malformed => stage.ask = |rig| read(rig).header("x-ms-documentdb-partitionkey", "t1"),
        Condition::UnknownOperation => {
            stage.ask = |rig| rig.task("fulfilment", "GET", "/dbs/shop/colls/orders/triggers");
        }
        Condition::CosmosBadRequest => {
            stage.ask = |rig| rig.task("operator", "POST", DOCS).partition("t1").query("SELECT nothing that parses");
        }
        Condition::IdempotencyMismatch => {
            stage.ask = |rig| {
                let call = rig.task("once", "POST", DOCS).partition("t1").header("idempotency-key", "used");
                call.json(&json!({"id": "another", "tenant": "t1"}))
            };
            let first = rig.task("once", "POST", DOCS).partition("t1").header("idempotency-key", "used");
            first.json(&json!({"id": "one", "tenant": "t1"})).send().await.expect(201);
        }
        Condition::InvalidToken => stage.ask = |rig| rig.call("GET", ITEM).of_task().bearer("forged"),
        Condition::InvalidWorkflowToken => stage.ask = |rig| rig.call("GET", ITEM).of_task(),
        Condition::Human => stage.ask = |rig| rig.task("alice", "GET", ITEM),
        Condition::Revoked => {
            let body = json!({"issuer": "local", "client": "fulfilment"}).to_string();
            let (code, _) = rig.admin_of(&rig.server, "POST", "/revoke", Some(ADMIN_TOKEN), &body).await;
            assert_eq!(code, 200);
        }
        Condition::PolicyDenied => stage.ask = |rig| read(rig).partition("t2"),
        Condition::PrefixQuery => {
            stage.ask = |rig| {
                let call = rig.task("lines", "POST", "/dbs/shop/colls/lines/docs");
                call.header("x-ms-documentdb-partitionkey", r#"["t1","o1"]"#).query("SELECT * FROM c")
            };
        }
        Condition::NotFound => stage.ask = |rig| rig.task("fulfilment", "GET", &format!("{DOCS}/missing")),
        Condition::Conflict => stage.ask = create,
        Condition::PreconditionFailed => {
            stage.ask = |rig| {
                let item = json!({"id": "o-1001", "tenant": "t1"});
                let call = rig.task("operator", "PUT", ITEM).partition("t1");
                call.header("x-stepgate-if-match", "\"stale\"").json(&item)
            };
        }
        Condition::ItemTooLarge => {
            stage.ask = |rig| {
                let item = json!({"id": "large", "tenant": "t1", "filler": "x".repeat(2 << 20)});
                rig.task("fulfilment", "POST", DOCS).json(&item)
            };
        }
        Condition::ResponseTooLarge => {
            let item = json!({"id": "large", "tenant": "t1", "filler": "x".repeat(300 * 1024)});
            rig.sdk("fulfilment", "POST", DOCS).json(&item).send().await.expect(201);
            stage.ask = |rig| rig.task("fulfilment", "GET", &format!("{DOCS}/large"));
        }
        Condition::PartitionKeyMismatch => {
            stage.ask =
                |rig| rig.task("operator", "POST", DOCS).partition("t2").json(&json!({"id": "a", "tenant": "t1"}));
        }
        Condition::BatchFailed => {
            stage.ask = |rig| {
                let batch = rig.task("operator", "POST", DOCS).header("x-ms-cosmos-is-batch-request", "True");
                let create = |id: &str| json!({"operationType": "Create", "resourceBody": {"id": id, "tenant": "t1"}});
                batch.partition("t1").json(&json!([create("new"), create("o-1001")]))
            };
        }
        Condition::SessionNotAvailable => struck_by(rig, Effect::Session),
        Condition::Throttled => struck_by(rig, Effect::Throttle { retry_after_ms: 60_000 }),
        Condition::LimitExceeded => {
            let text = "roles: { one: { grants: [{ container: shop/orders, partition_key: [t1], operations: ['*'] }] } }\n\
                bindings:\n  - { role: one, workloads: [{ issuer: local, claims: { client_id: nobody } }], \
                limits: { request_units_per_second: 1 } }\n";
            fs::write(rig.file("policies/limited.yaml"), text).unwrap();
            rig.server.reload().await;
            // A debt that lasts longer than the test.
            let item = json!({"id": "large", "tenant": "t1", "filler": "x".repeat(1 << 20)});
            rig.task("nobody", "POST", DOCS).json(&item).send().await.expect(201);
            stage.ask = |rig| rig.task("nobody", "GET", ITEM);
        }
        Condition::BadAnswer => struck_by(rig, any(500, 0)),
        Condition::Unavailable => struck_by(rig, Effect::Unavailable),
        Condition::RetryLater => struck_by(rig, Effect::RetryWith),
        Condition::Overloaded => {
            rig.cosmos().add_fault(Fault::once(Effect::Delay { ms: 20_000 }).operation(Operation::Read));
            stage.held = Some(tokio::spawn({
                let rig = rig.clone();
                async move { drop(read(&rig).send().await) }
            }));
            soon(async || rig.cosmos().waiting_faults().is_empty().then_some(())).await;
        }
        Condition::AuditUnavailable => {
            read(rig).send().await.expect(200);
            let segments = fs::read_dir(rig.log()).unwrap().map(|entry| entry.unwrap().path());
            for segment in segments.filter(|path| path.extension().is_some_and(|extension| extension == "jsonl")) {
                fs::remove_file(segment).unwrap();
            }
        }
        Condition::CredentialUnavailable => {
            rig.cosmos().add_fault(Fault::once(any(403, 5300)).times(1_000).on(On::Permissions));
        }
        Condition::IdentityUnavailable => {
            rig.issuer().set_outage(Outage::On);
            stage.ask = |rig| {
                let claims = json!({"client_id": "fulfilment", "token_kind": "workload", "tenant": "t1"});
                let mint = Mint {
                    claims: members(claims),
                    header: members(json!({"kid": "published-since"})),
                    ..Mint::default()
                };
                rig.call("GET", ITEM).of_task().bearer(&rig.mint(mint))
            };
        }
        Condition::Timeout => struck_by(rig, Effect::Delay { ms: 20_000 }),
        Condition::PartitionFull => {
            struck_by(rig, any(403, 1014));
            stage.ask = |rig| rig.task("fulfilment", "POST", DOCS).json(&json!({"id": "new", "tenant": "t1"}));
        }
    }
    stage
}

/// One line: what the caller hears.
fn line(form: &str, answer: &Answer) -> String {
    let header = |name| answer.header(name).unwrap_or("-").to_owned();
    // How long a debt lasts depends on the moment.
    let wait = match header("retry-after").as_str() {
        long if long.len() > 3 => "long".to_owned(),
        short => short.to_owned(),
    };
    let body = match answer.json() {
        Value::Object(mut body) => {
            for name in ["requestId", "activityId", "_self", "_rid", "_ts", "_etag", "_attachments"] {
                if let Some(value) = body.get_mut(name) {
                    *value = json!("...");
                }
            }
            for name in ["detail", "message"] {
                if let Some(Value::String(text)) = body.get_mut(name) {
                    text.truncate(text.char_indices().nth(50).map_or(text.len(), |(at, _)| at));
                }
            }
            if body.get("message") == body.get("detail") {
                body.insert("message".into(), "as detail".into());
            }
            if body.contains_key("filler") { json!("the item") } else { Value::Object(body) }
        }
        Value::Array(results) => {
            let statuses: Vec<_> = results.iter().map(|result| result["statusCode"].clone()).collect();
            json!({"statusCodes": statuses})
        }
        other => other,
    };
    format!(
        "{form:<9} {} substatus {} retry-after {wait}\n          {body}\n",
        answer.status(),
        header("x-ms-substatus")
    )
}

async fn heard(condition: Condition) -> String {
    let stage = stage(condition).await;
    let row = condition.row();
    let mut text = format!("{} · retry: {}\n", row.error, row.retry.as_str());
    for form in FORMS {
        let answer = (stage.ask)(&stage.rig).header("x-stepgate-errors", form).send().await;
        if form == "distinct" {
            assert_eq!(answer.error(), (row.distinct, row.error.to_owned()), "{condition:?}: {}", answer.text());
            assert_eq!(answer.json()["retryable"], condition.is_retryable(), "{condition:?}");
        }
        let _ = write!(text, "{}", line(form, &answer));
    }
    if let Some(held) = stage.held {
        held.abort();
    }
    text
}

#[tokio::test]
async fn every_condition_is_heard_in_every_form() {
    let mut text = String::new();
    // A few stacks at a time: each has sockets, keys and files of its own.
    for some in Condition::ALL.chunks(7) {
        for heard in futures_util::future::join_all(some.iter().map(|condition| heard(*condition))).await {
            text += &heard;
            text.push('\n');
        }
    }
    is_golden("conditions.txt", &text);
}
