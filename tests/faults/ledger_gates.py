"""Holding a database's commits up, from outside: no transaction is durable while the gate is closed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

import asyncpg

PATIENCE_S = 20.0

_CLOSE = "ALTER SYSTEM SET synchronous_standby_names = 'a_standby_that_never_comes'"
_OPEN = "ALTER SYSTEM RESET synchronous_standby_names"
_RELOAD = "SELECT pg_reload_conf()"
_WAITING = (
    "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND application_name = 'atelier-billing'"
)


class Gate(Protocol):
    """Between a COMMIT and its durability."""

    async def close(self) -> None:
        """From now on no commit becomes durable."""

    async def until_somebody_waits(self) -> None:
        """Until a commit stands before the closed gate. Raises TimeoutError."""

    async def open(self) -> None:
        """Let through what waits."""


class SqliteGate:
    """The gate of `ledger_faulty`: while its file exists, no sync of the write-ahead log returns."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def close(self) -> None:
        self._path.touch()

    async def until_somebody_waits(self) -> None:
        waiting = self._path.with_suffix(".waiting")
        await _until(lambda: asyncio.to_thread(waiting.exists))

    async def open(self) -> None:
        self._path.unlink()


class PostgresGate:
    """A standby that never comes: COMMIT has written its record, and waits until somebody else has it too."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def close(self) -> None:
        await self._execute(_CLOSE, _RELOAD)

    async def until_somebody_waits(self) -> None:
        await _until(self._waiting)

    async def open(self) -> None:
        await self._execute(_OPEN, _RELOAD)

    async def cut_who_waits(self) -> int:
        """Cut the connections of those who wait: their COMMIT went through, and nobody will ever tell them."""
        pids = await self._waiting()
        await self._execute(*(f"SELECT pg_terminate_backend({pid})" for pid in pids))
        return len(pids)

    async def _waiting(self) -> list[int]:
        admin = await asyncpg.connect(self._url)
        try:
            return [row["pid"] for row in await admin.fetch(_WAITING)]
        finally:
            await admin.close()

    async def _execute(self, *statements: str) -> None:
        admin = await asyncpg.connect(self._url)
        try:
            for statement in statements:
                await admin.execute(statement)
        finally:
            await admin.close()


async def _until(seen: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await seen():
            await asyncio.sleep(0.01)
