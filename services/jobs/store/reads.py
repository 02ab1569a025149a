"""What is read without being changed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection, literal_column, select

from services.chassis.prepared_statements import prepared
from services.chassis.set_statements import member_of, member_of_named
from services.jobs.job import Job, JobState, attempt_id
from services.jobs.schema import CUSTOMER_LOAD, JOB_EVENTS, JOBS
from services.jobs.store.load import Customer, Load, count_unfinished
from services.jobs.store.rows import COLUMNS, job_of

_BY_ID = prepared(select(*COLUMNS).where(member_of_named(JOBS.c.job_id, "job_ids")))
# Zero is written out, so that every plan may use the index of those that have a number.
_BY_NUMBER = prepared(
    select(*COLUMNS).where(
        member_of_named(JOBS.c.public_number, "numbers"), JOBS.c.public_number > literal_column("0")
    )
)
PublicNumber = tuple[str, int]
"""A storefront, and the number that it knows a job by."""


@dataclass(frozen=True, slots=True)
class Event:
    """One state that a job has been in."""

    sequence: int
    epoch: int
    state: JobState
    worker_id: str
    at_ms: int


class Standing(NamedTuple):
    """As much of a job as reconciliation compares."""

    job_id: str
    state: JobState
    attempt_number: int
    created_at_ms: int
    updated_at_ms: int

    @property
    def attempt_id(self) -> str:
        return attempt_id(self.job_id, self.attempt_number)

    @property
    def next_attempt_id(self) -> str:
        return attempt_id(self.job_id, self.attempt_number + 1)


def load_jobs(connection: Connection, job_ids: Iterable[str]) -> dict[str, Job]:
    """The jobs with these ids, `admitting` ones included."""
    rows = _BY_ID.rows(connection, job_ids=sorted(set(job_ids)))
    return {job.job_id: job for job in map(job_of, rows)}


def load_standings(connection: Connection, job_ids: Iterable[str]) -> dict[str, Standing]:
    """Where the jobs with these ids stand, `admitting` ones included."""
    table = JOBS.c
    columns = (table.job_id, table.state, table.attempt_number, table.created_at_ms, table.updated_at_ms)
    query = select(*columns).where(member_of(table.job_id, sorted(set(job_ids))))
    rows = connection.execute(query)
    return {row[0]: Standing(row[0], JobState(row[1]), *row[2:]) for row in rows}


def load_numbered(connection: Connection, numbers: Iterable[PublicNumber]) -> dict[PublicNumber, Job]:
    """The jobs with these public numbers, each within its storefront."""
    wanted = set(numbers)
    rows = _BY_NUMBER.rows(connection, numbers=sorted({number for _, number in wanted}))
    found = {(job.storefront, job.public_number): job for job in map(job_of, rows)}
    return {name: job for name, job in found.items() if name in wanted}


def list_events(connection: Connection, job_id: str) -> list[Event]:
    """Every state the job has been in, in order."""
    table = JOB_EVENTS.c
    query = (
        select(table.sequence, table.epoch, table.state, table.worker_id, table.at_ms)
        .where(table.job_id == job_id)
        .order_by(table.sequence)
    )
    return [Event(row[0], row[1], JobState(row[2]), row[3], row[4]) for row in connection.execute(query)]


def owned_ids(connection: Connection, worker_id: str) -> list[str]:
    """The jobs that this worker owns."""
    return list(connection.scalars(select(JOBS.c.job_id).where(JOBS.c.owner == worker_id)))


def load_drift(connection: Connection) -> dict[Customer, tuple[Load, Load]]:
    """Customers whose counters do not equal their jobs: (counted, stored). Read it in one snapshot."""
    counted: dict[Customer, Load] = {}
    for customer_id, mode, state, count in count_unfinished(connection):
        counted.setdefault((customer_id, mode), Load()).count(JobState(state), count)
    table = CUSTOMER_LOAD.c
    rows = connection.execute(select(table.customer_id, table.mode, table.waiting, table.running))
    stored = {(row[0], row[1]): Load(row[2], row[3]) for row in rows}
    customers = counted.keys() | stored.keys()
    pairs = {name: (counted.get(name, Load()), stored.get(name, Load())) for name in customers}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
