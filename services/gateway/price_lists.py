"""What storefronts sell at what price, as billing said a few seconds ago."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from services.chassis.clock import Clock
from services.gen.billing.v1 import billing_pb2

# A price list changes with a restart of billing; a page of models must not cost a call each.
_LIFETIME_S: Final = 5.0


class PriceLists:
    """Answers from memory for some seconds. Simultaneous askers for one storefront share the question."""

    def __init__(
        self, ask: Callable[[str], Awaitable[billing_pb2.GetPriceListResponse]], clock: Clock
    ) -> None:
        self._ask = ask
        self._clock = clock
        self._known: dict[str, tuple[float, billing_pb2.GetPriceListResponse]] = {}
        self._asking: dict[str, asyncio.Lock] = {}

    async def of(self, storefront: str) -> billing_pb2.GetPriceListResponse:
        """The storefront's list. Raises ServiceError while billing is away; storefronts are constants of this process."""
        found = self._remembered(storefront)
        if found is not None:
            return found
        async with self._asking.setdefault(storefront, asyncio.Lock()):
            found = self._remembered(storefront)
            if found is None:
                found = await self._ask(storefront)
                self._known[storefront] = (self._clock.monotonic_s() + _LIFETIME_S, found)
            return found

    def _remembered(self, storefront: str) -> billing_pb2.GetPriceListResponse | None:
        known = self._known.get(storefront)
        return known[1] if known is not None and known[0] > self._clock.monotonic_s() else None
