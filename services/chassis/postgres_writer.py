"""PostgreSQL: pools of asyncpg connections whose sessions are set for the work they do, and their failures
by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

import asyncpg
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from services.chassis import database_metrics, postgres_statements, storage_failures
from services.chassis.errors import ServiceError

T = TypeVar("T")

OLDEST_VERSION = 150_000
"""PostgreSQL 15, the oldest release that the conformance suite has been run on."""

CONNECT_TIMEOUT_S = 5.0
POOL_WAIT_S = 5.0
COMMAND_TIMEOUT_S = 12.0
"""Longer than the server's own statement time-out: it only fires when the network swallows the answer."""

STATEMENTS_KEPT = 500
"""Prepared statements kept per connection; a service has fewer shapes of statements than that."""

WRITER_SETTINGS: Mapping[str, str] = {
    # A generic plan made while a table was empty is a hash join over a sequential scan, and asyncpg keeps
    # it: ten times slower within seconds. Batches name their rows by key, so an index is always right for a
    # writer.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
    "lock_timeout": "5s",
    "statement_timeout": "10s",
    "idle_in_transaction_session_timeout": "15s",
    "default_transaction_isolation": "read committed",
    "timezone": "UTC",
}

READER_SETTINGS: Mapping[str, str] = {
    "default_transaction_read_only": "on",
    "jit": "off",
    "lock_timeout": "5s",
    "statement_timeout": "10s",
    "idle_in_transaction_session_timeout": "15s",
    "default_transaction_isolation": "read committed",
    "timezone": "UTC",
}

MIGRATION_SETTINGS: Mapping[str, str] = {"jit": "off", "timezone": "UTC"}

CONTENTION_STATES = frozenset({"40001", "40P01", "55P03", "57014"})
"""serialization_failure, deadlock_detected, lock_not_available, query_canceled (statement time-out)."""

READ_ONLY_STATE = "25006"

SNAPSHOT = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"

UNAVAILABLE_STATES = frozenset({"57P01", "57P02", "57P03", "53100", "53200", "53300", "25006"})
"""admin_shutdown, crash_shutdown, cannot_connect_now, disk_full, out_of_memory, too_many_connections, and
read_only_sql_transaction (a standby after a failover)."""


def plain_url(url: str) -> str:
    """The address in the form that asyncpg reads: postgresql://user@host/database with libpq's parameters."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme.partition('+')[0]}{separator}{rest}"


def open_engine(
    url: str, *, application_name: str, settings: Mapping[str, str], pool_size: int, direct: bool = False
) -> AsyncEngine:
    """An engine whose sessions carry `settings`; it connects on first use.

    With `direct` its transactions are begun and ended by `run_transaction` and `run_reading` only.
    """
    server_settings = {**settings, "application_name": application_name}
    migrating = settings is MIGRATION_SETTINGS

    async def connect(*_args: Any, **_options: Any) -> asyncpg.Connection[Any]:
        return await asyncpg.connect(
            plain_url(url),
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=None if migrating else COMMAND_TIMEOUT_S,
            # For those sent past SQLAlchemy, whose dialect keeps its own.
            statement_cache_size=STATEMENTS_KEPT,
            max_cached_statement_lifetime=0,
            server_settings=server_settings,
        )

    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        connect_args={"prepared_statement_cache_size": STATEMENTS_KEPT},
        poolclass=AsyncAdaptedQueuePool,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=POOL_WAIT_S,
        # Errors are logged, and what a row holds is not for the log.
        hide_parameters=True,
        isolation_level="AUTOCOMMIT" if direct else "READ COMMITTED",
    )
    database_metrics.count_statements_of(engine.sync_engine)
    return postgres_statements.speak_directly(engine) if direct else engine


async def check_server(engine: AsyncEngine) -> None:
    """Raise ServiceError FAILED_PRECONDITION for a server that is too old or may lose acknowledged commits."""
    async with engine.connect() as connection:
        row = (
            await connection.exec_driver_sql(
                "SELECT current_setting('server_version_num')::int AS number, current_setting('server_version') AS version,"
                " current_setting('synchronous_commit') AS synchronous_commit, current_setting('server_encoding') AS encoding"
            )
        ).one()
    if row.number < OLDEST_VERSION:
        raise storage_failures.refused(
            "DATABASE_TOO_OLD", f"the server is PostgreSQL {row.version}; 15 or later is needed"
        )
    if row.synchronous_commit == "off":
        raise storage_failures.refused(
            "DATABASE_NOT_DURABLE",
            "the server runs with synchronous_commit=off: an acknowledged commit could be lost",
        )
    if row.encoding != "UTF8":
        raise storage_failures.refused(
            "DATABASE_NOT_UTF8", f"the database is encoded in {row.encoding}; UTF8 is needed"
        )


async def run_transaction(engine: AsyncEngine, work: Callable[[Connection], T]) -> T:
    """Run `work` in one transaction. Raises what it raises, after ROLLBACK, and the typed storage errors.

    A connection that breaks before COMMIT is replaced once: a pool holds dead connections after every
    restart of the server.
    """
    try:
        try:
            return await _write_once(engine, work)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
            # Its neighbours in the pool are as dead.
            await engine.dispose()
            return await _write_once(engine, work)
    except Exception as error:
        raise_typed(error)


async def _write_once(engine: AsyncEngine, work: Callable[[Connection], T]) -> T:
    async with engine.connect() as connection:
        return await _transact(connection, work)


async def _transact(connection: AsyncConnection, work: Callable[[Connection], T]) -> T:
    await postgres_statements.begin(connection)
    result = await _within(connection, work)
    try:
        await postgres_statements.commit(connection)
    except Exception as error:
        if _says_not_committed(error):
            raise
        await connection.invalidate()
        raise storage_failures.commit_outcome_unknown() from error
    except BaseException:
        await connection.invalidate()
        raise
    return result


async def _within(connection: AsyncConnection, work: Callable[[Connection], T]) -> T:
    try:
        return await connection.run_sync(work)
    except TimeoutError:
        await connection.invalidate()
        raise
    except BaseException:
        await postgres_statements.roll_back(connection)
        raise


def _says_not_committed(error: Exception) -> bool:
    """Whether the server itself said that COMMIT failed: then the transaction is known to be undone."""
    if isinstance(error, postgres_statements.NothingKeptError):
        return True
    state = _sqlstate(error)
    return state is not None and not state.startswith("08") and state not in UNAVAILABLE_STATES


async def run_reading(engine: AsyncEngine, work: Callable[[Connection], T], *, snapshot: bool) -> T:
    """Run `work` on a reader; once more on a fresh connection if the pooled one turned out to be dead."""
    try:
        try:
            return await _read_once(engine, work, snapshot=snapshot)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
            await engine.dispose()
            return await _read_once(engine, work, snapshot=snapshot)
    except Exception as error:
        raise_typed(error, reading=True)


async def _read_once(engine: AsyncEngine, work: Callable[[Connection], T], *, snapshot: bool) -> T:
    async with engine.connect() as connection:
        if not snapshot:
            try:
                return await connection.run_sync(work)
            except TimeoutError:
                await connection.invalidate()
                raise
        await postgres_statements.begin(connection, SNAPSHOT)
        result = await _within(connection, work)
        await postgres_statements.roll_back(connection)
        return result


def _sqlstate(error: BaseException) -> str | None:
    origin = error.orig if isinstance(error, DBAPIError) else error
    state = getattr(origin, "sqlstate", None)
    return state if isinstance(state, str) else None


def raise_typed(error: Exception, *, reading: bool = False) -> NoReturn:
    """Raise `error` as one of the typed storage errors, or itself when neither server nor network is to
    blame.
    """
    named = _named(error)
    if named is None or (reading and _sqlstate(error) == READ_ONLY_STATE):
        raise error
    raise named from error


def _named(error: Exception) -> ServiceError | None:
    state = _sqlstate(error)
    if state in CONTENTION_STATES:
        return storage_failures.contention()
    if state in UNAVAILABLE_STATES or (state is not None and state.startswith("08")):
        return storage_failures.unavailable()
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return storage_failures.unavailable()
    if isinstance(error, OSError | PoolTimeoutError | asyncpg.InterfaceError):
        return storage_failures.unavailable()
    return None
