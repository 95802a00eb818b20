#!/usr/bin/env python3
"""The official Python client of the Model Context Protocol as an agent: it finds the issuer by itself, and is held to the policy."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
from mcp import Client
from mcp.client.auth import TokenStorage
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken
from mcp.types import CallToolResult

import peers
from peers import Stage, expect, expect_that

EXECUTION = "arn:aws:states:eu-west-1:111122223333:execution:Triage:run-1"
ORDERS = "/dbs/shop/colls/orders/docs"


class Memory(TokenStorage):
    """Keeps the token between two requests."""

    def __init__(self) -> None:
        self.tokens: OAuthToken | None = None

    async def get_tokens(self) -> OAuthToken | None:
        """The token, once there is one."""
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        """Keeps it."""
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        """Nothing: the client is not registered on the way."""
        return None

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        """Nothing, as above."""


class Agent:
    """The checks, in the order in which they are made."""

    def __init__(self, gateway: str, issuer: str, audit: Path) -> None:
        self.url, self.issuer, self.audit = f"{gateway}/mcp", issuer, audit
        self.token = peers.token(f"{issuer}/token")
        for number, tenant in enumerate(["t1", "t2", "t1"]):
            item = {"id": f"o-{number}", "tenant": tenant, "total": number}
            path = f"{ORDERS}?partitionKey={tenant}"
            created = peers.ask("POST", gateway + path, item, {"authorization": f"Bearer {self.token}"})
            expect(created.status, 201, f"status of the order's creation ({created.body})")

    def checks(self) -> list[tuple[str, Callable[[], None]]]:
        """Every check with its name."""
        return [
            ("with a secret alone it finds the issuer, gets a token and lists the tools", self.discover),
            ("the same with the handshake of older versions", lambda: self.talk(self.tools, mode="legacy")),
            ("it reads an item", lambda: self.talk(self.read)),
            ("it queries, page by page", lambda: self.talk(self.query)),
            ("it reads and queries by the older versions too", self.older),
            ("it hears what it may do, and why not", lambda: self.talk(self.access)),
            ("it is refused what policy refuses, in one sentence", lambda: self.talk(self.refused)),
            ("without a token, or with somebody else's, it does not come in", self.strangers),
            ("a page from elsewhere does not come in either", self.pages),
            ("the audit trail has every call, the refused ones too", self.trail),
        ]

    def talk(self, what: Callable[[Client], Awaitable[None]], mode: str = "auto", **client: Any) -> None:
        """Connects, says it, and leaves."""
        headers = {"x-stepgate-execution": EXECUTION, "x-stepgate-state": "Triage"}
        auth = {} if "auth" in client else {"authorization": f"Bearer {self.token}"}
        client["headers"] = {**headers, **auth, **client.get("headers", {})}

        async def conversation() -> None:
            async with httpx2.AsyncClient(timeout=peers.PATIENCE, **client) as http:
                async with Client(streamable_http_client(self.url, http_client=http), mode=mode) as agent:
                    await what(agent)

        asyncio.run(conversation())

    def discover(self) -> None:
        """401, the metadata of the resource, the metadata of its issuer, client credentials."""
        memory = Memory()
        auth = ClientCredentialsOAuthProvider(
            server_url=self.url, storage=memory, client_id="worker", client_secret=peers.SECRET, issuer=self.issuer
        )
        self.talk(self.tools, auth=auth)
        expect_that(memory.tokens is not None, "a token was fetched")

    async def tools(self, agent: Client) -> None:
        """Four, and all of them only read."""
        expect(agent.protocol_version, NEWEST if agent.mode == "auto" else OLDER, "version of the protocol")
        expect(agent.server_info.name, "stepgate", "name of the server")
        tools = (await agent.list_tools()).tools
        expect([tool.name for tool in tools], TOOLS, "tools")
        expect_that(all(tool.annotations and tool.annotations.read_only_hint for tool in tools), "all of them read")

    async def read(self, agent: Client) -> None:
        """An item, as text and as structure."""
        arguments = {"container": "shop/orders", "id": "o-0", "partition_key": ["t1"]}
        told = carried_out(await agent.call_tool("read_item", arguments))
        expect((told["item"]["id"], told["item"]["total"]), ("o-0", 0), "the item")
        expect_that(told["request_charge"] > 0, "the charge is told")

    async def query(self, agent: Client) -> None:
        """One item a page."""
        arguments = {
            "container": "shop/orders",
            "query": "SELECT VALUE c.id FROM c WHERE c.total >= @least",
            "parameters": [{"name": "@least", "value": 0}],
            "partition_key": ["t1"],
            "max_items": 1,
        }
        found: list[str] = []
        while True:
            page = carried_out(await agent.call_tool("query_items", arguments))
            found += page["items"]
            if "continuation" not in page:
                break
            arguments["continuation"] = page["continuation"]
        expect(found, ["o-0", "o-2"], "ids")

    def older(self) -> None:
        """Version 2025-11-25 and before: `initialize`, then `tools/call`."""
        self.talk(self.read, mode="legacy")
        self.talk(self.query, mode="legacy")

    async def access(self, agent: Client) -> None:
        """From policy alone."""
        held = carried_out(await agent.call_tool("list_containers"))
        expect([entry["container"] for entry in held["containers"]], ["shop/orders", "shop/audit"], "containers")
        expect(held["containers"][1]["operations"], ["items/create"], "operations")
        arguments = {"operation": "query", "container": "shop/vault"}
        told = carried_out(await agent.call_tool("explain_access", arguments))
        expect((told["decision"], told["sentence"]), ("deny", "No grant allows query on shop/vault to peer/worker."), "why")

    async def refused(self, agent: Client) -> None:
        """The vault is there, and holds v1."""
        for name, more in [("read_item", {"id": "v1"}), ("query_items", {"query": "SELECT * FROM c"})]:
            result = await agent.call_tool(name, {"container": "shop/vault", "partition_key": ["t1"], **more})
            expect((result.is_error, result.structured_content["error"]), (True, "policy.denied"), name)
            operation = "items/read" if name == "read_item" else "query"
            sentence = f"No grant allows {operation} on shop/vault to peer/worker. (403 policy.denied)"
            expect(result.content[0].text, sentence, name)

    def strangers(self) -> None:
        """The client raises what the HTTP status is."""
        for headers in [{"authorization": ""}, {"authorization": f"Bearer {self.token[:-8]}AAAAAAAA"}]:
            self.turned_away(401, headers)

    def pages(self) -> None:
        """A browser would name the page, and the name that it was made to believe in."""
        self.turned_away(403, {"origin": "https://evil.example"})
        self.turned_away(403, {"host": "rebound.example"})

    def turned_away(self, status: int, headers: dict[str, str]) -> None:
        """The client does not get to talk; and what it was answered is this status."""
        seen: list[int] = []

        async def note(response: httpx2.Response) -> None:
            seen.append(response.status_code)

        try:
            self.talk(self.tools, mode="legacy", headers=headers, event_hooks={"response": [note]})
        except BaseException:
            expect(set(seen), {status}, "statuses")
        else:
            raise peers.Failure(f"{headers} was let in")

    def trail(self) -> None:
        """By execution, and as records."""
        traced = peers.stepgate("audit", "trace", EXECUTION, "--dir", str(self.audit))
        expect(traced.returncode, 0, f"exit code of `audit trace` ({traced.stderr})")
        for words in ["items/read", "query", "grants", "explain", "403 policy.denied"]:
            expect_that(words in traced.stdout, f"`{words}` is in the trace:\n{traced.stdout}")
        lines = [line for file in sorted(self.audit.glob("*.jsonl")) for line in file.read_text().splitlines()]
        records = [json.loads(line)["stepgate"] for line in lines]
        calls = [record for record in records if record["user_agent"] == "mcp" and record["phase"] == "outcome"]
        denied = [record["operation"] for record in calls if record["decision"] == "deny"]
        expect(sorted(denied), ["explain", "items/read", "query"], "what was denied")
        allowed = [record["operation"] for record in calls if record["decision"] == "allow"]
        expect(sorted(allowed), ["grants", *["items/read"] * 2, *["query"] * 4], "what was allowed")
        secrets = [self.token, self.token.split(".")[2]]
        expect_that(all(secret not in line for secret in secrets for line in lines), "no record has the token")
        peers.verify(self.audit)


# What the two sides agree on: without a handshake, and by one.
NEWEST, OLDER = "2026-07-28", "2025-11-25"
TOOLS = ["list_containers", "read_item", "query_items", "explain_access"]


def carried_out(result: CallToolResult) -> dict[str, Any]:
    """What a tool says that was not refused: the same as text and as structure."""
    text = result.content[0].text
    expect(result.is_error, False, f"`is_error` ({text})")
    expect(json.loads(text), result.structured_content, "text and structure")
    return dict(result.structured_content)


def scene(stage: Stage) -> list[tuple[str, Callable[[], None]]]:
    """A gateway with its face for agents, behind an OpenID provider of other people's."""
    issuer = stage.node("idp.mjs").ready["issuer"]
    config = stage.gateway_config(issuer, stage.dev("cosmos"), mcp={"enabled": True})
    gateway = stage.gateway(config).ready["gateway"]
    return Agent(gateway, issuer, Path(config["audit"]["directory"])).checks()


if __name__ == "__main__":
    peers.run("mcp", scene)
