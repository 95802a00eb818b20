"""What the measurements share: two CPUs, an upstream that is issuer too, tokens, programs between the two, and the load."""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import os
import platform
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PEERS = HERE / "peers"
ROOT = HERE.parent
TARGET_DIRECTORY = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
# The gateway that is measured: what is built here, or another one such as the image's.
BUILT_HERE = (TARGET_DIRECTORY / "release/stepgate").resolve()
STEPGATE = Path(os.environ.get("STEPGATE", BUILT_HERE)).resolve()

PATH = "/dbs/bench/colls/items/docs/o1"
ITEM = json.dumps({"id": "o1", "tenant": "t1", "_ts": 1795375143, "pad": "x" * 966})
CREDENTIAL = "type%3dresource%26ver%3d1.0%26sig%3dc3RhdGlj%3bc3RhdGlj%3b"
# The documented key of Microsoft's emulator: what is signed with it here goes to no account.
EMULATOR_KEY = "C2y6yDjf5/R+ob0N8A7Cgv30VRDJIWEHLM+4QDU5DE2nQ9nDuVTqobD4b8mGGyPMbIZnqyMsEcaGQy67XIw/Jw=="
NGINX = ("nginx", "-p", ".", "-e", "error.log", "-c", "nginx.conf")
PATIENCE = 30.0


@dataclass(frozen=True)
class Target:
    """A program between the load and the upstream, started in a directory of its own."""

    name: str
    command: tuple[str, ...] = ()
    config: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    scheme: str = "http"
    checks: bool = True


class Process:
    """A running target: pinned to a CPU, counted and ended together with its children."""

    def __init__(self, command: list[str], cpu: int, directory: Path) -> None:
        self.log = directory / "output.log"
        mine = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {cpu})
        self.started = time.perf_counter()
        try:
            with self.log.open("wb") as output:
                self.process = subprocess.Popen(
                    command, cwd=directory, process_group=0, stdin=subprocess.DEVNULL, stdout=output, stderr=output
                )
        finally:
            os.sched_setaffinity(0, mine)

    def family(self) -> list[list[str]]:
        """The lines of /proc/PID/stat after the name, of the process and what descends from it."""
        lines: dict[int, list[str]] = {}
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                lines[int(entry.name)] = (entry / "stat").read_text().rpartition(") ")[2].split()
        pids = [self.process.pid]
        for parent in pids:
            pids += [pid for pid, line in lines.items() if int(line[1]) == parent]
        return [lines[pid] for pid in pids if pid in lines]

    def cpu_seconds(self) -> float:
        """User and system time, children that ended included."""
        return sum(int(ticks) for line in self.family() for ticks in line[11:15]) / os.sysconf("SC_CLK_TCK")

    def rss(self) -> float:
        """MiB of resident memory."""
        return sum(int(line[21]) for line in self.family()) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def until(self, what: str, done: Callable[[], bool]) -> float:
        """Milliseconds from exec until `done`."""
        while (elapsed := time.perf_counter() - self.started) < PATIENCE:
            if done():
                return elapsed * 1000
            if self.process.poll() is not None:
                break
            time.sleep(0.0005)
        tail = "\n    ".join(self.log.read_text(errors="replace").splitlines()[-15:])
        sys.exit(f"bench: not {what} within {PATIENCE:.0f} s:\n    {tail}")

    def end(self) -> None:
        """SIGTERM, and SIGKILL to what does not obey."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@dataclass
class Rig:
    """What all targets share: two CPUs, an upstream that is issuer too, its tokens, and the load's shape."""

    directory: Path
    upstream_port: int
    target_cpu: int
    load_cpu: int
    fresh: int
    seconds: int
    connections: int
    rate: int

    @property
    def keys(self) -> Path:
        """Where keys and tokens are."""
        return self.directory / "keys"

    def token(self, name: str) -> str:
        """A token by name."""
        return (self.keys / name).read_text()

    def fill(self, text: str, port: int, settings: dict[str, str]) -> str:
        """A template with its places filled; what settings bring may have places too."""
        places = {
            "PORT": str(port),
            "UPSTREAM_PORT": str(self.upstream_port),
            "ISSUER": f"http://127.0.0.1:{self.upstream_port}",
            "KEYS": str(self.keys),
            "POLICIES": str(PEERS / "policies"),
            "ITEM": ITEM,
            "CREDENTIAL": CREDENTIAL,
            "CREDENTIAL_DOUBLED": CREDENTIAL.replace("%", "%%"),
        } | settings
        for _ in range(2):
            text = re.sub("@([A-Z_]+)@", lambda place: places[place[1]], text)
        return text

    def start(self, target: Target, cpu: int) -> tuple[Process, str]:
        """The target in a fresh directory, and the URL of the item behind it."""
        port = free_port()
        directory = self.directory / target.name
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        if target.config:
            text = (PEERS / target.config).read_text()
            (directory / target.config).write_text(self.fill(text, port, target.settings))
        command = [self.fill(word, port, target.settings) for word in target.command]
        return Process(command, cpu, directory), f"{target.scheme}://127.0.0.1:{port}{PATH}"

    def measure(self, target: Target, with_fresh: bool) -> dict[str, float]:
        """One round of one target."""
        if not target.command:
            url = f"http://127.0.0.1:{self.upstream_port}{PATH}"
            return self.saturate(url, self.seconds) | self.pace(url, self.directory / "paced.tsv")
        process, url = self.start(target, self.target_cpu)
        try:
            figures = {"bound": process.until("bound", lambda: takes_connections(url))}
            figures["first"] = process.until("answering", lambda: ask(url, self.token("good"))[0] == 200)
            self.refuse_what_is_no_peer(target, url)
            self.saturate(url, 1)
            before = process.cpu_seconds()
            figures |= self.saturate(url, self.seconds)
            figures["cpu"] = (process.cpu_seconds() - before) * 1e6 / figures.pop("requests")
            figures |= self.pace(url, self.directory / target.name / "paced.tsv")
            if with_fresh:
                before = process.cpu_seconds()
                requests = self.send_fresh(url)
                figures["fresh"] = (process.cpu_seconds() - before) * 1e6 / requests
            figures["rss"] = process.rss()
        finally:
            process.end()
        return figures

    def refuse_what_is_no_peer(self, target: Target, url: str) -> None:
        """A target passes the item on, and one that checks refuses what it must."""
        wanted = {"good": 200, "rogue": 401, "expired": 401}
        for token in wanted if target.checks else ["good"]:
            status, body = ask(url, self.token(token))
            if status != wanted[token] or (status == 200 and body != ITEM):
                sys.exit(f"bench: {target.name} answers {status} to the {token} token: {body[:200]}")

    def saturate(self, url: str, seconds: int) -> dict[str, float]:
        """As much as the target takes."""
        text = run(["wrk", "-t1", f"-c{self.connections}", f"-d{seconds}s", "-H", f"authorization: Bearer {self.token('good')}", url])
        refuse_failures(url, text)
        [requests], [rate] = re.findall(r"(\d+) requests in", text), re.findall(r"Requests/sec:\s+([\d.]+)", text)
        return {"requests": float(requests), "rate": float(rate)}

    def pace(self, url: str, log: Path) -> dict[str, float]:
        """Latency at a steady rate. The connections begin apart, so that they do not send in step."""
        connections = max(self.connections, math.ceil(self.rate / 100))  # h2load's timer does not go below 10 ms
        count = self.rate * self.seconds
        per_connection = self.rate / connections
        arguments = ["-n", count, "-c", connections, "-r", 1, "--rate-period=1ms", f"--rps={per_connection}", f"--log-file={log}"]
        run(["h2load", "--h1", *map(str, arguments), "-H", f"authorization: Bearer {self.token('good')}", url])
        rows = [[int(number) for number in line.split()] for line in log.read_text().splitlines()]
        log.unlink()
        micros = sorted(took for _, status, took in rows if status == 200)
        if len(micros) < count:
            sys.exit(f"bench: {count - len(micros)} of {count} paced requests failed at {url}")
        return {name: micros[int(len(micros) * share)] for name, share in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)]}

    def send_fresh(self, url: str) -> int:
        """Requests whose tokens differ, each sent once; how many. The load ends with the tokens, and wrk with its time."""
        script = self.directory / "fresh.lua"
        script.write_text(
            f'local tokens = io.open("{self.keys}/fresh")\n'
            "function request()\n"
            "  local token = tokens:read()\n"
            "  if not token then wrk.thread:stop() return wrk.format() end\n"
            '  return wrk.format("GET", nil, { authorization = "Bearer " .. token })\n'
            "end\n"
        )
        text = run(["wrk", "-t1", f"-c{self.connections}", "-d3s", "-s", str(script), url])
        refuse_failures(url, text)
        [requests] = re.findall(r"(\d+) requests in", text)
        return int(requests)


def refuse_failures(url: str, text: str) -> None:
    """What wrk says of requests that were not answered 2xx."""
    if failed := re.findall(r"(Non-2xx.*|Socket errors.*)", text):
        sys.exit(f"bench: {url}: {'; '.join(failed)}")


def ask(url: str, token: str) -> tuple[int, str]:
    """Status and body; status 0 when nobody answers."""
    parts = re.match(r"(https?)://([^/]+)(/.*)", url)
    if parts is None:
        raise ValueError(url)
    scheme, authority, path = parts.groups()
    connection: http.client.HTTPConnection
    if scheme == "https":
        connection = http.client.HTTPSConnection(authority, timeout=5, context=ssl._create_unverified_context())
    else:
        connection = http.client.HTTPConnection(authority, timeout=5)
    try:
        connection.request("GET", path, headers={"authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        connection.close()


def takes_connections(url: str) -> bool:
    """Whether the port is bound."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(url.split(":")[2].split("/")[0]))) == 0


def free_port() -> int:
    """A port of loopback that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def run(command: list[str], directory: Path | None = None) -> str:
    """A command's output; its failure ends the run."""
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"bench: {command[0]} failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def build() -> None:
    """What is ours, as it is released; the gateway unless STEPGATE names one."""
    packages = ["stepgate-bench-rig", *(["stepgate"] if STEPGATE == BUILT_HERE else [])]
    for package in packages:
        subprocess.run(["cargo", "build", "--locked", "--release", "--package", package], cwd=ROOT, check=True)


def machine() -> str:
    """What it was measured on."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return f"{model[1] if model else platform.machine()}, Linux {platform.release()}, load average {os.getloadavg()[0]:.2f} before"


@contextlib.contextmanager
def load(plan: Mapping[str, Any], file: Path) -> Iterator[Iterator[dict[str, Any]]]:
    """The lines of the program `load`, as they come; the plan is written to the file. It ends with the block, if not before."""
    file.write_text(json.dumps(plan))
    command = [str(TARGET_DIRECTORY / "release/load"), str(file)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    with process:
        try:
            yield map(json.loads, process.stdout or ())
            if process.wait():
                sys.exit(f"bench: {' '.join(command)} failed")
        finally:
            process.kill()


def quantile(micros: Counter[int], share: float) -> float:
    """The latency that so many of the requests did not exceed, in microseconds; how many took how long is given."""
    left = share * micros.total()
    for took in sorted(micros):
        left -= micros[took]
        if left < 0:
            return took
    return max(micros, default=math.nan)


@contextlib.contextmanager
def rig(tokens: Path, fresh: int, seconds: int = 1, connections: int = 1, rate: int = 100) -> Iterator[Rig]:
    """The upstream at work, and the tokens made by the program `tokens`, `fresh` of them to be sent once each."""
    cpus = sorted(os.sched_getaffinity(0))[:2]
    if len(cpus) < 2:
        sys.exit("bench: two CPUs are needed, one for the target and one for the load")
    os.sched_setaffinity(0, {cpus[1]})
    with tempfile.TemporaryDirectory(prefix="compare-") as directory:
        it = Rig(Path(directory), free_port(), *cpus, fresh, seconds, connections, rate)
        it.keys.mkdir()
        os.chmod(directory, 0o755)  # nginx' workers read the key set as another user
        (it.keys / "account-key").write_text(EMULATOR_KEY)
        issuer = f"http://127.0.0.1:{it.upstream_port}"
        run([str(tokens), str(it.keys), issuer, "bench", str(fresh)])
        subject = ["-subj", "/CN=localhost", "-keyout", str(it.keys / "tls.key"), "-out", str(it.keys / "tls.crt")]
        run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", *subject])
        (it.directory / "upstream").mkdir()
        (it.directory / "upstream/nginx.conf").write_text(it.fill((PEERS / "upstream.conf").read_text(), 0, {}))
        upstream = Process([*NGINX], it.load_cpu, it.directory / "upstream")
        try:
            upstream.until("answering", lambda: ask(f"{issuer}{PATH}", "")[0] == 200)
            yield it
        finally:
            upstream.end()


