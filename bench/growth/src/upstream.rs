//! The other side: an issuer's address for its keys, or a Cosmos account that knows every permission.

use std::{
    net::TcpListener as StdListener,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use url::Url;

const END: &[u8] = b"\r\n\r\n";

/// A server on loopback that gives one JSON text to whatever it is asked without a body. It has a thread of its own and ends
/// with the program.
#[derive(Debug)]
pub struct Upstream {
    /// Where it listens.
    pub url: Url,
    asked: Arc<AtomicU64>,
}

impl Upstream {
    /// Starts it.
    pub fn start(json: &str) -> Self {
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-ms-request-charge: 1\r\ncontent-length: {}{}{json}",
            json.len(),
            "\r\n\r\n",
        );
        let (answer, asked): (Arc<[u8]>, _) = (answer.into_bytes().into(), Arc::default());
        let listener = StdListener::bind(("127.0.0.1", 0)).expect("a port");
        listener.set_nonblocking(true).expect("a socket that does not block");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        let count = Arc::clone(&asked);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
            runtime.block_on(listen(listener, answer, count));
        });
        Self { url: Url::parse(&url).expect("a URL"), asked }
    }

    /// How often it was asked.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}

async fn listen(listener: StdListener, answer: Arc<[u8]>, asked: Arc<AtomicU64>) {
    let listener = TcpListener::from_std(listener).expect("a listener");
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        tokio::spawn(serve(stream, Arc::clone(&answer), Arc::clone(&asked)));
    }
}

async fn serve(mut stream: TcpStream, answer: Arc<[u8]>, asked: Arc<AtomicU64>) {
    stream.set_nodelay(true).expect("a socket");
    let mut read = Vec::with_capacity(4096);
    while stream.read_buf(&mut read).await.is_ok_and(|bytes| bytes > 0) {
        while let Some(at) = read.windows(END.len()).position(|window| window == END) {
            read.drain(..at + END.len());
            asked.fetch_add(1, Ordering::Relaxed);
            if stream.write_all(&answer).await.is_err() {
                return;
            }
        }
    }
}
