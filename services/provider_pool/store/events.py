"""The history of attempts in the database. Written under the lock of the attempt's row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import Connection, delete, func, select

from services.chassis.database import insert_tuples, member_of
from services.provider_pool.attempts.history import EVENTS_KEPT, Event
from services.provider_pool.schema import ATTEMPT_EVENTS

_NAMES = tuple(column.name for column in ATTEMPT_EVENTS.columns)


def add_events(connection: Connection, events: Mapping[str, Sequence[Event]]) -> None:
    """Append to the histories of these attempts, whose rows the caller holds."""
    named = sorted(attempt_id for attempt_id, added in events.items() if added)
    if not named:
        return
    known = _counted(connection, named)
    rows = [
        (attempt_id, number, event.at_ms, event.what, event.detail)
        for attempt_id in named
        for number, event in enumerate(events[attempt_id], start=known.get(attempt_id, 0) + 1)
        if number <= EVENTS_KEPT
    ]
    insert_tuples(connection, ATTEMPT_EVENTS, _NAMES, rows)


def load_events(connection: Connection, attempt_id: str) -> list[Event]:
    """The history of one attempt, as it was written."""
    columns = (ATTEMPT_EVENTS.c.at_ms, ATTEMPT_EVENTS.c.what, ATTEMPT_EVENTS.c.detail)
    statement = select(*columns).where(ATTEMPT_EVENTS.c.attempt_id == attempt_id)
    return [Event(*row) for row in connection.execute(statement.order_by(ATTEMPT_EVENTS.c.number))]


def delete_events(connection: Connection, attempt_ids: Iterable[str]) -> None:
    """Forget the histories of these attempts."""
    connection.execute(delete(ATTEMPT_EVENTS).where(member_of(ATTEMPT_EVENTS.c.attempt_id, attempt_ids)))


def _counted(connection: Connection, attempt_ids: Sequence[str]) -> dict[str, int]:
    attempt_id = ATTEMPT_EVENTS.c.attempt_id
    statement = (
        select(attempt_id, func.max(ATTEMPT_EVENTS.c.number))
        .where(member_of(attempt_id, attempt_ids))
        .group_by(attempt_id)
    )
    return {row[0]: row[1] for row in connection.execute(statement)}
