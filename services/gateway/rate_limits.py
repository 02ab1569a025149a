"""How often a customer may ask: requests in any 60 seconds, counted in this process."""

from __future__ import annotations

import math
from collections import deque
from functools import lru_cache
from time import time
from typing import Final

from limits import RateLimitItemPerMinute
from limits.aio.storage import MovingWindowSupport, Storage
from limits.aio.strategies import MovingWindowRateLimiter
from msgspec import Struct

_SPAN_S: Final = 60
# Customers seen since the last sweep, after which idle ones are forgotten.
_SWEEP_EVERY: Final = 10_000


class Window(Struct, frozen=True, gc=False):
    """What the RateLimit headers say. `reset_s`: whole seconds until the oldest counted request leaves the window."""

    allowed: bool
    limit: int
    remaining: int
    reset_s: int

    def headers(self) -> dict[str, str]:
        """The three RateLimit headers."""
        return {
            "RateLimit-Limit": str(self.limit),
            "RateLimit-Remaining": str(self.remaining),
            "RateLimit-Reset": str(self.reset_s),
        }


class WindowStorage(Storage, MovingWindowSupport):
    """The library's moving window in memory, without the task and the thread that its own storage starts per request.

    Single-threaded by nature: nothing here awaits, so every call is atomic on its event loop.
    """

    STORAGE_SCHEME = ["async+atelier"]  # noqa: RUF012 - the library's own declaration

    def __init__(self, uri: str | None = None, wrap_exceptions: bool = False, **options: str) -> None:
        super().__init__(uri, wrap_exceptions=wrap_exceptions, **options)
        self._hits: dict[str, deque[float]] = {}
        self._spans_s: dict[str, int] = {}
        self._sweep_at = _SWEEP_EVERY

    @property
    def customers(self) -> int:
        """How many are remembered right now."""
        return len(self._hits)

    @property
    def base_exceptions(self) -> type[Exception]:
        return ValueError

    def take(self, key: str, limit: int, span_s: int) -> tuple[bool, float, int]:
        """Counts one hit where it is allowed: (allowed, time of the oldest hit counted, hits counted).

        What the strategy does in four awaited calls, which together cost more than the rest of the edge's checks.
        """
        now_s = time()
        hits = self._current(key, span_s, now_s)
        allowed = len(hits) < limit
        if allowed:
            hits.append(now_s)
        return allowed, hits[0] if hits else now_s, len(hits)

    async def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        now_s = time()
        hits = self._current(key, expiry, now_s)
        if len(hits) + amount > limit:
            return False
        hits.extend([now_s] * amount)
        return True

    async def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        now_s = time()
        hits = self._current(key, expiry, now_s)
        return (hits[0] if hits else now_s), len(hits)

    def _current(self, key: str, span_s: int, now_s: float) -> deque[float]:
        hits = self._hits.get(key)
        if hits is None:
            self._sweep(now_s)
            hits = self._hits[key] = deque()
            self._spans_s[key] = span_s
        while hits and hits[0] <= now_s - span_s:
            hits.popleft()
        return hits

    def _sweep(self, now_s: float) -> None:
        if len(self._hits) < self._sweep_at:
            return
        idle = [key for key, hits in self._hits.items() if not hits or hits[-1] <= now_s - self._spans_s[key]]
        for key in idle:
            del self._hits[key], self._spans_s[key]
        self._sweep_at = len(self._hits) + _SWEEP_EVERY

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        raise NotImplementedError("only moving windows are kept here")

    async def get(self, key: str) -> int:
        return len(self._hits.get(key, ()))

    async def get_expiry(self, key: str) -> float:
        return time()

    async def check(self) -> bool:
        return True

    async def reset(self) -> int | None:
        count = len(self._hits)
        self._hits.clear()
        self._spans_s.clear()
        return count

    async def clear(self, key: str) -> None:
        self._hits.pop(key, None)
        self._spans_s.pop(key, None)


class RateLimits:
    """Counts requests per customer and mode. Refused requests are not counted, so waiting always helps.

    storage: any of the library's that keeps moving windows, where several gateways count together.
    """

    def __init__(self, storage: Storage | None = None) -> None:
        self._storage = storage or WindowStorage()
        self._strategy = MovingWindowRateLimiter(self._storage)

    async def hit(self, customer_id: str, test: bool, requests_per_minute: int) -> Window:
        """Counts one request, where it is allowed."""
        wallet = "test" if test else "live"
        if isinstance(self._storage, WindowStorage):
            key = f"{customer_id}/{wallet}"
            allowed, oldest_s, count = self._storage.take(key, requests_per_minute, _SPAN_S)
            resets_at_s, remaining = oldest_s + _SPAN_S, requests_per_minute - count
        else:
            item = _per_minute(requests_per_minute)
            allowed = await self._strategy.hit(item, customer_id, wallet)
            resets_at_s, remaining = await self._strategy.get_window_stats(item, customer_id, wallet)
        reset_s = max(1, math.ceil(resets_at_s - time()))
        return Window(allowed, requests_per_minute, max(0, remaining), reset_s)


class _RequestsPerMinute(RateLimitItemPerMinute):
    """The library's item, counted under a name without the limit, so that a changed limit keeps the count."""

    def key_for(self, *identifiers: bytes | str | float) -> str:
        return "/".join(map(str, identifiers))


@lru_cache(maxsize=256)
def _per_minute(limit: int) -> RateLimitItemPerMinute:
    return _RequestsPerMinute(limit)
