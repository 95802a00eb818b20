//! What passes between the gateway and Cosmos: narrow tokens, few mints, and never the account key on data.

use futures_util::future::join_all;
use http::{Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};
use stepgate::{
    dev::cosmos::{Authorization, WELL_KNOWN_KEY},
    exchange::{AccountKey, ToSign},
};

use crate::rig::Rig;

const DOCS: &str = "/dbs/shop/colls/orders/docs";

#[tokio::test]
async fn data_travels_under_resource_tokens_and_the_key_only_mints() {
    let rig = Rig::start().await;
    let item = format!("{DOCS}/o-1001");
    rig.task("fulfilment", "GET", &item).send().await.expect(200);
    rig.task("fulfilment", "PUT", &item).json(&json!({"id": "o-1001", "tenant": "t1"})).send().await.expect(200);
    rig.task("auditor", "POST", DOCS).query("SELECT * FROM c").partition("t2").send().await.expect(200);
    rig.task("operator", "POST", "/dbs/shop/colls/orders/sprocs/settle").partition("t1").json(&json!([])).send().await;
    rig.sdk("fulfilment", "GET", "/dbs/shop/colls/orders").send().await.expect(200);
    rig.sdk("fulfilment", "GET", "/dbs/shop/colls/orders/pkranges").send().await.expect(200);

    let recorded = rig.cosmos().recorded();
    for request in &recorded {
        let expected = match request.resource_type.as_str() {
            "users" | "permissions" => Authorization::Master,
            _ => Authorization::Resource,
        };
        assert_eq!(request.authorization, expected, "{request:?}");
    }
    assert_eq!(recorded.iter().filter(|r| r.authorization == Authorization::Resource).count(), 6);
    // A reader's token cannot write, whatever its role may do: each request has the mode it needs.
    let permissions: Vec<_> = rig.data_requests().into_iter().map(|request| request.permission.unwrap()).collect();
    assert_ne!(permissions[0], permissions[1], "reading and writing are two permissions");
}

/// A request signed with the account key, as only the broker should ever send.
async fn signed(rig: &Rig, method: Method, kind: &str, link: &str, path: &str, body: Value) -> Value {
    let date = stepgate::clock::Clock::System.now().http_date();
    let key = AccountKey::from_base64(WELL_KNOWN_KEY).unwrap();
    let authorization = ToSign { method: &method, resource_type: kind, link, date: &date }.authorization(&key);
    let request = Request::builder()
        .method(method)
        .uri(format!("{}{path}", rig.stack.cosmos.url()))
        .header("authorization", authorization)
        .header("x-ms-date", &date)
        .header("x-ms-version", "2020-07-15")
        .body(Full::from(body.to_string()));
    let answer = rig.exchange(request.unwrap()).await;
    serde_json::from_slice(answer.body()).unwrap()
}

#[tokio::test]
async fn cosmos_itself_holds_a_token_to_its_partition_and_mode() {
    let rig = Rig::start().await;
    rig.task("fulfilment", "GET", &format!("{DOCS}/o-1001")).send().await.expect(200);
    let user = rig.data_requests()[0].permission.clone().unwrap().split_once('/').unwrap().0.to_owned();
    let link = format!("dbs/shop/users/{user}/permissions/{user}");
    // The gateway never hands a token out, so this one is read with the account key.
    let permission = signed(&rig, Method::GET, "permissions", &link, &format!("/{link}"), json!({})).await;
    assert_eq!(permission["permissionMode"], "Read");
    assert_eq!(permission["resource"].as_str().unwrap().trim_end_matches('/'), "dbs/shop/colls/orders");
    assert_eq!(permission["resourcePartitionKey"], json!(["t1"]));

    let token = permission["_token"].as_str().unwrap();
    let token: String = url::form_urlencoded::byte_serialize(token.as_bytes()).collect();
    let ask = async |method: &str, id: &str, tenant: &str| {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{DOCS}/{id}", rig.stack.cosmos.url()))
            .header("authorization", &token)
            .header("x-ms-date", stepgate::clock::Clock::System.now().http_date())
            .header("x-ms-version", "2020-07-15")
            .header("x-ms-documentdb-partitionkey", format!("[\"{tenant}\"]"));
        rig.exchange(request.body(Full::default()).unwrap()).await.status().as_u16()
    };
    assert_eq!(ask("GET", "o-1001", "t1").await, 200);
    assert_eq!(ask("GET", "o-2001", "t2").await, 403, "another partition");
    assert_eq!(ask("DELETE", "o-1001", "t1").await, 403, "another mode");
}

#[tokio::test]
async fn two_hundred_first_requests_are_one_mint() {
    let rig = Rig::start().await;
    let token = rig.token("fulfilment");
    let call = || rig.call("GET", &format!("{DOCS}/o-1001")).of_task().bearer(&token).send();
    let answers = join_all((0..200).map(|_| call())).await;
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status() != 200).collect();
    assert!(refused.is_empty(), "{} refused: {:?}", refused.len(), refused[0]);
    assert_eq!(rig.mints(), 1);
    let reads =
        rig.cosmos().recorded().iter().filter(|r| r.resource_type == "permissions" && r.method == "GET").count();
    assert_eq!(reads, 1);
}

#[tokio::test]
async fn values_in_a_request_never_cost_a_mint() {
    let rig = Rig::start().await;
    for n in 0..20 {
        let path = format!("{DOCS}/o-{n}");
        rig.task("auditor", "GET", &path).partition(&format!("t{n}")).send().await.refused(404, "cosmos.not_found");
    }
    assert_eq!(rig.mints(), 1, "the grant is on the container, so one token serves every partition");
}

#[tokio::test]
async fn a_restart_finds_its_permissions_and_leaves_no_orphans() {
    let rig = Rig::start().await;
    let item = format!("{DOCS}/o-1001");
    rig.task("fulfilment", "GET", &item).send().await.expect(200);
    let users = signed(&rig, Method::GET, "users", "dbs/shop", "/dbs/shop/users", json!({})).await;
    let rig = rig.restart().await;
    rig.task("fulfilment", "GET", &item).send().await.expect(200);
    let after = signed(&rig, Method::GET, "users", "dbs/shop", "/dbs/shop/users", json!({})).await;
    assert_eq!((users["_count"].as_u64(), after["_count"].as_u64()), (Some(1), Some(1)));
}
