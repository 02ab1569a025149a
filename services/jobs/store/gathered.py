"""Reads that arrive while one is under way become the next one: like group commit, for look-ups."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Generic, TypeVar

from sqlalchemy import Connection

from services.chassis.database import Database

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

# A statement with more keys than this keeps its first asker waiting for the last one's row.
_LIMIT = 512


class GatheredReads(Generic[K, V]):
    """Looks up single keys, many to a statement, without a timer. Every answer is read after it was asked for."""

    def __init__(
        self, database: Database, load: Callable[[Connection, Iterable[K]], Mapping[K, V]], *, name: str
    ) -> None:
        self._database = database
        self._load = load
        self._name = name
        self._waiting: dict[K, asyncio.Future[V | None]] = {}
        self._runner: asyncio.Task[None] | None = None

    async def get(self, key: K) -> V | None:
        """What is committed under this key now. Raises what the database raises."""
        future = self._waiting.get(key)
        if future is None:
            future = self._waiting[key] = asyncio.get_running_loop().create_future()
        if self._runner is None:
            self._runner = asyncio.create_task(self._run(), name=self._name, context=contextvars.Context())
        return await asyncio.shield(future)

    async def _run(self) -> None:
        try:
            while self._waiting:
                taken = dict(list(self._waiting.items())[:_LIMIT])
                for key in taken:
                    del self._waiting[key]
                await self._answer(taken)
        finally:
            self._runner = None

    async def _answer(self, taken: dict[K, asyncio.Future[V | None]]) -> None:
        try:
            found = await self._database.read(lambda connection: self._load(connection, taken))
        except Exception as error:
            for future in taken.values():
                future.set_exception(error)
                # An asker who was cancelled never looks; that is no lost exception.
                future.exception()
            return
        for key, future in taken.items():
            future.set_result(found.get(key))
