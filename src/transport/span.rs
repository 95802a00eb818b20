//! The span of one HTTP exchange, and the `traceparent` by which the other side joins the trace.
//!
//! Only what is done for a request has one: an exchange of the background is no part of a trace, and would be one by itself.

use bytes::Bytes;
use http::{Request, Response};
use opentelemetry::{propagation::TextMapPropagator as _, trace::Status};
use opentelemetry_http::HeaderInjector;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::TransportError;

/// The target of every span that is exported. Without an exporter nobody wants it, and no span is made.
pub const SPANS: &str = "stepgate::span";

/// The span of `request`, which then carries its context.
pub(super) fn begin<B>(request: &mut Request<B>) -> Span {
    if Span::current().is_none() {
        return Span::none();
    }
    let span = tracing::info_span!(target: SPANS, "exchange", otel.kind = "client", otel.name = %request.method());
    if span.is_disabled() {
        return span;
    }
    let uri = request.uri();
    span.set_attribute("http.request.method", request.method().to_string());
    span.set_attribute("server.address", uri.host().unwrap_or_default().to_owned());
    let usual = if uri.scheme_str() == Some("http") { 80 } else { 443 };
    span.set_attribute("server.port", i64::from(uri.port_u16().unwrap_or(usual)));
    // Without its query, which can hold what nobody should read.
    let (scheme, authority) = (uri.scheme_str().unwrap_or_default(), uri.authority().map_or("", |a| a.as_str()));
    span.set_attribute("url.full", format!("{scheme}://{authority}{}", uri.path()));
    TraceContextPropagator::new().inject_context(&span.context(), &mut HeaderInjector(request.headers_mut()));
    span
}

/// Writes onto the span what came back.
pub(super) fn end(span: &Span, answered: &Result<Response<Bytes>, TransportError>) {
    if span.is_disabled() {
        return;
    }
    let error = match answered {
        Ok(answer) => {
            let status = answer.status();
            span.set_attribute("http.response.status_code", i64::from(status.as_u16()));
            (status.as_u16() >= 400).then(|| status.as_str().to_owned())
        }
        Err(TransportError::Connect(_)) => Some("connect".to_owned()),
        Err(TransportError::Broken(_)) => Some("broken".to_owned()),
        Err(TransportError::Deadline(_)) => Some("timeout".to_owned()),
        Err(TransportError::TooLarge(_)) => Some("too_large".to_owned()),
        Err(TransportError::NoRoom) => Some("no_room".to_owned()),
    };
    if let Some(error) = error {
        span.set_attribute("error.type", error);
        span.set_status(Status::error(""));
    }
}
