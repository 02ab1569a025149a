"""A process of the jobs service, reduced to what owns jobs: the real ownership, commits and store, and a memory.

What it does to a job is split in two, so that anything may happen in between: a step begins (an effect leaves the
house), and later it ends (its outcome is committed under the fence that the step began with).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from services.chassis.errors import ServiceError
from services.jobs.changes import Changes
from services.jobs.commits import Commits
from services.jobs.errors import LeaseLostError
from services.jobs.job import Job
from services.jobs.ownership import Ownership
from services.jobs.schedule import Timing
from services.jobs.store import JobStore
from tests.models.ground import Cut, CutDatabase, HandClock
from tests.models.roads import Step

TIMING = Timing()
TTL_MS = int(TIMING.worker_ttl_s * 1000)
# The specification's number, not the code's: nothing new begins beyond this part of the time to live.
FENCE_MS = TTL_MS * 7 // 10


@dataclass(frozen=True)
class Parts:
    """What workers are built of; a test that plants a bug replaces one."""

    store: type[JobStore] = JobStore
    ownership: type[Ownership] = Ownership


@dataclass
class Worker:
    """`idle` and `steps` are its memory; the other fields are what the model knows of it."""

    parts: Parts
    database: CutDatabase
    clock: HandClock
    idle: dict[str, Job] = field(default_factory=dict)
    steps: dict[str, Step] = field(default_factory=dict)
    # Steps that it has given up; what they had sent may be on its way still.
    left: list[Step] = field(default_factory=list)
    frozen: bool = False
    suspended: bool = False
    # By its own steady clock, when the last heartbeat that was answered well had been sent.
    beaten_ms: float = float("-inf")

    def __post_init__(self) -> None:
        self.store = self.parts.store(self.database)
        self.ownership = self.parts.ownership(self.store, self.clock, TIMING, "here")
        self.ownership.tells(self._adopt, self.drop_all)
        self._commits = Commits(self.store, Changes(), self.clock)

    def _adopt(self, jobs: list[Job]) -> None:
        # Claimed anew: what is in memory under an older epoch belongs to a life that is over.
        for job in jobs:
            if job.job_id in self.steps:
                self.left.append(self.steps.pop(job.job_id))
            self.idle[job.job_id] = job

    def drop_all(self) -> None:
        """Forgets every job; steps under way go on somewhere, but nobody here waits for them."""
        self.idle.clear()
        self.left += self.steps.values()
        self.steps.clear()

    @property
    def name(self) -> str:
        return self.ownership.worker_id

    def knows(self, job_id: str) -> bool:
        return job_id in self.idle or job_id in self.steps

    def young(self) -> bool:
        """Whether its last good heartbeat is young enough to begin something."""
        return self.clock.steady_ms - self.beaten_ms < FENCE_MS

    async def permitted(self) -> bool:
        """Whether it is let to begin a step at once."""
        asked = asyncio.ensure_future(self.ownership.permission())
        await asyncio.sleep(0)
        if asked.done():
            return True
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        return False

    async def started(self, cuts: list[Cut]) -> bool:
        """Begins its life; False where the database cut it short."""
        self.database.cuts = cuts
        try:
            await self.ownership.begin()
        except ServiceError:
            return False
        finally:
            self.database.cuts = []
        return True

    async def accepted(self, job: Job, cuts: list[Cut]) -> bool:
        """Admits a job of its own; False where it was declared dead."""
        self.database.cuts = cuts
        try:
            found = (await self.store.admit(job, 1000)).job
        except ServiceError as refusal:
            if refusal.reason != "UNAVAILABLE":
                raise
            return False
        finally:
            self.database.cuts = []
        self.idle[job.job_id] = found
        return found == job

    async def beat_turn(self, cuts: list[Cut]) -> None:
        self.database.cuts = cuts
        await self.clock.one_turn(self.ownership.beat_forever)
        self.database.cuts = []

    async def claim_turn(self, cuts: list[Cut]) -> None:
        self.database.cuts = cuts
        await self.clock.one_turn(self.ownership.claim_forever)
        self.database.cuts = []

    async def end_step(self, job_id: str, cuts: list[Cut]) -> bool:
        """Commits the step's outcome; False where the job is not this worker's any more."""
        step = self.steps.pop(job_id)
        self.database.cuts = cuts
        try:
            if step.after is None:
                await self._commits.remove(step.before)
                return True
            after = await self._commits.commit(step.before, step.after)
        except LeaseLostError:
            return False
        finally:
            self.database.cuts = []
        if after.owner is not None:
            self.idle[job_id] = after
        return True
