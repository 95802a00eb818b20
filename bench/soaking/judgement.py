"""What was seen, and what of it must hold."""

from __future__ import annotations

import gzip
import json
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import peers
import rig

from .disturbances import EVERY, Disturbances, error_of
from .load import WRITES

# Each round of disturbances has a least of memory, descriptors and threads: what a fault took for its time is no leak, and what is
# never given back raises the least. So much may the line through those of the last two thirds rise from its beginning to its end,
# or 2 % where that is more. In twenty minutes of 500 requests a second a MiB is less than two bytes for each of them.
RISE = {"rss": 2**20, "fds": 8.0, "threads": 2.0}
# With fewer rounds there is no line.
LEAST_ROUNDS = 3

@dataclass
class Sample:
    """The gateway's process at a time."""

    at: float
    rss: int
    fds: int
    threads: int


@dataclass
class Minute:
    """What was answered in a minute."""

    answers: Counter[int] = field(default_factory=Counter)
    micros: Counter[int] = field(default_factory=Counter)
    unexpected: list[dict[str, Any]] = field(default_factory=list)


class Record:
    """What the load heard, and how the gateway's process stood."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.minutes: list[Minute] = [Minute()]
        self.acknowledged = 0
        # Why a thread ended before its time.
        self.troubles: list[str] = []

    def look(self, process: Path) -> None:
        """At the process, by its directory under /proc."""
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        rss, fds, threads = int(status["VmRSS"].split()[0]) * 1024, len(list((process / "fd").iterdir())), int(status["Threads"])
        self.samples.append(Sample(time.time(), rss, fds, threads))

    def acknowledge(self, line: dict[str, Any]) -> None:
        """Counts the writes that a line of the load says were done."""
        counts: dict[str, Any] = line.get("counts", {})
        self.acknowledged += sum(counts[name]["answers"].get(str(status), 0) for name in WRITES & counts.keys() for status in (200, 201))

    def note(self, line: dict[str, Any], begin: float, seconds: float) -> None:
        """Puts a line of the load into its minute; what is answered when all is sent belongs to the last."""
        at = line.get("until", line.get("answered", time.time()))
        number = int(min(max(0.0, at - begin), seconds - 1) / 60)
        while len(self.minutes) <= number:
            self.minutes.append(Minute())
        minute = self.minutes[number]
        if "unexpected" in line:
            minute.unexpected.append(line)
        for one in line.get("counts", {}).values():
            minute.answers.update({int(status): count for status, count in one["answers"].items()})
            minute.micros.update({int(took): count for took, count in one["micros"].items()})

    def rises(self, length: float) -> dict[str, tuple[float, float]]:
        """By figure: how much its least of a round rose after the first third, and how much it may. A round takes so many seconds;
        nothing when there are too few."""
        last = self.samples[-1].at
        count = int((last - self.samples[0].at) * 2 / 3 / length)
        rounds = [[one for one in self.samples if number < (last - one.at) / length <= number + 1] for number in reversed(range(count))]
        if count < LEAST_ROUNDS:
            return {}
        found = {}
        for name, bound in RISE.items():
            least = [min(getattr(one, name) for one in samples) for samples in rounds]
            rise = statistics.linear_regression(range(count), least).slope * (count - 1)
            found[name] = (rise, max(bound, statistics.fmean(least) * 0.02))
        return found


def written(audit: Path) -> int:
    """Outcomes in the audit log that say that a write was done."""
    found = 0
    for segment in sorted(audit.glob("*.jsonl*")):
        with gzip.open(segment, "rt") if segment.suffix == ".gz" else segment.open() as lines:
            for line in lines:
                # Most lines are of something else, and not worth parsing.
                if '"phase":"outcome"' in line and '"operation":"items/' in line and '"operation":"items/read"' not in line:
                    record = json.loads(line)["stepgate"]
                    found += record["answer"]["status"] in (200, 201)
    return found


HEADINGS = ["minute", "requests", "req/s", "p50 us", "p99 us", "RSS MiB", "fds", "threads", "disturbances", "explained", "unexplained"]


def heads(*headings: str) -> str:
    """The beginning of a table in markdown, numbers to the right."""
    return f"| {' | '.join(headings)} |\n|{'---:|' * len(headings)}"


@dataclass
class Judgement:
    """What was seen, held against what was done."""

    record: Record
    disturbances: Disturbances

    def unexplained(self, minute: Minute) -> list[dict[str, Any]]:
        """What nothing explains."""
        return [line for line in minute.unexpected if self.disturbances.explanation(line) is None]

    def all_unexplained(self) -> list[dict[str, Any]]:
        """The same of all minutes."""
        return [line for minute in self.record.minutes for line in self.unexplained(minute)]

    def row(self, number: int, begin: float) -> str:
        """A minute, as the table has it."""
        record, minute, start = self.record, self.record.minutes[number], begin + number * 60
        unexplained = len(self.unexplained(minute))
        looks = [sample for sample in record.samples if start <= sample.at < start + 60]
        last = looks[-1] if looks else Sample(0, 0, 0, 0)
        total = minute.answers.total()
        cells = [f"{number + 1}", f"{total:,}", f"{total / min(60.0, record.samples[-1].at - start):,.0f}"]
        cells += [f"{rig.quantile(minute.micros, share):,.0f}" for share in (0.5, 0.99)]
        cells += [f"{last.rss / 2**20:.1f}", f"{last.fds}", f"{last.threads}"]
        cells += [f"{sum(start <= one.begin < start + 60 for one in self.disturbances.begun)}"]
        cells += [f"{len(minute.unexpected) - unexplained:,}", f"{unexplained:,}"]
        return f"| {' | '.join(cells)} |"

    def by_disturbance(self) -> Iterator[str]:
        """What was done, how often, and the answers that it explains."""
        explained: dict[str, Counter[str]] = {one.what: Counter() for one in self.disturbances.begun}
        for minute in self.record.minutes:
            for line in minute.unexpected:
                if one := self.disturbances.explanation(line):
                    explained[one.what][error_of(line)] += 1
        times = Counter(one.what for one in self.disturbances.begun)
        yield heads("times", "answers that it explains", "disturbance")
        for what, statuses in explained.items():
            answers = ", ".join(f"{count:,} x {status}" for status, count in sorted(statuses.items()))
            yield f"| {times[what]} | {answers or 'none'} | {what} |"

    def verdict(self, gateway: peers.Program, audit: Path) -> Iterator[tuple[bool, str]]:
        """Each thing that must hold, and whether it did. The gateway is stopped."""
        record = self.record
        answered = sum(minute.answers.total() for minute in record.minutes)
        unexplained = len(self.all_unexplained())
        yield not record.troubles, f"load, tokens and looks went on to the end{''.join(f'; {trouble}' for trouble in record.troubles)}"
        yield not unexplained, f"{unexplained} of {answered:,} answers are explained by nothing"
        rises = record.rises(EVERY * len(self.disturbances.steps()))
        if not rises:
            yield True, "so short a run says nothing of memory, descriptors and threads"
        for name, (rise, bound) in rises.items():
            unit, shown = (2**20, "RSS, MiB") if name == "rss" else (1, name)
            yield rise <= bound, f"{shown}: the least of each round rises by {rise / unit:+.2f} after the first third, at most {bound / unit:+.2f}"
        code = gateway.stop()
        yield code == 0, f"the gateway stops with {code}"
        verified = peers.stepgate("audit", "verify", str(audit))
        yield verified.returncode == 0, f"`audit verify`: {(verified.stdout or verified.stderr).splitlines()[0].rpartition('audit: ')[2]}"
        found = written(audit)
        yield found == record.acknowledged, f"{record.acknowledged:,} writes were acknowledged, and {found:,} are in the audit log"
