"""Forgets deleted jobs once they have ended: their media first, then what the row says of them.

The row itself stays: what was charged for it must go on agreeing with billing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from services.chassis.clock import Clock
from services.chassis.errors import ServiceError
from services.jobs.ownership import Ownership
from services.jobs.ports import Pool
from services.jobs.schedule import Timing
from services.jobs.store import JobStore

log = logging.getLogger(__name__)

# Jobs at once: several outputs each stay within the thousand that the pool takes.
_PAGE = 100
_KEYS_AT_ONCE = 1_000


class Deletions:
    """Looks every few seconds, and at once when told. Several replicas may do the same work: repeating it is harmless."""

    def __init__(
        self, store: JobStore, pool: Pool, ownership: Ownership, clock: Clock, timing: Timing
    ) -> None:
        self._store = store
        self._pool = pool
        self._ownership = ownership
        self._clock = clock
        self._timing = timing
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Somebody deleted a job that had ended."""
        self._wake.set()

    async def run(self) -> None:
        """Forgets for ever."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._timing.deletions_s):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self.look()
            except ServiceError as error:
                log.warning("deletions.interrupted", extra={"reason": error.reason})
                await self._clock.sleep(self._timing.deletions_s)

    async def look(self) -> int:
        """One look; how many jobs were forgotten."""
        forgotten = 0
        await self._ownership.permission()
        while page := await self._store.to_scrub(_PAGE):
            keys = [key for job in page for key in job.object_keys]
            for start in range(0, len(keys), _KEYS_AT_ONCE):
                await self._pool.delete_media(keys[start : start + _KEYS_AT_ONCE])
            await self._store.scrub([job.job_id for job in page], self._clock.now_ms())
            forgotten += len(page)
        if forgotten:
            log.info("deletions.done", extra={"jobs": forgotten})
        return forgotten
