//! Microsoft's in-memory emulator, asked as a function: it keeps the items, runs queries, patches and batches, and charges.
//!
//! It answers for one region whose address is never dialled; the account document is rewritten on its way out to name the
//! address that the stand-in is bound to.

use azure_core::http::{
    Method as CoreMethod, Request as CoreRequest,
    headers::{HeaderName as CoreName, HeaderValue as CoreValue},
};
use azure_data_cosmos_driver::{
    in_memory_emulator::{ContainerConfig, InMemoryEmulatorHttpClient, VirtualAccountConfig, VirtualRegion},
    models::PartitionKeyDefinition,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use serde_json::{Value, json};
use url::Url;

use super::{
    refusal::{ACCOUNT, Refusal},
    request::{Asked, Target, header},
};

const ORIGIN: &str = "http://cosmos.invalid/";
const REGION: &str = "West Europe";

/// The emulator cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("the in-memory emulator refuses its set-up: {0}")]
pub struct EmulatorSetup(String);

/// What the stand-in must know of a container.
#[derive(Clone, Debug)]
pub(super) struct Container {
    pub(super) rid: String,
    pub(super) key_paths: Vec<String>,
}

pub(super) struct Emulator {
    client: InMemoryEmulatorHttpClient,
    origin: Url,
}

impl Emulator {
    pub(super) fn new() -> Result<Self, EmulatorSetup> {
        let origin: Url = ORIGIN.parse().map_err(|error: url::ParseError| EmulatorSetup(error.to_string()))?;
        let refuse = |error: azure_data_cosmos_driver::CosmosError| EmulatorSetup(error.to_string());
        let account = VirtualAccountConfig::new(vec![VirtualRegion::new(REGION, origin.clone())]).map_err(refuse)?;
        let client = InMemoryEmulatorHttpClient::try_new(account.with_account_id(ACCOUNT)).map_err(refuse)?;
        Ok(Self { client, origin })
    }

    pub(super) fn create_database(&self, database: &str) {
        self.client.store().create_database(database);
    }

    /// A container on one physical partition, in a database that exists.
    pub(super) fn create_container(&self, database: &str, container: &str, key_paths: &[String]) {
        let paths = key_paths.iter().map(|path| path.clone().into()).collect();
        let config = ContainerConfig::new().with_partition_count(1);
        let definition = PartitionKeyDefinition::new(paths);
        self.client.store().create_container_with_config(database, container, definition, config);
    }

    /// The rid of a database; none when there is no such database.
    pub(super) async fn database(&self, database: &str) -> Option<String> {
        let body = self.read(&["dbs", database]).await?;
        Some(body.get("_rid")?.as_str()?.to_owned())
    }

    /// A container; none when there is no such container.
    pub(super) async fn container(&self, database: &str, container: &str) -> Option<Container> {
        let body = self.read(&["dbs", database, "colls", container]).await?;
        let paths = body.pointer("/partitionKey/paths")?.as_array()?;
        let key_paths = paths.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        Some(Container { rid: body.get("_rid")?.as_str()?.to_owned(), key_paths })
    }

    async fn read(&self, segments: &[&str]) -> Option<Value> {
        let segments: Vec<String> = segments.iter().map(|segment| (*segment).to_owned()).collect();
        let answer = self.execute(&Method::GET, &segments, &HeaderMap::new(), Bytes::new()).await.ok()?;
        answer.status().is_success().then(|| serde_json::from_slice(answer.body()).ok())?
    }

    /// Creates an item, as a client would.
    pub(super) async fn create_item(&self, database: &str, container: &str, item: &Value) -> Result<(), Value> {
        let segments = ["dbs", database, "colls", container, "docs"].map(str::to_owned);
        let body = Bytes::from(item.to_string());
        match self.execute(&Method::POST, &segments, &HeaderMap::new(), body).await {
            Ok(answer) if answer.status() == StatusCode::CREATED => Ok(()),
            Ok(answer) => Err(serde_json::from_slice(answer.body()).unwrap_or_default()),
            Err(refusal) => Err(refusal.to_string().into()),
        }
    }

    /// Whether the filter of a query pins one partition key.
    pub(super) async fn query_is_pinned(&self, asked: &Asked) -> bool {
        let mut headers = asked.headers.clone();
        headers.insert(header::QUERY_PLAN, HeaderValue::from_static("True"));
        let Ok(answer) = self.execute(&asked.method, &asked.segments, &headers, asked.body.clone()).await else {
            return false;
        };
        let plan: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
        let ranges = plan.get("queryRanges").and_then(Value::as_array);
        ranges.is_some_and(|ranges| !ranges.is_empty() && ranges.iter().all(|r| r.get("min") == r.get("max")))
    }

    /// Carries out a request that has passed every check.
    pub(super) async fn carry_out(&self, asked: &Asked) -> Result<Response<Bytes>, Refusal> {
        self.execute(&asked.method, &asked.segments, &asked.headers, asked.body.clone()).await
    }

    async fn execute(
        &self,
        method: &Method,
        segments: &[String],
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Response<Bytes>, Refusal> {
        let not_served = |reason: &dyn ToString| Refusal::NotServed(reason.to_string());
        let mut url = self.origin.clone();
        // Encodes each segment, and never resolves one.
        if let Ok(mut path) = url.path_segments_mut() {
            path.clear().extend(segments);
        }
        let mut request = CoreRequest::new(url, core_method(method)?);
        for (name, value) in headers {
            if let Ok(value) = value.to_str() {
                request.insert_header(CoreName::from(name.as_str().to_owned()), CoreValue::from(value.to_owned()));
            }
        }
        request.set_body(body);
        let answer = self.client.execute_request(&request).await.map_err(|error| not_served(&error))?;
        let answer = answer.try_into_raw_response().await.map_err(|error| not_served(&error))?;
        let mut response = Response::new(Bytes::copy_from_slice(answer.body().as_ref()));
        *response.status_mut() =
            StatusCode::from_u16(u16::from(answer.status())).map_err(|error| not_served(&error))?;
        for (name, value) in answer.headers().iter() {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name.as_str()), HeaderValue::try_from(value.as_str()))
            {
                response.headers_mut().insert(name, value);
            }
        }
        Ok(response)
    }
}

fn core_method(method: &Method) -> Result<CoreMethod, Refusal> {
    Ok(match method.as_str() {
        "GET" => CoreMethod::Get,
        "POST" => CoreMethod::Post,
        "PUT" => CoreMethod::Put,
        "PATCH" => CoreMethod::Patch,
        "DELETE" => CoreMethod::Delete,
        "HEAD" => CoreMethod::Head,
        other => return Err(Refusal::NotServed(other.to_owned())),
    })
}

/// Makes the account document name `endpoint` alone, which a client will send everything else to.
pub(super) fn name_endpoint(asked: &Asked, endpoint: &str, response: Response<Bytes>) -> Response<Bytes> {
    if asked.target != Target::Account || response.status() != StatusCode::OK {
        return response;
    }
    let (parts, body) = response.into_parts();
    let Ok(Value::Object(mut document)) = serde_json::from_slice(&body) else {
        return Response::from_parts(parts, body);
    };
    let here = json!([{ "name": REGION, "databaseAccountEndpoint": endpoint }]);
    document.insert("writableLocations".to_owned(), here.clone());
    document.insert("readableLocations".to_owned(), here);
    document.insert("id".to_owned(), ACCOUNT.into());
    document.insert("_rid".to_owned(), format!("{ACCOUNT}.sql.cosmos.azure.com").into());
    Response::from_parts(parts, Bytes::from(Value::Object(document).to_string()))
}
