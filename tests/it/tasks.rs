//! What an HTTP Task can say of a request, and how: conditions, partition keys, `Range` and pages. docs/writes.md has the table.

use serde_json::{Value, json};

use crate::rig::{Answer, Call, Rig};

const DOCS: &str = "/dbs/shop/colls/orders/docs";
const LINES: &str = "/dbs/shop/colls/lines/docs";
const KEY: &str = "x-ms-documentdb-partitionkey";
const UPSERT: &str = "x-ms-documentdb-is-upsert";

fn order(id: &str) -> Value {
    json!({ "id": id, "tenant": "t1", "total": 1 })
}

fn item(id: &str) -> String {
    format!("{DOCS}/{id}")
}

fn operator<'a>(rig: &'a Rig, method: &str, path: &str) -> Call<'a> {
    rig.task("operator", method, path)
}

fn etag(answer: &Answer) -> String {
    answer.header("etag").unwrap().to_owned()
}

/// A write's name, and how a client makes it on an item.
type Write = (&'static str, for<'a> fn(&'a Rig, &str, &str) -> Call<'a>);

/// The writes that take a condition, on an item that is there.
const WRITES: [Write; 4] = [
    ("replace", |rig, client, id| rig.task(client, "PUT", &item(id)).partition("t1").json(&order(id))),
    ("upsert", |rig, client, id| {
        rig.task(client, "POST", DOCS).partition("t1").header(UPSERT, "True").json(&order(id))
    }),
    ("patch", |rig, client, id| {
        let patch = json!([{ "op": "incr", "path": "/total", "value": 1 }]);
        rig.task(client, "PATCH", &item(id)).partition("t1").json(&patch)
    }),
    ("delete", |rig, client, id| rig.task(client, "DELETE", &item(id)).partition("t1")),
];

/// Writes an item, and once more: the etag that has moved, and the one that holds.
async fn moved(rig: &Rig, id: &str) -> (String, String) {
    let write = || operator(rig, "POST", DOCS).partition("t1").header(UPSERT, "True").json(&order(id)).send();
    (etag(&write().await), etag(&write().await))
}

#[tokio::test]
async fn a_write_under_an_etag_is_done_only_while_it_holds() {
    let rig = Rig::start().await;
    for (name, write) in WRITES {
        // A workflow says it in a header of its own, an SDK in HTTP's; both may say the same.
        for headers in [&["x-stepgate-if-match"][..], &["if-match"], &["if-match", "x-stepgate-if-match"]] {
            let (stale, current) = moved(&rig, name).await;
            let under = |etag: &str| {
                let call = write(&rig, "operator", name);
                headers.iter().fold(call, |call, header| call.header(header, etag)).send()
            };
            under(&stale).await.refused(412, "cosmos.precondition_failed");
            let read = operator(&rig, "GET", &item(name)).partition("t1").send().await;
            assert_eq!(etag(&read.expect(200)), current, "{name} changed nothing");
            let done = under(&current).await;
            assert!(done.0.status().is_success(), "{name}: {done:?}");
            under(&current).await.expect(if name == "delete" { 404 } else { 412 });
        }
        let (stale, current) = moved(&rig, name).await;
        let two = write(&rig, "operator", name).header("if-match", &stale).header("x-stepgate-if-match", &current);
        two.send().await.refused(400, "request.malformed");
    }
}

#[tokio::test]
async fn a_write_that_is_done_once_keeps_its_condition() {
    let rig = Rig::start().await;
    for (name, write) in WRITES {
        let (stale, current) = moved(&rig, name).await;
        let under = |etag: &str| {
            write(&rig, "once", name).header("idempotency-key", name).header("x-stepgate-if-match", etag).send()
        };
        under(&stale).await.refused(412, "cosmos.precondition_failed");
        let first = under(&current).await;
        assert!(first.0.status().is_success(), "what failed left no marker; {name}: {first:?}");
        let again = under(&current).await.expect(first.status());
        assert_eq!(again.header("x-stepgate-idempotency"), Some("repeated"), "{name}: though the etag has moved since");
        under(&stale).await.refused(400, "idempotency.mismatch");
    }
}

#[tokio::test]
async fn each_answer_tells_the_etag_that_the_next_write_needs() {
    let rig = Rig::start().await;
    let mut call = operator(&rig, "POST", DOCS).partition("t1").json(&order("chain"));
    for (name, write) in [("create", WRITES[0].1)].into_iter().chain(WRITES).chain([("read", WRITES[0].1)]) {
        if name == "delete" {
            call = operator(&rig, "GET", &item("chain")).partition("t1");
            continue;
        }
        let answer = call.send().await;
        assert!(answer.0.status().is_success(), "{name}: {answer:?}");
        let told = etag(&answer);
        assert_eq!(answer.json()["_etag"], told.as_str(), "{name}");
        call = write(&rig, "operator", "chain").header("x-stepgate-if-match", &told);
    }
    let deleted = operator(&rig, "DELETE", &item("chain")).partition("t1").send().await.expect(204);
    assert!(deleted.0.body().is_empty());
}

#[tokio::test]
async fn a_read_is_answered_only_when_the_etag_has_moved() {
    let rig = Rig::start().await;
    let (stale, current) = moved(&rig, "r-1").await;
    for header in ["x-stepgate-if-none-match", "if-none-match"] {
        let read = |etag: &str| operator(&rig, "GET", &item("r-1")).partition("t1").header(header, etag).send();
        let unchanged = read(&current).await.expect(304);
        assert!(unchanged.0.body().is_empty(), "{header}");
        assert_eq!(etag(&read(&stale).await.expect(200)), current, "{header}");
    }
    let two = operator(&rig, "GET", &item("r-1")).header("if-none-match", &stale);
    two.header("x-stepgate-if-none-match", &current).send().await.refused(400, "request.malformed");
}

#[tokio::test]
async fn a_partition_key_stands_in_the_header_or_the_query_or_the_grant() {
    let rig = Rig::start().await;
    let read = |client: &str, query: &str| rig.task(client, "GET", &format!("{}{query}", item("o-1001")));
    let asked = async |call: Call<'_>| {
        let answer = call.send().await.expect(200);
        assert_eq!(answer.json()["tenant"], "t1");
        rig.data_requests().pop().unwrap().partition_key.unwrap()
    };
    for call in [
        read("operator", "").header(KEY, r#"["t1"]"#),
        read("operator", "?partitionKey=t1"),
        read("operator", "?partitionKey=%5B%22t1%22%5D"),
        read("operator", "?partitionKey=t1").header(KEY, r#"["t1"]"#),
        read("fulfilment", ""),
        read("fulfilment", "?partitionKey=t1"),
    ] {
        assert_eq!(asked(call).await, r#"["t1"]"#);
    }
    let before = rig.data_requests().len();
    for call in [
        read("operator", "?partitionKey=t2").header(KEY, r#"["t1"]"#),
        read("operator", "?partitionKey=t1&partitionKey=t1"),
        read("operator", "").header(KEY, "t1"),
        read("operator", "").header(KEY, "[]"),
        // Two tenants are granted, and none is named.
        read("tenants", ""),
    ] {
        call.send().await.refused(400, "request.malformed");
    }
    read("fulfilment", "?partitionKey=t2").send().await.refused(403, "policy.denied");
    assert_eq!(rig.data_requests().len(), before, "none of these was sent");
    asked(read("tenants", "?partitionKey=t1")).await;
    // A point operation of a grant on the whole container must name its key; Cosmos says so.
    read("operator", "").send().await.refused(400, "cosmos.bad_request");
}

#[tokio::test]
async fn the_key_of_the_request_and_the_key_in_the_item_are_one() {
    let rig = Rig::start().await;
    let create =
        |client: &str, tenant: Value| rig.task(client, "POST", DOCS).json(&json!({ "id": "k-1", "tenant": tenant }));
    create("fulfilment", json!("t2")).send().await.refused(422, "cosmos.partition_key_mismatch");
    create("operator", json!("t2")).partition("t1").send().await.refused(422, "cosmos.partition_key_mismatch");
    create("operator", json!(7)).partition("7").send().await.refused(422, "cosmos.partition_key_mismatch");
    create("operator", json!("t2")).partition("t2").send().await.expect(201);
    create("fulfilment", json!("t1")).send().await.expect(201);
}

#[tokio::test]
async fn a_key_is_a_text_a_number_a_boolean_null_or_nothing_at_all() {
    let rig = Rig::start().await;
    let mut items = Vec::new();
    for (id, tenant, header, query) in [
        ("text", Some(json!("123")), r#"["123"]"#, "123"),
        ("number", Some(json!(123)), "[123]", "%5B123%5D"),
        ("boolean", Some(json!(true)), "[true]", "%5Btrue%5D"),
        ("null", Some(Value::Null), "[null]", "%5Bnull%5D"),
        ("none", None, "[{}]", "%5B%7B%7D%5D"),
    ] {
        let mut item = json!({ "id": id });
        if let Some(tenant) = tenant {
            item["tenant"] = tenant;
        }
        operator(&rig, "POST", DOCS).header(KEY, header).json(&item).send().await.expect(201);
        items.push((id, header, query));
    }
    for (id, header, query) in &items {
        let path = item(id);
        operator(&rig, "GET", &path).header(KEY, header).send().await.expect(200);
        operator(&rig, "GET", &format!("{path}?partitionKey={query}")).send().await.expect(200);
        for (other, elsewhere, _) in &items {
            let expected = if other == id { 200 } else { 404 };
            operator(&rig, "GET", &path).header(KEY, elsewhere).send().await.expect(expected);
        }
    }
}

#[tokio::test]
async fn a_hierarchical_key_has_every_level() {
    let rig = Rig::start().await;
    let line = json!({ "id": "l-1", "tenant": "t1", "order": 7 });
    let call = |method: &str, path: &str| rig.task("once", method, path).header("idempotency-key", method);
    call("POST", LINES).header(KEY, r#"["t1",7]"#).json(&line).send().await.expect(201);
    let path = format!("{LINES}/l-1");
    call("GET", &path).header(KEY, r#"["t1",7]"#).send().await.expect(200);
    call("GET", &format!("{path}?partitionKey=%5B%22t1%22%2C7%5D")).send().await.expect(200);
    call("GET", &path).header(KEY, r#"["t1","7"]"#).send().await.refused(404, "cosmos.not_found");
    call("GET", &path).header(KEY, r#"["t1"]"#).send().await.refused(422, "cosmos.partition_key_mismatch");
    let more = format!("{path}?partitionKey=%5B%22t1%22%2C8%5D");
    call("GET", &more).header(KEY, r#"["t1",7]"#).send().await.refused(400, "request.malformed");
    // A grant on the outer level reads items below it, and refuses to look through them.
    let below = |method: &str, path: &str| rig.task("lines", method, path);
    below("GET", &path).header(KEY, r#"["t1",7]"#).send().await.expect(200);
    below("GET", &path).header(KEY, r#"["t2",7]"#).send().await.refused(403, "policy.denied");
    let query = below("POST", LINES).query("SELECT * FROM c").send().await;
    query.refused(403, "policy.prefix_query");
}

#[tokio::test]
async fn a_range_is_no_range_of_an_item() {
    let rig = Rig::start().await;
    let long = json!({ "id": "long", "tenant": "t1", "filler": "x".repeat(1_000) });
    operator(&rig, "POST", DOCS).partition("t1").json(&long).send().await.expect(201);
    // Every HTTP Task sends one; none of them means it.
    for range in ["bytes=0-10", "bytes=0-262144", "bytes=500-", "bytes=9-1", "lines=1-2"] {
        let read = operator(&rig, "GET", &item("long")).partition("t1").set("range", range).send().await.expect(200);
        assert_eq!(read.json()["filler"], long["filler"], "{range}");
        assert_eq!(read.header("content-range"), None, "{range}");
    }
}

/// Follows a feed or a query to its end: the ids on each page.
async fn pages<'a>(ask: impl Fn() -> Call<'a>) -> Vec<Vec<String>> {
    let (mut pages, mut continuation) = (Vec::new(), None::<String>);
    loop {
        let call = continuation.iter().fold(ask(), |call, token| call.header("x-ms-continuation", token));
        let answer = call.send().await.expect(200);
        let page = answer.json();
        let rows = page["Documents"].as_array().unwrap();
        assert_eq!(page["_count"], rows.len(), "the count is of what is there");
        assert!(!answer.text().contains("~stepgate~"), "{}", answer.text());
        pages.push(rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect());
        continuation = answer.header("x-ms-continuation").map(str::to_owned);
        if continuation.is_none() {
            return pages;
        }
        assert!(pages.len() < 100, "the pages end: {pages:?}");
    }
}

#[tokio::test]
async fn pages_lead_from_one_to_the_next_and_hold_no_marker() {
    let rig = Rig::start().await;
    // Each of these leaves a marker in the same partition.
    for n in 0..7 {
        let id = format!("p-{n}");
        let write = rig.task("once", "POST", DOCS).partition("t1").header("idempotency-key", &id);
        write.json(&json!({ "id": id, "tenant": "t1", "total": n })).send().await.expect(201);
    }
    let wanted: Vec<_> = (0..7).map(|n| format!("p-{n}")).collect();
    let feed = || operator(&rig, "GET", DOCS).partition("t1");
    let query = || operator(&rig, "POST", DOCS).partition("t1").query("SELECT * FROM c");
    let sorted = || operator(&rig, "POST", DOCS).partition("t1").query("SELECT * FROM c ORDER BY c._ts DESC");
    for most in ["1", "2", "5", "1000", "-1"] {
        let most_rows = most.parse::<usize>().ok().filter(|most| *most < 1000).unwrap_or(usize::MAX);
        for seen in [
            pages(|| feed().header("x-ms-max-item-count", most)).await,
            pages(|| query().header("x-ms-max-item-count", most)).await,
            pages(|| sorted().header("x-ms-max-item-count", most)).await,
        ] {
            assert!(seen.iter().all(|page| page.len() <= most_rows), "at most {most}: {seen:?}");
            let mut ids: Vec<_> = seen.concat().into_iter().filter(|id| id.starts_with("p-")).collect();
            ids.sort();
            assert_eq!(ids, wanted, "each once, {most} at a time");
        }
    }
}
