"""What a job lets go of: its lease, and at its end its references. Nobody waits for the pool to acknowledge it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from services.chassis.clock import Clock
from services.chassis.errors import ServiceError
from services.jobs import errors
from services.jobs.debts import Debts
from services.jobs.job import Job, JobState
from services.jobs.ports import Pool

_LEASES_AT_ONCE = 256
# Each is work on the pool's disk, and nobody is waiting for the room.
_REFERENCES_AT_ONCE = 32
# Few jobs fail, and one whose attempt is still being sent is asked for again until that has ended.
_ATTEMPTS_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class _References:
    """Everything staged or fetched for one job."""

    job_id: str
    # Whoever knows one may use what is staged.
    reference_ids: tuple[str, ...] = field(repr=False)


class Returns:
    """Gives back in the background, until acknowledged.

    What a crash forgets here is found: a lease and an attempt by reconciliation. References are dropped before their job's
    last commit, so that only what a pool away made owed is forgotten, and found by its daily sweep.
    """

    def __init__(self, pool: Pool, clock: Clock) -> None:
        self._pool = pool
        self._leases = Debts(pool.release_lease, clock, name="lease-returns", at_once=_LEASES_AT_ONCE)
        self._references = Debts(self._drop, clock, name="reference-drops", at_once=_REFERENCES_AT_ONCE)
        self._attempts = Debts(self._close, clock, name="attempt-closings", at_once=_ATTEMPTS_AT_ONCE)

    def __len__(self) -> int:
        return len(self._leases) + len(self._references) + len(self._attempts)

    def give_back(self, attempt_id: str) -> None:
        """Repeats until acknowledged; an attempt without a lease is refused one later."""
        self._leases.add(attempt_id)

    async def give_back_now(self, attempt_id: str) -> None:
        """Tries once before it returns, because the slot is wanted again; later in the background."""
        try:
            await self._pool.release_lease(attempt_id)
        except ServiceError:
            self.give_back(attempt_id)
        except asyncio.CancelledError:
            # The job is over it, whoever drives the job from here on.
            self.give_back(attempt_id)
            raise

    async def drop_references_now(self, job: Job) -> None:
        """Of a job that is ending, once before it returns; later in the background. Nothing is asked where there are none."""
        if not job.generation.references:
            return
        owed = _References(job.job_id, job.generation.reference_ids)
        try:
            await self._drop(owed)
        except ServiceError:
            self._references.add(owed)

    def close_attempt(self, job: Job) -> None:
        """Of a job that has not gone well, perhaps before its attempt had; one that has, has ended with its attempt."""
        if job.state in (JobState.FAILED, JobState.CANCELED) and job.attempt_number > 0:
            self._attempts.add(job.attempt_id)

    async def close(self, patience_s: float) -> None:
        """Gives what is owed so long to be acknowledged, and stops trying."""
        debts = (self._leases, self._references, self._attempts)
        await asyncio.gather(*(one.close(patience_s) for one in debts))

    async def _drop(self, owed: _References) -> None:
        await self._pool.drop_references(owed.job_id, owed.reference_ids)

    async def _close(self, attempt_id: str) -> None:
        if await self._pool.close_attempts([attempt_id]):
            raise errors.unavailable()
