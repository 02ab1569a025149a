"""One database per service, on SQLite or PostgreSQL, behind the same four verbs: open, read, write, close.

`work` is a plain synchronous function of a `sqlalchemy.Connection` on both engines. It may run more than
once (a lost connection, a batch tried again), so it must have no effect but through its connection, and it
must return plain values: a result that is still to be read does not outlive the transaction.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine

from services.chassis import postgres_writer, sqlite_writer, storage_failures
from services.chassis.database_address import Dialect, parse_url
from services.chassis.database_time import database_now_ms
from services.chassis.prepared_statements import Prepared, prepared
from services.chassis.read_together import read_together
from services.chassis.schema_migration import migrate, schema_drift
from services.chassis.set_statements import (
    insert_rows,
    insert_tuples,
    locked,
    member_of,
    member_of_named,
    update_rows,
    update_tuples,
    upsert_rows,
)
from services.chassis.storage_failures import CommitOutcomeUnknown
from services.chassis.write_together import Change, Insertion, Upsertion, write_together

__all__ = [
    "Change",
    "CommitOutcomeUnknown",
    "Database",
    "Insertion",
    "Prepared",
    "Upsertion",
    "database_now_ms",
    "insert_rows",
    "insert_tuples",
    "locked",
    "member_of",
    "member_of_named",
    "migrate",
    "prepared",
    "read_together",
    "schema_drift",
    "update_rows",
    "update_tuples",
    "upsert_rows",
    "write_together",
]

T = TypeVar("T")

WRITERS = 4
"""Write connections to PostgreSQL per process: one lane for each group commit and a spare for maintenance."""

READERS = 4
"""Read connections to PostgreSQL per process; an asyncio process is busy itself long before it uses more."""


class Database(ABC):
    """A service's own database."""

    dialect: Dialect

    sole_owner: bool
    """True when holding this database proves that no other process uses it (SQLite): a former owner is
    dead.
    """

    @classmethod
    async def open(cls, url: str, *, application_name: str) -> Database:
        """Open `sqlite:///path/file.db` or `postgresql://user@host/database`.

        Raises ServiceError FAILED_PRECONDITION with one sentence for the operator: DATABASE_IN_USE,
        DATABASE_NOT_DURABLE, DATABASE_TOO_OLD, DATABASE_ADDRESS; UNAVAILABLE / DATABASE_UNAVAILABLE if the
        server cannot be reached.
        """
        dialect, path = parse_url(url)
        if dialect == "sqlite":
            return await _SqliteDatabase.start(path)
        return await _PostgresDatabase.start(url, application_name)

    @abstractmethod
    async def read(self, work: Callable[[Connection], T], *, snapshot: bool = False) -> T:
        """Run `work` on a connection that can only read what is committed.

        Each statement sees its own moment, as READ COMMITTED gives it; with `snapshot` all of them see the
        same one.
        """

    @abstractmethod
    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in ONE transaction on the writer and answer after it is durable.

        Raises what `work` raises (rolled back); UNAVAILABLE / DATABASE_UNAVAILABLE (nothing was changed,
        or, as CommitOutcomeUnknown, perhaps); ABORTED / DATABASE_CONTENTION; RESOURCE_EXHAUSTED /
        QUEUE_FULL.
        """

    @abstractmethod
    async def close(self) -> None:
        """Finish what was accepted and let go of files, locks and connections. Harmless when done twice."""


class _SqliteDatabase(Database):
    dialect: Dialect = "sqlite"
    sole_owner = True

    def __init__(
        self, lock: sqlite_writer.FileLock, writer: sqlite_writer.SqliteWriter, readers: AsyncEngine
    ) -> None:
        self._lock = lock
        self._writer = writer
        self._readers = readers

    @classmethod
    async def start(cls, path: Path) -> Database:
        sqlite_writer.prepare_file(path)
        lock = sqlite_writer.FileLock.acquire(path)
        writer = sqlite_writer.SqliteWriter(path)
        try:
            await writer.start()
        except BaseException:
            lock.release()
            raise
        return cls(lock, writer, sqlite_writer.reading_engine(path))

    async def read(self, work: Callable[[Connection], T], *, snapshot: bool = False) -> T:
        try:
            async with self._readers.connect() as connection:
                if not snapshot:
                    return await connection.run_sync(work)
                await connection.exec_driver_sql("BEGIN")
                try:
                    result = await connection.run_sync(work)
                except BaseException:
                    # Cancelled or failed half-way: nobody knows where the connection stands, so it is not used again.
                    await connection.invalidate()
                    raise
                await connection.exec_driver_sql("ROLLBACK")
                return result
        except DBAPIError as error:
            sqlite_writer.raise_typed(error, reading=True)
        except PoolTimeoutError as error:
            raise storage_failures.unavailable() from error

    async def write(self, work: Callable[[Connection], T]) -> T:
        return await self._writer.write(work)

    async def close(self) -> None:
        await self._readers.dispose()
        await self._writer.close()
        self._lock.release()


class _PostgresDatabase(Database):
    dialect: Dialect = "postgresql"
    sole_owner = False

    def __init__(self, writers: AsyncEngine, readers: AsyncEngine) -> None:
        self._writers = writers
        self._readers = readers

    @classmethod
    async def start(cls, url: str, application_name: str) -> Database:
        writers = postgres_writer.open_engine(
            url,
            application_name=application_name,
            settings=postgres_writer.WRITER_SETTINGS,
            pool_size=WRITERS,
            direct=True,
        )
        readers = postgres_writer.open_engine(
            url,
            application_name=f"{application_name}-reader",
            settings=postgres_writer.READER_SETTINGS,
            pool_size=READERS,
            direct=True,
        )
        try:
            await postgres_writer.check_server(writers)
        except Exception as error:
            await writers.dispose()
            postgres_writer.raise_typed(error)
        return cls(writers, readers)

    async def read(self, work: Callable[[Connection], T], *, snapshot: bool = False) -> T:
        return await postgres_writer.run_reading(self._readers, work, snapshot=snapshot)

    async def write(self, work: Callable[[Connection], T]) -> T:
        return await postgres_writer.run_transaction(self._writers, work)

    async def close(self) -> None:
        await self._readers.dispose()
        await self._writers.dispose()
