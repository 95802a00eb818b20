#!/usr/bin/env python3
"""Two gateways behind HAProxy are restarted one after the other, twice, under load: no request fails.

Wants `haproxy` (Debian's package). ROLLS sets how many restarts there are (default 4).
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import peers
from peers import Program, Stage, expect, expect_that

ROLLS = int(os.environ.get("ROLLS", "4"))
CALLERS = 8
ORDERS = "/dbs/shop/colls/orders/docs?partitionKey=t1"


class Caller(threading.Thread):
    """Writes and reads in turn over connections that it keeps open, until it is told to end."""

    def __init__(self, balancer: str, token: str, number: int) -> None:
        super().__init__(daemon=True)
        self.balancer, self.number, self.end = urlsplit(balancer), number, threading.Event()
        self.headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        self.answered, self.failed = 0, []

    def run(self) -> None:
        """Whatever is no success counts as failed, a connection that breaks before the answer too."""
        connection = None
        body = json.dumps({"id": f"o-{self.number}", "tenant": "t1"})
        while not self.end.is_set():
            if connection is None:
                connection = http.client.HTTPConnection(
                    str(self.balancer.hostname), self.balancer.port, timeout=peers.PATIENCE
                )
            try:
                if self.answered % 2 == 0:
                    connection.request("POST", ORDERS, body, {**self.headers, "x-ms-documentdb-is-upsert": "true"})
                else:
                    connection.request("GET", f"/dbs/shop/colls/orders/docs/o-{self.number}?partitionKey=t1", headers=self.headers)
                answer = connection.getresponse()
                text = answer.read().decode()
                if answer.status not in (200, 201):
                    self.failed.append(f"{answer.status} {text[:200]}")
                if answer.getheader("connection") == "close":
                    connection.close()
                    connection = None
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(repr(error))
                connection = None
            self.answered += 1


class Rolling:
    """Two gateways on one Cosmos, each with an audit log of its own, and a balancer in front."""

    def __init__(self, stage: Stage) -> None:
        expect_that(shutil.which("haproxy") is not None, "haproxy is installed: apt-get install haproxy")
        self.stage, self.issuer = stage, stage.dev("issuer")
        cosmos = stage.dev("cosmos")
        self.configs = {name: self.config(name, cosmos) for name in ("a", "b")}
        self.gateways: dict[str, Program] = {}
        for name in self.configs:
            self.start(name)
        self.balancer = self.balance()

    def config(self, name: str, cosmos: str) -> dict:
        """Ports stay the same over restarts, as the balancer wants it."""
        config = self.stage.gateway_config(self.issuer, cosmos)
        config["audit"]["directory"] = str(self.stage.path(f"audit-{name}"))
        config["listen"], config["admin"] = (f"127.0.0.1:{peers.free_port()}" for _ in range(2))
        return config

    def start(self, name: str) -> None:
        """Starts a gateway, and waits until it has been ready."""
        self.gateways[name] = gateway = self.stage.gateway(self.configs[name])
        deadline = time.monotonic() + peers.PATIENCE
        while peers.stepgate("health", "--started", "--admin", gateway.ready["admin"]).returncode != 0:
            expect_that(time.monotonic() < deadline, f"gateway {name} starts")
            time.sleep(0.05)

    def balance(self) -> str:
        """HAProxy with health checks on /readyz, and a socket that takes orders."""
        port, self.socket = peers.free_port(), self.stage.path("haproxy.sock")
        servers = "\n".join(
            f"  server {name} {config['listen']} check port {config['admin'].rpartition(':')[2]} inter 200ms"
            for name, config in self.configs.items()
        )
        file = self.stage.path("haproxy.cfg")
        file.write_text(f"""\
global
  stats socket {self.socket} level admin
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  option httpchk GET /readyz
frontend front
  bind 127.0.0.1:{port}
  default_backend gateways
backend gateways
{servers}
""")
        log = self.stage.path("haproxy.log").open("wb")
        process = subprocess.Popen(["haproxy", "-db", "-f", str(file)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.stage.cleanup.callback(lambda: (process.kill(), process.wait()))
        deadline = time.monotonic() + peers.PATIENCE
        while not Path(self.socket).exists() or [self.state(name)[0] for name in self.configs] != ["UP", "UP"]:
            expect_that(time.monotonic() < deadline, f"HAProxy finds both gateways:\n{Path(log.name).read_text()}")
            time.sleep(0.05)
        return f"http://127.0.0.1:{port}"

    def order(self, text: str) -> str:
        """An order to HAProxy, and what it says."""
        with socket.socket(socket.AF_UNIX) as stream:
            stream.settimeout(peers.PATIENCE)
            stream.connect(str(self.socket))
            stream.sendall(f"{text}\n".encode())
            return b"".join(iter(lambda: stream.recv(65536), b"")).decode()

    def state(self, name: str) -> tuple[str, int]:
        """How HAProxy sees a gateway, and how many requests it has there."""
        lines = self.order("show stat").splitlines()
        heads = lines[0].lstrip("# ").split(",")
        for line in lines[1:]:
            cells = dict(zip(heads, line.split(",")))
            if (cells.get("pxname"), cells.get("svname")) == ("gateways", name):
                return cells["status"].split()[0], int(cells["scur"])
        raise peers.Failure(f"HAProxy knows no gateway {name}")

    def checks(self) -> list[tuple[str, Callable[[], None]]]:
        """Every check with its name."""
        return [
            (f"{ROLLS} restarts under load: 0 failed requests", self.roll),
            ("both audit logs verify", self.logs),
        ]

    def restart(self, name: str) -> None:
        """Drain in front, stop, start, put back: as docs/operations.md has it."""
        deadline = time.monotonic() + peers.PATIENCE
        self.order(f"set server gateways/{name} state drain")
        while self.state(name)[1] > 0:
            expect_that(time.monotonic() < deadline, f"gateway {name} drains")
            time.sleep(0.02)
        expect(self.gateways[name].stop(), 0, "exit code of a gateway that is asked to stop")
        self.start(name)
        self.order(f"set server gateways/{name} state ready")
        while self.state(name)[0] != "UP":
            expect_that(time.monotonic() < deadline, f"HAProxy takes gateway {name} back")
            time.sleep(0.02)

    def roll(self) -> None:
        """Every caller gets an answer to everything it asks, all the time."""
        token = peers.token(f"{self.issuer}/token")
        callers = [Caller(self.balancer, token, number) for number in range(CALLERS)]
        for caller in callers:
            caller.start()
        for number in range(ROLLS):
            before = sum(caller.answered for caller in callers)
            self.restart("ab"[number % 2])
            expect_that(sum(caller.answered for caller in callers) > before, "requests went on meanwhile")
        for caller in callers:
            caller.end.set()
        for caller in callers:
            caller.join()
        answered = sum(caller.answered for caller in callers)
        expect([failure for caller in callers for failure in caller.failed], [], f"failed of {answered} requests")
        print(f"        {answered} requests, 0 failed, {ROLLS} restarts", flush=True)

    def logs(self) -> None:
        """Each gateway's log is whole over its restarts."""
        for name, config in self.configs.items():
            expect(self.gateways[name].stop(), 0, "exit code of a gateway that is asked to stop")
            peers.verify(Path(config["audit"]["directory"]))


def scene(stage: Stage) -> list[tuple[str, Callable[[], None]]]:
    """Issuer and Cosmos live through it all; the gateways do not."""
    return Rolling(stage).checks()


if __name__ == "__main__":
    peers.run("rolling", scene)
