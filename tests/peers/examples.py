#!/usr/bin/env python3
"""The state machines of `examples/`, each as it stands there, with its policy and with faults, in an interpreter that is not ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import http_task
import peers
from peers import Stage, expect, expect_that

EXAMPLES = peers.HERE.parents[1] / "examples"
# One execution after another of the load-modify-save machine would prove nothing.
RIVALS = 6
LINES = 40
ORDERS = 700


class Example:
    """One example on a stage of its own: stand-ins, gateway, and the connection that the interpreter uses."""

    def __init__(self, stage: Stage, name: str, client: str | None, containers: dict[str, list[dict[str, Any]]]) -> None:
        self.folder = EXAMPLES / name
        self.machine = "".join(word.capitalize() for word in name.split("-"))
        self.definition = json.loads((self.folder / "state-machine.asl.json").read_text())
        seed = [
            {"id": container, "partition_key": ["/warehouse" if container == "stock" else "/tenant"], "items": items}
            for container, items in containers.items()
        ]
        config = stage.gateway_config("http://127.0.0.1:1", "http://127.0.0.1:1")
        config["dev"]["cosmos"]["seed"] = {"databases": [{"id": "shop", "containers": seed}]}
        config["dev"]["issuer"]["clients"].append(
            {"client_id": client or "role", "client_secret": peers.SECRET, "kind": "workload", "claims": {"tenant": "t1"}}
        )
        file = str(stage.config(config))
        parts = {part: stage.program(peers.STEPGATE, "dev", part, "--config", file, "--format", "json").ready[part]
                 for part in ("issuer", "cosmos")}
        self.issuer, self.cosmos = parts["issuer"], parts["cosmos"]
        served = stage.gateway_config(self.issuer, self.cosmos, policies={"directory": str(self.folder / "policies")})
        served["audit"] = {"directory": str(stage.path("audit"))}
        served["issuers"][0]["name"] = "cognito"
        served["issuers"].append(
            {"name": "aws", "kind": "aws-sts", "url": self.issuer, "audiences": ["stepgate"], "algorithms": ["RS256"]}
            if client is None
            else {"name": "aws", "kind": "aws-sts", "url": "http://127.0.0.1:1", "audiences": ["stepgate"]}
        )
        if client is None:
            # Two issuers with one address would contradict each other.
            served["issuers"].pop(0)
        self.audit = Path(served["audit"]["directory"])
        gateway = stage.gateway(served).ready["gateway"]
        if client is None:
            http_task.install(http_task.ApiKey(gateway), self.token)
        else:
            http_task.install(http_task.OAuth(gateway, f"{self.issuer}/token", client))

    def run(self, given: dict[str, Any]) -> list[dict[str, Any]]:
        """Runs executions, by name and input, at once."""
        return http_task.execute_all(self.definition, given, self.machine)

    def fault(self, **fault: Any) -> None:
        """Lets a fault wait for the requests it is meant for."""
        peers.fault(self.cosmos, **fault)

    def items(self, container: str, partition: str) -> dict[str, dict[str, Any]]:
        """What is in a partition, past the gateway."""
        return {item["id"]: item for item in cosmos_items(self.cosmos, container, partition)}

    def token(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """What AWS would answer: a token of the role, with the tags signed into it."""
        tags = {tag["Key"]: tag["Value"] for tag in parameters["Tags"]}
        session = {"aws_account": http_task.ACCOUNT, "request_tags": tags}
        claims = {
            "sub": f"arn:aws:iam::{http_task.ACCOUNT}:role/WebIdentity",
            "aud": parameters["Audience"][0],
            "https://sts.amazonaws.com/": session,
        }
        answer = peers.ask("POST", f"{self.issuer}/_stepgate/mint", {"claims": claims, "alg": "RS256"})
        expect(answer.status, 200, f"status of the mint ({answer.body})")
        return {"WebIdentityToken": answer.body["access_token"], "Expiration": "2026-11-22T21:24:18Z"}


def cosmos_items(cosmos: str, container: str, partition: str) -> list[dict[str, Any]]:
    """The items of a partition as Microsoft's own SDK reads them with the account key."""
    from azure.cosmos import CosmosClient

    client = CosmosClient(cosmos, credential=peers.EMULATOR_KEY)
    found = client.get_database_client("shop").get_container_client(container)
    query = "SELECT * FROM c WHERE NOT STARTSWITH(c.id, '~stepgate~')"
    return list(found.query_items(query, partition_key=partition))


def output(execution: dict[str, Any]) -> Any:
    """What a successful execution gave."""
    why = f"{execution.get('error')}: {execution.get('cause')}"
    expect(execution["status"], "SUCCEEDED", f"status ({why})")
    return json.loads(execution["output"])


def load_modify_save(stage: Stage) -> None:
    """Several executions take from the same article at once, and an answer gets lost on the way."""
    example = Example(stage, "load-modify-save", "stock", {"stock": [{"id": "a-1", "warehouse": "w1", "quantity": 100}]})
    example.fault(kind="cut_after_commit", operation="batch", count=2)
    given = {"id": "a-1", "warehouse": "w1", "take": 2, "minus": -2}
    ended = example.run({f"run-{number}": given for number in range(RIVALS)})
    left = sorted(output(execution)["saved"]["quantity"] for execution in ended)
    expect(left, [100 - 2 * (RIVALS - number) for number in range(RIVALS)], "what each execution left")
    expect(example.items("stock", "w1")["a-1"]["quantity"], 100 - 2 * RIVALS, "what is left")
    (sold_out,) = example.run({"much": given | {"take": 1000, "minus": -1000}})
    expect((sold_out["status"], sold_out.get("error")), ("FAILED", "SoldOut"), "an execution that wants too much")
    peers.all_struck(example.cosmos)
    peers.verify(example.audit)


def map_fan_out(stage: Stage) -> None:
    """Answers get lost after the commit, over and over; each line is booked once."""
    stock = [{"id": f"a-{number}", "warehouse": "w1", "quantity": 1000} for number in range(4)]
    example = Example(stage, "map-fan-out", "bookings", {"stock": stock})
    example.fault(kind="cut_after_commit", operation="batch", count=20)
    example.fault(kind="throttle", operation="batch", count=5)
    lines = [{"article": f"a-{number % 4}", "warehouse": "w1", "quantity": 1 + number} for number in range(LINES)]
    (ended,) = example.run({"run-1": {"lines": lines}})
    expect(len(output(ended)), LINES, "lines that were booked")
    left = {name: item["quantity"] for name, item in example.items("stock", "w1").items()}
    booked = {f"a-{article}": sum(1 + n for n in range(LINES) if n % 4 == article) for article in range(4)}
    expect(left, {name: 1000 - quantity for name, quantity in booked.items()}, "what is left of each article")
    peers.all_struck(example.cosmos)
    peers.verify(example.audit)


def saga(stage: Stage) -> None:
    """One booking goes through, one fails at its last step and is undone, one finds no seat."""
    ticket = {"id": "ticket-o-2", "tenant": "t1", "kind": "in the way"}
    example = Example(stage, "saga", "travel", {"sagas": [{"id": "lh-1", "tenant": "t1", "free": 2}, ticket]})
    example.fault(kind="cut_after_commit", operation="batch", count=3)
    booking = {"tenant": "t1", "flight": "lh-1", "amount": 120}
    (first,) = example.run({"run-1": booking | {"order": "o-1"}})
    expect(output(first)["ticket"]["id"], "ticket-o-1", "the ticket")
    example.fault(kind="cut_after_commit", operation="batch", count=5)
    (undone,) = example.run({"run-2": booking | {"order": "o-2"}})
    expect((undone["status"], undone.get("error")), ("FAILED", "Undone"), "the booking whose ticket cannot be written")
    items = example.items("sagas", "t1")
    expect(items["lh-1"]["free"], 1, "seats that are free")
    expect(items["payment-o-2"]["state"], "given back", "the payment of what was undone")
    expect(items["payment-o-1"]["state"], "taken", "the payment of what was booked")
    example.run({"run-3": booking | {"order": "o-3"}})
    (full,) = example.run({"run-4": booking | {"order": "o-4"}})
    expect((full["status"], full.get("error")), ("FAILED", "NothingDone"), "a booking without a seat")
    expect_that("payment-o-4" not in example.items("sagas", "t1"), "nothing was taken for it")
    peers.all_struck(example.cosmos)
    peers.verify(example.audit)


def paging(stage: Stage) -> None:
    """Several times what a state may hold, and the sum is right."""
    orders = [
        {"id": f"o-{n}", "tenant": "t1", "status": "open" if n % 7 else "closed", "amount": n, "text": "é\"" * 300}
        for n in range(ORDERS)
    ]
    example = Example(stage, "paging", "reports", {"orders": orders})
    example.fault(kind="unavailable", operation="query", count=2)
    (ended,) = example.run({"run-1": {"tenant": "t1"}})
    summed = output(ended)
    numbers = [n for n in range(ORDERS) if n % 7]
    expect((summed["orders"], summed["total"]), (len(numbers), sum(numbers)), "orders and their total")
    expect_that(summed["pages"] > 3, f"more than three pages, and not {summed['pages']}")
    peers.all_struck(example.cosmos)
    peers.verify(example.audit)


def web_identity(stage: Stage) -> None:
    """The token is the role's, and the execution is signed into it."""
    example = Example(stage, "web-identity", None, {"orders": [{"id": "o-1", "tenant": "t1", "total": 7}]})
    (ended,) = example.run({"run-1": {"id": "o-1", "tenant": "t1"}})
    expect(output(ended)["total"], 7, "the order's total")
    trace = peers.stepgate("audit", "trace", "run-1", "--dir", str(example.audit))
    expect_that("(signed)" in trace.stdout and "role/WebIdentity" in trace.stdout, f"who and how sure stand in\n{trace.stdout}")
    peers.all_struck(example.cosmos)
    peers.verify(example.audit)


def policies() -> None:
    """The tests beside each policy, which cover it."""
    for folder in sorted(path for path in EXAMPLES.iterdir() if path.is_dir()):
        tested = peers.stepgate("policy", "test", str(folder / "policies"))
        expect(tested.returncode, 0, f"exit code of `policy test` in {folder.name} ({tested.stdout}{tested.stderr})")


def scene(stage: Stage) -> list[tuple[str, Callable[[], None]]]:
    """Each example sets its own stage."""
    examples = [load_modify_save, map_fan_out, saga, paging, web_identity]

    def check(example: Callable[[Stage], None]) -> Callable[[], None]:
        return lambda: example(stage)

    names = [(f"{example.__name__.replace('_', '-')}: {example.__doc__.rstrip('.')}", check(example)) for example in examples]
    return [("the policies' tests pass", policies), *names]


if __name__ == "__main__":
    peers.run("examples", scene)
