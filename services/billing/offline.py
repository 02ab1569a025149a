"""Reading a database beside the process that owns it."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import NullPool

from services.billing.audit import Report
from services.billing.verification import Reader, verify
from services.chassis.database import Database
from services.chassis.database_address import parse_url
from services.chassis.errors import Kind, ServiceError

T = TypeVar("T")

# The owner writes in short transactions; only a checkpoint can be in the way, and that for moments.
BUSY_TIMEOUT_S = 5.0


async def verify_stored(url: str) -> Report:
    """Verify the database at `url`. Raises what `reader` raises."""
    async with reader(url) as read:
        return await verify(read)


@asynccontextmanager
async def reader(url: str) -> AsyncIterator[Reader]:
    """Runs functions of a connection that can only read; takes no lock, so the owner may be running or not.

    Raises ServiceError FAILED_PRECONDITION where there is no such database.
    """
    dialect, path = parse_url(url)
    if dialect == "postgresql":
        database = await Database.open(url, application_name="atelier-billing-verify")
        try:
            yield partial(database.read, snapshot=True)
        finally:
            await database.close()
        return
    if not path.is_file():
        raise ServiceError(Kind.FAILED_PRECONDITION, "DATABASE_MISSING", f"there is no database {path}")
    engine = create_engine("sqlite://", creator=lambda: _open_read_only(path), poolclass=NullPool)

    async def read(work: Callable[[Connection], T], /) -> T:
        with engine.connect() as connection:
            # Python's driver begins no transaction for a SELECT, and without one there is no snapshot.
            connection.exec_driver_sql("BEGIN")
            return work(connection)

    yield read


def _open_read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=BUSY_TIMEOUT_S)
