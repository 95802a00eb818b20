//! Microsoft's own Rust SDK as a client of the gateway, with a workflow's token as its credential; and what the .NET SDK sends
//! that cannot be read. The Python and JavaScript SDKs are in `tests/peers`.
//!
//! The stand-in has regions of its own here: a client that followed the real account document would leave the gateway.

use std::sync::Arc;

use azure_core::{
    credentials::{AccessToken, TokenCredential, TokenRequestOptions},
    http::Etag,
    time::OffsetDateTime,
};
use azure_data_cosmos::{
    AccountReference, CosmosClient, CosmosError, FeedScope, PartitionKey, Query, RoutingStrategy, TransactionalBatch,
    clients::ContainerClient,
    feed::QueryPageIterator,
    models::{PatchInstructions, PatchOperation},
    options::{
        BatchOptions, BinaryEncodingOptions, ChangeFeedStartFrom, ContentResponseOnWrite, ItemReadOptions,
        ItemWriteOptions, MaxItemCountHint, OperationOptionsBuilder, PatchItemOptions, PatchStrategy, Precondition,
        QueryOptions,
    },
};
use futures_util::{FutureExt as _, TryStreamExt as _};
use serde_json::{Value, json};
use stepgate::{config::dev, dev::cosmos::Authorization};

use crate::rig::{Call, Rig};

const DOCS: &str = "/dbs/shop/colls/orders/docs";

/// A workflow's token, where the SDK expects one of Entra.
#[derive(Debug)]
struct Workflow(String);

#[async_trait::async_trait]
impl TokenCredential for Workflow {
    async fn get_token(&self, _: &[&str], _: Option<TokenRequestOptions<'_>>) -> azure_core::Result<AccessToken> {
        let expires = OffsetDateTime::now_utc() + std::time::Duration::from_secs(300);
        Ok(AccessToken::new(self.0.clone(), expires))
    }
}

async fn stack() -> Rig {
    Rig::with(|raw| {
        let cosmos = &mut raw.dev.as_mut().unwrap().cosmos;
        let listen = cosmos.listen;
        cosmos.regions = ["West Europe", "North Europe"].map(|name| dev::Region { name: name.into(), listen }).into();
    })
    .await
}

/// The orders, as the SDK opens them for `client`; its writes are binary JSON unless it is told otherwise.
async fn orders(rig: &Rig, client: &str, binary: bool) -> ContainerClient {
    let credential = Arc::new(Workflow(rig.token(client)));
    let account = AccountReference::with_credential(rig.server.gateway_url().parse().unwrap(), credential);
    let builder =
        CosmosClient::builder().with_binary_encoding_options(BinaryEncodingOptions::new().with_enabled(binary));
    let client = builder.build(account, RoutingStrategy::PreferredRegions(Vec::new())).boxed().await.unwrap();
    client.database_client("shop").container_client("orders", None).boxed().await.unwrap()
}

fn order(id: &str, total: i64) -> Value {
    json!({ "id": id, "tenant": "t1", "total": total, "kind": "rust" })
}

fn status<T>(answer: Result<T, CosmosError>) -> u16 {
    answer.err().map_or(200, |error| u16::from(error.status().status_code()))
}

/// Whatever the client did, it was the gateway that asked Cosmos: by resource tokens, at the account's own endpoint.
fn nothing_went_past(rig: &Rig) {
    let asked = rig.data_requests();
    assert!(!asked.is_empty());
    for request in asked {
        assert_eq!((request.authorization, request.region.as_deref()), (Authorization::Resource, None), "{request:?}");
    }
}

#[tokio::test]
async fn items_are_written_and_read() {
    let rig = stack().await;
    let orders = orders(&rig, "operator", false).await;
    let read = async |id: &'static str| orders.read_item("t1", id, None).boxed().await;
    let written = orders.create_item("t1", "r-1", order("r-1", 1), None).boxed().await.unwrap();
    let stale = written.headers().etag().unwrap().clone();
    assert_eq!(read("r-1").await.unwrap().into_model::<Value>().unwrap()["total"], 1);
    assert_eq!(status(orders.create_item("t1", "r-1", order("r-1", 1), None).boxed().await), 409);
    orders.upsert_item("t1", "r-1", order("r-1", 2), None).boxed().await.unwrap();
    let on = |etag: &Etag| Some(ItemWriteOptions::default().with_precondition(Precondition::if_match(etag.clone())));
    let replace = async |etag: &Etag| orders.replace_item("t1", "r-1", order("r-1", 3), on(etag)).boxed().await;
    assert_eq!(status(replace(&stale).await), 412);
    let current = read("r-1").await.unwrap().headers().etag().unwrap().clone();
    let current = replace(&current).await.unwrap().headers().etag().unwrap().clone();
    let unless = ItemReadOptions::default().with_precondition(Precondition::if_none_match(current.clone()));
    let unchanged = orders.read_item("t1", "r-1", Some(unless)).boxed().await;
    assert_eq!(
        unchanged.map_or_else(
            |error| u16::from(error.status().status_code()),
            |read| u16::from(read.status().status_code())
        ),
        304
    );
    assert_eq!(status(orders.delete_item("t1", "r-1", on(&stale)).boxed().await), 412);
    orders.delete_item("t1", "r-1", on(&current)).boxed().await.unwrap();
    assert_eq!(status(read("r-1").await), 404);
    nothing_went_past(&rig);
}

#[tokio::test]
async fn binary_json_is_not_answered_and_not_taken() {
    let rig = stack().await;
    let (text, binary) = (orders(&rig, "operator", false).await, orders(&rig, "operator", true).await);
    text.create_item("t1", "r-1", order("r-1", 1), None).boxed().await.unwrap();
    // It offers to read binary JSON, and is answered in text, which it reads too.
    let read = binary.read_item("t1", "r-1", None).boxed().await.unwrap();
    assert_eq!(read.into_model::<Value>().unwrap()["total"], 1);
    let rows =
        binary.query_items::<Value>("SELECT VALUE c.total FROM c WHERE c.id = 'r-1'", FeedScope::partition("t1"), None);
    assert_eq!(rows.boxed().await.unwrap().try_collect::<Vec<_>>().await.unwrap(), [json!(1)]);
    let refused = binary.create_item("t1", "r-2", order("r-2", 1), None).boxed().await.unwrap_err();
    assert_eq!(u16::from(refused.status().status_code()), 400);
    assert!(refused.to_string().contains("switch the SDK to text JSON"), "{refused}");
    assert_eq!(status(text.read_item("t1", "r-2", None).boxed().await), 404);
    nothing_went_past(&rig);
}

#[tokio::test]
async fn queries_are_read_in_pages() {
    let rig = stack().await;
    let orders = orders(&rig, "operator", false).await;
    for (n, tenant) in [(1, "t1"), (2, "t2"), (3, "t1"), (4, "t2"), (5, "t1"), (6, "t1")] {
        let item = json!({ "id": format!("q-{n}"), "tenant": tenant, "total": n, "kind": "rust" });
        orders.create_item(tenant, &format!("q-{n}"), item, None).boxed().await.unwrap();
    }
    let ask = async |text: &str, scope: FeedScope| {
        let query = Query::from(text.to_owned()).with_parameter("@kind", "rust").unwrap();
        let rows = orders.query_items::<i64>(query, scope, None).boxed().await.unwrap();
        rows.try_collect::<Vec<_>>().boxed().await.unwrap()
    };
    let totals = "SELECT VALUE c.total FROM c WHERE c.kind = @kind";
    assert_eq!(ask(totals, FeedScope::partition("t2")).await, [2, 4]);
    let sorted = format!("{totals} ORDER BY c.total DESC");
    assert_eq!(ask(&sorted, FeedScope::full_container()).await, [6, 5, 4, 3, 2, 1]);
    // Over several partitions this SDK refuses aggregates by itself.
    assert_eq!(ask(&totals.replace("c.total", "SUM(c.total)"), FeedScope::partition("t1")).await, [15]);
    let ranges = orders.read_feed_ranges(None).boxed().await.unwrap();
    let mut in_ranges = Vec::new();
    for range in ranges {
        in_ranges.extend(ask(totals, FeedScope::range(range)).await);
    }
    in_ranges.sort_unstable();
    assert_eq!(in_ranges, [1, 2, 3, 4, 5, 6]);

    let two = QueryOptions::default().with_max_item_count(MaxItemCountHint::Limit(2.try_into().unwrap()));
    let text = "SELECT VALUE c.total FROM c WHERE c.kind = 'rust'";
    let pages = async |options: QueryOptions| -> QueryPageIterator<i64> {
        orders.query_items::<i64>(text, FeedScope::partition("t1"), Some(options)).boxed().await.unwrap().into_pages()
    };
    let mut first = pages(two.clone()).await;
    let mut seen = first.try_next().boxed().await.unwrap().unwrap().into_items();
    assert_eq!(seen.len(), 2);
    let token = first.to_continuation_token().unwrap();
    let mut rest = pages(two.with_continuation_token(token)).await;
    while let Some(page) = rest.try_next().boxed().await.unwrap() {
        assert!(page.items().len() <= 2);
        seen.extend(page.into_items());
    }
    seen.sort_unstable();
    assert_eq!(seen, [1, 3, 5, 6], "each once");
    nothing_went_past(&rig);
}

#[tokio::test]
async fn batches_and_patches_are_carried_out() {
    let rig = stack().await;
    let orders = orders(&rig, "operator", false).await;
    orders.create_item("t1", "b-1", order("b-1", 1), None).boxed().await.unwrap();
    let with_bodies =
        || OperationOptionsBuilder::new().with_content_response_on_write(ContentResponseOnWrite::Enabled).build();
    let run = async |batch: TransactionalBatch| {
        let options = BatchOptions::default().with_operation_options(with_bodies());
        let answer = orders.execute_transactional_batch(batch, Some(options)).boxed().await?;
        let results = answer.into_model()?;
        Ok::<_, CosmosError>(results.results().iter().map(|result| result.status_code()).collect::<Vec<_>>())
    };
    let batch = TransactionalBatch::new("t1").create_item(order("b-2", 2)).unwrap();
    let batch = batch.upsert_item(order("b-3", 3), None).unwrap().read_item("b-1", None).delete_item("b-3", None);
    assert_eq!(run(batch).await.unwrap(), [201, 201, 200, 204]);
    let batch = TransactionalBatch::new("t1").create_item(order("b-4", 4)).unwrap();
    assert_eq!(run(batch.create_item(order("b-1", 1)).unwrap()).await.unwrap(), [424, 409]);
    assert_eq!(status(orders.read_item("t1", "b-4", None).boxed().await), 404, "it is undone");

    let total = async || {
        orders.read_item("t1", "b-1", None).boxed().await.unwrap().into_model::<Value>().unwrap()["total"].clone()
    };
    let patch = async |strategy: PatchStrategy, operation: PatchOperation| {
        let options = PatchItemOptions::default().with_strategy(strategy);
        orders.patch_item("t1", "b-1", PatchInstructions::new().with_operation(operation), Some(options)).boxed().await
    };
    patch(PatchStrategy::ServerSide, PatchOperation::increment("/total", 4_i64)).await.unwrap();
    assert_eq!(total().await, 5, "by PATCH");
    patch(PatchStrategy::ClientSide, PatchOperation::set("/total", json!(7))).await.unwrap();
    assert_eq!(total().await, 7, "by reading and replacing under its etag");
    nothing_went_past(&rig);
}

#[tokio::test]
async fn the_change_feed_is_read() {
    let rig = stack().await;
    let orders = orders(&rig, "operator", false).await;
    orders.create_item("t1", "f-1", order("f-1", 1), None).boxed().await.unwrap();
    let feed = orders.query_change_feed::<Value>(FeedScope::full_container(), ChangeFeedStartFrom::Beginning, None);
    let mut pages = feed.boxed().await.unwrap();
    let mut seen = Vec::new();
    while !seen.contains(&json!("f-1")) {
        let page = pages.try_next().boxed().await.unwrap().unwrap();
        seen.extend(page.into_items().iter().map(|item| item.current().unwrap()["id"].clone()));
    }
    nothing_went_past(&rig);
}

#[tokio::test]
async fn a_grant_on_one_partition_holds_the_client_to_it() {
    let rig = stack().await;
    let own = orders(&rig, "fulfilment", false).await;
    own.read_item("t1", "o-1001", None).boxed().await.unwrap();
    for key in [PartitionKey::from("t2"), PartitionKey::from(7)] {
        let refused = own.read_item(key, "o-2001", None).boxed().await.unwrap_err();
        assert_eq!(u16::from(refused.status().status_code()), 403, "{refused}");
    }
    nothing_went_past(&rig);
}

#[tokio::test]
async fn the_account_document_names_the_gateway_alone() {
    let rig = stack().await;
    let document = rig.sdk("operator", "GET", "/").send().await.expect(200).json();
    for list in ["writableLocations", "readableLocations"] {
        let places = document[list].as_array().unwrap();
        let endpoints: Vec<_> = places.iter().map(|place| place["databaseAccountEndpoint"].as_str().unwrap()).collect();
        assert_eq!(endpoints, [format!("{}/", rig.server.gateway_url())], "{list}");
    }
}

/// A batch as the .NET SDK sends it.
fn batch(call: Call<'_>) -> Call<'_> {
    let call = call.partition("t1").header("x-ms-cosmos-is-batch-request", "True");
    call.header("x-ms-cosmos-batch-atomic", "True").header("content-type", "application/octet-stream")
}

#[tokio::test]
async fn a_batch_in_hybrid_row_is_refused_with_a_word_on_what_to_do() {
    let rig = Rig::start().await;
    // Its version is the first byte; binary JSON has the one before.
    for first in [0x80, 0x81] {
        let body = vec![first, 0x2c, 0x10, 0x00, 0x00, 0x01, 0x00];
        let sdk = batch(rig.sdk("operator", "POST", DOCS)).body(body.clone()).send().await.expect(400);
        assert_eq!((sdk.header("x-ms-substatus"), &sdk.json()["code"]), (Some("0"), &json!("BadRequest")));
        let message = sdk.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains("HybridRow") && message.contains("text JSON"), "{message}");
        batch(rig.task("operator", "POST", DOCS)).body(body).send().await.refused(400, "request.malformed");
    }
    assert!(rig.data_requests().is_empty());
}
