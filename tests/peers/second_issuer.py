#!/usr/bin/env python3
"""An OpenID provider that shares no code with the gateway, as its issuer: a workload, a person, a new key."""

from __future__ import annotations

import base64
import hashlib
import http.cookiejar
import json
import re
import secrets
import signal
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import peers
from peers import Program, Stage, expect, expect_that

ORDER = "/dbs/shop/colls/orders/docs/o-1?partitionKey=t1"


class SecondIssuer:
    """The checks, in the order in which they are made."""

    def __init__(self, provider: Program, gateway: str) -> None:
        self.provider, self.issuer, self.gateway = provider, str(provider.ready["issuer"]), gateway
        self.first = peers.token(f"{self.issuer}/token")

    def checks(self) -> list[tuple[str, Callable[[], None]]]:
        """Every check with its name."""
        return [
            ("a workload's token is good", self.workload),
            ("a person's token is refused as a person's", self.person),
            ("a token by a key that was just made is good at once, and the one before still is", self.rotation),
            (f"{RATE} requests a second through {ROTATIONS} rotations: no good token is refused", self.rotations),
            ("a token with a changed claim is not", self.forged),
        ]

    def ask(self, token: str) -> peers.Answer:
        """Reads an order, which is not there."""
        return peers.ask("GET", self.gateway + ORDER, headers={"authorization": f"Bearer {token}", **DISTINCT})

    def good(self, token: str) -> None:
        """The gateway lets it through, and Cosmos says that there is no such order."""
        answer = self.ask(token)
        expect((answer.status, answer.body["error"]), (404, "cosmos.not_found"), "answer")

    def workload(self) -> None:
        """Client credentials."""
        self.good(self.first)

    def person(self) -> None:
        """Authorization code with PKCE; the policy has a binding that matches, and it is not asked."""
        token = sign_in(self.issuer)
        claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
        expect((claims["email"], claims["client_id"]), ("alice@example.test", "console"), "claims")
        answer = self.ask(token)
        expect((answer.status, answer.body["error"]), (403, "identity.human"), "answer")

    def rotation(self) -> None:
        """The gateway meets a key id it does not know, and looks."""
        self.provider.signal(signal.SIGHUP)
        kid = self.provider.line()["kid"]
        token = peers.token(f"{self.issuer}/token")
        header = json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))
        expect((header["kid"], header["alg"]), (kid, "ES256"), "key id and algorithm of the new token")
        self.good(token)
        self.good(self.first)

    def rotations(self) -> None:
        """An open loop: each request leaves at its time, whatever became of those before, with the newest token."""
        tokens, answers = [peers.token(f"{self.issuer}/token")], Counter[int]()
        lock = threading.Lock()

        def one() -> None:
            with lock:
                token = tokens[-1]
            status = self.ask(token).status
            with lock:
                answers[status] += 1

        begun = time.monotonic()
        with ThreadPoolExecutor(max_workers=32) as pool:
            for number in range(RATE * ROTATIONS):
                time.sleep(max(0.0, begun + number / RATE - time.monotonic()))
                if number % RATE == RATE // 2:
                    self.provider.signal(signal.SIGHUP)
                    self.provider.line()
                    fresh = peers.token(f"{self.issuer}/token")
                    with lock:
                        tokens.append(fresh)
                pool.submit(one)
        expect(dict(answers), {404: RATE * ROTATIONS}, "answers by status")

    def forged(self) -> None:
        """Same header, same signature, other claims."""
        header, claims, signature = self.first.split(".")
        changed = json.loads(base64.urlsafe_b64decode(claims + "==")) | {"tenant": "t2"}
        claims = base64.urlsafe_b64encode(json.dumps(changed).encode()).rstrip(b"=").decode()
        answer = self.ask(f"{header}.{claims}.{signature}")
        expect((answer.status, answer.body["error"]), (401, "identity.invalid_token"), "answer")


# Requests a second, and how often the provider takes a new key, a second apart.
RATE, ROTATIONS = 200, 5
# Each condition with a code of its own, as a workflow sees it.
DISTINCT = {"x-stepgate-errors": "distinct"}


def sign_in(issuer: str) -> str:
    """Alice's access token: the provider's own pages, filled in as a browser would."""
    verifier = secrets.token_urlsafe(48)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    client = {"client_id": "console", "redirect_uri": "http://127.0.0.1:4499/callback"}
    query = {
        "response_type": "code",
        "scope": "openid orders",
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }

    jar = http.cookiejar.CookieJar()
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar), Callback)
    page = browser.open(f"{issuer}/auth?{urllib.parse.urlencode({**client, **query})}", timeout=peers.PATIENCE)
    # Two pages: who are you, and may this client act for you.
    for _ in range(2):
        form = page.read().decode()
        action = re.search(r'action="([^"]+)"', form)
        prompt = re.search(r'name="prompt" value="([^"]+)"', form)
        if action is None or prompt is None:
            raise peers.Failure(f"the provider shows no form: {form[:500]}")
        filled = urllib.parse.urlencode({"prompt": prompt[1], "login": "alice", "password": "any"}).encode()
        page = browser.open(urllib.parse.urljoin(issuer, action[1]), data=filled, timeout=peers.PATIENCE)
    code = urllib.parse.parse_qs(urllib.parse.urlsplit(page.headers["location"]).query)["code"][0]

    form = [("grant_type", "authorization_code"), ("code", code), ("code_verifier", verifier), *client.items()]
    answer = peers.ask("POST", f"{issuer}/token", form)
    expect_that("access_token" in answer.body, f"a token for the code ({answer.body})")
    return str(answer.body["access_token"])


class Callback(urllib.request.HTTPRedirectHandler):
    """Follows redirects up to the one that brings the code, behind which nothing listens."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        """The next request, or None to stop here."""
        if newurl.startswith("http://127.0.0.1:4499/"):
            return None
        return super().redirect_request(req, fp, code, msg, headers, newurl)

    def http_error_303(self, req, fp, code, msg, headers):  # type: ignore[no-untyped-def]
        """The answer itself where no redirect is followed."""
        return super().http_error_302(req, fp, code, msg, headers) or fp

    http_error_302 = http_error_303


def scene(stage: Stage) -> list[tuple[str, Callable[[], None]]]:
    """A gateway that trusts this provider alone."""
    provider = stage.node("idp.mjs")
    config = stage.gateway_config(provider.ready["issuer"], stage.dev("cosmos"))
    return SecondIssuer(provider, stage.gateway(config).ready["gateway"]).checks()


if __name__ == "__main__":
    peers.run("second-issuer", scene)
