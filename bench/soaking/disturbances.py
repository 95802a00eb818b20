"""What is done to the gateway and to what it depends on, and which errors that explains."""

from __future__ import annotations

import json
import math
import re
import signal
import ssl
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import peers

from .scene import Scene, replace

# Seconds from the beginning of one disturbance to that of the next, and of a fault that lasts.
EVERY, LASTING = 7.0, 3.0
# How long after a fault a container's gate may still be too narrow for those that wait before it. Of nothing else is there an aftermath.
OVERLOADED, AFTERMATH = "gateway.overloaded", 3.0


@dataclass
class Disturbance:
    """What was done to the gateway or to what it depends on, and the errors that this explains."""

    what: str
    explains: tuple[str, ...]
    begin: float
    end: float = math.inf


def error_of(line: dict[str, Any]) -> str:
    """What an answer calls its condition; without an answer, what became of the connection."""
    found = re.match(r'\{"error":"([^"]+)"', line["text"])
    return found[1] if found else str(line["text"] or line["status"])


class Disturbances:
    """All that were begun, in their order; and the steps that are taken in turn."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.begun: list[Disturbance] = []

    def explanation(self, line: dict[str, Any]) -> Disturbance | None:
        """A fault that was on at the time and may cause such an answer."""
        error = error_of(line)
        aftermath = AFTERMATH if error == OVERLOADED else 0.0
        for one in self.begun:
            if error in one.explains and one.begin <= line["answered"] and line["sent"] <= one.end + aftermath:
                return one
        return None

    @contextmanager
    def disturbed(self, what: str, *explains: str) -> Iterator[None]:
        """For the time of the block such errors are explained."""
        one = Disturbance(what, explains, time.time())
        self.begun.append(one)
        yield
        one.end = time.time()

    def steps(self) -> list[Callable[[], None]]:
        """What is done in turn. Behind a fault stands what docs/answers.md has a workflow hear of it."""
        fault = self.fault
        return [
            self.reload,
            lambda: fault("Cosmos throttles", ["cosmos.throttled", OVERLOADED], kind="throttle", retry_after_ms=50),
            self.rotate_account_keys,
            lambda: fault("Cosmos answers 503", ["upstream.unavailable"], kind="unavailable"),
            self.rotate_certificate,
            lambda: fault("partitions move: 410/1002", ["cosmos.retry_later"], kind="any", status=410, substatus=1002),
            lambda: self.rotate_issuer(drop=False),
            lambda: fault("connections break after the commit", ["upstream.unavailable", "upstream.timeout"], kind="cut_after_commit"),
            self.break_policies,
            lambda: fault("Cosmos is slow", [OVERLOADED], kind="delay", ms=700),
            lambda: fault("410 without a reason", ["cosmos.retry_later", "upstream.timeout"], kind="any", status=410),
            lambda: self.rotate_issuer(drop=True),
            lambda: fault("writes meet: 449", ["cosmos.retry_later"], kind="retry_with"),
            self.expire_tokens,
            lambda: fault("replicas are behind: 404/1002", ["cosmos.session_not_available"], kind="session"),
            self.hang_up,
            self.outage,
        ]

    def fault(self, what: str, explains: list[str], **order: Any) -> None:
        """Strikes a few requests at a time, so that most are well when they are sent again."""
        with self.disturbed(what, *explains):
            end = time.time() + LASTING
            while time.time() < end:
                peers.fault(self.scene.cosmos, count=10, **order)
                time.sleep(0.1)
            peers.ask("DELETE", f"{self.scene.cosmos}/_stepgate/faults")

    def outage(self) -> None:
        """Strikes all that come."""
        with self.disturbed("Cosmos is gone", "upstream.unavailable", OVERLOADED):
            peers.fault(self.scene.cosmos, kind="unavailable", count=1_000_000)
            time.sleep(LASTING)
            peers.ask("DELETE", f"{self.scene.cosmos}/_stepgate/faults")

    def expire_tokens(self) -> None:
        """Cosmos refuses the resource tokens that are at hand."""
        with self.disturbed("resource tokens end"):
            peers.fault(self.scene.cosmos, kind="expire_tokens")

    def reload(self) -> None:
        """Changed files are found without being told of."""
        with self.disturbed("policies change"):
            before = self.scene.admin("/status")["policy"]["running"]["revision"]
            self.scene.write_policy()
            self.scene.soon("the new policies decide", lambda: self.scene.admin("/status")["policy"]["running"]["revision"] != before)

    def break_policies(self) -> None:
        """A role that is bound and not there: kept out, and the answers stay what they were."""
        with self.disturbed("policies are broken"):
            (self.scene.policies / "broken.yaml").write_text("bindings:\n  - { role: absent, workloads: all }\n")
            self.scene.soon("broken policies are kept out", lambda: self.scene.admin("/status")["policy"]["rejected"] is not None)
            time.sleep(LASTING)
            (self.scene.policies / "broken.yaml").unlink()
            self.scene.soon("mended policies are taken", lambda: self.scene.admin("/status")["policy"]["rejected"] is None)

    def rotate_account_keys(self) -> None:
        """As docs/operations.md has it: the other key first. In between the gateway runs on the one that the account still takes."""
        with self.disturbed("both account keys rotate"):
            for which in ("secondary", "primary"):
                self.scene.keys[f"{which}MasterKey"] = peers.fault(self.scene.cosmos, kind="rotate_key", key=which)["account_key"]
                time.sleep(1)
                replace(self.scene.key_file, json.dumps(self.scene.keys))
                time.sleep(1)

            def is_in_use() -> bool:
                key = self.scene.admin("/status")["credential"]["account_key"]
                return not key["refused"] and key["error"] is None

            self.scene.soon("the account takes the key in use", is_in_use)

    def rotate_certificate(self) -> None:
        """New connections are shown the new one; those that are open go on."""
        with self.disturbed("the certificate rotates"):
            new = self.scene.certificates.put()
            url = urllib.parse.urlsplit(self.scene.gateway.ready["gateway"])
            address = (str(url.hostname), int(url.port or 443))
            self.scene.soon("the new certificate is shown", lambda: ssl.get_server_certificate(address).split() == new.split())

    def rotate_issuer(self, drop: bool) -> None:
        """Tokens of the key before are good as long as the issuer shows it; when it drops it they are not, and others are asked for."""
        with self.disturbed("the issuer drops its key" if drop else "the issuer's key rotates", *(["identity.invalid_token"] if drop else [])):
            peers.ask("POST", f"{self.scene.issuer}/_stepgate/rotate{'?drop=old' if drop else ''}")
            self.scene.renew()
            # One that names a key which is gone would have the gateway ask for keys in vain, after which it asks for none for ten
            # seconds: a new one would have to wait.
            self.scene.forge()
            time.sleep(2)

    def hang_up(self) -> None:
        """Reads everything again, twice: by signal and by the admin listener."""
        with self.disturbed("SIGHUP and POST /reload"):
            self.scene.gateway.signal(signal.SIGHUP)
            self.scene.admin("/reload", "POST")
