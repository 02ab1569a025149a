"""The first write of a job's life: one row, unique by customer, mode and idempotency key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select

from services.chassis.set_statements import insert_rows, locked, member_of
from services.jobs import errors
from services.jobs.job import Job
from services.jobs.schema import JOBS, WORKERS
from services.jobs.store.load import Load, LoadChanges, customer_of, lock_loads
from services.jobs.store.rows import COLUMNS, all_columns, job_of


@dataclass(frozen=True, slots=True)
class Admission:
    """A job to be inserted as `admitting`, owned by the worker that admits it."""

    job: Job
    queued_limit: int


def apply_admissions(connection: Connection, items: Sequence[Admission]) -> list[Job | Exception]:
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
    results: list[Job | Exception] = []
    for item in items:
        job = item.job
        if job.admission_key in known:
            results.append(known[job.admission_key])
            continue
        refusal = _refusal(item, loads[customer_of(job)], job.owner in alive)
        if refusal is not None:
            results.append(refusal)
            continue
        loads[customer_of(job)].waiting += 1
        changes.admitted(job)
        known[job.admission_key] = job
        new.append(job)
        results.append(job)
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
    # Locked: whoever reaps this worker waits, and then sees the rows inserted here.
    query = select(WORKERS.c.worker_id).where(member_of(WORKERS.c.worker_id, sorted(worker_ids)))
    return set(connection.scalars(locked(query, WORKERS.c.worker_id)))


def _by_admission_key(connection: Connection, keys: set[str]) -> dict[str, Job]:
    query = select(*COLUMNS).where(member_of(JOBS.c.admission_key, sorted(keys)))
    return {job.admission_key: job for job in map(job_of, connection.execute(query))}
