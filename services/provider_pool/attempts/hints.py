"""What providers say by themselves: verified where it can be, and never more than a reason to ask.

A hint may be lost, repeated, late, or forged; polling alone must always be enough. So a forged one costs at most a poll, a
repeated one nothing, and a flood of them for one attempt one poll a second.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Final

from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.errors import ServiceError
from services.provider_pool import errors, meters
from services.provider_pool.accounts.registry import Accounts
from services.provider_pool.accounts.vault import SealBroken
from services.provider_pool.adapters.interface import AccountAccess, Feature, Hint, ProviderError
from services.provider_pool.attempts.hint_addresses import Addressee, HintAddresses
from services.provider_pool.attempts.log import AttemptLog
from services.provider_pool.attempts.polling import Polling
from services.provider_pool.attempts.states import Attempt, AttemptState
from services.provider_pool.catalog import Catalog
from services.provider_pool.store import attempts as store

log = logging.getLogger(__name__)

AT_ONCE: Final = 32
"""Hints that are verified at the same time; beyond that they are dropped, as a lost one is."""

QUIET_S: Final = 1.0
"""Between two announcements of one attempt."""

_VERIFY_WITHIN_S: Final = 5.0
"""An adapter may have to fetch a provider's public keys, once a day."""

_DELIVERIES_KEPT: Final = 20_000
_ANNOUNCED_KEPT: Final = 20_000
_TASKS_A_HINT: Final = 100
"""More than a provider's webhook is ever about."""


class Announcements:
    """Tells watchers which attempts are worth a poll, each at most once in `QUIET_S`; the last of a flood is not lost."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._watchers: dict[asyncio.Event, set[str]] = {}
        self._told_s: OrderedDict[str, float] = OrderedDict()
        self._later: dict[str, asyncio.TimerHandle] = {}

    def announce(self, attempt_id: str) -> None:
        """Tell them, now or as soon as it is allowed again."""
        if attempt_id in self._later:
            return
        wait_s = self._told_s.get(attempt_id, -QUIET_S) + QUIET_S - self._clock.monotonic_s()
        if wait_s > 0:
            loop = asyncio.get_running_loop()
            self._later[attempt_id] = loop.call_later(wait_s, self._tell, attempt_id)
        else:
            self._tell(attempt_id)

    async def watch(self) -> AsyncGenerator[list[str]]:
        """Attempts as they are announced, several together where there are."""
        news, waiting = asyncio.Event(), set[str]()
        self._watchers[news] = waiting
        try:
            while True:
                await news.wait()
                news.clear()
                told = sorted(waiting)
                waiting.clear()
                yield told
        finally:
            del self._watchers[news]

    def close(self) -> None:
        """Tell nobody any more."""
        for timer in self._later.values():
            timer.cancel()
        self._later.clear()

    def _tell(self, attempt_id: str) -> None:
        self._later.pop(attempt_id, None)
        self._told_s[attempt_id] = self._clock.monotonic_s()
        self._told_s.move_to_end(attempt_id)
        while len(self._told_s) > _ANNOUNCED_KEPT:
            self._told_s.popitem(last=False)
        for news, waiting in self._watchers.items():
            # Of a watcher that does not read there is no more than this to remember.
            if len(waiting) < _ANNOUNCED_KEPT:
                waiting.add(attempt_id)
                news.set()


class Hints:
    """Takes hints, and tells those who drive jobs."""

    def __init__(
        self,
        addresses: HintAddresses,
        database: Database,
        attempts: AttemptLog,
        accounts: Accounts,
        catalog: Catalog,
        polling: Polling,
        clock: Clock,
    ) -> None:
        self.addresses = addresses
        self.announcements = Announcements(clock)
        self._database = database
        self._attempts = attempts
        self._accounts = accounts
        self._catalog = catalog
        self._polling = polling
        self._clock = clock
        self._under_way = 0
        self._deliveries: OrderedDict[tuple[str, str], None] = OrderedDict()

    async def take(self, token: str, headers: Mapping[str, str], body: bytes) -> None:
        """Verify what came to an address, and have the tasks that it is about asked about soon. Raises UNKNOWN_HINT."""
        if self._under_way >= AT_ONCE:
            meters.HINTS.labels("dropped").inc()
            return
        self._under_way += 1
        try:
            outcome = await self._taken(token, headers, body)
        finally:
            self._under_way -= 1
        meters.HINTS.labels(outcome).inc()
        if outcome == "unknown":
            raise errors.unknown_hint()

    async def _taken(self, token: str, headers: Mapping[str, str], body: bytes) -> str:
        addressee = self.addresses.addressee(token)
        if addressee is None:
            return "unknown"
        attempt = await self._addressed(addressee)
        account_id = addressee.name if attempt is None else attempt.account_id
        if attempt is None and addressee.kind == "attempt":
            return "unknown"
        try:
            account = await self._accounts.access(account_id)
            hint = await self._verified(account, headers, body)
        except (ServiceError, SealBroken) as error:
            log.warning("hint.no_account", extra={"account_id": account_id, "cause": str(error)})
            return "refused"
        if hint is None:
            return "refused"
        if hint.delivery_id and not self._is_first(account_id, hint.delivery_id):
            return "duplicate"
        return self._announced(await self._meant(attempt, account_id, hint))

    async def _addressed(self, addressee: Addressee) -> Attempt | None:
        if addressee.kind == "account":
            return None
        try:
            return await self._attempts.get(addressee.name)
        except ServiceError as error:
            if error.reason != "ATTEMPT_NOT_FOUND":
                raise
            return None

    async def _verified(self, account: AccountAccess, headers: Mapping[str, str], body: bytes) -> Hint | None:
        adapter = self._catalog.adapter(account.provider)
        if Feature.HINTS not in adapter.features:
            return None
        try:
            async with asyncio.timeout(_VERIFY_WITHIN_S):
                context = self._catalog.context(account, self._clock)
                return await adapter.hint(context, account, headers, body)
        except (ProviderError, TimeoutError) as error:
            log.info("hint.not_verified", extra={"account_id": account.account_id, "cause": str(error)})
        except Exception as error:
            # Its body is a stranger's; the kind of error is all that may be told of it.
            told = {"account_id": account.account_id, "cause": type(error).__name__}
            log.warning("hint.adapter_failed", extra=told)
        return None

    async def _meant(self, attempt: Attempt | None, account_id: str, hint: Hint) -> Sequence[Attempt]:
        if attempt is not None:
            # In doubt it has no task yet, and the one that is named may be its own.
            is_meant = not hint.task_ids or attempt.task_id in hint.task_ids or not attempt.task_id
            # An attempt's address is good for nothing else, whatever it is that came there.
            return [attempt] if is_meant else []
        named = list(hint.task_ids[:_TASKS_A_HINT])
        if not named:
            return []
        return await self._database.read(lambda connection: store.load_by_task(connection, account_id, named))

    def _announced(self, meant: Sequence[Attempt]) -> str:
        open_ones = [one for one in meant if one.state in (AttemptState.RUNNING, AttemptState.UNKNOWN)]
        for attempt in open_ones:
            self._attempts.note(attempt.attempt_id, "hinted")
            self._polling.outdate(attempt.attempt_id)
            self.announcements.announce(attempt.attempt_id)
        return "verified" if open_ones else "late"

    def _is_first(self, account_id: str, delivery_id: str) -> bool:
        key = (account_id, delivery_id[:200])
        if key in self._deliveries:
            return False
        self._deliveries[key] = None
        while len(self._deliveries) > _DELIVERIES_KEPT:
            self._deliveries.popitem(last=False)
        return True
