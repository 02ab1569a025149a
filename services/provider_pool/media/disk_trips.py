"""Work on a disk that many ask for at once: whoever comes while a trip to a thread is under way shares the next one."""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Final, Generic, TypeVar, cast

W = TypeVar("W")
R = TypeVar("R")

_LIMIT: Final = 64
"""In one trip; with more, the first would wait long for the last."""


class DiskTrips(Generic[W, R]):
    """Gathers without a timer: a lone piece of work leaves at once, and many together pay for one thread.

    `work` does a batch in a thread and returns for each piece, in order, its result or what it raises.
    """

    def __init__(
        self,
        work: Callable[[Sequence[W]], Sequence[R | Exception]],
        *,
        executor: Executor | None = None,
        at_once: int = 1,
    ) -> None:
        self._work = work
        self._executor = executor
        self._at_once = at_once
        self._waiting: deque[tuple[W, asyncio.Future[R]]] = deque()
        self._trips: set[asyncio.Task[None]] = set()

    async def run(self, piece: W) -> R:
        """The result of this piece. It is done to its end even if its caller leaves."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[R] = loop.create_future()
        self._waiting.append((piece, done))
        if len(self._trips) < self._at_once:
            # An empty context: a trip is no one request's.
            trip = loop.create_task(self._travel(), name="disk trip", context=contextvars.Context())
            self._trips.add(trip)
        return await done

    async def _travel(self) -> None:
        try:
            while self._waiting:
                await self._trip()
        finally:
            # In the same step in which nobody waited any more: whoever comes next must not count on this one.
            self._trips.remove(cast("asyncio.Task[None]", asyncio.current_task()))

    async def _trip(self) -> None:
        batch = [self._waiting.popleft() for _ in range(min(_LIMIT, len(self._waiting)))]
        results: Sequence[R | Exception]
        pieces = [piece for piece, _ in batch]
        try:
            loop = asyncio.get_running_loop()
            results = await loop.run_in_executor(self._executor, self._work, pieces)
        except Exception as error:
            results = [error] * len(batch)
        for (_, done), result in zip(batch, results, strict=True):
            if done.done():
                continue
            if isinstance(result, Exception):
                done.set_exception(result)
            else:
                done.set_result(result)


def one_by_one(pieces: Sequence[Callable[[], R]]) -> list[R | Exception]:
    """For `DiskTrips` whose pieces are functions."""
    return [_result(piece) for piece in pieces]


def _result(piece: Callable[[], R]) -> R | Exception:
    try:
        return piece()
    except Exception as error:
        return error
