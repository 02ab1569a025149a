"""Attempts by whether they have ended: the open ones, page by page, and those that ended too long ago to be asked for."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, delete, select

from services.chassis.database import locked, member_of
from services.provider_pool.schema import ATTEMPTS
from services.provider_pool.store import events


class OpenAttempt(NamedTuple):
    """An attempt that has not ended, and whose it is."""

    attempt_id: str
    job_id: str


def load_open(
    connection: Connection, created_before_ms: int, after_attempt_id: str, limit: int
) -> list[OpenAttempt]:
    """Open attempts in the order of their ids; `created_before_ms` 0 is no restriction."""
    columns = (ATTEMPTS.c.attempt_id, ATTEMPTS.c.job_id)
    statement = select(*columns).where(ATTEMPTS.c.ended_at_ms == 0, ATTEMPTS.c.attempt_id > after_attempt_id)
    if created_before_ms:
        statement = statement.where(ATTEMPTS.c.created_at_ms < created_before_ms)
    rows = connection.execute(statement.order_by(ATTEMPTS.c.attempt_id).limit(limit))
    return [OpenAttempt(*row) for row in rows]


def forget_ended(connection: Connection, before_ms: int, limit: int) -> int:
    """Delete attempts that ended before this time, at most `limit` of them, the oldest first; how many."""
    old = (
        select(ATTEMPTS.c.attempt_id)
        .where(ATTEMPTS.c.ended_at_ms > 0, ATTEMPTS.c.ended_at_ms < before_ms)
        .order_by(ATTEMPTS.c.ended_at_ms, ATTEMPTS.c.attempt_id)
        .limit(limit)
    )
    named = list(connection.execute(old).scalars())
    if not named:
        return 0
    held = locked(
        select(ATTEMPTS.c.attempt_id).where(member_of(ATTEMPTS.c.attempt_id, named)), ATTEMPTS.c.attempt_id
    )
    connection.execute(held)
    events.delete_events(connection, named)
    return connection.execute(delete(ATTEMPTS).where(member_of(ATTEMPTS.c.attempt_id, named))).rowcount
