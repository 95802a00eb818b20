#!/usr/bin/env python3
"""Starts `sdk_js.mjs`, the JavaScript SDK's checks, against a gateway of its own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from typing import Any

import certificates
import peers
from peers import Stage


def scene(stage: Stage) -> list[tuple[str, Callable[[], None]]]:
    """A gateway with a certificate, and what the script found."""
    authority, certificate, private_key = certificates.make(stage.directory)
    issuer, cosmos = stage.dev("issuer"), stage.dev("cosmos")
    tls = {"certificate": str(certificate), "private_key": str(private_key)}
    gateway = stage.gateway(stage.gateway_config(issuer, cosmos, tls=tls)).ready["gateway"]
    tokens = {name: peers.token(f"{issuer}/token", client) for name, client in (("TOKEN", "worker"), ("OWN_TOKEN", "tenant-worker"))}
    environment = {"GATEWAY": gateway, "NODE_EXTRA_CA_CERTS": str(authority), **tokens}
    script = subprocess.run(
        ["node", str(stage.node_script("sdk_js.mjs"))],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=peers.PATIENCE,
        check=False,
    )
    peers.expect(script.returncode, 0, f"exit code of sdk_js.mjs ({script.stderr})")
    found = [json.loads(line) for line in script.stdout.splitlines() if line.startswith("{")]
    peers.expect_that(len(found) > 0, "sdk_js.mjs makes checks")
    return [(check["name"], verdict(check)) for check in found]


def verdict(check: dict[str, Any]) -> Callable[[], None]:
    """Fails as the script's own check did."""

    def say() -> None:
        if check["failure"] is not None:
            raise peers.Failure(check["failure"])

    return say


if __name__ == "__main__":
    peers.run("javascript-sdk", scene)
