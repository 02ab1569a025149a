"""Leases in the database; what a batch does to them is in `lending`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Text, delete, func, literal_column, select

from services.chassis.database import Upsertion, locked, member_of
from services.chassis.prepared_statements import Prepared, Rows, prepared
from services.chassis.set_statements import member_of_named
from services.provider_pool.schema import ACCOUNTS, LEASES
from services.provider_pool.selection.leases import Lease, LeaseState

_COLUMNS = (
    LEASES.c.attempt_id,
    LEASES.c.job_id,
    LEASES.c.account_id,
    LEASES.c.ceiling_millis,
    LEASES.c.state,
    LEASES.c.created_at_ms,
    LEASES.c.expires_at_ms,
    LEASES.c.ended_at_ms,
    LEASES.c.model,
)
_NAMES = tuple(column.name for column in _COLUMNS)


def _locking(name: str) -> Prepared:
    named = select(*_COLUMNS).where(member_of_named(LEASES.c.attempt_id, name))
    return prepared(locked(named, LEASES.c.attempt_id))


LOCK = _locking("attempt_ids")
LOCK_NAMED = _locking("begun_ids")
"""`LOCK`, for where it is sent with a statement that is given other attempts."""


def lock_leases(connection: Connection, attempt_ids: Iterable[str]) -> dict[str, Lease]:
    """The leases of these attempts, locked in order until the end of the transaction."""
    return by_attempt(LOCK.rows(connection, attempt_ids=sorted(attempt_ids)))


def by_attempt(rows: Rows) -> dict[str, Lease]:
    """What `LOCK` gave back."""
    return {row[0]: _lease(row) for row in rows}


def load_held(connection: Connection, attempt_id: str) -> tuple[Lease, str] | None:
    """The attempt's lease, and the provider of its account, empty where it has none."""
    row = connection.execute(select(*_COLUMNS).where(LEASES.c.attempt_id == attempt_id)).first()
    if row is None:
        return None
    provider = select(ACCOUNTS.c.provider).where(ACCOUNTS.c.account_id == row.account_id)
    return _lease(row), connection.execute(provider).scalar() or ""


def leases_step(leases: Sequence[Lease]) -> Upsertion:
    """Leases, new or changed, in the order of their attempts."""
    rows = [
        (
            lease.attempt_id,
            lease.job_id,
            lease.account_id,
            lease.ceiling_millis,
            lease.state.value,
            lease.created_at_ms,
            lease.expires_at_ms,
            lease.ended_at_ms,
            lease.model,
        )
        for lease in leases
    ]
    return Upsertion(LEASES, ("attempt_id",), _NAMES, rows, replace=("state", "expires_at_ms", "ended_at_ms"))


def load_expired(connection: Connection, now_ms: int, limit: int) -> list[str]:
    """Attempts whose open lease is over, longest first."""
    statement = select(LEASES.c.attempt_id).where(LEASES.c.state == "open", LEASES.c.expires_at_ms <= now_ms)
    return list(connection.execute(statement.order_by(LEASES.c.expires_at_ms).limit(limit)).scalars())


def load_open(
    connection: Connection, created_before_ms: int, after_attempt_id: str, limit: int
) -> list[Lease]:
    """Open leases in the order of their attempts' ids, which is the order of their jobs' birth."""
    # Not the bare column: for its order SQLite would read every lease there is, and few of them are open.
    attempt_id = literal_column("attempt_id || ''", Text)
    statement = select(*_COLUMNS).where(LEASES.c.state == "open", attempt_id > after_attempt_id)
    if created_before_ms:
        statement = statement.where(LEASES.c.created_at_ms < created_before_ms)
    return [_lease(row) for row in connection.execute(statement.order_by(attempt_id).limit(limit))]


def count_open(connection: Connection) -> dict[str, dict[str, int]]:
    """How many leases are open, by account and model; those from before models were counted are left out."""
    statement = (
        select(LEASES.c.account_id, LEASES.c.model, func.count())
        .where(LEASES.c.state == "open", LEASES.c.model != "")
        .group_by(LEASES.c.account_id, LEASES.c.model)
    )
    found: dict[str, dict[str, int]] = {}
    for account_id, model, count in connection.execute(statement):
        found.setdefault(account_id, {})[model] = count
    return found


def delete_ended(connection: Connection, before_ms: int, limit: int) -> int:
    """Forget leases and tombstones that ended long ago, at most `limit` at a time."""
    old = (
        select(LEASES.c.attempt_id)
        .where(LEASES.c.state != "open", LEASES.c.ended_at_ms < before_ms)
        .order_by(LEASES.c.ended_at_ms)
        .limit(limit)
    )
    named = list(connection.execute(old).scalars())
    return connection.execute(delete(LEASES).where(member_of(LEASES.c.attempt_id, named))).rowcount


def _lease(row: Sequence[Any]) -> Lease:
    attempt_id, job_id, account_id, ceiling_millis, state, *rest = row
    return Lease(attempt_id, job_id, account_id, ceiling_millis, LeaseState(state), *rest)
