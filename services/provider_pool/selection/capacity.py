"""Says when there may be room again: one picture of the free slots, sent to every watcher after each change for the better."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Collection, Mapping
from typing import Final, TypeAlias

from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.errors import Kind, ServiceError
from services.provider_pool.catalog import Catalog
from services.provider_pool.selection import pool
from services.provider_pool.selection.pool import Account, Mode
from services.provider_pool.store import accounts as store

Rooms: TypeAlias = Mapping[tuple[Mode, str], int]

WATCHER_LIMIT: Final = 64
"""One for each replica of the jobs service, with room for those that reconnect."""

_PAUSE_S: Final = 0.02
"""Between two looks at the accounts; under load many changes share one."""

_ELSEWHERE_S: Final = 2.0
"""How often to look for what another replica has freed."""

_AT_REST_S: Final = 30.0


class Capacity:
    """Watches the accounts' room. `run` must be run again and again; `improved` may be called as often as one likes."""

    def __init__(self, database: Database, catalog: Catalog, clock: Clock) -> None:
        self._database = database
        self._catalog = catalog
        self._clock = clock
        self._wake = asyncio.Event()
        self._told = False
        self._looking = asyncio.Lock()
        self._watchers: set[asyncio.Event] = set()
        self._rooms: Rooms = {}
        self._opens_at_ms = 0

    def improved(self) -> None:
        """Something became free, or may have."""
        self._told = True
        self._wake.set()

    async def watch(self) -> AsyncGenerator[Rooms, None]:
        """The present rooms, then again after each change for the better; changes nobody had time for are one."""
        if len(self._watchers) >= WATCHER_LIMIT:
            raise ServiceError(Kind.RESOURCE_EXHAUSTED, "TOO_MANY_WATCHERS", "too many watchers")
        news = asyncio.Event()
        self._watchers.add(news)
        try:
            await self._look()
            # Without watchers the rounds are far apart; this one ends now.
            self._wake.set()
            while True:
                news.clear()
                yield self._rooms
                await news.wait()
        finally:
            self._watchers.discard(news)

    async def run(self) -> float:
        """Wait for a change, for an account that opens again, or for other replicas; tell, and say when to wait again, in seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._pause_s()):
                await self._wake.wait()
        self._wake.clear()
        if self._watchers:
            await self._look()
        return _PAUSE_S

    async def _look(self) -> None:
        # One at a time: an older picture must not replace a newer one.
        async with self._looking:
            told, self._told = self._told, False
            try:
                accounts = (await self._database.read(store.load_accounts)).values()
            except BaseException:
                if told:
                    self.improved()
                raise
            self._tell(accounts, told=told)

    def _tell(self, accounts: Collection[Account], *, told: bool) -> None:
        now_ms, before = self._clock.now_ms(), self._rooms
        market = self._catalog.market
        self._rooms = pool.rooms(accounts, self._catalog.on_offer(now_ms), now_ms, market)
        self._opens_at_ms = pool.opens_at_ms(accounts, now_ms, market)
        # Beside other replicas a slot may be taken and freed again between two looks: whatever is free is worth telling.
        seen = {} if not self._database.sole_owner else before
        if told or any(free > seen.get(room, 0) for room, free in self._rooms.items()):
            for news in self._watchers:
                news.set()

    def _pause_s(self) -> float:
        if not self._watchers:
            return _AT_REST_S
        longest_s = _AT_REST_S if self._database.sole_owner else _ELSEWHERE_S
        if not self._opens_at_ms:
            return longest_s
        return min(longest_s, max(0.0, (self._opens_at_ms - self._clock.now_ms()) / 1000))
