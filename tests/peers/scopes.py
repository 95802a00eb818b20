#!/usr/bin/env python3
"""Many scopes: what they cost in memory and in request units, when they are new and after a restart. Prints the figures.

STEPGATE_SCOPES says how many (default 300; 10000 takes a quarter of an hour)."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import peers
from peers import Program, Stage, expect, expect_that

SCOPES = int(os.environ.get("STEPGATE_SCOPES", "300"))
# A token names so many tenants, each of which is a scope of its own under the policy.
TENANTS = 100
# Not all of the 240 there are: what is asked for at exactly the rate at which it is given is late now and then.
UNITS = 220


class Scopes:
    """The checks, in the order in which they are made."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        clients = -(-SCOPES // TENANTS)
        salt = secrets.token_hex(2)
        self.tenants = {
            f"c{client}": [f"{salt}-{client}-{n}" for n in range(min(TENANTS, SCOPES - client * TENANTS))]
            for client in range(clients)
        }
        policies = stage.path("policies")
        policies.mkdir()
        grant = '{ container: shop/orders, partition_key: ["{claims.tenants}"], operations: [items/read] }'
        binding = '{ role: reader, workloads: [{ issuer: peer, claims: { token_kind: workload } }] }'
        (policies / "scopes.yaml").write_text(f"roles: {{ reader: {{ grants: [{grant}] }} }}\nbindings: [{binding}]\n")
        config = stage.gateway_config("http://127.0.0.1:1", "http://127.0.0.1:1", policies={"directory": str(policies)})
        config["dev"]["issuer"]["clients"] = [
            {"client_id": name, "client_secret": peers.SECRET, "kind": "workload", "claims": {"tenants": tenants}}
            for name, tenants in self.tenants.items()
        ]
        config["dev"]["issuer"]["lifetime"] = "2h"
        both = {}
        for part in ("issuer", "cosmos"):
            argv = (peers.STEPGATE, "dev", part, "--config", str(stage.config(config)), "--format", "json")
            both[part] = str(stage.program(*argv).ready[part])
        self.cosmos = both["cosmos"]
        config["issuers"][0]["url"] = both["issuer"]
        config["cosmos"]["endpoint"] = self.cosmos + "/"
        config["cosmos"]["credential"]["metadata_units_per_second"] = UNITS
        self.config = config
        self.tokens = {name: peers.token(f"{both['issuer']}/token", name) for name in self.tenants}
        self.gateway: Program = stage.gateway(config)

    def checks(self) -> list[tuple[str, Callable[[], None]]]:
        """Every check with its name."""
        return [
            (f"{SCOPES} new scopes within {UNITS} units a second, each minted once", self.new),
            ("a restart finds them all, at one read each", self.restarted),
        ]

    def memory(self) -> int:
        """Resident memory of the gateway, in KiB."""
        for line in Path(f"/proc/{self.gateway.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise peers.Failure("the gateway has no memory")

    def read(self, name: str, tenant: str) -> None:
        """Reads an item that is not there, which takes a token all the same."""
        url = f"{self.gateway.ready['gateway']}/dbs/shop/colls/orders/docs/none?partitionKey={tenant}"
        headers = {"authorization": f"Bearer {self.tokens[name]}", "x-stepgate-errors": "distinct"}
        answer = peers.ask("GET", url, headers=headers)
        expect((answer.status, answer.body["error"]), (404, "cosmos.not_found"), "answer")

    def use_all(self, what: str) -> None:
        """One request for each scope, a few at a time; says what it took."""
        # The first request makes what a gateway holds in any case.
        name, tenants = next(iter(self.tenants.items()))
        self.read(name, tenants[0])
        before, spent_before, began = self.memory(), self.spent(), time.monotonic()
        rates: list[float] = []
        done = threading.Event()
        watcher = threading.Thread(target=self.watch, args=(rates, done))
        watcher.start()
        try:
            with ThreadPoolExecutor(16) as pool:
                calls = [pool.submit(self.read, name, tenant) for name, of in self.tenants.items() for tenant in of]
                for call in calls:
                    call.result()
        finally:
            done.set()
            watcher.join()
        seconds, spent, grown = time.monotonic() - began, self.spent() - spent_before, self.memory() - before
        print(
            f"        {what}: {SCOPES} scopes in {seconds:.1f} s ({SCOPES / seconds:.1f}/s); {spent:.0f} request units, "
            f"{spent / seconds:.0f} a second, {max(rates, default=0):.0f} in the worst second; "
            f"memory {before} KiB + {grown} KiB ({grown * 1024 / SCOPES:.0f} bytes a scope)",
            flush=True,
        )
        master = peers.ask("GET", f"{self.cosmos}/_stepgate/requests").body["master"]
        expect(master["throttled"], 0, "requests that Cosmos throttled")

    def spent(self) -> float:
        """Request units spent on users and permissions, by Cosmos' count."""
        return float(peers.ask("GET", f"{self.cosmos}/_stepgate/requests").body["master"]["request_units"])

    def watch(self, rates: list[float], done: threading.Event) -> None:
        """What was spent in each second."""
        at, spent = time.monotonic(), self.spent()
        while not done.wait(1.0):
            now, then = time.monotonic(), self.spent()
            rates.append((then - spent) / (now - at))
            at, spent = now, then

    def minted(self) -> list[int]:
        """How often each permission was minted."""
        mints = peers.ask("GET", f"{self.cosmos}/_stepgate/requests").body["mints"]
        return [mint["count"] for mint in mints]

    def new(self) -> None:
        """A read that finds nothing, a user, a permission."""
        self.use_all("new")
        expect(self.minted(), [1] * SCOPES, "mints of each scope")
        expect_that(self.spent() < SCOPES * 12.5, f"{self.spent()} request units for {SCOPES} scopes")

    def restarted(self) -> None:
        """A read each, which also makes the token."""
        expect(self.gateway.stop(), 0, "exit code")
        self.gateway = self.stage.gateway(self.config)
        before = self.spent()
        self.use_all("known")
        expect(self.minted(), [2] * SCOPES, "mints of each scope")
        expect_that(self.spent() - before < SCOPES * 2.5, f"{self.spent() - before} request units for {SCOPES} scopes")


def scene(stage: Stage) -> list[tuple[str, Callable[[], None]]]:
    """Issuer, Cosmos and gateway, each a process, so that the memory is the gateway's alone."""
    return Scopes(stage).checks()


if __name__ == "__main__":
    peers.run("scopes", scene)
