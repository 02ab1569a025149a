"""SQLite: one thread owns the only connection that writes, and one process owns the file."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import queue
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from sqlalchemy import URL, Connection, create_engine, event
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool

from services.chassis import database_metrics, prepared_statements, storage_failures
from services.chassis.errors import Kind, ServiceError

log = logging.getLogger(__name__)

T = TypeVar("T")
Work = Callable[[Connection], Any]

QUEUE_LIMIT = 1_000
"""Transactions that may wait for the writer. Batches count as one each, so more waiting means that the disk
is stuck.
"""

BUSY_TIMEOUT_MS = 5_000
"""Only a stranger's tool (a backup, a shell) can hold the write lock; five seconds outlast a checkpoint or
a copy step.
"""

READERS = 4
"""Connections for reading; each is a thread of aiosqlite's, and more of them only fight over the
interpreter lock.
"""

READER_WAIT_S = 5.0

WAL_KEPT_BYTES = 64 * 1024 * 1024
"""The WAL file is cut back to this after a checkpoint, so that one long read does not leave a large file
for ever.
"""

NETWORK_FILE_SYSTEMS = frozenset(
    {
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "fuse.glusterfs",
        "fuse.sshfs",
        "glusterfs",
        "lustre",
        "nfs",
        "nfs4",
        "smb3",
        "smbfs",
    }
)
"""Their locks and shared memory do not do what WAL needs; SQLite's own documentation warns of corruption."""

MOUNTS = Path("/proc/mounts")

PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}",
    "PRAGMA temp_store = MEMORY",
    f"PRAGMA journal_size_limit = {WAL_KEPT_BYTES}",
)

SYNCHRONOUS_FULL = 2

UNWRITABLE_CODES = frozenset(
    {
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_NOMEM,
    }
)

_PRIMARY_CODE = 0xFF


class FileLock:
    """An exclusive lock beside a database file, held until released or until the process dies."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor: int | None = descriptor
        # A forked child shares the lock; without this it would keep the file locked after its parent's death.
        os.register_at_fork(after_in_child=self._forget)

    @classmethod
    def acquire(cls, database_path: Path) -> FileLock:
        """Lock `<database_path>.lock`. Raises ServiceError FAILED_PRECONDITION / DATABASE_IN_USE if
        somebody holds it.
        """
        path = database_path.with_name(database_path.name + ".lock")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip()
            os.close(descriptor)
            by = f"process {holder}" if holder else "another process"
            raise storage_failures.refused(
                "DATABASE_IN_USE",
                f"the database {database_path} is in use by {by}: one process owns a SQLite file; stop it first, "
                "or use PostgreSQL to run several",
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode("ascii"))
        return cls(path, descriptor)

    def release(self) -> None:
        """Give the lock back; harmless when done twice. The lock file stays: removing it would race with
        the next owner.
        """
        if self._descriptor is not None:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        self._forget()

    def _forget(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def prepare_file(path: Path) -> None:
    """Create the folder of a database file and the file itself, readable by its owner alone.

    Raises ServiceError FAILED_PRECONDITION on a network file system or where the file cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        path.chmod(0o600)
    except OSError as error:
        raise storage_failures.refused(
            "DATABASE_NOT_WRITABLE", f"the database file {path} cannot be written: {error.strerror}"
        ) from error
    file_system = _file_system_type(path)
    if file_system in NETWORK_FILE_SYSTEMS:
        raise storage_failures.refused(
            "DATABASE_ON_NETWORK_FILE_SYSTEM",
            f"the database file {path} lies on a network file system ({file_system}), where SQLite may corrupt it; "
            "use a local disk, or PostgreSQL",
        )


def _file_system_type(path: Path) -> str | None:
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    resolved = path.resolve()
    best: tuple[int, str] | None = None
    for line in lines:
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        mount_point = Path(fields[1].replace("\\040", " "))
        if resolved.is_relative_to(mount_point) and (best is None or len(mount_point.parts) >= best[0]):
            best = (len(mount_point.parts), fields[2])
    return best[1] if best else None


def connect_for_writing(path: Path) -> sqlite3.Connection:
    """A connection with every pragma set, in autocommit, so that transactions begin only where we say so."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=512)
    for pragma in PRAGMAS:
        connection.execute(pragma)
    mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
    synchronous = connection.execute("PRAGMA synchronous").fetchone()[0]
    if mode != "wal" or synchronous != SYNCHRONOUS_FULL:
        connection.close()
        raise storage_failures.refused(
            "DATABASE_NOT_DURABLE",
            f"the database {path} runs with journal_mode={mode} and synchronous={synchronous}, not WAL and FULL: "
            "an acknowledged commit could be lost",
        )
    return connection


@dataclass(slots=True)
class _Request:
    work: Work
    answer: asyncio.Future[Any]


class SqliteWriter:
    """The thread that owns the write connection of one database file and runs one transaction after the
    other.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._requests: queue.Queue[_Request | None] = queue.Queue(QUEUE_LIMIT)
        self._thread = threading.Thread(target=self._run, name=f"sqlite-{path.stem}", daemon=True)
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()

    async def start(self) -> None:
        """Open the file. Raises ServiceError FAILED_PRECONDITION if it cannot be opened durably."""
        self._thread.start()
        await self._opened

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in one BEGIN IMMEDIATE transaction on the thread; answers after COMMIT.

        A caller that is cancelled before its turn leaves nothing behind; after that its transaction runs to
        the end.
        """
        if self._closed:
            raise storage_failures.unavailable()
        answer: asyncio.Future[T] = self._loop.create_future()
        try:
            self._requests.put_nowait(_Request(work, answer))
        except queue.Full:
            raise ServiceError(
                Kind.RESOURCE_EXHAUSTED, "QUEUE_FULL", "too many requests are waiting, try again later"
            ) from None
        return await answer

    async def close(self) -> None:
        """Finish what is queued, checkpoint the WAL into the file, and end the thread."""
        if not self._closed:
            self._closed = True
            # The queue may be full; the thread empties it, so this waits off the loop.
            await asyncio.to_thread(self._requests.put, None)
        await asyncio.shield(self._ended)

    def _run(self) -> None:
        try:
            connection = self._open()
        except BaseException as error:
            self._post(self._opened, None, _as_refusal(error, self._path))
            self._post(self._ended, None, None)
            return
        self._post(self._opened, None, None)
        try:
            self._serve(connection)
            _checkpoint(connection)
        finally:
            connection.close()
            self._post(self._ended, None, None)

    def _open(self) -> Connection:
        engine = create_engine(
            "sqlite://",
            creator=lambda: connect_for_writing(self._path),
            poolclass=NullPool,
            # Errors are logged, and what a row holds is not for the log.
            hide_parameters=True,
        )
        event.listen(engine, "begin", begin_immediate)
        database_metrics.count_statements_of(engine)
        return engine.connect()

    def _serve(self, connection: Connection) -> None:
        while (request := self._requests.get()) is not None:
            if request.answer.cancelled():
                continue
            try:
                result = run_transaction(connection, request.work)
            except BaseException as error:
                self._post(request.answer, None, error)
            else:
                self._post(request.answer, result, None)
            # The next get() may block for long; it must not keep this batch alive.
            del request

    def _post(self, future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        try:
            self._loop.call_soon_threadsafe(_resolve, future, result, error)
        except RuntimeError:
            log.warning(
                "database.answer_dropped", extra={"detail": "the event loop ended before the writer thread"}
            )


def _resolve(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)


def begin_immediate(connection: Connection) -> None:
    """Listener of an engine's `begin` event: take the write lock at once, so that no transaction fails
    half-way.
    """
    prepared_statements.run_raw(connection, "BEGIN IMMEDIATE")


def _checkpoint(connection: Connection) -> None:
    try:
        connection.exec_driver_sql("PRAGMA optimize")
        connection.rollback()
        raw = connection.connection.driver_connection
        if isinstance(raw, sqlite3.Connection):
            raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    except (DBAPIError, sqlite3.Error):
        log.warning("database.checkpoint_failed", exc_info=True)


def run_transaction(connection: Connection, work: Callable[[Connection], T]) -> T:
    """Run `work` between BEGIN IMMEDIATE and COMMIT.

    Raises what `work` raises, after ROLLBACK, and the typed storage errors.
    """
    try:
        transaction = connection.begin()
        result = work(connection)
    except DBAPIError as error:
        _undo(connection)
        raise_typed(error)
    except BaseException:
        _undo(connection)
        raise
    try:
        transaction.commit()
    except IntegrityError:
        _undo(connection)
        raise
    except DBAPIError as error:
        # A failed fsync leaves frames in the WAL that recovery after a crash may or may not take for
        # committed.
        _undo(connection)
        raise storage_failures.commit_outcome_unknown() from error
    return result


def _undo(connection: Connection) -> None:
    connection.rollback()
    # After a COMMIT that failed SQLAlchemy thinks that nothing is open, and SQLite knows better.
    raw = connection.connection.driver_connection
    if isinstance(raw, sqlite3.Connection) and raw.in_transaction:
        raw.rollback()


def raise_typed(error: DBAPIError, *, reading: bool = False) -> NoReturn:
    """Raise `error` as one of the typed storage errors, or itself when it is a bug of the statement's
    author.
    """
    named = _named(error)
    if named is None or (reading and _primary_code(error) == sqlite3.SQLITE_READONLY):
        raise error
    raise named from error


def _primary_code(error: DBAPIError) -> int:
    return getattr(error.orig, "sqlite_errorcode", 0) & _PRIMARY_CODE


def _named(error: DBAPIError) -> ServiceError | None:
    primary = _primary_code(error)
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return storage_failures.contention()
    if primary in UNWRITABLE_CODES:
        return storage_failures.unavailable()
    return None


def _as_refusal(error: BaseException, path: Path) -> BaseException:
    if not isinstance(error, sqlite3.Error | DBAPIError):
        return error
    words = error.orig if isinstance(error, DBAPIError) else error
    return storage_failures.refused("DATABASE_UNREADABLE", f"the database {path} cannot be opened: {words}")


def reading_engine(path: Path) -> AsyncEngine:
    """A small pool of connections that can only read, each statement on its own snapshot of what is
    committed.
    """
    engine = create_async_engine(
        URL.create("sqlite+aiosqlite", database=str(path)),
        poolclass=AsyncAdaptedQueuePool,
        pool_size=READERS,
        max_overflow=0,
        pool_timeout=READER_WAIT_S,
        hide_parameters=True,
        isolation_level="AUTOCOMMIT",
        # In autocommit there is nothing to roll back, and each call is a trip to aiosqlite's thread and back.
        skip_autocommit_rollback=True,
        pool_reset_on_return=None,
    )
    event.listen(engine.sync_engine, "connect", _prepare_reader)
    database_metrics.count_statements_of(engine.sync_engine)
    return engine


def _prepare_reader(dbapi_connection: Any, _record: Any) -> None:
    cursor = dbapi_connection.cursor()
    cursor.execute("PRAGMA query_only = ON")
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA temp_store = MEMORY")
    cursor.close()
