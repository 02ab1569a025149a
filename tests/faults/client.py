"""A customer who writes down every answer, asks again under the same key when it got none, and polls until its job has ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from tests.house import Answer, Customer

_AGAIN_S = 0.1
_PATIENCE_S = 100.0
# Not a refusal of the request: the same one may be answered otherwise in a moment.
_PASSING = frozenset({429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Told:
    """One answer as it arrived, or the lack of one (status None: the connection broke or was refused)."""

    customer_id: str
    method: str
    path: str
    key: str
    status: int | None
    job_id: str
    body: bytes
    at_s: float


class Client:
    """`told` is the scene's: what every customer was answered, in order."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        base_url: str,
        api_key: str,
        customer_id: str,
        told: list[Told],
    ) -> None:
        self.customer_id = customer_id
        self._customer = Customer(session, base_url, api_key)
        self._told = told

    async def call(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer | None:
        """The answer, written down; None where there was none."""
        key = (headers or {}).get("Idempotency-Key", "")
        try:
            answer = await self._customer.call(method, path, body, headers)
        except (aiohttp.ClientError, TimeoutError, ConnectionError):
            self._told.append(Told(self.customer_id, method, path, key, None, "", b"", time.monotonic()))
            return None
        job_id = str(answer.json.get("jobId", "")) if 200 <= answer.status < 300 else ""
        told = Told(self.customer_id, method, path, key, answer.status, job_id, answer.body, time.monotonic())
        self._told.append(told)
        return answer

    async def once(self, key: str, prompt: str = "a red boat", **fields: Any) -> Answer | None:
        """Asks for an image, once."""
        body = {"prompt": prompt, **fields}
        return await self.call("POST", "/v1/images/generate", body, {"Idempotency-Key": key})

    async def image(self, key: str, prompt: str = "a red boat", **fields: Any) -> Answer:
        """Asks for an image under one key until the answer says yes or no. Raises TimeoutError."""
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                answer = await self.once(key, prompt, **fields)
                if answer is not None and answer.status not in _PASSING:
                    return answer
                await asyncio.sleep(_AGAIN_S)

    async def read(self, path: str) -> Answer:
        """Reads until the answer says yes or no. Raises TimeoutError."""
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                answer = await self.call("GET", path)
                if answer is not None and answer.status not in _PASSING:
                    return answer
                await asyncio.sleep(_AGAIN_S)

    async def ended(self, job_id: str) -> dict[str, Any]:
        """Polls until the job has ended; its last status. Raises TimeoutError."""
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                answer = await self.read(f"/v1/jobs/{job_id}")
                if answer.status == 200 and answer.json["status"] in {"complete", "failed"}:
                    return answer.json
                await asyncio.sleep(_AGAIN_S)
