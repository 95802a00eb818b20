#!/usr/bin/env python3
"""Items, echoes and pages about as large as a state may be, in a Step Functions interpreter that is not ours.

Each is generated: text of one to four bytes, quotes, escapes, control characters and numbers with exponents, with as much filler
as brings it to 4 KiB below the limit or 2 KiB above, as the interpreter counts (UTF-8, no spaces) or as the most wasteful writer does (spaces,
and an escape for all that is not ASCII). None may end an execution with `States.DataLimitExceeded`: it arrives as it is, or
as 413, a stub, or a smaller page. STEPGATE_SIZES says how many of each; STEPGATE_SEED repeats a run.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import http_task
import peers
from peers import Stage, expect, expect_that

COUNT = int(os.environ.get("STEPGATE_SIZES", "24"))
SEED = int(os.environ.get("STEPGATE_SEED", random.randrange(1 << 32)))
DOCS = "/dbs/shop/colls/orders/docs"
# How far over the limit, and half of how far under it: the gateway keeps about as much back for what is added on the way.
AROUND = 2048
# Executions at once.
TOGETHER = 12
CHARACTERS = ["a", "Z", "0", " ", '"', "\\", "/", "\n", "\t", "\b", "\u0001", "\u001f", "\u007f", "é", "ß", "€", "漢", "\u2028", "😀", "𝒳"]
NUMBERS = [0, -1, 42.5, 1e5, 1e300, -2.2250738585072014e-308, 123456789012345, 0.1, 1e-7]


def task(method: str, path: str, after: str = "", **more: Any) -> dict[str, Any]:
    """A state that asks the gateway, and goes on where it is told that an answer is too large."""
    headers = {
        "x-ms-documentdb-partitionkey.$": "States.Format('[\"{}\"]', $.tenant)",
        "x-stepgate-errors.$": "$.form",
        **more.pop("headers", {}),
    }
    return {
        "Type": "Task",
        "Resource": "arn:aws:states:::http:invoke",
        "Parameters": {
            "ApiEndpoint.$" if after else "ApiEndpoint": f"States.Format('{http_task.PLACEHOLDER}{path}/{{}}', {after})"
            if after
            else http_task.PLACEHOLDER + path,
            "Method": method,
            "InvocationConfig": {"ConnectionArn": "arn:aws:events:us-east-1:111122223333:connection/stepgate/1"},
            "Headers": headers,
            **more,
        },
        "Catch": [{"ErrorEquals": ["States.Http.StatusCode.413"], "Next": "TooLarge"}],
        "End": True,
    }


QUERY = {"x-ms-documentdb-isquery": "True"}
EVERYTHING = {"query": "SELECT * FROM c", "parameters": []}
DEFINITION = {
    "StartAt": "Which",
    "States": {
        "Which": {
            "Type": "Choice",
            "Choices": [
                {"Variable": "$.do", "StringEquals": name, "Next": name} for name in ("Read", "Write", "First", "Next")
            ],
        },
        "Read": task("GET", DOCS, "$.id"),
        "Write": task("POST", DOCS, headers={"x-ms-documentdb-is-upsert": "True"}, **{"RequestBody.$": "$.item"}),
        "First": task("POST", DOCS, RequestBody=EVERYTHING, headers=QUERY),
        "Next": task("POST", DOCS, RequestBody=EVERYTHING, headers={**QUERY, "x-ms-continuation.$": "$.continuation"}),
        "TooLarge": {"Type": "Pass", "Result": {"ResponseBody": "too large"}, "End": True},
    },
}


def lean(value: Any) -> int:
    """Bytes as the interpreter counts."""
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


def wasteful(value: Any) -> int:
    """Bytes as Python writes by default."""
    return len(json.dumps(value).encode())


class Sizes:
    """The checks, and what they found."""

    def __init__(self, gateway: str, token: str) -> None:
        self.gateway, self.token = gateway, token
        self.random = random.Random(SEED)
        self.made = 0
        # What is around a body: the rest of a task's result, and what Cosmos adds to an item.
        (probe,) = self.run([{"do": "Write", "item": self.item("t0"), "tenant": "t0", "form": "distinct"}])
        self.around = probe | {"ResponseBody": 0}
        self.added = {name: value for name, value in probe["ResponseBody"].items() if name.startswith("_")}

    def checks(self) -> list[tuple[str, Callable[[], None]]]:
        """Every check with its name."""
        return [
            (f"{COUNT} items read, as themselves and in an envelope (STEPGATE_SEED={SEED})", self.reads),
            (f"{COUNT} items written, with their echo", self.writes),
            (f"{COUNT} partitions read in pages", self.pages),
        ]

    def text(self, most: int) -> str:
        """Text of every kind."""
        return "".join(self.random.choices(CHARACTERS, k=self.random.randrange(most)))

    def item(self, tenant: str) -> dict[str, Any]:
        """An item of every kind, of a few kilobytes."""
        self.made += 1
        lists = [[self.random.choice(NUMBERS) for _ in range(self.random.randrange(20))] for _ in range(3)]
        texts = {f"é{at}{self.text(3)}": self.text(300) for at in range(self.random.randrange(8))}
        return {"id": f"i-{self.made}", "tenant": tenant, "lists": lists, "texts": texts, "none": None, "filler": ""}

    def fill(self, item: dict[str, Any], count: Callable[[Any], int], size: int) -> None:
        """Adds as much filler to an item as has that size."""
        kind = self.random.choice(CHARACTERS)
        each = count(kind) - 2
        item["filler"] += kind * (size // each) + "x" * (size % each)

    def about(self, count: Callable[[Any], int], body: Any) -> int:
        """How much is missing for the result with this body to be about as large as a state may be."""
        off = self.random.randint(-2 * AROUND, AROUND)
        return http_task.LIMIT + off - count(self.around | {"ResponseBody": body})

    def near_the_limit(self, tenant: str) -> dict[str, Any]:
        """An item whose reading is about as large as a state may be."""
        item, count = self.item(tenant), self.random.choice([lean, wasteful])
        self.fill(item, count, self.about(count, item | self.added))
        return item

    def page_near_the_limit(self, tenant: str) -> list[dict[str, Any]]:
        """Items that make such a page together; each of them fits by itself, however it is counted."""
        items = [self.item(tenant) for _ in range(self.random.randint(2, 9))]
        for item in items:
            self.fill(item, wasteful, (http_task.LIMIT - 16 * AROUND) // len(items) - wasteful(item | self.added))
        page = {"_rid": "AAAAAYAAAAE=", "Documents": [item | self.added for item in items], "_count": len(items)}
        self.fill(items[0], wasteful, self.about(wasteful, page))
        return items

    def store(self, item: dict[str, Any]) -> dict[str, Any]:
        """Stores an item as a client that is no workflow; its echo is whole."""
        headers = {
            "authorization": f"Bearer {self.token}",
            "x-ms-documentdb-partitionkey": json.dumps([item["tenant"]]),
            "x-ms-documentdb-is-upsert": "True",
        }
        answer = peers.ask("POST", self.gateway.rstrip("/") + DOCS, item, headers)
        expect_that(answer.status in (200, 201), f"an item of {lean(item)} bytes is stored: {answer.status}")
        return dict(answer.body)

    def run(self, inputs: list[dict[str, Any]]) -> list[Any]:
        """What an execution with each input gave; none may fail."""
        outputs: list[Any] = []
        for begin in range(0, len(inputs), TOGETHER):
            given = {f"e-{begin + at}": one for at, one in enumerate(inputs[begin : begin + TOGETHER])}
            for name, seen in zip(given, http_task.execute_all(DEFINITION, given)):
                why = f"{seen.get('error')}: {seen.get('cause')} of {name} with the seed {SEED}"
                expect(seen["status"], "SUCCEEDED", f"status ({why})")
                outputs.append(json.loads(seen["output"]))
        return outputs

    def reads(self) -> None:
        """The item, or 413."""
        forms = [self.random.choice(["distinct", "envelope"]) for _ in range(COUNT)]
        # One is over the limit whatever the dice say.
        over = self.item("t1")
        self.fill(over, lean, http_task.LIMIT)
        stored = [self.store(item) for item in [over, *(self.near_the_limit("t1") for _ in range(COUNT - 1))]]
        asked = [
            {"do": "Read", "id": item["id"], "tenant": "t1", "form": form} for item, form in zip(stored, forms)
        ]
        found: Counter[str] = Counter()
        for item, form, output in zip(stored, forms, self.run(asked)):
            body = output["ResponseBody"]
            if form == "envelope":
                ok, code = body["ok"], body["status"]
                expect(code, 200 if ok else 413, "the envelope's status")
                body = body["body"] if ok else "too large"
            if body != "too large":
                expect(body, item, "the item that arrived")
            fits = lean(self.around | {"ResponseBody": item}) <= http_task.LIMIT
            found[f"{'arrived' if body == item else '413'}, {'would fit' if fits else 'would not fit'}"] += 1
        expect(found["arrived, would not fit"], 0, "items that should not have arrived")
        expect_that(found["413, would not fit"] > 0, f"some are over the limit: {dict(found)}")
        print(f"        read: {dict(found)}", flush=True)

    def writes(self) -> None:
        """The echo, or the stub; the item is written in either case."""
        items = []
        while len(items) < COUNT:
            item = self.near_the_limit("t2")
            given = {"do": "Write", "item": item, "tenant": "t2", "form": "distinct"}
            # A workflow cannot hold, and so cannot send, more than a state.
            if lean(given) < http_task.LIMIT - 64 and wasteful(given) < http_task.LIMIT - 64:
                items.append(given)
        found: Counter[str] = Counter()
        for given, output in zip(items, self.run(items)):
            body = output["ResponseBody"]
            expect(output["StatusCode"], 201, "status of the write")
            echoed = {name: value for name, value in body.items() if not name.startswith("_")}
            stub = body.get("stepgate", {}).get("bodyDropped", False)
            expect_that(stub or echoed == given["item"], "the echo is the item")
            found["stub" if stub else "echo"] += 1
        print(f"        written: {dict(found)}", flush=True)

    def pages(self) -> None:
        """Every item, once, on pages that a state can hold."""
        found: Counter[str] = Counter()
        for at in range(COUNT):
            tenant = f"p-{at}"
            stored = {item["id"]: item for item in map(self.store, self.page_near_the_limit(tenant))}
            seen: dict[str, Any] = {}
            given = {"do": "First", "tenant": tenant, "form": "distinct"}
            while given:
                (output,) = self.run([given])
                expect_that(output["ResponseBody"] != "too large", "a page of several items is made smaller instead")
                rows = output["ResponseBody"]["Documents"]
                expect(output["ResponseBody"]["_count"], len(rows), "the count of the page")
                expect_that(not seen.keys() & {row["id"] for row in rows}, "no item comes twice")
                seen |= {row["id"]: row for row in rows}
                token = output["Headers"].get("x-ms-continuation")
                given = {**given, "do": "Next", "continuation": token[0]} if token else {}
                found["pages"] += 1
            expect(seen, stored, "the items of the partition")
            found["items"] += len(stored)
        print(f"        paged: {dict(found)}", flush=True)


def scene(stage: Stage) -> list[tuple[str, Callable[[], None]]]:
    """A gateway between the two stand-ins."""
    issuer, cosmos = stage.dev("issuer"), stage.dev("cosmos")
    gateway = stage.gateway(stage.gateway_config(issuer, cosmos)).ready["gateway"]
    http_task.install(http_task.OAuth(gateway, f"{issuer}/token"))
    return Sizes(gateway, peers.token(f"{issuer}/token")).checks()


if __name__ == "__main__":
    peers.run("state-size", scene)
