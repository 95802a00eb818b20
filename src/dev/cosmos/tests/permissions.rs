use super::*;

const USERS: &str = "/dbs/shop/users";
const PERMISSIONS: &str = "/dbs/shop/users/u/permissions";
const UPSERT: [(&str, &str); 1] = [(header::UPSERT, "True")];

fn permission(id: &str, resource: &str) -> Value {
    json!({ "id": id, "permissionMode": "Read", "resource": resource })
}

async fn with_user() -> Stand {
    let stand = Stand::new().await;
    stand.post(USERS, json!({ "id": "u" })).await.expect(201);
    stand
}

#[tokio::test]
async fn users_come_and_go() {
    let stand = Stand::new().await;
    let made = stand.post(USERS, json!({ "id": "u" })).await.expect(201);
    assert_eq!(made.body["_permissions"], "permissions/");
    assert!(made.header(header::REQUEST_CHARGE).is_some() && made.header(header::ACTIVITY_ID).is_some());
    stand.post(USERS, json!({ "id": "u" })).await.expect(409);
    stand.ask(By::Key, "POST", USERS, &UPSERT, json!({ "id": "u" })).await.expect(200);
    stand.ask(By::Key, "POST", USERS, &UPSERT, json!({ "id": "v" })).await.expect(201);
    stand.ask(By::Key, "PUT", "/dbs/shop/users/v", &[], json!({ "id": "u" })).await.expect(409);
    stand.ask(By::Key, "PUT", "/dbs/shop/users/v", &[], json!({ "id": "w" })).await.expect(200);
    stand.get("/dbs/shop/users/v").await.expect(404);
    let list = stand.get(USERS).await.expect(200);
    let ids: Vec<&Value> = list.body["Users"].as_array().unwrap().iter().map(|user| &user["id"]).collect();
    assert_eq!(ids, ["u", "w"]);
    assert_eq!(list.body["_count"], 2);
    stand.ask(By::Key, "DELETE", "/dbs/shop/users/u", &[], Value::Null).await.expect(204);
    stand.ask(By::Key, "DELETE", "/dbs/shop/users/u", &[], Value::Null).await.expect(404);
    stand.post("/dbs/nowhere/users", json!({ "id": "u" })).await.expect(404);
    for id in ["", "a/b", "a?b", "a#b", "a\\b", &"x".repeat(256)] {
        stand.post(USERS, json!({ "id": id })).await.expect(400);
    }
    let query = json!({ "query": "SELECT * FROM root" });
    stand.ask(By::Key, "POST", USERS, &QUERY, query).await.expect(400);
    assert!(stand.get("/dbs/other/users").await.body["Users"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn feeds_come_in_pages() {
    let stand = Stand::new().await;
    for id in ["a", "b", "c"] {
        stand.post(USERS, json!({ "id": id })).await.expect(201);
    }
    let page = stand.ask(By::Key, "GET", USERS, &[(header::MAX_ITEM_COUNT, "2")], Value::Null).await.expect(200);
    assert_eq!(page.body["_count"], 2);
    let next = page.header(header::CONTINUATION).unwrap().to_owned();
    let headers = [(header::MAX_ITEM_COUNT, "2"), (header::CONTINUATION, next.as_str())];
    let page = stand.ask(By::Key, "GET", USERS, &headers, Value::Null).await.expect(200);
    assert_eq!(page.body["Users"][0]["id"], "c");
    assert_eq!(page.header(header::CONTINUATION), None);
}

#[tokio::test]
async fn every_answer_of_a_permission_has_a_fresh_token() {
    let stand = with_user().await;
    let one = format!("{PERMISSIONS}/p");
    let body = permission("p", "dbs/shop/colls/orders");
    let answers = [
        stand.post(PERMISSIONS, body.clone()).await.expect(201).body,
        stand.get(&one).await.expect(200).body,
        stand.ask(By::Key, "PUT", &one, &[], body.clone()).await.expect(200).body,
        stand.ask(By::Key, "POST", PERMISSIONS, &UPSERT, body).await.expect(200).body,
        stand.get(PERMISSIONS).await.expect(200).body["Permissions"][0].clone(),
    ];
    let mut tokens: Vec<&str> = answers.iter().map(|body| body["_token"].as_str().unwrap()).collect();
    assert!(tokens.iter().all(|token| token.starts_with("type=resource&ver=1&sig=") && token.ends_with(';')));
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!(tokens.len(), 5);
    assert_eq!(answers[0]["resource"], "dbs/shop/colls/orders");
    let (first, last) = (answers[0]["_self"].as_str().unwrap(), answers[4]["_self"].as_str().unwrap());
    assert_eq!(first, last);
    assert_eq!(stand.cosmos.mints().into_values().sum::<u64>(), 5);
    stand.ask(By::Key, "DELETE", &one, &[], Value::Null).await.expect(204);
    stand.get(&one).await.expect(404);
    stand.ask(By::Key, "DELETE", &one, &[], Value::Null).await.expect(404);
}

#[tokio::test]
async fn a_user_has_one_permission_for_a_resource() {
    let stand = with_user().await;
    let orders = "dbs/shop/colls/orders";
    stand.post(PERMISSIONS, permission("p", orders)).await.expect(201);
    stand.post(PERMISSIONS, permission("p", "dbs/shop/colls/deep")).await.expect(409);
    let mut keyed = permission("q", orders);
    keyed["resourcePartitionKey"] = json!(["a"]);
    stand.post(PERMISSIONS, keyed.clone()).await.expect(409);
    stand.ask(By::Key, "POST", PERMISSIONS, &UPSERT, keyed).await.expect(409);
    stand.post(PERMISSIONS, permission("q", "dbs/shop/colls/deep/")).await.expect(201);
    let one = format!("{PERMISSIONS}/q");
    stand.ask(By::Key, "PUT", &one, &[], permission("q", orders)).await.expect(409);
    stand.ask(By::Key, "PUT", &one, &[], permission("p", "dbs/shop/colls/deep")).await.expect(409);
    stand.ask(By::Key, "PUT", &one, &[], permission("r", "dbs/shop/colls/deep")).await.expect(200);
    stand.get(&one).await.expect(404);
    stand.post(USERS, json!({ "id": "v" })).await.expect(201);
    stand.post("/dbs/shop/users/v/permissions", permission("p", orders)).await.expect(201);
    stand.post("/dbs/shop/users/nobody/permissions", permission("p", orders)).await.expect(404);
}

#[tokio::test]
async fn a_permission_is_checked() {
    let stand = with_user().await;
    let link = |link: &str| {
        format!(
            "The input Resource link '{link}' is invalid. Ensure to provide a valid resource link of size lesser than '256' characters."
        )
    };
    for resource in [
        "dbs/shop",
        "dbs/other/colls/orders",
        "colls/orders",
        "dbs/shop/colls/orders/docs",
        &format!("dbs/shop/colls/{}", "x".repeat(242)),
    ] {
        let answer = stand.post(PERMISSIONS, permission("p", resource)).await.expect(400);
        assert_eq!(answer.message(), link(resource));
    }
    stand.post(PERMISSIONS, permission("p", "dbs/shop/colls/nowhere")).await.expect(404);
    for (name, value) in [("permissionMode", json!("all")), ("permissionMode", json!("Write")), ("id", json!("a/b"))] {
        let mut body = permission("p", "dbs/shop/colls/orders");
        body[name] = value;
        stand.post(PERMISSIONS, body).await.expect(400);
    }
    for name in ["id", "permissionMode", "resource"] {
        let mut body = permission("p", "dbs/shop/colls/orders");
        body.as_object_mut().unwrap().remove(name);
        stand.post(PERMISSIONS, body).await.expect(400);
    }
    for key in [json!("a"), json!([]), json!(["a", "b"]), json!({ "tenant": "a" }), json!(null), json!([["a"]])] {
        let mut body = permission("p", "dbs/shop/colls/orders");
        body["resourcePartitionKey"] = key;
        let answer = stand.post(PERMISSIONS, body).await.expect(400);
        assert_eq!(answer.message(), "Partition key supplied is not valid.");
    }
    stand.post(PERMISSIONS, permission("p", "dbs/shop/colls/orders/docs/1")).await.expect(201);
}

#[tokio::test]
async fn a_token_lives_for_600_to_86400_seconds() {
    let stand = with_user().await;
    stand.post(PERMISSIONS, permission("p", "dbs/shop/colls/orders")).await.expect(201);
    let one = format!("{PERMISSIONS}/p");
    let read = async |seconds: &str| stand.ask(By::Key, "GET", &one, &[(header::EXPIRY, seconds)], Value::Null).await;
    assert_eq!(read("599").await.expect(400).message(), r#"{"Errors":["One of the specified inputs is invalid"]}"#);
    for seconds in ["86401", "soon"] {
        let text = format!("Value '{seconds}' specified for the header 'x-ms-documentdb-expiry-seconds' is invalid.");
        assert_eq!(read(seconds).await.expect(400).message(), text);
    }
    read("86400").await.expect(200);
    let short = read("600").await.expect(200).body["_token"].as_str().unwrap().to_owned();
    let usual = stand.get(&one).await.body["_token"].as_str().unwrap().to_owned();
    let used =
        async |token: &str| stand.ask(By::Header(token), "GET", "/dbs/shop/colls/orders", &[], Value::Null).await;
    stand.advance(1500);
    used(&short).await.expect(200);
    stand.advance(1);
    let expired = used(&short).await.expect(403);
    assert_eq!(
        expired.message(),
        "The authorization token is not valid at the current time. Please create another token and retry (token start \
         time: Sun, 22 Nov 2026 19:29:22 GMT, token expiry time: Sun, 22 Nov 2026 19:39:22 GMT, current server time: \
         Sun, 22 Nov 2026 19:54:23 GMT)."
    );
    assert_eq!(expired.substatus(), 0);
    stand.advance(3600 + 900 - 1501);
    used(&usual).await.expect(200);
    stand.advance(1);
    used(&usual).await.expect(403);
}

#[tokio::test]
async fn users_and_permissions_are_throttled_beyond_240_units_a_second() {
    let stand = Stand::new().await;
    let mut made = 0;
    let throttled = loop {
        let answer = stand.post("/dbs/shop/users", json!({ "id": format!("u{made}") })).await;
        if answer.status != 201 {
            break answer.expect(429);
        }
        made += 1;
    };
    // 240 units and what the last one took beyond them, at 4.95 each.
    assert_eq!((made, throttled.substatus()), (49, 3210));
    assert_eq!(throttled.headers["x-ms-retry-after-ms"], "11");
    stand.ask(By::Key, "GET", "/dbs/shop", &[], Value::Null).await.expect(200);
    stand.clock.advance(Duration::from_millis(11));
    stand.post("/dbs/shop/users", json!({ "id": "later" })).await.expect(201);
    let usage = stand.cosmos.master_usage();
    assert!((usage.request_units - 50.0 * 4.95).abs() < 1e-6 && usage.throttled == 1, "{usage:?}");
}
