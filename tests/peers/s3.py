#!/usr/bin/env python3
"""Checkpoints in an S3 bucket with object lock: moto keeps them, and botocore checks the signature of each request."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import peers
import requests
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from moto import mock_aws
from peers import Stage, expect, expect_that

BUCKET, PREFIX, REGION = "example-anchors", "stepgate/one ü/", "eu-central-1"
KEY_ID, SECRET_KEY = "AKIDEXAMPLE", "an-example-secret-key"
ORDERS = "/dbs/shop/colls/orders/docs"


class Front(BaseHTTPRequestHandler):
    """Hands a request on to moto when its signature is what botocore makes of it."""

    wrong: list[str] = []

    def do_PUT(self) -> None:  # noqa: N802
        """The only thing an anchor does."""
        body = self.rfile.read(int(self.headers["content-length"]))
        problem = self.problem(body)
        if problem:
            Front.wrong.append(problem)
            self.reply(403, problem.encode())
            return
        headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
        answer = requests.put(f"https://s3.{REGION}.amazonaws.com{self.path}", data=body, headers=headers, timeout=30)
        # A start sends where the log stands, which may be there already.
        if not answer.ok and answer.status_code != 412:
            Front.wrong.append(f"moto answers {answer.status_code}: {answer.text}")
        self.reply(answer.status_code, answer.content)

    def problem(self, body: bytes) -> str | None:
        """What is wrong with the signature."""
        fields = dict(part.strip().split("=", 1) for part in self.headers["authorization"].split(" ", 1)[1].split(","))
        signed = fields["SignedHeaders"].split(";")
        for name in ("host", "x-amz-content-sha256", "x-amz-date", "x-amz-checksum-sha256", "if-none-match"):
            if name not in signed:
                return f"{name} is not signed"
        headers = {name: self.headers[name] for name in signed}
        request = AWSRequest("PUT", f"http://{self.headers['host']}{self.path}", headers=headers, data=body)
        request.context["timestamp"] = self.headers["x-amz-date"]
        auth = S3SigV4Auth(Credentials(KEY_ID, SECRET_KEY), "s3", REGION)
        canonical = auth.canonical_request(request)
        wanted = auth.signature(auth.string_to_sign(request, canonical), request)
        return None if wanted == fields["Signature"] else f"another signature belongs to {canonical}"

    def reply(self, status: int, body: bytes) -> None:
        """Whatever moto said."""
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Silent."""


class S3:
    """A bucket, and a gateway that anchors there."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        stage.cleanup.enter_context(mock_aws())
        self.bucket = boto3.client(
            "s3", region_name=REGION, aws_access_key_id=KEY_ID, aws_secret_access_key=SECRET_KEY
        )
        self.bucket.create_bucket(
            Bucket=BUCKET,
            CreateBucketConfiguration={"LocationConstraint": REGION},
            ObjectLockEnabledForBucket=True,
        )
        front = ThreadingHTTPServer(("127.0.0.1", 0), Front)
        stage.cleanup.callback(front.shutdown)
        threading.Thread(target=front.serve_forever, daemon=True).start()
        self.endpoint = f"http://127.0.0.1:{front.server_port}"
        self.issuer = stage.dev("issuer")
        self.config = stage.gateway_config(self.issuer, stage.dev("cosmos"))
        anchor = {"kind": "s3", "bucket": BUCKET, "prefix": PREFIX, "retain": "30d"}
        self.config["audit"] |= {"checkpoint_interval": "1s", "anchors": [anchor]}
        self.audit = Path(self.config["audit"]["directory"])
        self.kept = stage.path("kept")
        self.started = datetime.now(UTC)

    def serve(self, writes: int) -> None:
        """A gateway that takes so many writes and stops."""
        environment = {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        config = str(self.stage.config(self.config))
        gateway = self.stage.program(
            peers.STEPGATE, "serve", "--config", config, "--format", "json", environment=environment
        )
        headers = {"authorization": f"Bearer {peers.token(f'{self.issuer}/token')}", "x-ms-documentdb-is-upsert": "true"}
        for number in range(writes):
            item = {"id": f"o-{number}", "tenant": "t1"}
            answer = peers.ask("POST", f"{gateway.ready['gateway']}{ORDERS}?partitionKey=t1", item, headers)
            expect_that(answer.status in (200, 201), f"a write is answered ({answer.status} {answer.body})")
        expect(gateway.stop(), 0, "exit code")

    def checks(self) -> list[tuple[str, Callable[[], None]]]:
        """Every check with its name."""
        return [
            ("checkpoints arrive, each signed as botocore signs", self.arrive),
            ("each is kept in compliance mode until its time", self.locked),
            ("the log is held against what the bucket has", self.held),
            ("a log cut back, head and tail together, is found", self.cut_back),
        ]

    def keys(self) -> list[str]:
        """The objects."""
        return [found["Key"] for found in self.bucket.list_objects_v2(Bucket=BUCKET).get("Contents", [])]

    def arrive(self) -> None:
        """Two runs, since the second begins with what the first left."""
        self.serve(3)
        shutil.copytree(self.audit, self.stage.path("earlier") / "audit")
        self.earlier = self.stage.directory / f"{self.stage.files}-earlier" / "audit"
        self.serve(3)
        expect(Front.wrong, [], "requests that botocore would have signed otherwise, or moto refuses")
        keys = self.keys()
        expect_that(len(keys) >= 2, f"there are objects ({keys})")
        expect_that(all(key.startswith(PREFIX) and key.endswith(".checkpoint") for key in keys), f"keys ({keys})")

    def locked(self) -> None:
        """As the bucket says it."""
        for key in self.keys():
            # moto 5.2.5 answers 500 to GetObjectRetention; the head of the object has it too.
            head = self.bucket.head_object(Bucket=BUCKET, Key=key)
            expect(head["ObjectLockMode"], "COMPLIANCE", f"mode of {key}")
            until = head["ObjectLockRetainUntilDate"]
            expect_that(until > self.started + timedelta(days=29), f"{key} is kept until {until}")

    def held(self) -> None:
        """As `aws s3 sync` would bring them."""
        self.kept.mkdir()
        for number, key in enumerate(self.keys()):
            body = self.bucket.get_object(Bucket=BUCKET, Key=key)["Body"].read()
            (self.kept / f"{number}.checkpoint").write_bytes(body)
        report = self.verify(self.audit, 0)
        expect(report["anchored"], len(self.keys()), "checkpoints that the log extends")

    def cut_back(self) -> None:
        """Everything as it was after the first run, its checkpoints too."""
        peers.verify(self.earlier)
        report = self.verify(self.earlier, 5)
        expect_that("was cut back" in report["first_bad"]["wrong"], f"why ({report})")

    def verify(self, audit: Path, code: int) -> dict[str, object]:
        """The report of `audit verify --anchor`."""
        found = peers.stepgate("audit", "verify", str(audit), "--anchor", str(self.kept), "--format", "json")
        expect(found.returncode, code, f"exit code ({found.stdout}{found.stderr})")
        return dict(json.loads(found.stdout))


def scene(stage: Stage) -> list[tuple[str, Callable[[], None]]]:
    """One bucket."""
    return S3(stage).checks()


if __name__ == "__main__":
    peers.run("s3", scene)
