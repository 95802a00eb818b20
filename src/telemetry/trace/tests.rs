use std::{
    io::{Read as _, Seek as _},
    sync::{Arc, Mutex},
};

use http::HeaderValue;
use opentelemetry::trace::SpanKind;
use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{SdkTracerProvider, SpanData, SpanExporter},
};

use super::*;
use crate::{
    access::{Assurance, Fact},
    audit::{Answer, Phase},
    telemetry::start::subscriber,
};

/// Keeps what is exported.
#[derive(Clone, Debug, Default)]
struct Kept(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Kept {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap().extend(batch);
        Ok(())
    }
}

/// What `scene` exports.
fn exported(scene: impl FnOnce()) -> Vec<SpanData> {
    let kept = Kept::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(kept.clone()).build();
    let subscriber = subscriber("info", std::io::sink, Some(&provider));
    tracing::dispatcher::with_default(&subscriber, scene);
    let spans = kept.0.lock().unwrap();
    spans.clone()
}

fn headers(name: &'static str, value: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static(value))])
}

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const XRAY: &str = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1";

fn attribute(span: &SpanData, key: &str) -> Option<String> {
    span.attributes.iter().find(|pair| pair.key.as_str() == key).map(|pair| pair.value.to_string())
}

#[test]
fn the_caller_is_understood_in_both_forms() {
    let trace = |headers: &HeaderMap| caller(headers).map(|context| context.trace_id().to_string());
    assert_eq!(trace(&headers("traceparent", TRACEPARENT)).unwrap(), "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(trace(&headers("x-amzn-trace-id", XRAY)).unwrap(), "5759e988bd862e3fe1be46a994272793");
    let mut both = headers("x-amzn-trace-id", XRAY);
    both.extend(headers("traceparent", TRACEPARENT));
    assert_eq!(trace(&both).unwrap(), "4bf92f3577b34da6a3ce929d0e0e4736", "W3C goes first");
    for (name, value) in [
        ("traceparent", "00-00000000000000000000000000000000-00f067aa0ba902b7-01"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736"),
        ("x-amzn-trace-id", "Root=1-5759e988"),
        ("x-amzn-trace-id", "Self=1-5759e988-bd862e3fe1be46a994272793"),
    ] {
        assert_eq!(caller(&headers(name, value)), None, "{name}: {value}");
    }
}

#[test]
fn a_request_is_a_server_span_of_the_callers_trace_with_its_rooms_below() {
    let mut entry = Entry::new(Phase::Outcome, "request-1");
    let execution = "arn:aws:states:eu-west-1:111122223333:execution:Fulfil:run-1";
    entry.context.execution = Some(Fact { value: execution.parse().unwrap(), assurance: Assurance::Claimed });
    entry.answer = Some(Answer { status: 503, error: Some("audit.unavailable".into()), duration: Default::default() });
    let spans = exported(|| {
        let asked = Request::post("/dbs/shop/colls/orders/docs/o-1?secret=1").header("traceparent", TRACEPARENT);
        let span = request(&asked.body(()).unwrap(), true);
        span.in_scope(|| room!("policy").in_scope(|| {}));
        assert!(trace_of(&span, &HeaderMap::new()).unwrap().sampled);
        answered(&span, &entry);
    });
    let [room, server] = spans.as_slice() else { panic!("{spans:?}") };
    assert_eq!(&*server.name, "POST /dbs/{database}/colls/{container}/docs/{item}");
    assert_eq!(server.span_kind, SpanKind::Server);
    assert_eq!(server.span_context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(server.parent_span_id.to_string(), "00f067aa0ba902b7");
    assert_eq!((&*room.name, room.parent_span_id), ("policy", server.span_context.span_id()));
    for (key, value) in [
        ("http.request.method", "POST"),
        ("url.path", "/dbs/shop/colls/orders/docs/o-1"),
        ("url.scheme", "https"),
        ("http.response.status_code", "503"),
        ("error.type", "503"),
        ("stepgate.error", "audit.unavailable"),
        ("stepgate.execution.assurance", "claimed"),
        ("aws.step_functions.state_machine.arn", "arn:aws:states:eu-west-1:111122223333:stateMachine:Fulfil"),
    ] {
        assert_eq!(attribute(server, key).as_deref(), Some(value), "{key}");
    }
    assert!(matches!(server.status, Status::Error { .. }));
}

#[test]
fn without_an_exporter_there_is_no_span() {
    tracing::dispatcher::with_default(&subscriber("info", std::io::sink, None), || {
        let asked = Request::get("/").header("traceparent", TRACEPARENT).body(()).unwrap();
        let span = request(&asked, false);
        assert!(span.is_disabled() && room!("policy").is_disabled());
        let trace = trace_of(&span, asked.headers()).unwrap();
        assert_eq!((trace.id.to_string().as_str(), trace.sampled), ("4bf92f3577b34da6a3ce929d0e0e4736", false));
    });
}

#[test]
fn the_log_does_not_quote_what_agents_ask() {
    let mut file = tempfile::tempfile().unwrap();
    let log = subscriber("trace", Arc::new(file.try_clone().unwrap()), None);
    tracing::dispatcher::with_default(&log, || {
        tracing::warn!(target: "rmcp::service", "response error");
        tracing::error!(target: "rmcp::service", "task failed");
        tracing::debug!("ours");
    });
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    let said = |words: &str| text.contains(words);
    assert_eq!((said("response error"), said("task failed"), said("ours")), (false, true, true), "{text}");
}
