"""Listens for what providers said to the pool by themselves, and has the jobs asked about that it concerns.

A hint may be lost at any time: whoever hears none asks in its own rhythm.
"""

from __future__ import annotations

import logging
from typing import Final

from services.chassis.clock import Clock
from services.chassis.errors import Kind, ServiceError
from services.jobs import measures
from services.jobs.ports import Pool
from services.jobs.runner import Runner

log = logging.getLogger(__name__)

# A stream that ended is opened again after so long; hints that come meanwhile are lost.
_PAUSE_S: Final = 1.0
# An older pool has none to tell, and will not learn it while it runs.
_LONG_PAUSE_S: Final = 60.0


class Hints:
    """One stream from the pool, for all jobs of this worker."""

    def __init__(self, pool: Pool, runner: Runner, clock: Clock) -> None:
        self._pool = pool
        self._runner = runner
        self._clock = clock

    async def watch(self) -> None:
        """Listens for ever."""
        while True:
            pause_s = _PAUSE_S
            try:
                async for attempt_ids in self._pool.watch_hints():
                    for attempt_id in attempt_ids:
                        heeded = self._runner.hinted(attempt_id)
                        measures.HINTS.labels("heeded" if heeded else "not_waiting").inc()
            except ServiceError as error:
                log.info("hints.stream_lost", extra={"reason": error.reason})
                if error.kind is Kind.UNIMPLEMENTED:
                    pause_s = _LONG_PAUSE_S
            await self._clock.sleep(pause_s)
