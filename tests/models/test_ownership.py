"""Who owns which job, under everything that can happen to a worker: a model over the real rules and the real store.

A planted bug must be found: each test in the second half takes one promise away.
"""

from __future__ import annotations

from functools import partial

import pytest
from msgspec.structs import replace
from sqlalchemy import update

from services.chassis import group_commit
from services.jobs import store as jobs_store
from services.jobs.job import Job
from services.jobs.ownership import Ownership
from services.jobs.schema import JOBS
from services.jobs.settings import MIGRATIONS
from services.jobs.store import JobStore
from tests.models.ground import Ground, bounded, explore, searching
from tests.models.ownership_machine import OwnershipMachine
from tests.models.worker import Parts

pytestmark = pytest.mark.timeout(1800)
# Of the profile's examples: this file takes under 25 seconds.
SHARE = 0.3


def prepared(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database's clock is the model's, and a transaction that is run again is so at once."""
    ground.prepare(MIGRATIONS)
    monkeypatch.setattr(jobs_store, "database_now_ms", lambda: ground.database_ms)
    monkeypatch.setattr(group_commit, "FIRST_PAUSE_S", 0.0)


def test_one_epoch_writes_whatever_happens_to_its_workers(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(ground, monkeypatch)
    explore(partial(OwnershipMachine, ground, Parts()), bounded(SHARE))


class WithoutFence(JobStore):
    async def commit(self, before: Job, after: Job) -> Job:
        now = await self.job(before.job_id)
        if now is None:
            return await super().commit(before, after)
        return await super().commit(now, replace(after, epoch=now.epoch, version=now.version + 1))


class RaisingTheDead(JobStore):
    async def beat(self, worker_id: str) -> bool:
        if not await super().beat(worker_id):
            await self.register(worker_id, "here")
        return True


class LosingTheFreed(JobStore):
    async def reap(self, ttl_ms: int) -> list[str]:
        dead = await super().reap(ttl_ms)
        freed = update(JOBS).where(JOBS.c.owner.is_(None), JOBS.c.ended_at_ms == 0)
        await self._database.write(
            lambda connection: connection.execute(freed.values(run_at_ms=2**50)).rowcount
        )
        return dead


class KeepingTheEpoch(JobStore):
    async def claim(self, worker_id: str, limit: int, now_ms: int) -> list[Job]:
        jobs = await super().claim(worker_id, limit, now_ms)
        mine = (
            update(JOBS).where(JOBS.c.job_id.in_([job.job_id for job in jobs])).values(epoch=JOBS.c.epoch - 1)
        )
        await self._database.write(lambda connection: connection.execute(mine).rowcount)
        return [replace(job, epoch=job.epoch - 1) for job in jobs]


class WithoutSelfFence(Ownership):
    def may_act(self) -> bool:
        return True


@pytest.mark.parametrize(
    "parts",
    [
        Parts(store=WithoutFence),
        Parts(store=RaisingTheDead),
        Parts(store=LosingTheFreed),
        Parts(store=KeepingTheEpoch),
        Parts(ownership=WithoutSelfFence),
    ],
    ids=["no fence", "raised from the dead", "out of reach", "same epoch", "no self-fence"],
)
def test_a_broken_promise_is_found(
    sqlite_ground: Ground, monkeypatch: pytest.MonkeyPatch, parts: Parts
) -> None:
    prepared(sqlite_ground, monkeypatch)
    with pytest.raises(AssertionError):
        explore(partial(OwnershipMachine, sqlite_ground, parts), searching(100))
