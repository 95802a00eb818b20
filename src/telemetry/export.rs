//! Where spans go: to a collector by OTLP, through a bounded queue.
//!
//! No request ever waits for a collector. What does not fit into the queue is dropped, what the collector does not take is lost;
//! both are counted. The queue and the batches are the SDK's own, on a thread of its own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{
    ExporterBuildError, Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _, WithTonicConfig as _,
    tonic_types::transport::ClientTlsConfig,
};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, Span, SpanData, SpanProcessor},
};
use tokio::runtime::Handle;
use url::Url;

use crate::transport::{Transport, TransportSetup};

/// Most spans that wait to be sent.
const QUEUE: usize = 8_192;
/// Longest that one export may take.
const EXPORT: Duration = Duration::from_secs(10);
/// Longest answer of a collector that is read, in bytes.
const LARGEST_ANSWER: usize = 64 * 1024;

/// Where spans are sent, and which.
#[derive(Clone, PartialEq, Debug)]
pub struct Otlp {
    /// The collector, such as `http://127.0.0.1:4317`.
    pub endpoint: Url,
    /// How it is spoken to.
    pub protocol: OtlpProtocol,
    /// What share of the traces that begin here is exported, from 0 to 1. What a caller samples is exported.
    pub sample_ratio: f64,
}

/// How a collector is spoken to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OtlpProtocol {
    /// gRPC, as a rule on port 4317.
    Grpc,
    /// HTTP with protobuf, as a rule on port 4318.
    Http,
}

/// Spans cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum OtlpSetup {
    /// The exporter refuses its configuration.
    #[error(
        "cannot send traces to {endpoint}: {reason}; look at `telemetry` in the configuration, and at OTEL_EXPORTER_OTLP_*"
    )]
    Exporter {
        /// The collector.
        endpoint: Url,
        /// What the exporter said.
        reason: ExporterBuildError,
    },
    /// No client can be made.
    #[error(transparent)]
    Transport(#[from] TransportSetup),
}

/// What became of spans.
#[derive(Debug, Default)]
pub(super) struct Tally {
    queued: AtomicUsize,
    pub(super) exported: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) dropped: AtomicU64,
}

/// Makes the provider of spans. To be called on the runtime that shall carry the exchanges.
pub(super) fn provider(service: &str, otlp: &Otlp, tally: &Arc<Tally>) -> Result<SdkTracerProvider, OtlpSetup> {
    let exporter = Counted { inner: exporter(otlp)?, tally: tally.clone() };
    let batches = BatchConfigBuilder::default().with_max_queue_size(QUEUE).build();
    let batches = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
    let resource = Resource::builder()
        .with_service_name(service.to_owned())
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    Ok(SdkTracerProvider::builder()
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(otlp.sample_ratio))))
        .with_span_processor(Bounded { inner: batches, tally: tally.clone(), room: QUEUE })
        .with_resource(resource.build())
        .build())
}

fn exporter(otlp: &Otlp) -> Result<SpanExporter, OtlpSetup> {
    let refuse = |reason| OtlpSetup::Exporter { endpoint: otlp.endpoint.clone(), reason };
    match otlp.protocol {
        OtlpProtocol::Grpc => {
            let builder =
                SpanExporter::builder().with_tonic().with_endpoint(otlp.endpoint.as_str()).with_timeout(EXPORT);
            let builder = match otlp.endpoint.scheme() {
                "https" => builder.with_tls_config(ClientTlsConfig::new().with_native_roots()),
                _ => builder,
            };
            builder.build().map_err(refuse)
        }
        OtlpProtocol::Http => {
            let client = Client { transport: Transport::new(None)?, runtime: Handle::current() };
            let mut endpoint = otlp.endpoint.clone();
            if endpoint.path() == "/" {
                endpoint.set_path("/v1/traces");
            }
            let builder = SpanExporter::builder().with_http().with_http_client(client).with_timeout(EXPORT);
            builder.with_protocol(Protocol::HttpBinary).with_endpoint(endpoint).build().map_err(refuse)
        }
    }
}

/// The gateway's own HTTP client for the exporter, whose thread has no runtime.
#[derive(Debug)]
struct Client {
    transport: Transport,
    runtime: Handle,
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (transport, request) = (self.transport.clone(), request.map(Full::new));
        let exchange = self.runtime.spawn(async move { transport.exchange(request, LARGEST_ANSWER, EXPORT).await });
        Ok(exchange.await??)
    }
}

/// Lets no more spans into the queue than it holds.
#[derive(Debug)]
struct Bounded<P> {
    inner: P,
    tally: Arc<Tally>,
    room: usize,
}

impl<P: SpanProcessor> SpanProcessor for Bounded<P> {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.inner.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if !span.span_context.is_sampled() {
            return;
        }
        if self.tally.queued.fetch_add(1, Ordering::Relaxed) < self.room {
            self.inner.on_end(span);
        } else {
            self.tally.queued.fetch_sub(1, Ordering::Relaxed);
            self.tally.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Counts what becomes of the spans that leave the queue, and tells when that changes.
#[derive(Debug)]
struct Counted<E> {
    inner: E,
    tally: Arc<Tally>,
}

impl<E: opentelemetry_sdk::trace::SpanExporter> opentelemetry_sdk::trace::SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let number = batch.len();
        self.tally.queued.fetch_sub(number, Ordering::Relaxed);
        let exported = self.inner.export(batch).await;
        let count = if exported.is_ok() { &self.tally.exported } else { &self.tally.failed };
        count.fetch_add(number as u64, Ordering::Relaxed);
        if let Err(error) = &exported {
            tracing::warn!(%error, spans = number, "spans could not be exported");
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

#[cfg(test)]
mod tests;
