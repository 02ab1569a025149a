"""PostgreSQL in asyncpg's own words: a prepared statement without SQLAlchemy's cursor, transactions without its adapter.

The adapter costs 0.15 ms of CPU a statement and 0.4 ms a transaction, several times what asyncpg needs for them. Only
engines that `speak_directly` are used so: their SQLAlchemy side never begins anything, so that both ways of sending a
statement meet in the transaction that was begun here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NoReturn, TypeVar, cast

import asyncpg
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.chassis import database_metrics

T = TypeVar("T")

_DIRECT: Final = "statements_in_the_drivers_words"

INTEGRITY_STATES: Final = "23"
"""SQLSTATE's class of constraints that were violated."""

Rows = Sequence[Sequence[Any]]


class NothingKeptError(RuntimeError):
    """A failed statement had ended the transaction before its COMMIT: a bug of whoever hid that failure."""


def speak_directly(engine: AsyncEngine) -> AsyncEngine:
    """`engine`, which must be in AUTOCOMMIT, with prepared statements sent past SQLAlchemy."""
    return engine.execution_options(**{_DIRECT: True})


def is_direct(connection: Connection) -> bool:
    """Whether prepared statements of this connection may be sent here."""
    return _DIRECT in connection.get_execution_options()


def fetch(connection: Connection, sql: str, parameters: tuple[Any, ...]) -> Rows:
    """The rows of `sql`. Raises DBAPIError as SQLAlchemy would."""
    return cast("Rows", _sent(connection, sql, lambda raw: raw.fetch(sql, *parameters)))


def change(connection: Connection, sql: str, parameters: tuple[Any, ...]) -> int:
    """Run `sql` and count the rows that it changed. Raises DBAPIError as SQLAlchemy would."""
    # "UPDATE 3", "INSERT 0 3": the number comes last.
    status = _sent(connection, sql, lambda raw: raw.execute(sql, *parameters))
    return int(status.rpartition(" ")[2])


async def begin(connection: AsyncConnection, words: str = "BEGIN") -> None:
    """Begin a transaction. Raises DBAPIError, with the connection invalidated, where it turned out to be dead."""
    try:
        await _driver(connection).execute(words)
    except BaseException as error:
        await connection.invalidate()
        if isinstance(error, Exception):
            raise _wrapped(words, error, dead=True) from error
        raise


async def commit(connection: AsyncConnection) -> None:
    """Commit. Raises DBAPIError, and NothingKeptError where a failure was swallowed and nothing was kept."""
    driver = _driver(connection)
    try:
        status = await driver.execute("COMMIT;")
    except asyncpg.PostgresError as error:
        raise _wrapped("COMMIT", error, dead=driver.is_closed()) from error
    if status != "COMMIT":
        raise NothingKeptError(f"a statement of this transaction failed and nobody said so: {status}")


async def roll_back(connection: AsyncConnection) -> None:
    """End the transaction without its changes; where that cannot be said to the server, without its connection."""
    if connection.invalidated:
        return
    try:
        await _driver(connection).execute("ROLLBACK;")
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        await connection.invalidate()
    except asyncio.CancelledError:
        await connection.invalidate()
        raise


def _driver(connection: AsyncConnection) -> asyncpg.Connection[Any]:
    under = connection.sync_connection
    assert under is not None
    return cast("asyncpg.Connection[Any]", under.connection.driver_connection)


def _sent(connection: Connection, sql: str, send: Callable[[Any], Awaitable[T]]) -> T:
    database_metrics.count_statement()
    adapted = cast("Any", connection.connection.dbapi_connection)
    try:
        return cast("T", adapted.run_async(send))
    except TimeoutError:
        raise
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        _raise_wrapped(connection, sql, error)


def _raise_wrapped(connection: Connection, sql: str, error: Exception) -> NoReturn:
    driver = cast("asyncpg.Connection[Any]", connection.connection.driver_connection)
    dead = driver.is_closed()
    if dead:
        connection.invalidate(error)
    raise _wrapped(sql, error, dead=dead) from error


def _wrapped(sql: str, error: Exception, *, dead: bool) -> DBAPIError:
    state = getattr(error, "sqlstate", None) or ""
    kind = IntegrityError if state.startswith(INTEGRITY_STATES) else DBAPIError
    return kind(sql, None, error, hide_parameters=True, connection_invalidated=dead)
