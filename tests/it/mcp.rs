//! `/mcp`: agents find tools that read, behind the same walk.

use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use stepgate::{
    audit::{Phase, UserAgentKind, Verdict},
    config::Raw,
    dev::{
        cosmos::Operation,
        issuer::{Mint, MintKey},
    },
};

use crate::rig::{Answer, Call, EXECUTION, Rig, members};

/// An execution of the state machine that the reporter is bound to.
const REPORT: &str = "arn:aws:states:us-east-1:111122223333:execution:ReportDaily:run-1";

async fn with_mcp(change: impl FnOnce(&mut Raw)) -> Rig {
    super::with(|raw| {
        raw.mcp.enabled = true;
        change(raw);
    })
    .await
}

fn post<'a>(rig: &'a Rig, method: &str, params: &Value) -> Call<'a> {
    rig.call("POST", "/mcp")
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", "2025-06-18")
        .json(&json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }))
}

fn tool<'a>(rig: &'a Rig, name: &str, arguments: &Value) -> Call<'a> {
    post(rig, "tools/call", &json!({ "name": name, "arguments": arguments }))
}

/// What a tool says, and the answer it came in.
async fn call(rig: &Rig, client: &str, name: &str, arguments: &Value) -> (Value, Answer) {
    let answer = tool(rig, name, arguments).token(client).send().await.expect(200);
    (answer.json()["result"].clone(), answer)
}

/// The same, where it is carried out.
async fn told(rig: &Rig, client: &str, name: &str, arguments: &Value) -> (Value, Answer) {
    let (result, answer) = call(rig, client, name, arguments).await;
    assert_eq!(result["isError"], false, "{result}");
    let text: Value = serde_json::from_str(result["content"][0]["text"].as_str().unwrap()).unwrap();
    assert_eq!(text, result["structuredContent"], "the same as text and as structure");
    assert_eq!(text["request_id"], answer.request_id().as_str());
    (text, answer)
}

/// The same, where it is refused: the sentence with its code.
async fn refused(rig: &Rig, client: &str, name: &str, arguments: &Value) -> (String, Answer) {
    let (result, answer) = call(rig, client, name, arguments).await;
    assert_eq!(result["isError"], true, "{result}");
    let (text, structure) = (result["content"][0]["text"].as_str().unwrap(), &result["structuredContent"]);
    let ends = format!("({} {})", structure["status"], structure["error"].as_str().unwrap());
    assert!(text.ends_with(&ends), "{text}");
    (text.to_owned(), answer)
}

fn read(id: &str, key: Value) -> Value {
    json!({ "container": "shop/orders", "id": id, "partition_key": key })
}

#[tokio::test]
async fn an_agent_finds_four_tools_that_read() {
    let rig = with_mcp(|_| {}).await;
    let hello =
        json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } });
    let welcome = post(&rig, "initialize", &hello).token("fulfilment").send().await.expect(200);
    assert!(welcome.header("mcp-session-id").is_none(), "nothing is kept between two requests");
    let welcome = welcome.json();
    assert_eq!(welcome["result"]["serverInfo"]["name"], "stepgate");
    assert_eq!(welcome["result"]["capabilities"], json!({ "tools": {} }));

    let listed = post(&rig, "tools/list", &json!({})).token("fulfilment").send().await.expect(200).json();
    let tools = listed["result"]["tools"].as_array().unwrap();
    let names: Vec<&str> = tools.iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["list_containers", "read_item", "query_items", "explain_access"]);
    for tool in tools {
        assert_eq!(
            (&tool["annotations"]["readOnlyHint"], &tool["inputSchema"]["type"]),
            (&json!(true), &json!("object"))
        );
        assert_eq!(tool["inputSchema"]["additionalProperties"], false);
    }
    let discovered = json!({ "_meta": {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": { "name": "t", "version": "1" },
        "io.modelcontextprotocol/clientCapabilities": {},
    } });
    let discovered = post(&rig, "server/discover", &discovered)
        .set("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", "server/discover");
    let discovered = discovered.token("fulfilment").send().await.expect(200).json();
    assert!(
        discovered["result"]["supportedVersions"].as_array().unwrap().contains(&json!("2026-07-28")),
        "{discovered}"
    );
    for method in ["GET", "DELETE"] {
        rig.call(method, "/mcp").token("fulfilment").send().await.expect(405);
    }
    assert!(rig.asked_for_callers().is_empty(), "Cosmos was not asked");
}

#[tokio::test]
async fn what_is_granted_is_read() {
    let rig = with_mcp(|_| {}).await;
    let (item, answer) = told(&rig, "fulfilment", "read_item", &read("o-1001", json!(["t1"]))).await;
    assert_eq!((&item["item"]["id"], &item["item"]["total"]), (&json!("o-1001"), &json!(42.5)));
    assert!(item["etag"].is_string() && item["request_charge"].as_f64().unwrap() > 0.0, "{item}");

    let entry = rig.outcome(&answer);
    assert_eq!(entry.user_agent, UserAgentKind::Mcp);
    assert_eq!(entry.question.action.unwrap().as_str(), "items/read");
    assert_eq!(entry.question.item.unwrap().as_str(), "o-1001");
    assert_eq!(entry.decision.unwrap().verdict, Verdict::Allow);
    assert_eq!(
        entry.upstream.unwrap().activity_id.as_deref(),
        Some(&*answer.request_id()),
        "Azure's log can be joined"
    );

    let filled_in = json!({ "container": "shop/orders", "id": "o-1002" });
    let (item, _) = told(&rig, "fulfilment", "read_item", &filled_in).await;
    assert_eq!(item["item"]["tenant"], "t1", "policy fixes the partition");

    let query = json!({
        "container": "shop/orders", "query": "SELECT * FROM c WHERE c.status = @s", "parameters": [{ "name": "@s", "value": "paid" }],
    });
    let ids = |page: &Value| -> Vec<String> {
        let items = page["items"].as_array().unwrap().iter();
        let mut ids: Vec<String> = items.map(|item| item["id"].as_str().unwrap().to_owned()).collect();
        ids.sort();
        ids
    };
    let (own, answer) = told(&rig, "fulfilment", "query_items", &query).await;
    assert_eq!(ids(&own), ["o-1001"], "its own tenant alone");
    assert_eq!(rig.outcome(&answer).question.partition_key.unwrap().to_string(), r#"["t1"]"#);
    let (all, _) = told(&rig, "auditor", "query_items", &query).await;
    assert_eq!(ids(&all), ["o-1001", "o-2001"], "every tenant's");
    let asked = rig.data_requests();
    assert!(asked.iter().all(|request| matches!(request.operation, Some(Operation::Read | Operation::Query))));
}

#[tokio::test]
async fn pages_go_on_where_they_ended() {
    let rig = with_mcp(|_| {}).await;
    let mut arguments =
        json!({ "container": "shop/orders", "query": "SELECT c.id FROM c", "partition_key": ["t1"], "max_items": 1 });
    let mut seen = Vec::new();
    loop {
        let (page, _) = told(&rig, "auditor", "query_items", &arguments).await;
        assert!(page["items"].as_array().unwrap().len() <= 1, "{page}");
        seen.extend(page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()));
        match page.get("continuation") {
            Some(continuation) => arguments["continuation"] = continuation.clone(),
            None => break,
        }
    }
    assert_eq!(seen, ["o-1001", "o-1002"]);
}

#[tokio::test]
async fn what_policy_refuses_is_a_tools_error_and_a_record() {
    let rig = with_mcp(|_| {}).await;
    let ledger = json!({ "container": "finance/ledger", "id": "l-1", "partition_key": ["2026-11"] });
    let (text, answer) = refused(&rig, "fulfilment", "read_item", &ledger).await;
    assert_eq!(text, "No grant allows items/read on finance/ledger to local/fulfilment. (403 policy.denied)");
    let entry = rig.outcome(&answer);
    assert_eq!((entry.user_agent, entry.decision.unwrap().verdict), (UserAgentKind::Mcp, Verdict::Deny));
    assert_eq!(entry.answer.unwrap().error.as_deref(), Some("policy.denied"));

    let (text, _) = refused(&rig, "fulfilment", "read_item", &read("o-2001", json!(["t2"]))).await;
    assert!(text.contains(r#"partition key ["t2"] is not the token's tenant ["t1"]"#), "{text}");
    let vault = json!({ "container": "shop/vault", "query": "SELECT * FROM c" });
    let (text, _) = refused(&rig, "operator", "query_items", &vault).await;
    assert!(text.starts_with("the-vault-is-shut denies query on shop/vault"), "{text}");
    assert!(rig.data_requests().is_empty() && rig.mints() == 0, "nothing of it went further");

    let (text, _) = refused(&rig, "fulfilment", "read_item", &read("o-none", json!(["t1"]))).await;
    assert!(text.ends_with("(404 cosmos.not_found)"), "{text}");
}

#[tokio::test]
async fn what_an_agent_holds_is_listed_and_explained_to_it_alone() {
    let rig = with_mcp(|_| {}).await;
    let (held, answer) = told(&rig, "fulfilment", "list_containers", &json!({})).await;
    let operations = [
        "items/read",
        "items/create",
        "items/upsert",
        "items/replace",
        "items/patch",
        "items/delete",
        "query",
        "feed",
        "batch",
    ];
    let containers = json!([
        { "container": "shop/orders", "operations": operations, "partition_key": ["t1"] },
        { "container": "shop/audit", "operations": ["items/create"], "partition_key": ["t1"] },
    ]);
    let mut listed = held["containers"].as_array().unwrap().clone();
    for entry in &mut listed {
        let mut words: Vec<String> = serde_json::from_value(entry["operations"].take()).unwrap();
        words.sort_by_key(|word| operations.iter().position(|known| known == word));
        entry["operations"] = json!(words);
    }
    assert_eq!((json!(listed), &held["globs"], &held["complete"]), (containers, &json!([]), &json!(true)));
    let entry = rig.outcome(&answer);
    assert_eq!(entry.question.action.unwrap().as_str(), "grants");
    assert_eq!((entry.decision.unwrap().verdict, entry.user_agent), (Verdict::Allow, UserAgentKind::Mcp));

    let (text, answer) = refused(&rig, "nobody", "list_containers", &json!({})).await;
    assert_eq!(text, "No grant is held by local/nobody. (403 policy.denied)");
    assert_eq!(rig.outcome(&answer).decision.unwrap().verdict, Verdict::Deny);

    let ask = |operation: &str, container: &str, key: Value| json!({ "operation": operation, "container": container, "partition_key": key });
    let (said, answer) =
        told(&rig, "fulfilment", "explain_access", &ask("items/read", "shop/orders", Value::Null)).await;
    assert_eq!((&said["decision"], &said["because"]), (&json!("allow"), &json!(["order-writer"])));
    assert_eq!(
        said["sentence"],
        r#"order-writer grants items/read on shop/orders in partition ["t1"] to local/fulfilment."#
    );
    assert_eq!(said["partition_key"], json!(["t1"]));
    let entry = rig.outcome(&answer);
    assert_eq!(entry.question.action.unwrap().as_str(), "explain");
    assert_eq!(entry.question.container.unwrap().to_string(), "shop/orders");
    assert_eq!(entry.question.batch[0].operation.as_str(), "items/read");

    let (said, answer) =
        told(&rig, "fulfilment", "explain_access", &ask("query", "finance/ledger", json!("2026-11"))).await;
    assert_eq!(said["decision"], "deny");
    assert_eq!(said["sentence"], "No grant allows query on finance/ledger to local/fulfilment.");
    assert_eq!(rig.outcome(&answer).decision.unwrap().verdict, Verdict::Deny);
    let (said, _) = told(&rig, "tenants", "explain_access", &ask("query", "shop/orders", Value::Null)).await;
    assert!(said["sentence"].as_str().unwrap().contains(r#"["t1"], ["t2"]"#), "{said}");
    assert!(rig.data_requests().is_empty() && rig.mints() == 0, "policy alone was asked");
}

#[tokio::test]
async fn nobody_but_a_workload_is_let_in() {
    let rig = with_mcp(|_| {}).await;
    let metadata = format!("{}/.well-known/oauth-protected-resource/mcp", rig.server.gateway_url());
    for (method, params) in [
        ("initialize", json!({})),
        ("tools/list", json!({})),
        ("tools/call", json!({ "name": "read_item", "arguments": read("o-1001", json!(["t1"])) })),
    ] {
        let forged =
            rig.mint(Mint { key: MintKey::Rogue, claims: members(json!({ "sub": "fulfilment" })), ..Mint::default() });
        let nothing = post(&rig, method, &params).send().await.expect(401);
        let challenge = nothing.header("www-authenticate").unwrap();
        assert!(challenge.starts_with(&format!("Bearer resource_metadata=\"{metadata}\"")), "{challenge}");
        post(&rig, method, &params).bearer(&forged).send().await.refused(401, "identity.invalid_token");
        post(&rig, method, &params).header("x-stepgate-token", "forged").send().await.expect(401);
        let human = post(&rig, method, &params).token("alice").send().await.refused(403, "identity.human");
        let entry = rig.outcome(&human);
        assert_eq!((entry.user_agent, entry.decision.unwrap().verdict), (UserAgentKind::Mcp, Verdict::Reject));
    }
    let refusals = rig.records().into_iter().filter(|record| record.entry.phase == Phase::Refusal);
    assert!(refusals.count() > 0, "refusals of the unknown are recorded too");
    let revoked = json!({ "issuer": "local", "client": "fulfilment" }).to_string();
    let (status, _) = rig.admin_of(&rig.server, "POST", "/revoke", Some(crate::rig::ADMIN_TOKEN), &revoked).await;
    assert_eq!(status, 200);
    post(&rig, "tools/list", &json!({})).token("fulfilment").send().await.refused(403, "identity.revoked");
    assert!(rig.data_requests().is_empty());

    for (path, below) in [("oauth-protected-resource/mcp", "mcp"), ("oauth-protected-resource", "")] {
        let url = format!("{}/.well-known/{path}", rig.server.gateway_url());
        let answer = rig.exchange(Request::get(url).body(Full::default()).unwrap()).await;
        let document: Value = serde_json::from_slice(answer.body()).unwrap();
        assert_eq!(document["resource"], format!("{}/{below}", rig.server.gateway_url()));
        assert_eq!(document["authorization_servers"], json!([rig.issuer().url()]));
    }
}

#[tokio::test]
async fn a_strange_page_or_name_is_turned_away_before_anything_is_read() {
    let rig = with_mcp(|raw| {
        raw.mcp.allowed_hosts = Some(vec!["127.0.0.1".into()]);
        raw.mcp.allowed_origins = Some(vec!["https://agents.example".into()]);
    })
    .await;
    let list = || post(&rig, "tools/list", &json!({})).token("fulfilment");
    list().send().await.expect(200);
    list().header("origin", "https://agents.example").send().await.expect(200);
    for origin in ["https://evil.example", "null", "http://localhost:3000", "https://agents.example.evil.example"] {
        let refused = list().header("origin", origin).send().await.expect(403);
        assert!(refused.text().contains("mcp.allowed_origins"), "{}", refused.text());
        post(&rig, "tools/list", &json!({})).header("origin", origin).send().await.expect(403);
    }
    for host in ["evil.example", "localhost", "127.0.0.1.evil.example"] {
        let refused = list().set("host", host).send().await.expect(403);
        assert!(refused.text().contains("mcp.allowed_hosts"), "{}", refused.text());
    }
    let rig = with_mcp(|_| {}).await;
    let list = || post(&rig, "tools/list", &json!({})).token("fulfilment");
    list().header("origin", "http://localhost:6274").send().await.expect(200);
    list().header("origin", "https://evil.example").send().await.expect(403);
    list().set("host", "localhost:1").send().await.expect(200);
    list().set("host", "rebound.example").send().await.expect(403);
}

#[tokio::test]
async fn it_is_off_unless_the_configuration_says_otherwise() {
    let rig = super::start().await;
    let off = post(&rig, "tools/list", &json!({})).token("fulfilment").send().await;
    off.refused(404, "request.unknown_operation");
    let metadata = rig.call("GET", "/.well-known/oauth-protected-resource/mcp").token("fulfilment").send().await;
    metadata.refused(404, "request.unknown_operation");
}

#[tokio::test]
async fn bodies_and_arguments_have_their_bounds() {
    let rig = with_mcp(|raw| raw.limits.request_body = bytesize::ByteSize::kib(64)).await;
    let large = json!({ "container": "shop/orders", "query": "x".repeat(65 * 1024) });
    let large = tool(&rig, "query_items", &large).token("fulfilment").send().await;
    let large = large.refused(413, "cosmos.item_too_large");
    assert_eq!(rig.outcome(&large).answer.unwrap().status, 413);

    for (name, arguments, says) in [
        ("read_item", json!({ "container": "shop/orders" }), "missing field `id`"),
        ("read_item", json!({ "container": "shop/orders", "id": "" }), "a name is empty"),
        ("read_item", json!({ "container": "shop/orders", "id": ".." }), "`.` and `..` are not names"),
        ("read_item", json!({ "container": "shop/orders", "id": "a/../../x" }), "a character that Cosmos forbids"),
        ("read_item", json!({ "container": "orders", "id": "a" }), "write it as database/container"),
        ("read_item", json!({ "container": "shop/orders", "id": "~stepgate~x" }), "the gateway's own"),
        ("read_item", json!({ "container": "shop/orders", "id": "a", "upsert": true }), "unknown field `upsert`"),
        ("read_item", read("a", json!([])), "`partition_key`"),
        ("query_items", json!({ "container": "shop/orders", "query": 7 }), "invalid type"),
        (
            "query_items",
            json!({ "container": "shop/orders", "query": "SELECT * FROM c", "max_items": 0 }),
            "from 1 to 1000",
        ),
        (
            "query_items",
            json!({ "container": "shop/orders", "query": "SELECT * FROM c", "continuation": "a\nb" }),
            "`continuation`",
        ),
        ("explain_access", json!({ "operation": "read", "container": "shop/orders" }), "`read` is not an operation"),
        ("explain_access", json!({ "operation": "query", "container": "shop/*" }), "without `*`"),
        ("list_containers", json!({ "of": "auditor" }), "unknown field `of`"),
    ] {
        let (text, answer) = refused(&rig, "fulfilment", name, &arguments).await;
        assert!(text.contains(says) && text.ends_with("(400 request.malformed)"), "{name} {arguments}: {text}");
        assert_eq!(rig.outcome(&answer).decision.unwrap().verdict, Verdict::Reject);
    }
    let (_, answer) =
        refused(&rig, "fulfilment", "query_items", &json!({ "container": "shop/orders", "query": "nonsense" })).await;
    assert_eq!(rig.outcome(&answer).answer.unwrap().error.as_deref(), Some("cosmos.bad_request"));
    let unknown = tool(&rig, "delete_item", &json!({})).token("fulfilment").send().await.expect(200);
    assert_eq!(unknown.json()["error"]["code"], -32602, "{}", unknown.text());
    assert_eq!(rig.outcome(&unknown).decision.unwrap().verdict, Verdict::Reject);
    assert!(rig.data_requests().iter().all(|request| request.operation == Some(Operation::Query)));
}

#[tokio::test]
async fn an_agent_that_says_its_execution_is_held_to_it() {
    let rig = with_mcp(|_| {}).await;
    let query = json!({ "container": "shop/orders", "query": "SELECT * FROM c" });
    let (text, _) = refused(&rig, "reporter", "query_items", &query).await;
    assert!(text.ends_with("(403 policy.denied)"), "the binding wants a state machine, and none was named: {text}");
    let answer = tool(&rig, "query_items", &query).header("x-stepgate-execution", REPORT);
    let answer = answer.header("x-stepgate-state", "SumOrders").token("reporter").send().await.expect(200);
    assert_eq!(answer.json()["result"]["isError"], false, "{}", answer.text());
    let entry = rig.outcome(&answer);
    assert_eq!(entry.context.execution.unwrap().value.as_str(), REPORT);
    let malformed =
        post(&rig, "tools/list", &json!({})).header("x-stepgate-execution", "run-1").token("fulfilment").send().await;
    malformed.refused(400, "request.malformed");

    let revoked = json!({ "execution": EXECUTION }).to_string();
    rig.admin_of(&rig.server, "POST", "/revoke", Some(crate::rig::ADMIN_TOKEN), &revoked).await;
    let stopped =
        tool(&rig, "list_containers", &json!({})).header("x-stepgate-execution", EXECUTION).token("fulfilment");
    stopped.send().await.refused(403, "identity.revoked");
}
