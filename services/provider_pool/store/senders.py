"""When each process that sends attempts was last heard of, in the database."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, delete, insert, select, update

from services.provider_pool.schema import SENDERS

Instant = ColumnElement[int] | int


def beat(
    connection: Connection, process_id: str, at_ms: Instant, *, ttl_ms: int, forgotten_after_ms: int
) -> list[str]:
    """Note that this process lives; those that were not heard of for `ttl_ms`. Forgets whom nobody asks about any more."""
    mine = SENDERS.c.process_id == process_id
    if connection.execute(update(SENDERS).where(mine).values(seen_at_ms=at_ms)).rowcount == 0:
        connection.execute(insert(SENDERS).values(process_id=process_id, seen_at_ms=at_ms))
    connection.execute(delete(SENDERS).where(SENDERS.c.seen_at_ms < at_ms - forgotten_after_ms))
    return list(connection.scalars(select(SENDERS.c.process_id).where(SENDERS.c.seen_at_ms < at_ms - ttl_ms)))
