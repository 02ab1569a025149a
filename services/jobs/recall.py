"""Jobs that are this worker's in the database and nowhere in its memory: a commit that went through unheard."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable

from services.chassis.clock import Clock
from services.chassis.errors import ServiceError
from services.jobs import measures
from services.jobs.dispatcher import Dispatcher
from services.jobs.intake import Intake
from services.jobs.ownership import Ownership
from services.jobs.runner import Runner
from services.jobs.schedule import Timing
from services.jobs.store import JobStore

log = logging.getLogger(__name__)

FINDING = "job_out_of_mind"
# A COMMIT whose answer was lost has been done within moments, if ever; what appears later is seen by the usual looks.
_LOOKS = 5
_HASTE_S = 0.5
# What a group commit has room for; more cannot come into doubt at once.
_DOUBTED_LIMIT = 10_000


class Recall:
    """Looks again and again, and takes up what is missing."""

    def __init__(
        self,
        store: JobStore,
        runner: Runner,
        dispatcher: Dispatcher,
        intake: Intake,
        ownership: Ownership,
        clock: Clock,
        timing: Timing,
    ) -> None:
        self._store = store
        self._runner = runner
        self._dispatcher = dispatcher
        self._intake = intake
        self._ownership = ownership
        self._clock = clock
        self._timing = timing
        self._missing: set[str] = set()
        self._looked_s = clock.monotonic_s()
        # By job: how often it is still looked for.
        self._doubted: dict[str, int] = {}
        self._wake = asyncio.Event()

    def doubt(self, job_id: str) -> None:
        """Whoever admitted this job does not know whether it is there, and will not come back for it."""
        if len(self._doubted) < _DOUBTED_LIMIT:
            self._doubted[job_id] = _LOOKS
            self._wake.set()

    async def run(self) -> None:
        """Looks for ever: every few seconds, and at once where there is a doubt."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._timing.recall_s):
                    await self._wake.wait()
                    await self._clock.sleep(_HASTE_S)
            try:
                await self.look()
            except ServiceError as error:
                log.warning("recall.interrupted", extra={"reason": error.reason})
                await self._clock.sleep(_HASTE_S)
            if not self._doubted:
                self._wake.clear()

    async def look(self) -> int:
        """One look; how many jobs were taken up."""
        await self._ownership.permission()
        owned = await self._store.owned_ids(self._ownership.worker_id)
        missing = {job_id for job_id in owned if not self._in_mind(job_id)}
        lost = missing & self._doubted.keys()
        now_s = self._clock.monotonic_s()
        usual = now_s - self._looked_s >= self._timing.recall_s
        if usual:
            # Between a commit and its place in memory lies a moment, so that only the second look counts.
            lost |= missing & self._missing
        # What cannot be taken up now is not forgotten.
        taken = await self._take_up(lost) if lost else 0
        if usual:
            self._missing = missing - lost
            self._looked_s = now_s
        self._doubted = {
            job_id: looks - 1 for job_id, looks in self._doubted.items() if looks > 1 and job_id not in lost
        }
        measures.note_findings({FINDING: taken})
        return taken

    async def _take_up(self, lost: Iterable[str]) -> int:
        jobs = (await self._store.jobs(lost)).values()
        mine = [
            job for job in jobs if job.owner == self._ownership.worker_id and not self._in_mind(job.job_id)
        ]
        log.warning("recall.found", extra={"jobs": len(mine)})
        self._runner.adopt(mine)
        return len(mine)

    def _in_mind(self, job_id: str) -> bool:
        return self._runner.knows(job_id) or self._dispatcher.knows(job_id) or job_id in self._intake.busy()
