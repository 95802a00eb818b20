#!/usr/bin/env python3
"""Traces at a receiver that shares no code with the gateway, the log, and what happens when the receiver fails."""

from __future__ import annotations

import json
import queue
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peers
from peers import Program, Stage, expect, expect_that

ITEMS = "/dbs/shop/colls/orders/docs"
EXECUTION = "arn:aws:states:eu-west-1:111122223333:execution:Fulfil:run-1"
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
XRAY = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
TRACES = {"traceparent": "4bf92f3577b34da6a3ce929d0e0e4736", "x-amzn-trace-id": "5759e988bd862e3fe1be46a994272793"}
# The rooms that a write walks through, in the order in which their spans begin.
WALK = ["identity", "revocation", "context", "revocation", "question", "question", "question", "policy", "limits", "overload"]
WALK += ["audit", "exchange", "upsert_item orders", "answer", "audit"]


class Telemetry:
    """A receiver, and gateways that send to it."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.issuer, self.cosmos = stage, stage.dev("issuer"), stage.dev("cosmos")
        self.receiver = stage.program(sys.executable, str(peers.HERE / "otlp.py"))

    def checks(self) -> list[tuple[str, Callable[[], None]]]:
        """Every check with its name."""
        return [
            ("a write is one whole trace of the caller's, over gRPC", lambda: self.whole("grpc", "traceparent")),
            ("a write is one whole trace of the caller's, over HTTP", lambda: self.whole("http", "x-amzn-trace-id")),
            ("who is refused has a trace of his own, with the reason", self.refused),
            ("a share of the traces is sent, and each of those whole", self.sampled),
            ("each request is one line of the log, with its ids", self.log),
            ("a receiver that refuses costs no request, and what is lost is counted", self.refusing),
            ("a receiver that is not there costs no request", self.absent),
        ]

    def gateway(self, via: str, **more: Any) -> Program:
        """A gateway of its own, with a log of its own."""
        telemetry = {"otlp_endpoint": self.receiver.ready[via], "otlp_protocol": via, **more}
        audit = {"directory": str(self.stage.path("audit")), "durability": "memory"}
        return self.stage.gateway(self.stage.gateway_config(self.issuer, self.cosmos, telemetry=telemetry, audit=audit))

    def write(self, gateway: Program, headers: dict[str, str] | None = None) -> peers.Answer:
        """An upsert, as an HTTP Task sends it."""
        headers = {
            "authorization": f"Bearer {peers.token(f'{self.issuer}/token')}",
            "user-agent": "Amazon|StepFunctions|HttpInvoke|eu-west-1",
            "x-ms-documentdb-is-upsert": "true",
            "x-stepgate-execution": EXECUTION,
            "x-stepgate-state": "SaveOrder",
            **(headers or {}),
        }
        return peers.ask("POST", f"{gateway.ready['gateway']}{ITEMS}?partitionKey=t1", {"id": "o-1", "tenant": "t1"}, headers)

    def received(self) -> list[dict[str, Any]]:
        """The spans that have come in and were not looked at."""
        spans = []
        while True:
            try:
                line = self.receiver.lines.get_nowait()
            except queue.Empty:
                return spans
            expect_that(line is not None, "the receiver lives")
            if "span" in line:
                expect(line["invalid"], [], f"what is wrong with {line['name']}")
                spans.append(line)

    def sent_by(self, gateway: Program) -> list[dict[str, Any]]:
        """Everything a gateway sends: asked to stop, it sends what waits."""
        expect(gateway.stop(), 0, "exit code")
        # It stops once the receiver has answered; the receiver prints before it answers. What is left is the pipe.
        deadline, spans = time.monotonic() + peers.PATIENCE, self.received()
        while not any(span["kind"] == "server" for span in spans) and time.monotonic() < deadline:
            time.sleep(0.05)
            spans += self.received()
        time.sleep(0.2)
        return spans + self.received()

    def whole(self, via: str, header: str) -> None:
        """One root whose parent is the caller's span, and below it every room, in order and in time."""
        gateway = self.gateway(via)
        value = {"traceparent": TRACEPARENT, "x-amzn-trace-id": XRAY}[header]
        # The first one mints; the second has all at hand.
        expect_that(self.write(gateway).status in (200, 201), "an upsert")
        answer = self.write(gateway, {header: value})
        expect(answer.status, 200, "an upsert")
        spans = [span for span in self.sent_by(gateway) if span["trace"] == TRACES[header]]
        expect({span["via"] for span in spans}, {via}, "how they came")
        expect({span["resource"]["service.name"] for span in spans}, {"stepgate"}, "service.name")
        [root] = [span for span in spans if span["kind"] == "server"]
        expect(root["parent"], "00f067aa0ba902b7" if header == "traceparent" else "53995c3f42cd8ad8", "the root's parent")
        expect(root["name"], "POST /dbs/{database}/colls/{container}/docs", "the root's name")
        by_id = {span["span"]: span for span in spans}
        rooms = sorted((span for span in spans if span["parent"] == root["span"]), key=lambda span: span["begin"])
        expect([room["name"] for room in rooms], WALK, "the rooms")
        for span in spans:
            parent = by_id.get(span["parent"])
            expect_that(span is root or parent is not None, f"{span['name']} has a parent in the trace")
            if parent is not None:
                inside = parent["begin"] <= span["begin"] and span["end"] <= parent["end"]
                expect_that(inside, f"{span['name']} lies within {parent['name']}")
        self.conventions(root, next(room for room in rooms if room["kind"] == "client"), spans, answer)

    def conventions(self, root: dict[str, Any], errand: dict[str, Any], spans: list[Any], answer: peers.Answer) -> None:
        """Names and values as the semantic conventions for HTTP and for Azure Cosmos DB have them."""
        charge = float(answer.headers["x-ms-request-charge"])
        wanted = {
            "http.request.method": "POST",
            "http.route": "/dbs/{database}/colls/{container}/docs",
            "http.response.status_code": 200,
            "url.path": ITEMS,
            "url.scheme": "http",
            "client.address": "127.0.0.1",
            "aws.step_functions.state_machine.arn": "arn:aws:states:eu-west-1:111122223333:stateMachine:Fulfil",
            "stepgate.request_id": answer.headers["x-stepgate-request-id"],
            "stepgate.execution": EXECUTION,
            "stepgate.state": "SaveOrder",
            "stepgate.issuer": "peer",
            "stepgate.client": "worker",
            "stepgate.operation": "items/upsert",
            "stepgate.decision": "allow",
            "stepgate.request_units": charge,
        }
        expect({key: root["attributes"].get(key) for key in wanted}, wanted, "the server span")
        wanted = {
            "db.system.name": "azure.cosmosdb",
            "db.operation.name": "upsert_item",
            "db.namespace": "shop",
            "db.collection.name": "orders",
            "db.response.status_code": "200",
            "azure.cosmosdb.operation.request_charge": charge,
        }
        expect({key: errand["attributes"].get(key) for key in wanted}, wanted, "the span of the errand")
        [exchange] = [span for span in spans if span["parent"] == errand["span"]]
        address = self.cosmos.removeprefix("http://").rstrip("/").rpartition(":")
        wanted = {
            "http.request.method": "POST",
            "http.response.status_code": 200,
            "server.address": address[0],
            "server.port": int(address[2]),
        }
        expect({key: exchange["attributes"].get(key) for key in wanted}, wanted, "the span of the exchange")
        text = json.dumps(spans)
        for secret in ("Bearer ", "type=resource", "type%3dresource", peers.EMULATOR_KEY, "eyJ"):
            expect_that(secret not in text, f"{secret} is in no span")

    def refused(self) -> None:
        """A stranger's request ends at the first room."""
        gateway = self.gateway("grpc")
        expect(peers.ask("GET", f"{gateway.ready['gateway']}{ITEMS}/o-1").status, 401, "no token")
        spans = self.sent_by(gateway)
        [root] = [span for span in spans if span["kind"] == "server"]
        expect(root["parent"], "", "a parent")
        expect(root["attributes"]["stepgate.decision"], "reject", "the decision")
        expect(root["attributes"]["stepgate.error"], "identity.invalid_workflow_token", "the error")
        expect(root["failed"], False, "a refusal is no failure of the server")
        expect([span["name"] for span in spans if span["parent"] == root["span"]], ["identity"], "the rooms")

    def sampled(self) -> None:
        """Of traces that begin here a share; what the caller samples, always."""
        gateway = self.gateway("grpc", sample_ratio=0.3)
        for _ in range(60):
            self.write(gateway)
        self.write(gateway, {"traceparent": TRACEPARENT})
        roots = [span for span in self.sent_by(gateway) if span["kind"] == "server"]
        expect_that(any(root["trace"] == TRACES["traceparent"] for root in roots), "the caller's is sent")
        expect_that(3 <= len(roots) <= 40, f"about 18 of 60 are sent ({len(roots)})")
        gateway = self.gateway("grpc", sample_ratio=0.0)
        self.write(gateway)
        self.write(gateway, {"traceparent": TRACEPARENT})
        roots = [span for span in self.sent_by(gateway) if span["kind"] == "server"]
        expect([root["trace"] for root in roots], [TRACES["traceparent"]], "traces of a share of 0")

    def log(self) -> None:
        """JSON, one line a request; with the caller's trace even where nothing is exported."""
        config = self.stage.gateway_config(self.issuer, self.cosmos)
        config["audit"]["directory"] = str(self.stage.path("audit"))
        gateway = self.stage.gateway(config)
        answer = self.write(gateway, {"traceparent": TRACEPARENT})
        expect(gateway.stop(), 0, "exit code")
        lines = [json.loads(line) for line in Path(gateway.log).read_text().splitlines()]
        [line] = [line for line in lines if line.get("target") == "stepgate::request"]
        wanted = {
            "level": "INFO",
            "request_id": answer.headers["x-stepgate-request-id"],
            "trace_id": TRACES["traceparent"],
            "operation": "items/upsert",
            "container": "shop/orders",
            "decision": "allow",
            "workload": "peer/worker",
            "execution": EXECUTION,
            "state": "SaveOrder",
            "status": answer.status,
        }
        expect({key: line.get(key) for key in wanted}, wanted, "the line")

    def refusing(self) -> None:
        """Every request is answered while every export fails; the metric says what was lost."""
        gateway = self.gateway("http")
        expect(peers.ask("POST", f"{self.receiver.ready['http']}/refuse?on=1").status, 200, "the receiver answers")
        slowest = self.slowest(gateway, 40)
        expect_that(slowest < 2.0, f"no request waits for the receiver ({slowest:.2f} s)")
        deadline = time.monotonic() + peers.PATIENCE
        while self.lost(gateway) == 0 and time.monotonic() < deadline:
            time.sleep(0.2)
        expect_that(self.lost(gateway) > 0, "what was lost is counted")
        expect(peers.ask("POST", f"{self.receiver.ready['http']}/refuse?on=0").status, 200, "the receiver answers")
        self.write(gateway, {"traceparent": TRACEPARENT})
        spans = self.sent_by(gateway)
        expect_that(any(span["trace"] == TRACES["traceparent"] for span in spans), "afterwards spans arrive again")

    def absent(self) -> None:
        """A port where nobody listens."""
        config = self.stage.gateway_config(self.issuer, self.cosmos, telemetry={"otlp_endpoint": "http://127.0.0.1:1"})
        config["audit"]["directory"] = str(self.stage.path("audit"))
        gateway = self.stage.gateway(config)
        slowest = self.slowest(gateway, 40)
        expect_that(slowest < 2.0, f"no request waits for the receiver ({slowest:.2f} s)")
        expect(gateway.stop(), 0, "exit code")

    def slowest(self, gateway: Program, number: int) -> float:
        """The longest of so many upserts, in seconds."""
        took = []
        for _ in range(number):
            began = time.monotonic()
            expect_that(self.write(gateway).status in (200, 201), "an upsert")
            took.append(time.monotonic() - began)
        return max(took)

    def lost(self, gateway: Program) -> float:
        """Spans that the receiver did not take, or that found the queue full."""
        text = str(peers.ask("GET", f"{gateway.ready['admin']}/metrics").body)
        return sum(
            float(line.split()[1])
            for line in text.splitlines()
            if line.startswith(('stepgate_spans_total{result="failed"}', 'stepgate_spans_total{result="dropped"}'))
        )


def scene(stage: Stage) -> list[tuple[str, Callable[[], None]]]:
    """Issuer, Cosmos and receiver live through it all."""
    return Telemetry(stage).checks()


if __name__ == "__main__":
    peers.run("telemetry", scene)
