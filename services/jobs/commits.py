"""The one place where a job changes: committed under its fence, then told to whoever watches."""

from __future__ import annotations

import random

from services.chassis.clock import Clock
from services.chassis.errors import Kind, ServiceError
from services.jobs import job as rules
from services.jobs import measures, schedule
from services.jobs.changes import Changes
from services.jobs.job import Job
from services.jobs.store import JobStore

# What the database says when it is away or busy; the same commit may succeed later, and repeating it is harmless.
_AGAIN = frozenset({Kind.UNAVAILABLE, Kind.ABORTED, Kind.RESOURCE_EXHAUSTED})
_LONGEST_PAUSE_S = 2.0


class Commits:
    """Commits that wait for a database that is away, for as long as their caller is not cancelled."""

    def __init__(self, store: JobStore, changes: Changes, clock: Clock) -> None:
        self._store = store
        self._changes = changes
        self._clock = clock

    async def commit(self, before: Job, after: Job) -> Job:
        """`after`, once it is durable. Raises LeaseLostError where somebody else owns the job."""
        if after.ended:
            after = _let_go(after)
        await self._write(before, after)
        if after.ended:
            _measure_end(after)
        self._changes.publish(after.job_id)
        return after

    async def remove(self, job: Job) -> None:
        """Takes an admission back. Raises LeaseLostError as `commit` does."""
        await self._write(job, None)

    async def _write(self, before: Job, after: Job | None) -> None:
        failures = 0
        while True:
            try:
                if after is None:
                    await self._store.remove(before)
                else:
                    await self._store.commit(before, after)
                return
            except ServiceError as error:
                if error.kind not in _AGAIN or error.reason == "SHUTTING_DOWN":
                    raise
            await self._clock.sleep(schedule.backoff_s(failures, random.random(), _LONGEST_PAUSE_S))  # noqa: S311 - jitter
            failures += 1


def _let_go(job: Job) -> Job:
    return job if job.owner is None else rules.released(job)


def _measure_end(job: Job) -> None:
    kind = job.generation.kind.name.lower()
    failure = job.failure.name.lower() if job.state is rules.JobState.FAILED else ""
    measures.FINISHED.labels(kind, job.state.value, failure).inc()
    measures.DURATION_SECONDS.labels(kind).observe(max(0, job.ended_at_ms - job.created_at_ms) / 1000)
