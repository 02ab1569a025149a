"""`LEDGER_FAULTS=… python -m tests.faults.ledger_faulty`: the billing service as it always runs, with faults built in.

`early`: every answer leaves before COMMIT is sent. `gate=PATH`: while PATH exists no sync of SQLite's write-ahead log
returns, and PATH.waiting appears as soon as one is asked for.
"""

from __future__ import annotations

import _sqlite3
import asyncio
import ctypes
import os
import runpy
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, text

from services.chassis.database import Database

T = TypeVar("T")
Write = Callable[[Callable[[Connection], Any]], Awaitable[Any]]

FAULTS = "LEDGER_FAULTS"
# What a slow disk takes for one sync; without it COMMIT would often win the race against the answer.
SLOW_COMMIT_S = 0.005
# On SQLite, where one writer does all in turn, a very slow one, so that a blow nearly always falls between the two; beside
# it PostgreSQL would take the next transaction before this one's rows are there.
VERY_SLOW_COMMIT_S = 0.05


def early(write: Write) -> Write:
    """`write`, answering as soon as the statements have run; COMMIT follows."""
    commits: set[asyncio.Future[Any]] = set()

    async def hasty(work: Callable[[Connection], T]) -> T:
        loop = asyncio.get_running_loop()
        ran: asyncio.Future[T] = loop.create_future()

        def told(connection: Connection) -> T:
            result = work(connection)
            loop.call_soon_threadsafe(_tell, ran, result)
            if connection.dialect.name == "postgresql":
                connection.execute(text(f"SELECT pg_sleep({SLOW_COMMIT_S})"))
            else:
                time.sleep(VERY_SLOW_COMMIT_S)
            return result

        commit = asyncio.ensure_future(write(told))
        commits.add(commit)
        commit.add_done_callback(commits.discard)
        await asyncio.wait({ran, commit}, return_when=asyncio.FIRST_COMPLETED)
        return ran.result() if ran.done() else await commit

    return hasty


def _tell(answer: asyncio.Future[T], result: T) -> None:
    if not answer.done():
        answer.set_result(result)


def answer_early() -> None:
    """Make every database that is opened from now on hasty."""
    opened = Database.open

    async def hasty_open(url: str, **options: Any) -> Database:
        database = await opened(url, **options)
        setattr(database, "write", early(database.write))  # noqa: B010 - mypy knows that nobody should
        return database

    setattr(Database, "open", staticmethod(hasty_open))  # noqa: B010


# Addresses stay numbers: SQLite keeps more behind a file's name than a copy of it would hold.
_OPEN = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p
)
_SYNC = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)


class _Vfs(ctypes.Structure):
    """The beginning of SQLite's sqlite3_vfs, as far as xOpen."""

    _fields_ = (
        ("version", ctypes.c_int),
        ("file_size", ctypes.c_int),
        ("longest_path", ctypes.c_int),
        ("next", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("app_data", ctypes.c_void_p),
        ("open", ctypes.c_void_p),
    )


# sqlite3_io_methods: a version, then eighteen functions: xClose, xRead, xWrite, xTruncate, xSync, …
_METHODS = 19
_SYNC_SLOT = 5
# What SQLite calls from now on lives as long as the process; nothing that Python sees refers to it.
_KEPT: list[object] = []


class Gate:
    """Stands before every sync of a write-ahead log, by taking the place of SQLite's own function for it."""

    def __init__(self, closed: Path) -> None:
        self._closed = closed
        self._tables: dict[int, ctypes.Array[ctypes.c_void_p]] = {}

    def install(self) -> None:
        # The library that Python's own module uses: another copy of SQLite would have another table.
        library = ctypes.CDLL(getattr(_sqlite3, "__file__", None))
        library.sqlite3_vfs_find.restype = ctypes.POINTER(_Vfs)
        vfs = library.sqlite3_vfs_find(None).contents
        own_open = _OPEN(vfs.open)

        def gated_open(own: int, name: int, file: int, flags: int, out: int) -> int:
            code = int(own_open(own, name, file, flags, out))
            if code == 0 and name and ctypes.string_at(name).endswith(b"-wal"):
                # A file begins with the address of its functions.
                methods = ctypes.c_void_p.from_address(file)
                methods.value = ctypes.addressof(self._gated(methods.value or 0))
            return code

        opened = _OPEN(gated_open)
        _KEPT.extend([own_open, opened])
        vfs.open = ctypes.cast(opened, ctypes.c_void_p).value

    def _gated(self, methods: int) -> ctypes.Array[ctypes.c_void_p]:
        if methods not in self._tables:
            table = (ctypes.c_void_p * _METHODS).from_buffer_copy(
                (ctypes.c_void_p * _METHODS).from_address(methods)
            )
            own_sync = _SYNC(table[_SYNC_SLOT] or 0)

            def sync(file: int, flags: int) -> int:
                while self._closed.exists():
                    self._closed.with_suffix(".waiting").touch()
                    time.sleep(0.002)
                return int(own_sync(file, flags))

            gated = _SYNC(sync)
            _KEPT.extend([own_sync, gated])
            table[_SYNC_SLOT] = ctypes.cast(gated, ctypes.c_void_p).value
            self._tables[methods] = table
        return self._tables[methods]


def main() -> None:
    for fault in os.environ[FAULTS].split(","):
        name, _, value = fault.partition("=")
        if name == "early":
            answer_early()
        elif name == "gate":
            Gate(Path(value)).install()
        else:
            sys.exit(f"there is no fault {name!r}")
    sys.argv = ["services.billing"]
    runpy.run_module("services.billing", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
