//! Starting the log and the export of spans: once for a process, by whoever runs it.

use std::{
    sync::{Arc, OnceLock, atomic::Ordering},
    time::Duration,
};

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{Dispatch, Level};
use tracing_subscriber::{
    EnvFilter, Layer as _,
    filter::{FilterExt as _, filter_fn},
    fmt::MakeWriter,
    layer::SubscriberExt as _,
};

use super::{
    export::{self, Otlp, OtlpSetup, Tally},
    lines::{Lines, LinesWriter},
    log::Log,
};
use crate::transport::SPANS;

/// Longest that the last spans may take to leave.
const FLUSH: Duration = Duration::from_secs(5);

/// What is started.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// What the log shows, such as `info` or `stepgate=debug`.
    pub log: String,
    /// Under which name spans are found.
    pub service_name: String,
    /// Where spans are sent; `None` makes none.
    pub otlp: Option<Otlp>,
}

impl Config {
    /// The log alone, filtered by `log`.
    pub fn log_alone(log: &str) -> Self {
        Self { log: log.to_owned(), service_name: "stepgate".to_owned(), otlp: None }
    }
}

/// The log and the export of spans, at work until [`Telemetry::stop`].
#[derive(Debug)]
pub struct Telemetry {
    spans: Option<SdkTracerProvider>,
    /// Writes what waits when it is dropped.
    _lines: Option<LinesWriter>,
}

/// What was lost on the way to the operator, and what was not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Delivery {
    /// Spans the collector took.
    pub spans_exported: u64,
    /// Spans it did not take.
    pub spans_failed: u64,
    /// Spans that found the queue full.
    pub spans_dropped: u64,
    /// Lines of the log that found the queue full.
    pub lines_dropped: u64,
}

/// The log and the spans belong to the process, and so do their counts.
static RUNNING: OnceLock<(Arc<Tally>, Lines)> = OnceLock::new();

impl Telemetry {
    /// Starts the log, as JSON lines on standard error, and the export of spans. To be called on the runtime that shall carry
    /// the exports. A second start in one process keeps the first one's log.
    pub fn start(config: &Config) -> Result<Self, OtlpSetup> {
        let tally = Arc::<Tally>::default();
        let spans =
            config.otlp.as_ref().map(|otlp| export::provider(&config.service_name, otlp, &tally)).transpose()?;
        let lines = Lines::default();
        let subscriber = subscriber(&config.log, lines.clone(), spans.as_ref());
        let mut _lines = None;
        if tracing::dispatcher::set_global_default(subscriber).is_ok() {
            _lines = lines.write_to(std::io::stderr()).ok();
            let _ = RUNNING.set((tally, lines));
        }
        Ok(Self { spans, _lines })
    }

    /// Sends what waits to be sent, and writes what waits to be written.
    pub async fn stop(self) {
        let Some(spans) = self.spans.clone() else { return };
        let flushed = tokio::task::spawn_blocking(move || spans.shutdown_with_timeout(FLUSH)).await;
        if let Ok(Err(error)) = flushed {
            tracing::warn!(%error, "the last spans could not be exported");
        }
    }

    /// What was delivered since the start.
    pub fn delivery() -> Delivery {
        let Some((spans, lines)) = RUNNING.get() else { return Delivery::default() };
        Delivery {
            spans_exported: spans.exported.load(Ordering::Relaxed),
            spans_failed: spans.failed.load(Ordering::Relaxed),
            spans_dropped: spans.dropped.load(Ordering::Relaxed),
            lines_dropped: lines.dropped(),
        }
    }
}

/// Events for the log, spans for the exporter alone. Without an exporter there is no layer for spans, not one that is `None`:
/// that one would count as wanting them, and every request would make some for nobody.
pub(super) fn subscriber<W>(filter: &str, writer: W, spans: Option<&SdkTracerProvider>) -> Dispatch
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    // What rmcp says below an error quotes what callers ask and are answered.
    let discreet =
        |about: &tracing::Metadata<'_>| !about.target().starts_with("rmcp") || *about.level() <= Level::ERROR;
    let log = Log(writer).with_filter(filter.and(filter_fn(move |about| about.is_event() && discreet(about))));
    let log = tracing_subscriber::registry().with(log);
    let Some(provider) = spans else { return Dispatch::new(log) };
    let traces = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("stepgate"))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_level(false)
        .with_tracked_inactivity(false)
        .with_context_activation(false)
        .with_filter(filter_fn(|about| about.is_span() && about.target() == SPANS));
    Dispatch::new(log.with(traces))
}
