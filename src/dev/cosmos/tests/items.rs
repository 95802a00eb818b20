//! What the front adds to the emulator for every caller: dialects, partition key checks, query rules.

use super::*;

const DOCS: &str = "/dbs/shop/colls/orders/docs";
const ONE: &str = "/dbs/shop/colls/orders/docs/1";
const A: (&str, &str) = (header::PARTITION_KEY, r#"["a"]"#);

#[tokio::test]
async fn databases_and_containers_are_made_as_in_cosmos() {
    let stand = Stand::new().await;
    stand.post("/dbs", json!({ "id": "new" })).await.expect(201);
    stand.post("/dbs", json!({ "id": "new" })).await.expect(409);
    let body = json!({ "id": "c", "partitionKey": { "paths": ["/pk"], "kind": "Hash", "version": 2 } });
    stand.post("/dbs/new/colls", body).await.expect(201);
    let made =
        stand.ask(By::Key, "POST", "/dbs/new/colls/c/docs", &[partition("[1]")], json!({ "id": "1", "pk": 1 })).await;
    assert!(made.expect(201).header("etag").is_some());
    stand.post("/dbs/new/users", json!({ "id": "u" })).await.expect(201);
    stand.ask(By::Key, "DELETE", "/dbs/new", &[], Value::Null).await.expect(204);
    stand.post("/dbs", json!({ "id": "new" })).await.expect(201);
    stand.get("/dbs/new/users/u").await.expect(404);
}

#[tokio::test]
async fn items_pass_with_the_headers_of_cosmos() {
    let stand = Stand::new().await;
    let read = stand.ask(By::Key, "GET", ONE, &[A], Value::Null).await.expect(200);
    for name in ["etag", "x-ms-session-token", header::REQUEST_CHARGE, header::ACTIVITY_ID] {
        assert!(read.header(name).is_some(), "{name}");
    }
    let etag = read.header("etag").unwrap();
    let stale = [A, ("if-match", "\"stale\"")];
    let body = json!({ "id": "1", "tenant": "a", "total": 11 });
    stand.ask(By::Key, "PUT", ONE, &stale, body.clone()).await.expect(412);
    stand.ask(By::Key, "PUT", ONE, &[A, ("if-match", etag)], body).await.expect(200);
    stand.ask(By::Key, "GET", "/dbs/shop/colls/orders/docs/none", &[A], Value::Null).await.expect(404);
    stand.ask(By::Key, "GET", "/dbs/shop/colls/none/docs/1", &[A], Value::Null).await.expect(404);
}

#[tokio::test]
async fn a_trailing_slash_changes_nothing() {
    let stand = Stand::new().await;
    stand.ask(By::Key, "GET", &format!("{ONE}/"), &[A], Value::Null).await.expect(200);
    stand.ask(By::Key, "POST", &format!("{DOCS}/"), &[A], json!({ "id": "s", "tenant": "a" })).await.expect(201);
}

#[tokio::test]
async fn patches_come_in_every_dialect() {
    let stand = Stand::new().await;
    let operations = json!([{ "op": "incr", "path": "/total", "value": 1 }]);
    let object = json!({ "operations": operations });
    for (step, (content_type, body)) in [
        ("application/json_patch+json", &object),
        ("application/json-patch+json", &object),
        ("application/json", &object),
        ("application/json", &operations),
        ("", &operations),
        ("", &object),
    ]
    .into_iter()
    .enumerate()
    {
        let headers = [A, ("content-type", content_type)];
        let answer = stand.ask(By::Key, "PATCH", ONE, &headers, body.clone()).await.expect(200);
        assert_eq!(answer.body["total"], 11 + step, "{content_type} {body}");
    }
    let moved = json!([{ "op": "set", "path": "/tenant", "value": "b" }]);
    stand.ask(By::Key, "PATCH", ONE, &[A], moved).await.expect(400);
    let headers = [A, ("content-type", "text/plain")];
    stand.ask(By::Key, "PATCH", ONE, &headers, object).await.expect(400);
}

#[tokio::test]
async fn a_conditional_patch_asks_first() {
    let stand = Stand::new().await;
    let patch = async |id: &str, condition: &str| {
        let operations = json!([{ "op": "incr", "path": "/total", "value": 1 }]);
        let body = json!({ "condition": condition, "operations": operations });
        stand.ask(By::Key, "PATCH", &format!("{DOCS}/{id}"), &[A], body).await
    };
    assert_eq!(patch("1", "from c where c.total = 10").await.expect(200).body["total"], 11);
    assert_eq!(patch("1", "from c where c.total = 10").await.expect(412).substatus(), 1110);
    patch("none", "from c where c.total = 10").await.expect(404);
    patch("2", "from c where c.total = 20").await.expect(404);
    patch("1", "from c where (").await.expect(400);
    assert_eq!(stand.ask(By::Key, "GET", ONE, &[A], Value::Null).await.expect(200).body["total"], 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_conditional_patches_at_once_one_wins() {
    let stand = std::sync::Arc::new(Stand::new().await);
    for total in 10..30 {
        let patches = (0..8).map(|_| {
            let stand = std::sync::Arc::clone(&stand);
            let condition = format!("from c where c.total = {total}");
            let operations = json!([{ "op": "incr", "path": "/total", "value": 1 }]);
            let body = json!({ "condition": condition, "operations": operations });
            tokio::spawn(async move { stand.ask(By::Key, "PATCH", ONE, &[A], body).await.status.as_u16() })
        });
        let mut statuses = Vec::new();
        for patch in patches.collect::<Vec<_>>() {
            statuses.push(patch.await.unwrap());
        }
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 412, 412, 412, 412, 412, 412, 412]);
    }
}

#[tokio::test]
async fn binary_json_is_neither_sent_nor_stored() {
    let stand = Stand::new().await;
    let headers = [A, ("x-ms-cosmos-supported-serialization-formats", "JsonText,CosmosBinary")];
    let answer = stand.ask(By::Key, "GET", ONE, &headers, Value::Null).await.expect(200);
    assert_eq!(answer.body["id"], "1");

    let item = azure_data_cosmos_driver::binary_json::transcode_to_binary(br#"{"id":"bin","tenant":"b"}"#).unwrap();
    let date = stand.date();
    let request = Request::post(format!("http://{}{DOCS}", stand.address))
        .header("authorization", encoded(&signed(WELL_KNOWN_KEY, "POST", DOCS, &date)))
        .header(header::DATE, date)
        .header(header::PARTITION_KEY, r#"["a"]"#)
        .body(Full::new(Bytes::from(item)))
        .unwrap();
    let answer = stand.send(request).await.unwrap().expect(400);
    assert_eq!(answer.substatus(), 1001, "the key in a binary body is checked as well");
}

#[tokio::test]
async fn the_item_and_the_header_must_name_one_partition() {
    let stand = Stand::new().await;
    let foreign = json!({ "id": "x", "tenant": "b" });
    let upsert = [A, (header::UPSERT, "True")];
    for (method, path, headers, body) in [
        ("POST", DOCS, &[A][..], &foreign),
        ("POST", DOCS, &upsert[..], &foreign),
        ("PUT", ONE, &[A][..], &json!({ "id": "1", "tenant": "b" })),
        ("POST", DOCS, &[A][..], &json!({ "id": "x" })),
    ] {
        let answer = stand.ask(By::Key, method, path, headers, body.clone()).await.expect(400);
        assert_eq!(answer.substatus(), 1001, "{method} {body}");
        assert_eq!(answer.body["code"], "BadRequest");
    }
    stand.ask(By::Key, "POST", DOCS, &[partition("[{}]")], json!({ "id": "x" })).await.expect(201);
    stand.ask(By::Key, "POST", DOCS, &[], json!({ "id": "y", "tenant": "a" })).await.expect(400);
    stand.ask(By::Key, "GET", ONE, &[], Value::Null).await.expect(400);
    stand.ask(By::Key, "GET", ONE, &[partition("a")], Value::Null).await.expect(400);
    let answer = stand.ask(By::Key, "GET", ONE, &[partition(r#"["a","b"]"#)], Value::Null).await.expect(400);
    assert_eq!(answer.substatus(), 1001);
}

#[tokio::test]
async fn queries_say_which_partitions_they_want() {
    let stand = Stand::new().await;
    let ask = async |headers: &[(&str, &str)], query: &str| {
        let headers: Vec<_> = QUERY.iter().chain(headers).copied().collect();
        stand.ask(By::Key, "POST", DOCS, &headers, json!({ "query": query })).await
    };
    let all = "SELECT * FROM c ORDER BY c.total";
    assert_eq!(ask(&[A], all).await.expect(200).body["_count"], 1);
    assert_eq!(ask(&[(header::CROSS_PARTITION, "true")], all).await.expect(200).body["_count"], 2);
    assert!(ask(&[], all).await.expect(400).message().starts_with("Cross partition query is required but disabled."));
    ask(&[], "SELECT * FROM c WHERE c.tenant = 'a'").await.expect(200);
    ask(&[A], "SELEKT").await.expect(400);
    let plain = [("x-ms-documentdb-isquery", "True"), ("content-type", "application/json"), A];
    stand.ask(By::Key, "POST", DOCS, &plain, json!({ "query": all })).await.expect(400);
}

#[tokio::test]
async fn the_outer_part_of_a_key_is_no_partition() {
    let stand = Stand::new().await;
    let docs = "/dbs/shop/colls/deep/docs";
    let headers: Vec<_> = QUERY.iter().copied().chain([A]).collect();
    let answer = stand.ask(By::Key, "POST", docs, &headers, json!({ "query": "SELECT * FROM c" })).await.expect(400);
    assert_eq!(answer.substatus(), 1001);
    stand.ask(By::Key, "GET", docs, &[A], Value::Null).await.expect(400);
}

#[tokio::test]
async fn a_batch_stays_in_one_partition() {
    let stand = Stand::new().await;
    let headers = [A, (header::BATCH, "True"), ("x-ms-cosmos-batch-atomic", "True")];
    let upsert = |tenant: &str, key: &str| json!({ "operationType": "Upsert", "resourceBody": { "id": "b", "tenant": tenant }, "partitionKey": key });
    let batch = async |operation: Value| stand.ask(By::Key, "POST", DOCS, &headers, json!([operation])).await;
    assert_eq!(batch(upsert("a", r#"["a"]"#)).await.expect(200).body[0]["statusCode"], 201);
    batch(upsert("b", r#"["b"]"#)).await.expect(400);
    batch(upsert("b", r#"["a"]"#)).await.expect(400);
    batch(json!({ "operationType": "Delete", "id": "1", "partitionKey": ["b"] })).await.expect(400);
    let failing = json!([{ "operationType": "Delete", "id": "1" }, { "operationType": "Create", "resourceBody": { "id": "b", "tenant": "a" } }]);
    let answer = stand.ask(By::Key, "POST", DOCS, &headers, failing).await.expect(207);
    let statuses: Vec<&Value> = answer.body.as_array().unwrap().iter().map(|result| &result["statusCode"]).collect();
    assert_eq!(statuses, [424, 409]);
    stand.ask(By::Key, "GET", ONE, &[A], Value::Null).await.expect(200);
}

#[tokio::test]
async fn a_procedure_answers_with_its_arguments() {
    let stand = Stand::new().await;
    let path = "/dbs/shop/colls/orders/sprocs";
    stand.post(path, json!({ "id": "new", "body": "function () {}" })).await.expect(201);
    stand.post(path, json!({ "id": "new", "body": "function () {}" })).await.expect(409);
    let answer = stand.ask(By::Key, "POST", &format!("{path}/new"), &[A], json!([1, "two"])).await.expect(200);
    assert_eq!(answer.body, json!([1, "two"]));
    stand.ask(By::Key, "POST", &format!("{path}/none"), &[A], json!([])).await.expect(404);
    stand.ask(By::Key, "POST", &format!("{path}/new"), &[], json!([])).await.expect(400);
    stand.post("/dbs/shop/colls/none/sprocs", json!({ "id": "new", "body": "" })).await.expect(404);
}

#[tokio::test]
async fn a_batch_may_patch() {
    let stand = Stand::new().await;
    let batch =
        async |operations: Value| stand.ask(By::Key, "POST", DOCS, &[A, (header::BATCH, "True")], operations).await;
    let incr = |by: u32| json!([{ "op": "incr", "path": "/total", "value": by }]);
    let patch = |id: &str, body: Value| json!({ "operationType": "Patch", "id": id, "resourceBody": body });
    let answer = batch(json!([
        { "operationType": "Create", "resourceBody": { "id": "3", "tenant": "a", "total": 0 } },
        patch("1", json!({ "operations": incr(1), "condition": "from c where c.total = 10" })),
        patch("1", incr(2)),
        patch("3", json!({ "operations": incr(5) })),
    ]))
    .await
    .expect(200);
    let totals: Vec<_> = answer.body.as_array().unwrap().iter().map(|r| r["resourceBody"]["total"].clone()).collect();
    assert_eq!(totals, [0, 11, 13, 5]);
    let failing = [
        (patch("none", incr(1)), 404),
        (patch("1", json!({ "operations": incr(1), "condition": "from c where c.total = 0" })), 412),
        (patch("1", json!([{ "op": "remove", "path": "/none" }])), 400),
    ];
    for (operation, status) in failing {
        let answer = batch(json!([patch("3", incr(1)), operation])).await.expect(207);
        assert_eq!((&answer.body[0]["statusCode"], &answer.body[1]["statusCode"]), (&json!(424), &json!(status)));
    }
    assert_eq!(stand.ask(By::Key, "GET", &format!("{DOCS}/3"), &[A], Value::Null).await.expect(200).body["total"], 5);
}
