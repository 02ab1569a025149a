"""Places for requests that bring an image along: how many may hold one in memory at once, in all and of one customer."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import prometheus_client

from services.gateway import errors
from services.gateway.lifting import LiftedText

# One customer with many large images must not keep the others out.
CUSTOMER_LIMIT: Final = 2
# Longer than an image takes on a usual line, shorter than clients wait.
PATIENCE_S: Final = 10.0

_HELD = prometheus_client.Gauge(
    "atelier_gateway_inline_uploads", "Requests that hold an image in memory now, or are receiving one."
)
_TURNED_AWAY = prometheus_client.Counter(
    "atelier_gateway_inline_uploads_turned_away_total",
    "Requests with an image that waited for a place in vain.",
)


class InlineUploads:
    """All the places of this process. First come, first served among customers who may have one more."""

    def __init__(
        self, limit: int, customer_limit: int = CUSTOMER_LIMIT, patience_s: float = PATIENCE_S
    ) -> None:
        self._limit = limit
        self._customer_limit = customer_limit
        self._patience_s = patience_s
        self._held: Counter[str] = Counter()
        self._waiting: dict[asyncio.Future[None], str] = {}

    def place(self, customer_id: str) -> Place:
        """A place for one request, which is not taken yet."""
        return Place(self, customer_id)

    async def take(self, customer_id: str) -> None:
        """Counts the customer in, as soon as it may be. Raises OVERLOADED when that is not soon enough."""
        if self._may_take(customer_id):
            self._count_in(customer_id)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[turn] = customer_id
        try:
            async with asyncio.timeout(self._patience_s):
                await turn
        except BaseException as end:
            if turn.done() and not turn.cancelled():
                self.give_back(customer_id)
            if isinstance(end, TimeoutError):
                _TURNED_AWAY.inc()
                raise errors.overloaded() from None
            raise
        finally:
            self._waiting.pop(turn, None)

    def give_back(self, customer_id: str) -> None:
        """Counts the customer out, and the next ones in."""
        _HELD.dec()
        self._held[customer_id] -= 1
        if not self._held[customer_id]:
            del self._held[customer_id]
        for turn, waiting_id in list(self._waiting.items()):
            if not turn.done() and self._may_take(waiting_id):
                self._count_in(waiting_id)
                turn.set_result(None)

    def _may_take(self, customer_id: str) -> bool:
        return self._held.total() < self._limit and self._held[customer_id] < self._customer_limit

    def _count_in(self, customer_id: str) -> None:
        _HELD.inc()
        self._held[customer_id] += 1


class Place:
    """One request's place; taking it twice is taking it once, and it is given back when the `with` ends at the latest."""

    __slots__ = ("_customer_id", "_taken", "_uploads")

    def __init__(self, uploads: InlineUploads, customer_id: str) -> None:
        self._uploads = uploads
        self._customer_id = customer_id
        self._taken = False

    async def take(self) -> None:
        """Waits for the place, if this request has none yet. Raises OVERLOADED."""
        if not self._taken:
            await self._uploads.take(self._customer_id)
            self._taken = True

    def leave(self) -> None:
        """Gives the place back, if it was taken."""
        if self._taken:
            self._taken = False
            self._uploads.give_back(self._customer_id)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()


@dataclass(frozen=True, slots=True)
class Body:
    """One request's body: its JSON, the long strings that were lifted out of it, and the place for holding them."""

    json: bytes
    texts: dict[str, LiftedText]
    place: Place

    def let_go(self) -> None:
        """Gives the place back, and whatever was lifted out: nobody may hold that without a place."""
        self.texts.clear()
        self.place.leave()
