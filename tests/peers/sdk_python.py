#!/usr/bin/env python3
"""Microsoft's own Python SDK against the gateway: unmodified, over TLS, with a workflow's token as its credential."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from azure.core import MatchConditions
from azure.core.credentials import AccessToken
from azure.cosmos import ContainerProxy, CosmosClient, documents
from azure.cosmos.exceptions import (
    CosmosAccessConditionFailedError,
    CosmosBatchOperationError,
    CosmosHttpResponseError,
    CosmosResourceExistsError,
    CosmosResourceNotFoundError,
)

import certificates
import peers
from peers import Stage, expect, expect_that


class Workload:
    """A token credential, as the SDK wants one, that gets its tokens from the workflow's own issuer."""

    def __init__(self, endpoint: str, client: str) -> None:
        self.endpoint, self.client = endpoint, client

    def get_token(self, *_scopes: str, **_options: Any) -> AccessToken:
        """A token, whatever scope the SDK asks for."""
        return AccessToken(peers.token(self.endpoint, self.client), int(time.time()) + 300)


def connect(gateway: str, credential: Workload, authority: Path) -> CosmosClient:
    """A client that trusts this authority alone, on loopback too."""
    trust = documents.SSLConfiguration()
    trust.SSLCaCerts = str(authority)
    return CosmosClient(gateway, credential=credential, ssl_config=trust)


def order(number: int, tenant: str = "t1", **more: Any) -> dict[str, Any]:
    """An order."""
    return {"id": f"o-{number}", "tenant": tenant, "total": number, **more}


def refused(call: Callable[[], Any], kind: type[CosmosHttpResponseError], status: int) -> CosmosHttpResponseError:
    """The error that the call ends with, which is of this kind and status."""
    try:
        answer = call()
    except kind as error:
        expect(error.status_code, status, "status")
        return error
    raise peers.Failure(f"wanted {kind.__name__}, was answered {answer!r}")


class Sdk:
    """The checks, in the order in which they are made."""

    def __init__(self, wide: CosmosClient, tenant: CosmosClient) -> None:
        self.orders = container(wide, "orders")
        self.vault = container(wide, "vault")
        self.own = container(tenant, "orders")

    def checks(self) -> list[tuple[str, Callable[[], None]]]:
        """Every check with its name."""
        return [
            ("create, read, replace, upsert and delete", self.items),
            ("what is not there, what exists already, and an etag that moved", self.errors),
            ("patch, with and without a condition", self.patch),
            ("a query of one partition, and of all", self.query),
            ("pages, with a continuation", self.pages),
            ("a batch", self.batch),
            ("a batch that rolls back", self.rollback),
            ("the change feed, from the beginning and on", self.change_feed),
            ("a container that no grant names", self.denied),
            ("a grant on one partition: this one, and no other", self.one_partition),
        ]

    def items(self) -> None:
        """Create, read, replace, upsert, delete."""
        created = self.orders.create_item(order(1))
        expect(self.orders.read_item("o-1", "t1")["_etag"], created["_etag"], "etag of what was created")
        self.orders.replace_item("o-1", order(1, status="paid"))
        expect(self.orders.read_item("o-1", "t1")["status"], "paid", "status after the replace")
        self.orders.upsert_item(order(1, status="sent"))
        expect(self.orders.read_item("o-1", "t1")["status"], "sent", "status after the upsert")
        self.orders.delete_item("o-1", "t1")
        refused(lambda: self.orders.read_item("o-1", "t1"), CosmosResourceNotFoundError, 404)

    def errors(self) -> None:
        """404, 409, 412, as the SDK's own exceptions."""
        refused(lambda: self.orders.read_item("o-none", "t1"), CosmosResourceNotFoundError, 404)
        created = self.orders.create_item(order(2))
        refused(lambda: self.orders.create_item(order(2)), CosmosResourceExistsError, 409)
        self.orders.upsert_item(order(2, status="moved"))
        condition = {"etag": created["_etag"], "match_condition": MatchConditions.IfNotModified}
        refused(lambda: self.orders.replace_item("o-2", order(2), **condition), CosmosAccessConditionFailedError, 412)

    def patch(self) -> None:
        """Patch operations, and the predicate that goes with them."""
        self.orders.upsert_item(order(3))
        rise = [{"op": "incr", "path": "/total", "value": 4}, {"op": "add", "path": "/status", "value": "paid"}]
        self.orders.patch_item("o-3", "t1", rise)
        expect(self.orders.read_item("o-3", "t1")["total"], 7, "total after the patch")
        unmet = {"filter_predicate": "FROM c WHERE c.status = 'new'"}
        refused(lambda: self.orders.patch_item("o-3", "t1", rise, **unmet), CosmosHttpResponseError, 412)

    def query(self) -> None:
        """Parameters, ORDER BY, COUNT."""
        for number in range(10, 20):
            self.orders.upsert_item(order(number, tenant="t1" if number % 2 else "t2", kind="query"))
        text = "SELECT VALUE c.total FROM c WHERE c.kind = @kind ORDER BY c.total DESC"
        kind = [{"name": "@kind", "value": "query"}]
        found = list(self.orders.query_items(text, parameters=kind, partition_key="t1"))
        expect(found, [19, 17, 15, 13, 11], "one partition")
        found = list(self.orders.query_items(text, parameters=kind, enable_cross_partition_query=True))
        expect(found, list(range(19, 9, -1)), "every partition")
        count = "SELECT VALUE COUNT(1) FROM c WHERE c.kind = @kind"
        found = list(self.orders.query_items(count, parameters=kind, enable_cross_partition_query=True))
        expect(found, [10], "count over every partition")

    def pages(self) -> None:
        """A second client call goes on where the first one stopped."""
        for number in range(30, 37):
            self.orders.upsert_item(order(number, kind="page"))
        ask: dict[str, Any] = {
            "query": "SELECT VALUE c.total FROM c WHERE c.kind = 'page'",
            "partition_key": "t1",
            "max_item_count": 3,
        }
        pages = self.orders.query_items(**ask).by_page()
        first = list(next(pages))
        rest = self.orders.query_items(**ask).by_page(pages.continuation_token)
        found = [first, *(list(page) for page in rest)]
        expect([len(page) for page in found if page], [3, 3, 1], "sizes of the pages")
        expect(sorted(sum(found, [])), list(range(30, 37)), "what the pages hold")

    def batch(self) -> None:
        """All of it, in order."""
        self.orders.upsert_item(order(40))
        answers = self.orders.execute_item_batch(
            [
                ("create", (order(41),)),
                ("upsert", (order(42),)),
                ("read", ("o-40",)),
                ("replace", ("o-40", order(40, status="paid"))),
                # No patch: the emulator behind the stand-in does not know it inside a batch.
                ("delete", ("o-42",)),
            ],
            "t1",
        )
        expect([answer["statusCode"] for answer in answers], [201, 201, 200, 200, 204], "statuses")
        expect(self.orders.read_item("o-40", "t1")["status"], "paid", "status of the item replaced")

    def rollback(self) -> None:
        """One operation fails, and nothing is left of the others."""
        self.orders.upsert_item(order(50))
        batch = [("create", (order(51),)), ("create", (order(50),))]
        try:
            self.orders.execute_item_batch(batch, "t1")
        except CosmosBatchOperationError as error:
            expect(error.error_index, 1, "the operation that failed")
            expect(error.status_code, 409, "its status")
        else:
            raise peers.Failure("the batch went through")
        refused(lambda: self.orders.read_item("o-51", "t1"), CosmosResourceNotFoundError, 404)

    def change_feed(self) -> None:
        """Whole container from the beginning, then what is new, then one partition."""
        self.orders.upsert_item(order(60, kind="feed"))
        feed = self.orders.query_items_change_feed(start_time="Beginning")
        expect_that("o-60" in [item["id"] for item in feed], "the feed from the beginning has the item")
        seen = self.orders.client_connection.last_response_headers["etag"]
        self.orders.upsert_item(order(61, kind="feed"))
        more = [item["id"] for item in self.orders.query_items_change_feed(continuation=seen)]
        expect(more, ["o-61"], "what is new since then")
        own = self.orders.query_items_change_feed(start_time="Beginning", partition_key="t2")
        expect({item["tenant"] for item in own}, {"t2"}, "tenants in the feed of one partition")

    def denied(self) -> None:
        """403, and 0 for a substatus: others send SDKs to look for another region."""
        error = refused(lambda: self.vault.read_item("v1", "t1"), CosmosHttpResponseError, 403)
        expect(error.sub_status or 0, 0, "substatus")

    def one_partition(self) -> None:
        """The key is locked by the grant."""
        self.orders.upsert_item(order(70))
        self.orders.upsert_item(order(71, tenant="t2"))
        expect(self.own.read_item("o-70", "t1")["total"], 70, "an order of its own")
        refused(lambda: self.own.read_item("o-71", "t2"), CosmosHttpResponseError, 403)
        refused(lambda: self.own.upsert_item(order(72, tenant="t2")), CosmosHttpResponseError, 403)
        found = self.own.query_items("SELECT VALUE c.tenant FROM c", partition_key="t1")
        expect(set(found), {"t1"}, "tenants in a query of its own partition")


def container(client: CosmosClient, name: str) -> ContainerProxy:
    """A container of the shop."""
    return client.get_database_client("shop").get_container_client(name)


def scene(stage: Stage) -> list[tuple[str, Callable[[], None]]]:
    """The gateway with a certificate of its own, between the two stand-ins."""
    authority, certificate, private_key = certificates.make(stage.directory)
    issuer, cosmos = stage.dev("issuer"), stage.dev("cosmos")
    tls = {"certificate": str(certificate), "private_key": str(private_key)}
    gateway = stage.gateway(stage.gateway_config(issuer, cosmos, tls=tls)).ready["gateway"]
    clients = [Workload(f"{issuer}/token", name) for name in ("worker", "tenant-worker")]
    wide, tenant = (connect(gateway, client, authority) for client in clients)
    return Sdk(wide, tenant).checks()


if __name__ == "__main__":
    peers.run("python-sdk", scene)
