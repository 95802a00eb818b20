#!/usr/bin/env python3
"""Prometheus and promtool: they accept the metrics, the alert rules and every query of the dashboard.

Wants `prometheus` and `promtool` (Debian's package `prometheus`).
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peers
from peers import Stage, expect, expect_that

ROOT = peers.HERE.parents[1]
RULES = ROOT / "docker/prometheus"
DASHBOARD = ROOT / "docker/grafana/stepgate.json"
ITEMS = "/dbs/shop/colls/orders/docs"
# What Grafana fills in.
FILLED = {"$job": "stepgate", "$__rate_interval": "1m"}
NAME = re.compile(r"\bstepgate_[a-z_]+\b")


def promtool(*argv: str, stdin: str | None = None) -> None:
    """Runs promtool, which must be content."""
    ran = subprocess.run(
        ["promtool", *argv], input=stdin, capture_output=True, text=True, timeout=peers.PATIENCE, check=False
    )
    expect(ran.returncode, 0, f"exit code of promtool {' '.join(argv)}\n{ran.stdout}{ran.stderr}")


class Prometheus:
    """A gateway with some traffic behind it, and a Prometheus that scrapes it."""

    def __init__(self, stage: Stage) -> None:
        for program in ("prometheus", "promtool"):
            expect_that(shutil.which(program) is not None, f"{program} is installed: apt-get install prometheus")
        self.stage, issuer = stage, stage.dev("issuer")
        self.gateway = stage.gateway(stage.gateway_config(issuer, stage.dev("cosmos")))
        token = {"authorization": f"Bearer {peers.token(f'{issuer}/token')}"}
        ask = f"{self.gateway.ready['gateway']}{ITEMS}"
        for number in range(3):
            peers.ask("POST", f"{ask}?partitionKey=t1", {"id": f"o-{number}", "tenant": "t1"}, token)
        peers.ask("GET", f"{ask}/o-1?partitionKey=t1", headers=token)
        peers.ask("GET", f"{self.gateway.ready['gateway']}/dbs/shop/colls/vault/docs/v1", headers=token)
        peers.ask("GET", f"{ask}/o-1")
        self.port = self.start()

    def start(self) -> int:
        """Prometheus on a free port, with the rules and scrape configuration that are shipped."""
        directory = self.stage.path("prometheus")
        shutil.copytree(RULES, directory)
        admin = self.gateway.ready["admin"].removeprefix("http://")
        config = (RULES / "prometheus.yaml").read_text().replace("127.0.0.1:9090", admin).replace("15s", "1s")
        (directory / "prometheus.yaml").write_text(config)
        port = peers.free_port()
        log = (directory / "log").open("wb")
        process = subprocess.Popen(
            ["prometheus", f"--config.file={directory}/prometheus.yaml", f"--storage.tsdb.path={directory}/data",
             f"--web.listen-address=127.0.0.1:{port}", "--enable-feature=exemplar-storage"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
        self.stage.cleanup.callback(lambda: (process.kill(), process.wait()))
        self.port = port
        deadline = time.monotonic() + peers.PATIENCE
        while time.monotonic() < deadline:
            try:
                ready = peers.ask("GET", f"http://127.0.0.1:{port}/-/ready").status == 200
            except OSError:
                ready = False
            if ready and self.query('rate(stepgate_requests_total{job="stepgate"}[1m])'):
                return port
            time.sleep(0.2)
        raise peers.Failure(f"Prometheus scrapes nothing:\n{(directory / 'log').read_text()[-2000:]}")

    def query(self, expression: str) -> list[Any]:
        """What a query gives now; it must be one."""
        answer = peers.ask("POST", f"http://127.0.0.1:{self.port}/api/v1/query", [("query", expression)])
        expect(answer.body["status"] if isinstance(answer.body, dict) else answer.status, "success", expression)
        return list(answer.body["data"]["result"])

    def checks(self) -> list[tuple[str, Callable[[], None]]]:
        """Every check with its name."""
        return [
            ("promtool finds nothing to say about the metrics", self.metrics),
            ("promtool accepts configuration and alert rules", self.rules),
            ("the alerts ring when they should", self.alerts),
            ("every query of the dashboard is one, and names metrics that exist", self.dashboard),
            ("every expression of an alert names metrics that exist, and is in the page", self.page),
            ("a scraper that asks for OpenMetrics gets it", self.open_metrics),
        ]

    def scraped(self, accept: str = "*/*") -> peers.Answer:
        """The gateway's metrics."""
        return peers.ask("GET", f"{self.gateway.ready['admin']}/metrics", headers={"accept": accept})

    def metrics(self) -> None:
        """Names, units, help."""
        promtool("check", "metrics", stdin=str(self.scraped().body))

    def rules(self) -> None:
        """As they are shipped."""
        promtool("check", "config", str(RULES / "prometheus.yaml"))
        promtool("check", "rules", str(RULES / "alerts.yaml"))

    def alerts(self) -> None:
        """The unit tests beside the rules."""
        promtool("test", "rules", str(RULES / "alerts.test.yaml"))

    def known(self) -> set[str]:
        """Every sample that can be: what the page lists, and the parts of histograms."""
        page = (ROOT / "docs/operations.md").read_text()
        names = set(re.findall(r"^\| `(stepgate_[a-z_]+)`", page, re.MULTILINE))
        return names | {f"{name}{part}" for name in names for part in ("_bucket", "_sum", "_count")}

    def dashboard(self) -> None:
        """Each panel's queries, with Grafana's variables filled in; most of them have something to show."""
        panels = json.loads(DASHBOARD.read_text())["panels"]
        queries = [target["expr"] for panel in panels for target in panel.get("targets", [])]
        expect_that(len(queries) > 30, "the panels are read")
        answered, named = 0, set()
        for query in queries:
            named |= set(NAME.findall(query))
            for variable, value in FILLED.items():
                query = query.replace(variable, value)
            expect_that("$" not in query, f"a variable nobody fills in: {query}")
            answered += bool(self.query(query))
        expect(named - self.known(), set(), "metrics that the gateway does not have")
        expect_that(answered > len(queries) * 3 // 4, f"most panels show something ({answered} of {len(queries)})")

    def page(self) -> None:
        """Rules as Prometheus has loaded them."""
        rules = peers.ask("GET", f"http://127.0.0.1:{self.port}/api/v1/rules").body["data"]["groups"][0]["rules"]
        page = (ROOT / "docs/operations.md").read_text()
        for rule in rules:
            expect(set(NAME.findall(rule["query"])) - self.known(), set(), f"unknown metrics of {rule['name']}")
            expect_that(f"`{rule['name']}`" in page, f"{rule['name']} is in docs/operations.md")
            expect(rule["health"], "ok", f"health of {rule['name']}")
            heading = rule["annotations"]["runbook"].partition("#")[2]
            headings = {re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-")
                        for line in page.splitlines() if line.startswith("#")}  # fmt: skip
            expect_that(heading in headings, f"the runbook of {rule['name']} exists ({heading})")
        mentioned = set(re.findall(r"`(Stepgate[A-Za-z]+)`", page))
        expect(mentioned, {rule["name"] for rule in rules}, "alerts in docs/operations.md")

    def open_metrics(self) -> None:
        """The other form, which Prometheus itself has asked for."""
        answer = self.scraped("application/openmetrics-text; version=1.0.0")
        expect_that(answer.headers["content-type"].startswith("application/openmetrics-text"), "its content type")
        expect_that(str(answer.body).endswith("# EOF\n"), "its end")
        [up] = self.query('up{job="stepgate"}')
        expect(up["value"][1], "1", "up")


def scene(stage: Stage) -> list[tuple[str, Callable[[], None]]]:
    """Gateway, stand-ins and Prometheus live through it all."""
    return Prometheus(stage).checks()


if __name__ == "__main__":
    peers.run("prometheus", scene)
