"""What workflows send: who they are, what they may, what is in Cosmos, and the mixture of requests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

WORKLOADS = {"pick": "t1", "pack": "t2", "ship": "t3"}
POLICY = """\
roles:
  keeper:
    description: as of change {number}
    grants:
      - {{ container: shop/orders, partition_key: ["{{claims.tenant}}"], operations: [items/read, items/upsert, items/replace] }}
      - {{ container: shop/lists, partition_key: ["{{claims.tenant}}"], operations: [query] }}
      - {{ container: shop/ledger, partition_key: ["{{claims.tenant}}"], operations: [items/upsert], idempotency: on }}
      - {{ container: shop/repeats, partition_key: ["{{claims.tenant}}"], operations: [items/upsert], idempotency: on }}
bindings:
  - {{ role: keeper, workloads: [{{ issuer: peer, claims: {{ token_kind: workload }} }}] }}
"""
HEADERS = {
    "user-agent": "Amazon|StepFunctions|HttpInvoke|eu-west-1",
    "content-type": "application/json",
    "x-stepgate-execution": "arn:aws:states:eu-west-1:111122223333:execution:Soak:{load}-{execution}",
    "x-stepgate-attempt": "0",
    # So that the gateway keeps sessions, of which it keeps as many as it may after a minute.
    "x-stepgate-session": "execution",
}
UPSERT = {"x-ms-documentdb-is-upsert": "true"}
QUERY = {"x-ms-documentdb-isquery": "True", "content-type": "application/query+json"}
ORDERS, LEDGER, REPEATS, LISTS, VAULT = (f"/dbs/shop/colls/{name}/docs" for name in ("orders", "ledger", "repeats", "lists", "vault"))
# More than there are connections, so that no two requests replace the same item at a time.
IDS = 300
# What workflows send: name, share of a thousand, method, path, headers, what is in the body, and the statuses that are expected. `once` is
# a write with a key of its own, and `again` one whose key was used before, so that the first answer is repeated. Each load counts `n` from 0.
# The two have containers of their own: a first write leaves a marker, and the stand-in copies a whole partition for each batch.
MIXTURE: list[tuple[str, int, str, str, dict[str, str], Any, list[int]]] = [
    ("read", 510, "GET", f"{ORDERS}/r-{{id}}", {}, None, [200]),
    ("upsert", 150, "POST", ORDERS, UPSERT, "u-{id}", [200]),
    ("replace", 109, "PUT", f"{ORDERS}/c-{{id}}", {}, "c-{id}", [200]),
    ("once", 1, "POST", LEDGER, UPSERT | {"idempotency-key": "once-{load}-{n}"}, "o-{id}", [200]),
    ("again", 20, "POST", REPEATS, UPSERT | {"idempotency-key": "again-{id}"}, "o-{id}", [200]),
    ("query", 90, "POST", LISTS, QUERY, {"query": "SELECT c.id FROM c WHERE c.rank < 10"}, [200]),
    ("denied", 60, "GET", f"{VAULT}/v-1", {}, None, [403]),
    ("forged", 60, "GET", f"{ORDERS}/r-{{id}}", {}, None, [401]),
]
WRITES = {"upsert", "replace", "once", "again"}


def item(name: str, tenant: str) -> dict[str, Any]:
    """An item as it is at the beginning, of about half a KiB."""
    return {"id": name, "tenant": tenant, "rank": 0, "note": "x" * 400}


def kinds(load: int) -> Iterator[dict[str, Any]]:
    """The mixture for each workload, as the plan of a load has it; which load it is, is given."""
    for workload, tenant in WORKLOADS.items():
        for name, share, method, path, headers, what, expect in MIXTURE:
            body = json.dumps(item(what, tenant) if isinstance(what, str) else what)
            yield {
                "name": name,
                "share": share,
                "method": method,
                "path": path,
                "headers": {key: value.replace("{load}", str(load)) for key, value in (HEADERS | {"x-stepgate-state": name} | headers).items()},
                "body": body,
                "token": "forged" if name == "forged" else workload,
                "expect": expect,
                "ids": IDS,
                "read_first": "read" if name == "replace" else None,
            }


def seed() -> dict[str, Any]:
    """What is in Cosmos at the beginning: every item that is read or written over."""
    names = {"orders": "ruc", "ledger": "o", "repeats": "o", "lists": "l", "vault": "v"}
    count = {"lists": 20, "vault": 2}
    containers = [
        {
            "id": container,
            "partition_key": ["/tenant"],
            "items": [
                item(f"{letter}-{number}", tenant)
                for tenant in WORKLOADS.values()
                for letter in letters
                for number in range(count.get(container, IDS))
            ],
        }
        for container, letters in names.items()
    ]
    return {"databases": [{"id": "shop", "containers": containers}]}
