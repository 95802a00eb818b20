//! Spans: one of the server kind for each request, a child for each room it walks through, and below those one of the client
//! kind for each HTTP exchange (`transport`).
//!
//! Attributes follow the OpenTelemetry semantic conventions for HTTP and for databases (Azure Cosmos DB); what is the gateway's
//! own begins with `stepgate.`. Without an exporter no span is made: the call sites are off, and what is left of one is a load
//! and a branch.

use http::{HeaderMap, HeaderName, Method, Request, Version};
pub use opentelemetry::trace::TraceId;
use opentelemetry::{
    Context, StringValue, Value,
    propagation::TextMapPropagator as _,
    trace::{SpanContext, Status, TraceContextExt as _},
};
use opentelemetry_aws::trace::XrayPropagator;
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::{Level, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::{
    access::{Action, ContainerName, Operation},
    audit::Entry,
    transport::SPANS,
    upstream::{Failure, UpstreamAnswer},
};

/// Longest path that a span carries, in characters.
const LONGEST_PATH: usize = 1024;

/// The span of a room, a child of the request's.
macro_rules! room {
    ($name:literal) => {
        tracing::info_span!(target: $crate::transport::SPANS, $name)
    };
}
pub(crate) use room;

/// The trace a request belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trace {
    /// Its id.
    pub id: TraceId,
    /// Whether its spans are exported.
    pub sampled: bool,
}

/// The span of a request that has come in: a child of the caller's, where the caller says so.
pub fn request<B>(request: &Request<B>, encrypted: bool) -> Span {
    if !tracing::span_enabled!(target: SPANS, Level::INFO) {
        return Span::none();
    }
    let route = route(request.uri().path());
    let span = tracing::info_span!(
        target: SPANS, "request", otel.kind = "server", otel.name = %Name(request.method(), route));
    if let Some(caller) = caller(request.headers()) {
        // It fails for a span that has begun, which this one has not.
        let _ = span.set_parent(Context::new().with_remote_span_context(caller));
    }
    set(&span, "http.request.method", request.method().to_string());
    set(&span, "url.scheme", if encrypted { "https" } else { "http" });
    set(&span, "network.protocol.version", if request.version() == Version::HTTP_2 { "2" } else { "1.1" });
    // A path that is none of these may be anything, also a token that a caller put into the wrong place.
    if let Some(route) = route {
        set(&span, "http.route", route);
        set(&span, "url.path", request.uri().path().chars().take(LONGEST_PATH).collect::<String>());
    }
    span
}

struct Name<'a>(&'a Method, Option<&'static str>);

impl std::fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.1 {
            Some(route) => write!(f, "{} {route}", self.0),
            None => self.0.fmt(f),
        }
    }
}

/// The pattern that a path has, as names of spans want it: without the values in it.
fn route(path: &str) -> Option<&'static str> {
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    Some(match segments.as_slice() {
        [""] => "/",
        ["preflight"] => "/preflight",
        ["mcp"] => "/mcp",
        ["oauth2", "token"] => "/oauth2/token",
        ["dbs", _, "colls", _] => "/dbs/{database}/colls/{container}",
        ["dbs", _, "colls", _, "pkranges"] => "/dbs/{database}/colls/{container}/pkranges",
        ["dbs", _, "colls", _, "docs"] => "/dbs/{database}/colls/{container}/docs",
        ["dbs", _, "colls", _, "docs", _] => "/dbs/{database}/colls/{container}/docs/{item}",
        ["dbs", _, "colls", _, "sprocs", _] => "/dbs/{database}/colls/{container}/sprocs/{procedure}",
        _ => return None,
    })
}

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const X_AMZN_TRACE_ID: HeaderName = HeaderName::from_static("x-amzn-trace-id");

/// Where the caller says that it is: W3C `traceparent`, else `X-Amzn-Trace-Id` as X-Ray and load balancers write it.
fn caller(headers: &HeaderMap) -> Option<SpanContext> {
    if !headers.contains_key(TRACEPARENT) && !headers.contains_key(X_AMZN_TRACE_ID) {
        return None;
    }
    let valid = |context: Context| Some(context.span().span_context().clone()).filter(SpanContext::is_valid);
    let (headers, nothing) = (HeaderExtractor(headers), Context::new());
    valid(TraceContextPropagator::new().extract_with_context(&nothing, &headers))
        .or_else(|| valid(XrayPropagator::default().extract_with_context(&nothing, &headers)))
}

/// The trace of a request's span; without an exporter the one that the caller names, so that the log can be joined with his.
pub fn trace_of(span: &Span, headers: &HeaderMap) -> Option<Trace> {
    let (context, exported) = match span.is_disabled() {
        true => (caller(headers)?, false),
        false => (span.context().span().span_context().clone(), true),
    };
    context.is_valid().then(|| Trace { id: context.trace_id(), sampled: exported && context.is_sampled() })
}

/// Writes onto a request's span what came of it.
pub fn answered(span: &Span, entry: &Entry) {
    let Some(answer) = entry.answer.as_ref().filter(|_| !span.is_disabled()) else { return };
    set(span, "http.response.status_code", i64::from(answer.status));
    set(span, "stepgate.request_id", entry.request_id.to_string());
    if let Some(peer) = entry.peer {
        set(span, "client.address", peer.ip().to_string());
    }
    if let Some(who) = &entry.who {
        set(span, "stepgate.issuer", who.subject.issuer.to_string());
        set(span, "stepgate.subject", who.subject.id.to_string());
        if let Some(client) = &who.client {
            set(span, "stepgate.client", client.to_string());
        }
    }
    execution(span, entry);
    decision(span, entry);
    if let Some(upstream) = &entry.upstream {
        set(span, "stepgate.request_units", upstream.request_units);
        set(span, "stepgate.attempts", i64::from(upstream.attempts));
    }
    if let Some(error) = &answer.error {
        set(span, "stepgate.error", error.to_string());
    }
    if answer.status >= 500 {
        set(span, "error.type", answer.status.to_string());
        span.set_status(Status::error(""));
    }
}

fn execution(span: &Span, entry: &Entry) {
    if let Some(execution) = &entry.context.execution {
        set(span, "stepgate.execution", execution.value.to_string());
        set(span, "stepgate.execution.assurance", execution.assurance.as_str());
        set(span, "aws.step_functions.state_machine.arn", execution.value.state_machine().as_str().to_owned());
    }
    if let Some(state) = &entry.context.state {
        set(span, "stepgate.state", state.value.as_str().to_owned());
    }
    if let Some(attempt) = &entry.context.attempt {
        set(span, "stepgate.attempt", i64::from(attempt.value.0));
    }
}

fn decision(span: &Span, entry: &Entry) {
    if let Some(action) = entry.question.action {
        set(span, "stepgate.operation", action.as_str());
    }
    let Some(ruling) = &entry.decision else { return };
    set(span, "stepgate.decision", ruling.verdict.as_str());
    if let Some(clause) = ruling.clauses.first() {
        set(span, "stepgate.clause", clause.to_string());
    }
    if let Some(revision) = &ruling.revision {
        set(span, "stepgate.policy.revision", revision.to_string());
    }
}

/// The span of an errand at Cosmos.
pub fn errand(action: Action, container: &ContainerName) -> Span {
    let name = operation(action);
    let span = tracing::info_span!(
        target: SPANS, "upstream", otel.kind = "client", otel.name = %format_args!("{name} {}", container.container()));
    if !span.is_disabled() {
        set(&span, "db.system.name", "azure.cosmosdb");
        set(&span, "db.operation.name", name);
        set(&span, "db.namespace", container.database().to_owned());
        set(&span, "db.collection.name", container.container().to_owned());
        set(&span, "azure.cosmosdb.connection.mode", "gateway");
        set(&span, "azure.resource_provider.namespace", "Microsoft.DocumentDB");
    }
    span
}

/// Writes onto an errand's span what came back.
pub fn returned(span: &Span, forwarded: &Result<UpstreamAnswer, Failure>) {
    if span.is_disabled() {
        return;
    }
    let answer = match forwarded {
        Ok(answer) => answer,
        Err(failure) => {
            set(span, "error.type", "no_answer");
            return span.set_status(Status::error(failure.to_string()));
        }
    };
    set(span, "db.response.status_code", answer.status.as_u16().to_string());
    set(span, "stepgate.attempts", i64::from(answer.attempts));
    if let Some(substatus) = answer.substatus {
        set(span, "azure.cosmosdb.response.sub_status_code", i64::from(substatus));
    }
    if let Some(charge) = answer.request_charge {
        set(span, "azure.cosmosdb.operation.request_charge", charge);
    }
    if let Some(region) = &answer.region {
        let regions = Value::Array(vec![StringValue::from(region.to_string())].into());
        set(span, "azure.cosmosdb.operation.contacted_regions", regions);
    }
    if answer.status.is_client_error() || answer.status.is_server_error() {
        set(span, "error.type", answer.status.as_u16().to_string());
        span.set_status(Status::error(""));
    }
}

/// The operation as the semantic conventions for Azure Cosmos DB name it.
const fn operation(action: Action) -> &'static str {
    match action {
        Action::Operation(Operation::ItemsCreate) => "create_item",
        Action::Operation(Operation::ItemsUpsert) => "upsert_item",
        Action::Operation(Operation::ItemsRead) => "read_item",
        Action::Operation(Operation::ItemsReplace) => "replace_item",
        Action::Operation(Operation::ItemsPatch) => "patch_item",
        Action::Operation(Operation::ItemsDelete) => "delete_item",
        Action::Operation(Operation::Query) => "query_items",
        Action::Operation(Operation::Feed) => "read_all_items",
        Action::Operation(Operation::Batch) => "execute_batch",
        Action::Operation(Operation::Execute) => "execute_stored_procedure",
        Action::QueryPlan => "query_plan",
        Action::Metadata => "read_container",
    }
}

fn set(span: &Span, key: &'static str, value: impl Into<Value>) {
    span.set_attribute(key, value);
}

#[cfg(test)]
mod tests;
