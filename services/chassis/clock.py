"""Time as an argument: services ask a clock, tests hold its hands."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol


class Clock(Protocol):
    """Wall time for records, monotonic time for waits."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch, UTC."""
        ...

    def monotonic_s(self) -> float:
        """Seconds that never go backwards; meaningful only as a difference."""
        ...

    async def sleep(self, delay_s: float) -> None:
        """Returns after `delay_s` seconds."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        return time.monotonic()

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)


def rfc3339(epoch_ms: int) -> str:
    """`2026-06-29T10:00:00.000Z` for milliseconds since the epoch."""
    seconds, millis = divmod(epoch_ms, 1000)
    return f"{_to_the_second(seconds)}.{millis:03d}Z"


def rfc3339_s(epoch_ms: int) -> str:
    """`2026-06-29T10:00:00Z`: the whole seconds of milliseconds since the epoch."""
    return f"{_to_the_second(epoch_ms // 1000)}Z"


# Log lines and answers of one moment share their second, and formatting a date costs more than all else about them.
@lru_cache(maxsize=256)
def _to_the_second(epoch_s: int) -> str:
    return f"{datetime.fromtimestamp(epoch_s, UTC):%Y-%m-%dT%H:%M:%S}"
