//! The tools, and what their arguments mean: each becomes a request of the data plane, or an inquiry.

use axum::body::Body;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri,
    header::{CONTENT_TYPE, InvalidHeaderValue},
    uri::InvalidUri,
};
use rmcp::{
    handler::server::common::schema_for_input,
    model::{JsonObject, Tool as Described, ToolAnnotations},
};
use schemars::JsonSchema;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    access::{
        ContainerName, ItemId, MalformedName, MalformedPartitionKey, PartitionKey, UnknownOperation,
        headers::{CONTINUATION, IS_QUERY, MAX_ITEM_COUNT, PARTITION_KEY},
    },
    gateway::{Inquiry, Tool},
    question::{self, Need, Question},
};

const FORM: HeaderName = HeaderName::from_static("x-stepgate-errors");
const CROSS_PARTITION: HeaderName = HeaderName::from_static("x-ms-documentdb-query-enablecrosspartition");
const YES: HeaderValue = HeaderValue::from_static("True");

/// Items of a page, where the agent does not say, and the most that it may say.
const PAGE: u32 = 100;
const LARGEST_PAGE: u32 = 1_000;

/// The tools.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Name {
    ListContainers,
    ReadItem,
    QueryItems,
    ExplainAccess,
}

/// Why a call is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("the arguments are not what the tool takes: {0}")]
    Arguments(#[from] serde_json::Error),
    #[error("`container` or `id` cannot be used: {0}")]
    Name(#[from] MalformedName),
    #[error("`container` or `id` cannot be used: {0}")]
    Path(#[from] InvalidUri),
    #[error("`container` names one container, without `*`")]
    Glob,
    #[error("`partition_key`: {0}")]
    PartitionKey(#[from] MalformedPartitionKey),
    #[error("`operation`: {0}")]
    Operation(#[from] UnknownOperation),
    #[error("`max_items` is from 1 to {LARGEST_PAGE}")]
    Page,
    #[error("`continuation` is not what an earlier page came with")]
    Continuation(#[from] InvalidHeaderValue),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ReadItem {
    /// Where the item is, as database/container.
    container: String,
    /// The item's id.
    id: String,
    /// The item's partition key, one value for each level, such as ["t1"]. May be left out where policy fixes it.
    #[serde(default)]
    #[schemars(with = "Option<Vec<Value>>")]
    partition_key: Option<Value>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct QueryItems {
    /// What is queried, as database/container.
    container: String,
    /// A query in Cosmos DB's SQL, such as SELECT * FROM c WHERE c.status = @status.
    query: String,
    /// The values of the query's parameters.
    #[serde(default)]
    parameters: Vec<Parameter>,
    /// The partition that is queried, one value for each level, such as ["t1"]. Left out: the one that policy fixes, else all.
    #[serde(default)]
    #[schemars(with = "Option<Vec<Value>>")]
    partition_key: Option<Value>,
    /// The most items of a page, up to 1000 (default 100).
    #[serde(default)]
    max_items: Option<u32>,
    /// The continuation that the page before came with, for the next one.
    #[serde(default)]
    continuation: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Parameter {
    /// Its name in the query, such as @status.
    name: String,
    /// Its value.
    value: Value,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ExplainAccess {
    /// The operation, such as items/read, items/upsert or query.
    operation: String,
    /// On which container, as database/container.
    container: String,
    /// In which partition, one value for each level, such as ["t1"].
    #[serde(default)]
    #[schemars(with = "Option<Vec<Value>>")]
    partition_key: Option<Value>,
}

impl Name {
    pub(super) const ALL: [Self; 4] = [Self::ListContainers, Self::ReadItem, Self::QueryItems, Self::ExplainAccess];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::ListContainers => "list_containers",
            Self::ReadItem => "read_item",
            Self::QueryItems => "query_items",
            Self::ExplainAccess => "explain_access",
        }
    }

    pub(super) fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tool| tool.as_str() == name)
    }

    /// What a model is told of the tool.
    pub(super) fn describe(self) -> Described {
        let (text, arguments) = match self {
            Self::ListContainers => (
                "Lists the containers that policy lets you see, with the operations you may do on each and the partition you are \
                 confined to. `globs` are grants over patterns of names.",
                schema_for_input::<Nothing>(),
            ),
            Self::ReadItem => ("Reads one item by its id.", schema_for_input::<ReadItem>()),
            Self::QueryItems => (
                "Runs a query in Cosmos DB's SQL over the items of one container and returns a page of results. When the result \
                 has a `continuation`, call again with it for the next page.",
                schema_for_input::<QueryItems>(),
            ),
            Self::ExplainAccess => (
                "Says in one sentence whether policy lets you do an operation, and why. Nothing is read.",
                schema_for_input::<ExplainAccess>(),
            ),
        };
        let reads = ToolAnnotations::new().read_only(true).destructive(false).idempotent(true).open_world(false);
        let mut described = Described::new(self.as_str(), text, arguments.unwrap_or_default());
        described.annotations = Some(reads);
        described
    }

    /// The request that the tool makes of its arguments for a caller with these headers, and how the gateway is to take it. What cannot be read
    /// is a request too, so that it is refused and recorded where every request is.
    pub(super) fn ask(self, arguments: JsonObject, caller: &HeaderMap) -> (Tool, Request<Body>) {
        let mut request = bare(caller);
        let tool = self.fill(arguments, &mut request);
        (tool.unwrap_or_else(|reason| Tool::Inquiry(Inquiry::Unreadable(reason.to_string()))), request)
    }

    fn fill(self, arguments: JsonObject, request: &mut Request<Body>) -> Result<Tool, Unreadable> {
        match self {
            Self::ListContainers => {
                let Nothing {} = read(arguments)?;
                Ok(Tool::Inquiry(Inquiry::Grants))
            }
            Self::ReadItem => {
                let ReadItem { container, id, partition_key } = read(arguments)?;
                let container: ContainerName = container.parse()?;
                *request.uri_mut() = Question::of_container(&container).item_path(ItemId::new(&id)?).try_into()?;
                set_key(request, partition_key.as_ref())?;
                Ok(Tool::Request)
            }
            Self::QueryItems => {
                let QueryItems { container, query, parameters, partition_key, max_items, continuation } =
                    read(arguments)?;
                let page = max_items.unwrap_or(PAGE);
                if !(1..=LARGEST_PAGE).contains(&page) {
                    return Err(Unreadable::Page);
                }
                let container: ContainerName = container.parse()?;
                *request.uri_mut() = Question::of_container(&container).items_path().try_into()?;
                *request.method_mut() = Method::POST;
                if !set_key(request, partition_key.as_ref())? {
                    request.headers_mut().insert(CROSS_PARTITION, YES);
                }
                let headers = request.headers_mut();
                headers.insert(IS_QUERY, YES);
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/query+json"));
                headers.insert(MAX_ITEM_COUNT, page.into());
                if let Some(continuation) = continuation {
                    headers.insert(CONTINUATION, continuation.try_into()?);
                }
                let named = |Parameter { name, value }| json!({ "name": name, "value": value });
                let parameters: Vec<Value> = parameters.into_iter().map(named).collect();
                *request.body_mut() = Body::from(json!({ "query": query, "parameters": parameters }).to_string());
                Ok(Tool::Request)
            }
            Self::ExplainAccess => {
                let ExplainAccess { operation, container, partition_key } = read(arguments)?;
                if container.contains('*') {
                    return Err(Unreadable::Glob);
                }
                let (operation, container) = (operation.parse()?, container.parse()?);
                let partition_key = partition_key.as_ref().map(question::key_of).transpose()?;
                Ok(Tool::Inquiry(Inquiry::Explain(Need { operation, container, partition_key })))
            }
        }
    }
}

fn read<T: DeserializeOwned>(arguments: JsonObject) -> Result<T, Unreadable> {
    Ok(serde_json::from_value(Value::Object(arguments))?)
}

/// Names the partition, and says whether there is one to name.
fn set_key(request: &mut Request<Body>, key: Option<&Value>) -> Result<bool, Unreadable> {
    let Some(key) = key else { return Ok(false) };
    let key: PartitionKey = question::key_of(key)?;
    request.headers_mut().insert(PARTITION_KEY, key.to_string().try_into()?);
    Ok(true)
}

/// A request of the caller's that asks for nothing yet.
pub(super) fn bare(caller: &HeaderMap) -> Request<Body> {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = Uri::from_static("/mcp");
    *request.headers_mut() = caller.clone();
    // One code for each condition, and answers as small as a state's: a model reads them as a workflow does.
    request.headers_mut().insert(FORM, HeaderValue::from_static("distinct"));
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(tool: Name, arguments: Value) -> (Tool, Request<Body>) {
        let Value::Object(arguments) = arguments else { panic!("an object") };
        let caller = HeaderMap::from_iter([(http::header::AUTHORIZATION, HeaderValue::from_static("Bearer t"))]);
        tool.ask(arguments, &caller)
    }

    fn unreadable(tool: Name, arguments: Value) -> String {
        match ask(tool, arguments).0 {
            Tool::Inquiry(Inquiry::Unreadable(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_tool_asks_as_a_workflow_would() {
        let item = json!({ "container": "shop/orders", "id": "o 1/é", "partition_key": ["t1", 2] });
        assert!(unreadable(Name::ReadItem, item).contains("a character that Cosmos forbids"));
        let item = json!({ "container": "shop/orders", "id": "o 1é", "partition_key": ["é", 2] });
        let (tool, request) = ask(Name::ReadItem, item);
        assert!(matches!(tool, Tool::Request));
        assert_eq!((request.method(), request.uri().path()), (&Method::GET, "/dbs/shop/colls/orders/docs/o%201%C3%A9"));
        assert_eq!(request.headers()[PARTITION_KEY], r#"["\u00e9",2]"#);
        assert_eq!(
            (&request.headers()["authorization"], &request.headers()[FORM]),
            (&"Bearer t".parse().unwrap(), &"distinct".parse().unwrap())
        );

        let query = json!({ "container": "shop/orders", "query": "SELECT 1", "max_items": 7, "continuation": "c" });
        let (_, request) = ask(Name::QueryItems, query);
        assert_eq!((request.method(), request.uri().path()), (&Method::POST, "/dbs/shop/colls/orders/docs"));
        for (name, value) in [(IS_QUERY, "True"), (CROSS_PARTITION, "True"), (MAX_ITEM_COUNT, "7"), (CONTINUATION, "c")]
        {
            assert_eq!(request.headers()[&name], value, "{name}");
        }
        let body = axum::body::to_bytes(request.into_body(), 1_000).await.unwrap();
        assert_eq!(body, r#"{"query":"SELECT 1","parameters":[]}"#);
        let one = json!({ "container": "shop/orders", "query": "SELECT 1", "partition_key": "t1" });
        let (_, request) = ask(Name::QueryItems, one);
        assert_eq!(request.headers()[PARTITION_KEY], r#"["t1"]"#);
        assert!(!request.headers().contains_key(CROSS_PARTITION), "one partition was named");
    }

    #[test]
    fn no_id_makes_another_request_of_a_read() {
        for id in ["", ".", "..", "a/b", "a?b", "a#b", "a\\b", "a\n"] {
            unreadable(Name::ReadItem, json!({ "container": "shop/orders", "id": id }));
        }
        for container in ["", "shop", "/orders", "shop/", "shop/orders/docs", "../orders", "shop/.."] {
            unreadable(Name::ReadItem, json!({ "container": container, "id": "a" }));
            unreadable(Name::QueryItems, json!({ "container": container, "query": "SELECT 1" }));
        }
    }

    #[test]
    fn every_tool_says_what_it_takes() {
        for tool in Name::ALL {
            let described = tool.describe();
            assert_eq!(Name::of(&described.name), Some(tool));
            assert_eq!(
                (&described.input_schema["type"], &described.input_schema["additionalProperties"]),
                (&json!("object"), &json!(false))
            );
        }
    }
}
