"""Leases in the database; what a batch does to them is in `lending`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, select

from services.chassis.database import locked, member_of, upsert_rows
from services.provider_pool.leases import Lease, LeaseState
from services.provider_pool.schema import ACCOUNTS, LEASES


def lock_leases(connection: Connection, attempt_ids: Iterable[str]) -> dict[str, Lease]:
    """The leases of these attempts, locked in order until the end of the transaction."""
    statement = select(LEASES).where(member_of(LEASES.c.attempt_id, sorted(attempt_ids)))
    rows = connection.execute(locked(statement, LEASES.c.attempt_id)).all()
    return {row.attempt_id: _lease(row) for row in rows}


def load_held(connection: Connection, attempt_id: str) -> tuple[Lease, str] | None:
    """The attempt's lease, and the provider of its account, empty where it has none."""
    row = connection.execute(select(LEASES).where(LEASES.c.attempt_id == attempt_id)).first()
    if row is None:
        return None
    provider = select(ACCOUNTS.c.provider).where(ACCOUNTS.c.account_id == row.account_id)
    return _lease(row), connection.execute(provider).scalar() or ""


def save_leases(connection: Connection, leases: Sequence[Lease]) -> None:
    """Write leases, new or changed."""
    rows = [
        {
            "attempt_id": lease.attempt_id,
            "job_id": lease.job_id,
            "account_id": lease.account_id,
            "ceiling_millis": lease.ceiling_millis,
            "state": lease.state.value,
            "created_at_ms": lease.created_at_ms,
            "expires_at_ms": lease.expires_at_ms,
            "ended_at_ms": lease.ended_at_ms,
        }
        for lease in leases
    ]
    replaced = ["state", "expires_at_ms", "ended_at_ms"]
    upsert_rows(connection, LEASES, key=["attempt_id"], rows=rows, replace=replaced)


def load_expired(connection: Connection, now_ms: int, limit: int) -> list[str]:
    """Attempts whose open lease is over, longest first."""
    statement = select(LEASES.c.attempt_id).where(LEASES.c.state == "open", LEASES.c.expires_at_ms <= now_ms)
    return list(connection.execute(statement.order_by(LEASES.c.expires_at_ms).limit(limit)).scalars())


def load_open(
    connection: Connection, created_before_ms: int, after_attempt_id: str, limit: int
) -> list[Lease]:
    """Open leases in the order of their attempts' ids, which is the order of their jobs' birth."""
    statement = select(LEASES).where(LEASES.c.state == "open", LEASES.c.attempt_id > after_attempt_id)
    if created_before_ms:
        statement = statement.where(LEASES.c.created_at_ms < created_before_ms)
    return [_lease(row) for row in connection.execute(statement.order_by(LEASES.c.attempt_id).limit(limit))]


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


def _lease(row: Row[Any]) -> Lease:
    return Lease(
        row.attempt_id,
        row.job_id,
        row.account_id,
        row.ceiling_millis,
        LeaseState(row.state),
        row.created_at_ms,
        row.expires_at_ms,
        row.ended_at_ms,
    )
