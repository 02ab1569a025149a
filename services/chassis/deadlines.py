"""Many deadlines with one timer: those that lie close together are looked at together.

A busy service gives thousands of calls a second a deadline and takes nearly all of them back within milliseconds; a
timer of the event loop for each cost more than the message that carries the call.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

# How late a deadline may be noticed: less than what each hop of a call keeps of it for itself.
TICK_S: Final = 0.02

K = TypeVar("K", bound=Hashable)


class Deadlines(Generic[K]):
    """Calls `expire(key)` soon after the deadline of a key that is still here: never early, `TICK_S` late at most."""

    def __init__(self, expire: Callable[[K], None]) -> None:
        self._expire = expire
        self._due: dict[int, dict[K, None]] = {}
        self._tick_of: dict[K, int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._looks_at = 0

    def set(self, key: K, deadline_s: float) -> None:
        """Gives `key`, which has none, a deadline by `time.monotonic()`."""
        tick = int(deadline_s / TICK_S) + 1
        self._tick_of[key] = tick
        due = self._due.get(tick)
        if due is None:
            due = self._due[tick] = {}
        due[key] = None
        if self._timer is None or tick < self._looks_at:
            self._look_at(tick)

    def drop(self, key: K) -> None:
        """Takes the deadline back; harmless where there is none."""
        tick = self._tick_of.pop(key, None)
        if tick is None:
            return
        due = self._due.get(tick)
        if due is not None:
            due.pop(key, None)
            if not due:
                del self._due[tick]

    def close(self) -> None:
        """Lets go of the timer, and with it of whoever `expire` belongs to."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_at(self, tick: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._looks_at = tick
        delay_s = max(0.0, tick * TICK_S - time.monotonic())
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._look)

    def _look(self) -> None:
        self._timer = None
        now_tick = int(time.monotonic() / TICK_S)
        for tick in sorted(tick for tick in self._due if tick <= now_tick):
            # What is done about one may have taken back another's.
            for key in self._due.pop(tick, ()):
                if self._tick_of.pop(key, None) is not None:
                    self._expire(key)
        if self._due:
            self._look_at(min(self._due))
