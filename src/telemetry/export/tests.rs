use std::sync::Mutex;

use opentelemetry::trace::{Span as _, Tracer as _, TracerProvider as _};
use opentelemetry_sdk::{error::OTelSdkError, trace::SpanExporter};

use super::*;

/// A queue that never empties.
#[derive(Debug, Default)]
struct Stuck(Mutex<usize>);

impl SpanProcessor for Stuck {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, _: SpanData) {
        *self.0.lock().unwrap() += 1;
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

#[derive(Debug)]
struct Refusing;

impl SpanExporter for Refusing {
    async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
        Err(OTelSdkError::InternalFailure("told to fail".into()))
    }
}

#[test]
fn what_does_not_fit_into_the_queue_is_dropped_and_counted() {
    let tally = Arc::<Tally>::default();
    let bounded = Bounded { inner: Stuck::default(), tally: tally.clone(), room: 10 };
    let provider = SdkTracerProvider::builder().with_span_processor(bounded).build();
    let tracer = provider.tracer("test");
    for _ in 0..25 {
        tracer.start("span").end();
    }
    assert_eq!(tally.dropped.load(Ordering::Relaxed), 15);
    assert_eq!(tally.queued.load(Ordering::Relaxed), 10);
}

#[test]
fn what_the_collector_does_not_take_is_counted_and_leaves_the_queue() {
    let tally = Arc::<Tally>::default();
    let refusing = BatchSpanProcessor::builder(Counted { inner: Refusing, tally: tally.clone() }).build();
    let bounded = Bounded { inner: refusing, tally: tally.clone(), room: 10 };
    let provider = SdkTracerProvider::builder().with_span_processor(bounded).build();
    for _ in 0..5 {
        provider.tracer("test").start("span").end();
    }
    let _ = provider.force_flush();
    assert_eq!(tally.failed.load(Ordering::Relaxed), 5);
    assert_eq!(tally.exported.load(Ordering::Relaxed), 0);
    assert_eq!(tally.queued.load(Ordering::Relaxed), 0);
}
