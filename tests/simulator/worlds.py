"""A simulated world for one test, and a plain client of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp

from services.chassis.clock import SystemClock
from services.simulator.serving import serving
from services.simulator.world import World

T = TypeVar("T")

# Work that takes a minute at a provider takes about a twentieth of a second here.
PACE = 1200.0
# Work that ends in no test by itself: at this pace it takes a quarter of an hour. `advance(LONG_S / 1000)` ends it.
LONG_S = 1_000_000


async def until(look: Callable[[], Awaitable[T | None]]) -> T:
    """What `look` finds, as soon as it finds something."""
    async with asyncio.timeout(10):
        while True:
            found = await look()
            if found:
                return found
            await asyncio.sleep(0.01)


@dataclass
class Simulated:
    """A running simulator."""

    world: World
    address: str
    client: aiohttp.ClientSession

    async def control(self, method: str, path: str, body: Any = None) -> Any:
        """Calls `/_control`; fails the test unless it was taken."""
        async with self.client.request(method, f"{self.address}/_control/{path}", json=body) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def account(self, provider: str, key: str, **wish: Any) -> dict[str, Any]:
        made: dict[str, Any] = await self.control(
            "POST", "accounts", {"provider": provider, "key": key, **wish}
        )
        return made

    async def tasks(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.control("GET", "tasks"))["tasks"]
        return found

    async def ended(self, count: int = 1) -> list[dict[str, Any]]:
        """All tasks, as soon as so many of them have ended."""

        async def look() -> list[dict[str, Any]] | None:
            tasks = await self.tasks()
            return tasks if sum(task["ended_ms"] is not None for task in tasks) >= count else None

        return await until(look)

    async def requests(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.control("GET", "requests"))["requests"]
        return found

    async def advance(self, seconds: float) -> None:
        await self.control("POST", "clock", {"advance_s": seconds})


@asynccontextmanager
async def simulated(*, pace: float = PACE, seed: int = 1) -> AsyncIterator[Simulated]:
    """A simulator of its own on a free port."""
    world = World(SystemClock(), seed=seed, pace=pace)
    timeout = aiohttp.ClientTimeout(total=20)
    async with (
        serving(world, "127.0.0.1:0") as address,
        aiohttp.ClientSession(timeout=timeout) as client,
    ):
        yield Simulated(world, address, client)
