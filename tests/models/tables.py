"""What the model reads of the tables to compare it with what it expects."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, select

from services.jobs.job import Job
from services.jobs.schema import JOB_EVENTS, WORKERS
from services.jobs.store.rows import COLUMNS, job_of


def rows(connection: Connection) -> dict[str, Job]:
    return {job.job_id: job for job in map(job_of, connection.execute(select(*COLUMNS)))}


def everything(connection: Connection) -> tuple[dict[str, Job], dict[str, int]]:
    return rows(connection), worker_seen(connection)


def worker_ids(connection: Connection) -> set[str]:
    return set(connection.scalars(select(WORKERS.c.worker_id)))


def worker_seen(connection: Connection) -> dict[str, int]:
    return {row[0]: row[1] for row in connection.execute(select(WORKERS.c.worker_id, WORKERS.c.seen_at_ms))}


def events(connection: Connection) -> list[Any]:
    table = JOB_EVENTS.c
    query = select(table.job_id, table.sequence, table.epoch, table.state)
    return [tuple(row) for row in connection.execute(query.order_by(table.job_id, table.sequence))]
