//! Accepting connections, and stopping without cutting one off.

use std::{convert::Infallible, io, net::SocketAddr, time::Duration};

use axum::Router;
use futures_util::FutureExt as _;
use http::{Request, Response};
use hyper::{
    body::{Body, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{
        conn::auto::Builder,
        graceful::{GracefulShutdown, Watcher},
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

use super::tls::Certificate;

/// Largest head of a request, in bytes. A workflow token alone may have 16 KiB.
const LARGEST_HEAD: u32 = 64 * 1024;

/// The connection a request came over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Connection {
    /// The other end.
    pub(super) peer: SocketAddr,
    /// Whether it is TLS.
    pub(super) encrypted: bool,
}

/// What answers the requests of a listener.
pub(super) trait Routes: Clone + Send + Sync + 'static {
    type Body: Body<Data: Send, Error: Into<Broken>> + Send + 'static;

    /// The answer to a request that came over this connection.
    fn answer(
        self,
        connection: Connection,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Self::Body>> + Send + 'static;
}

impl Routes for Router {
    type Body = axum::body::Body;

    fn answer(
        self,
        connection: Connection,
        mut request: Request<Incoming>,
    ) -> impl Future<Output = Response<Self::Body>> + Send + 'static {
        request.extensions_mut().insert(connection);
        self.oneshot(request).map(|Ok(answer)| answer)
    }
}

type Broken = Box<dyn std::error::Error + Send + Sync>;

/// Serves `routes` until `stop`, then waits up to `drain` for what is in flight. The caller owns the socket and the stop
/// signal. `head` is how long a peer may take for the TLS handshake, for the head of a request; on HTTP/2,
/// after the first, twice as long.
pub(super) async fn serve(
    listener: TcpListener,
    certificate: Option<Certificate>,
    routes: impl Routes,
    head: Duration,
    stop: CancellationToken,
    drain: Duration,
) {
    let graceful = GracefulShutdown::new();
    let connections = TaskTracker::new();
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, peer)) => {
                let tls = certificate.as_ref().map(Certificate::acceptor);
                let (routes, watcher, stop) = (routes.clone(), graceful.watcher(), stop.clone());
                connections.spawn(async move {
                    if let Err(error) = attend(stream, peer, tls, routes, head, watcher, stop).await {
                        tracing::debug!(%peer, %error, "connection broke");
                    }
                });
            }
            Err(error) => {
                // Out of file descriptors, or a peer that left: neither is a reason to stop serving the others.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    connections.close();
    let finished = async {
        graceful.shutdown().await;
        connections.wait().await;
    };
    if timeout(drain, finished).await.is_err() {
        tracing::warn!(after = ?drain, "connections were still open at the end of the drain");
    }
}

async fn attend(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    routes: impl Routes,
    head: Duration,
    watcher: Watcher,
    stop: CancellationToken,
) -> Result<(), Broken> {
    stream.set_nodelay(true)?;
    let connection = Connection { peer, encrypted: tls.is_some() };
    let Some(tls) = tls else { return converse(stream, connection, routes, head, watcher).await };
    // A handshake that is not done at the stop is no request in flight.
    match stop.run_until_cancelled(shake(tls, stream, head)).await {
        Some(stream) => converse(stream?, connection, routes, head, watcher).await,
        None => Ok(()),
    }
}

async fn shake(tls: TlsAcceptor, stream: TcpStream, head: Duration) -> io::Result<TlsStream<TcpStream>> {
    timeout(head, tls.accept(stream)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    connection: Connection,
    routes: impl Routes,
    head: Duration,
    watcher: Watcher,
) -> Result<(), Broken> {
    let begun = CancellationToken::new();
    let first = begun.clone();
    let service = service_fn(move |request| {
        if !first.is_cancelled() {
            first.cancel();
        }
        routes.clone().answer(connection, request).map(Ok::<_, Infallible>)
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(head)
        // More than a hundred headers hyper refuses by itself; told to, it would clear a list of a hundred for every request.
        .max_buf_size(LARGEST_HEAD as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(LARGEST_HEAD)
        // Whoever is in the middle of a head may send nothing else, and so cannot answer.
        .keep_alive_interval(head)
        .keep_alive_timeout(head);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    // HTTP/1 knows how long a head may take only once it is known to be HTTP/1, and HTTP/2 not at all.
    let silence = async {
        if timeout(head, begun.cancelled()).await.is_ok() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        // What has come is looked at before the time is.
        biased;
        ended = watcher.watch(connection.into_owned()) => ended,
        () = silence => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
    }
}
