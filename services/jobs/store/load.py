"""What each customer has at once, changed in the very transactions that change its jobs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

from sqlalchemy import Connection, Text, func, literal_column, select

from services.chassis.prepared_statements import Prepared, Rows, prepared
from services.chassis.read_together import read_together
from services.chassis.set_statements import (
    insert_rows,
    locked,
    member_of_named,
    update_rows,
)
from services.chassis.write_together import Upsertion
from services.jobs import job as rules
from services.jobs.job import Job, JobState
from services.jobs.schema import CUSTOMER_LOAD, JOBS

_COUNTERS = ("waiting", "running", "completed_jobs", "failed_jobs", "charged_millis")
_KEY = ("customer_id", "mode")
Customer = tuple[str, str]

_COUNTED = select(
    CUSTOMER_LOAD.c.customer_id, CUSTOMER_LOAD.c.mode, *(CUSTOMER_LOAD.c[name] for name in _COUNTERS)
).where(member_of_named(CUSTOMER_LOAD.c.customer_id, "customer_ids"))
# Two conditions, each of which an index of unfinished jobs answers: one for all would read everything that ever ended.
UNFINISHED: Final = (JOBS.c.owner.is_not(None), JOBS.c.owner.is_(None) & (JOBS.c.ended_at_ms == 0))
# Not the bare column: in its index SQLite would find all jobs of a customer together, and read them all.
CUSTOMER_ID: Final = literal_column("(customer_id || '')", Text)
_READ = prepared(_COUNTED)
_LOCK = prepared(locked(_COUNTED, CUSTOMER_LOAD.c.customer_id, CUSTOMER_LOAD.c.mode))


@dataclass(slots=True)
class Load:
    """The counters of one customer in one mode, or changes to them."""

    waiting: int = 0
    running: int = 0
    completed_jobs: int = 0
    failed_jobs: int = 0
    charged_millis: int = 0

    def count(self, state: JobState, by: int) -> None:
        """Counts a job that is, or no longer is, in `state`."""
        which = rules.load(state)
        if which:
            setattr(self, which, getattr(self, which) + by)


def customer_of(job: Job) -> Customer:
    return job.customer_id, job.mode


_counters = attrgetter(*_COUNTERS)
_NOTHING = Load()


class LoadChanges:
    """The sum of what a batch of transitions changes, written together with the rest of it."""

    def __init__(self) -> None:
        self._changes: dict[Customer, Load] = {}

    def _of(self, job: Job) -> Load:
        return self._changes.setdefault(customer_of(job), Load())

    def admitted(self, job: Job) -> None:
        self._of(job).count(job.state, +1)

    def removed(self, job: Job) -> None:
        self._of(job).count(job.state, -1)

    def moved(self, before: Job, after: Job) -> None:
        change = self._of(after)
        change.count(before.state, -1)
        change.count(after.state, +1)
        if after.ended and not before.ended:
            change.completed_jobs += after.state is JobState.COMPLETED
            change.failed_jobs += after.state is not JobState.COMPLETED
            change.charged_millis += after.charged_millis

    def step(self) -> Upsertion:
        """What is to be written."""
        rows = sorted(
            (*customer, *map(int, _counters(change)))
            for customer, change in self._changes.items()
            if change != _NOTHING
        )
        return Upsertion(CUSTOMER_LOAD, _KEY, _KEY + _COUNTERS, rows, add=_COUNTERS)


def read_loads(connection: Connection, customers: Iterable[Customer]) -> dict[Customer, Load]:
    """The counters of these customers; one without a row has none of anything."""
    wanted = set(customers)
    return dict.fromkeys(wanted, Load()) | _loads(connection, wanted, lock=False)


def lock_loads(connection: Connection, customers: Iterable[Customer]) -> dict[Customer, Load]:
    """The counters of these customers, which nobody else changes until this transaction ends."""
    wanted = set(customers)
    return _completed(connection, wanted, _loads(connection, wanted, lock=True))


def lock_loads_and(
    connection: Connection, customers: Iterable[Customer], other: Prepared, /, **values: Any
) -> tuple[dict[Customer, Load], Rows]:
    """`lock_loads`, and the rows of another statement that is sent with it and comes first."""
    wanted = set(customers)
    names = sorted({customer for customer, _ in wanted})
    others, rows = read_together(connection, (other, _LOCK), customer_ids=names, **values)
    return _completed(connection, wanted, _of(wanted, rows)), others


def _completed(
    connection: Connection, wanted: set[Customer], found: dict[Customer, Load]
) -> dict[Customer, Load]:
    new = sorted(wanted - found.keys())
    if new:
        empty = dict.fromkeys(_COUNTERS, 0)
        rows = [{"customer_id": customer, "mode": mode} | empty for customer, mode in new]
        insert_rows(connection, CUSTOMER_LOAD, rows, ignore_conflicts=True)
        found |= _loads(connection, wanted, lock=True)
    return found


def _loads(connection: Connection, wanted: set[Customer], *, lock: bool) -> dict[Customer, Load]:
    statement = _LOCK if lock else _READ
    rows = statement.rows(connection, customer_ids=sorted({customer for customer, _ in wanted}))
    return _of(wanted, rows)


def _of(wanted: set[Customer], rows: Rows) -> dict[Customer, Load]:
    found = {(row[0], row[1]): Load(*row[2:]) for row in rows}
    return {customer: load for customer, load in found.items() if customer in wanted}


def count_unfinished(connection: Connection) -> Iterator[tuple[str, str, str, int]]:
    """Customer, mode, state, and how many of its unfinished jobs are in it."""
    for unfinished in UNFINISHED:
        grouped = select(CUSTOMER_ID, JOBS.c.mode, JOBS.c.state, func.count()).where(unfinished)
        for row in connection.execute(grouped.group_by(CUSTOMER_ID, JOBS.c.mode, JOBS.c.state)):
            yield row[0], row[1], row[2], row[3]


def mend_loads(connection: Connection, customers: Iterable[Customer]) -> None:
    """Sets the counters of these customers to what their jobs say.

    Whoever changes a job of theirs now waits for the lock, and then adds its change to what is written here.
    """
    wanted = set(customers)
    lock_loads(connection, wanted)
    counted = {customer: Load() for customer in wanted}
    for customer_id, mode, state, count in count_unfinished(connection):
        if (customer_id, mode) in counted:
            counted[(customer_id, mode)].count(JobState(state), count)
    rows = [
        {"customer_id": customer_id, "mode": mode, "waiting": load.waiting, "running": load.running}
        for (customer_id, mode), load in counted.items()
    ]
    update_rows(connection, CUSTOMER_LOAD, key=("customer_id", "mode"), rows=rows, returning_keys=False)
