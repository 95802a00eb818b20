#!/usr/bin/env python3
"""Disks that fill up, hang, fail a sync or turn read-only under the audit log: refused at once, and well again without a restart.

The disks are real ones, small and mounted for the run; so this wants root, the mount tools and e2fsprogs.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peers
from peers import Answer, Failure, Program, Stage, expect, expect_that

ORDERS = "/dbs/shop/colls/orders/docs?partitionKey=t1"
TOOLS = ("mount", "umount", "mkfs.ext4", "e2fsck", "fsfreeze")
DEADLINE = 2.0


def run(*argv: str, codes: tuple[int, ...] = (0,)) -> None:
    """A tool that must do what it is asked."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=peers.PATIENCE, check=False)
    if done.returncode not in codes:
        raise Failure(f"{' '.join(argv)} ends with {done.returncode}: {done.stderr.strip()}")


class Disk:
    """A small file system of its own."""

    def __init__(self, stage: Stage, name: str) -> None:
        self.stage, self.at = stage, stage.path(name)
        self.at.mkdir()

    def tmpfs(self, size: str) -> Disk:
        """In memory, as large as that and no larger."""
        run("mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(self.at))
        self.stage.cleanup.callback(run, "umount", "-l", str(self.at), codes=(0, 1, 32))
        return self

    def ext4(self, image: Path, megabytes: int) -> Disk:
        """ext4 in a file, which takes no room before it is written."""
        self.image = image
        with image.open("wb") as file:
            file.truncate(megabytes << 20)
        run("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "nodiscard", str(image))
        self.mount()
        self.stage.cleanup.callback(run, "umount", "-l", str(self.at), codes=(0, 1, 32))
        return self

    def mount(self) -> None:
        """Again, after it was mended."""
        run("mount", "-o", "loop,nodiscard", str(self.image), str(self.at))

    def mend(self) -> None:
        """As an operator would: out, checked, and in again. Works only when nobody holds a file of it open."""
        run("umount", str(self.at))
        run("e2fsck", "-p", "-f", str(self.image), codes=(0, 1))
        self.mount()

    def fill(self) -> Path:
        """Writes until nothing more fits."""
        filler = self.at / "filler"
        chunk = b"x" * (1 << 16)
        try:
            with filler.open("wb", buffering=0) as file:
                while True:
                    file.write(chunk)
        except OSError:
            return filler


class Gateway:
    """A gateway whose log is on such a disk."""

    def __init__(self, stage: Stage, issuer: str, cosmos: str, disk: Disk, **audit: Any) -> None:
        self.config = stage.gateway_config(issuer, cosmos)
        self.audit = disk.at / "audit"
        self.config["audit"] = {"directory": str(self.audit), "deadline": f"{DEADLINE:.0f}s", **audit}
        self.program: Program = stage.gateway(self.config)
        self.headers = {"authorization": f"Bearer {peers.token(f'{issuer}/token')}", "x-ms-documentdb-is-upsert": "true"}
        self.acknowledged: list[str] = []
        expect_that(self.write().status in (200, 201), "the first write is answered")

    def write(self) -> Answer:
        """One upsert."""
        answer = peers.ask("POST", self.program.ready["gateway"] + ORDERS, {"id": "o-1", "tenant": "t1"}, self.headers)
        if answer.status in (200, 201):
            self.acknowledged.append(str(answer.headers["x-stepgate-request-id"]))
        return answer

    def refused(self, cause: str) -> None:
        """The next request is refused, and `/readyz` says why."""
        answer = self.write()
        expect((answer.status, answer.body.get("error")), (503, "audit.unavailable"), f"the answer ({answer.body})")
        ready = peers.ask("GET", self.program.ready["admin"] + "/readyz")
        audit = next(one for one in ready.body["dependencies"] if one["name"] == "audit")
        expect((ready.status, audit["state"]), (503, "down"), f"`/readyz` ({audit})")
        expect_that(cause in audit["error"], f"it says {cause!r} ({audit['error']})")

    def recovers(self) -> None:
        """Without a restart, and soon."""
        until = time.monotonic() + 15
        while self.write().status not in (200, 201):
            expect_that(time.monotonic() < until, "writes are answered again")
        expect(peers.ask("GET", self.program.ready["admin"] + "/readyz").status, 200, "status of `/readyz`")
        expect(self.write().status, 200, "status of the write after it")

    def whole(self) -> None:
        """The log verifies, every acknowledged write is in it, and every intent has an end."""
        expect(self.program.stop(), 0, "exit code")
        peers.verify(self.audit)
        found: dict[str, list[str]] = {}
        for segment in sorted(self.audit.glob("*.jsonl")):
            for line in segment.read_text().splitlines():
                record = json.loads(line)["stepgate"]
                found.setdefault(record.get("request_id", ""), []).append(record["phase"])
        lost = [one for one in self.acknowledged if found.get(one) != ["intent", "outcome"]]
        expect(lost, [], f"acknowledged writes without their two records, of {len(self.acknowledged)}")
        self.found = found


class Disks:
    """One disk for each way to fail."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        missing = [tool for tool in TOOLS if shutil.which(tool) is None]
        expect(missing, [], "tools that are missing")
        self.issuer, self.cosmos = stage.dev("issuer"), stage.dev("cosmos")

    def gateway(self, disk: Disk, **audit: Any) -> Gateway:
        """A gateway on that disk."""
        return Gateway(self.stage, self.issuer, self.cosmos, disk, **audit)

    def checks(self) -> list[tuple[str, Callable[[], None]]]:
        """Every check with its name."""
        return [
            ("a full disk: writes that have begun end, others are refused, until there is room", self.full),
            ("a hanging disk: refused within the deadline, then at once, until it answers", self.hung),
            ("a read-only file system: refused until it is mended, with the gateway running", self.read_only),
            ("a sync that fails: never tried again on that file, and nothing acknowledged is lost", self.failed_sync),
            ("a log that is moved away: refused until it is back", self.moved),
        ]

    def full(self) -> None:
        """Eight writers write until the room that was kept is used up."""
        disk = Disk(self.stage, "full").tmpfs("24m")
        gateway = self.gateway(disk, reserve="128KiB")
        filler = disk.fill()

        def write_on() -> None:
            while gateway.write().status in (200, 201):
                pass

        writers = [threading.Thread(target=write_on) for _ in range(8)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join(peers.PATIENCE)
        expect_that(len(gateway.acknowledged) > 8, "the room that was kept is used")
        gateway.refused("no room")
        filler.unlink()
        gateway.recovers()
        gateway.whole()
        recovered = [one for one, phases in gateway.found.items() if "intent" in phases and "outcome" not in phases]
        expect(recovered, [], "writes that had begun and whose outcome found no room")

    def hung(self) -> None:
        """`fsfreeze` holds every write until it is lifted."""
        disk = Disk(self.stage, "hung").ext4(self.stage.path("hung.img"), 64)
        gateway = self.gateway(disk)
        thaw = ["fsfreeze", "--unfreeze", str(disk.at)]
        self.stage.cleanup.callback(run, *thaw, codes=(0, 1))
        run("fsfreeze", "--freeze", str(disk.at))
        try:
            begun = time.monotonic()
            gateway.refused("has not answered")
            expect_that(time.monotonic() - begun < 3 * DEADLINE, "the first is refused within the deadline")
            begun = time.monotonic()
            gateway.refused("has not answered")
            expect_that(time.monotonic() - begun < DEADLINE / 2, "the next is refused at once")
        finally:
            run(*thaw)
        gateway.recovers()
        gateway.whole()

    def read_only(self) -> None:
        """ext4 makes itself read-only after an error; `abort` stands for one."""
        disk = Disk(self.stage, "read-only").ext4(self.stage.path("read-only.img"), 64)
        gateway = self.gateway(disk)
        run("mount", "-o", "remount,abort", str(disk.at))
        gateway.refused("cannot")
        disk.mend()
        gateway.recovers()
        gateway.whole()
        expect_that(len(list(gateway.audit.glob("*.jsonl"))) >= 2, "the log goes on in a new segment")

    def failed_sync(self) -> None:
        """The disk's own disk has no room: what ext4 wrote is refused when it is synced."""
        below = Disk(self.stage, "below").tmpfs("24m")
        disk = Disk(self.stage, "failing").ext4(below.at / "failing.img", 64)
        gateway = self.gateway(disk)
        filler = below.fill()
        until = time.monotonic() + 30
        while gateway.write().status in (200, 201):
            expect_that(time.monotonic() < until, "a sync fails")
        gateway.refused("cannot")
        filler.unlink()
        disk.mend()
        gateway.recovers()
        gateway.whole()

    def moved(self) -> None:
        """The directory under its log is another."""
        disk = Disk(self.stage, "moved").tmpfs("64m")
        gateway = self.gateway(disk)
        aside = gateway.audit.rename(disk.at / "aside")
        gateway.refused("is gone")
        aside.rename(gateway.audit)
        gateway.recovers()
        gateway.whole()


def scene(stage: Stage) -> list[tuple[str, Callable[[], None]]]:
    """Says so when it may not mount."""
    try:
        Disk(stage, "trial").tmpfs("1m")
    except Failure as refused:
        raise Failure(f"file systems cannot be mounted here; run this as root: {refused}") from refused
    return Disks(stage).checks()


if __name__ == "__main__":
    peers.run("disks", scene)
