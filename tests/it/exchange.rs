//! What passes between the gateway and Cosmos: narrow tokens, few mints, and never the account key on data.

use futures_util::future::join_all;
use http::{Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};
use stepgate::{
    dev::cosmos::{Authorization, Effect, Fault, On, WELL_KNOWN_KEY},
    exchange::{AccountKey, ToSign},
};

use crate::rig::{ADMIN_TOKEN, Rig, soon};

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

    // What the account allows is asked with the key too, and reads no data.
    let recorded: Vec<_> = rig.cosmos().recorded().into_iter().filter(|request| request.path != "/").collect();
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

#[tokio::test]
async fn three_gateways_that_start_at_once_make_each_scope_once_and_fail_nobody() {
    let rig = Rig::start().await;
    let (one, other) = tokio::join!(rig.try_another(), rig.try_another());
    let (one, other) = (one.unwrap(), other.unwrap());
    let item = format!("{DOCS}/o-1001");
    let read = async |server| {
        for client in ["fulfilment", "tenants", "operator"] {
            let call = || rig.task(client, "GET", &item).partition("t1").at(server);
            for answer in join_all((0..20).map(|_| call().send())).await {
                answer.expect(200);
            }
        }
    };
    tokio::join!(read(&rig.server), read(&one), read(&other));

    let users = signed(&rig, Method::GET, "users", "dbs/shop", "/dbs/shop/users", json!({})).await;
    let users = users["Users"].as_array().unwrap();
    assert_eq!(users.len(), 3, "one for each scope");
    for user in users {
        let link = format!("dbs/shop/users/{}", user["id"].as_str().unwrap());
        let path = format!("/{link}/permissions");
        let permissions = signed(&rig, Method::GET, "permissions", &link, &path, json!({})).await;
        assert_eq!(permissions["_count"], 1, "{permissions}");
        assert_eq!(permissions["Permissions"][0]["id"], user["id"]);
    }
    assert_eq!(rig.cosmos().master_usage().throttled, 0);
}

#[tokio::test]
async fn traffic_goes_on_while_nothing_can_be_minted() {
    let rig = Rig::start().await;
    let item = format!("{DOCS}/o-1001");
    let read = async || rig.task("fulfilment", "GET", &item).send().await;
    let ready = async || rig.admin("GET", "/readyz", None).await;
    read().await.expect(200);
    rig.cosmos().add_fault(Fault::once(Effect::Unavailable).times(1_000_000).on(On::Permissions));
    rig.admin("POST", "/reload", Some(ADMIN_TOKEN)).await;
    let (code, body) = ready().await;
    assert_eq!(code, 200);
    assert!(
        body.contains(r#""status":"degraded""#) && body.contains("Cosmos answered a mint with status 503"),
        "{body}"
    );
    for _ in 0..20 {
        read().await.expect(200);
    }
    rig.task("tenants", "GET", &item).partition("t1").send().await.refused(503, "credential.unavailable");

    rig.cosmos().clear_faults();
    soon(async || ready().await.1.contains(r#""status":"ready""#).then_some(())).await;
    rig.task("tenants", "GET", &item).partition("t1").send().await.expect(200);
}

/// A budget of ten units a second gives one new scope a second; the account itself never has to say no.
#[tokio::test]
async fn a_burst_of_new_scopes_is_spread_over_the_budget() {
    let rig = Rig::with(|raw| {
        let credential = json!({
            "kind": "resource_token",
            "account_key": {"kind": "file", "path": "emulator-account-key"},
            "metadata_units_per_second": 20,
        });
        raw.cosmos.credential = serde_json::from_value(credential).unwrap();
    });
    let rig = rig.await;
    let began = std::time::Instant::now();
    let item = format!("{DOCS}/o-1001");
    let query = |client| rig.task(client, "POST", DOCS).query("SELECT * FROM c").partition("t1").send();
    let read = |client| rig.task(client, "GET", &item).partition("t1").send();
    let (a, b, c, d, e) = tokio::join!(
        read("fulfilment"),
        read("tenants"),
        read("operator"),
        query("auditor"),
        rig.task("operator", "DELETE", &item).partition("t1").send()
    );
    for answer in [a, b, c, d] {
        assert!(matches!(answer.status(), 200 | 404), "{answer:?}");
    }
    e.expect(204);
    // Five scopes at some eleven units each, of which twenty were there at once.
    let spent = rig.cosmos().master_usage().request_units;
    assert!(
        began.elapsed().as_secs_f64() > (spent - 2.0 * 20.0) / 20.0 && spent > 50.0,
        "{spent} {:?}",
        began.elapsed()
    );
    let (_, metrics) = rig.admin("GET", "/metrics", None).await;
    assert!(metrics.contains(&format!("stepgate_metadata_request_units_total {spent:.1}")), "{spent} {metrics}");
}

#[tokio::test]
async fn a_query_that_only_a_whole_key_allows_is_told_so_and_costs_no_mint() {
    let rig = Rig::start().await;
    // The grant fixes the first of the container's two levels, and the request names neither.
    let query = || rig.task("lines", "POST", "/dbs/shop/colls/lines/docs").query("SELECT * FROM c").send();
    for _ in 0..10 {
        query().await.refused(403, "policy.prefix_query");
    }
    assert_eq!(rig.mints(), 1);
    // A token that is old is another matter, and is found to be one.
    rig.cosmos().expire_tokens();
    query().await.refused(403, "policy.prefix_query");
    assert_eq!(rig.mints(), 1, "what the container's key is was known by then");
}
