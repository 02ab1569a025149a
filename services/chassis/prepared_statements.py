"""Statements that are compiled once and then run in the driver's own words.

Building, keying and reading back one Core expression costs 0.25 to 0.4 ms on SQLite, the statement itself 0.01 to
0.03 ms: on a path that runs for every batch, a statement is prepared where the module is imported and only its
values are given later.

    _HOLDS = prepared(locked(select(HOLDS).where(member_of_named(HOLDS.c.job_id, "job_ids")), HOLDS.c.job_id))

    def holds(connection: Connection, job_ids: set[str]) -> list[Hold]:
        return [Hold(*row) for row in _HOLDS.rows(connection, job_ids=job_ids)]
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, NoReturn, cast

from sqlalchemy import ARRAY, CompoundSelect, Connection, Delete, Dialect, Insert, Numeric, Select, Update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import TypeEngine

from services.chassis import database_metrics, postgres_statements

Statement = Select[Any] | CompoundSelect[Any] | Insert | Update | Delete
Processor = Callable[[Any], Any]
ROWS_AT_ONCE = 64
"""Rows in one statement of SQLite's at most: more save nothing, and the widest table stays below its limit of values."""

Rows = Sequence[Sequence[Any]]
"""What a statement gave back: rows of plain values in the order of its columns, with no names."""


def prepared(statement: Statement) -> Prepared:
    """`statement`, to be run many times: on both engines, on writers and on readers.

    Values that change are `bindparam("name", type_=…)` or `member_of_named(column, "names")`; values written into
    the expression stay as they are. Lists in `IN (…)` are refused: their text would change with their length.
    """
    return Prepared(statement)


class Prepared:
    """A statement whose text is known: `rows` reads what it gives back, `run` counts the rows it changed."""

    def __init__(self, statement: Statement) -> None:
        self._statement = statement
        self._spelled: dict[str, _Spelled] = {}

    def rows(self, connection: Connection, /, **values: Any) -> Rows:
        """Every row that the statement gives back. Raises KeyError for a value that is missing."""
        spelled = self.spelled(connection.dialect)
        return spelled.converted(fetch_rows(connection, spelled.sql, spelled.parameters(values)))

    def first(self, connection: Connection, /, **values: Any) -> Sequence[Any] | None:
        """The first of its rows, or None."""
        rows = self.rows(connection, **values)
        return rows[0] if rows else None

    def run(self, connection: Connection, /, **values: Any) -> int:
        """How many rows an INSERT, UPDATE or DELETE changed."""
        spelled = self.spelled(connection.dialect)
        return change_rows(connection, spelled.sql, spelled.parameters(values))

    def select(self) -> Select[Any]:
        """The statement itself, to be made a part of another. Raises TypeError where it is no SELECT."""
        if not isinstance(self._statement, Select):
            raise TypeError(f"{self._statement} is no SELECT")
        return self._statement

    def spelled(self, dialect: Dialect) -> _Spelled:
        known = self._spelled.get(dialect.driver)
        if known is None:
            known = self._spelled[dialect.driver] = _Spelled(self._statement, dialect)
        return known


class _Spelled:
    """A statement in the words of one driver."""

    def __init__(self, statement: Statement, dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect)
        if compiled.post_compile_params:
            raise TypeError(f"the text of {statement} depends on its values")
        self.sql = str(compiled)
        # Each is a name that is asked for, or none and the value itself, and what the driver wants done to it.
        self._parameters = [
            (bind.key if bind.required else None, bind.value, bind_processor(bind.type, dialect))
            for bind in (compiled.binds[name] for name in compiled.positiontup or ())
        ]
        self._processors = _result_processors(statement, dialect)

    def parameters(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        chosen = [
            (constant if name is None else values[name], process)
            for name, constant, process in self._parameters
        ]
        return tuple([value if process is None else process(value) for value, process in chosen])

    def converted(self, rows: Rows) -> Rows:
        if not self._processors:
            return rows
        changed = [list(row) for row in rows]
        for place, process in self._processors:
            for row in changed:
                row[place] = process(row[place])
        return changed


def bind_processor(column_type: TypeEngine[Any], dialect: Dialect) -> Processor | None:
    """What the driver wants done to a value of this type, or None."""
    if isinstance(column_type, ARRAY) and bind_processor(column_type.item_type, dialect) is None:
        # SQLAlchemy would copy the list, an item at a time.
        return None
    return cast("Processor | None", column_type.dialect_impl(dialect).bind_processor(dialect))


def _result_processors(statement: Statement, dialect: Dialect) -> list[tuple[int, Processor]]:
    given_back = (
        statement.selected_columns
        if isinstance(statement, Select | CompoundSelect)
        else statement.returning_column_descriptions
    )
    types = [column["type"] if isinstance(column, dict) else column.type for column in given_back]
    found = []
    for place, column_type in enumerate(types):
        # Exact numbers come from both drivers as they are; asyncpg's processor asks for a code that only a cursor has.
        if isinstance(column_type, Numeric):
            continue
        process = column_type.dialect_impl(dialect).result_processor(dialect, None)
        if process is not None:
            found.append((place, process))
    return found


def fetch_rows(connection: Connection, sql: str, parameters: tuple[Any, ...]) -> Rows:
    """The rows of `sql`, past SQLAlchemy's cursor where the driver's own can be had."""
    raw = _own_sqlite(connection)
    if raw is not None:
        database_metrics.count_statement()
        try:
            return raw.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            _raise_wrapped(connection, sql, error)
    if postgres_statements.is_direct(connection):
        return postgres_statements.fetch(connection, sql, parameters)
    # The driver's cursor holds all its rows already; SQLAlchemy's rows would only be copies with names.
    cursor = connection.exec_driver_sql(sql, parameters).cursor
    return cast("Rows", cursor.fetchall())


def change_rows(connection: Connection, sql: str, parameters: tuple[Any, ...]) -> int:
    """Run `sql` and count the rows that it changed."""
    raw = _own_sqlite(connection)
    if raw is None:
        if postgres_statements.is_direct(connection):
            return postgres_statements.change(connection, sql, parameters)
        return connection.exec_driver_sql(sql, parameters).rowcount
    database_metrics.count_statement()
    try:
        return raw.execute(sql, parameters).rowcount
    except sqlite3.Error as error:
        _raise_wrapped(connection, sql, error)


def change_all(connection: Connection, spelled: Callable[[int], str], rows: Sequence[tuple[Any, ...]]) -> int:
    """Run `spelled(n)`, a statement over n rows at once, until all `rows` have had their turn, and count what changed.

    SQLite gives the interpreter's lock up at every statement, and getting it back beside a busy event loop takes
    longer than the row: few large statements let the loop and the disk work side by side. The sizes are powers of
    two, so that the driver keeps every statement compiled.
    """
    changed = place = 0
    while place < len(rows):
        size = min(ROWS_AT_ONCE, 1 << ((len(rows) - place).bit_length() - 1))
        values = tuple(chain.from_iterable(rows[place : place + size]))
        changed += change_rows(connection, spelled(size), values)
        place += size
    return changed


def run_raw(connection: Connection, sql: str) -> None:
    """Run `sql` on the SQLite connection that writes, as it stands: no transaction is begun for it."""
    try:
        cast("sqlite3.Connection", connection.connection.driver_connection).execute(sql)
    except sqlite3.Error as error:
        _raise_wrapped(connection, sql, error)


def _own_sqlite(connection: Connection) -> sqlite3.Connection | None:
    """The connection of the thread that writes, inside its transaction; None for any other driver."""
    if connection.dialect.driver != "pysqlite":
        return None
    if not connection.in_transaction():
        connection.begin()
    return cast("sqlite3.Connection", connection.connection.driver_connection)


def _raise_wrapped(connection: Connection, sql: str, error: sqlite3.Error) -> NoReturn:
    raise DBAPIError.instance(
        sql, None, error, sqlite3.Error, hide_parameters=True, dialect=connection.dialect
    ) from error
