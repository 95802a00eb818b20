#!/usr/bin/env python3
"""The account key lives in AWS Secrets Manager (as moto plays it) and is rotated under load, in each of the ways in which the
account and the secret can be out of step; then Secrets Manager hangs, and then nothing can be minted. No request may fail."""

from __future__ import annotations

import base64
import http.client
import json
import os
import secrets
import signal
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import boto3

import peers
from peers import HERE, Program, Stage, expect, expect_that

RATE = 100
WORKERS = 20
# How long the load goes on after each step, and how long each outage lasts, in seconds.
HOLD = float(os.environ.get("STEPGATE_HOLD", "2"))
OUTAGE = float(os.environ.get("STEPGATE_OUTAGE", "8"))
SECRET_ID = "prod/cosmos"
ORDER = "/dbs/shop/colls/orders/docs/o-1?partitionKey=t1"
AWS = {"AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "peer", "AWS_SECRET_ACCESS_KEY": "peer"}


class Load:
    """So many reads a second, each on time whether the one before was quick or not; every answer but 200 is kept."""

    def __init__(self, gateway: str, token: str) -> None:
        self.address = urllib.parse.urlsplit(gateway).netloc
        self.headers = {"authorization": f"Bearer {token}", "x-stepgate-errors": "distinct"}
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.sent, self.slowest = 0, 0.0
        self.failed: list[str] = []
        self.workers = [threading.Thread(target=self._work, args=(number,)) for number in range(WORKERS)]

    def _work(self, number: int) -> None:
        connection = http.client.HTTPConnection(self.address, timeout=peers.PATIENCE)
        due = time.monotonic() + number / RATE
        while not self.stop.wait(max(0.0, due - time.monotonic())):
            due += WORKERS / RATE
            began = time.monotonic()
            try:
                connection.request("GET", ORDER, headers=self.headers)
                answer = connection.getresponse()
                text = answer.read().decode()
                failure = None if answer.status == 200 else f"{answer.status} {text}"
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                failure = repr(error)
            with self.lock:
                self.sent += 1
                self.slowest = max(self.slowest, time.monotonic() - began)
                if failure:
                    self.failed.append(failure)
        connection.close()

    @contextmanager
    def running(self, what: str) -> Iterator[None]:
        """Load while the block runs; no request of it may have failed."""
        began = time.monotonic()
        for worker in self.workers:
            worker.start()
        try:
            yield
        finally:
            self.stop.set()
            for worker in self.workers:
                worker.join()
        seconds = time.monotonic() - began
        print(
            f"        {what}: {self.sent} requests in {seconds:.1f} s ({self.sent / seconds:.0f}/s), "
            f"{len(self.failed)} failed, the slowest took {self.slowest * 1000:.0f} ms",
            flush=True,
        )
        expect(self.failed[:3], [], f"failed requests ({len(self.failed)} of {self.sent})")
        expect_that(self.sent > RATE * seconds / 2, f"at least half the rate was kept: {self.sent} in {seconds:.1f} s")


class KeyRotation:
    """The checks, in the order in which they are made."""

    def __init__(self, stage: Stage) -> None:
        self.aws = stage.program(sys.executable, str(HERE / "aws.py"))
        url = self.aws.ready["aws"]
        self.client: Any = boto3.client(
            "secretsmanager",
            endpoint_url=url,
            region_name=AWS["AWS_REGION"],
            aws_access_key_id="peer",
            aws_secret_access_key="peer",
        )
        self.issuer, self.cosmos = stage.dev("issuer"), stage.dev("cosmos")
        self.keys: dict[str, str] = peers.ask("GET", f"{self.cosmos}/_stepgate/keys").body
        # A key that the account never takes, so that the other one of the secret is no way out until a check makes it one.
        self.keys["secondaryMasterKey"] = base64.b64encode(secrets.token_bytes(64)).decode()
        self.current = self.client.create_secret(Name=SECRET_ID, SecretString=json.dumps(self.keys))["VersionId"]
        config = stage.gateway_config(self.issuer, self.cosmos)
        field = {"secret_id": SECRET_ID, "field": "primaryMasterKey", "refresh": "2s"}
        config["cosmos"]["credential"]["account_key"] = {"kind": "aws_secrets_manager", **field}
        token = stage.path("admin-token")
        self.admin_token = secrets.token_hex(16)
        token.write_text(self.admin_token)
        config["admin_token"] = {"kind": "file", "path": str(token)}
        self.gateway: Program = stage.gateway(config, {**AWS, "AWS_ENDPOINT_URL": url})
        self.token = peers.token(f"{self.issuer}/token")
        body = {"id": "o-1", "tenant": "t1"}
        headers = {"authorization": f"Bearer {self.token}", "x-ms-documentdb-is-upsert": "true"}
        made = peers.ask("POST", f"{self.gateway.ready['gateway']}/dbs/shop/colls/orders/docs?partitionKey=t1", body, headers)
        expect(made.status, 201, f"status of the first write ({made.body})")

    def checks(self) -> list[tuple[str, Callable[[], None]]]:
        """Every check with its name."""
        return [
            ("account and secret change at the same moment", self.together),
            ("the account takes only the key that is pending", self.pending),
            ("the secret is ahead of the account, which takes only the key before", self.previous),
            ("one of two keys in the secret is replaced", self.other),
            (f"Secrets Manager hangs for {OUTAGE:.0f} s", self.hangs),
            (f"nothing can be minted for {OUTAGE:.0f} s", self.unmintable),
            ("Cosmos has thrown nothing back for want of budget", self.budget),
        ]

    # What is done to the account and to the secret.

    def rotate(self, key: str | None = None) -> str:
        """Puts another primary key in force; the old one signs nothing any more, nor do the tokens minted by it work."""
        order = {"kind": "rotate_key", **({"account_key": key} if key else {})}
        return str(peers.fault(self.cosmos, **order)["account_key"])

    def write(self, **keys: str) -> str:
        """A pending version with these keys in place of those before."""
        self.keys = {**self.keys, **keys}
        version = {"SecretId": SECRET_ID, "SecretString": json.dumps(self.keys), "VersionStages": ["AWSPENDING"]}
        return str(self.client.put_secret_value(**version)["VersionId"])

    def finish(self, version: str) -> None:
        """As the last step of a rotation does it."""
        stages = self.client.update_secret_version_stage
        stages(SecretId=SECRET_ID, VersionStage="AWSCURRENT", MoveToVersionId=version, RemoveFromVersionId=self.current)
        stages(SecretId=SECRET_ID, VersionStage="AWSPENDING", RemoveFromVersionId=version)
        self.current = version

    # What the gateway says.

    def admin(self, path: str, method: str = "GET") -> Any:
        """An answer of the admin listener."""
        headers = {"authorization": f"Bearer {self.admin_token}"}
        return peers.ask(method, self.gateway.ready["admin"] + path, headers=headers).body

    def soon(self, holds: Callable[[], bool], what: str) -> None:
        """Waits until it holds."""
        until = time.monotonic() + peers.PATIENCE
        while not holds():
            expect_that(time.monotonic() < until, what)
            time.sleep(0.05)

    def in_use(self, stage: str, field: str = "primaryMasterKey") -> None:
        """Waits until the gateway says that this key is in use, and where it is the current one, that of this version."""

        def is_so() -> bool:
            key = self.admin("/status")["credential"]["account_key"]
            is_this = stage != "AWSCURRENT" or key["version"] == self.current
            return (key["stage"], key["field"]) == (stage, field) and is_this

        self.soon(is_so, f"the key of {stage}, {field} is in use; there is {self.admin('/status')['credential']}")

    def readiness(self, status: str) -> None:
        """Waits until `/readyz` says so."""
        self.soon(lambda: self.admin("/readyz")["status"] == status, f"/readyz says {status}: {self.admin('/readyz')}")

    def load(self) -> Load:
        """A load of its own for each check."""
        return Load(self.gateway.ready["gateway"], self.token)

    # The checks.

    def together(self) -> None:
        """The account goes first: no program that rotates a key can do both at once."""
        with self.load().running("same moment, three times"):
            for _ in range(3):
                time.sleep(HOLD / 2)
                self.finish(self.write(primaryMasterKey=self.rotate()))
            time.sleep(HOLD)
        self.in_use("AWSCURRENT")

    def pending(self) -> None:
        """Between two steps of the rotation."""
        with self.load().running("pending"):
            time.sleep(HOLD / 2)
            version = self.write(primaryMasterKey=self.rotate())
            self.in_use("AWSPENDING")
            time.sleep(HOLD)
            self.finish(version)
            self.in_use("AWSCURRENT")
            time.sleep(HOLD / 2)

    def previous(self) -> None:
        """The secret is current and has no key that the account takes; what is refused is found in the version before."""
        new = base64.b64encode(secrets.token_bytes(64)).decode()
        with self.load().running("previous"):
            self.finish(self.write(primaryMasterKey=new))
            self.in_use("AWSCURRENT")
            peers.fault(self.cosmos, kind="expire_tokens")
            self.in_use("AWSPREVIOUS")
            time.sleep(HOLD)
            self.rotate(new)
            self.in_use("AWSCURRENT")
            time.sleep(HOLD / 2)

    def other(self) -> None:
        """The primary is made anew and the secret does not hear of it for a while."""
        self.finish(self.write(secondaryMasterKey=peers.ask("GET", f"{self.cosmos}/_stepgate/keys").body["secondaryMasterKey"]))
        with self.load().running("the other key"):
            time.sleep(HOLD)
            new = self.rotate()
            self.in_use("AWSCURRENT", "secondaryMasterKey")
            time.sleep(HOLD)
            self.finish(self.write(primaryMasterKey=new))
            self.in_use("AWSCURRENT")

    def hangs(self) -> None:
        """It takes connections and answers nothing; meanwhile every token must be minted anew."""
        with self.load().running("without Secrets Manager"):
            self.aws.signal(signal.SIGSTOP)
            try:
                self.readiness("degraded")
                peers.fault(self.cosmos, kind="expire_tokens")
                time.sleep(OUTAGE)
            finally:
                self.aws.signal(signal.SIGCONT)
            self.readiness("ready")

    def unmintable(self) -> None:
        """Users and permissions are unavailable; tokens at hand are not."""
        fault = {"kind": "unavailable", "on": "permissions", "count": 1_000_000}
        with self.load().running("without users and permissions"):
            peers.fault(self.cosmos, **fault)
            self.readiness("degraded")
            time.sleep(OUTAGE)
            peers.ask("DELETE", f"{self.cosmos}/_stepgate/faults")
            self.readiness("ready")

    def budget(self) -> None:
        """All that was within the share of one gateway."""
        spent = peers.ask("GET", f"{self.cosmos}/_stepgate/requests").body["master"]
        print(f"        {spent['request_units']:.0f} request units on users and permissions in all", flush=True)
        expect(spent["throttled"], 0, "throttled requests")


def scene(stage: Stage) -> list[tuple[str, Callable[[], None]]]:
    """Issuer, Cosmos, Secrets Manager and gateway, each a process."""
    return KeyRotation(stage).checks()


if __name__ == "__main__":
    peers.run("key_rotation", scene)
