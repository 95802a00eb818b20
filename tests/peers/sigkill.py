#!/usr/bin/env python3
"""Kill -9 under load, again and again: what was acknowledged has its records, and the log verifies after every restart.

SIGKILL_ROUNDS says how often; twenty times when it is not set.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import peers
from peers import Program, Stage, expect, expect_that

ROUNDS = int(os.environ.get("SIGKILL_ROUNDS", "20"))
WRITERS = 8
ORDERS = "/dbs/shop/colls/orders/docs?partitionKey=t1"


class Writer(threading.Thread):
    """Sends upserts one after the other until the gateway is gone."""

    def __init__(self, gateway: str, token: str, number: int) -> None:
        super().__init__(daemon=True)
        self.gateway, self.number = urlsplit(gateway), number
        self.headers = {
            "authorization": f"Bearer {token}",
            "content-type": "application/json",
            "x-ms-documentdb-is-upsert": "true",
        }
        self.acknowledged: list[str] = []
        self.refused: list[str] = []

    def run(self) -> None:
        """An answer counts when its head and its body have arrived."""
        connection = http.client.HTTPConnection(str(self.gateway.hostname), self.gateway.port, timeout=peers.PATIENCE)
        body = json.dumps({"id": f"o-{self.number}", "tenant": "t1"})
        try:
            while True:
                connection.request("POST", ORDERS, body, self.headers)
                answer = connection.getresponse()
                text = answer.read().decode()
                if answer.status in (200, 201):
                    self.acknowledged.append(str(answer.getheader("x-stepgate-request-id")))
                else:
                    self.refused.append(f"{answer.status} {text}")
                    return
        except (OSError, http.client.HTTPException):
            return
        finally:
            connection.close()


class Sigkill:
    """All rounds on one audit directory."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.issuer = stage, stage.dev("issuer")
        self.config = stage.gateway_config(self.issuer, stage.dev("cosmos"))
        self.audit = Path(self.config["audit"]["directory"])
        self.random = random.Random()
        self.acknowledged: list[str] = []

    def checks(self) -> list[tuple[str, Callable[[], None]]]:
        """Every check with its name."""
        return [
            (f"the log verifies after each of {ROUNDS} kills", self.rounds),
            ("every acknowledged write has its intent and its outcome", self.records),
            ("every intent has an end: an outcome, or that it is unknown", self.ends),
        ]

    def rounds(self) -> None:
        """Start, verify, load, kill."""
        for number in range(1, ROUNDS + 1):
            gateway = self.stage.gateway(self.config)
            if number > 1:
                peers.verify(self.audit)
            self.load_and_kill(gateway)
            if number % 50 == 0:
                print(f"        {number} kills, {len(self.acknowledged)} writes acknowledged", flush=True)
        expect_that(len(self.acknowledged) >= ROUNDS, f"writes are acknowledged ({len(self.acknowledged)})")
        gateway = self.stage.gateway(self.config)
        peers.verify(self.audit)
        expect(gateway.stop(), 0, "exit code of a gateway that is asked to stop")
        peers.verify(self.audit)

    def load_and_kill(self, gateway: Program) -> None:
        """The moment is random, and falls while every writer writes."""
        token = peers.token(f"{self.issuer}/token")
        writers = [Writer(gateway.ready["gateway"], token, number) for number in range(WRITERS)]
        kill = threading.Timer(self.random.uniform(0.05, 0.5), gateway.kill)
        kill.start()
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
            expect(writer.refused, [], "answers that are no acknowledgement")
            self.acknowledged += writer.acknowledged
        kill.join()

    def read(self) -> Counter[tuple[str, str]]:
        """How many records there are by request id and phase."""
        found: Counter[tuple[str, str]] = Counter()
        for segment in sorted(self.audit.rglob("*.jsonl")):
            for line in segment.read_text().splitlines():
                record: dict[str, Any] = json.loads(line)["stepgate"]
                found[record["request_id"], record["phase"]] += 1
        return found

    def records(self) -> None:
        """No acknowledgement without both records, and none twice."""
        found = self.read()
        expect(len(set(self.acknowledged)), len(self.acknowledged), "different request ids")
        lost = [one for one in self.acknowledged if (found[one, "intent"], found[one, "outcome"]) != (1, 1)]
        expect(lost, [], f"acknowledged writes without their two records, of {len(self.acknowledged)}")

    def ends(self) -> None:
        """A crash between the two shows as unknown, never as nothing."""
        found = self.read()
        intents = [one for one, kind in found if kind == "intent"]
        open_ended = [one for one in intents if found[one, "outcome"] + found[one, "recovered"] != 1]
        expect(open_ended, [], f"intents without one end, of {len(intents)}")
        expect_that(any(kind == "recovered" for _, kind in found), "a kill fell between an intent and its outcome")


def scene(stage: Stage) -> list[tuple[str, Callable[[], None]]]:
    """Issuer and Cosmos live through it all; the gateway does not."""
    return Sigkill(stage).checks()


if __name__ == "__main__":
    peers.run("sigkill", scene)
