#!/usr/bin/env python3
"""A Step Functions workflow against the gateway, run by an interpreter that is not ours; then its audit trail."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import http_task
import peers
from peers import Stage, expect, expect_that

NAME = "run-1"


class Workflow:
    """The execution, and what is to be said of it."""

    def __init__(self, execution: dict[str, Any], audit: Path) -> None:
        self.execution, self.audit = execution, audit

    def checks(self) -> list[tuple[str, Callable[[], None]]]:
        """Every check with its name."""
        return [
            ("the execution succeeds, and reads what it wrote", self.succeeds),
            ("a Catch on States.Http.StatusCode.403 sees the status text alone", self.catches),
            ("the audit trail shows its states, attempts and decisions", self.trace),
            ("the audit log verifies", lambda: peers.verify(self.audit)),
        ]

    def output(self) -> dict[str, Any]:
        """What the last state gave."""
        why = f"{self.execution.get('error')}: {self.execution.get('cause')}"
        expect(self.execution["status"], "SUCCEEDED", f"status ({why})")
        return dict(json.loads(self.execution["output"]))

    def succeeds(self) -> None:
        """Saved at the second attempt, found by the query, audited."""
        output = self.output()
        expect((output["saved"], output["audited"]), (201, 201), "statuses of the two writes")
        expect(output["orders"], [{"id": "o-1", "status": "new"}], "orders found")

    def catches(self) -> None:
        """A workflow never sees the body of a refusal."""
        caught = {"Error": "States.Http.StatusCode.403", "Cause": "Forbidden"}
        expect(self.output()["refused"], caught, "what was caught")

    def trace(self) -> None:
        """By the execution's ARN and by its name."""
        arn = self.execution["executionArn"]
        traced = peers.stepgate("audit", "trace", arn, "--dir", str(self.audit), "--format", "json")
        expect(traced.returncode, 0, f"exit code of `audit trace` ({traced.stderr})")
        tree = json.loads(traced.stdout)
        found = [(state["state"], [outcome(attempt) for attempt in state["attempts"]]) for state in tree["states"]]
        wanted = [
            ("LoadOrder", [("items/read", "allow", 404)]),
            ("SaveOrder", [("items/upsert", "allow", 429), ("items/upsert", "allow", 201)]),
            ("QueryOrders", [("query", "allow", 200)]),
            ("WriteAudit", [("items/create", "allow", 201)]),
            ("OpenVault", [("items/read", "deny", 403)]),
        ]
        expect(found, wanted, "states with their attempts")
        by_name = peers.stepgate("audit", "trace", NAME, "--dir", str(self.audit))
        expect(by_name.returncode, 0, f"exit code of `audit trace` by name ({by_name.stderr})")
        for state, _ in wanted:
            expect_that(state in by_name.stdout, f"{state} stands in\n{by_name.stdout}")


def outcome(attempt: dict[str, Any]) -> tuple[str, str, int]:
    """Operation, decision and status of an attempt, which made one request."""
    (request,) = attempt["requests"]
    return request["operation"], request["decision"], request["status"]


def scene(stage: Stage) -> list[tuple[str, Callable[[], None]]]:
    """Runs the workflow once. Cosmos throttles its first write for longer than the gateway waits."""
    issuer, cosmos = stage.dev("issuer"), stage.dev("cosmos")
    config = stage.gateway_config(issuer, cosmos)
    gateway = stage.gateway(config)
    throttle = {"kind": "throttle", "retry_after_ms": 600_000, "count": 1, "operation": "upsert"}
    peers.fault(cosmos, **throttle)
    http_task.install(http_task.OAuth(gateway.ready["gateway"], f"{issuer}/token"))
    definition = json.loads((peers.HERE / "asl/order.asl.json").read_text())
    execution = http_task.execute(definition, NAME, {"id": "o-1", "tenant": "t1"})
    return Workflow(execution, Path(config["audit"]["directory"])).checks()


if __name__ == "__main__":
    peers.run("workflow", scene)
