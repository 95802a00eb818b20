#!/usr/bin/env python3
"""The image that `docker/build` made: what is in it, and that it serves from a root that cannot be written.

Wants `docker/build target/image/out` first (IMAGE names another directory), and root: it mounts, and changes its root.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peers
from peers import Program, Stage, expect, expect_that

ROOT = peers.HERE.parents[1]
IMAGE = Path(os.environ.get("IMAGE", ROOT / "target/image/out"))
USER = 65532
FILES = {"stepgate", "LICENSE", "etc/ssl/certs/ca-certificates.crt"}
ITEMS = "/dbs/shop/colls/orders/docs"
# Of those that the OCI runtime specification promises to every container.
DEVICES = ("null", "zero", "random", "urandom")


class Image:
    """A container by hand: the image's root bound read-only, its volume and its configuration on top."""

    def __init__(self, stage: Stage) -> None:
        expect_that((IMAGE / "root/stepgate").exists(), f"{IMAGE} holds an image: run docker/build {IMAGE}")
        self.stage, self.root = stage, IMAGE / "root"
        self.config = json.loads((IMAGE / "image.json").read_text())
        self.issuer, cosmos = stage.dev("issuer"), stage.dev("cosmos")
        self.mounts = {name: stage.path(name) for name in ("etc", "policies", "volume")}
        for directory in self.mounts.values():
            directory.mkdir()
        config = stage.gateway_config(self.issuer, cosmos)
        del config["dev"]
        config["policies"]["directory"], config["audit"]["directory"] = "/policies", "/var/lib/stepgate/audit"
        config["cosmos"]["credential"]["account_key"]["path"] = "/etc/stepgate/account-key"
        (self.mounts["etc"] / "account-key").write_text(peers.EMULATOR_KEY)
        (self.mounts["etc"] / "stepgate.yaml").write_text(json.dumps(config))
        shutil.copytree(peers.HERE / "policies", self.mounts["policies"], dirs_exist_ok=True)
        os.chown(self.mounts["volume"], USER, USER)
        began = time.monotonic()
        self.gateway = Program(self.command("serve", "--config", "/etc/stepgate/stepgate.yaml", "--format", "json"), stage.path("log"))
        self.started = time.monotonic() - began
        stage.cleanup.callback(self.gateway.kill)

    def command(self, *argv: str) -> list[str]:
        """A command line that runs the image's program as an engine would, without one."""
        inside = {"etc/stepgate": "etc", "policies": "policies", "var/lib/stepgate": "volume"}
        root = str(self.root)
        script = [f"mount --bind {root} {root}", f"mount -o remount,ro,bind {root}", f"mount -t tmpfs none {root}/dev"]
        for device in DEVICES:
            script += [f"touch {root}/dev/{device}", f"mount --bind /dev/{device} {root}/dev/{device}"]
        for path, name in inside.items():
            script.append(f"mount --bind {self.mounts[name]} {root}/{path}")
            if name != "volume":
                script.append(f"mount -o remount,ro,bind {root}/{path}")
        script.append(f'exec setpriv --no-new-privs chroot --userspec={USER}:{USER} {root} /stepgate "$@"')
        return ["unshare", "--mount", "--propagation", "private", "sh", "-ec", "\n".join(script), "sh", *argv]

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Runs a command of the image to its end."""
        return subprocess.run(self.command(*argv), capture_output=True, text=True, timeout=peers.PATIENCE, check=False)

    def status(self) -> dict[str, list[str]]:
        """What the kernel says of the gateway."""
        lines = Path(f"/proc/{self.gateway.process.pid}/status").read_text().splitlines()
        return {name: value.split() for name, _, value in (line.partition(":") for line in lines)}

    def checks(self) -> list[tuple[str, Callable[[], None]]]:
        """Every check with its name."""
        return [
            ("there is one static program in it, and no shell", self.files),
            ("it says who it runs as, and how its health is asked for", self.settings),
            ("the stand-ins are not in it", self.production),
            ("it says which crates it is made of", self.crates),
            ("the profile that it was optimised by is of this program", self.profile),
            ("at rest it takes less than 20 MiB", self.memory),
            ("it serves as an unprivileged user, from a root that cannot be written", self.serves),
            ("its health command says so", self.health),
            ("asked to stop, it leaves a log that verifies", self.stops),
        ]

    def files(self) -> None:
        """Everything that is no directory."""
        found = {str(path.relative_to(self.root)) for path in self.root.rglob("*") if not path.is_dir()}
        expect(found, FILES, "files")
        linked = subprocess.run(["ldd", str(self.root / "stepgate")], capture_output=True, text=True, check=False)
        expect_that("statically linked" in linked.stdout + linked.stderr, f"it is static: {linked.stdout}{linked.stderr}")
        size = (self.root / "stepgate").stat().st_size
        print(f"        the program is {size / 2**20:.1f} MiB, and ready {self.started * 1000:.0f} ms after its start")
        expect_that(size < 60 * 2**20, "its size")

    def settings(self) -> None:
        """As an engine reads them."""
        config: dict[str, Any] = self.config["config"]
        expect(config["User"], f"{USER}:{USER}", "user")
        expect(config["Entrypoint"], ["/stepgate"], "entry point")
        expect(config["Healthcheck"]["Test"], ["CMD", "/stepgate", "health"], "health check")
        expect(list(config["Volumes"]), ["/var/lib/stepgate"], "volumes")

    def production(self) -> None:
        """`dev` and `demo` are no commands there."""
        for command in ("dev", "demo"):
            expect(self.run(command).returncode, 2, f"exit code of {command}")

    def crates(self) -> None:
        """The list of cargo-auditable is Cargo.lock's, without what only the stand-ins need."""
        section = self.stage.path("dep-v0")
        command = ["objcopy", "--dump-section", f".dep-v0={section}", str(self.root / "stepgate"), "/dev/null"]
        subprocess.run(command, check=True, capture_output=True)
        named = {package["name"] for package in json.loads(zlib.decompress(section.read_bytes()))["packages"]}
        locked = {line.split('"')[1] for line in (ROOT / "Cargo.lock").read_text().splitlines() if line.startswith("name = ")}
        expect(named - locked, set(), "crates that are not locked")
        expect_that({"stepgate", "hyper", "rustls", "aws-lc-rs"} <= named, f"the crates of a gateway ({len(named)} named)")
        expect_that("tempfile" not in named, "what only the stand-ins need is not in it")

    def profile(self) -> None:
        """It knows functions by names that hold a hash of compiler and package. One of another build would do nothing, and say so nowhere."""
        own = re.compile(rb"_ZN[\w.$]*8stepgate[\w.$]*?17h[0-9a-f]{16}E")
        known = set(own.findall((ROOT / "docker/stepgate.profdata").read_bytes()))
        symbols = subprocess.run(["nm", str(self.root / "stepgate")], check=True, capture_output=True).stdout
        there = known & set(own.findall(symbols))
        print(f"        {len(there)} of the {len(known)} functions of stepgate in the profile are there; others were inlined or have changed")
        expect_that(len(there) > len(known) / 3, "the profile knows the program: train it anew with bench/profile")

    def memory(self) -> None:
        """What is resident before the first request, the mapped program with it."""
        resident = int(self.status()["VmRSS"][0]) / 1024
        print(f"        {resident:.1f} MiB")
        expect_that(resident < 20, "resident memory")

    def serves(self) -> None:
        """A write goes through; the process has no privilege."""
        token = {"authorization": f"Bearer {peers.token(f'{self.issuer}/token')}"}
        url = f"{self.gateway.ready['gateway']}{ITEMS}?partitionKey=t1"
        expect(peers.ask("POST", url, {"id": "o-1", "tenant": "t1"}, token).status, 201, "a write")
        about = self.status()
        expect(set(about["Uid"]), {str(USER)}, "user")
        expect(about["CapEff"], ["0" * 16], "capabilities")
        expect(about["NoNewPrivs"], ["1"], "no_new_privs")
        mounts = Path(f"/proc/{self.gateway.process.pid}/mountinfo").read_text().splitlines()
        [options] = [line.split()[5] for line in mounts if line.split()[4] == "/"]
        expect_that("ro" in options.split(","), f"its root is read-only ({options})")

    def health(self) -> None:
        """0 while it serves, 1 where nobody does."""
        admin = self.gateway.ready["admin"]
        for question in ((), ("--live",), ("--started",)):
            expect(self.run("health", "--admin", admin, *question).returncode, 0, f"health {question}")
        expect(self.run("health", "--admin", f"http://127.0.0.1:{peers.free_port()}").returncode, 1, "where nobody serves")

    def stops(self) -> None:
        """SIGTERM, exit code 0."""
        expect(self.gateway.stop(), 0, "exit code")
        peers.verify(self.mounts["volume"] / "audit")


def scene(stage: Stage) -> list[tuple[str, Callable[[], None]]]:
    """Issuer and Cosmos are the stand-ins of another build."""
    return Image(stage).checks()


if __name__ == "__main__":
    peers.run("image", scene)
