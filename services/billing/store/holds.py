"""Holds outside the hot path: extending, listing, finding those whose time is over, counting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import BigInteger, Connection, bindparam, case, func, select, tuple_, update

from services.billing import errors
from services.billing.ledger import OPEN, HoldRow
from services.billing.operations import Expire, WalletId
from services.billing.schema import HOLDS, IS_OPEN, UNBILLED
from services.billing.store.ledger import HOLD_COLUMNS, hold_of
from services.chassis.database import locked, member_of, member_of_named, prepared

# Locked in the order that batches lock them in; an UPDATE alone would lock in any order.
_LOCKED_OPEN = prepared(
    locked(select(HOLDS.c.job_id).where(member_of_named(HOLDS.c.job_id, "job_ids"), IS_OPEN), HOLDS.c.job_id)
)
_LATER = bindparam("later_ms", type_=BigInteger())
_EXTEND = prepared(
    update(HOLDS)
    .where(member_of_named(HOLDS.c.job_id, "job_ids"), HOLDS.c.expires_at_ms < _LATER)
    .values(expires_at_ms=_LATER)
)


class Filter(NamedTuple):
    """Which holds to list; an empty field does not restrict."""

    state: str
    created_before_ms: int
    job_ids: Sequence[str]
    after_job_id: str
    limit: int


class Totals(NamedTuple):
    """What the gauges show."""

    open_holds: int
    held_millis: int
    overdue_holds: int
    unbilled_jobs: int
    unbilled_millis: int


def extend(connection: Connection, job_ids: Sequence[str], expires_at_ms: int) -> list[str]:
    """Let open holds live until `expires_at_ms` at least; returns the jobs that have no open hold."""
    found = {row[0] for row in _LOCKED_OPEN.rows(connection, job_ids=job_ids)}
    _EXTEND.run(connection, job_ids=found, later_ms=expires_at_ms)
    return [job_id for job_id in dict.fromkeys(job_ids) if job_id not in found]


def page(connection: Connection, wanted: Filter) -> list[HoldRow]:
    """Holds in order of (created_at_ms, job_id). Raises ServiceError INVALID_REQUEST for an unknown `after_job_id`."""
    statement = select(*HOLD_COLUMNS)
    if wanted.state == OPEN:
        statement = statement.where(IS_OPEN)
    elif wanted.state:
        statement = statement.where(HOLDS.c.state == wanted.state)
    if wanted.created_before_ms:
        statement = statement.where(HOLDS.c.created_at_ms < wanted.created_before_ms)
    if wanted.job_ids:
        statement = statement.where(member_of(HOLDS.c.job_id, wanted.job_ids))
    if wanted.after_job_id:
        created = select(HOLDS.c.created_at_ms).where(HOLDS.c.job_id == wanted.after_job_id)
        after_ms = connection.execute(created).scalar()
        if after_ms is None:
            raise errors.invalid_request("after_job_id", "is not a job that has a hold")
        position = tuple_(HOLDS.c.created_at_ms, HOLDS.c.job_id)
        statement = statement.where(position > tuple_(after_ms, wanted.after_job_id))
    rows = connection.execute(statement.order_by(HOLDS.c.created_at_ms, HOLDS.c.job_id).limit(wanted.limit))
    return [hold_of(row) for row in rows]


def due(connection: Connection, now_ms: int, limit: int) -> tuple[list[Expire], int | None]:
    """What to expire now, oldest expiry first, and when the next open hold will expire (None: there is none)."""
    statement = select(HOLDS.c.job_id, HOLDS.c.customer_id, HOLDS.c.mode).where(IS_OPEN)
    over = statement.where(HOLDS.c.expires_at_ms <= now_ms).order_by(HOLDS.c.expires_at_ms).limit(limit)
    expired = [Expire(WalletId(row[1], row[2]), row[0]) for row in connection.execute(over)]
    later = select(func.min(HOLDS.c.expires_at_ms)).where(IS_OPEN, HOLDS.c.expires_at_ms > now_ms)
    return expired, connection.execute(later).scalar()


def totals(connection: Connection, overdue_before_ms: int) -> Totals:
    """Counts over the open holds and the unbilled jobs."""
    overdue = func.coalesce(func.sum(case((HOLDS.c.expires_at_ms < overdue_before_ms, 1), else_=0)), 0)
    held = select(func.count(), func.coalesce(func.sum(HOLDS.c.amount_millis), 0), overdue).where(IS_OPEN)
    open_holds, held_millis, overdue_holds = connection.execute(held).one()
    owed = select(func.count(), func.coalesce(func.sum(UNBILLED.c.amount_millis), 0))
    unbilled_jobs, unbilled_millis = connection.execute(owed).one()
    return Totals(open_holds, int(held_millis), int(overdue_holds), unbilled_jobs, int(unbilled_millis))
