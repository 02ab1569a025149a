"""Several tables' rows in one round trip.

On PostgreSQL a batch's statements go out as one, with all but the last as its common table expressions; on SQLite,
where no network lies between, they run one after the other. All of them see the database as it was before the first,
and no row may be written by two of them: PostgreSQL would let one of the two win.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Insert, Table, Update

from services.chassis import set_statements
from services.chassis.prepared_statements import Prepared, prepared
from services.chassis.set_statements import Names

Tuples = Sequence[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Insertion:
    """New rows, their values in the order of `names`; a collision with a row that is there raises IntegrityError."""

    table: Table
    names: Names
    rows: Tuples


@dataclass(frozen=True, slots=True)
class Change:
    """New values of rows that are there, in the order of `names`, which begins with the columns of `key`."""

    table: Table
    key: Names
    names: Names
    rows: Tuples


@dataclass(frozen=True, slots=True)
class Upsertion:
    """Rows that are new, or whose `add` columns grow by what is given and whose `replace` columns take it.

    Their values are in the order of `names`; no key comes twice.
    """

    table: Table
    key: Names
    names: Names
    rows: Tuples
    add: Names = ()
    replace: Names = ()


Step = Insertion | Change | Upsertion
Shape = tuple[type[Step], Table, Names, Names, Names, Names]

SHAPES_KEPT = 256
"""Combinations of steps of which the statement is kept; a service has a few for each kind of batch."""


def write_together(connection: Connection, steps: Sequence[Step]) -> None:
    """Write all `steps`; those without rows are left out. Give rows in the order of their key, or replicas deadlock."""
    filled = [step for step in steps if step.rows]
    if connection.dialect.name != "postgresql":
        for step in filled:
            _write(connection, step)
    elif filled:
        values: dict[str, Any] = {}
        for place, step in enumerate(filled):
            values |= set_statements.as_arrays(step.table, step.names, step.rows, prefix=f"v{place}_")
        _statement(tuple(map(_shape, filled))).run(connection, **values)


def _write(connection: Connection, step: Step) -> None:
    if isinstance(step, Insertion):
        set_statements.insert_tuples(connection, step.table, step.names, step.rows)
    elif isinstance(step, Upsertion):
        set_statements.upsert_tuples(
            connection, step.table, step.key, step.names, step.rows, add=step.add, replace=step.replace
        )
    else:
        set_statements.update_tuples(connection, step.table, step.key, step.names, step.rows)


def _shape(step: Step) -> Shape:
    key = () if isinstance(step, Insertion) else step.key
    add, replace = (step.add, step.replace) if isinstance(step, Upsertion) else ((), ())
    return type(step), step.table, step.names, key, add, replace


@lru_cache(maxsize=SHAPES_KEPT)
def _statement(shapes: tuple[Shape, ...]) -> Prepared:
    *others, last = [_one(shape, f"v{place}_") for place, shape in enumerate(shapes)]
    for place, other in enumerate(others):
        last = last.add_cte(other.cte(f"step_{place}"))
    return prepared(last)


def _one(shape: Shape, prefix: str) -> Insert | Update:
    kind, table, names, key, add, replace = shape
    if kind is Insertion:
        return set_statements.insertion_of_arrays(table, names, prefix)
    if kind is Upsertion:
        return set_statements.upsert_from_arrays(table, names, key, add, replace, prefix)
    return set_statements.update_from_arrays(table, names, key, (), prefix=prefix)
