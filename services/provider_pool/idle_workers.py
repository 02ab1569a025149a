"""Worker processes without work: the one that worked last is taken first, and who has waited too long is let go of."""

from __future__ import annotations

import asyncio
from typing import Generic, Protocol, TypeVar


class Worker(Protocol):
    """A process of ours."""

    @property
    def pid(self) -> int: ...

    @property
    def alive(self) -> bool: ...

    async def dismiss(self) -> None:
        """Let it end by itself, or kill it; also one that is dead already."""
        ...


W = TypeVar("W", bound=Worker)


class IdleWorkers(Generic[W]):
    """Workers that wait for work, for at most `idle_s` seconds each."""

    def __init__(self, idle_s: float) -> None:
        self._idle_s = idle_s
        self._waiting: dict[W, asyncio.TimerHandle] = {}
        self._goodbyes: set[asyncio.Task[None]] = set()

    @property
    def pids(self) -> tuple[int, ...]:
        """Of those that wait now."""
        return tuple(worker.pid for worker in self._waiting)

    def take(self) -> W | None:
        """A living one, or None."""
        while self._waiting:
            worker, retirement = self._waiting.popitem()
            retirement.cancel()
            if worker.alive:
                return worker
            self.dismiss(worker)
        return None

    def put_back(self, worker: W) -> None:
        """It has nothing to do."""
        retirement = asyncio.get_running_loop().call_later(self._idle_s, self._retire, worker)
        self._waiting[worker] = retirement

    def dismiss(self, worker: W) -> None:
        """Let go of a worker in the background."""
        task = asyncio.create_task(worker.dismiss())
        self._goodbyes.add(task)
        task.add_done_callback(self._goodbyes.discard)

    async def close(self) -> None:
        """Let go of all of them, and wait until they are gone."""
        while self._waiting:
            worker, retirement = self._waiting.popitem()
            retirement.cancel()
            self.dismiss(worker)
        await asyncio.gather(*self._goodbyes)

    def _retire(self, worker: W) -> None:
        if self._waiting.pop(worker, None) is not None:
            self.dismiss(worker)
