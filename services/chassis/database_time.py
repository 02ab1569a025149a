"""The clock of the database itself, spelled for SQLite and PostgreSQL."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, ColumnElement
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement


class _DatabaseNowMs(FunctionElement[int]):
    name = "database_now_ms"
    type = BigInteger()
    inherit_cache = True


@compiles(_DatabaseNowMs, "sqlite")
def _now_on_sqlite(_element: _DatabaseNowMs, _compiler: SQLCompiler, **_options: Any) -> str:
    # Integer arithmetic: julianday() is a float and is off by a millisecond now and then.
    return (
        "(CAST(strftime('%s', 'now') AS INTEGER) * 1000 + CAST(substr(strftime('%f', 'now'), 4) AS INTEGER))"
    )


@compiles(_DatabaseNowMs, "postgresql")
def _now_on_postgresql(_element: _DatabaseNowMs, _compiler: SQLCompiler, **_options: Any) -> str:
    # statement_timestamp() is STABLE, so a comparison with it may use an index; clock_timestamp() may not.
    return "CAST(floor(extract(epoch FROM statement_timestamp()) * 1000) AS BIGINT)"


def database_now_ms() -> ColumnElement[int]:
    """The engine's own clock at the start of the statement, in milliseconds since the epoch (UTC)."""
    return _DatabaseNowMs()
