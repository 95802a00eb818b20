#!/usr/bin/env python3
"""Microsoft's own Python SDK against the gateway: unmodified, over TLS, with a workflow's token as its credential.

Every public operation of the SDK on data that a workload may do, and what the gateway refuses of the rest. What the stand-in
cannot show:

* A read with `If-None-Match`: the SDK does not send the header, so the 304 is tried in `tests/it/conditions.py` alone.
* Several physical partitions: the emulator has one for each container here, so what is merged are logical partitions.
* `AllVersionsAndDeletes` feeds: the emulator answers 200 with nothing in it, whatever happened.
* `semantic_rerank`: it goes to another service, not to the account.
* What a procedure computes: the stand-in answers with the arguments.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from azure.core import MatchConditions
from azure.core.credentials import AccessToken
from azure.cosmos import ContainerProxy, CosmosClient, PartitionKey, documents
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

    def __init__(self, gateway: str, wide: CosmosClient, tenant: CosmosClient) -> None:
        self.gateway, self.client = gateway, wide
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
            ("read all items, in pages", self.read_all),
            ("read many, across partitions", self.read_many),
            ("aggregates of one partition, and of all", self.aggregates),
            ("queries that the SDK puts together: ORDER BY, TOP, OFFSET, DISTINCT, GROUP BY, JOIN", self.put_together),
            ("a sorted query of all partitions, in pages", self.sorted_pages),
            ("a condition on each write that takes one", self.conditions),
            ("every patch operation", self.patches),
            ("a write without an answer, and an id that the SDK makes", self.writes),
            ("patches and conditions inside a batch", self.batch_patch),
            ("a hundred operations in a batch, and one more", self.batch_size),
            ("the container, its feed ranges, and what is in one", self.ranges),
            ("the change feed in pages, from now on, and of a feed range", self.change_feeds),
            ("a stored procedure", self.procedure),
            ("SQL that is none, and an item that is too large", self.bad_requests),
            ("the regions are the gateway's own address", self.account),
            ("whatever is not the data plane: 404", self.not_data),
            ("what would change an operation past the policy: 400", self.past_the_policy),
            ("a container that no grant names", self.denied),
            ("a grant on one partition: this one, and no other", self.one_partition),
            ("a grant on one partition: feeds and queries that name none see this one", self.own_feeds),
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

    def read_all(self) -> None:
        """A feed of everything, page by page, and on from a continuation."""
        for number in range(80, 87):
            self.orders.upsert_item(order(number, tenant="t1" if number % 2 else "t2", kind="all"))
        pages = self.orders.read_all_items(max_item_count=5).by_page()
        first = list(next(pages))
        rest = self.orders.read_all_items(max_item_count=5).by_page(pages.continuation_token)
        found = [first, *(list(page) for page in rest)]
        expect_that(all(len(page) <= 5 for page in found), "no page is longer than was asked for")
        ids = [item["id"] for page in found for item in page if item.get("kind") == "all"]
        expect(sorted(ids), [f"o-{number}" for number in range(80, 87)], "items read, each once")

    def read_many(self) -> None:
        """Items of several partitions by their ids; one that is not there is left out."""
        wanted = [("o-81", "t1"), ("o-82", "t2"), ("o-none", "t1"), ("o-83", "t1")]
        found = self.orders.read_items(wanted)
        expect(sorted(item["id"] for item in found), ["o-81", "o-82", "o-83"], "items read")

    def ask(self, text: str, **options: Any) -> list[Any]:
        """What a query over the orders of kind `all` finds; of every partition unless one is named."""
        everywhere = {} if "partition_key" in options else {"enable_cross_partition_query": True}
        return list(self.orders.query_items(text, **everywhere, **options))

    def aggregates(self) -> None:
        """The SDK merges those of several partitions."""
        wanted = {"COUNT(1)": (7, 3), "SUM(c.total)": (581, 249), "AVG(c.total)": (83, 83), "MIN(c.total)": (80, 81), "MAX(c.total)": (86, 85)}
        for aggregate, (of_all, of_one) in wanted.items():
            text = f"SELECT VALUE {aggregate} FROM c WHERE c.kind = 'all'"
            expect(self.ask(text), [of_all], f"{aggregate} of every partition")
            expect(self.ask(text, partition_key="t1"), [of_one], f"{aggregate} of one partition")

    def put_together(self) -> None:
        """Everything that takes a query plan."""
        of = "FROM c WHERE c.kind = 'all'"
        expect(self.ask(f"SELECT VALUE c.total {of} ORDER BY c.total DESC"), list(range(86, 79, -1)), "ORDER BY")
        expect(self.ask(f"SELECT VALUE c.id {of} ORDER BY c.tenant, c.total DESC"), ["o-85", "o-83", "o-81", "o-86", "o-84", "o-82", "o-80"], "ORDER BY of two")
        expect(self.ask(f"SELECT TOP 2 VALUE c.total {of} ORDER BY c.total"), [80, 81], "TOP")
        expect(self.ask(f"SELECT VALUE c.total {of} ORDER BY c.total OFFSET 2 LIMIT 3"), [82, 83, 84], "OFFSET LIMIT")
        expect(self.ask(f"SELECT DISTINCT VALUE c.kind {of}"), ["all"], "DISTINCT")
        groups = self.ask(f"SELECT c.tenant, COUNT(1) AS n {of} GROUP BY c.tenant")
        expect({group["tenant"]: group["n"] for group in groups}, {"t1": 3, "t2": 4}, "GROUP BY")
        self.orders.upsert_item(order(88, tags=["a", "ü", '"']))
        expect(self.ask("SELECT VALUE t FROM c JOIN t IN c.tags WHERE c.id = 'o-88'", partition_key="t1"), ["a", "ü", '"'], "JOIN")
        ids = [{"name": "@ids", "value": ["o-81", "o-82"]}]
        found = self.ask("SELECT VALUE c.id FROM c WHERE ARRAY_CONTAINS(@ids, c.id)", parameters=ids)
        expect(sorted(found), ["o-81", "o-82"], "a list for a parameter")

    def sorted_pages(self) -> None:
        """The order holds from page to page."""
        text = "SELECT VALUE c.total FROM c WHERE c.kind = 'all' ORDER BY c.total"
        pages = self.orders.query_items(text, enable_cross_partition_query=True, max_item_count=3).by_page()
        expect([list(page) for page in pages], [[80, 81, 82], [83, 84, 85], [86]], "pages")

    def conditions(self) -> None:
        """An etag that holds, then one that has moved, on replace, upsert, patch and delete."""
        rise = [{"op": "incr", "path": "/total", "value": 1}]
        writes: list[Callable[..., Any]] = [
            lambda **condition: self.orders.replace_item("o-90", order(90), **condition),
            lambda **condition: self.orders.upsert_item(order(90), **condition),
            lambda **condition: self.orders.patch_item("o-90", "t1", rise, **condition),
            lambda **condition: self.orders.delete_item("o-90", "t1", **condition),
        ]
        stale = self.orders.upsert_item(order(90))["_etag"]
        now = self.orders.upsert_item(order(90, status="moved"))["_etag"]
        for write in writes:
            moved = {"etag": stale, "match_condition": MatchConditions.IfNotModified}
            refused(lambda: write(**moved), CosmosAccessConditionFailedError, 412)
            expect(self.orders.read_item("o-90", "t1")["_etag"], now, "etag after a write that was refused")
        for write in writes:
            write(etag=self.orders.read_item("o-90", "t1")["_etag"], match_condition=MatchConditions.IfNotModified)
        refused(lambda: self.orders.read_item("o-90", "t1"), CosmosResourceNotFoundError, 404)

    def patches(self) -> None:
        """add, set, replace, incr, remove and move, to the end of a list too."""
        self.orders.upsert_item(order(100, tags=["a"]))
        operations = [
            {"op": "add", "path": "/tags/-", "value": "ü"},
            {"op": "set", "path": "/status", "value": "new"},
            {"op": "replace", "path": "/status", "value": "paid"},
            {"op": "incr", "path": "/total", "value": 2.5},
            {"op": "add", "path": "/gone", "value": 1},
            {"op": "remove", "path": "/gone"},
            {"op": "move", "from": "/status", "path": "/state"},
        ]
        self.orders.patch_item("o-100", "t1", operations)
        item = {name: value for name, value in self.orders.read_item("o-100", "t1").items() if not name.startswith("_")}
        expect(item, {"id": "o-100", "tenant": "t1", "tags": ["a", "ü"], "total": 102.5, "state": "paid"}, "the item")
        met = {"filter_predicate": "FROM c WHERE c.state = 'paid'"}
        self.orders.patch_item("o-100", "t1", [{"op": "remove", "path": "/state"}], **met)
        expect_that("state" not in self.orders.read_item("o-100", "t1"), "the patch whose predicate held is done")

    def writes(self) -> None:
        """`no_response`, and `enable_automatic_id_generation`."""
        expect(dict(self.orders.upsert_item(order(101), no_response=True)), {}, "the answer that was not asked for")
        expect(self.orders.read_item("o-101", "t1")["total"], 101, "total of the item")
        made = self.orders.create_item({"tenant": "t1"}, enable_automatic_id_generation=True)
        expect(self.orders.read_item(made["id"], "t1")["_etag"], made["_etag"], "etag of the item with a made id")

    def batch_patch(self) -> None:
        """One whose conditions hold, and three that fail whole."""
        etag = self.orders.upsert_item(order(110))["_etag"]
        rise = [{"op": "incr", "path": "/total", "value": 1}]
        answers = self.orders.execute_item_batch(
            [("patch", ("o-110", rise), {"filter_predicate": "FROM c WHERE c.total = 110"}), ("create", (order(111),))], "t1"
        )
        expect([answer["statusCode"] for answer in answers], [200, 201], "statuses")
        for refused_write in (
            ("patch", ("o-110", rise), {"filter_predicate": "FROM c WHERE c.total = 110"}),
            ("replace", ("o-110", order(110)), {"if_match_etag": etag}),
            ("delete", ("o-110",), {"if_match_etag": etag}),
        ):
            try:
                self.orders.execute_item_batch([("create", (order(112),)), refused_write], "t1")
            except CosmosBatchOperationError as error:
                expect((error.error_index, error.status_code), (1, 412), "which failed, and how")
            else:
                raise peers.Failure("the batch went through")
        expect(self.orders.read_item("o-110", "t1")["total"], 111, "total after one patch")
        refused(lambda: self.orders.read_item("o-112", "t1"), CosmosResourceNotFoundError, 404)

    def batch_size(self) -> None:
        """A hundred is what Cosmos takes."""
        creates = [("create", (order(number),)) for number in range(200, 301)]
        answers = self.orders.execute_item_batch(creates[:100], "t1")
        expect({answer["statusCode"] for answer in answers}, {201}, "statuses of a hundred")
        refused(lambda: self.orders.execute_item_batch(creates, "t1"), CosmosHttpResponseError, 400)

    def ranges(self) -> None:
        """Metadata is for everyone with a grant on the container."""
        expect(self.orders.read()["partitionKey"]["paths"], ["/tenant"], "paths of the partition key")
        whole = list(self.orders.read_feed_ranges())
        own = self.orders.feed_range_from_partition_key("t2")
        expect([self.orders.is_feed_range_subset(one, own) for one in whole], [True], "the range of a key lies in the one range")
        text = "SELECT VALUE c.tenant FROM c WHERE c.kind = 'all'"
        expect(sorted(self.orders.query_items(text, feed_range=whole[0])), ["t1"] * 3 + ["t2"] * 4, "tenants in the whole")
        expect(list(self.orders.query_items(text, feed_range=own)), ["t2"] * 4, "tenants in the range of a key")

    def change_feeds(self) -> None:
        """Every item once, in the order of its last change."""
        pages = self.orders.query_items_change_feed(start_time="Beginning", max_item_count=50).by_page()
        paged = [item["id"] for page in pages for item in page]
        expect(len(paged), len(set(paged)), "items in the pages, each once")
        expect_that({"o-86", "o-299"} <= set(paged), "the pages have the old and the new")
        expect(list(self.orders.query_items_change_feed(start_time="Now")), [], "changes from now on")
        of_range = self.orders.query_items_change_feed(start_time="Beginning", feed_range=next(iter(self.orders.read_feed_ranges())))
        expect([item["id"] for item in of_range], paged, "the feed of the only range")

    def procedure(self) -> None:
        """Its arguments arrive."""
        ran = self.orders.scripts.execute_stored_procedure("settle", partition_key="t1", params=["o-1", 7])
        expect(ran, ["o-1", 7], "what the stand-in's procedure answers")

    def bad_requests(self) -> None:
        """In Cosmos' own dialect."""
        refused(lambda: self.ask("SELEC"), CosmosHttpResponseError, 400)
        refused(lambda: self.orders.create_item(order(120, fat="x" * 2_100_000)), CosmosHttpResponseError, 413)
        refused(lambda: self.orders.create_item({"id": "~stepgate~x", "tenant": "t1"}), CosmosHttpResponseError, 400)

    def account(self) -> None:
        """So no client leaves it, whatever it does about regions."""
        account = self.client.get_database_account()
        places = [*account.ReadableLocations, *account.WritableLocations]
        expect({place["databaseAccountEndpoint"].rstrip("/") for place in places}, {self.gateway.rstrip("/")}, "addresses")

    def not_data(self) -> None:
        """Databases, containers, users, throughput, scripts, conflicts, and deleting a whole partition."""
        database = self.client.get_database_client("shop")
        for call in (
            lambda: self.client.create_database("other"),
            lambda: list(self.client.list_databases()),
            lambda: self.client.delete_database("shop"),
            database.read,
            database.get_throughput,
            lambda: list(database.list_containers()),
            lambda: database.create_container("other", PartitionKey("/tenant")),
            lambda: database.replace_container("orders", PartitionKey("/tenant"), default_ttl=1),
            lambda: database.delete_container("orders"),
            lambda: list(database.list_users()),
            lambda: database.create_user({"id": "u"}),
            self.orders.get_throughput,
            lambda: self.orders.replace_throughput(400),
            lambda: list(self.orders.list_conflicts()),
            lambda: self.orders.delete_all_items_by_partition_key("t1"),
            lambda: self.orders.scripts.create_stored_procedure({"id": "s", "body": "function () {}"}),
            lambda: list(self.orders.scripts.list_stored_procedures()),
            lambda: list(self.orders.scripts.list_triggers()),
            lambda: list(self.orders.scripts.list_user_defined_functions()),
        ):
            error = refused(call, CosmosResourceNotFoundError, 404)
            expect(error.sub_status or 0, 0, "substatus")
            expect_that("request.unknown_operation" in str(error), f"{error} names the condition")

    def past_the_policy(self) -> None:
        """Triggers and indexing directives."""
        for option in ({"pre_trigger_include": "t"}, {"post_trigger_include": "t"}, {"indexing_directive": 1}):
            refused(lambda: self.orders.create_item(order(130), **option), CosmosHttpResponseError, 400)
        refused(lambda: self.orders.read_item("o-130", "t1"), CosmosResourceNotFoundError, 404)

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

    def own_feeds(self) -> None:
        """The gateway fills the key in; where another is named it refuses."""
        self.orders.upsert_item(order(140, tenant="t2"))
        text = "SELECT VALUE c.tenant FROM c"
        expect(set(self.own.query_items(text, enable_cross_partition_query=True)), {"t1"}, "tenants in a query of all")
        expect({item["tenant"] for item in self.own.read_all_items()}, {"t1"}, "tenants in a feed")
        changes = self.own.query_items_change_feed(start_time="Beginning")
        expect({item["tenant"] for item in changes}, {"t1"}, "tenants in the change feed")
        expect(self.own.read()["id"], "orders", "the container's id")
        refused(lambda: list(self.own.query_items(text, partition_key="t2")), CosmosHttpResponseError, 403)
        refused(lambda: self.own.delete_item("o-140", "t2"), CosmosHttpResponseError, 403)
        refused(lambda: self.own.patch_item("o-140", "t2", [{"op": "remove", "path": "/total"}]), CosmosHttpResponseError, 403)
        refused(lambda: self.own.execute_item_batch([("delete", ("o-140",))], "t2"), CosmosHttpResponseError, 403)
        expect(self.orders.read_item("o-140", "t2")["total"], 140, "the other tenant's order is as it was")


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
    return Sdk(gateway, wide, tenant).checks()


if __name__ == "__main__":
    peers.run("python-sdk", scene)
