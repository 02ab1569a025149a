"""Reading rows by key for many callers: those that arrive while one read runs share the next."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

# Keys read by one statement; more than that many in one read's time wait for the next.
LOOKUP_LIMIT = 512


class Lookups(Generic[K, V]):
    """Gives every caller its row, or None; keeps no row."""

    def __init__(self, read: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]]) -> None:
        self._read_rows = read
        self._waiting: dict[K, asyncio.Future[V | None]] = {}
        self._reader: asyncio.Task[None] | None = None

    async def find(self, key: K) -> V | None:
        """The row of `key`, as it is stored now."""
        return await asyncio.shield(self._asked(key))

    async def find_first(self, keys: Sequence[K]) -> V | None:
        """The row of the first of `keys` that has one; all of them are read together."""
        answers = [self._asked(key) for key in keys]
        for answer in answers:
            # Shielded: the answer is shared, and one caller's leaving must not take it from the others.
            found = await asyncio.shield(answer)
            if found is not None:
                return found
        return None

    def _asked(self, key: K) -> asyncio.Future[V | None]:
        answer = self._waiting.get(key)
        if answer is None:
            answer = self._waiting[key] = asyncio.get_running_loop().create_future()
        if self._reader is None:
            # An empty context: the read belongs to no one request.
            self._reader = asyncio.create_task(self._read(), context=contextvars.Context())
        return answer

    async def _read(self) -> None:
        try:
            while self._waiting:
                keys = list(self._waiting)[:LOOKUP_LIMIT]
                await self._answer({key: self._waiting.pop(key) for key in keys})
        finally:
            self._reader = None

    async def _answer(self, answers: dict[K, asyncio.Future[V | None]]) -> None:
        try:
            rows = await self._read_rows(list(answers))
        except Exception as error:
            for answer in answers.values():
                answer.set_exception(error)
                # Whoever asked may be gone; an exception nobody fetches would be logged as a bug.
                answer.exception()
            return
        for key, answer in answers.items():
            answer.set_result(rows.get(key))
