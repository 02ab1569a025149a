"""Who may connect now: a bound on the process, and a smaller one on each host."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from services.chassis.egress_failures import EgressFailed

_IN_ALL: Final = 64
# We must not be the tool with which one customer overruns somebody's server. A name is one server; behind one
# address of a delivery network stand many, of many customers.
AT_ONE_NAME: Final = 4
AT_ONE_ADDRESS: Final = 16
# Behind one slow host a queue may form, but not one that fills the line of everybody else.
_WAITING_FOR_ONE: Final = 64
_WAITING_IN_ALL: Final = 1_024


class Places:
    """Bounded places in the process and at each key, a host's name or `at_address`.

    Whoever waits holds nothing, so nobody waits in a circle.
    """

    def __init__(self, at_one_name: int = AT_ONE_NAME, at_one_address: int = AT_ONE_ADDRESS) -> None:
        self._at_one_name = at_one_name
        self._at_one_address = at_one_address
        self._taken: Counter[str] = Counter()
        self._in_all = 0
        self._waited_for: Counter[str] = Counter()
        # In order of arrival; who does not fit is passed by those who do.
        self._waiting: dict[asyncio.Future[None], frozenset[str]] = {}

    @asynccontextmanager
    async def taken(self, keys: frozenset[str]) -> AsyncIterator[None]:
        """One place in the process and one at each of `keys`, all or none. Raises EgressFailed("busy")."""
        if self._fits(keys):
            self._take(keys)
        else:
            await self._wait(keys)
        try:
            yield
        finally:
            self._give_back(keys)

    def has_place_at(self, key: str) -> bool:
        """Whether it is not for `key` itself, if somebody who wants a place there has to wait."""
        return self._taken[key] < (self._at_one_address if key.startswith("@") else self._at_one_name)

    async def _wait(self, keys: frozenset[str]) -> None:
        if len(self._waiting) >= _WAITING_IN_ALL or any(
            self._waited_for[key] >= _WAITING_FOR_ONE for key in keys
        ):
            raise EgressFailed("busy")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[turn] = keys
        self._waited_for.update(keys)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give_back(keys)
            raise
        finally:
            self._waiting.pop(turn, None)
            self._forget(self._waited_for, keys)

    def _fits(self, keys: frozenset[str]) -> bool:
        return self._in_all < _IN_ALL and all(map(self.has_place_at, keys))

    def _take(self, keys: frozenset[str]) -> None:
        self._in_all += 1
        self._taken.update(keys)

    def _give_back(self, keys: frozenset[str]) -> None:
        self._in_all -= 1
        self._forget(self._taken, keys)
        for turn, wanted in self._waiting.items():
            if not turn.done() and self._fits(wanted):
                self._take(wanted)
                turn.set_result(None)

    @staticmethod
    def _forget(counted: Counter[str], keys: frozenset[str]) -> None:
        # A Counter keeps zeros, and hosts are named by strangers.
        for key in keys:
            counted[key] -= 1
            if counted[key] <= 0:
                del counted[key]


def at_address(address: object) -> str:
    """The key of an address, which has more places than a name."""
    return f"@{address}"
