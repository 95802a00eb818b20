//! The floor in Rust: hyper on both sides and nothing between. `bare-proxy LISTEN UPSTREAM`, both as `host:port`.
//!
//! One thread, a pooled client, `Authorization` replaced as every other target does it; no check, no log.

use std::convert::Infallible;

use http::{HeaderValue, Request, Response, StatusCode, Uri, header::AUTHORIZATION};
use http_body_util::{BodyExt as _, Empty, combinators::BoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use tokio::net::TcpListener;

const CREDENTIAL: HeaderValue = HeaderValue::from_static("type%3dresource%26ver%3d1.0%26sig%3dc3RhdGlj%3bc3RhdGlj%3b");

type Upstream = Client<HttpConnector, Incoming>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(listen), Some(upstream)) = (arguments.next(), arguments.next()) else {
        return Err("usage: bare-proxy LISTEN UPSTREAM".into());
    };
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Upstream = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(64).build(connector);
    let listener = TcpListener::bind(listen).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (client, upstream) = (client.clone(), upstream.clone());
        let service = service_fn(move |request| forward(client.clone(), upstream.clone(), request));
        // A connection that breaks is the caller's loss alone.
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn forward(
    client: Upstream,
    upstream: String,
    request: Request<Incoming>,
) -> Result<Response<BoxBody<bytes::Bytes, hyper::Error>>, Infallible> {
    let answer = async {
        let (mut head, body) = request.into_parts();
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        head.uri = Uri::builder().scheme("http").authority(upstream).path_and_query(path).build().ok()?;
        head.headers.insert(AUTHORIZATION, CREDENTIAL);
        client.request(Request::from_parts(head, body)).await.ok()
    };
    Ok(answer.await.map_or_else(
        || {
            let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed());
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            response
        },
        |answer| answer.map(|body| body.boxed()),
    ))
}
