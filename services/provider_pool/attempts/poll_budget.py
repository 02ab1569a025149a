"""How often one account may be asked about its tasks: a token bucket that a provider's 429 empties."""

from __future__ import annotations

from services.chassis.clock import Clock

_PAUSE_S = 5.0
"""After a 429 without Retry-After."""

_LONGEST_PAUSE_S = 60.0
"""Callers stop waiting long before; the next of them finds out whether the provider answers again."""


class PollBudget:
    """`rate` questions a second, `burst` of them at once."""

    def __init__(self, rate: float, burst: int, clock: Clock) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._clock = clock
        self._tokens = float(burst)
        self._counted_s = clock.monotonic_s()

    async def take(self, wanted: int = 1) -> int:
        """Wait until one more question may be asked; how many may be, of those wanted. For one asker at a time."""
        self._refill()
        if self._tokens < 1:
            await self._clock.sleep((1 - self._tokens) / self._rate)
            self._refill()
        granted = max(1, min(wanted, int(self._tokens)))
        self._tokens -= granted
        return granted

    def pause(self, retry_after_s: float | None) -> None:
        """The provider wants fewer questions."""
        pause_s = min(retry_after_s or _PAUSE_S, _LONGEST_PAUSE_S)
        self._refill()
        self._tokens = min(self._tokens, 1 - pause_s * self._rate)

    def _refill(self) -> None:
        now_s = self._clock.monotonic_s()
        self._tokens = min(self._burst, self._tokens + (now_s - self._counted_s) * self._rate)
        self._counted_s = now_s
