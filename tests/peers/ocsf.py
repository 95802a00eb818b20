#!/usr/bin/env python3
"""Records of every phase against the published OCSF schema, by a validator that is not ours."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import peers
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema
from peers import Stage, expect, expect_that
from sigkill import Writer

VERSION = "1.3.0"
# What the extension adds that `metadata.extensions` names.
EXTENSION = ("stepgate", "prev", "hash")
PHASES = {"intent", "outcome", "refusal", "suppressed", "recovered", "revoke", "lift", "reading"}
ORDERS = "/dbs/shop/colls/orders/docs"
ADMIN_TOKEN = "a-long-admin-token-for-peers"


class Ocsf:
    """A log in which everything has happened."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.issuer = stage, stage.dev("issuer")
        secret = stage.path("admin-token")
        secret.write_text(ADMIN_TOKEN)
        self.config = stage.gateway_config(
            self.issuer, stage.dev("cosmos"), admin_token={"kind": "file", "path": str(secret)}
        )
        self.audit = Path(self.config["audit"]["directory"])
        self.happen()
        while "recovered" not in self.records():
            self.kill()
        schema = OcsfJsonSchemaEmbedded(get_ocsf_schema(version=VERSION))
        self.schema = schema.get_class_schema(class_name="datastore_activity", profiles=["security_control"])

    def happen(self) -> None:
        """Everything but a crash."""
        gateway = self.stage.gateway(self.config)
        url, token = gateway.ready["gateway"], peers.token(f"{self.issuer}/token")
        known = {"authorization": f"Bearer {token}"}
        upsert = {**known, "x-ms-documentdb-is-upsert": "true"}
        peers.ask("POST", f"{url}{ORDERS}?partitionKey=t1", {"id": "o-1", "tenant": "t1"}, upsert)
        for method, path in [
            ("GET", f"{ORDERS}/o-1?partitionKey=t1"),
            ("DELETE", f"{ORDERS}/o-1?partitionKey=t2"),
            ("GET", f"{ORDERS}?partitionKey=t1"),
            ("GET", "/dbs/shop/colls/orders"),
            ("GET", "/dbs/finance/colls/ledger/docs/l-1"),
            ("GET", "/nowhere"),
        ]:
            peers.ask(method, url + path, headers=known)
        for _ in range(60):
            peers.ask("GET", f"{url}{ORDERS}/o-1?partitionKey=t1")
        admin = {"authorization": f"Bearer {ADMIN_TOKEN}"}
        revocation = {"issuer": "peer", "subject": "somebody"}
        revoked = peers.ask("POST", gateway.ready["admin"] + "/revoke", revocation, admin)
        expect(revoked.status, 200, f"status of the revocation ({revoked.body})")
        peers.ask("DELETE", f"{gateway.ready['admin']}/revocations/{revoked.body['id']}", headers=admin)
        expect(peers.stepgate("audit", "tail", str(self.audit)).returncode, 0, "exit code of `audit tail`")
        expect(gateway.stop(), 0, "exit code")

    def kill(self) -> None:
        """A gateway that dies among writes, and one that finds what it left."""
        gateway, token = self.stage.gateway(self.config), peers.token(f"{self.issuer}/token")
        writers = [Writer(gateway.ready["gateway"], token, number) for number in range(8)]
        for writer in writers:
            writer.start()
        while not all(writer.acknowledged for writer in writers):
            expect_that(all(writer.is_alive() for writer in writers), "every writer writes")
        gateway.kill()
        for writer in writers:
            writer.join()
        self.stage.gateway(self.config).stop()

    def records(self) -> dict[str, list[dict[str, Any]]]:
        """The log by phases."""
        found = defaultdict(list)
        for segment in sorted(self.audit.glob("*.jsonl")):
            for line in segment.read_text().splitlines():
                record = json.loads(line)
                found[record["stepgate"]["phase"]].append(record)
        return found

    def checks(self) -> list[tuple[str, Callable[[], None]]]:
        """Every check with its name."""
        return [
            ("every phase has happened", lambda: expect(set(self.records()), PHASES, "phases")),
            (f"every record is a Datastore Activity of OCSF {VERSION}", self.valid),
            ("the validator refuses what is not", self.refused),
        ]

    def valid(self) -> None:
        """Without the extension's members the published schema holds, which allows no others."""
        validator = jsonschema.Draft202012Validator(self.schema)
        for phase, records in self.records().items():
            for record in records:
                expect(record["metadata"]["extensions"][0]["name"], "stepgate", "the extension")
                plain = {name: value for name, value in record.items() if name not in EXTENSION}
                found = [f"{list(error.absolute_path)}: {error.message}" for error in validator.iter_errors(plain)]
                expect(found, [], f"what the schema finds in a record of phase {phase}")

    def refused(self) -> None:
        """The schema is not so wide that anything passes."""
        validator = jsonschema.Draft202012Validator(self.schema)
        record = {k: v for k, v in self.records()["outcome"][0].items() if k not in EXTENSION}
        for name in ("time", "actor", "metadata", "activity_id", "src_endpoint", "database"):
            spoiled = {k: v for k, v in record.items() if k not in (name, "table" if name == "database" else name)}
            expect_that(not validator.is_valid(spoiled), f"a record without {name} is refused")
        expect_that(not validator.is_valid({**record, "activity_id": 77}), "an activity of no meaning is refused")


def scene(stage: Stage) -> list[tuple[str, Callable[[], None]]]:
    """One log, then checks on it."""
    return Ocsf(stage).checks()


if __name__ == "__main__":
    peers.run("ocsf", scene)
