//! A whole stack for one test: issuer, Cosmos and gateway on loopback, and a client that calls as an HTTP Task would.

use std::{
    collections::HashSet,
    fs,
    future::Future,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use http_body_util::Full;
use serde_json::{Map, Value, json};
use stepgate::{
    audit::{self, Phase, Reader, Record},
    config::{
        self, Raw,
        dev::{Client, ContainerSeed, Kind},
    },
    dev::{
        bundle,
        cosmos::{Cosmos, Recorded},
        issuer::{Issuer, Mint},
        stack::Stack,
    },
    secret::Secret,
    server::{Check, Server, StartError},
    transport::Transport,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longest that anything here may take; only a failing test waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// How every HTTP Task introduces itself.
pub(crate) const TASK: &str = "Amazon|StepFunctions|HttpInvoke|eu-west-1";
/// The execution that tasks say they belong to.
pub(crate) const EXECUTION: &str = "arn:aws:states:eu-west-1:111122223333:execution:Fulfil:run-1";
pub(crate) const ADMIN_TOKEN: &str = "an-admin-token-for-tests";
/// What seals markers, where a test configures it.
pub(crate) const MARKERS: &str = "a-secret-for-markers-that-is-long-enough";

/// What the tests want beside the example policies.
const POLICIES: &str = r#"
roles:
  operator:
    grants:
      - { container: shop/orders, operations: ["*"] }
      - { container: shop/vault, operations: ["*"] }
  tenants-reader:
    grants:
      - { container: shop/orders, partition_key: ["{claims.tenant}"], operations: [items/read, query] }
  line-reader:
    grants:
      - { container: shop/lines, partition_key: [t1], operations: [items/read, query] }
  once:
    grants:
      - { container: shop/orders, operations: ["*"], idempotency: on }
      - { container: shop/lines, operations: ["*"], idempotency: on }
      - { container: shop/singles, operations: ["*"], idempotency: on }
bindings:
  - { role: once, workloads: [{ issuer: local, claims: { client_id: once } }] }
  - { role: operator, workloads: [{ issuer: local, claims: { client_id: operator } }] }
  - { role: tenants-reader, workloads: [{ issuer: local, claims: { client_id: tenants } }] }
  - { role: line-reader, workloads: [{ issuer: local, claims: { client_id: lines } }] }
deny:
  - { name: the-vault-is-shut, container: shop/vault, operations: ["*"], workloads: all }
"#;

/// What the account behind the gateway takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Account {
    /// Keys, and resource tokens made with them.
    Keys,
    /// Entra tokens alone.
    Entra,
}

/// A running stack.
pub(crate) struct Rig {
    pub(crate) stack: Stack,
    pub(crate) server: Serving,
    written: config::Written,
    transport: Transport,
    home: tempfile::TempDir,
}

/// A gateway at work; it stops when this is dropped.
#[derive(Debug)]
pub(crate) struct Serving {
    server: Arc<Server>,
    stop: CancellationToken,
    running: Option<JoinHandle<std::io::Result<()>>>,
}

impl std::ops::Deref for Serving {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn serve(written: &config::Written) -> Serving {
    try_serve(written).await.unwrap()
}

async fn try_serve(written: &config::Written) -> Result<Serving, StartError> {
    let loaded = config::settle(written, &[]).unwrap_or_else(|findings| panic!("{findings:?}"));
    let server = Arc::new(Server::start(loaded.config).await?);
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let (server, stop) = (server.clone(), stop.clone());
        async move { server.run(stop).await }
    });
    Ok(Serving { server, stop, running: Some(running) })
}

/// Writes configuration, key, tokens and policies below `home`, and gives what was written with every port 0.
pub(crate) fn unpack(home: &Path) -> config::Written {
    let file = bundle::unpack(home).unwrap();
    fs::write(home.join("policies/it.yaml"), POLICIES).unwrap();
    fs::write(home.join("config/admin-token"), ADMIN_TOKEN).unwrap();
    fs::write(home.join("config/markers"), MARKERS).unwrap();
    let mut written = config::read(&file, &[]).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let raw = &mut written.raw;
    raw.listen = any;
    raw.admin = any;
    raw.admin_token = Some(serde_json::from_value(json!({ "kind": "file", "path": "admin-token" })).unwrap());
    let dev = raw.dev.as_mut().unwrap();
    dev.cosmos.listen = any;
    dev.issuer.listen = any;
    raw.issuers[0].url = format!("http://{any}");
    raw.cosmos.endpoint = format!("http://{any}/");
    for (client_id, claims) in [
        ("operator", json!({})),
        ("tenants", json!({"tenant": ["t1", "t2"]})),
        ("lines", json!({})),
        ("once", json!({})),
        ("nobody", json!({})),
    ] {
        dev.issuer.clients.push(Client {
            client_id: client_id.into(),
            client_secret: Secret::new("public".into()),
            kind: Kind::Workload,
            claims: members(claims),
            algorithm: None,
        });
    }
    let containers = &mut dev.cosmos.seed.databases[0].containers;
    containers[0].procedures.push("settle".into());
    for (id, partition_key) in
        [("vault", vec!["/tenant"]), ("lines", vec!["/tenant", "/order"]), ("singles", vec!["/id"])]
    {
        let partition_key = partition_key.into_iter().map(str::to_owned).collect();
        containers.push(ContainerSeed {
            id: id.into(),
            partition_key,
            throughput: None,
            items: Vec::new(),
            procedures: Vec::new(),
        });
    }
    written
}

/// Turns the account into one that takes Entra tokens alone, and the gateway into an application that has a secret.
fn without_keys(raw: &mut Raw, home: &Path) {
    fs::write(home.join("config/client-secret"), "a-secret-of-the-gateway").unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let secret = json!({ "kind": "file", "path": "client-secret" });
    let identity = json!({ "kind": "client_secret", "tenant_id": "tenant", "client_id": "gateway", "secret": secret });
    let credential = json!({ "kind": "entra", "authority": format!("http://{any}"), "identity": identity });
    raw.cosmos.credential = serde_json::from_value(credential).unwrap();
    let dev = raw.dev.as_mut().unwrap();
    dev.cosmos.disable_local_auth = true;
    dev.entra = Some(config::dev::Issuer {
        listen: any,
        audience: "https://cosmos.azure.com".into(),
        lifetime: Duration::from_secs(3600),
        clients: vec![Client {
            client_id: "gateway".into(),
            client_secret: Secret::new("a-secret-of-the-gateway".into()),
            kind: Kind::Workload,
            claims: Map::new(),
            algorithm: None,
        }],
    });
}

impl Rig {
    /// A stack with the example configuration.
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// A stack whose configuration was changed first.
    pub(crate) async fn with(change: impl FnOnce(&mut Raw)) -> Self {
        Self::on(Account::Keys, change).await
    }

    /// The same, not waited for.
    pub(crate) async fn unready(change: impl FnOnce(&mut Raw)) -> Self {
        Self::unready_on(Account::Keys, change).await
    }

    /// A stack before an account of this kind.
    pub(crate) async fn on(account: Account, change: impl FnOnce(&mut Raw)) -> Self {
        let rig = Self::unready_on(account, change).await;
        rig.ready().await;
        rig
    }

    /// The same, not waited for.
    pub(crate) async fn unready_on(account: Account, change: impl FnOnce(&mut Raw)) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut written = unpack(home.path());
        if account == Account::Entra {
            without_keys(&mut written.raw, home.path());
        }
        change(&mut written.raw);
        let dev = written.raw.dev.clone().unwrap();
        let stack = Stack::start(&dev).await.unwrap();
        stack.wire(&mut written.raw, &dev);
        let server = serve(&written).await;
        Self { stack, server, written, transport: Transport::new(None).unwrap(), home }
    }

    /// The same stack with a new gateway, once the old one has drained.
    pub(crate) async fn restart(mut self) -> Self {
        self.stop().await;
        self.server = serve(&self.written).await;
        self.ready().await;
        self
    }

    /// A new gateway in the place of one that was stopped, if it starts.
    pub(crate) async fn try_again(&self) -> Result<Serving, StartError> {
        try_serve(&self.written).await
    }

    /// Another gateway on the same stack, with a log of its own, if it starts.
    pub(crate) async fn try_another(&self) -> Result<Serving, StartError> {
        let server = self.try_another_unready().await?;
        self.ready_of(&server).await;
        Ok(server)
    }

    /// The same, not waited for.
    pub(crate) async fn try_another_unready(&self) -> Result<Serving, StartError> {
        let mut written = self.written.clone();
        written.raw.audit.directory = tempfile::tempdir_in(self.home.path()).unwrap().keep();
        try_serve(&written).await
    }

    async fn ready(&self) {
        self.ready_of(&self.server).await;
    }

    /// Waits until a gateway has fetched the issuer's keys; each look is a round trip, so nothing spins.
    async fn ready_of(&self, server: &Server) {
        let url = format!("{}/readyz", server.admin_url());
        soon(async || {
            let ready = self.exchange(Request::get(&url).body(Full::default()).unwrap()).await;
            (ready.status() == 200).then_some(())
        })
        .await;
    }

    /// What the account takes.
    pub(crate) fn account(&self) -> Account {
        if self.stack.entra.is_some() { Account::Entra } else { Account::Keys }
    }

    pub(crate) fn cosmos(&self) -> &Cosmos {
        &self.stack.cosmos.handle
    }

    pub(crate) fn issuer(&self) -> &Issuer {
        &self.stack.issuer.handle
    }

    /// The issuer that plays Entra.
    pub(crate) fn entra(&self) -> &Issuer {
        &self.stack.entra.as_ref().unwrap().handle
    }

    /// A file below the stack's directory.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Where the audit log is.
    pub(crate) fn log(&self) -> PathBuf {
        self.file(".stepgate/audit")
    }

    /// A request to the gateway, without a token.
    pub(crate) fn call(&self, method: &str, path: &str) -> Call<'_> {
        let url = format!("{}{path}", self.server.gateway_url());
        Call { rig: self, method: method.parse().unwrap(), url, headers: HeaderMap::new(), body: Bytes::new() }
    }

    /// A request as an HTTP Task of `client` sends it.
    pub(crate) fn task(&self, client: &str, method: &str, path: &str) -> Call<'_> {
        self.call(method, path).of_task().token(client)
    }

    /// A request as a Cosmos SDK of `client` sends it.
    pub(crate) fn sdk(&self, client: &str, method: &str, path: &str) -> Call<'_> {
        self.call(method, path).header("user-agent", "azsdk-python-cosmos/4.9.0").token(client)
    }

    /// A request to the admin listener.
    pub(crate) async fn admin(&self, method: &str, path: &str, token: Option<&str>) -> (u16, String) {
        self.admin_of(&self.server, method, path, token, "").await
    }

    /// A request with a body to the admin listener of a gateway.
    pub(crate) async fn admin_of(
        &self,
        server: &Server,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: &str,
    ) -> (u16, String) {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", server.admin_url()));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let body = Full::new(Bytes::copy_from_slice(body.as_bytes()));
        let answer = self.exchange(request.body(body).unwrap()).await;
        (answer.status().as_u16(), String::from_utf8(answer.body().to_vec()).unwrap())
    }

    pub(crate) async fn exchange(&self, request: Request<Full<Bytes>>) -> Response<Bytes> {
        self.transport.exchange(request, 64 << 20, PATIENCE).await.unwrap()
    }

    /// A token of `client`, as the issuer's token endpoint gives it.
    pub(crate) fn token(&self, client: &str) -> String {
        self.issuer().token(client).unwrap()
    }

    /// A token made to order.
    pub(crate) fn mint(&self, order: Mint) -> String {
        self.issuer().mint(order).unwrap()
    }

    /// What Cosmos was asked about items, queries, feeds, batches and procedures.
    pub(crate) fn data_requests(&self) -> Vec<Recorded> {
        self.cosmos().recorded().into_iter().filter(|request| request.operation.is_some()).collect()
    }

    /// What Cosmos was asked for callers. Of the rest, the gateway asks on its own account what the account allows; what it asks for
    /// a caller has the caller's request id.
    pub(crate) fn asked_for_callers(&self) -> Vec<Recorded> {
        let callers: HashSet<_> =
            self.records().into_iter().map(|record| record.entry.request_id.to_string()).collect();
        let own = |request: &Recorded| {
            let on_its_own = request.method == "GET" && matches!(&*request.resource_type, "" | "colls");
            on_its_own && !callers.contains(&request.activity_id)
        };
        self.cosmos().recorded().into_iter().filter(|request| !own(request)).collect()
    }

    /// What `stepgate preflight` finds with the configuration of this stack.
    pub(crate) async fn preflight(&self, change: impl FnOnce(&mut Raw)) -> Vec<Check> {
        let mut written = self.written.clone();
        change(&mut written.raw);
        let loaded = config::settle(&written, &[]).unwrap_or_else(|findings| panic!("{findings:?}"));
        stepgate::server::preflight(loaded.config).await
    }

    /// How many resource tokens Cosmos has minted.
    pub(crate) fn mints(&self) -> u64 {
        self.cosmos().mints().values().sum()
    }

    /// The whole audit log, as far as it is written.
    pub(crate) fn records(&self) -> Vec<Record> {
        let mut reader = Reader::from_start(&self.log()).unwrap();
        std::iter::from_fn(|| reader.next(|_| true).unwrap()).collect()
    }

    /// The records of one request, in order.
    pub(crate) fn records_of(&self, answer: &Answer) -> Vec<Record> {
        let id = answer.request_id();
        self.records().into_iter().filter(|record| *record.entry.request_id == *id).collect()
    }

    /// The outcome record of one request.
    pub(crate) fn outcome(&self, answer: &Answer) -> audit::Entry {
        let records = self.records_of(answer);
        let outcome = records.into_iter().find(|record| record.entry.phase == Phase::Outcome);
        outcome.expect("every answer to a known caller has an outcome record").entry
    }

    /// Stops the gateway as SIGTERM does, and waits until it has drained.
    pub(crate) async fn stop(&mut self) {
        self.begin_stop();
        if let Some(running) = self.server.running.take() {
            tokio::time::timeout(PATIENCE, running).await.expect("the drain ends").unwrap().unwrap();
        }
    }

    /// Tells the gateway to stop, and does not wait.
    pub(crate) fn begin_stop(&self) {
        self.server.stop.cancel();
    }
}

/// A request being put together.
pub(crate) struct Call<'a> {
    rig: &'a Rig,
    method: Method,
    url: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Call<'_> {
    /// As HTTP Tasks do it: their `User-Agent`, the `Range` none of them can leave out, and the context headers.
    pub(crate) fn of_task(self) -> Self {
        self.header("user-agent", TASK)
            .header("range", "bytes=0-262144")
            .header("x-stepgate-execution", EXECUTION)
            .header("x-stepgate-state", "SaveOrder")
            .header("x-stepgate-entered", "2026-11-22T21:24:18.139Z")
            .header("x-stepgate-attempt", "0")
    }

    /// To another gateway than the rig's first.
    pub(crate) fn at(mut self, server: &Server) -> Self {
        self.url = self.url.replacen(&self.rig.server.gateway_url(), &server.gateway_url(), 1);
        self
    }

    /// With a bearer token of `client`.
    pub(crate) fn token(self, client: &str) -> Self {
        let token = self.rig.token(client);
        self.bearer(&token)
    }

    pub(crate) fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    /// Adds a header; one that is there already is then there twice.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
        self
    }

    /// Replaces a header.
    pub(crate) fn set(mut self, name: &str, value: &str) -> Self {
        self.headers.insert(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
        self
    }

    /// In the partition of `tenant`.
    pub(crate) fn partition(self, tenant: &str) -> Self {
        self.header("x-ms-documentdb-partitionkey", &format!("[\"{tenant}\"]"))
    }

    pub(crate) fn json(mut self, body: &Value) -> Self {
        self.body = body.to_string().into();
        if self.headers.contains_key("content-type") { self } else { self.header("content-type", "application/json") }
    }

    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// A query, as SDKs send it.
    pub(crate) fn query(self, text: &str) -> Self {
        self.header("x-ms-documentdb-isquery", "True")
            .header("content-type", "application/query+json")
            .json(&json!({ "query": text, "parameters": [] }))
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) async fn send(self) -> Answer {
        let mut request = Request::builder().method(self.method.clone()).uri(&self.url);
        *request.headers_mut().unwrap() = self.headers;
        let answer = self.rig.exchange(request.body(Full::new(self.body)).unwrap()).await;
        let id = answer.headers().get("x-stepgate-request-id");
        assert!(id.is_some(), "no request id on the answer to {} {}: {answer:?}", self.method, self.url);
        Answer(answer)
    }
}

/// What the gateway answered.
#[derive(Debug)]
pub(crate) struct Answer(pub(crate) Response<Bytes>);

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.0.status().as_u16()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.0.headers().get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn request_id(&self) -> String {
        self.header("x-stepgate-request-id").unwrap().to_owned()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(self.0.body()).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(self.0.body()).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// The status and the word of an error body.
    pub(crate) fn error(&self) -> (u16, String) {
        let word = self.json()["error"].as_str().unwrap_or_else(|| panic!("no error word: {}", self.text())).to_owned();
        (self.status(), word)
    }

    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status(), status, "{}", self.text());
        self
    }

    #[track_caller]
    pub(crate) fn refused(self, status: u16, error: &str) -> Self {
        assert_eq!(self.error(), (status, error.to_owned()), "{}", self.text());
        self
    }
}

/// Asks again and again until there is an answer. Every question must itself wait for something (a socket, a file).
pub(crate) async fn soon<T, F: Future<Output = Option<T>>>(ask: impl Fn() -> F) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.expect("it comes about in time")
}

pub(crate) fn members(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => panic!("an object"),
    }
}
