"""Logs: one JSON object a line on standard error, with the ids that join lines across processes."""

from __future__ import annotations

import logging
import sys
import traceback
from typing import Any

import msgspec

from services.chassis import call_context
from services.chassis.clock import rfc3339

# The attributes that every LogRecord has; whatever else is on it came in through `extra`.
_STANDARD = frozenset(vars(logging.LogRecord("", 0, "", 0, "", None, None))) | {
    "message",
    "asctime",
    "taskName",
}
_encode = msgspec.json.Encoder(enc_hook=str).encode


class JsonLines(logging.Formatter):
    """Formats a record as one JSON line: time, level, service, event, ids, extras."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": rfc3339(int(record.created * 1000)),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "event": record.getMessage(),
        }
        context = call_context.current()
        if context.request_id:
            line["request_id"] = context.request_id
        if context.fence:
            line["fence"] = context.fence
        line.update({key: value for key, value in vars(record).items() if key not in _STANDARD})
        if record.exc_info and record.exc_info[0] is not None:
            line["traceback"] = "".join(traceback.format_exception(*record.exc_info))
        return _encode(line).decode()


def configure(service: str, level: str) -> None:
    """Makes the root logger write JSON lines at `level` (debug, info, warning, error)."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(service))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # A line per connection and per statement would drown what an operator looks for.
    for noisy in ("aiohttp.access", "sqlalchemy.engine", "aiosqlite", "asyncio", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
