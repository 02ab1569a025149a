"""Leases that are to be given back, until the pool has acknowledged it."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random

from services.chassis.clock import Clock
from services.chassis.errors import ServiceError
from services.jobs import schedule
from services.jobs.ports import Pool
from services.jobs.steps import TRANSIENT

log = logging.getLogger(__name__)

# Calls at once: a pool that comes back is not met by everything that ended meanwhile.
_AT_ONCE = 256
_LONGEST_PAUSE_S = 5.0


class Returns:
    """Releases leases in the background. What a crash forgets here, reconciliation finds."""

    def __init__(self, pool: Pool, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock
        self._owed: dict[str, None] = {}
        self._runner: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._owed)

    def give_back(self, attempt_id: str) -> None:
        """Repeats until acknowledged; an attempt without a lease is refused one later."""
        self._owed[attempt_id] = None
        if self._runner is None:
            self._runner = asyncio.create_task(
                self._run(), name="lease-returns", context=contextvars.Context()
            )

    async def give_back_now(self, attempt_id: str) -> None:
        """Tries once before it returns, because the slot is wanted again; later in the background."""
        try:
            await self._pool.release_lease(attempt_id)
        except ServiceError:
            self.give_back(attempt_id)

    async def close(self, patience_s: float) -> None:
        """Gives what is owed so long to be acknowledged, and stops trying."""
        runner = self._runner
        if runner is not None:
            await asyncio.wait([runner], timeout=patience_s)
            runner.cancel()
            await asyncio.gather(runner, return_exceptions=True)

    async def _run(self) -> None:
        failures = 0
        try:
            while self._owed:
                part = list(self._owed)[:_AT_ONCE]
                done = await asyncio.gather(*(self._release(attempt_id) for attempt_id in part))
                if all(done):
                    failures = 0
                    continue
                await self._clock.sleep(schedule.backoff_s(failures, random.random(), _LONGEST_PAUSE_S))  # noqa: S311 - jitter
                failures += 1
        finally:
            self._runner = None

    async def _release(self, attempt_id: str) -> bool:
        try:
            await self._pool.release_lease(attempt_id)
        except ServiceError as error:
            if error.kind in TRANSIENT:
                return False
            log.warning("lease.release_refused", extra={"attempt_id": attempt_id, "reason": error.reason})
        self._owed.pop(attempt_id, None)
        return True
