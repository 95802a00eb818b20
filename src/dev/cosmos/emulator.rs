//! Microsoft's in-memory emulator, asked as a function: it keeps the items, runs queries, patches and batches, and charges.
//!
//! Its regions have addresses that are never dialled; the account document is rewritten on its way out to name those that the
//! stand-in is bound to.

use azure_core::http::{
    Method as CoreMethod, Request as CoreRequest,
    headers::{HeaderName as CoreName, HeaderValue as CoreValue},
};
use azure_data_cosmos_driver::{
    CosmosError,
    in_memory_emulator::{ContainerConfig, InMemoryEmulatorHttpClient, VirtualAccountConfig, VirtualRegion},
    models::PartitionKeyDefinition,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use serde_json::{Value, json};
use url::Url;

use super::{
    refusal::{ACCOUNT, Refusal},
    regions::RegionError,
    request::{Asked, Target, header},
};

/// The region of a stand-in that was given none.
pub(super) const REGION: &str = "West Europe";

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
    /// Of each region.
    origins: Vec<Url>,
}

impl Emulator {
    /// An account with these regions; the first takes writes.
    pub(super) fn new(regions: &[&str]) -> Result<Self, EmulatorSetup> {
        let origin = |index| format!("http://region-{index}.cosmos.invalid/").parse();
        let origins: Result<Vec<Url>, url::ParseError> = (0..regions.len()).map(origin).collect();
        let origins = origins.map_err(|error| EmulatorSetup(error.to_string()))?;
        let refuse = |error: CosmosError| EmulatorSetup(error.to_string());
        let virtual_regions = regions.iter().zip(&origins).map(|(name, url)| VirtualRegion::new(name, url.clone()));
        let account = VirtualAccountConfig::new(virtual_regions.collect()).map_err(refuse)?;
        let account = account.with_account_id(ACCOUNT).with_throttling_enabled(true);
        let client = InMemoryEmulatorHttpClient::try_new(account).map_err(refuse)?;
        Ok(Self { client, origins })
    }

    /// Waits until every region has what was written.
    pub(super) async fn settle(&self) {
        self.client.store().drain_pending_replications().await;
    }

    /// The region that takes writes.
    pub(super) fn write_region(&self) -> String {
        self.client.store().config().write_region_name()
    }

    pub(super) fn set_write_region(&self, name: &str) -> Result<(), RegionError> {
        self.client.store().set_write_region(name).map_err(refused)
    }

    pub(super) fn take_offline(&self, name: &str) -> Result<(), RegionError> {
        self.client.store().set_region_offline(name).map_err(refused)
    }

    pub(super) fn begin_removal(&self, name: &str) -> Result<(), RegionError> {
        self.client.store().begin_region_removal(name).map_err(refused)
    }

    /// Undoes either of the two before; a region that was neither is as it was.
    pub(super) fn bring_back(&self, name: &str) {
        let store = self.client.store();
        let _ = (store.set_region_online(name), store.cancel_region_removal(name));
    }

    pub(super) fn pause_replication(&self, name: &str) {
        self.client.store().pause_replication(name);
    }

    pub(super) fn resume_replication(&self, name: &str) {
        self.client.store().resume_replication(name);
    }

    pub(super) fn create_database(&self, database: &str) {
        self.client.store().create_database(database);
    }

    /// A container on one physical partition, in a database that exists.
    pub(super) fn create_container(
        &self,
        database: &str,
        container: &str,
        key_paths: &[String],
        throughput: Option<u64>,
    ) {
        let paths = key_paths.iter().map(|path| path.clone().into()).collect();
        let config = ContainerConfig::new().with_partition_count(1);
        let config = throughput.into_iter().fold(config, ContainerConfig::with_throughput);
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
        let writes = self.write_index();
        let answer = self.execute(writes, &Method::GET, &segments, &HeaderMap::new(), Bytes::new()).await.ok()?;
        answer.status().is_success().then(|| serde_json::from_slice(answer.body()).ok())?
    }

    /// Creates an item, as a client would.
    pub(super) async fn create_item(&self, database: &str, container: &str, item: &Value) -> Result<(), Value> {
        let segments = ["dbs", database, "colls", container, "docs"].map(str::to_owned);
        let body = Bytes::from(item.to_string());
        match self.execute(self.write_index(), &Method::POST, &segments, &HeaderMap::new(), body).await {
            Ok(answer) if answer.status() == StatusCode::CREATED => Ok(()),
            Ok(answer) => Err(serde_json::from_slice(answer.body()).unwrap_or_default()),
            Err(refusal) => Err(refusal.to_string().into()),
        }
    }

    /// Whether the filter of a query pins one partition key.
    pub(super) async fn query_is_pinned(&self, asked: &Asked) -> bool {
        let mut headers = asked.headers.clone();
        headers.insert(header::QUERY_PLAN, HeaderValue::from_static("True"));
        let planned = self.execute(asked.region, &asked.method, &asked.segments, &headers, asked.body.clone()).await;
        let Ok(answer) = planned else { return false };
        let plan: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
        let ranges = plan.get("queryRanges").and_then(Value::as_array);
        ranges.is_some_and(|ranges| !ranges.is_empty() && ranges.iter().all(|r| r.get("min") == r.get("max")))
    }

    /// Carries out a request that has passed every check.
    pub(super) async fn carry_out(&self, asked: &Asked) -> Result<Response<Bytes>, Refusal> {
        self.execute(asked.region, &asked.method, &asked.segments, &asked.headers, asked.body.clone()).await
    }

    fn write_index(&self) -> usize {
        let name = self.write_region();
        let regions = self.client.store().config().active_regions();
        let url = regions.iter().find(|region| region.name() == name).map(|region| region.gateway_url().clone());
        self.origins.iter().position(|origin| Some(origin) == url.as_ref()).unwrap_or_default()
    }

    async fn execute(
        &self,
        region: usize,
        method: &Method,
        segments: &[String],
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Response<Bytes>, Refusal> {
        let not_served = |reason: &dyn ToString| Refusal::NotServed(reason.to_string());
        let mut url = self.origins.get(region).cloned().ok_or_else(|| not_served(&"no such region"))?;
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

fn refused(error: CosmosError) -> RegionError {
    RegionError::Refused(error.to_string())
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

/// Makes the account document name the addresses of the regions, which a client will send everything else to.
pub(super) fn name_endpoints(
    asked: &Asked,
    address: impl Fn(&str) -> String,
    response: Response<Bytes>,
) -> Response<Bytes> {
    if asked.target != Target::Account || response.status() != StatusCode::OK {
        return response;
    }
    let (parts, body) = response.into_parts();
    let Ok(Value::Object(mut document)) = serde_json::from_slice(&body) else {
        return Response::from_parts(parts, body);
    };
    for list in ["writableLocations", "readableLocations"] {
        let names = document.get(list).and_then(Value::as_array).into_iter().flatten();
        let names = names.filter_map(|location| location.get("name")?.as_str());
        let locations: Vec<Value> =
            names.map(|name| json!({ "name": name, "databaseAccountEndpoint": address(name) })).collect();
        document.insert(list.to_owned(), locations.into());
    }
    document.insert("id".to_owned(), ACCOUNT.into());
    document.insert("_rid".to_owned(), format!("{ACCOUNT}.sql.cosmos.azure.com").into());
    Response::from_parts(parts, Bytes::from(Value::Object(document).to_string()))
}
