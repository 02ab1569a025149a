"""Clocks for tests."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

T0_MS = 1_800_000_000_000


@dataclass
class HandClock:
    """A clock that stands still until it is moved."""

    at_ms: int = T0_MS

    def now_ms(self) -> int:
        return self.at_ms

    def monotonic_s(self) -> float:
        return self.at_ms / 1000

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(0)
        self.at_ms += int(delay_s * 1000)
