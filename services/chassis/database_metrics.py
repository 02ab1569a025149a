"""What a service asks of its database, in numbers that do not depend on the machine's mood."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from prometheus_client import Counter
from sqlalchemy import Engine, event

_STATEMENTS: Final = Counter(
    "atelier_database_statements_total",
    "Statements run, by the batch they were run for; BEGIN and COMMIT are not counted.",
    ["batch"],
)
# Reads, sweeps, heartbeats: whatever is not the work of a group commit.
_ELSE: Final = _STATEMENTS.labels("none")
_CURRENT: Final[ContextVar[Counter | None]] = ContextVar("statements", default=None)


@contextmanager
def counted_for(batch: str) -> Iterator[None]:
    """Statements run inside of the `with` are counted under this name."""
    token = _CURRENT.set(_STATEMENTS.labels(batch))
    try:
        yield
    finally:
        _CURRENT.reset(token)


def count_statement() -> None:
    """Counts one statement that goes to the driver past SQLAlchemy."""
    (_CURRENT.get() or _ELSE).inc()


def count_statements_of(engine: Engine) -> None:
    """Counts every statement that SQLAlchemy sends through `engine`."""
    event.listen(engine, "before_cursor_execute", _count)


def _count(*_: Any) -> None:
    count_statement()
