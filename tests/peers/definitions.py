#!/usr/bin/env python3
"""State machine definitions before `stepgate asl lint` and before other people's validators: they agree on what both know."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

import peers
from peers import Stage, expect, expect_that

CLEAN = peers.HERE.parent / "asl/clean"
# What Step Functions knows and statelint 3.1.0 does not.
NOT_KNOWN = {
    "import-catalogue-distributed.asl.json": "Label, InputType and CSVHeaderLocation of a distributed Map",
    "page-through-query.asl.json": "a name in brackets followed by an index",
    "sam-substitutions.asl.json": "a Resource that deployment puts in",
}


def without(definition: dict[str, Any], *path: str) -> None:
    """Removes a member."""
    *around, last = path
    for name in around:
        definition = definition[name]
    del definition[last]


def put(definition: dict[str, Any], value: Any, *path: str) -> None:
    """Puts a member in place."""
    *around, last = path
    for name in around:
        definition = definition[name]
    definition[last] = value


def twice(definition: dict[str, Any]) -> None:
    """Gives a state within a branch the name of one outside."""
    branch = {"StartAt": "Done", "States": {"Done": {"Type": "Pass", "End": True}}}
    definition["States"]["Note"]["Next"] = "Both"
    definition["States"]["Both"] = {"Type": "Parallel", "Branches": [branch], "Next": "Done"}


# A fault, how it is made, and who of the others finds it.
FAULTS: list[tuple[str, Callable[[dict[str, Any]], None], set[str]]] = [
    ("no StartAt", lambda d: without(d, "StartAt"), {"statelint", "asl-validator"}),
    ("StartAt leads nowhere", lambda d: put(d, "Nowhere", "StartAt"), {"statelint", "asl-validator"}),
    ("Next leads nowhere", lambda d: put(d, "Nowhere", "States", "SaveOrder", "Next"), {"statelint", "asl-validator"}),
    ("neither Next nor End", lambda d: without(d, "States", "SaveOrder", "Next"), {"statelint", "asl-validator"}),
    ("an unknown Type", lambda d: put(d, "Tusk", "States", "SaveOrder", "Type"), {"statelint", "asl-validator"}),
    ("no Resource", lambda d: without(d, "States", "SaveOrder", "Resource"), {"asl-validator"}),
    ("a state that nothing leads to", lambda d: put(d, {"Type": "Pass", "End": True}, "States", "Lost"), {"statelint", "asl-validator"}),
    ("a name twice", twice, {"statelint", "asl-validator"}),
    ("States.ALL not alone", lambda d: put(d, ["States.ALL", "A.B"], "States", "SaveOrder", "Retry", 0, "ErrorEquals"), set()),
    ("a JitterStrategy of its own", lambda d: put(d, "SOME", "States", "SaveOrder", "Retry", 1, "JitterStrategy"), {"statelint"}),
]


class Validators:
    """Three programs that say whether a definition is valid."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.bin = Path(sys.executable).parent

    def statelint(self, file: Path) -> bool:
        """awslabs' rules, in Python."""
        flags = ["--yaml"] if file.suffix == ".yaml" else []
        return self.run(str(self.bin / "statelint"), str(file), *flags)

    def asl_validator(self, file: Path) -> bool:
        """ASL's JSON Schemas, in Node."""
        kind = "--yaml-path" if file.suffix == ".yaml" else "--json-path"
        return self.run(str(peers.MODULES / ".bin/asl-validator"), kind, str(file))

    def stepgate(self, file: Path) -> bool:
        """Whether `asl lint` finds the structure right, whatever else it finds."""
        linted = peers.stepgate("asl", "lint", str(file), "--format", "json")
        return all(finding["rule"] != "structure" for finding in json.loads(linted.stdout)["findings"])

    @staticmethod
    def run(*argv: str) -> bool:
        """Whether a program is content."""
        done = subprocess.run(argv, capture_output=True, text=True, timeout=peers.PATIENCE, check=False)
        expect_that(done.returncode in (0, 1), f"{argv[0]} runs ({done.stderr})")
        return done.returncode == 0

    def clean(self) -> None:
        """Every clean definition is valid to all, but for what one of them does not know."""
        files = sorted(CLEAN.iterdir())
        expect_that(len(files) >= 40, f"{len(files)} definitions")
        for file in files:
            expect(self.asl_validator(file), True, f"asl-validator on {file.name}")
            expect(self.statelint(file), file.name not in NOT_KNOWN, f"statelint on {file.name}")
            expect(peers.stepgate("asl", "lint", str(file), "--deny-warnings").returncode, 0, f"stepgate on {file.name}")

    def fault(self, what: str, make: Callable[[dict[str, Any]], None], known: set[str]) -> None:
        """A fault that one of the others finds is found by stepgate."""
        definition = yaml.safe_load((CLEAN / "order-fulfilment.asl.json").read_text())
        make(definition)
        file = self.stage.path("faulty.asl.json")
        file.write_text(json.dumps(definition, indent=2))
        verdicts = {"statelint": self.statelint(file), "asl-validator": self.asl_validator(file)}
        found = {name for name, valid in verdicts.items() if not valid}
        expect(found, known, f"who finds {what}")
        expect(self.stepgate(file), False, f"stepgate on {what}")

    def new(self) -> None:
        """What `asl new` writes is valid to all."""
        for language in ("JSONPath", "JSONata"):
            for operation in ("items/read", "items/create", "items/replace", "query", "batch", "execute"):
                made = peers.stepgate("asl", "new", operation, "shop/orders", "--query-language", language)
                file = self.stage.path("new.asl.json")
                file.write_text(made.stdout)
                expect((self.statelint(file), self.asl_validator(file)), (True, True), f"{operation} in {language}")


def scene(stage: Stage) -> list[tuple[str, Callable[[], None]]]:
    """The three of them."""
    validators = Validators(stage)
    checks = [("all find the clean definitions valid", validators.clean), ("all find new states valid", validators.new)]
    for what, make, known in FAULTS:
        check = lambda what=what, make=make, known=known: validators.fault(what, make, known)  # noqa: E731
        checks.append((f"{what}: what others find, stepgate finds", check))
    return checks


if __name__ == "__main__":
    peers.run("definitions", scene)
