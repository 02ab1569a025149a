"""That a job should end: stored first, whoever owns the job, and then acted on by its owner.

On the owner's own replica the wish is acted on at once; an owner elsewhere finds it within a second, and whoever claims the
job finds it in the row. What follows of it is committed under the owner's fence like everything else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from services.chassis.clock import Clock
from services.chassis.errors import ServiceError
from services.jobs import measures
from services.jobs.job import Job, JobState
from services.jobs.ownership import Ownership
from services.jobs.schedule import Timing
from services.jobs.store import JobStore, Wish

log = logging.getLogger(__name__)

# States in which a wish still changes how the job ends.
_OPEN_TO_WISHES = frozenset(JobState) - {
    JobState.SETTLING,
    JobState.COMPLETED,
    JobState.FAILED,
    JobState.CANCELED,
}


class Wishes:
    """What is wished of unfinished jobs, as far as this process has heard."""

    def __init__(self, store: JobStore, ownership: Ownership, clock: Clock, timing: Timing) -> None:
        self._store = store
        self._ownership = ownership
        self._clock = clock
        self._timing = timing
        self._end: Callable[[str], None] = lambda job_id: None
        self._ended: Callable[[], None] = lambda: None
        # By job, when it was heard of here.
        self._asked: dict[str, float] = {}
        self._hidden: dict[str, float] = {}

    def tells(self, end: Callable[[str], None], ended: Callable[[], None]) -> None:
        """What is done with a job that is to end, and what when one that had ended was deleted."""
        self._end = end
        self._ended = ended

    def asked_at_ms(self, job: Job) -> int:
        """When the job was asked to end, as far as is known here; 0 if it was not."""
        if job.cancel_asked_at_ms or job.job_id not in self._asked:
            return job.cancel_asked_at_ms
        # The row knows the exact moment; what is decided by it is only whether there was one.
        return max(1, job.updated_at_ms)

    def hides(self, job_id: str) -> bool:
        """Whether the job is deleted, although a copy in memory may not say so."""
        return job_id in self._hidden

    async def cancel(self, job_id: str, customer_id: str, mode: str) -> Job:
        """The job with the wish stored. Raises JOB_NOT_FOUND."""
        job = await self._store.wish(Wish(job_id, customer_id, mode, False, self._clock.now_ms()))
        measures.WISHES.labels("cancel").inc()
        self._act_on(job)
        return job

    async def delete(self, job_id: str, customer_id: str, mode: str) -> None:
        """The same for a job that is also to be forgotten; from here on nobody is shown it."""
        job = await self._store.wish(Wish(job_id, customer_id, mode, True, self._clock.now_ms()))
        measures.WISHES.labels("delete").inc()
        if not job.ended:
            self._hidden[job_id] = self._clock.monotonic_s()
        self._act_on(job)
        if job.ended:
            self._ended()

    async def run(self) -> None:
        """Looks for ever for what was wished elsewhere."""
        while True:
            await self._clock.sleep(self._timing.wishes_s)
            try:
                await self.look()
            except ServiceError as error:
                log.warning("wishes.interrupted", extra={"reason": error.reason})

    async def look(self) -> None:
        """One look: every unfinished job of this worker that is to end."""
        await self._ownership.permission()
        begun_s = self._clock.monotonic_s()
        asked = await self._store.asked_of(self._ownership.worker_id)
        # What was heard of since may not be among them; the rest has ended, or is another's.
        for heard in (self._asked, self._hidden):
            for job_id in [job_id for job_id, at_s in heard.items() if at_s < begun_s]:
                del heard[job_id]
        for one in asked:
            self._asked.setdefault(one.job_id, begun_s)
            if one.deleted:
                self._hidden.setdefault(one.job_id, begun_s)
            self._end(one.job_id)
        waiting, deletions = await self._store.wishes_waiting()
        measures.WISHES_WAITING.set(waiting)
        measures.DELETIONS_WAITING.set(deletions)

    def _act_on(self, job: Job) -> None:
        if job.state in _OPEN_TO_WISHES:
            self._asked[job.job_id] = self._clock.monotonic_s()
            if job.owner == self._ownership.worker_id:
                self._end(job.job_id)
