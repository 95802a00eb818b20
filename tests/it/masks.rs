//! Masks and agents, from the outside: what a caller sees of an item, what it is refused, and what the trail says.

use std::{env, fs};

use serde_json::{Value, json};
use stepgate::audit::Verdict;

use crate::{
    release,
    rig::{Answer, Call, Rig, members},
};

const DOCS: &str = "/dbs/shop/colls/orders/docs";
const ITEM: &str = "/dbs/shop/colls/orders/docs/m-1";
/// What nobody may see who holds the masked role.
const CANARIES: [&str; 4] = ["4111-1111", "eve@example", "98765", "card-note"];

const POLICY: &str = r#"
roles:
  masked:
    grants:
      - container: shop/orders
        operations: ["*"]
        idempotency: off
        mask: [/card/number, { partial: /customer/email }, /lines/*/price, /secret]
  copilot:
    grants:
      - container: shop/orders
        operations: ["*", items/patch]
bindings:
  - { role: masked, workloads: [{ issuer: local, claims: { client_id: nobody } }] }
  - role: copilot
    agent: true
    workloads: [{ issuer: local, claims: { client_id: reporter } }]
    limits: { AGENT }
"#;

async fn rig_with(agent: &str) -> Rig {
    let rig = super::start().await;
    let text = POLICY.replace("AGENT", agent);
    fs::write(rig.file("policies/masks.yaml"), text).unwrap();
    rig.server.reload().await;
    assert_eq!(rig.admin("GET", "/readyz", None).await.0, 200, "{}", rig.admin("GET", "/readyz", None).await.1);
    rig
}

fn item(id: &str) -> Value {
    json!({
        "id": id,
        "tenant": "t1",
        "status": "open",
        "card": { "number": "4111-1111", "brand": "V" },
        "customer": { "email": "eve@example.com", "name": "Eve" },
        "lines": [{ "article": "a", "price": 98765 }, { "article": "b", "price": 98765 }],
        "secret": { "note": "card-note" },
    })
}

async fn seeded() -> Rig {
    let rig = rig_with("rows: 2").await;
    for id in ["m-1", "m-2", "m-3"] {
        operator(&rig, "POST", DOCS).json(&item(id)).send().await.expect(201);
    }
    rig
}

fn operator<'a>(rig: &'a Rig, method: &str, path: &str) -> Call<'a> {
    rig.task("operator", method, path).partition("t1")
}

fn masked<'a>(rig: &'a Rig, method: &str, path: &str) -> Call<'a> {
    rig.task("nobody", method, path).partition("t1")
}

#[track_caller]
fn shows_nothing(answer: &Answer) {
    let (text, headers) = (answer.text(), format!("{:?}", answer.0.headers()));
    for canary in CANARIES {
        assert!(!text.contains(canary) && !headers.contains(canary), "{canary}: {text} {headers}");
    }
    if let Some(length) = answer.header("content-length") {
        assert_eq!(length, answer.0.body().len().to_string());
    }
}

#[tokio::test]
async fn an_item_is_masked_in_every_answer_and_form() {
    let rig = seeded().await;
    let read = masked(&rig, "GET", ITEM).send().await.expect(200);
    shows_nothing(&read);
    let seen = read.json();
    assert_eq!(seen["card"], json!({ "number": "****", "brand": "V" }));
    assert_eq!(seen["customer"], json!({ "email": "****.com", "name": "Eve" }));
    assert_eq!(seen["lines"][1], json!({ "article": "b", "price": "****" }));
    assert_eq!(seen["secret"], "****");
    let told = rig.outcome(&read);
    let pointers: Vec<&str> = told.masked.iter().map(|pointer| &**pointer).collect();
    assert_eq!(pointers, ["/card/number", "/customer/email", "/lines/*/price", "/secret"]);
    assert!(rig.records().iter().all(|record| {
        let text = format!("{record:?}");
        CANARIES.iter().all(|canary| !text.contains(canary))
    }));

    // The etag is the item's, and is good for what an etag is good for.
    let etag = read.header("etag").unwrap().to_owned();
    assert_eq!(operator(&rig, "GET", ITEM).send().await.header("etag"), Some(etag.as_str()));
    let patch = json!({ "operations": [{ "op": "set", "path": "/status", "value": "paid" }] });
    let patched =
        masked(&rig, "PATCH", ITEM).header("x-stepgate-if-match", &etag).json(&patch).send().await.expect(200);
    shows_nothing(&patched);
    assert_eq!((&patched.json()["status"], &patched.json()["secret"]), (&json!("paid"), &json!("****")));
    masked(&rig, "PATCH", ITEM).header("x-stepgate-if-match", &etag).json(&patch).send().await.expect(412);
    assert_eq!(
        operator(&rig, "GET", ITEM).send().await.json()["card"]["number"],
        "4111-1111",
        "nothing is overwritten"
    );

    for form in ["distinct", "cosmos", "envelope"] {
        for select in ["/card", "/card/number, /secret", "/lines/0/price, /customer"] {
            let call = masked(&rig, "GET", ITEM).header("x-stepgate-errors", form).header("x-stepgate-select", select);
            shows_nothing(&call.send().await.expect(200));
        }
        shows_nothing(&masked(&rig, "GET", DOCS).header("x-stepgate-errors", form).send().await.expect(200));
        let query = masked(&rig, "POST", DOCS).header("x-stepgate-errors", form).query("SELECT * FROM c");
        shows_nothing(&query.send().await.expect(200));
        let made = masked(&rig, "POST", DOCS).header("x-stepgate-errors", form).json(&item(&format!("made-{form}")));
        shows_nothing(&made.send().await);
    }
    let feed = masked(&rig, "GET", DOCS).send().await.expect(200).json();
    assert!(feed["Documents"].as_array().unwrap().iter().any(|row| row["secret"] == "****"), "{feed:#}");
    let changes = masked(&rig, "GET", DOCS).header("a-im", "Incremental Feed").send().await.expect(200);
    shows_nothing(&changes);
    assert!(changes.text().contains("****"), "{}", changes.text());
    let batch = json!([
        { "operationType": "Read", "id": "m-2" },
        { "operationType": "Patch", "id": "m-3", "resourceBody": patch },
        { "operationType": "Create", "resourceBody": item("m-4") },
    ]);
    let done = masked(&rig, "POST", DOCS).header("x-ms-cosmos-is-batch-request", "True").json(&batch).send().await;
    let done = done.expect(200);
    shows_nothing(&done);
    assert_eq!(done.json()[0]["resourceBody"]["secret"], "****");
}

/// What SDKs make of a query that sorts across partitions: the plan names another query, whose rows hold the item one level down.
#[tokio::test]
async fn a_query_that_a_plan_rewrote_is_masked_where_its_items_are() {
    let rig = seeded().await;
    let query = |text: &str| rig.sdk("nobody", "POST", DOCS).query(text);
    let plan = query("SELECT * FROM c WHERE c.tenant = 't1' ORDER BY c.status")
        .header("x-ms-cosmos-is-query-plan-request", "True")
        .header(
            "x-ms-cosmos-supported-query-features",
            "OrderBy, MultipleOrderBy, Aggregate, Distinct, OffsetAndLimit, Top",
        )
        .header("x-ms-cosmos-query-version", "1.0");
    let plan = plan.send().await.expect(200).json();
    let rewritten = plan["queryInfo"]["rewrittenQuery"].as_str().unwrap_or_else(|| panic!("{plan:#}")).to_owned();
    assert!(rewritten.contains("payload"), "{rewritten}");
    let rewritten = rewritten.replace("{documentdb-formattableorderbyquery-filter}", "true");
    let call = query(&rewritten).partition("t1");
    let page = call.send().await.expect(200);
    shows_nothing(&page);
    let rows = page.json()["Documents"].clone();
    assert!(rows.as_array().unwrap().iter().any(|row| row["payload"]["secret"] == "****"), "{rewritten}: {rows:#}");
}

#[tokio::test]
async fn what_could_tell_of_a_masked_member_is_refused() {
    let rig = seeded().await;
    let before = rig.data_requests().len();
    let refused = async |call: Call<'_>, why: &str| {
        let answer = call.send().await;
        shows_nothing(&answer);
        assert!(answer.text().contains(why), "{why}: {}", answer.text());
        let outcome = rig.outcome(&answer);
        assert_eq!(outcome.decision.unwrap().verdict, Verdict::Deny);
        answer.refused(403, "policy.denied");
    };
    let query = |text: &str| masked(&rig, "POST", DOCS).query(text);
    refused(query("SELECT c.card FROM c"), "SELECT names /card").await;
    refused(query("SELECT c.id FROM c WHERE c.secret.note = 'x'"), "WHERE names /secret/note").await;
    refused(query("SELECT * FROM c ORDER BY c.card.number"), "ORDER BY names").await;
    refused(query("SELECT c[@p] FROM c"), "computes which member").await;
    let plan = query("SELECT c.card FROM c").header("x-ms-cosmos-is-query-plan-request", "True");
    let plan =
        plan.header("x-ms-cosmos-supported-query-features", "OrderBy").header("x-ms-cosmos-query-version", "1.0");
    refused(plan, "SELECT names /card").await;
    let patch = |body: Value| masked(&rig, "PATCH", ITEM).json(&body);
    refused(patch(json!([{ "op": "copy", "from": "/card/number", "path": "/note" }])), "copy names /card/number").await;
    refused(patch(json!([{ "op": "move", "from": "/secret", "path": "/note" }])), "move names /secret").await;
    refused(patch(json!([{ "op": "set", "path": "/card", "value": {} }])), "set names /card").await;
    let condition = json!({ "condition": "FROM c WHERE c.card.number = '4111-1111'", "operations": [] });
    refused(patch(condition), "the patch's condition names").await;
    // Whole items: whoever does not see a member would overwrite it.
    refused(masked(&rig, "PUT", ITEM).json(&item("m-1")), "use items/patch").await;
    let upsert = masked(&rig, "POST", DOCS).header("x-ms-documentdb-is-upsert", "True");
    refused(upsert.json(&item("m-1")), "use items/patch").await;
    refused(masked(&rig, "POST", "/dbs/shop/colls/orders/sprocs/settle").json(&json!(["m-1"])), "stored procedure")
        .await;
    let batch = |operation: Value| {
        masked(&rig, "POST", DOCS).header("x-ms-cosmos-is-batch-request", "True").json(&json!([operation]))
    };
    refused(batch(json!({ "operationType": "Replace", "id": "m-1", "resourceBody": item("m-1") })), "use items/patch")
        .await;
    let copy = json!([{ "op": "copy", "from": "/secret", "path": "/note" }]);
    refused(
        batch(json!({ "operationType": "Patch", "id": "m-1", "resourceBody": { "operations": copy } })),
        "copy names",
    )
    .await;
    assert_eq!(rig.data_requests().len(), before, "nothing of it was asked of Cosmos");
    masked(&rig, "DELETE", ITEM).send().await.expect(204);
}

#[tokio::test]
async fn what_is_masked_of_one_grant_is_masked_of_another_as_narrow() {
    let rig = super::start().await;
    let text = r#"
roles:
  reads: { grants: [{ container: shop/orders, operations: [items/read], mask: [/secret] }] }
  writes: { grants: [{ container: shop/orders, operations: [items/read, items/patch, items/create] }] }
  own: { grants: [{ container: shop/orders, partition_key: [t1], operations: [items/read] }] }
bindings:
  - { role: writes, workloads: [{ issuer: local, claims: { client_id: nobody } }] }
  - { role: reads, workloads: [{ issuer: local, claims: { client_id: nobody } }] }
  - { role: own, workloads: [{ issuer: local, claims: { client_id: nobody } }] }
"#;
    fs::write(rig.file("policies/masks.yaml"), text).unwrap();
    rig.server.reload().await;
    let made = masked(&rig, "POST", DOCS).json(&item("n-1")).send().await.expect(201);
    assert_eq!(made.json()["secret"], "****", "the echo of a write shows no more than a read");
    let narrower = masked(&rig, "GET", &format!("{DOCS}/n-1")).send().await.expect(200);
    assert_eq!(
        narrower.json()["secret"],
        json!({ "note": "card-note" }),
        "the narrowest grant decides, and masks nothing"
    );
    let elsewhere = rig.task("nobody", "POST", DOCS).partition("t2");
    elsewhere.json(&json!({ "id": "n-2", "tenant": "t2", "secret": 1 })).send().await.expect(201);
    let read = rig.task("nobody", "GET", &format!("{DOCS}/n-2")).partition("t2").send().await.expect(200);
    assert_eq!(read.json()["secret"], "****", "equally narrow grants: what one masks is masked");
}

#[tokio::test]
async fn an_agent_reads_so_many_rows_and_writes_what_is_named() {
    let rig = seeded().await;
    let agent = |method: &str, path: &str| rig.task("reporter", method, path).partition("t1");
    agent("GET", ITEM).send().await.expect(200);
    let patch = json!([{ "op": "set", "path": "/status", "value": "seen" }]);
    agent("PATCH", ITEM).json(&patch).send().await.expect(200);
    for call in [
        agent("DELETE", ITEM),
        agent("PUT", ITEM).json(&item("m-1")),
        agent("POST", DOCS).json(&item("m-9")),
        agent("POST", "/dbs/shop/colls/orders/sprocs/settle").json(&json!([])),
    ] {
        call.send().await.refused(403, "policy.denied");
    }
    let rows = async |call: Call<'_>| {
        let answer = call.send().await.expect(200);
        (answer.json()["Documents"].as_array().unwrap().len(), answer.header("x-ms-continuation").map(str::to_owned))
    };
    let query = |rig| rig_query(rig, "SELECT * FROM c");
    let (count, continuation) = rows(query(&rig)).await;
    assert_eq!(count, 2);
    let (count, _) = rows(query(&rig).header("x-ms-continuation", &continuation.unwrap())).await;
    assert!((1..=2).contains(&count), "the rest comes in its turn");
    assert_eq!(rows(query(&rig).header("x-ms-max-item-count", "-1")).await.0, 2);
    assert_eq!(rows(query(&rig).header("x-ms-max-item-count", "1000")).await.0, 2);
    assert_eq!(rows(query(&rig).header("x-ms-max-item-count", "1")).await.0, 1);
    assert_eq!(rows(agent("GET", DOCS)).await.0, 2);
}

fn rig_query<'a>(rig: &'a Rig, text: &str) -> Call<'a> {
    rig.task("reporter", "POST", DOCS).partition("t1").query(text)
}

#[tokio::test]
async fn an_agent_has_a_budget_for_the_hour_and_hours_of_the_day() {
    let rig = rig_with("request_units_per_hour: 1").await;
    let read = async || rig.task("reporter", "GET", "/dbs/shop/colls/orders/docs/o-1001").partition("t1").send().await;
    // A request goes while anything is left, and what it costs too much is owed.
    let mut spent = read().await.expect(200);
    for _ in 0..3 {
        spent = read().await;
    }
    let spent = spent.refused(429, "limit.exceeded");
    assert!(spent.text().contains("1 request units per hour"), "{}", spent.text());
    assert!(spent.header("retry-after").unwrap().parse::<u64>().unwrap() > 0);

    // A minute of yesterday's weekday, which it is not now.
    let day = stepgate::clock::Clock::System.now().as_secs() / 86_400;
    let not_today = ["thu", "fri", "sat", "sun", "mon", "tue", "wed"][usize::try_from((day + 3) % 7).unwrap()];
    let hours = format!("hours: {{ from: '00:00', until: '00:01', days: [{not_today}] }}");
    fs::write(rig.file("policies/masks.yaml"), POLICY.replace("AGENT", &hours)).unwrap();
    rig.server.reload().await;
    let closed = read().await.refused(429, "limit.exceeded");
    assert!(closed.text().contains("00:00 until 00:01 UTC"), "{}", closed.text());
    assert!(closed.header("retry-after").unwrap().parse::<u64>().unwrap() > 86_400, "days from now");
}

/// Queries that try to carry a masked member out: 5,000 where somebody wants to know, fewer each time.
const QUERIES: &str = "STEPGATE_MASKED_QUERIES";

/// Two worlds that differ in nothing but what is masked: whatever is answered must be the same in both.
#[tokio::test]
async fn no_query_tells_two_worlds_apart_that_differ_in_what_is_masked() {
    let count = given(QUERIES, 120);
    let rig = rig_with("rows: 100").await;
    for (tenant, shift) in [("w1", 0), ("w2", 1)] {
        for number in 0..6 {
            let hidden = (number * 5 + shift * 3) % 7;
            let status = if number % 2 == 0 { "open" } else { "paid" };
            let item = json!({
                "id": format!("q-{number}"), "tenant": tenant, "status": status, "total": number,
                "card": { "number": format!("secret-{tenant}-{hidden}"), "brand": "V" },
                "customer": { "email": format!("secret-{tenant}-{hidden}@example"), "name": "n" },
                "lines": [{ "article": "a", "price": hidden * 1000 + shift }],
                "secret": hidden * 10 + shift,
            });
            rig.task("operator", "POST", DOCS).partition(tenant).json(&item).send().await.expect(201);
        }
    }
    let mut dice = Dice(given("STEPGATE_SEED", 26));
    let (mut through, mut refused, mut telling) = (0, 0, 0);
    for round in 0..count {
        let (text, parameters) = dice.query();
        let ask = async |client: &str, tenant: &str| {
            let body = json!({ "query": text, "parameters": parameters });
            let call = rig.sdk(client, "POST", DOCS).partition(tenant).header("x-ms-documentdb-isquery", "True");
            call.header("content-type", "application/query+json").json(&body).send().await
        };
        let (one, other) = (ask("nobody", "w1").await, ask("nobody", "w2").await);
        // What the query says itself comes back, and tells nothing.
        let said = format!("{text} {parameters}");
        let carried = (0..14).map(|n| format!("secret-w{}-{}", 1 + n / 7, n % 7)).find(|canary| {
            let told = |answer: &Answer| format!("{} {:?}", answer.text(), answer.0.headers());
            !said.contains(canary) && (told(&one).contains(canary) || told(&other).contains(canary))
        });
        assert_eq!(carried, None, "{text} carries it out");
        assert_eq!(one.status(), other.status(), "{text}");
        if one.status() == 403 {
            refused += 1;
            // Not for nothing: without the mask some of these do tell the worlds apart.
            if round % 2 == 0 {
                let (one, other) = (ask("operator", "w1").await, ask("operator", "w2").await);
                telling += u64::from(one.status() == 200 && plain(&one) != plain(&other));
            }
        } else {
            through += u64::from(one.status() == 200);
            assert_eq!(plain(&one), plain(&other), "{text} tells the worlds apart");
        }
    }
    println!(
        "{count} queries: {through} answered, {refused} refused, {telling} of half of them telling without the mask"
    );
    assert!(through * 20 > count && refused * 4 > count && telling > 0, "{through} {refused} {telling}");
}

fn given(name: &str, otherwise: u64) -> u64 {
    env::var_os(name).map_or(otherwise, |text| text.to_str().unwrap().parse().unwrap())
}

/// An answer without what differs between any two items.
fn plain(answer: &Answer) -> Value {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(members) => {
                members.retain(|name, _| !name.starts_with('_') && name != "tenant");
                members.values_mut().for_each(strip);
            }
            Value::Array(elements) => elements.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let mut body = answer.json();
    strip(&mut body);
    if answer.status() == 200 { body["Documents"].take() } else { json!(answer.status()) }
}

/// A generator of queries: splitmix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % sides as u64).unwrap()
    }

    fn one<'s>(&mut self, of: &[&'s str]) -> &'s str {
        of[self.roll(of.len())]
    }

    fn path(&mut self) -> String {
        let shown =
            ["c.id", "c.status", "c.total", "c[\"status\"]", "c.card.brand", "c.customer.name", "c.lines[0].article"];
        let hidden = [
            "c.card.number",
            "c.card",
            "c",
            "c[\"card\"][\"number\"]",
            "c['secret']",
            "c.secret",
            "c.customer.email",
            "c.customer",
            "c.lines",
            "c.lines[0]",
            "c.lines[0].price",
        ];
        let odd = [
            "c[@name]",
            "c[@card].number",
            "c[\"car\" || \"d\"]",
            "(c).card",
            "(c.card.number)",
            "{\"a\": c}.a",
            "[c.secret][0]",
            "l.price",
            "root.secret",
            "c.secret.x",
            "c.Card",
            "udf.f(c)",
        ];
        match self.roll(12) {
            0 => self.one(&odd),
            1..4 => self.one(&hidden),
            _ => self.one(&shown),
        }
        .to_owned()
    }

    fn value(&mut self, depth: usize) -> String {
        if depth == 0 {
            return match self.roll(6) {
                0 => self.one(&["1", "\"open\"", "@value", "null", "undefined", "true", "'secret-w1-0'"]).to_owned(),
                _ => self.path(),
            };
        }
        let (one, other) = (self.value(depth - 1), self.value(depth - 1));
        match self.roll(14) {
            0 => format!("{{\"x\": {one}, \"y\": {other}}}"),
            1 => format!("[{one}, {other}]"),
            2 => format!("CONCAT({one}, {other})"),
            3 => format!(
                "{}({one})",
                self.one(&["LOWER", "ToString", "LENGTH", "IS_DEFINED", "MAX", "COUNT", "ABS", "ARRAY_LENGTH"])
            ),
            4 => format!("SUBSTRING({one}, 0, 8)"),
            5 => format!("({one} ?? {other})"),
            6 => format!("({one} = {other} ? {one} : 1)"),
            7 => format!("{one} || {other}"),
            8 => format!("(SELECT VALUE {one})"),
            9 => format!("ARRAY(SELECT VALUE l FROM l IN {one})"),
            10 => format!("({one} {} {other})", self.one(&["+", "=", "<", "AND", "OR", "!="])),
            _ => one,
        }
    }

    fn condition(&mut self) -> String {
        let (one, other) = (self.value(1), self.value(0));
        match self.roll(9) {
            0 => format!("STARTSWITH({one}, {other})"),
            1 => format!("NOT ({one} = {other})"),
            2 => format!("{one} IN ({other}, 1)"),
            3 => format!("{one} BETWEEN 1 AND {other}"),
            4 => format!("{one} LIKE '%1%'"),
            5 => format!("ARRAY_CONTAINS({one}, {other}, true)"),
            6 => format!("EXISTS(SELECT VALUE l FROM l IN {one} WHERE l.price > 3000)"),
            7 => format!("{one} > {other} OR {} = 1", self.value(0)),
            _ => format!("{one} = {other}"),
        }
    }

    /// A query, and its parameters.
    fn query(&mut self) -> (String, Value) {
        let depth = self.roll(3);
        let named =
            |dice: &mut Self, value: String| format!("{value} AS {}", dice.one(&["x", "card", "payload", "id"]));
        let list = match self.roll(8) {
            0 => "*".to_owned(),
            1 => self
                .one(&["c", "VALUE c", "c AS payload", "DISTINCT *", "DISTINCT c.status", "c.id, c AS it"])
                .to_owned(),
            2 => format!("VALUE {}", self.value(depth)),
            3 => {
                let (item, payload) = (self.path(), self.value(0));
                match self.roll(2) {
                    0 => format!("c._rid, [{{\"item\": {item}}}] AS orderByItems, {payload} AS payload"),
                    _ => format!("VALUE {{\"orderByItems\": [{{\"item\": {item}}}], \"payload\": {payload}}}"),
                }
            }
            4 => format!("TOP 3 {}", {
                let value = self.value(depth);
                named(self, value)
            }),
            5 => format!("DISTINCT VALUE {}", self.value(depth)),
            6 => {
                let (one, other) = (self.value(depth), self.path());
                format!("{}, {other}", named(self, one))
            }
            _ => {
                let value = self.value(depth);
                named(self, value)
            }
        };
        let from = match self.roll(12) {
            0 => "FROM c JOIN l IN c.lines".to_owned(),
            1 => format!("FROM l IN {}", self.path()),
            2 => "FROM root c".to_owned(),
            3 => format!("FROM (SELECT VALUE {} FROM c) AS c", self.path()),
            4 => "FROM c.card".to_owned(),
            _ => "FROM c".to_owned(),
        };
        let mut text = format!("SELECT {list} {from}");
        if self.roll(2) == 0 {
            text += &format!(" WHERE {}", self.condition());
        }
        match self.roll(6) {
            0 => text += &format!(" ORDER BY {} {}", self.path(), self.one(&["ASC", "DESC"])),
            1 => text += &format!(" GROUP BY {}", self.path()),
            2 => text += " OFFSET 1 LIMIT 3",
            _ => {}
        }
        let parameters = json!([
            { "name": "@name", "value": self.one(&["card", "secret", "id"]) },
            { "name": "@card", "value": "card" },
            { "name": "@value", "value": self.one(&["open", "secret-w1-0", "secret-w2-3"]) },
        ]);
        (text, parameters)
    }
}

#[tokio::test]
async fn no_token_leaves_where_a_mask_applies() {
    let rig = release::releasing().await;
    let text = "roles: { masked: { grants: [{ container: shop/orders, operations: ['*'], mask: [/secret] }] } }\n\
                bindings: [{ role: masked, workloads: [{ issuer: local, claims: { client_id: [operator, nobody] } }] }]\n";
    let ask =
        async |client: &str| release::ask(&rig, &rig.token(client), "cosmos:///shop/orders", "items/read query").await;
    assert!(members(ask("operator").await.expect(200).json()).contains_key("access_token"));
    fs::write(rig.file("policies/masks.yaml"), text).unwrap();
    rig.server.reload().await;
    for client in ["operator", "nobody"] {
        let refused = ask(client).await.expect(400);
        assert_eq!(refused.json()["error"], "invalid_scope");
        assert!(refused.text().contains("/secret is masked"), "{}", refused.text());
    }
}
