"""The access log: one JSON line a request, written many at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

import msgspec

from services.chassis.clock import rfc3339
from services.chassis.logs import to_stderr

# Long enough to gather a write, short enough that a tail looks live.
_FLUSH_AFTER_S: Final = 0.2
# A pipe takes 64 KiB at once.
_FLUSH_BYTES: Final = 60_000


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One request. Never a query, a body, a credential or a media path: links are credentials too."""

    time: str
    level: str
    service: str
    event: str
    request_id: str
    method: str
    route: str
    status: int
    duration_ms: float
    customer_id: str = ""
    job_id: str = ""
    reason: str = ""


class AccessLog:
    """Gathers lines for a moment: a write for each would cost more than the rest of the request's bookkeeping."""

    def __init__(self, write: Callable[[bytes], object] = to_stderr) -> None:
        self._write = write
        self._buffer = bytearray()
        self._flush_due: asyncio.TimerHandle | None = None
        self._encoder = msgspec.json.Encoder()

    def add(
        self,
        *,
        request_id: str,
        method: str,
        route: str,
        status: int,
        duration_s: float,
        customer_id: str = "",
        job_id: str = "",
        reason: str = "",
    ) -> None:
        """Notes one answered request."""
        line = Line(
            time=rfc3339(time.time_ns() // 1_000_000),
            level="info" if status < 500 else "warning",
            service="gateway",
            event="request",
            request_id=request_id,
            method=method,
            route=route,
            status=status,
            duration_ms=round(duration_s * 1000, 3),
            customer_id=customer_id,
            job_id=job_id,
            reason=reason,
        )
        self._buffer += self._encoder.encode(line)
        self._buffer += b"\n"
        if len(self._buffer) >= _FLUSH_BYTES:
            self.flush()
        elif self._flush_due is None:
            self._flush_due = asyncio.get_running_loop().call_later(_FLUSH_AFTER_S, self.flush)

    def flush(self) -> None:
        """Writes what was gathered; also for the end of the process."""
        if self._flush_due is not None:
            self._flush_due.cancel()
            self._flush_due = None
        if self._buffer:
            data, self._buffer = bytes(self._buffer), bytearray()
            self._write(data)
