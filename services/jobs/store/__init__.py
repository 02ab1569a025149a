"""The jobs' own database. Whatever a caller asks at the same time shares one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from functools import partial

from services.chassis import crash_points
from services.chassis.database import Database
from services.chassis.database_time import database_now_ms
from services.chassis.group_commit import GroupCommit
from services.jobs.job import Job
from services.jobs.store import admissions, charges, listing, owners, reads, transitions, wishes
from services.jobs.store.admissions import Admission, Admitted
from services.jobs.store.gathered import GatheredReads
from services.jobs.store.listing import JobFilter
from services.jobs.store.load import Customer, Load, mend_loads, read_loads
from services.jobs.store.reads import Event, PublicNumber, Standing
from services.jobs.store.transitions import Transition
from services.jobs.store.usage import read_usage
from services.jobs.store.wishes import Asked, Deleted, Wish
from services.jobs.usage import Counts, Span, UsageKey
from services.jobs.webhooks.outbox import Outbox

__all__ = [
    "Admitted",
    "Asked",
    "Customer",
    "Deleted",
    "Event",
    "JobFilter",
    "JobStore",
    "Load",
    "PublicNumber",
    "Standing",
    "Wish",
]


class JobStore:
    """The store as the engine sees it; see the modules beside this one for what each call promises."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.outbox = Outbox()
        self._admissions: GroupCommit[Admission, Admitted] = GroupCommit(
            database,
            admissions.apply_admissions,
            name="admissions",
            lane=lambda item: item.job.customer_id,
            kind=lambda _: "admitting",
        )
        self._transitions: GroupCommit[Transition, Job | None] = GroupCommit(
            database,
            partial(transitions.apply_transitions, outbox=self.outbox),
            name="transitions",
            capacity=100_000,
            kind=transitions.kind_of,
        )
        self._wishes: GroupCommit[Wish, Job] = GroupCommit(
            database, wishes.apply_wishes, name="wishes", kind=wishes.kind_of
        )
        self._jobs = GatheredReads(database, reads.load_jobs, name="job-reads")
        self._numbered = GatheredReads(database, reads.load_numbered, name="number-reads")
        self._loads = GatheredReads(database, read_loads, name="load-reads")

    @property
    def sole_owner(self) -> bool:
        """Whether no other process can have this database open."""
        return self._database.sole_owner

    async def close(self) -> None:
        """Finishes what was accepted; the database itself stays open."""
        await self._admissions.close()
        await self._wishes.close()
        await self._transitions.close()

    async def admit(self, job: Job, queued_limit: int, *, numbered: bool = False) -> Admitted:
        """The job of this admission key: `job` itself, `numbered` with a number, or one that was there before it."""
        return await self._admissions.submit(Admission(job, queued_limit, numbered))

    async def commit(self, before: Job, after: Job) -> Job:
        """Raises LeaseLostError where this worker is not the job's owner any more."""
        await self._transitions.submit(Transition(before, after))
        if after.ended:
            self.outbox.committed(after)
        return after

    async def remove(self, job: Job) -> None:
        """Takes back an admission. Raises LeaseLostError as `commit` does."""
        await self._transitions.submit(Transition(job, None))

    async def job(self, job_id: str) -> Job | None:
        """One job; simultaneous askers share a statement."""
        return await self._jobs.get(job_id)

    async def numbered(self, name: PublicNumber) -> Job | None:
        """The job with this public number; simultaneous askers share a statement."""
        return await self._numbered.get(name)

    async def wish(self, wish: Wish) -> Job:
        """Stores what is wished of a job, and answers the job as it is now. Raises JOB_NOT_FOUND."""
        return await self._wishes.submit(wish)

    async def asked_of(self, worker_id: str) -> list[Asked]:
        return await self._database.read(lambda connection: wishes.asked_of(connection, worker_id))

    async def wishes_waiting(self) -> tuple[int, int]:
        return await self._database.read(wishes.count_waiting)

    async def to_scrub(self, limit: int) -> list[Deleted]:
        return await self._database.read(lambda connection: wishes.to_scrub(connection, limit))

    async def scrub(self, job_ids: Iterable[str], now_ms: int) -> None:
        wanted = list(job_ids)
        await crash_points.committed(
            self._database.write, "scrub", lambda connection: wishes.scrub(connection, wanted, now_ms)
        )

    async def jobs(self, job_ids: Iterable[str]) -> dict[str, Job]:
        wanted = list(job_ids)
        return await self._database.read(lambda connection: reads.load_jobs(connection, wanted))

    async def list_jobs(self, wanted: JobFilter) -> list[Job]:
        return await self._database.read(lambda connection: listing.list_jobs(connection, wanted))

    async def count_jobs(self, wanted: JobFilter) -> int:
        return await self._database.read(lambda connection: listing.count_jobs(connection, wanted))

    async def usage(self, customer: Customer, span: Span) -> dict[UsageKey, Counts]:
        return await self._database.read(
            lambda connection: read_usage(connection, customer, span), snapshot=True
        )

    async def list_events(self, job_id: str) -> list[Event]:
        return await self._database.read(lambda connection: reads.list_events(connection, job_id))

    async def load(self, customer: Customer) -> Load:
        """The counters of one customer; simultaneous askers share a statement."""
        return await self._loads.get(customer) or Load()

    async def loads(self, customers: Iterable[Customer]) -> dict[Customer, Load]:
        wanted = list(customers)
        return await self._database.read(lambda connection: read_loads(connection, wanted))

    async def standings(self, job_ids: Iterable[str]) -> dict[str, Standing]:
        wanted = list(job_ids)
        return await self._database.read(lambda connection: reads.load_standings(connection, wanted))

    async def charged(self, after: Customer, limit: int) -> list[tuple[Customer, int]]:
        return await self._database.read(lambda connection: charges.charged(connection, after, limit))

    async def charged_at_most(self, customers: Collection[Customer]) -> dict[Customer, int]:
        return await self._database.read(
            lambda connection: charges.charged_at_most(connection, customers), snapshot=True
        )

    async def owned_ids(self, worker_id: str) -> list[str]:
        return await self._database.read(lambda connection: reads.owned_ids(connection, worker_id))

    async def mend_loads(self, customers: Iterable[Customer]) -> None:
        wanted = list(customers)
        await self._database.write(lambda connection: mend_loads(connection, wanted))

    async def load_drift(self) -> dict[Customer, tuple[Load, Load]]:
        """Customers whose counters differ from their jobs; empty unless there is a bug."""
        return await self._database.read(reads.load_drift, snapshot=True)

    async def register(self, worker_id: str, address: str) -> None:
        await self._database.write(
            lambda connection: owners.register(connection, worker_id, address, database_now_ms())
        )

    async def beat(self, worker_id: str) -> bool:
        return await self._database.write(
            lambda connection: owners.beat(connection, worker_id, database_now_ms())
        )

    async def reap(self, ttl_ms: int) -> list[str]:
        return await crash_points.committed(
            self._database.write,
            "reap",
            lambda connection: owners.reap(connection, ttl_ms, database_now_ms()),
        )

    async def take_over(self, worker_id: str) -> list[str]:
        return await crash_points.committed(
            self._database.write, "take_over", lambda connection: owners.take_over(connection, worker_id)
        )

    async def free_orphans(self) -> int:
        return await self._database.write(owners.free_orphans)

    async def claim(self, worker_id: str, limit: int, now_ms: int) -> list[Job]:
        return await crash_points.committed(
            self._database.write,
            "claim",
            lambda connection: owners.claim(connection, worker_id, limit, now_ms),
        )

    async def hand_over(self, worker_id: str) -> int:
        return await crash_points.committed(
            self._database.write, "hand_over", lambda connection: owners.hand_over(connection, worker_id)
        )

    async def check(self) -> None:
        """Raises where the database cannot be read."""
        async with asyncio.timeout(2):
            await self._database.read(lambda connection: reads.load_jobs(connection, ["none"]))
