"""The first write of a job's life: one row, unique by customer, mode and idempotency key."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final, NamedTuple

from msgspec.structs import replace
from sqlalchemy import Connection, literal_column, select

from services.chassis.prepared_statements import prepared
from services.chassis.set_statements import locked, member_of_named
from services.chassis.write_together import Insertion, write_together
from services.jobs import errors
from services.jobs.job import Job
from services.jobs.schema import JOBS, WORKERS
from services.jobs.store.load import Load, LoadChanges, customer_of, lock_loads_and
from services.jobs.store.rows import COLUMNS, all_rows, job_of

# Locked: whoever reaps a worker waits, and then sees the rows inserted here.
_LIVING = prepared(
    locked(
        select(WORKERS.c.worker_id).where(member_of_named(WORKERS.c.worker_id, "worker_ids")),
        WORKERS.c.worker_id,
    )
)
_TAKEN = prepared(
    select(JOBS.c.public_number).where(
        member_of_named(JOBS.c.public_number, "numbers"), JOBS.c.public_number > literal_column("0")
    )
)
# Every number below it is exact wherever a number is a 64-bit float.
_NUMBER_LIMIT: Final = 2**53
_BY_KEY = prepared(select(*COLUMNS).where(member_of_named(JOBS.c.admission_key, "keys")))


class Admission(NamedTuple):
    """A job to be inserted as `admitting`, owned by the worker that admits it."""

    job: Job
    queued_limit: int
    # Give it a public number.
    numbered: bool = False


class Admitted(NamedTuple):
    """The job of an admission key, and how many jobs its customer had running in that moment."""

    job: Job
    running: int


def apply_admissions(connection: Connection, items: Sequence[Admission]) -> list[Admitted | Exception]:
    """For each item the job of its key: its own if it was inserted, else the one that is there.

    Refusals: QUEUE_FULL, CONCURRENCY_LIMITED, and UNAVAILABLE for a worker that was declared dead. Repeating the
    same admission answers the same row.
    """
    workers = sorted({item.job.owner or "" for item in items})
    customers = {customer_of(item.job) for item in items}
    loads, living = lock_loads_and(connection, customers, _LIVING, worker_ids=workers)
    alive = {row[0] for row in living}
    # After the lock: what another replica inserted while this one waited is seen.
    known = _by_admission_key(connection, {item.job.admission_key for item in items})
    numbers = _free_numbers(connection, sum(item.numbered for item in items))
    changes = LoadChanges()
    new: list[Job] = []
    results: list[Admitted | Exception] = []
    for item in items:
        job = item.job
        load = loads[customer_of(job)]
        if job.admission_key in known:
            results.append(Admitted(known[job.admission_key], load.running))
            continue
        refusal = _refusal(item, load, job.owner in alive)
        if refusal is not None:
            results.append(refusal)
            continue
        if item.numbered:
            job = replace(job, public_number=numbers.pop())
        load.waiting += 1
        changes.admitted(job)
        known[job.admission_key] = job
        new.append(job)
        results.append(Admitted(job, load.running))
    write_together(connection, (Insertion(JOBS, *all_rows(new)), changes.step()))
    return results


def _refusal(item: Admission, load: Load, alive: bool) -> Exception | None:
    if not alive:
        return errors.unavailable()
    if load.running >= item.job.running_limit:
        return errors.concurrency_limited(item.job.running_limit, load.running)
    if load.waiting >= item.queued_limit:
        return errors.queue_full(item.queued_limit, load.waiting)
    return None


def draw_number() -> int:
    """A public number: it tells nobody how many jobs there are, nor which one came before it."""
    return 1 + secrets.randbelow(_NUMBER_LIMIT - 1)


def _free_numbers(connection: Connection, count: int) -> set[int]:
    # Two replicas that draw the same are told apart by the index: the one that commits later is run again.
    free: set[int] = set()
    while len(free) < count:
        free |= {draw_number() for _ in range(count - len(free))}
        free -= {row[0] for row in _TAKEN.rows(connection, numbers=sorted(free))}
    return free


def _by_admission_key(connection: Connection, keys: set[str]) -> dict[str, Job]:
    rows = _BY_KEY.rows(connection, keys=sorted(keys))
    return {job.admission_key: job for job in map(job_of, rows)}
