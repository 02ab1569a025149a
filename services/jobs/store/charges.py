"""What customers were told that they paid, as the counters that change with the end of every job say it."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, func, select, tuple_

from services.chassis.set_statements import member_of
from services.jobs.job import JobState, Settlement
from services.jobs.schema import CUSTOMER_LOAD, JOBS
from services.jobs.store.load import CUSTOMER_ID, UNFINISHED, Customer, read_loads


def charged(connection: Connection, after: Customer, limit: int) -> list[tuple[Customer, int]]:
    """Customers in the order of their names, each with what all of its jobs were charged, in millis."""
    table = CUSTOMER_LOAD.c
    rows = connection.execute(
        select(table.customer_id, table.mode, table.charged_millis)
        .where(tuple_(table.customer_id, table.mode) > tuple_(*after))
        .order_by(table.customer_id, table.mode)
        .limit(limit)
    )
    return [((row[0], row[1]), row[2]) for row in rows]


def charged_at_most(connection: Connection, customers: Collection[Customer]) -> dict[Customer, int]:
    """The same with all that may have been charged for jobs that are settling. Read it in one snapshot."""
    sums = {name: load.charged_millis for name, load in read_loads(connection, customers).items()}
    for unfinished in UNFINISHED:
        settling = (
            select(CUSTOMER_ID, JOBS.c.mode, func.sum(JOBS.c.settle_millis))
            .where(
                unfinished,
                JOBS.c.state == JobState.SETTLING.value,
                JOBS.c.settlement == Settlement.CAPTURE.value,
                member_of(CUSTOMER_ID, sorted({customer_id for customer_id, _ in customers})),
            )
            .group_by(CUSTOMER_ID, JOBS.c.mode)
        )
        for customer_id, mode, millis in connection.execute(settling):
            if (customer_id, mode) in sums:
                sums[customer_id, mode] += int(millis)
    return sums
