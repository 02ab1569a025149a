"""Who owns which job: heartbeats, claims, and what becomes of the jobs of the dead.

Every statement that makes a worker the owner of something locks the worker's own row first; whoever declares that
worker dead deletes the row first. So no job can be given to a worker whose jobs were just freed.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, case, delete, insert, select, update

from services.chassis.set_statements import locked, member_of
from services.jobs.job import Job, JobState
from services.jobs.schema import JOBS, WORKERS
from services.jobs.store.rows import COLUMNS, job_of
from services.jobs.webhooks.outbox import free_deliveries

Instant = ColumnElement[int] | int


def register(connection: Connection, worker_id: str, address: str, at_ms: Instant) -> None:
    """A new worker, alive as of `at_ms`."""
    connection.execute(
        insert(WORKERS).values(worker_id=worker_id, address=address, seen_at_ms=at_ms, draining=False)
    )


def beat(connection: Connection, worker_id: str, at_ms: Instant) -> bool:
    """False when the worker was declared dead: it must drop everything and come back under another id."""
    # Never an upsert: that would raise a worker from the dead whose jobs others own.
    beaten = connection.execute(
        update(WORKERS).where(WORKERS.c.worker_id == worker_id).values(seen_at_ms=at_ms)
    )
    return beaten.rowcount == 1


def reap(connection: Connection, ttl_ms: int, at_ms: Instant) -> list[str]:
    """Declares dead who has not been seen for `ttl_ms`, and frees their jobs. Returns who that was."""
    silent = locked(
        select(WORKERS.c.worker_id).where(WORKERS.c.seen_at_ms < at_ms - ttl_ms),
        WORKERS.c.worker_id,
        skip_locked=True,
    )
    return _bury(connection, list(connection.scalars(silent)))


def take_over(connection: Connection, worker_id: str) -> list[str]:
    """Declares every other worker dead: only for whoever owns the database alone."""
    others = select(WORKERS.c.worker_id).where(WORKERS.c.worker_id != worker_id)
    return _bury(connection, list(connection.scalars(others)))


def _bury(connection: Connection, dead: list[str]) -> list[str]:
    if dead:
        connection.execute(delete(WORKERS).where(member_of(WORKERS.c.worker_id, dead)))
        owned = locked(select(JOBS.c.job_id).where(member_of(JOBS.c.owner, dead)), JOBS.c.job_id)
        job_ids = list(connection.scalars(owned))
        # run_at_ms stays: it is in the past, or the time before which a retry must not begin.
        connection.execute(update(JOBS).where(member_of(JOBS.c.job_id, job_ids)).values(owner=None))
        free_deliveries(connection, dead)
    return dead


def free_orphans(connection: Connection) -> int:
    """Frees jobs whose owner has no row; how many, which is 0 unless there is a bug."""
    nobody = JOBS.c.owner.is_not(None) & JOBS.c.owner.not_in(select(WORKERS.c.worker_id))
    return connection.execute(update(JOBS).where(nobody).values(owner=None)).rowcount


def claim(connection: Connection, worker_id: str, limit: int, now_ms: int) -> list[Job]:
    """Up to `limit` jobs that nobody owns, now owned by this worker under a new epoch, the longest due first.

    What was asked to end is due at once, however long it was to wait.
    """
    me = locked(select(WORKERS.c.worker_id).where(WORKERS.c.worker_id == worker_id), WORKERS.c.worker_id)
    if connection.scalar(me) is None:
        return []
    due = (JOBS.c.run_at_ms <= now_ms) | (JOBS.c.cancel_asked_at_ms > 0)
    free = select(JOBS.c.job_id).where(JOBS.c.owner.is_(None), JOBS.c.ended_at_ms == 0, due)
    job_ids = list(connection.scalars(locked(free, JOBS.c.run_at_ms, skip_locked=True).limit(limit)))
    if not job_ids:
        return []
    idle = case((JOBS.c.state == JobState.QUEUED.value, 0), else_=JOBS.c.idle_claims + 1)
    connection.execute(
        update(JOBS)
        .where(member_of(JOBS.c.job_id, job_ids))
        .values(owner=worker_id, epoch=JOBS.c.epoch + 1, idle_claims=idle)
    )
    query = (
        select(*COLUMNS)
        .where(member_of(JOBS.c.job_id, job_ids))
        .order_by(JOBS.c.created_at_ms, JOBS.c.job_id)
    )
    return [job_of(row) for row in connection.execute(query)]


def hand_over(connection: Connection, worker_id: str) -> int:
    """Frees all jobs of a worker that leaves, and strikes it off. Returns how many jobs."""
    connection.execute(delete(WORKERS).where(WORKERS.c.worker_id == worker_id))
    # Leaving in order is not the silence that a poisonous job leaves behind.
    freed = update(JOBS).where(JOBS.c.owner == worker_id).values(owner=None, idle_claims=0)
    count = connection.execute(freed).rowcount
    # After the jobs: whose end is written at this moment has made deliveries by then.
    free_deliveries(connection, [worker_id])
    return count
