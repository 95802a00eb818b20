//! Every fault that the stand-in can make, on every operation: what the caller hears, how often Cosmos was asked, and what the log
//! says of it. `tests/golden/matrix.txt` is the table; `matrix-regions.txt` is that of regions that change.

use std::{fmt::Write as _, fs, time::Duration};

use futures_util::future::join_all;
use serde_json::{Value, json};
use stepgate::{
    audit::{Phase, Telling},
    config::dev,
    dev::cosmos::{Effect, Fault, On, Operation, RegionChange},
};

use crate::{
    golden::is_golden,
    rig::{Answer, Call, Rig, soon},
};

const COLL: &str = "/dbs/shop/colls/orders";
const DOCS: &str = "/dbs/shop/colls/orders/docs";
const ITEM: &str = "/dbs/shop/colls/orders/docs/m-1";

/// A request that succeeds where nothing is amiss; the text is an id that no other has.
type Ask = for<'a> fn(&'a Rig, &str) -> Call<'a>;

/// What is struck.
#[derive(Clone, Copy)]
enum At {
    /// This operation.
    Data(Operation),
    /// Questions about the container.
    Container,
}

/// A row's name, what the faults strike, whether it is a write, what must be done before, and the request.
#[derive(Clone, Copy)]
struct Row {
    name: &'static str,
    at: At,
    is_write: bool,
    before: Option<Ask>,
    ask: Ask,
}

const fn read(name: &'static str, at: At, ask: Ask) -> Row {
    Row { name, at, is_write: false, before: None, ask }
}

const fn write(name: &'static str, at: Operation, ask: Ask) -> Row {
    Row { name, at: At::Data(at), is_write: true, before: None, ask }
}

const fn after(before: Ask, row: Row) -> Row {
    Row { before: Some(before), ..row }
}

fn at<'a>(rig: &'a Rig, method: &str, path: &str) -> Call<'a> {
    rig.task("operator", method, path).partition("t1")
}

/// A write that is done once, with the id for its key.
fn once<'a>(rig: &'a Rig, method: &str, path: &str, id: &str) -> Call<'a> {
    rig.task("once", method, path).partition("t1").header("idempotency-key", id)
}

fn order(id: &str) -> Value {
    json!({"id": id, "tenant": "t1"})
}

fn patch() -> Value {
    json!({"operations": [{"op": "add", "path": "/seen", "value": true}]})
}

fn create(id: &str) -> Value {
    json!([{"operationType": "Create", "resourceBody": order(id)}])
}

fn stale(call: Call<'_>) -> Call<'_> {
    // The etag of another time: what is asked for with it is refused, and was perhaps done before.
    call.header("x-stepgate-if-match", "\"stale\"")
}

fn batch(call: Call<'_>) -> Call<'_> {
    call.header("x-ms-cosmos-is-batch-request", "True")
}

fn upsert<'a>(rig: &'a Rig, id: &str) -> Call<'a> {
    at(rig, "POST", DOCS).header("x-ms-documentdb-is-upsert", "True").json(&order(id))
}

fn delete<'a>(rig: &'a Rig, id: &str) -> Call<'a> {
    at(rig, "DELETE", &format!("{DOCS}/{id}"))
}

fn create_once<'a>(rig: &'a Rig, id: &str) -> Call<'a> {
    once(rig, "POST", DOCS, id).json(&order(id))
}

const ROWS: [Row; 24] = [
    write("Create", Operation::Create, |rig, id| at(rig, "POST", DOCS).json(&order(id))),
    write("Upsert", Operation::Upsert, |rig, _| upsert(rig, "m-1")),
    read("Read", At::Data(Operation::Read), |rig, _| at(rig, "GET", ITEM)),
    write("Replace", Operation::Replace, |rig, _| at(rig, "PUT", ITEM).json(&order("m-1"))),
    write("Patch", Operation::Patch, |rig, _| at(rig, "PATCH", ITEM).json(&patch())),
    after(upsert, write("Delete", Operation::Delete, delete)),
    write("Upsert with a stale etag", Operation::Upsert, |rig, _| stale(upsert(rig, "m-1"))),
    write("Replace with a stale etag", Operation::Replace, |rig, _| stale(at(rig, "PUT", ITEM)).json(&order("m-1"))),
    write("Patch with a stale etag", Operation::Patch, |rig, _| stale(at(rig, "PATCH", ITEM)).json(&patch())),
    after(upsert, write("Delete with a stale etag", Operation::Delete, |rig, id| stale(delete(rig, id)))),
    read("Query", At::Data(Operation::Query), |rig, _| at(rig, "POST", DOCS).query("SELECT * FROM c")),
    read("QueryPlan", At::Data(Operation::QueryPlan), |rig, _| {
        let call = at(rig, "POST", DOCS).header("x-ms-cosmos-is-query-plan-request", "True");
        let call = call.header("x-ms-cosmos-supported-query-features", "Aggregate, OrderBy, Top");
        call.header("x-ms-cosmos-query-version", "1.0").query("SELECT * FROM c")
    }),
    read("Feed", At::Data(Operation::Feed), |rig, _| at(rig, "GET", DOCS)),
    read("Change feed", At::Data(Operation::Feed), |rig, _| at(rig, "GET", DOCS).header("a-im", "Incremental feed")),
    write("Batch", Operation::Batch, |rig, id| batch(at(rig, "POST", DOCS)).json(&create(id))),
    write("Execute", Operation::Execute, |rig, _| {
        at(rig, "POST", &format!("{COLL}/sprocs/settle")).json(&json!(["m-1"]))
    }),
    read("Container", At::Container, |rig, _| at(rig, "GET", COLL)),
    read("Ranges", At::Container, |rig, _| at(rig, "GET", &format!("{COLL}/pkranges"))),
    write("Create once", Operation::Batch, create_once),
    write("Patch once", Operation::Batch, |rig, id| once(rig, "PATCH", ITEM, id).json(&patch())),
    after(upsert, write("Delete once", Operation::Batch, |rig, id| once(rig, "DELETE", &format!("{DOCS}/{id}"), id))),
    write("Batch once", Operation::Batch, |rig, id| batch(once(rig, "POST", DOCS, id)).json(&create(id))),
    write("Create once, at the note in its marker", Operation::Replace, create_once),
    after(create_once, write("Create once, repeated, at the reading of its marker", Operation::Read, create_once)),
];

const fn any(status: u16, substatus: u32) -> Effect {
    Effect::Any { status, substatus: Some(substatus) }
}

/// What the caller waits for under `LATE`.
const PATIENCE: &str = "1500ms";
const LATE: Effect = Effect::Delay { ms: 10_000 };

const EFFECTS: [(&str, Effect); 25] = [
    ("throttle", Effect::Throttle { retry_after_ms: 1 }),
    ("delay", Effect::Delay { ms: 5 }),
    ("late", LATE),
    ("unavailable", Effect::Unavailable),
    ("retry_with", Effect::RetryWith),
    ("session", Effect::Session),
    ("cut_after_commit", Effect::CutAfterCommit),
    ("any 302/0", any(302, 0)),
    ("any 400/0", any(400, 0)),
    ("any 401/0", any(401, 0)),
    ("any 401/5202", any(401, 5202)),
    ("any 403/0", any(403, 0)),
    ("any 403/3", any(403, 3)),
    ("any 403/1008", any(403, 1008)),
    ("any 403/1014", any(403, 1014)),
    ("any 403/5300", any(403, 5300)),
    ("any 404/0", any(404, 0)),
    ("any 408/0", any(408, 0)),
    ("any 409/0", any(409, 0)),
    ("any 410/0", any(410, 0)),
    ("any 410/1002", any(410, 1002)),
    ("any 412/0", any(412, 0)),
    ("any 413/0", any(413, 0)),
    ("any 429/3092", any(429, 3092)),
    ("any 500/0", any(500, 0)),
];

/// What may befall the minting of a token.
const AT_THE_MINT: [(&str, Effect); 10] = [
    ("throttle", Effect::Throttle { retry_after_ms: 1 }),
    ("delay", Effect::Delay { ms: 5 }),
    ("unavailable", Effect::Unavailable),
    ("cut_after_commit", Effect::CutAfterCommit),
    ("any 401/0", any(401, 0)),
    ("any 403/0", any(403, 0)),
    ("any 403/5300", any(403, 5300)),
    ("any 404/0", any(404, 0)),
    ("any 410/0", any(410, 0)),
    ("any 500/0", any(500, 0)),
];

/// What was heard, and how often Cosmos was asked for it; the log must say the same.
fn heard(rig: &Rig, answer: &Answer, is_write: bool, effect: Option<Effect>) -> String {
    let for_it = |kind: &str| !matches!(kind, "users" | "permissions");
    let recorded = rig.cosmos().recorded().into_iter();
    let asked = recorded.filter(|one| one.activity_id == answer.request_id() && for_it(&one.resource_type)).count();
    let records = rig.records_of(answer);
    let phases: Vec<_> = records.iter().map(|record| record.entry.phase).collect();
    let expected: &[Phase] = if is_write { &[Phase::Intent, Phase::Outcome] } else { &[Phase::Outcome] };
    assert_eq!(phases, expected, "{}", answer.text());
    let outcome = rig.outcome(answer);
    let error = outcome.answer.as_ref().unwrap().error.clone();
    assert_eq!(outcome.answer.unwrap().status, answer.status());
    let attempts = outcome.upstream.map_or(0, |upstream| upstream.attempts as usize);
    // What the gateway hangs up on the stand-in has not seen.
    if effect != Some(LATE) {
        assert_eq!(attempts, asked, "{}", answer.text());
    }
    assert_eq!(outcome.told.map(Telling::as_str), answer.header("x-stepgate-idempotency"));
    let told = outcome.told.filter(|told| *told != Telling::First).map(|told| format!(" {}", told.as_str()));
    format!("{} {} x{attempts}{}", answer.status(), error.as_deref().unwrap_or("-"), told.unwrap_or_default())
}

async fn bare() -> Rig {
    Rig::with(|raw| raw.limits.deadline = Duration::from_secs(20)).await
}

/// A stack with an item, and with tokens at hand.
async fn stack() -> Rig {
    let rig = bare().await;
    at(&rig, "POST", DOCS).json(&order("m-1")).send().await.expect(201);
    at(&rig, "GET", ITEM).send().await.expect(200);
    rig
}

impl Row {
    fn fault(self, effect: Effect) -> Fault {
        match self.at {
            At::Data(operation) => Fault::once(effect).operation(operation),
            At::Container => Fault { path: Some(COLL.into()), ..Fault::once(effect).on(On::Metadata) },
        }
    }

    /// Asks on `rig`, where `amiss` makes something go wrong first.
    async fn heard(self, rig: &Rig, id: &str, effect: Option<Effect>, amiss: impl FnOnce()) -> String {
        if let Some(before) = self.before {
            let done = before(rig, id).send().await;
            assert!(done.0.status().is_success(), "{}: {done:?}", self.name);
        }
        amiss();
        let call = (self.ask)(rig, id);
        let call = if effect == Some(LATE) { call.header("x-stepgate-deadline", PATIENCE) } else { call };
        let answer = call.send().await;
        rig.cosmos().clear_faults();
        heard(rig, &answer, self.is_write, effect)
    }

    async fn text(self) -> String {
        let mut rig = stack().await;
        let mut text = format!("{}\n", self.name);
        let mut fresh = 0;
        for (name, effect) in EFFECTS {
            let mut line = format!("  {name:<18}");
            if matches!(effect, Effect::Any { status: 401 | 403, substatus: Some(0 | 5202 | 5300) }) {
                // How often a token is minted again depends on those before it.
                rig = stack().await;
            }
            for (when, count) in [("once", 1), ("always", 1_000)] {
                fresh += 1;
                let strike = || rig.cosmos().add_fault(self.fault(effect).times(count));
                let heard = self.heard(&rig, &format!("fresh-{fresh}"), Some(effect), strike).await;
                let _ = write!(line, "  {when}: {heard:<38}");
            }
            text += line.trim_end();
            text.push('\n');
        }
        for (name, rotates) in [("tokens expired", false), ("and key rotated", true)] {
            let rig = stack().await;
            let amiss = || {
                if rotates {
                    let key = rig.cosmos().rotate_key().unwrap();
                    fs::write(rig.file("config/emulator-account-key"), key.expose()).unwrap();
                }
                rig.cosmos().expire_tokens();
            };
            let heard = self.heard(&rig, "last", None, amiss).await;
            let _ = writeln!(text, "  {name:<18}  once: {heard}");
        }
        text
    }
}

/// A write that wants a token first.
async fn at_the_mint((name, effect): (&str, Effect)) -> String {
    let mut line = format!("  {name:<18}");
    for (when, count) in [("once", 1), ("always", 1_000)] {
        let rig = bare().await;
        let strike = || rig.cosmos().add_fault(Fault::once(effect).on(On::Permissions).times(count));
        let [create, ..] = ROWS;
        let _ = write!(line, "  {when}: {:<38}", create.heard(&rig, "minted", None, strike).await);
    }
    format!("{}\n", line.trim_end())
}

#[tokio::test]
async fn every_fault_on_every_operation() {
    let mut text = String::new();
    // A stack for each, so that none spends another's budget of repeats; a few at a time.
    for some in ROWS.chunks(12) {
        for row in join_all(some.iter().map(|row| row.text())).await {
            text += &row;
            text.push('\n');
        }
    }
    text += "Create, at the minting of its token\n";
    for some in AT_THE_MINT.chunks(10) {
        text += &join_all(some.iter().map(|effect| at_the_mint(*effect))).await.concat();
    }
    is_golden("matrix.txt", &text);
}

const WEST: &str = "West Europe";
const NORTH: &str = "North Europe";

/// What may befall North Europe, where reads go, or West Europe, which takes the writes.
const CHANGES: [(&str, &str, RegionChange); 5] = [
    ("north is away", NORTH, RegionChange::Away),
    ("north has left", NORTH, RegionChange::Gone),
    ("west is away", WEST, RegionChange::Away),
    ("west is offline", WEST, RegionChange::Offline),
    ("north takes over", NORTH, RegionChange::TakesWrites),
];

impl Row {
    /// What is heard right after the change, before anything else was asked of the region.
    async fn after_change(self, (name, region, change): (&str, &str, RegionChange)) -> String {
        let rig = Rig::with(|raw| {
            let cosmos = &mut raw.dev.as_mut().unwrap().cosmos;
            let listen = cosmos.listen;
            cosmos.regions = [WEST, NORTH].map(|name| dev::Region { name: name.into(), listen }).into();
            cosmos.seed.databases[0].containers[0].items.push(order("m-1"));
            raw.cosmos.preferred_regions = vec![NORTH.into(), WEST.into()];
        })
        .await;
        soon(async || {
            let (_, status) = rig.admin("GET", "/status", None).await;
            let status: Value = serde_json::from_str(&status).unwrap();
            (!status["cosmos"]["regions_read"].is_null()).then_some(())
        })
        .await;
        rig.cosmos().change_region(region, change).unwrap();
        let answer = (self.ask)(&rig, "fresh").header("x-stepgate-deadline", "10s").send().await;
        let outcome = rig.outcome(&answer);
        let error = outcome.answer.unwrap().error;
        let (attempts, place) = outcome.upstream.map_or((0, None), |upstream| (upstream.attempts, upstream.region));
        // Who waits for a region to take over asks as often as there is time.
        let waits = self.is_write && matches!(change, RegionChange::Offline | RegionChange::TakesWrites);
        let attempts = if waits { "again".to_owned() } else { format!("x{attempts}") };
        let place = place.as_deref().unwrap_or("-").to_owned();
        format!("  {name:<16}  {} {} {attempts} {place}\n", answer.status(), error.as_deref().unwrap_or("-"))
    }
}

#[tokio::test]
async fn every_operation_while_a_region_changes() {
    let mut text = String::new();
    for row in ROWS.iter().filter(|row| row.before.is_none()) {
        text += &format!("{}\n", row.name);
        text += &join_all(CHANGES.iter().map(|change| row.after_change(*change))).await.concat();
        text.push('\n');
    }
    is_golden("matrix-regions.txt", &text);
}
