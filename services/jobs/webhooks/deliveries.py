"""Deliveries in the database: who sends which, what came of it, and what an operator is shown."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Connection,
    Text,
    bindparam,
    delete,
    func,
    literal_column,
    not_,
    select,
    update,
)

from services.chassis.prepared_statements import prepared
from services.chassis.set_statements import insert_rows, locked, member_of, member_of_named, update_rows
from services.jobs.errors import LeaseLostError
from services.jobs.schema import WORKERS
from services.jobs.webhooks.forms import Filled
from services.jobs.webhooks.lanes import Due
from services.jobs.webhooks.outbox import Row, body_of
from services.jobs.webhooks.schedule import State, links_until_ms
from services.jobs.webhooks.tables import ATTEMPTS, DELIVERIES

SWEEP_LIMIT: Final = 500


@dataclass(frozen=True, slots=True)
class Delivery:
    """One delivery as it is in its row."""

    delivery_id: str
    job_id: str
    customer_id: str
    form_id: str
    ending: str
    url: str
    receiver: str
    body: Filled
    media_expires_at_ms: int
    links_until_ms: int
    state: State
    owner: str | None
    epoch: int
    attempts: int
    tries: int
    created_at_ms: int
    next_attempt_at_ms: int
    ended_at_ms: int
    last_status: int
    last_error: str

    def __repr__(self) -> str:
        # The address may hold a credential, and the body is its customer's.
        return f"Delivery({self.delivery_id!r}, {self.state!r}, epoch={self.epoch!r})"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One line of the log. status: 0 where there was no answer."""

    number: int
    at_ms: int
    duration_ms: int
    status: int
    error: str


@dataclass(frozen=True, slots=True)
class Attempted:
    """What came of sending `delivery`: the attempt, and where the delivery stands after it."""

    delivery: Delivery
    attempt: Attempt
    state: State
    next_attempt_at_ms: int
    ended_at_ms: int


def kind_of(item: Attempted) -> str:
    """`webhook_delivered`, `webhook_waiting` or `webhook_dead`."""
    return f"webhook_{item.state.value}"


_COLUMNS = tuple(DELIVERIES.columns)
# Spelled as in the index of what is due.
_FREE = DELIVERIES.c.owner.is_(None) & (DELIVERIES.c.ended_at_ms == literal_column("0"))
_due_by = bindparam("now_ms", type_=BigInteger)
# As `line_of` spells it.
_LINE = DELIVERIES.c.customer_id + literal_column("' '", Text) + DELIVERIES.c.receiver
_DUE = prepared(
    select(DELIVERIES.c.delivery_id, DELIVERIES.c.customer_id, DELIVERIES.c.receiver)
    .where(_FREE, DELIVERIES.c.next_attempt_at_ms <= _due_by)
    .where(not_(member_of_named(_LINE, "lines")))
    .where(not_(member_of_named(DELIVERIES.c.customer_id, "customers")))
    .order_by(DELIVERIES.c.next_attempt_at_ms)
    .limit(bindparam("most", type_=BigInteger))
)
_FENCES = prepared(
    locked(
        select(
            DELIVERIES.c.delivery_id, DELIVERIES.c.owner, DELIVERIES.c.epoch, DELIVERIES.c.next_attempt_at_ms
        ).where(member_of_named(DELIVERIES.c.delivery_id, "delivery_ids")),
        DELIVERIES.c.delivery_id,
    )
)


def _delivery(row: Sequence[Any]) -> Delivery:
    return delivery_of({column.name: value for column, value in zip(_COLUMNS, row, strict=True)})


def delivery_of(row: Row) -> Delivery:
    """One row as it is in the table."""
    return Delivery(**row | {"body": body_of(row["body"]), "state": State(row["state"])})


def due(
    connection: Connection, now_ms: int, lines: Collection[str], customers: Collection[str], most: int
) -> list[Due]:
    """Up to `most` that nobody sends and whose time has come, the longest due first, but not of these lines and
    customers.
    """
    rows = _DUE.rows(connection, now_ms=now_ms, lines=sorted(lines), customers=sorted(customers), most=most)
    return [Due(*row) for row in rows]


def claim(connection: Connection, worker_id: str, delivery_ids: Iterable[str], now_ms: int) -> list[Delivery]:
    """Those of them that are still free and due, now this worker's under a new epoch."""
    me = locked(select(WORKERS.c.worker_id).where(WORKERS.c.worker_id == worker_id), WORKERS.c.worker_id)
    if connection.scalar(me) is None:
        return []
    free = select(*_COLUMNS).where(
        member_of(DELIVERIES.c.delivery_id, delivery_ids),
        _FREE,
        DELIVERIES.c.next_attempt_at_ms <= now_ms,
    )
    found = [
        _delivery(row) for row in connection.execute(locked(free, DELIVERIES.c.delivery_id, skip_locked=True))
    ]
    mine = [_claimed(one, worker_id, now_ms) for one in found]
    rows = [
        {
            "delivery_id": one.delivery_id,
            "owner": worker_id,
            "epoch": one.epoch,
            "links_until_ms": one.links_until_ms,
        }
        for one in mine
    ]
    update_rows(connection, DELIVERIES, key=("delivery_id",), rows=rows, returning_keys=False)
    return mine


def _claimed(one: Delivery, worker_id: str, now_ms: int) -> Delivery:
    until_ms = links_until_ms(one.links_until_ms, one.media_expires_at_ms, now_ms)
    return replace(one, owner=worker_id, epoch=one.epoch + 1, links_until_ms=until_ms)


def owned(connection: Connection, worker_id: str) -> dict[str, int]:
    """What this worker sends, and the epoch of each."""
    query = select(DELIVERIES.c.delivery_id, DELIVERIES.c.epoch).where(DELIVERIES.c.owner == worker_id)
    return {row[0]: row[1] for row in connection.execute(query)}


def free(connection: Connection, worker_id: str, strays: Mapping[str, int]) -> None:
    """Lets go of those of them that are still this worker's, under these epochs."""
    mine = update(DELIVERIES).where(DELIVERIES.c.owner == worker_id).values(owner=None)
    for delivery_id, epoch in sorted(strays.items()):
        connection.execute(mine.where(DELIVERIES.c.delivery_id == delivery_id, DELIVERIES.c.epoch == epoch))


def apply_attempts(connection: Connection, items: Sequence[Attempted]) -> list[Exception | None]:
    """Writes what came of each; LeaseLostError for one that is somebody else's now, or was written already.

    One that an operator wants sent again since this attempt began stays due, whatever came of the attempt.
    """
    ids = sorted({item.delivery.delivery_id for item in items})
    found = {row[0]: (row[1], row[2], row[3]) for row in _FENCES.rows(connection, delivery_ids=ids)}
    rows: list[dict[str, Any]] = []
    log: list[dict[str, Any]] = []
    results: list[Exception | None] = []
    for item in items:
        one = item.delivery
        owner, epoch, due_ms = found.pop(one.delivery_id, (None, 0, 0))
        if owner is None or (owner, epoch) != (one.owner, one.epoch):
            results.append(LeaseLostError(one.delivery_id))
            continue
        rows.append(_after(item) if due_ms == one.next_attempt_at_ms else _after(item) | _anew(due_ms))
        log.append(_logged(item))
        results.append(None)
    update_rows(connection, DELIVERIES, key=("delivery_id",), rows=rows, returning_keys=False)
    insert_rows(connection, ATTEMPTS, log, ignore_conflicts=True)
    return results


def _after(item: Attempted) -> dict[str, Any]:
    return {
        "delivery_id": item.delivery.delivery_id,
        "owner": None,
        "state": item.state.value,
        "attempts": item.attempt.number,
        "tries": item.delivery.tries + 1,
        "next_attempt_at_ms": item.next_attempt_at_ms,
        "ended_at_ms": item.ended_at_ms,
        "last_status": item.attempt.status,
        "last_error": item.attempt.error,
    }


def _anew(due_ms: int) -> dict[str, Any]:
    """A schedule that begins then."""
    return {"state": State.WAITING.value, "tries": 0, "next_attempt_at_ms": due_ms, "ended_at_ms": 0}


def _logged(item: Attempted) -> dict[str, Any]:
    return {
        "delivery_id": item.delivery.delivery_id,
        "number": item.attempt.number,
        "at_ms": item.attempt.at_ms,
        "duration_ms": item.attempt.duration_ms,
        "status": item.attempt.status,
        "error": item.attempt.error,
    }


@dataclass(frozen=True, slots=True)
class DeliveryFilter:
    """Which deliveries are listed, newest first; empty fields filter nothing."""

    customer_id: str
    job_id: str
    state: State | None
    before_delivery_id: str
    limit: int


def list_deliveries(connection: Connection, wanted: DeliveryFilter) -> list[Delivery]:
    query = select(*_COLUMNS)
    if wanted.customer_id:
        query = query.where(DELIVERIES.c.customer_id == wanted.customer_id)
    if wanted.job_id:
        query = query.where(DELIVERIES.c.job_id == wanted.job_id)
    if wanted.state is not None:
        query = query.where(DELIVERIES.c.state == wanted.state.value)
    if wanted.before_delivery_id:
        query = query.where(DELIVERIES.c.delivery_id < wanted.before_delivery_id)
    newest = query.order_by(DELIVERIES.c.delivery_id.desc()).limit(wanted.limit)
    return [_delivery(row) for row in connection.execute(newest)]


def load(connection: Connection, delivery_id: str) -> Delivery | None:
    row = connection.execute(select(*_COLUMNS).where(DELIVERIES.c.delivery_id == delivery_id)).first()
    return None if row is None else _delivery(row)


def list_attempts(connection: Connection, delivery_id: str) -> list[Attempt] | None:
    """The log of a delivery, oldest first; None where there is no such delivery."""
    if load(connection, delivery_id) is None:
        return None
    columns = (
        ATTEMPTS.c.number,
        ATTEMPTS.c.at_ms,
        ATTEMPTS.c.duration_ms,
        ATTEMPTS.c.status,
        ATTEMPTS.c.error,
    )
    logged = select(*columns).where(ATTEMPTS.c.delivery_id == delivery_id).order_by(ATTEMPTS.c.number)
    return [Attempt(*row) for row in connection.execute(logged)]


def resend(connection: Connection, delivery_id: str, now_ms: int) -> Delivery | None:
    """The delivery, due now with its whole schedule before it; None where there is none.

    One that is being sent at this moment stays its sender's, and is sent again after that.
    """
    anew = update(DELIVERIES).where(DELIVERIES.c.delivery_id == delivery_id).values(**_anew(now_ms))
    connection.execute(anew)
    return load(connection, delivery_id)


def oldest_due_ms(connection: Connection, now_ms: int) -> int:
    """Since when the delivery has been due that has waited longest; 0 where none is due."""
    oldest = select(func.min(DELIVERIES.c.next_attempt_at_ms)).where(
        _FREE, DELIVERIES.c.next_attempt_at_ms <= now_ms
    )
    return connection.scalar(oldest) or 0


def sweep(connection: Connection, ended_before_ms: int) -> int:
    """Forgets up to SWEEP_LIMIT deliveries that ended before this moment, with their logs. Returns how many."""
    old = select(DELIVERIES.c.delivery_id).where(
        DELIVERIES.c.ended_at_ms > 0, DELIVERIES.c.ended_at_ms < ended_before_ms
    )
    oldest = locked(old, DELIVERIES.c.ended_at_ms, skip_locked=True).limit(SWEEP_LIMIT)
    return _forget(connection, list(connection.scalars(oldest)))


def forget_of_jobs(connection: Connection, job_ids: Collection[str]) -> None:
    """Forgets all deliveries of these jobs, with their logs; who is sending one of them will write nothing of it."""
    of_jobs = select(DELIVERIES.c.delivery_id).where(member_of(DELIVERIES.c.job_id, job_ids))
    _forget(connection, list(connection.scalars(locked(of_jobs, DELIVERIES.c.delivery_id))))


def _forget(connection: Connection, delivery_ids: Sequence[str]) -> int:
    """They are locked by now, so that no attempt is logged and no resend stored between the two."""
    if delivery_ids:
        connection.execute(delete(ATTEMPTS).where(member_of(ATTEMPTS.c.delivery_id, delivery_ids)))
        connection.execute(delete(DELIVERIES).where(member_of(DELIVERIES.c.delivery_id, delivery_ids)))
    return len(delivery_ids)
