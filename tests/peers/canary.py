#!/usr/bin/env python3
"""Secrets that no other text can be mistaken for go through a gateway, and are then looked for in everything that leaves it:
log, standard output, answers, metrics, status, spans, audit files; and in its memory, where they may be, and where they may not."""

from __future__ import annotations

import base64
import json
import os
import resource
import secrets
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import peers
from peers import Program, Stage, expect, expect_that

# An unprivileged user, for what an owner of the process who is not root may see.
NOBODY = 65534
ORDERS = "/dbs/shop/colls/orders/docs"


def forms(secret: bytes) -> dict[str, bytes]:
    """The secret as it is and as anything might write it."""
    encoded = base64.b64encode(secret)
    return {
        "text": secret,
        "hex": secret.hex().encode(),
        "HEX": secret.hex().upper().encode(),
        "base64": encoded.rstrip(b"=")[:-1],
        "percent": "".join(f"%{byte:02X}" if not chr(byte).isalnum() else chr(byte) for byte in secret).encode(),
        # As Rust's `Debug` writes bytes.
        "list": ", ".join(str(byte) for byte in secret[:24]).encode(),
    }


class Collector(BaseHTTPRequestHandler):
    """Takes spans by OTLP over HTTP, and keeps them as they come: text is plain in protobuf."""

    spans: list[bytes] = []

    def do_POST(self) -> None:  # noqa: N802
        """An export."""
        Collector.spans.append(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Silent."""


class Canary:
    """The checks, in the order in which they are made."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.key_bytes = secrets.token_bytes(64)
        self.key = base64.b64encode(self.key_bytes).decode()
        # What somebody takes for a key and sends.
        self.sent = base64.b64encode(secrets.token_bytes(64)).decode()
        self.admin_token = "canary-admin-" + secrets.token_hex(16)
        self.said: list[bytes] = []
        config = stage.gateway_config("http://127.0.0.1:1", "http://127.0.0.1:1")
        config["dev"]["cosmos"]["account_key"] = self.key
        both = {}
        for part in ("issuer", "cosmos"):
            argv = (peers.STEPGATE, "dev", part, "--config", str(stage.config(config)), "--format", "json")
            both[part] = str(stage.program(*argv).ready[part])
        self.issuer, self.cosmos = both["issuer"], both["cosmos"]
        self.key_file = stage.path("account-key")
        self.key_file.write_text(self.key)
        admin_token = stage.path("admin-token")
        admin_token.write_text(self.admin_token)
        config["issuers"][0]["url"] = self.issuer
        config["cosmos"]["endpoint"] = self.cosmos + "/"
        config["cosmos"]["credential"]["account_key"] = {"kind": "file", "path": str(self.key_file)}
        config["admin_token"] = {"kind": "file", "path": str(admin_token)}
        config["state"] = {"kind": "file", "path": str(stage.path("state"))}
        collector = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
        stage.cleanup.callback(collector.shutdown)
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{collector.server_address[1]}"
        config["telemetry"] = {"otlp_endpoint": endpoint, "otlp_protocol": "http"}
        # What plays Azure and the issuer knows its secrets; the gateway reads none of this.
        del config["dev"]
        self.config = config
        # Everything that any library of it can say.
        self.gateway: Program = stage.gateway(config, {"STEPGATE_LOG": "trace"})
        self.jwt = peers.token(f"{self.issuer}/token")
        self.tenant_jwt = peers.token(f"{self.issuer}/token", "tenant-worker")
        self.rotated: list[str] = []

    def checks(self) -> list[tuple[str, Callable[[], None]]]:
        """Every check with its name."""
        return [
            ("requests of every kind, good and bad, pass through", self.traffic),
            ("no log, answer, metric or audit file holds a secret", self.outside),
            ("the process makes no core dump, and may make none", self.limits),
            ("a gateway that is aborted leaves no core", self.aborted),
            ("its own user cannot read its memory", self.owner),
            ("its memory holds the secrets in use, and none that was replaced", self.memory),
            ("memory is the only place: nothing after the stop either", self.outside_after),
        ]

    # What is looked for.

    def all_secrets(self) -> dict[str, bytes]:
        """Every secret with a name."""
        named = {
            "account key": self.key.encode(),
            "bytes of the account key": self.key_bytes,
            "admin token": self.admin_token.encode(),
            "what a caller sent for a key": self.sent.encode(),
            "client secret": peers.SECRET.encode(),
            "signature of the workflow token": self.jwt.rsplit(".", 1)[1].encode(),
            "signature of the tenant's token": self.tenant_jwt.rsplit(".", 1)[1].encode(),
        }
        for number, key in enumerate(self.rotated):
            named[f"account key {number + 2}"] = key.encode()
            named[f"bytes of account key {number + 2}"] = base64.b64decode(key)
        return named

    def needles(self) -> dict[str, bytes]:
        """All that must be nowhere: every secret in every form, and what every resource token and signature looks like."""
        found = {f"{name} ({form})": text for name, secret in self.all_secrets().items() for form, text in forms(secret).items()}
        found["a resource token"] = b"type=resource&"
        found["an encoded resource token"] = b"type%3Dresource"
        found["a master signature"] = b"type=master&"
        found["an encoded master signature"] = b"type%3Dmaster"
        # How the payload of the stand-in's tokens begins.
        found["a token's payload"] = base64.b64encode(b'{"claim":{"user":"stepgate.')[:-4]
        return found

    def search(self, where: str, text: bytes) -> None:
        """Fails when anything of it is there."""
        present = [name for name, needle in self.needles().items() if needle in text]
        expect(present, [], f"secrets in {where}")

    # The checks.

    def say(self, answer: peers.Answer) -> peers.Answer:
        """Keeps all that was answered."""
        self.said.append(json.dumps([answer.status, dict(answer.headers), answer.body]).encode())
        return answer

    def ask(self, path: str, method: str = "GET", body: Any = None, **headers: str) -> peers.Answer:
        """A request to the gateway."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.say(peers.ask(method, self.gateway.ready["gateway"] + path, body, named))

    def admin(self, path: str, method: str = "GET", body: Any = None, token: str | None = None) -> peers.Answer:
        """A request to the admin listener."""
        headers = {"authorization": f"Bearer {token or self.admin_token}"}
        return self.say(peers.ask(method, self.gateway.ready["admin"] + path, body, headers))

    def fault(self, **order: Any) -> Any:
        """An order to the stand-in."""
        return peers.fault(self.cosmos, **order)

    def traffic(self) -> None:
        """Everything in which a secret could be said."""
        bearer, task = f"Bearer {self.jwt}", "Amazon|StepFunctions|HttpInvoke|us-east-1"
        order, created = f"{ORDERS}/o-1?partitionKey=t1", {"id": "o-1", "tenant": "t1"}
        expect(self.ask(f"{ORDERS}?partitionKey=t1", "POST", created, authorization=bearer).status, 201, "create")
        expect(self.ask(order, authorization=bearer).status, 200, "read")
        expect(self.ask(order, authorization=f"Bearer {self.tenant_jwt}").status, 200, "read of the tenant")
        sdk = "type%3Daad%26ver%3D1.0%26sig%3D" + self.jwt
        expect(self.ask(order, authorization=sdk).status, 200, "read of an SDK")
        expect(self.ask(order, x_stepgate_token=self.jwt).status, 200, "read with the workflow's own token")
        expect(self.ask("/dbs/shop/colls/vault/docs/v1?partitionKey=t1", authorization=bearer).status, 403, "denied")
        cut = self.jwt[:-4] + ("AAAA" if not self.jwt.endswith("AAAA") else "BBBB")
        for wrong in (cut, self.jwt + "x", "x" + self.jwt, self.jwt.rsplit(".", 1)[0] + "."):
            expect(self.ask(order, authorization=f"Bearer {wrong}", user_agent=task).status, 401, "forged")
        expect(self.ask(order, authorization=bearer, x_stepgate_token=self.jwt).status, 400, "two tokens")
        self.ask(f"{order}&token={self.jwt}", authorization=bearer)
        self.ask(f"/{self.jwt}", authorization=bearer)
        # A key is no caller's credential.
        for value in (f"type=master&ver=1.0&sig={self.sent}", self.sent, f"Bearer {self.sent}"):
            self.ask(order, authorization=value)
        # Cosmos refuses, throttles, breaks.
        self.fault(kind="expire_tokens")
        expect(self.ask(order, authorization=bearer).status, 200, "read after tokens ran out")
        for fault in ({"kind": "any", "status": 403}, {"kind": "any", "status": 401}, {"kind": "cut_after_commit"}):
            self.fault(**fault, count=3)
            self.ask(order, authorization=bearer)
            peers.ask("DELETE", f"{self.cosmos}/_stepgate/faults")
        for fault in ({"kind": "any", "status": 403}, {"kind": "any", "status": 418}, {"kind": "cut_after_commit"}):
            self.fault(**fault, on="permissions", count=30)
            self.fault(kind="expire_tokens")
            self.ask(order, authorization=bearer)
            peers.ask("DELETE", f"{self.cosmos}/_stepgate/faults")
        # The key is rotated, then unreadable, then no key.
        for _ in range(2):
            key = str(self.fault(kind="rotate_key")["account_key"])
            self.rotated.append(key)
            self.key_file.write_text(key)
            self.until_read(order, bearer)
        for text in (f"not a key {self.rotated[-1]}", self.rotated[-1][:-1] + "\u00e9", ""):
            self.key_file.write_text(text)
            expect(self.admin("/reload", "POST").status, 422, "reload of a key that is none")
        self.key_file.write_text(self.rotated[-1])
        expect(self.admin("/reload", "POST").status, 200, "reload")
        # Operators.
        for path in ("/livez", "/readyz", "/metrics", "/status", "/revocations"):
            self.admin(path)
        expect(self.admin("/reload", "POST", token=self.admin_token[:-1]).status, 401, "a wrong admin token")
        made = self.admin("/revoke", "POST", {"execution": "arn:aws:states:us-east-1:111122223333:execution:A:b"})
        expect_that(made.status < 300, f"a revocation is made: {made.status} {made.body}")
        self.until_read(order, bearer)

    def until_read(self, order: str, bearer: str) -> None:
        """The failures of a moment ago are over."""
        until = time.monotonic() + peers.PATIENCE
        while self.ask(order, authorization=bearer).status != 200:
            expect_that(time.monotonic() < until, "the order can be read again")
            time.sleep(0.1)

    def files(self) -> Iterator[Path]:
        """All that the gateway wrote: its log and standard output, the audit log, its state."""
        yield self.gateway.log
        written = [Path(self.config["audit"]["directory"]), Path(self.config["state"]["path"])]
        for path in written:
            yield from (file for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())

    def outside(self) -> None:
        """The searches know what they look for: a needle is found where it is put."""
        for name, needle in self.needles().items():
            expect_that(len(needle) >= 10, f"a needle for {name}")
            try:
                self.search("what holds it", b"<" + needle + b">")
            except peers.Failure:
                continue
            raise peers.Failure(f"the needle for {name} is not found where it was put")
        self.search("answers", b"\n".join(self.said))
        self.search("spans", b"\n".join(Collector.spans))
        total = 0
        for file in self.files():
            text = file.read_bytes()
            total += len(text)
            self.search(str(file), text)
        lines = self.gateway.log.read_text().count("\n")
        expect_that(lines > 200, f"the log says what it can: {lines} lines")
        spans = sum(map(len, Collector.spans))
        print(
            f"        {len(self.said)} answers, {lines} lines of log, {total} bytes in files, {spans} bytes of spans: nothing",
            flush=True,
        )

    def outside_after(self) -> None:
        """What is written on the way out."""
        expect(self.gateway.stop(), 0, "exit code")
        expect_that(b"items/read" in b"".join(Collector.spans), "spans of the requests were exported")
        self.outside()

    def limits(self) -> None:
        """By the process's own doing, whatever it was started with."""
        text = Path(f"/proc/{self.gateway.process.pid}/limits").read_text()
        (line,) = [line for line in text.splitlines() if line.startswith("Max core file size")]
        expect(line.split()[-3:-1], ["0", "0"], "soft and hard limit of the core file")

    def aborted(self) -> None:
        """The kernel says with the exit status whether it wrote a core."""
        folder = self.stage.path("cores")
        folder.mkdir()
        config = {**self.config, "audit": {"directory": str(self.stage.path("audit")), "durability": "memory"}}
        del config["state"]
        argv = [peers.STEPGATE, "serve", "--config", str(self.stage.config(config)), "--format", "json"]
        statuses = {}
        for name, command in (("gateway", argv), ("sleep", ["sleep", "600"])):
            _, hard = resource.getrlimit(resource.RLIMIT_CORE)
            process = subprocess.Popen(
                command,
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (hard, hard)),
            )
            assert process.stdout is not None
            if name == "gateway":
                expect_that(b"ready" in process.stdout.readline(), "the gateway is ready")
            else:
                time.sleep(0.2)
            os.kill(process.pid, signal.SIGABRT)
            _, statuses[name] = os.waitpid(process.pid, 0)
            process.returncode = -signal.SIGABRT
        expect(os.WTERMSIG(statuses["gateway"]), signal.SIGABRT, "what ended the gateway")
        expect(os.WCOREDUMP(statuses["gateway"]), False, "whether the gateway left a core")
        print(f"        under the same limits `sleep` left {'a' if os.WCOREDUMP(statuses['sleep']) else 'no'} core", flush=True)

    def owner(self) -> None:
        """A process that cannot be dumped belongs to root, as /proc and ptrace see it; its own user gets nothing, who gets any other."""
        # Otherwise the user could not even keep what it may have.
        self.stage.directory.chmod(0o755)
        other = subprocess.Popen(["sleep", "600"], user=NOBODY, group=NOBODY)
        self.stage.cleanup.callback(other.kill)
        expect_that(self.gcore(other.pid, NOBODY) is not None, "the user can have the memory of what is not protected")
        gateway = self.nobodys_gateway()
        expect(Path(f"/proc/{gateway}/mem").stat().st_uid, 0, "owner of the gateway's memory")
        expect_that(self.gcore(gateway, NOBODY) is None, "the gateway's own user cannot have its memory")

    def nobodys_gateway(self) -> int:
        """A gateway of an unprivileged user."""
        home = self.stage.path("nobody")
        home.mkdir()
        config = json.loads(json.dumps(self.config))
        for file in ("account-key", "admin-token"):
            (home / file).write_text(self.rotated[-1] if file == "account-key" else self.admin_token)
        shutil.copytree(config["policies"]["directory"], home / "policies")
        shutil.copy(peers.STEPGATE, home / "stepgate")
        config["policies"]["directory"] = str(home / "policies")
        config["cosmos"]["credential"]["account_key"]["path"] = str(home / "account-key")
        config["admin_token"]["path"] = str(home / "admin-token")
        config["audit"] = {"directory": str(home / "audit"), "durability": "memory"}
        config["state"] = {"kind": "file", "path": str(home / "state")}
        (home / "stepgate.yaml").write_text(json.dumps(config))
        for path in (home, *home.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        argv = [str(home / "stepgate"), "serve", "--config", str(home / "stepgate.yaml"), "--format", "json"]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, user=NOBODY, group=NOBODY, cwd=home)
        self.stage.cleanup.callback(process.kill)
        assert process.stdout is not None
        expect_that(b"ready" in process.stdout.readline(), "the gateway of an unprivileged user is ready")
        return process.pid

    def gcore(self, pid: int, user: int) -> bytes | None:
        """The memory of a process as `user` can have it."""
        tool = shutil.which("gcore")
        if tool is None:
            raise peers.Failure("there is no gcore; install gdb")
        folder = self.stage.path("dumps")
        folder.mkdir()
        os.chown(folder, user, -1)
        command = [tool, "-o", str(folder / "core"), str(pid)]
        as_user = {"user": user, "group": user, "extra_groups": []} if user != 0 else {}
        run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=folder, **as_user)
        dump = folder / f"core.{pid}"
        if not dump.exists():
            if user == 0:
                raise peers.Failure(f"root cannot dump the gateway, so its memory was not searched: {run.stderr[-500:]}")
            return None
        text = dump.read_bytes()
        dump.unlink()
        return text

    def memory(self) -> None:
        """Root may read all memory. What is in use must be there; what was replaced must not."""
        text = self.gcore(self.gateway.process.pid, 0)
        assert text is not None
        counts = {name: text.count(secret) for name, secret in self.all_secrets().items()}
        counts["resource tokens (encoded)"] = text.count(b"type%3Dresource")
        print(f"        {len(text) >> 20} MiB of memory; " + "; ".join(f"{name}: {n}" for name, n in counts.items()), flush=True)
        newest = f"bytes of account key {len(self.rotated) + 1}"
        expect_that(counts[newest] > 0, "the account key in use is found, so the search works")
        replaced = {name: n for name, n in counts.items() if "account key" in name and not name.endswith(str(len(self.rotated) + 1))}
        expect(replaced, dict.fromkeys(replaced, 0), "replaced account keys in memory")
        expect(counts["client secret"], 0, "the client's secret, which no gateway ever sees")


def scene(stage: Stage) -> list[tuple[str, Callable[[], None]]]:
    """Secrets that are made for this run."""
    return Canary(stage).checks()


if __name__ == "__main__":
    peers.run("canary", scene)
