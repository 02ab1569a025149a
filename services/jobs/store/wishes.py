"""What customers wish of jobs that somebody else may own: written beside the owner, without its fence.

A wish is three columns that no transition writes; the row's lock alone puts it before or after one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec
from msgspec.structs import replace
from sqlalchemy import BigInteger, Connection, func, literal_column, select

from services.chassis.prepared_statements import prepared
from services.chassis.set_statements import locked, member_of_named, update_rows
from services.jobs import errors
from services.jobs.job import Job, JobState
from services.jobs.schema import JOBS
from services.jobs.store.rows import COLUMNS, job_of
from services.jobs.webhooks.deliveries import forget_of_jobs

_LOCKED = prepared(locked(select(*COLUMNS).where(member_of_named(JOBS.c.job_id, "job_ids")), JOBS.c.job_id))
# Written out, so that every plan may use the indexes of wishes.
_ZERO: Final = literal_column("0", BigInteger)
_WISHED = (JOBS.c.cancel_asked_at_ms > _ZERO) & (JOBS.c.ended_at_ms == _ZERO)
_TO_SCRUB = (JOBS.c.deleted_at_ms > _ZERO) & (JOBS.c.scrubbed_at_ms == _ZERO)


class Wish(NamedTuple):
    """`customer_id` is empty for an operator's, which is about anybody's job in either mode."""

    job_id: str
    customer_id: str
    mode: str
    delete: bool
    at_ms: int


class Asked(NamedTuple):
    """A job that is to end."""

    job_id: str
    deleted: bool


class Deleted(NamedTuple):
    """A deleted job that has ended, and what of it lies in the media store."""

    job_id: str
    object_keys: tuple[str, ...]


def kind_of(item: Wish) -> str:
    return "delete_asked" if item.delete else "cancel_asked"


def apply_wishes(connection: Connection, items: Sequence[Wish]) -> list[Job | Exception]:
    """For each item the job with its wish, or JOB_NOT_FOUND. A wish is stored once; repeating it changes nothing.

    A job whose end is decided, or that has ended, is not asked to end any more. One that is deleted before it has ended is
    marked all the same: by that its owner finds it, and hides what it has in memory.
    """
    rows = _LOCKED.rows(connection, job_ids=sorted({item.job_id for item in items}))
    jobs = {job.job_id: job for job in map(job_of, rows)}
    changed: dict[str, Job] = {}
    results: list[Job | Exception] = []
    for item in items:
        job = jobs.get(item.job_id)
        if job is None or not _may_be_asked(job, item):
            results.append(errors.job_not_found())
            continue
        after = _with_wish(job, item)
        if after != job:
            jobs[job.job_id] = changed[job.job_id] = after
        results.append(after)
    names = ("job_id", "cancel_asked_at_ms", "deleted_at_ms")
    changes = [{name: getattr(job, name) for name in names} for job in changed.values()]
    update_rows(connection, JOBS, key=("job_id",), rows=changes, returning_keys=False)
    return results


def _may_be_asked(job: Job, item: Wish) -> bool:
    if job.state is JobState.ADMITTING:
        return False
    if not item.customer_id:
        return True
    mine = (job.customer_id, job.mode) == (item.customer_id, item.mode)
    # A deletion may be repeated: its answer may have been lost.
    return mine and (item.delete or not job.deleted_at_ms)


def _with_wish(job: Job, item: Wish) -> Job:
    if item.delete and not job.deleted_at_ms:
        job = replace(job, deleted_at_ms=item.at_ms)
    if not job.cancel_asked_at_ms and not job.ended and (item.delete or job.state is not JobState.SETTLING):
        job = replace(job, cancel_asked_at_ms=item.at_ms)
    return job


def asked_of(connection: Connection, worker_id: str) -> list[Asked]:
    """The unfinished jobs of this worker that are to end."""
    query = select(JOBS.c.job_id, JOBS.c.deleted_at_ms).where(_WISHED, JOBS.c.owner == worker_id)
    return [Asked(row[0], row[1] > 0) for row in connection.execute(query)]


def count_waiting(connection: Connection) -> tuple[int, int]:
    """How many jobs are asked to end and have not, and how many are deleted and not forgotten yet."""
    counts = [connection.scalar(select(func.count()).where(which)) or 0 for which in (_WISHED, _TO_SCRUB)]
    return counts[0], counts[1]


def to_scrub(connection: Connection, limit: int) -> list[Deleted]:
    """Deleted jobs that have ended and are not forgotten, the longest waiting first."""
    query = (
        select(*COLUMNS).where(_TO_SCRUB, JOBS.c.ended_at_ms > 0).order_by(JOBS.c.deleted_at_ms).limit(limit)
    )
    jobs = [job_of(row) for row in connection.execute(query)]
    return [Deleted(job.job_id, tuple(output.object_key for output in job.outputs)) for job in jobs]


def scrub(connection: Connection, job_ids: Sequence[str], now_ms: int) -> None:
    """Forgets what these jobs were asked for and what became of them, and what was to be told of it; who was charged what
    for them stays.
    """
    rows = _LOCKED.rows(connection, job_ids=sorted(job_ids))
    scrubbed = [_scrubbed(job, now_ms) for job in map(job_of, rows) if _is_to_scrub(job)]
    update_rows(connection, JOBS, key=("job_id",), rows=scrubbed, returning_keys=False)
    forget_of_jobs(connection, [row["job_id"] for row in scrubbed])


def _is_to_scrub(job: Job) -> bool:
    return job.ended and job.deleted_at_ms > 0 and job.scrubbed_at_ms == 0


def _scrubbed(job: Job, now_ms: int) -> dict[str, Any]:
    forgotten = replace(job.generation, prompt="", references=(), reference_limits=None)
    texts = ("echo", "project_id", "callback_url", "failure_detail")
    return {
        "job_id": job.job_id,
        "generation": msgspec.json.encode(forgotten).decode(),
        "outputs": "[]",
        "scrubbed_at_ms": now_ms,
        **dict.fromkeys(texts, ""),
    }
