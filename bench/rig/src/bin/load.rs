//! Sends a mixture of requests when they are due: `load PLAN`, a JSON file ([`Plan`]).
//!
//! Standard output gets JSON lines: each answer that is not as expected when it comes, and once a second what was answered in
//! it. A latency counts from the moment at which the request was due, whether or not a connection was free then: the timer that
//! paces knows nothing of the answers, so that a gateway that stands still cannot slow down who measures it.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashMap, VecDeque},
    error::Error,
    fs,
    io::{Write as _, stdout},
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::Semaphore,
    task::{JoinSet, LocalSet, spawn_local},
    time::{Instant, interval, sleep_until, timeout},
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};

/// An HTTP Task gives up after 60 s; what takes longer than this was forgotten.
const PATIENCE: Duration = Duration::from_secs(70);
/// So many requests in a row are of one execution.
const STATES: u64 = 8;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plan {
    /// `http://` or `https://`, host and port.
    base: String,
    /// The authority that its certificate must come from.
    ca: Option<PathBuf>,
    /// A directory with a token in each file, read again every second.
    tokens: PathBuf,
    connections: usize,
    /// A connection is not used for longer.
    connection_seconds: u64,
    seconds: u64,
    /// Requests a second; 0 keeps every connection busy.
    rate: f64,
    /// So many are due at once.
    batch: u32,
    kinds: Vec<Kind>,
}

/// In `path`, `headers` and `body` `{id}` is a number that no other request of the kind has at the time, `{n}` one that no other
/// has ever, and `{execution}` one that a few in a row have.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kind {
    /// What its answers are counted under.
    name: String,
    /// How many of all, in proportion to the other kinds.
    share: i64,
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
    body: String,
    token: String,
    expect: Vec<u16>,
    /// How many `{id}` there are: 0 where there is none, else no fewer than connections.
    ids: u64,
    /// The item is read first, and the request sent under the etag that was read. The read is counted under this name.
    read_first: Option<String>,
}

/// What happened in a second, of one name.
#[derive(Default, Serialize)]
struct Count {
    answers: BTreeMap<u16, u64>,
    /// How many took so many microseconds, of which three digits are kept.
    micros: BTreeMap<u64, u64>,
}

struct Answer {
    /// 0 where there was none.
    status: u16,
    etag: Option<String>,
    request_id: String,
    text: String,
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    until: Instant,
}

/// Whose turn it is among the kinds: the one with most credit.
struct Turn {
    credit: i64,
    free: VecDeque<u64>,
}

/// What a connection is made over.
trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

struct Load {
    plan: Plan,
    address: String,
    tls: Option<TlsConnector>,
    tokens: RefCell<HashMap<String, String>>,
    idle: RefCell<VecDeque<Connection>>,
    turns: RefCell<Vec<Turn>>,
    places: Semaphore,
    number: Cell<u64>,
    counts: RefCell<BTreeMap<String, Count>>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let file = std::env::args().nth(1).ok_or("usage: load PLAN")?;
    let plan: Plan = serde_json::from_slice(&fs::read(file)?)?;
    let load = Rc::new(Load::new(plan)?);
    LocalSet::new().run_until(load.run()).await
}

impl Load {
    fn new(plan: Plan) -> Result<Self, Box<dyn Error>> {
        let base: Uri = plan.base.parse()?;
        let address = base.authority().ok_or("the base has no host")?.to_string();
        let tls = match &plan.ca {
            Some(ca) => {
                let mut roots = RootCertStore::empty();
                roots.add(CertificateDer::from_pem_file(ca)?)?;
                let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
                Some(TlsConnector::from(Arc::new(config)))
            }
            None => None,
        };
        let load = Self {
            turns: RefCell::new(
                plan.kinds.iter().map(|kind| Turn { credit: 0, free: (0..kind.ids).collect() }).collect(),
            ),
            places: Semaphore::new(plan.connections),
            plan,
            address,
            tls,
            tokens: RefCell::default(),
            idle: RefCell::default(),
            number: Cell::default(),
            counts: RefCell::default(),
        };
        load.read_tokens()?;
        Ok(load)
    }

    async fn run(self: Rc<Self>) -> Result<(), Box<dyn Error>> {
        let reporter = spawn_local(Rc::clone(&self).report());
        let end = Instant::now() + Duration::from_secs(self.plan.seconds);
        let mut flying = JoinSet::new();
        if self.plan.rate > 0.0 {
            self.pace(&mut flying, end).await;
        } else {
            for _ in 0..self.plan.connections {
                let load = Rc::clone(&self);
                flying.spawn_local(async move {
                    while Instant::now() < end {
                        load.send(Instant::now()).await;
                    }
                });
            }
        }
        while flying.join_next().await.is_some() {}
        reporter.abort();
        self.print_counts();
        Ok(())
    }

    async fn pace(self: &Rc<Self>, flying: &mut JoinSet<()>, end: Instant) {
        let begin = Instant::now();
        for batch in 0_u32.. {
            let due = begin + Duration::from_secs_f64(f64::from(batch * self.plan.batch) / self.plan.rate);
            if due >= end {
                return;
            }
            sleep_until(due).await;
            // The timer goes by milliseconds; what it is late is nobody's latency.
            let due = Instant::now();
            for _ in 0..self.plan.batch {
                let load = Rc::clone(self);
                flying.spawn_local(async move {
                    let place = load.places.acquire().await;
                    load.send(due).await;
                    drop(place);
                });
            }
            while flying.try_join_next().is_some() {}
        }
    }

    /// Sends the request whose turn it is, with its read where it has one.
    async fn send(&self, mut due: Instant) {
        let (number, id) = self.turn();
        let Some(kind) = self.plan.kinds.get(number) else { return };
        let mut etag = None;
        if let Some(name) = &kind.read_first {
            let read = Kind { name: name.clone(), method: "GET".into(), expect: vec![200], ..kind.clone() };
            etag = self.exchange(&read, id, None, due).await;
            due = Instant::now();
        }
        // A read that failed was told of, and leaves nothing to send the request under.
        if etag.is_some() || kind.read_first.is_none() {
            self.exchange(kind, id, etag, due).await;
        }
        if let Some(turns) = self.turns.borrow_mut().get_mut(number) {
            turns.free.push_back(id);
        }
    }

    /// Each kind as often as its share says, and as evenly as can be; and an id of it that is free.
    fn turn(&self) -> (usize, u64) {
        let mut turns = self.turns.borrow_mut();
        for (turn, kind) in turns.iter_mut().zip(&self.plan.kinds) {
            turn.credit += kind.share;
        }
        let Some((number, turn)) = turns.iter_mut().enumerate().max_by_key(|(_, turn)| turn.credit) else {
            return (0, 0);
        };
        turn.credit -= self.plan.kinds.iter().map(|kind| kind.share).sum::<i64>();
        (number, turn.free.pop_front().unwrap_or_default())
    }

    /// One request and its answer, counted, and told of where it is not as expected. Gives the etag of one that is.
    async fn exchange(&self, kind: &Kind, id: u64, etag: Option<String>, due: Instant) -> Option<String> {
        let sent = unix_seconds();
        let answer = match timeout(PATIENCE, self.ask(kind, id, etag)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => none(error.to_string()),
            Err(_) => none(format!("no answer within {} s", PATIENCE.as_secs())),
        };
        let mut counts = self.counts.borrow_mut();
        let count = counts.entry(kind.name.clone()).or_default();
        *count.answers.entry(answer.status).or_default() += 1;
        let micros = u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX);
        *count.micros.entry(three_digits(micros)).or_default() += 1;
        if kind.expect.contains(&answer.status) {
            return answer.etag;
        }
        let text: String = answer.text.chars().take(400).collect();
        let line = json!({
            "unexpected": kind.name, "sent": sent, "answered": unix_seconds(), "status": answer.status, "text": text,
            "request_id": answer.request_id, "token": kind.token,
        });
        tell(&line);
        None
    }

    async fn ask(&self, kind: &Kind, id: u64, etag: Option<String>) -> Result<Answer, Box<dyn Error>> {
        let number = self.number.replace(self.number.get() + 1);
        let fill = |text: &str| {
            text.replace("{id}", &id.to_string())
                .replace("{n}", &number.to_string())
                .replace("{execution}", &(number / STATES).to_string())
        };
        let token = self.tokens.borrow().get(&kind.token).cloned().ok_or_else(|| format!("no token {}", kind.token))?;
        let mut request = Request::builder()
            .method(kind.method.as_str())
            .uri(fill(&kind.path))
            .header(header::HOST, &self.address)
            .header(header::AUTHORIZATION, format!("Bearer {token}"));
        for (name, value) in &kind.headers {
            request = request.header(name, fill(value));
        }
        if let Some(etag) = etag {
            request = request.header("x-stepgate-if-match", etag);
        }
        let body = if kind.method == "GET" { String::new() } else { fill(&kind.body) };
        let mut connection = self.connect().await?;
        let response = connection.sender.send_request(request.body(Full::from(body))?).await?;
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        if Instant::now() < connection.until && connection.sender.ready().await.is_ok() {
            self.idle.borrow_mut().push_back(connection);
        }
        let named = |name: &str| value(&head.headers, name);
        Ok(Answer {
            status: head.status.as_u16(),
            etag: named("etag"),
            request_id: named("x-stepgate-request-id").unwrap_or_default(),
            text: if head.status < StatusCode::BAD_REQUEST {
                String::new()
            } else {
                String::from_utf8_lossy(&body).into()
            },
        })
    }

    /// The connection that was idle for longest, or a new one.
    async fn connect(&self) -> Result<Connection, Box<dyn Error>> {
        loop {
            let Some(connection) = self.idle.borrow_mut().pop_front() else { break };
            if Instant::now() < connection.until && connection.sender.is_ready() {
                return Ok(connection);
            }
        }
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match &self.tls {
            Some(tls) => {
                let host = self.address.rsplit_once(':').map_or(self.address.as_str(), |(host, _)| host);
                Box::new(tls.connect(ServerName::try_from(host.to_owned())?, stream).await?)
            }
            None => Box::new(stream),
        };
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        spawn_local(connection);
        Ok(Connection { sender, until: Instant::now() + Duration::from_secs(self.plan.connection_seconds) })
    }

    /// Every second: what was answered in it, and the tokens anew.
    async fn report(self: Rc<Self>) {
        let mut ticks = interval(Duration::from_secs(1));
        ticks.tick().await;
        loop {
            ticks.tick().await;
            self.print_counts();
            if let Err(error) = self.read_tokens() {
                let (now, text) = (unix_seconds(), error.to_string());
                tell(&json!({"unexpected": "tokens", "sent": now, "answered": now, "status": 0, "text": text}));
            }
        }
    }

    fn print_counts(&self) {
        tell(&json!({"until": unix_seconds(), "counts": self.counts.take()}));
    }

    fn read_tokens(&self) -> Result<(), Box<dyn Error>> {
        let mut tokens = self.tokens.borrow_mut();
        for entry in fs::read_dir(&self.plan.tokens)? {
            let path = entry?.path();
            if let Some(name) = path.file_name().and_then(|name| name.to_str()) {
                tokens.insert(name.to_owned(), fs::read_to_string(&path)?.trim().to_owned());
            }
        }
        Ok(())
    }
}

/// Prints a line. Without a reader the load has no purpose any more.
fn tell(line: &Value) {
    if writeln!(stdout(), "{line}").is_err() {
        std::process::exit(1);
    }
}

fn none(text: String) -> Answer {
    Answer { status: 0, etag: None, request_id: String::new(), text }
}

fn value(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

fn three_digits(number: u64) -> u64 {
    let unit = 10_u64.pow(number.checked_ilog10().unwrap_or_default().saturating_sub(2));
    number / unit * unit
}

#[allow(
    clippy::disallowed_methods,
    reason = "a program beside the gateway, whose reader compares with other programs' time"
)]
fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
