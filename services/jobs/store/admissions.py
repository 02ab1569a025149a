"""The first write of a job's life: one row, unique by customer, mode and idempotency key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, select

from services.chassis.prepared_statements import prepared
from services.chassis.set_statements import insert_rows, locked, member_of_named
from services.jobs import errors
from services.jobs.job import Job
from services.jobs.schema import JOBS, WORKERS
from services.jobs.store.load import Load, LoadChanges, customer_of, lock_loads
from services.jobs.store.rows import COLUMNS, all_columns, job_of

# Locked: whoever reaps a worker waits, and then sees the rows inserted here.
_LIVING = prepared(
    locked(
        select(WORKERS.c.worker_id).where(member_of_named(WORKERS.c.worker_id, "worker_ids")),
        WORKERS.c.worker_id,
    )
)
_BY_KEY = prepared(select(*COLUMNS).where(member_of_named(JOBS.c.admission_key, "keys")))


class Admission(NamedTuple):
    """A job to be inserted as `admitting`, owned by the worker that admits it."""

    job: Job
    queued_limit: int


class Admitted(NamedTuple):
    """The job of an admission key, and how many jobs its customer had running in that moment."""

    job: Job
    running: int


def apply_admissions(connection: Connection, items: Sequence[Admission]) -> list[Admitted | Exception]:
    """For each item the job of its key: its own if it was inserted, else the one that is there.

    Refusals: QUEUE_FULL, CONCURRENCY_LIMITED, and UNAVAILABLE for a worker that was declared dead. Repeating the
    same admission answers the same row.
    """
    alive = _living_workers(connection, {item.job.owner or "" for item in items})
    loads = lock_loads(connection, {customer_of(item.job) for item in items})
    # After the lock: what another replica inserted while this one waited is seen.
    known = _by_admission_key(connection, {item.job.admission_key for item in items})
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
        load.waiting += 1
        changes.admitted(job)
        known[job.admission_key] = job
        new.append(job)
        results.append(Admitted(job, load.running))
    insert_rows(connection, JOBS, [all_columns(job) for job in new])
    changes.write(connection)
    return results


def _refusal(item: Admission, load: Load, alive: bool) -> Exception | None:
    if not alive:
        return errors.unavailable()
    if load.running >= item.job.running_limit:
        return errors.concurrency_limited(item.job.running_limit, load.running)
    if load.waiting >= item.queued_limit:
        return errors.queue_full(item.queued_limit, load.waiting)
    return None


def _living_workers(connection: Connection, worker_ids: set[str]) -> set[str]:
    return {row[0] for row in _LIVING.rows(connection, worker_ids=sorted(worker_ids))}


def _by_admission_key(connection: Connection, keys: set[str]) -> dict[str, Job]:
    rows = _BY_KEY.rows(connection, keys=sorted(keys))
    return {job.admission_key: job for job in map(job_of, rows)}
