from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from services.chassis.settings import load
from services.gateway.serving import serving
from services.gateway.settings import Settings
from tests.fakes import (
    LIVE_KEY,
    FakeBilling,
    FakeJobs,
    FakePool,
    serving_billing,
    serving_jobs,
    serving_pool,
)


@dataclass
class Storefront:
    """A gateway with fakes behind it, and a client in front."""

    url: str
    billing: FakeBilling
    jobs: FakeJobs
    pool: FakePool
    media: Path
    client: aiohttp.ClientSession
    jobs_address: str = ""
    _keys: list[int] = field(default_factory=list)

    async def post(
        self, path: str, body: Any, *, headers: dict[str, str] | None = None, key: str | None = None
    ) -> Answer:
        """A create request; `body` is JSON unless it is bytes. Under a fresh idempotency key unless one is given."""
        self._keys.append(1)
        sent = {"Authorization": f"Bearer {LIVE_KEY}", "Idempotency-Key": key or f"key-{len(self._keys)}"}
        sent["Content-Type"] = "application/json"
        payload = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
        return await self.request("POST", path, headers=sent | (headers or {}), data=payload)

    async def raw(
        self, path: str, headers: bytes, body: bytes = b'{"prompt": "a"}', key: bytes | None = None
    ) -> Answer:
        """A POST whose headers are sent byte by byte, as no client library would. Authorized unless `headers` are."""
        if b"Authorization" not in headers:
            headers += f"Authorization: Bearer {LIVE_KEY}\r\n".encode()
        if key:
            headers += b"Idempotency-Key: " + key + b"\r\n"
        length = f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
        start = f"POST {path} HTTP/1.1\r\nHost: test\r\n".encode()
        head, _, payload = (await self.bytes_back(start + headers + length + body)).partition(b"\r\n\r\n")
        return Answer(int(head.split(b" ", 2)[1]), {}, payload)

    async def bytes_back(self, sent: bytes) -> bytes:
        """Everything that the server says to `sent` until it closes the connection."""
        address = urlsplit(self.url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(sent)
        async with asyncio.timeout(10):
            received = await reader.read(-1)
        writer.close()
        await writer.wait_closed()
        return received

    def put(self, object_key: str, content: bytes) -> None:
        """Puts an object into the media store."""
        path = self.media / object_key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    async def fetched(self, url: str) -> bytes:
        """What a media link leads to."""
        async with self.client.get(url) as response:
            assert response.status == 200
            return await response.read()

    async def get(self, path: str, *, headers: dict[str, str] | None = None) -> Answer:
        return await self.request(
            "GET", path, headers={"Authorization": f"Bearer {LIVE_KEY}"} | (headers or {})
        )

    async def request(self, method: str, path: str, **options: Any) -> Answer:
        async with self.client.request(method, self.url + path, **options) as response:
            return Answer(response.status, response.headers, await response.read())


@dataclass
class Answer:
    status: int
    headers: Any
    raw: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.raw)

    @property
    def code(self) -> str:
        return str(self.body["error"]["code"])


Opening = Callable[..., Awaitable[Storefront]]


@pytest.fixture
async def opening(tmp_path: Path) -> AsyncIterator[Opening]:
    """Opens storefronts with other settings than the usual ones, or with jobs or the pool not up."""
    key_file = tmp_path / "media.key"
    key_file.write_text("k" * 40 + "\n")
    media = tmp_path / "media"
    media.mkdir()
    async with AsyncExitStack() as stack:

        async def open_one(
            *, jobs_listens: bool = True, pool_listens: bool = True, **changes: Any
        ) -> Storefront:
            billing, jobs, pool = FakeBilling(), FakeJobs(), FakePool()
            jobs_stack = await stack.enter_async_context(AsyncExitStack())
            jobs_address = await jobs_stack.enter_async_context(serving_jobs(jobs))
            if not jobs_listens:
                await jobs_stack.aclose()
            pool_stack = await stack.enter_async_context(AsyncExitStack())
            pool_address = await pool_stack.enter_async_context(serving_pool(pool))
            if not pool_listens:
                await pool_stack.aclose()
            environment = {
                "ATELIER_GATEWAY_LISTEN": "127.0.0.1:0",
                "ATELIER_GATEWAY_BILLING_ADDRESS": await stack.enter_async_context(serving_billing(billing)),
                "ATELIER_GATEWAY_JOBS_ADDRESS": jobs_address,
                "ATELIER_GATEWAY_POOL_ADDRESS": pool_address,
                "ATELIER_GATEWAY_MEDIA_FOLDER": str(media),
                "ATELIER_GATEWAY_MEDIA_SIGNING_KEY_FILE": str(key_file),
            }
            settings = replace(load(Settings, environment), **{"access_log": False, **changes})
            gateway = await stack.enter_async_context(serving(settings))
            client = await stack.enter_async_context(aiohttp.ClientSession())
            return Storefront(gateway.url, billing, jobs, pool, media, client, jobs_address)

        yield open_one


@pytest.fixture
async def shop(opening: Opening) -> Storefront:
    """A storefront as it usually is."""
    return await opening()
