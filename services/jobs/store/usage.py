"""What a customer has used: counted with the end of every job, and read without reading them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from sqlalchemy import BigInteger, ColumnElement, Connection, case, func, literal_column, select

from services.chassis.write_together import Upsertion
from services.jobs import usage
from services.jobs.job import Job, JobState, Stage
from services.jobs.schema import JOBS, USAGE_DAYS
from services.jobs.store.load import Customer, customer_of
from services.jobs.usage import DAY_MS, Counts, Span, UsageKey

_KEY: Final = ("customer_id", "mode", "day", "public_model")
_COUNTERS: Final = ("completed_jobs", "failed_jobs", "charged_millis", "refunded_millis")
# Written out, so that every plan may use the index of unfinished jobs.
_ZERO: Final = literal_column("0", BigInteger)
Found = dict[UsageKey, Counts]


class UsageChanges:
    """What a batch of ends adds, written together with them; nothing is written where no job ends."""

    def __init__(self) -> None:
        self._changes: dict[tuple[Customer, UsageKey], Counts] = {}

    def moved(self, before: Job, after: Job) -> None:
        if not after.ended or before.ended:
            return
        changed = self._changes.setdefault((customer_of(after), usage.key_of(after)), Counts())
        well = after.state is JobState.COMPLETED
        changed.add_ended(int(well), int(not well), *usage.amounts_of(after))

    def step(self) -> Upsertion:
        """What is to be written."""
        rows = sorted(
            (
                *customer,
                *key,
                counts.completed,
                counts.failed,
                counts.charged_millis,
                counts.refunded_millis,
            )
            for (customer, key), counts in self._changes.items()
        )
        return Upsertion(USAGE_DAYS, _KEY, _KEY + _COUNTERS, rows, add=_COUNTERS)


def read_usage(connection: Connection, customer: Customer, span: Span) -> Found:
    """Jobs that were created within `span`. Read it in one snapshot: then every job is counted once."""
    found: Found = {}
    whole, ends = usage.parts_of(span)
    if whole is not None:
        _add_ended(found, _counted_days(connection, customer, whole))
    for end in ends:
        _add_ended(found, _counted_rows(connection, customer, end))
    _add_unfinished(connection, found, customer, span)
    return found


def _add_ended(found: Found, rows: Iterable[tuple[UsageKey, int, int, int, int]]) -> None:
    for key, *counts in rows:
        found.setdefault(key, Counts()).add_ended(*counts)


def _counted_days(
    connection: Connection, customer: Customer, whole: Span
) -> Iterator[tuple[UsageKey, int, int, int, int]]:
    table = USAGE_DAYS.c
    query = select(table.day, table.public_model, *(table[name] for name in _COUNTERS)).where(
        table.customer_id == customer[0],
        table.mode == customer[1],
        table.day >= whole.from_ms // DAY_MS,
        table.day < whole.before_ms // DAY_MS,
    )
    for row in connection.execute(query):
        yield UsageKey(row[0], row[1]), row[2], row[3], row[4], row[5]


def _counted_rows(
    connection: Connection, customer: Customer, part: Span
) -> Iterator[tuple[UsageKey, int, int, int, int]]:
    """The same from the jobs themselves; `part` lies within one day."""
    well = JOBS.c.state == JobState.COMPLETED.value
    back = case((well, 0), else_=JOBS.c.refunded_millis)
    completed = func.sum(case((well, 1), else_=0))
    query = (
        select(
            JOBS.c.public_model,
            completed,
            func.count(),
            func.sum(JOBS.c.charged_millis + back),
            func.sum(back),
        )
        .where(*_created(customer, part), JOBS.c.ended_at_ms > _ZERO)
        .group_by(JOBS.c.public_model)
    )
    for model, well_ended, ended, charged_millis, refunded_millis in connection.execute(query):
        key = UsageKey(part.from_ms // DAY_MS, model)
        yield key, int(well_ended), ended - int(well_ended), int(charged_millis), int(refunded_millis)


def _add_unfinished(connection: Connection, found: Found, customer: Customer, span: Span) -> None:
    day = JOBS.c.created_at_ms // literal_column(str(DAY_MS), BigInteger)
    query = (
        select(day.label("day"), JOBS.c.public_model, JOBS.c.stage, func.count())
        .where(
            *_created(customer, span),
            JOBS.c.ended_at_ms == _ZERO,
            JOBS.c.state != JobState.ADMITTING.value,
        )
        .group_by(literal_column("day"), JOBS.c.public_model, JOBS.c.stage)
    )
    for row in connection.execute(query):
        counts = found.setdefault(UsageKey(int(row[0]), row[1]), Counts())
        if row[2] >= Stage.AT_PROVIDER:
            counts.processing += row[3]
        else:
            counts.pending += row[3]


def _created(customer: Customer, span: Span) -> tuple[ColumnElement[bool], ...]:
    return (
        JOBS.c.customer_id == customer[0],
        JOBS.c.mode == customer[1],
        JOBS.c.created_at_ms >= span.from_ms,
        JOBS.c.created_at_ms < span.before_ms,
    )
