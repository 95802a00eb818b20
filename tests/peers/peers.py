"""What every run here needs: programs that are started, waited for and stopped, and checks that are counted."""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

HERE = Path(__file__).resolve().parent
STEPGATE = os.environ.get("STEPGATE", str(HERE.parents[1] / "target/debug/stepgate"))
# The modules that `run` has installed.
MODULES = Path(os.environ.get("PEERS_MODULES", HERE.parents[1] / "target/peers/node_modules"))
# How long a program may take to say that it is ready, and any request to be answered. A slow machine is no failure.
PATIENCE = 60.0

# The secret of every client, at every issuer here.
SECRET = "open-secret"
SEED = {
    "databases": [
        {
            "id": "shop",
            "containers": [
                {"id": "orders", "partition_key": ["/tenant"], "procedures": ["settle"]},
                {"id": "audit", "partition_key": ["/tenant"]},
                {"id": "vault", "partition_key": ["/tenant"], "items": [{"id": "v1", "tenant": "t1"}]},
            ],
        }
    ]
}


class Failure(Exception):
    """A check did not find what it wants."""


def expect(found: Any, wanted: Any, what: str) -> None:
    """Fails the check unless the two are equal."""
    if found != wanted:
        raise Failure(f"{what}: wanted {wanted!r}, found {found!r}")


def expect_that(holds: bool, what: str) -> None:
    """Fails the check unless the statement holds."""
    if not holds:
        raise Failure(what)


class Program:
    """A program that prints JSON lines on standard output, the first of them when it is ready."""

    def __init__(self, argv: list[str], log: Path, environment: Mapping[str, str] = {}) -> None:
        self.argv, self.log = argv, log
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, **environment},
            )
        self.lines: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        assert self.process.stdout is not None
        threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True).start()
        self.ready = self.line()

    def _read(self, stdout: TextIO) -> None:
        for text in stdout:
            if text.startswith("{"):
                self.lines.put(json.loads(text))
        self.lines.put(None)

    def line(self) -> dict[str, Any]:
        """The next JSON line; waits for it."""
        try:
            line = self.lines.get(timeout=PATIENCE)
        except queue.Empty:
            line = None
        if line is None:
            self.kill()
            raise Failure(f"{' '.join(self.argv)} said nothing more; its log ends:\n{self.log.read_text()[-2000:]}")
        return line

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal."""
        self.process.send_signal(number)

    def stop(self) -> int:
        """Asks it to stop, waits until it has, and gives its exit code."""
        self.process.terminate()
        try:
            return self.process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failure(f"{' '.join(self.argv)} does not stop when it is asked to") from None

    def kill(self) -> None:
        """Ends it without asking."""
        self.process.kill()
        self.process.wait()


@dataclass
class Stage:
    """A temporary directory, and the programs that run in it until the run ends."""

    directory: Path
    cleanup: ExitStack
    files: int = field(default=0)

    def path(self, name: str) -> Path:
        """A path that no other call is given."""
        self.files += 1
        return self.directory / f"{self.files}-{name}"

    def program(self, *argv: str, environment: Mapping[str, str] = {}) -> Program:
        """Starts a program and waits until it is ready."""
        program = Program(list(argv), self.path(f"{Path(argv[0]).name}.log"), environment)
        self.cleanup.callback(program.kill)
        return program

    def node(self, script: str, environment: Mapping[str, str] = {}) -> Program:
        """Starts a Node script of this folder, with the installed modules beside it."""
        return self.program("node", str(self.node_script(script)), environment=environment)

    def node_script(self, script: str) -> Path:
        """A copy of a script of this folder where Node finds the installed modules: it looks beside the file."""
        folder = MODULES.parent / "scripts"
        folder.mkdir(exist_ok=True)
        return Path(shutil.copy(HERE / script, folder / script))

    def dev(self, part: str) -> str:
        """Starts one stand-in (`cosmos` or `issuer`) and gives its address."""
        config = self.config(self.gateway_config("http://127.0.0.1:1", "http://127.0.0.1:1"))
        return str(self.program(STEPGATE, "dev", part, "--config", str(config), "--format", "json").ready[part])

    def config(self, config: Mapping[str, Any]) -> Path:
        """Writes a configuration file. JSON is YAML."""
        file = self.path("stepgate.yaml")
        file.write_text(json.dumps(config, indent=2))
        return file

    def gateway_config(self, issuer: str, cosmos: str, **more: Any) -> dict[str, Any]:
        """The configuration of a gateway between these two; `more` adds sections or replaces them."""
        key = self.directory / "account-key"
        key.write_text(EMULATOR_KEY)
        workers = [
            {"client_id": name, "client_secret": SECRET, "kind": "workload", "claims": {"tenant": "t1"}}
            for name in ("worker", "tenant-worker")
        ]
        config = {
            "listen": "127.0.0.1:0",
            "admin": "127.0.0.1:0",
            "issuers": [
                {
                    "name": "peer",
                    "kind": "oidc",
                    "url": issuer,
                    "audiences": ["stepgate"],
                    "workload": {"token_kind": "workload"},
                    "human": {"email": "*"},
                }
            ],
            "cosmos": {
                "endpoint": cosmos.rstrip("/") + "/",
                "credential": {"kind": "resource_token", "account_key": {"kind": "file", "path": str(key)}},
            },
            "policies": {"directory": str(HERE / "policies")},
            "audit": {"directory": str(self.directory / "audit"), "durability": "fsync"},
            "dev": {
                "cosmos": {"listen": "127.0.0.1:0", "seed": SEED},
                "issuer": {"listen": "127.0.0.1:0", "clients": workers},
            },
        }
        return {**config, **more}

    def gateway(self, config: Mapping[str, Any], environment: Mapping[str, str] = {}) -> Program:
        """Starts a gateway; its address is `ready["gateway"]`."""
        argv = (STEPGATE, "serve", "--config", str(self.config(config)), "--format", "json")
        return self.program(*argv, environment=environment)


# The key that Microsoft publishes for its emulator; the stand-in uses it too.
EMULATOR_KEY = "C2y6yDjf5/R+ob0N8A7Cgv30VRDJIWEHLM+4QDU5DE2nQ9nDuVTqobD4b8mGGyPMbIZnqyMsEcaGQy67XIw/Jw=="


@dataclass
class Answer:
    """An HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: Any


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def ask(method: str, url: str, body: Any = None, headers: Mapping[str, str] = {}) -> Answer:
    """One HTTP exchange. A dictionary is sent as JSON, a list of pairs as a form; redirects are not followed."""
    data, kind = None, {}
    if isinstance(body, list):
        data, kind = urllib.parse.urlencode(body).encode(), {"content-type": "application/x-www-form-urlencoded"}
    elif body is not None:
        data, kind = json.dumps(body).encode(), {"content-type": "application/json"}
    request = urllib.request.Request(url, data=data, headers={**kind, **headers}, method=method)
    try:
        response = urllib.request.build_opener(_Stay).open(request, timeout=PATIENCE)
    except urllib.error.HTTPError as answered:
        response = answered
    with response:
        text = response.read().decode()
        is_json = text and "json" in response.headers.get("content-type", "")
        return Answer(response.status, response.headers, json.loads(text) if is_json else text)


def token(endpoint: str, client: str = "worker", secret: str = SECRET) -> str:
    """A workload's token, by client credentials."""
    form = [("grant_type", "client_credentials"), ("client_id", client), ("client_secret", secret)]
    answer = ask("POST", endpoint, form)
    expect(answer.status, 200, f"the token endpoint's status ({answer.body})")
    return str(answer.body["access_token"])


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def stepgate(*argv: str) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end."""
    return subprocess.run([STEPGATE, *argv], capture_output=True, text=True, timeout=PATIENCE, check=False)


def verify(audit: Path) -> None:
    """Fails the check unless `stepgate audit verify` is content with the log."""
    verified = stepgate("audit", "verify", str(audit), "--format", "json")
    expect(verified.returncode, 0, f"exit code of `audit verify` ({verified.stdout}{verified.stderr})")
    expect(json.loads(verified.stdout)["ok"], True, "`ok` of `audit verify`")


def fault(cosmos: str, **order: Any) -> Any:
    """An order to the stand-in for Cosmos, which must take it; what it says of it."""
    answer = ask("POST", f"{cosmos}/_stepgate/faults", order)
    expect(answer.status, 200, f"status of the order {order}")
    return answer.body


def all_struck(cosmos: str) -> None:
    """Every fault that was ordered has found its requests."""
    expect(ask("GET", f"{cosmos}/_stepgate/faults").body["faults"], [], "faults that struck nothing")


def run(name: str, scene: Callable[[Stage], list[tuple[str, Callable[[], None]]]]) -> None:
    """Sets a scene, makes its checks, and exits with 1 when one fails. The last line counts them."""
    # Asked to stop, it stops its programs first.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    passed = failed = 0
    with ExitStack() as cleanup:
        directory = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix=f"stepgate-{name}-")))
        checks: list[tuple[str, Callable[[], None]]] = []
        try:
            checks = scene(Stage(directory, cleanup))
        except Exception as error:
            failed += 1
            tell(name, "the scene cannot be set", error)
        for what, check in checks:
            try:
                check()
            except Exception as error:
                failed += 1
                tell(name, what, error)
            else:
                passed += 1
                print(f"ok      {name}: {what}", flush=True)
    print(f"{passed} passed, {failed} failed", flush=True)
    sys.exit(1 if failed or not passed else 0)


def tell(name: str, what: str, error: Exception) -> None:
    """Says why a check failed: in a line when the check said so itself, else with the way there."""
    why = str(error) if isinstance(error, Failure) else "".join(traceback.format_exception(error)).rstrip()
    print(f"FAILED  {name}: {what}: {why}", flush=True)
