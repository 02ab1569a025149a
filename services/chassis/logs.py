"""Logs: one JSON object a line on standard error, with the ids that join lines across processes.

A line costs a few microseconds, because a busy service writes several for every job: lines are gathered for a
moment and written together, and nobody looks for the caller's file and line, which no line shows.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import msgspec

from services.chassis import call_context
from services.chassis.clock import rfc3339

# Long enough to gather a write, short enough that a tail looks live. A process that is killed loses so much.
_FLUSH_AFTER_S: Final = 0.1
# A pipe takes 64 KiB at once.
_FLUSH_BYTES: Final = 60_000
_encode = msgspec.json.Encoder(enc_hook=str).encode


class _Record(logging.LogRecord):
    """What a line is made of. The rest of a record's attributes stay empty: finding them costs more than the line."""

    def __init__(
        self,
        name: str,
        level: int,
        pathname: str,
        lineno: int,
        msg: object,
        args: Any,
        exc_info: Any,
        func: str | None = None,
        sinfo: str | None = None,
        **kwargs: object,
    ) -> None:
        self.name = name
        self.levelno = level
        self.levelname = logging.getLevelName(level)
        self.msg = msg
        self.args = args
        self.exc_info = exc_info
        self.created = time.time()


# Whatever else is on a record came in through `extra`.
_STANDARD: Final = frozenset(vars(logging.LogRecord("", 0, "", 0, "", None, None))) | {
    "message",
    "asctime",
    "taskName",
}


class JsonLines(logging.Formatter):
    """Formats a record as one JSON line: time, level, service, event, ids, extras."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        return self.line(record).decode()

    def line(self, record: logging.LogRecord) -> bytes:
        """The line as it is written, without its end."""
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
        try:
            return _encode(line)
        except UnicodeEncodeError:
            # Half a character, as a stranger's header may hold: escaped, it is still a line.
            return json.dumps(line, default=str).encode()


def to_stderr(lines: bytes) -> None:
    """Writes whole lines, at once."""
    sys.stderr.buffer.write(lines)
    sys.stderr.buffer.flush()


class GatheredLines(logging.Handler):
    """Writes lines together, at the latest `_FLUSH_AFTER_S` after the first; a warning at once, with all before it."""

    def __init__(self, formatter: JsonLines, write: Callable[[bytes], object] = to_stderr) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self._lines = formatter.line
        self._write = write
        self._buffer = bytearray()
        self._waiting = threading.Event()
        # What the parent gathered is the parent's to write.
        os.register_at_fork(after_in_child=self._buffer.clear)
        threading.Thread(target=self._flush_for_ever, name="log-lines", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._buffer += self._lines(record)
            self._buffer += b"\n"
            if record.levelno >= logging.WARNING or len(self._buffer) >= _FLUSH_BYTES:
                self.flush()
            elif not self._waiting.is_set():
                self._waiting.set()
        except Exception:  # what cannot be written must not end the work that it tells of
            self.handleError(record)

    def flush(self) -> None:
        """Writes what waits; at exit `logging` calls this."""
        with self._locked():
            lines = bytes(self._buffer)
            self._buffer.clear()
            self._waiting.clear()
            if lines:
                self._write(lines)

    def _locked(self) -> threading.RLock:
        assert self.lock is not None
        return self.lock

    def _flush_for_ever(self) -> None:
        while True:
            self._waiting.wait()
            time.sleep(_FLUSH_AFTER_S)
            # A full disk takes these lines; those after them may fit again.
            with suppress(OSError, ValueError):
                self.flush()


def configure(service: str, level: str) -> None:
    """Makes the root logger write JSON lines at `level` (debug, info, warning, error)."""
    # Both are the standard library's own switches for lines that name no place in the source.
    logging._srcfile = None  # noqa: SLF001 - documented so, in the logging how-to under "Optimization"
    logging.setLogRecordFactory(_Record)
    root = logging.getLogger()
    root.handlers[:] = [GatheredLines(JsonLines(service))]
    root.setLevel(level.upper())
    # A line per connection and per statement would drown what an operator looks for.
    for noisy in ("aiohttp.access", "sqlalchemy.engine", "aiosqlite", "asyncio", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
