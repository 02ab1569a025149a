"""A receiver of callbacks, and what it received."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass(frozen=True)
class Post:
    """One delivery."""

    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Received:
    """Deliveries in their order; the first ones are answered with the statuses in `answers`, all others with 200."""

    url: str
    answers: list[int] = field(default_factory=list)
    _posts: asyncio.Queue[Post] = field(default_factory=asyncio.Queue)

    async def next(self) -> Post:
        async with asyncio.timeout(10):
            return await self._posts.get()

    async def take(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self._posts.put_nowait(Post(headers, await request.read()))
        return web.Response(status=self.answers.pop(0) if self.answers else 200)


@asynccontextmanager
async def receiver(*answers: int) -> AsyncIterator[Received]:
    """Listens on a free port of this machine while entered."""
    received = Received("", list(answers))
    app = web.Application()
    app.router.add_post("/hook", received.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    received.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    try:
        yield received
    finally:
        await runner.cleanup()
