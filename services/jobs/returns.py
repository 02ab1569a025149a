"""What a job lets go of: its lease, and at its end its references. Nobody waits for the pool to acknowledge it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from services.chassis.clock import Clock
from services.chassis.errors import ServiceError
from services.jobs.debts import Debts
from services.jobs.job import Job
from services.jobs.ports import Pool

_LEASES_AT_ONCE = 256
# Each is work on the pool's disk, and nobody is waiting for the room.
_REFERENCES_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class _References:
    """Everything staged or fetched for one job."""

    job_id: str
    # Whoever knows one may use what is staged.
    reference_ids: tuple[str, ...] = field(repr=False)


class Returns:
    """Gives back in the background, until acknowledged.

    What a crash forgets here is found: a lease by reconciliation, references by the pool's daily sweep.
    """

    def __init__(self, pool: Pool, clock: Clock) -> None:
        self._pool = pool
        self._leases = Debts(pool.release_lease, clock, name="lease-returns", at_once=_LEASES_AT_ONCE)
        self._references = Debts(self._drop, clock, name="reference-drops", at_once=_REFERENCES_AT_ONCE)

    def __len__(self) -> int:
        return len(self._leases) + len(self._references)

    def give_back(self, attempt_id: str) -> None:
        """Repeats until acknowledged; an attempt without a lease is refused one later."""
        self._leases.add(attempt_id)

    async def give_back_now(self, attempt_id: str) -> None:
        """Tries once before it returns, because the slot is wanted again; later in the background."""
        try:
            await self._pool.release_lease(attempt_id)
        except ServiceError:
            self.give_back(attempt_id)

    def drop_references(self, job: Job) -> None:
        """Of a job that has ended; nothing is asked for a job without references."""
        if job.generation.references:
            self._references.add(_References(job.job_id, job.generation.reference_ids))

    async def close(self, patience_s: float) -> None:
        """Gives what is owed so long to be acknowledged, and stops trying."""
        await asyncio.gather(self._leases.close(patience_s), self._references.close(patience_s))

    async def _drop(self, owed: _References) -> None:
        await self._pool.drop_references(owed.job_id, owed.reference_ids)
