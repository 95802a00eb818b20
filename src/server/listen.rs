//! Accepting connections, and stopping without cutting one off.

use std::{convert::Infallible, io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{
        conn::auto::Builder,
        graceful::{GracefulShutdown, Watcher},
    },
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Service;

/// How long a peer may take for the TLS handshake, and again for the head of a request.
const HEAD: Duration = Duration::from_secs(10);
/// Largest head of a request, in bytes. A workflow token alone may have 16 KiB.
const LARGEST_HEAD: usize = 64 * 1024;
/// Most headers of a request.
const MOST_HEADERS: usize = 100;

/// A service for one connection.
pub(super) trait Answers:
    Service<Request<Incoming>, Response = Response<Full<Bytes>>, Error = Infallible, Future: Send + 'static>
    + Clone
    + Send
    + 'static
{
}

impl<S> Answers for S where
    S: Service<Request<Incoming>, Response = Response<Full<Bytes>>, Error = Infallible, Future: Send + 'static>
        + Clone
        + Send
        + 'static
{
}

/// Serves `service_for(peer)` on each connection until `stop`, then waits up to `drain` for what is in flight. The caller
/// owns the socket and the stop signal.
pub(super) async fn serve<S: Answers>(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    service_for: impl Fn(SocketAddr) -> S,
    stop: CancellationToken,
    drain: Duration,
) {
    let graceful = GracefulShutdown::new();
    let connections = TaskTracker::new();
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, peer)) => {
                let (service, tls, watcher, stop) = (service_for(peer), tls.clone(), graceful.watcher(), stop.clone());
                connections.spawn(async move {
                    // A handshake that is not done at the stop is no request in flight.
                    let ended = match tls {
                        None => converse(stream, service, watcher).await,
                        Some(tls) => match stop.run_until_cancelled(shake(tls, stream)).await {
                            None => Ok(()),
                            Some(Ok(stream)) => converse(stream, service, watcher).await,
                            Some(Err(error)) => Err(error.into()),
                        },
                    };
                    if let Err(error) = ended {
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

async fn shake(tls: TlsAcceptor, stream: TcpStream) -> io::Result<tokio_rustls::server::TlsStream<TcpStream>> {
    timeout(HEAD, tls.accept(stream)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn converse<S: Answers>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    service: S,
    watcher: Watcher,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(LARGEST_HEAD)
        .max_headers(MOST_HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(LARGEST_HEAD as u32)
        .keep_alive_interval(Duration::from_secs(30));
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)).into_owned();
    watcher.watch(connection).await
}
