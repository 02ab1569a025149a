"""The address of a database, as a setting spells it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from services.chassis.errors import ServiceError
from services.chassis.storage_failures import refused

Dialect = Literal["sqlite", "postgresql"]


def parse_url(url: str) -> tuple[Dialect, Path]:
    """The engine of `url` and, for SQLite, its file (else an empty path).

    Raises ServiceError FAILED_PRECONDITION / DATABASE_ADDRESS.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise _bad_address() from None
    backend = parsed.get_backend_name()
    if backend == "sqlite" and parsed.database and parsed.database != ":memory:":
        return "sqlite", Path(parsed.database).absolute()
    if backend in ("postgresql", "postgres"):
        return "postgresql", Path()
    raise _bad_address()


def _bad_address() -> ServiceError:
    # The address may hold a password, so it is not repeated.
    return refused(
        "DATABASE_ADDRESS",
        "a database address looks like sqlite:///path/file.db or postgresql://user@host/database",
    )
