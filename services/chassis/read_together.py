"""Several prepared SELECTs in one round trip.

On PostgreSQL they go out as one statement and see one moment; on SQLite, inside a transaction, they do so anyway and
run one after the other, which is less work than taking a joint answer apart. Where one of them waits for a lock on
PostgreSQL, the others still see the moment before the wait: what they must see of the last holder is locked earlier.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, cast, literal_column, null, select, union_all
from sqlalchemy.sql.selectable import CTE

from services.chassis.prepared_statements import Prepared, Rows, prepared

JOINED_KEPT = 64
"""Combinations of SELECTs of which the statement is kept; a service has a few."""


def read_together(connection: Connection, selects: tuple[Prepared, ...], /, **values: Any) -> list[Rows]:
    """The rows of each of `selects`, each in no order; a value is given to all that name it."""
    if connection.dialect.name != "postgresql":
        return [one.rows(connection, **values) for one in selects]
    parts: list[list[Any]] = [[] for _ in selects]
    statement, places = _joined(selects)
    for row in statement.rows(connection, **values):
        number = row[0]
        parts[number].append(row[places[number]])
    return [*parts]


@lru_cache(maxsize=JOINED_KEPT)
def _joined(selects: tuple[Prepared, ...]) -> tuple[Prepared, list[slice]]:
    """One SELECT with the columns of all side by side, a number before them, and where each one's columns are."""
    parts = [one.select().cte(f"part_{number}") for number, one in enumerate(selects)]
    widths = [len(part.c) for part in parts]
    starts = [1 + sum(widths[:number]) for number in range(len(parts))]
    places = [slice(start, start + width) for start, width in zip(starts, widths, strict=True)]
    return prepared(union_all(*(_side(number, parts) for number in range(len(parts))))), places


def _side(number: int, parts: list[CTE]) -> Any:
    columns: list[ColumnElement[Any]] = [literal_column(str(number)).label("part")]
    for other, part in enumerate(parts):
        # Typed: of nulls alone PostgreSQL would make texts.
        columns += [
            (column if other == number else cast(null(), column.type)).label(f"c{other}_{place}")
            for place, column in enumerate(part.c)
        ]
    return select(*columns)
