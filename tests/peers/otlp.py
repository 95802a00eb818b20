#!/usr/bin/env python3
"""An OTLP receiver that prints each span it takes as a JSON line: the other side of `telemetry.py`.

It decodes with the classes generated from OpenTelemetry's own definitions, over gRPC and over HTTP with protobuf. A span that
breaks the specification carries the reasons in `invalid`. `POST /refuse?on=1` makes every export fail until `?on=0`.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as service_grpc
from opentelemetry.proto.trace.v1 import trace_pb2 as definition

PRINTING = threading.Lock()
REFUSING = threading.Event()


def say(line: dict[str, Any]) -> None:
    """One JSON line."""
    with PRINTING:
        print(json.dumps(line), flush=True)


def plain(value: Any) -> Any:
    """An AnyValue as a value of Python."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(item) for item in value.array_value.values]
    return getattr(value, kind) if kind else None


def attributes(pairs: Any) -> dict[str, Any]:
    """A list of KeyValue."""
    return {pair.key: plain(pair.value) for pair in pairs}


def complaints(span: Any, resource: dict[str, Any]) -> list[str]:
    """What the specification says of a span and this one does not hold."""
    wrong = []
    if len(span.trace_id) != 16 or not any(span.trace_id):
        wrong.append("trace id")
    if len(span.span_id) != 8 or not any(span.span_id):
        wrong.append("span id")
    if span.parent_span_id and (len(span.parent_span_id) != 8 or not any(span.parent_span_id)):
        wrong.append("parent span id")
    if not 0 < span.start_time_unix_nano <= span.end_time_unix_nano:
        wrong.append("times")
    if not span.name or span.kind == definition.Span.SPAN_KIND_UNSPECIFIED:
        wrong.append("name or kind")
    if not resource.get("service.name"):
        wrong.append("service.name")
    keys = [pair.key for pair in span.attributes]
    if len(keys) != len(set(keys)):
        wrong.append("an attribute comes twice")
    return wrong


def spans(request: Any, via: str) -> Iterator[dict[str, Any]]:
    """Every span of an export."""
    for group in request.resource_spans:
        resource = attributes(group.resource.attributes)
        for scope in group.scope_spans:
            for span in scope.spans:
                yield {
                    "via": via,
                    "resource": resource,
                    "name": span.name,
                    "kind": definition.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
                    "trace": span.trace_id.hex(),
                    "span": span.span_id.hex(),
                    "parent": span.parent_span_id.hex(),
                    "begin": span.start_time_unix_nano,
                    "end": span.end_time_unix_nano,
                    "failed": span.status.code == definition.Status.STATUS_CODE_ERROR,
                    "attributes": attributes(span.attributes),
                    "invalid": complaints(span, resource),
                }


def take(request: Any, via: str) -> bool:
    """Prints an export's spans, unless exports are refused."""
    if REFUSING.is_set():
        say({"refused": len(list(spans(request, via)))})
        return False
    for span in spans(request, via):
        say(span)
    return True


class Traces(service_grpc.TraceServiceServicer):
    """The gRPC side."""

    def Export(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Takes an export."""
        if not take(request, "grpc"):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "told to refuse")
        return service.ExportTraceServiceResponse()


class Web(BaseHTTPRequestHandler):
    """The HTTP side."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """An export, or what to do with exports."""
        body, url = self.rfile.read(int(self.headers.get("content-length") or 0)), urlsplit(self.path)
        if url.path == "/refuse":
            REFUSING.set() if parse_qs(url.query)["on"] == ["1"] else REFUSING.clear()
            return self.answer(200, b"")
        if url.path != "/v1/traces" or self.headers.get_content_type() != "application/x-protobuf":
            return self.answer(404, b"")
        taken = take(service.ExportTraceServiceRequest.FromString(body), "http")
        return self.answer(200 if taken else 429, service.ExportTraceServiceResponse().SerializeToString())

    def answer(self, status: int, body: bytes) -> None:
        """A whole answer."""
        self.send_response(status)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Standard error is for what goes wrong."""


def main() -> None:
    """Serves until it is killed."""
    rpc = grpc.server(ThreadPoolExecutor(4))
    service_grpc.add_TraceServiceServicer_to_server(Traces(), rpc)
    rpc_port = rpc.add_insecure_port("127.0.0.1:0")
    rpc.start()
    web = ThreadingHTTPServer(("127.0.0.1", 0), Web)
    say({"ready": True, "grpc": f"http://127.0.0.1:{rpc_port}", "http": f"http://127.0.0.1:{web.server_port}"})
    web.serve_forever()


if __name__ == "__main__":
    sys.exit(main())
