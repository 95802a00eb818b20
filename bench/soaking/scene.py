"""What stands around the gateway: stand-ins, keys, certificates, policies and tokens; and the gateway itself."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peers
import rig
from rig import run

from .load import POLICY, WORKLOADS, kinds, seed

# Connections of workflows come and go; and a certificate is shown to new ones alone.
CONNECTION_SECONDS = 20
# Tokens end after a minute, and others are asked for long before.
LIFETIME, RENEWAL = 60, 20.0


def replace(file: Path, text: str) -> None:
    """Puts a file in place in one step: nobody reads half of it."""
    beside = file.with_name(f".{file.name}.new")
    beside.write_text(text)
    beside.rename(file)


class Certificates:
    """An authority of this run alone, and certificates for loopback under it."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.ca = directory, directory / "ca.crt"
        directory.mkdir()
        (directory / "openssl.conf").write_text("[req]\ndistinguished_name = none\n[none]\n")
        self._make("ca", "basicConstraints=critical,CA:TRUE")

    def _make(self, name: str, *extensions: str, signer: str = "") -> None:
        command = ["openssl", "req", "-x509", "-config", "openssl.conf", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        command += ["-days", "2", "-subj", f"/CN=soak {name}", "-keyout", f"{name}.key", "-out", f"{name}.crt"]
        command += [word for extension in extensions for word in ("-addext", extension)]
        command += ["-CA", f"{signer}.crt", "-CAkey", f"{signer}.key"] if signer else []
        run(command, self.directory)

    def put(self) -> str:
        """Another certificate in the place of the one before."""
        self._make("new", "subjectAltName=IP:127.0.0.1", "basicConstraints=CA:FALSE", signer="ca")
        for end in ("key", "crt"):
            (self.directory / f"new.{end}").rename(self.directory / f"tls.{end}")
        return (self.directory / "tls.crt").read_text()

    def config(self) -> dict[str, str]:
        """`tls` of the gateway."""
        return {"certificate": str(self.directory / "tls.crt"), "private_key": str(self.directory / "tls.key")}


class Scene:
    """Stand-ins, gateway, tokens and load."""

    def __init__(self, stage: peers.Stage) -> None:
        self.stage = stage
        self.tokens, self.policies = stage.path("tokens"), stage.path("policies")
        self.key_file, self.admin_token = stage.path("account-keys"), os.urandom(16).hex()
        self.tokens.mkdir()
        self.policies.mkdir()
        self.changes = self.loads = 0
        self.renewing = threading.Lock()
        self.certificates = Certificates(stage.path("certificates"))
        self.certificates.put()
        self.write_policy()
        clients = [
            {"client_id": name, "client_secret": peers.SECRET, "kind": "workload", "claims": {"tenant": tenant}}
            for name, tenant in WORKLOADS.items()
        ]
        dev = {
            "cosmos": {"listen": "127.0.0.1:0", "seed": seed()},
            "issuer": {"listen": "127.0.0.1:0", "lifetime": f"{LIFETIME}s", "clients": clients},
        }
        self.issuer, self.cosmos = (self.stand_in(part, dev) for part in ("issuer", "cosmos"))
        self.keys: dict[str, str] = peers.ask("GET", f"{self.cosmos}/_stepgate/keys").body
        replace(self.key_file, json.dumps(self.keys))
        self.audit = stage.path("audit")
        self.gateway = self.start()
        self.renew()
        self.forge()

    def stand_in(self, part: str, dev: dict[str, Any]) -> str:
        """`cosmos` or `issuer`, in a process of its own; its address."""
        config = self.stage.config(self.stage.gateway_config("http://127.0.0.1:1", "http://127.0.0.1:1", dev=dev))
        return str(self.stage.program(peers.STEPGATE, "dev", part, "--config", str(config), "--format", "json").ready[part])

    def start(self) -> peers.Program:
        """The gateway."""
        token, idempotency = self.stage.path("admin-token"), self.stage.path("idempotency-key")
        token.write_text(self.admin_token)
        idempotency.write_text(os.urandom(32).hex())
        key = {"kind": "file", "path": str(self.key_file), "field": "primaryMasterKey"}
        sections = {
            "tls": self.certificates.config(),
            "admin_token": {"kind": "file", "path": str(token)},
            "policies": {"directory": str(self.policies)},
            # Of its own: derived from the account key it would change with that, and first answers be lost.
            "idempotency": {"key": {"kind": "file", "path": str(idempotency)}},
            # Small segments, so that many are closed; packed, so that half an hour of them fits on the disk.
            "audit": {"directory": str(self.audit), "durability": "fsync", "segment_size": "32MiB", "compress": True},
        }
        config = self.stage.gateway_config(self.issuer, self.cosmos, **sections)
        # Ten minutes are the least that Cosmos mints, so that tokens are renewed within the half hour.
        config["cosmos"]["credential"] = {"kind": "resource_token", "lifetime": "10m", "account_key": key}
        return self.stage.gateway(config)

    def forge(self) -> None:
        """A token that names the issuer's key and is signed with another."""
        rogue = {"key": "rogue", "ttl": 86_400, "claims": {"tenant": "t1"}}
        replace(self.tokens / "forged", peers.ask("POST", f"{self.issuer}/_stepgate/mint", rogue).body["access_token"])

    def renew(self) -> None:
        """A new token for every workload."""
        with self.renewing:
            for workload in WORKLOADS:
                replace(self.tokens / workload, peers.token(f"{self.issuer}/token", workload))

    def keep_tokens(self, over: threading.Event) -> None:
        """Asks for tokens before those at hand end, until it is over."""
        while not over.wait(RENEWAL):
            self.renew()

    def send(self, rate: float, connections: int, seconds: float, each: Callable[[dict[str, Any]], None]) -> None:
        """The load; its lines are given to `each` as they come."""
        self.loads += 1
        plan = {
            "base": self.gateway.ready["gateway"],
            "ca": str(self.certificates.ca),
            "tokens": str(self.tokens),
            "connections": connections,
            "connection_seconds": CONNECTION_SECONDS,
            "seconds": round(seconds),
            "rate": rate,
            "batch": 1,
            "kinds": list(kinds(self.loads)),
        }
        with rig.load(plan, self.stage.path("plan.json")) as lines:
            for line in lines:
                each(line)

    def admin(self, path: str, method: str = "GET") -> Any:
        """An answer of the admin listener."""
        return peers.ask(method, self.gateway.ready["admin"] + path, headers={"authorization": f"Bearer {self.admin_token}"}).body

    def soon(self, what: str, holds: Callable[[], bool]) -> None:
        """Waits until it holds."""
        until = time.monotonic() + 20
        while not holds():
            if time.monotonic() > until:
                raise peers.Failure(f"{what}; /status: {json.dumps(self.admin('/status'))}")
            time.sleep(0.05)

    def write_policy(self) -> None:
        """The same policy in other words, so that it has another revision."""
        self.changes += 1
        replace(self.policies / "soak.yaml", POLICY.format(number=self.changes))
