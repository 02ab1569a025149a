"""Customers who order a picture, wait for it, fetch it, and order the next: a load that bounds itself.

`python -m tests.bench.customers BASE_URL SECONDS CUSTOMERS KEY …` prints how many pictures they got.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
import sys
import time
from typing import Any, Final

import aiohttp
import uvloop

from tests.bench.creates import BODY

_POLL_S: Final = 0.5
_TIMEOUT: Final = aiohttp.ClientTimeout(total=30)


async def order(base_url: str, seconds: float, customers: int, keys: list[str]) -> None:
    until_s = time.monotonic() + seconds
    connections = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(base_url, connector=connections, timeout=_TIMEOUT) as session:
        turns = itertools.islice(itertools.cycle(keys), customers)
        finished = await asyncio.gather(*(_customer(session, key, until_s) for key in turns))
    print(json.dumps({"finished": sum(finished)}), flush=True)


async def _customer(session: aiohttp.ClientSession, key: str, until_s: float) -> int:
    finished = 0
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    while time.monotonic() < until_s:
        keyed = headers | {"Idempotency-Key": secrets.token_hex(8)}
        made = await _json(session, "POST", "/v1/images/generate", keyed, BODY)
        path = f"/v1/jobs/{made['jobId']}"
        while (await _json(session, "GET", path, headers))["status"] != "complete":
            await asyncio.sleep(_POLL_S)
        result = await _json(session, "GET", f"{path}/result", headers)
        async with session.get(result["url"]) as answer:
            answer.raise_for_status()
            await answer.read()
        finished += 1
    return finished


async def _json(
    session: aiohttp.ClientSession, method: str, path: str, headers: dict[str, str], body: str | None = None
) -> dict[str, Any]:
    async with session.request(method, path, headers=headers, data=body) as answer:
        answer.raise_for_status()
        read: dict[str, Any] = await answer.json()
        return read


if __name__ == "__main__":
    base, duration, count, *given = sys.argv[1:]
    uvloop.run(order(base, float(duration), int(count), given))
