//! The table of what a token can do, a row at a time, for each kind of token.

use super::*;

const CONTAINER: &str = "/dbs/shop/colls/orders";
const DOCS: &str = "/dbs/shop/colls/orders/docs";
const A: (&str, &str) = (header::PARTITION_KEY, r#"["a"]"#);
const B: (&str, &str) = (header::PARTITION_KEY, r#"["b"]"#);

/// The four kinds of token that the table has columns for.
struct Tokens {
    all: String,
    read: String,
    partition: String,
    item: String,
}

async fn tokens(stand: &Stand) -> Tokens {
    let resource = "dbs/shop/colls/orders";
    let make = async |mode: &str, resource: &str, key: Option<&str>| {
        let mut body = json!({ "permissionMode": mode, "resource": resource });
        if let Some(key) = key {
            body["resourcePartitionKey"] = json!([key]);
        }
        stand.token(body).await
    };
    Tokens {
        all: make("All", resource, None).await,
        read: make("Read", resource, None).await,
        partition: make("All", resource, Some("a")).await,
        item: make("All", &format!("{resource}/docs/1"), Some("a")).await,
    }
}

/// Asks once with each token; `allowed` says in the order all, read, partition, item what may pass. What passes may still
/// be answered with any status but 401 and 403.
async fn row(stand: &Stand, allowed: [bool; 4], method: &str, path: &str, headers: &[(&str, &str)], body: Value) {
    let tokens = tokens(stand).await;
    let columns = [&tokens.all, &tokens.read, &tokens.partition, &tokens.item];
    for (column, (token, allowed)) in columns.into_iter().zip(allowed).enumerate() {
        let answer = stand.ask(By::Header(token), method, path, headers, body.clone()).await;
        if allowed {
            let status = answer.status.as_u16();
            assert!(
                !matches!(status, 400 | 401 | 403 | 500..),
                "{method} {path} column {column}: {status} {}",
                answer.body
            );
        } else {
            answer.expect_denied();
        }
    }
}

const EVERY: [bool; 4] = [true, true, true, true];
const NONE: [bool; 4] = [false, false, false, false];
const CONTAINER_WIDE: [bool; 4] = [true, true, false, false];

fn with<'a>(headers: &[(&'a str, &'a str)], more: (&'a str, &'a str)) -> Vec<(&'a str, &'a str)> {
    headers.iter().copied().chain([more]).collect()
}

#[tokio::test]
async fn metadata() {
    let stand = Stand::new().await;
    for path in ["/", CONTAINER, "/dbs/shop/colls/orders/pkranges"] {
        row(&stand, EVERY, "GET", path, &[], Value::Null).await;
    }
    for path in [
        "/dbs",
        "/dbs/shop",
        "/dbs/shop/colls",
        "/dbs/shop/colls/deep",
        "/dbs/shop/colls/deep/pkranges",
        "/dbs/other/colls/orders",
        "/dbs/shop/users",
        "/dbs/shop/users/u0",
        "/dbs/shop/users/u0/permissions",
        "/dbs/shop/users/u0/permissions/p",
        "/offers",
    ] {
        row(&stand, NONE, "GET", path, &[], Value::Null).await;
    }
    row(&stand, NONE, "DELETE", CONTAINER, &[], Value::Null).await;
    row(&stand, NONE, "PUT", CONTAINER, &[], json!({ "id": "orders" })).await;
    row(&stand, NONE, "POST", "/dbs", &[], json!({ "id": "new" })).await;
    row(&stand, NONE, "POST", "/dbs/shop/users", &[], json!({ "id": "new" })).await;
    row(&stand, NONE, "POST", "/dbs/shop/colls/orders/sprocs", &[], json!({ "id": "new", "body": "" })).await;
}

#[tokio::test]
async fn point_reads() {
    let stand = Stand::new().await;
    row(&stand, EVERY, "GET", "/dbs/shop/colls/orders/docs/1", &[A], Value::Null).await;
    row(&stand, CONTAINER_WIDE, "GET", "/dbs/shop/colls/orders/docs/2", &[B], Value::Null).await;
    row(&stand, [true, true, true, false], "GET", "/dbs/shop/colls/orders/docs/2", &[A], Value::Null).await;
    row(&stand, NONE, "GET", "/dbs/shop/colls/deep/docs/1", &[A], Value::Null).await;
    row(&stand, NONE, "GET", "/dbs/other/colls/orders/docs/1", &[A], Value::Null).await;
    let locked = tokens(&stand).await.partition;
    let path = "/dbs/shop/colls/orders/docs/2";
    for key in ["", "[]", r#"["a","b"]"#, r#"[["a"]]"#] {
        let answer = stand.ask(By::Header(&locked), "GET", path, &[(header::PARTITION_KEY, key)], Value::Null).await;
        assert!(!answer.status.is_success(), "{key}");
    }
}

#[tokio::test]
async fn creates_and_upserts() {
    let stand = Stand::new().await;
    let item = |tenant: &str| json!({ "id": "1", "tenant": tenant });
    row(&stand, [true, false, true, false], "POST", DOCS, &[A], item("a")).await;
    row(&stand, [true, false, false, false], "POST", DOCS, &[B], item("b")).await;
    let upsert = [A, (header::UPSERT, "true")];
    row(&stand, [true, false, true, false], "POST", DOCS, &upsert, item("a")).await;
}

#[tokio::test]
async fn replaces_patches_deletes() {
    let stand = Stand::new().await;
    let one = "/dbs/shop/colls/orders/docs/1";
    let writers = [true, false, true, true];
    row(&stand, writers, "PUT", one, &[A], json!({ "id": "1", "tenant": "a" })).await;
    row(&stand, writers, "PATCH", one, &[A], json!([{ "op": "set", "path": "/v", "value": 1 }])).await;
    row(&stand, writers, "DELETE", one, &[A], Value::Null).await;
    let two = "/dbs/shop/colls/orders/docs/2";
    row(&stand, [true, false, false, false], "PUT", two, &[B], json!({ "id": "2", "tenant": "b" })).await;
    row(&stand, [true, false, false, false], "DELETE", two, &[B], Value::Null).await;
}

#[tokio::test]
async fn queries() {
    let stand = Stand::new().await;
    let all = json!({ "query": "SELECT * FROM c", "parameters": [] });
    row(&stand, [true, true, true, false], "POST", DOCS, &with(&QUERY, A), all.clone()).await;
    row(&stand, CONTAINER_WIDE, "POST", DOCS, &with(&QUERY, B), all.clone()).await;
    let cross = with(&QUERY, (header::CROSS_PARTITION, "True"));
    row(&stand, CONTAINER_WIDE, "POST", DOCS, &cross, all.clone()).await;
    let epks = with(&with(&QUERY, (header::START_EPK, "00")), (header::END_EPK, "FF"));
    for range in
        [with(&QUERY, (header::RANGE_ID, "0")), with(&epks, (header::READ_KEY_TYPE, "EffectivePartitionKeyRange"))]
    {
        row(&stand, CONTAINER_WIDE, "POST", DOCS, &with(&range, A), all.clone()).await;
    }
    let plan = with(&QUERY, (header::QUERY_PLAN, "True"));
    row(&stand, [true, true, true, false], "POST", DOCS, &plan, all.clone()).await;
    row(&stand, CONTAINER_WIDE, "POST", DOCS, &with(&plan, B), all).await;
}

#[tokio::test]
async fn a_partition_token_sees_only_its_partition() {
    let stand = Stand::new().await;
    let tokens = tokens(&stand).await;
    let all = json!({ "query": "SELECT * FROM c" });
    let answer = stand.ask(By::Header(&tokens.partition), "POST", DOCS, &with(&QUERY, A), all).await.expect(200);
    assert_eq!(answer.body["_count"], 1);
    assert_eq!(answer.body["Documents"][0]["tenant"], "a");
}

#[tokio::test]
async fn feeds() {
    let stand = Stand::new().await;
    row(&stand, CONTAINER_WIDE, "GET", DOCS, &[], Value::Null).await;
    row(&stand, [true, true, true, false], "GET", DOCS, &[A], Value::Null).await;
    let change = [("a-im", "Incremental Feed")];
    row(&stand, CONTAINER_WIDE, "GET", DOCS, &change, Value::Null).await;
    row(&stand, [true, true, true, false], "GET", DOCS, &with(&change, A), Value::Null).await;
    row(&stand, CONTAINER_WIDE, "GET", DOCS, &with(&change, (header::RANGE_ID, "0")), Value::Null).await;
}

#[tokio::test]
async fn batches() {
    let stand = Stand::new().await;
    let batch = [(header::BATCH, "True"), ("x-ms-cosmos-batch-atomic", "True")];
    let read = json!([{ "operationType": "Read", "id": "1" }]);
    row(&stand, [true, false, true, false], "POST", DOCS, &with(&batch, A), read.clone()).await;
    row(&stand, [true, false, false, false], "POST", DOCS, &with(&batch, B), read).await;
    let locked = tokens(&stand).await.partition;
    for key in [json!(["b"]), json!(r#"["b"]"#)] {
        let body = json!([{ "operationType": "Read", "id": "1" }, { "operationType": "Delete", "id": "2", "partitionKey": key }]);
        stand.ask(By::Header(&locked), "POST", DOCS, &with(&batch, A), body).await.expect_denied();
    }
    let body = json!([{ "operationType": "Read", "id": "1", "partitionKey": r#"["a"]"# }]);
    stand.ask(By::Header(&locked), "POST", DOCS, &with(&batch, A), body).await.expect(200);
    stand.ask(By::Header(&locked), "POST", DOCS, &with(&batch, A), json!("x")).await.expect(400);
}

#[tokio::test]
async fn procedures() {
    let stand = Stand::new().await;
    let path = "/dbs/shop/colls/orders/sprocs/echo";
    row(&stand, [true, false, true, false], "POST", path, &[A], json!([1])).await;
    row(&stand, [true, false, false, false], "POST", path, &[B], json!([1])).await;
}

#[tokio::test]
async fn hierarchical_keys() {
    let stand = Stand::new().await;
    let docs = "/dbs/shop/colls/deep/docs";
    let prefix = stand
        .token(json!({ "permissionMode": "All", "resource": "dbs/shop/colls/deep", "resourcePartitionKey": ["a"] }))
        .await;
    let whole = stand
        .token(
            json!({ "permissionMode": "All", "resource": "dbs/shop/colls/deep", "resourcePartitionKey": ["a", "x"] }),
        )
        .await;
    let ask = async |token: &str, method: &str, path: &str, headers: &[(&str, &str)], body: Value| {
        stand.ask(By::Header(token), method, &format!("{docs}{path}"), headers, body).await
    };
    let (ax, ay, bx) = (partition(r#"["a","x"]"#), partition(r#"["a","y"]"#), partition(r#"["b","x"]"#));
    ask(&prefix, "GET", "/1", &[ax], Value::Null).await.expect(200);
    ask(&prefix, "GET", "/2", &[ay], Value::Null).await.expect(200);
    ask(&prefix, "POST", "", &[ay], json!({ "id": "9", "tenant": "a", "user": "y" })).await.expect(201);
    ask(&prefix, "GET", "/3", &[bx], Value::Null).await.expect_denied();
    ask(&whole, "GET", "/1", &[ax], Value::Null).await.expect(200);
    ask(&whole, "GET", "/2", &[ay], Value::Null).await.expect_denied();
    ask(&whole, "GET", "/2", &[partition(r#"["a"]"#)], Value::Null).await.expect_denied();
    let query = json!({ "query": "SELECT * FROM c" });
    let short = with(&QUERY, partition(r#"["a"]"#));
    ask(&prefix, "POST", "", &short, query.clone()).await.expect_denied();
    ask(&prefix, "GET", "", &[partition(r#"["a"]"#)], Value::Null).await.expect_denied();
    let found = ask(&whole, "POST", "", &with(&QUERY, ax), query.clone()).await.expect(200);
    assert_eq!(found.body["_count"], 1);
    ask(&whole, "POST", "", &with(&QUERY, ay), query).await.expect_denied();
}

#[tokio::test]
async fn a_token_outlives_its_permission_but_not_its_container() {
    let stand = Stand::new().await;
    let token = tokens(&stand).await.all;
    let read = async || stand.ask(By::Header(&token), "GET", "/dbs/shop/colls/orders/docs/1", &[A], Value::Null).await;
    stand.ask(By::Key, "DELETE", "/dbs/shop/users/u0", &[], Value::Null).await.expect(204);
    read().await.expect(200);
    stand.ask(By::Key, "DELETE", CONTAINER, &[], Value::Null).await.expect(204);
    let again = json!({ "id": "orders", "partitionKey": { "paths": ["/tenant"], "kind": "Hash", "version": 2 } });
    stand.post("/dbs/shop/colls", again).await.expect(201);
    read().await.expect_denied();
}

#[tokio::test]
async fn a_wildcard_item_opens_nothing() {
    let stand = Stand::new().await;
    let token = stand.token(json!({ "permissionMode": "All", "resource": "dbs/shop/colls/orders/docs/*" })).await;
    stand.ask(By::Header(&token), "GET", "/dbs/shop/colls/orders/docs/1", &[A], Value::Null).await.expect_denied();
}

#[tokio::test]
async fn declared_expiry_ends_every_token() {
    let stand = Stand::new().await;
    let token = tokens(&stand).await.all;
    stand.cosmos.expire_tokens();
    let answer = stand.ask(By::Header(&token), "GET", CONTAINER, &[], Value::Null).await.expect(403);
    assert!(answer.message().starts_with("The authorization token is not valid at the current time."));
    let token = tokens(&stand).await.all;
    stand.ask(By::Header(&token), "GET", CONTAINER, &[], Value::Null).await.expect(200);
}
