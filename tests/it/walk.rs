//! Every operation of the data plane goes through, and nothing but what it needs reaches Cosmos.

use serde_json::{Value, json};
use stepgate::dev::cosmos::Operation;

const DOCS: &str = "/dbs/shop/colls/orders/docs";

fn order(id: &str) -> Value {
    json!({ "id": id, "tenant": "t1", "status": "new", "total": 7 })
}

#[tokio::test]
async fn an_item_lives_its_whole_life() {
    let rig = super::start().await;
    let item = format!("{DOCS}/o-1");
    let call = |method: &str, path: &str| rig.task("fulfilment", method, path);

    let created = call("POST", DOCS).json(&order("o-1")).send().await.expect(201);
    assert_eq!(created.json()["id"], "o-1");
    for header in ["etag", "x-ms-request-charge", "x-ms-session-token", "x-ms-activity-id"] {
        assert!(created.header(header).is_some(), "{header} is passed through");
    }
    assert_eq!(created.header("x-ms-activity-id"), created.header("x-stepgate-request-id"), "logs can be joined");

    let upserted = call("POST", DOCS).header("x-ms-documentdb-is-upsert", "true").json(&order("o-1")).send().await;
    upserted.expect(200);
    let read = call("GET", &item).send().await.expect(200);
    assert_eq!(read.json()["status"], "new");

    let paid = json!({ "id": "o-1", "tenant": "t1", "status": "paid", "total": 7 });
    let replaced =
        call("PUT", &item).header("x-stepgate-if-match", read.header("etag").unwrap()).json(&paid).send().await;
    let etag = replaced.expect(200).header("etag").unwrap().to_owned();
    let stale = call("PUT", &item).header("x-stepgate-if-match", read.header("etag").unwrap()).json(&paid).send().await;
    stale.refused(412, "cosmos.precondition_failed");
    call("GET", &item).header("x-stepgate-if-none-match", &etag).send().await.expect(304);

    let set = |value: i32| json!([{ "op": "set", "path": "/total", "value": value }]);
    call("PATCH", &item).json(&json!({ "operations": set(8) })).send().await.expect(200);
    let bare = call("PATCH", &item).header("content-type", "application/json_patch+json").json(&set(9)).send().await;
    assert_eq!(bare.expect(200).json()["total"], 9);
    let conditional = json!({ "condition": "FROM c WHERE c.total = 1", "operations": set(10) });
    call("PATCH", &item).json(&conditional).send().await.refused(412, "cosmos.precondition_failed");

    call("DELETE", &item).send().await.expect(204);
    call("GET", &item).send().await.refused(404, "cosmos.not_found");
    call("POST", DOCS).json(&order("o-1001")).send().await.refused(409, "cosmos.conflict");
    let mismatch = json!({ "id": "o-9", "tenant": "t2" });
    call("POST", DOCS).json(&mismatch).send().await.refused(422, "cosmos.partition_key_mismatch");
}

#[tokio::test]
async fn queries_and_feeds_run() {
    let rig = super::start().await;
    let call = |method: &str| rig.task("fulfilment", method, DOCS);
    let query =
        json!({ "query": "SELECT * FROM c WHERE c.status = @s", "parameters": [{ "name": "@s", "value": "paid" }] });
    for content in ["application/query+json", "application/json"] {
        let call = call("POST").header("x-ms-documentdb-isquery", "True").header("content-type", content);
        let answer = call.json(&query).send().await.expect(200).json();
        let ids: Vec<&Value> = answer["Documents"].as_array().unwrap().iter().map(|item| &item["id"]).collect();
        assert_eq!(ids, ["o-1001"], "its own tenant only, under {content}");
    }
    let feed = call("GET").send().await.expect(200).json();
    assert_eq!(feed["_count"], 2);
    let changes = call("GET").header("a-im", "Incremental feed").send().await.expect(200).json();
    assert_eq!(changes["_count"], 2, "the change feed from the beginning");

    let plan = call("POST")
        .header("x-ms-cosmos-is-query-plan-request", "True")
        .header("x-ms-cosmos-supported-query-features", "Aggregate, OrderBy")
        .header("x-ms-cosmos-query-version", "1.4")
        .query("SELECT * FROM c ORDER BY c.total");
    plan.send().await.expect(200);
    let whole = rig.task("auditor", "POST", DOCS).header("x-ms-documentdb-query-enablecrosspartition", "True");
    assert_eq!(whole.query("SELECT * FROM c").send().await.expect(200).json()["_count"], 3, "every tenant");
}

#[tokio::test]
async fn a_batch_is_one_or_nothing() {
    let rig = super::start().await;
    let create = |id: &str| json!({ "operationType": "Create", "resourceBody": order(id) });
    let good =
        json!([create("b-1"), { "operationType": "Read", "id": "o-1001" }, { "operationType": "Delete", "id": "b-1" }]);
    let bad = json!([create("b-2"), create("o-1001"), create("b-3")]);
    let headers = [("x-ms-cosmos-is-batch-request", "True"), ("x-ms-cosmos-batch-atomic", "True")];
    let task = || headers.iter().fold(rig.task("fulfilment", "POST", DOCS), |call, (n, v)| call.header(n, v));
    let sdk = || headers.iter().fold(rig.sdk("fulfilment", "POST", DOCS), |call, (n, v)| call.header(n, v));

    let done = task().json(&good).send().await.expect(200).json();
    let statuses: Vec<&Value> = done.as_array().unwrap().iter().map(|result| &result["statusCode"]).collect();
    assert_eq!(statuses, [&json!(201), &json!(200), &json!(204)]);

    let failed = task().json(&bad).send().await.refused(424, "cosmos.batch_failed");
    assert!(failed.json()["detail"].as_str().unwrap().starts_with("operation 1 of the batch failed with 409"));
    let failed = sdk().json(&bad).send().await.expect(207).json();
    let statuses: Vec<&Value> = failed.as_array().unwrap().iter().map(|result| &result["statusCode"]).collect();
    assert_eq!(statuses, [&json!(424), &json!(409), &json!(424)], "an SDK reads the results itself");
    rig.task("fulfilment", "GET", &format!("{DOCS}/b-2")).send().await.expect(404);
}

#[tokio::test]
async fn a_stored_procedure_runs_where_it_is_granted() {
    let rig = super::start().await;
    let path = "/dbs/shop/colls/orders/sprocs/settle";
    let run = |client: &str| rig.task(client, "POST", path).partition("t1").json(&json!(["o-1001", 3]));
    assert_eq!(run("operator").send().await.expect(200).json(), json!(["o-1001", 3]));
    run("fulfilment").send().await.refused(403, "policy.denied");
}

#[tokio::test]
async fn metadata_names_the_gateway_and_nothing_behind_it() {
    let rig = super::start().await;
    let container = rig.sdk("fulfilment", "GET", "/dbs/shop/colls/orders").send().await.expect(200);
    assert_eq!(container.json()["partitionKey"]["paths"], json!(["/tenant"]));
    let ranges = rig.sdk("fulfilment", "GET", "/dbs/shop/colls/orders/pkranges").send().await.expect(200);
    assert_eq!(ranges.json()["PartitionKeyRanges"].as_array().unwrap().len(), 1);
    rig.task("ledger", "GET", "/dbs/shop/colls/orders").send().await.refused(403, "policy.denied");

    let account = rig.sdk("fulfilment", "GET", "/").send().await.expect(200);
    let own = format!("{}/", rig.server.gateway_url());
    let account_document = account.json();
    for list in ["writableLocations", "readableLocations"] {
        let places = account_document[list].as_array().unwrap();
        assert_eq!(places.len(), 1);
        assert_eq!(places[0]["databaseAccountEndpoint"], own.as_str());
    }
    let cosmos = rig.stack.cosmos.address.to_string();
    assert!(!account.text().contains(&cosmos), "no client can go round the gateway");

    let metadata = rig.call("GET", "/.well-known/oauth-protected-resource");
    let metadata =
        rig.exchange(http::Request::get(metadata.url()).body(http_body_util::Full::default()).unwrap()).await;
    let metadata: Value = serde_json::from_slice(metadata.body()).unwrap();
    assert_eq!(metadata["authorization_servers"], json!([rig.issuer().url()]));
    let head = rig.call("HEAD", "/.well-known/oauth-protected-resource").send().await.expect(200);
    assert_eq!((head.header("content-type"), head.text()), (Some("application/json"), String::new()));
    let posted = rig.call("POST", "/.well-known/oauth-protected-resource").send().await.expect(405);
    assert_eq!((posted.header("allow"), posted.header("x-stepgate-request-id").is_some()), (Some("GET, HEAD"), true));
}

#[tokio::test]
async fn only_what_is_needed_reaches_cosmos() {
    let rig = super::start().await;
    rig.task("fulfilment", "GET", &format!("{DOCS}/o-1001")).send().await.expect(200);
    rig.task("fulfilment", "GET", &format!("{DOCS}/o-1001?partitionKey=t1")).send().await.expect(200);
    let asked = rig.data_requests();
    assert_eq!(asked.len(), 2);
    for request in asked {
        assert_eq!(request.operation, Some(Operation::Read));
        assert_eq!(request.partition_key.as_deref(), Some(r#"["t1"]"#), "filled in where the request names none");
        assert_eq!(request.status, 200, "Range was dropped");
    }
}

#[tokio::test]
async fn what_is_no_operation_is_refused_and_denied() {
    let rig = super::start().await;
    for (method, path) in [
        ("GET", "/dbs"),
        ("GET", "/dbs/shop"),
        ("DELETE", "/dbs/shop/colls/orders"),
        ("POST", "/dbs/shop/colls"),
        ("GET", "/dbs/shop/users"),
        ("GET", "/dbs/shop/colls/orders/sprocs"),
        ("POST", "/dbs/shop/colls/orders/triggers"),
        ("GET", "/offers"),
        ("GET", "/nowhere"),
    ] {
        let task = rig.task("operator", method, path).send().await.refused(400, "request.unknown_operation");
        assert_eq!(rig.outcome(&task).decision.unwrap().verdict, stepgate::audit::Verdict::Deny);
        rig.sdk("operator", method, path).send().await.refused(404, "request.unknown_operation");
    }
    assert!(rig.asked_for_callers().is_empty(), "none of them reached Cosmos");
}
