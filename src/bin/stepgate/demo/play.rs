//! The stage: the whole stack on free ports, and requests as an HTTP Task sends them.

use std::{
    fs, io,
    path::PathBuf,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use serde_json::{Map, Value};
use stepgate::{
    clock::Clock,
    config::{self, dev::Dev},
    dev::{
        bundle,
        cosmos::Cosmos,
        issuer::{Issuer, Mint},
        stack::Stack,
    },
    server::Server,
    transport::Transport,
};
use tokio_util::sync::CancellationToken;

use crate::dev::{Trouble, fetch_token};

/// The order that the workflow ships.
pub(super) const ORDER: &str = "/dbs/shop/colls/orders/docs/o-1001?partitionKey=t1";
/// The items of its container.
pub(super) const ORDERS: &str = "/dbs/shop/colls/orders/docs";

/// The whole stack, in a temporary directory.
pub(super) struct Stage {
    directory: tempfile::TempDir,
    dev: Dev,
    stack: Stack,
    server: Server,
    transport: Transport,
    execution: String,
}

/// An HTTP Task.
pub(super) struct Task {
    state: &'static str,
    attempt: u32,
    method: Method,
    path: &'static str,
    headers: Vec<(&'static str, String)>,
    body: String,
}

/// What a task hears back.
pub(super) struct Heard {
    pub(super) status: u16,
    pub(super) took: Duration,
    body: Value,
}

impl Heard {
    /// A text member of the answer's body.
    pub(super) fn text(&self, member: &str) -> String {
        self.body.get(member).and_then(Value::as_str).unwrap_or_default().to_owned()
    }
}

impl Task {
    pub(super) fn get(state: &'static str, path: &'static str) -> Self {
        Self { state, attempt: 0, method: Method::GET, path, headers: Vec::new(), body: String::new() }
    }

    pub(super) fn post(state: &'static str, path: &'static str, body: &Value) -> Self {
        Self { method: Method::POST, body: body.to_string(), ..Self::get(state, path) }
    }

    pub(super) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub(super) fn token(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub(super) fn attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self
    }
}

impl Stage {
    /// Starts everything.
    pub(super) async fn set(environment: &[(String, String)]) -> Result<Self, Trouble> {
        let directory = tempfile::Builder::new().prefix("stepgate-demo-").tempdir()?;
        let file = bundle::unpack(directory.path())?;
        let mut written = config::read(&file, &[]).map_err(Trouble::Findings)?;
        let Some(mut dev) = written.raw.dev.clone() else { return Err(Trouble::Failure("no dev section".into())) };
        let asked = dev.clone();
        dev.cosmos.listen.set_port(0);
        dev.issuer.listen.set_port(0);
        let stack = Stack::start(&dev).await?;
        stack.wire(&mut written.raw, &asked);
        written.raw.listen.set_port(0);
        written.raw.admin.set_port(0);
        let loaded = config::settle(&written, environment).map_err(Trouble::Findings)?;
        let server = Server::start(loaded.config).await?;
        let run = Clock::System.now().as_secs();
        Ok(Self {
            directory,
            dev,
            stack,
            server,
            transport: Transport::new(None)?,
            execution: format!("arn:aws:states:eu-west-1:111122223333:execution:Fulfil:demo-{run}"),
        })
    }

    /// Serves until `played` ends, then drains.
    pub(super) async fn serve_while<T>(&self, played: impl Future<Output = T>) -> (io::Result<()>, T) {
        let stop = CancellationToken::new();
        let played = async {
            let outcome = played.await;
            stop.cancel();
            outcome
        };
        tokio::join!(self.server.run(stop.clone()), played)
    }

    pub(super) fn addresses(&self) -> [(&'static str, String); 4] {
        [
            ("gateway", self.server.gateway_url()),
            ("admin", self.server.admin_url()),
            ("issuer", self.stack.issuer.url()),
            ("cosmos", format!("{} (stand-in)", self.stack.cosmos.url())),
        ]
    }

    pub(super) fn execution(&self) -> &str {
        &self.execution
    }

    pub(super) fn audit_directory(&self) -> PathBuf {
        self.directory.path().join(".stepgate/audit")
    }

    pub(super) fn cosmos(&self) -> &Cosmos {
        &self.stack.cosmos.handle
    }

    pub(super) fn issuer(&self) -> &Issuer {
        &self.stack.issuer.handle
    }

    /// A token, asked for as an EventBridge connection asks.
    pub(super) async fn token(&self, client: &str) -> Result<String, Trouble> {
        fetch_token(&self.transport, &self.stack.issuer.url(), &self.dev, client).await
    }

    /// A token with the claims of a client, to be made bad.
    pub(super) fn mint(&self, client: &str) -> Mint {
        let claims = [("sub", client), ("client_id", client), ("token_kind", "workload"), ("tenant", "t1")];
        let claims = claims.map(|(name, value)| (name.to_owned(), Value::from(value)));
        Mint { claims: Map::from_iter(claims), ..Mint::default() }
    }

    /// Makes a new account key; Cosmos refuses the old one from this moment.
    pub(super) fn rotate_account_key(&self) -> Result<(), Trouble> {
        let key = self.cosmos().rotate_key()?;
        fs::write(self.directory.path().join("config/emulator-account-key"), key.expose())?;
        Ok(())
    }

    /// Sends a task as Step Functions does: its User-Agent, its Range, and the context headers of the definition.
    pub(super) async fn ask(&self, task: Task) -> Result<Heard, Trouble> {
        let mut request = Request::builder()
            .method(task.method)
            .uri(format!("{}{}", self.server.gateway_url(), task.path))
            .header("user-agent", "Amazon|StepFunctions|HttpInvoke|eu-west-1")
            .header("range", "bytes=0-262144")
            .header("content-type", "application/json; charset=UTF-8")
            .header("x-stepgate-execution", &self.execution)
            .header("x-stepgate-state", task.state)
            .header("x-stepgate-entered", Clock::System.now().rfc3339())
            .header("x-stepgate-attempt", task.attempt);
        for (name, value) in task.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(Bytes::from(task.body)))?;
        let sent = Instant::now();
        let response = self.transport.exchange(request, 8 << 20, Duration::from_secs(20)).await?;
        Ok(Heard {
            status: response.status().as_u16(),
            took: sent.elapsed(),
            body: serde_json::from_slice(response.body()).unwrap_or_default(),
        })
    }

    /// Leaves the directory in place, and says where it is.
    pub(super) fn keep(self) -> PathBuf {
        let Self { directory, .. } = self;
        directory.keep()
    }
}
