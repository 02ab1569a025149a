"""Asks providers about accounts: before one is added, when an operator wants it, and again and again by itself.

The cheapest unbilled call of an adapter proves the credentials and tells, where the provider does, the balance, when it
renews, and how many tasks may run at once.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from services.chassis.clock import Clock
from services.chassis.errors import ServiceError
from services.chassis.settings import Secret
from services.provider_pool import errors, failures, meters
from services.provider_pool.accounts.registry import Accounts, Terms
from services.provider_pool.accounts.vault import SealBroken
from services.provider_pool.adapters.interface import (
    AccountAccess,
    AccountRestricted,
    AccountStatus,
    AuthFailed,
    InvalidRequest,
    ProviderError,
)
from services.provider_pool.catalog import Catalog
from services.provider_pool.selection import balances, health
from services.provider_pool.selection.balances import RecentCeilings
from services.provider_pool.selection.health import Fault, FaultKind
from services.provider_pool.selection.pool import Account, AccountState
from services.provider_pool.store.accounts import AccountRecord

log = logging.getLogger(__name__)

CHECK_TIMEOUT_S: Final = 10.0
ROUND_S: Final = 5.0
"""Between two looks at which account is to be asked about; a look is one read of the accounts."""

LONGEST_ROUND_S: Final = 30.0
"""Providers are asked side by side, a provider's accounts one after the other: a slow one does not hold the others up for longer."""

READ_EVERY_MS: Final = 300_000
JITTER: Final = 0.1
LOW_PAUSE_MS: Final = 10_000
"""Of an account that is running low something was booked since it was last asked about: it is asked again so soon."""

_REFUSALS: Final = (AuthFailed, AccountRestricted, InvalidRequest)


@dataclass(frozen=True, slots=True)
class Checked:
    """What an operator is told of a check."""

    passed: bool
    detail: str
    record: AccountRecord


@dataclass(frozen=True, slots=True)
class _Asked:
    """When this process asked last, what had been booked by then, and when it asks again by itself."""

    at_ms: int = 0
    booked_millis: int = 0
    again_at_ms: int = 0


class Checks:
    """Checks accounts. `ceilings`: what jobs asked for lately, to see which account is running low."""

    def __init__(self, accounts: Accounts, catalog: Catalog, ceilings: RecentCeilings, clock: Clock) -> None:
        self._accounts = accounts
        self._catalog = catalog
        self._ceilings = ceilings
        self._clock = clock
        self._asked: dict[str, _Asked] = {}

    # ------------------------------------------------------------ for operators

    async def create(
        self, provider: str, label: str, credentials: Mapping[str, Secret], terms: Terms, *, unchecked: bool
    ) -> AccountRecord:
        """Add an account whose credentials the provider accepts; what it tells of the account is taken for what is so.

        Raises UNKNOWN_PROVIDER, INVALID_REQUEST, ACCOUNT_EXISTS, CREDENTIALS_IN_USE, CREDENTIALS_REFUSED and
        PROVIDER_UNREACHABLE.
        """
        draft = self._accounts.draft(provider, label, credentials, terms)
        if not unchecked:
            await self._accounts.refuse_twin(draft, credentials)
            asked_at_ms = self._clock.now_ms()
            account = draft.account
            status = await self._proven(
                AccountAccess(account.account_id, provider, credentials, draft.options)
            )
            told = balances.told(account, account, status, asked_at_ms)
            # What the operator did not say is what the provider says, or the least that can be.
            limit = told.concurrency_limit or told.concurrency_told or 1
            draft = draft.having(replace(told, concurrency_limit=limit))
        elif not draft.account.concurrency_limit:
            raise errors.invalid_request("concurrency_limit", "must be given where nobody is asked")
        return await self._accounts.add(draft, credentials)

    async def replace_credentials(
        self, account_id: str, credentials: Mapping[str, Secret], *, unchecked: bool
    ) -> AccountRecord:
        """Other credentials for an account, once the provider accepts them.

        Raises ACCOUNT_NOT_FOUND, INVALID_REQUEST, CREDENTIALS_IN_USE, CREDENTIALS_REFUSED and PROVIDER_UNREACHABLE.
        """
        record = await self._accounts.get(account_id)
        self._accounts.check(record, credentials)
        if unchecked:
            return await self._accounts.replace_credentials(account_id, credentials)
        await self._accounts.refuse_twin(record, credentials)
        asked_at_ms = self._clock.now_ms()
        access = AccountAccess(account_id, record.account.provider, credentials, record.options)
        status = await self._proven(access)
        await self._accounts.replace_credentials(account_id, credentials)
        await self._accounts.passed(record.account, status, asked_at_ms, close=True)
        return await self._accounts.get(account_id)

    async def check(self, account_id: str) -> Checked:
        """Ask about one account now. Raises ACCOUNT_NOT_FOUND; that the provider refuses or fails is an answer."""
        seen = (await self._accounts.get(account_id)).account
        detail = await self._ask(seen, close=True)
        return Checked(not detail, detail, await self._accounts.get(account_id))

    async def _proven(self, access: AccountAccess) -> AccountStatus:
        try:
            return await self._status(access)
        except _REFUSALS as error:
            raise errors.credentials_refused(_detail(error, access)) from error
        except ProviderError as error:
            raise errors.credentials_unproven(_detail(error, access)) from error

    # ------------------------------------------------------------ by itself

    async def run(self) -> float:
        """Ask about the accounts whose turn it is; returns how long to wait, in seconds."""
        known = await self._accounts.load()
        self._asked = {name: asked for name, asked in self._asked.items() if name in known}
        now_ms = self._clock.now_ms()
        due = [account for account in known.values() if self._is_due(account, now_ms)]
        by_provider: dict[str, list[Account]] = {}
        for account in sorted(due, key=lambda one: self._asked.get(one.account_id, _Asked()).at_ms):
            by_provider.setdefault(account.provider, []).append(account)
        until_s = asyncio.get_running_loop().time() + LONGEST_ROUND_S
        await asyncio.gather(*(self._ask_all(one, until_s) for one in by_provider.values()))
        return ROUND_S

    def _is_due(self, account: Account, now_ms: int) -> bool:
        if account.state is AccountState.DISABLED or account.provider not in self._catalog.adapters:
            return False
        asked = self._asked.get(account.account_id)
        if asked is None:
            # After a start all are new: who was asked lately, also by another replica, waits for its turn.
            asked = _Asked(again_at_ms=max(account.balance_read_at_ms, 0) + self._pause_ms())
            self._asked[account.account_id] = asked
        out = [breaker for breaker in account.breakers.values() if breaker.is_out]
        if out:
            return now_ms >= max(asked.at_ms + _out_pause_ms(out, now_ms), min(map(health.check_due_ms, out)))
        is_low = account.available_millis < self._ceilings.largest_millis(account.provider)
        if is_low and account.booked_millis != asked.booked_millis:
            return now_ms >= asked.at_ms + LOW_PAUSE_MS
        return now_ms >= asked.again_at_ms

    async def _ask_all(self, accounts: Iterable[Account], until_s: float) -> None:
        for account in accounts:
            if asyncio.get_running_loop().time() >= until_s:
                return
            try:
                await self._ask(account)
            except ServiceError as error:
                log.info("account.not_asked", extra={"account_id": account.account_id, "cause": error.reason})
            except Exception:
                # A bug of one adapter must not keep the accounts after this one out for ever.
                log.exception("account.check_broke", extra={"account_id": account.account_id})
                meters.CHECKS.labels(account.provider, "failed").inc()

    async def _ask(self, seen: Account, *, close: bool = False) -> str:
        """Check an account and note what that says of it; empty, or what is wrong, in words for operators."""
        asked_at_ms = self._clock.now_ms()
        again_at_ms = asked_at_ms + self._pause_ms()
        self._asked[seen.account_id] = _Asked(asked_at_ms, seen.booked_millis, again_at_ms)
        try:
            access = await self._accounts.access(seen.account_id)
        except SealBroken as error:
            return self._failed(seen, "seal_broken", str(error))
        try:
            status = await self._status(access)
        except ProviderError as error:
            await self._note_fault(seen, error, asked_at_ms)
            return self._failed(seen, error.code, _detail(error, access))
        await self._accounts.passed(seen, status, asked_at_ms, close=close)
        meters.CHECKS.labels(seen.provider, "passed").inc()
        return ""

    def _failed(self, seen: Account, cause: str, detail: str) -> str:
        meters.CHECKS.labels(seen.provider, "failed").inc()
        log.info("account.check_failed", extra={"account_id": seen.account_id, "cause": cause})
        return detail

    async def _note_fault(self, seen: Account, error: ProviderError, asked_at_ms: int) -> None:
        if isinstance(error, AuthFailed | AccountRestricted):
            # Before a job finds out.
            await self._accounts.faulted(seen.account_id, Fault(FaultKind.OUT, error.code, asked_at_ms))

    async def _status(self, access: AccountAccess) -> AccountStatus:
        adapter = self._catalog.adapter(access.provider)
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                status = await adapter.check(self._catalog.context(access, self._clock), access)
        except TimeoutError:
            raise ProviderError("no answer within the deadline") from None
        if not status.ok:
            raise AuthFailed(status.detail or "the check did not pass")
        return status

    def _pause_ms(self) -> int:
        # Or all accounts of a provider, and all replicas, would ask at once for ever.
        return round(READ_EVERY_MS * random.uniform(1 - JITTER, 1 + JITTER))  # noqa: S311 - jitter


def _detail(error: ProviderError, access: AccountAccess) -> str:
    """What the provider said, without what it may have repeated of the credentials."""
    detail = failures.detail_of(error)
    for secret in access.secrets.values():
        if revealed := secret.reveal():
            detail = detail.replace(revealed, str(secret))
    return detail


def _out_pause_ms(out: Sequence[health.Breaker], now_ms: int) -> int:
    """Between two checks of an account that is out: seconds at first, minutes where nobody has mended it for an hour."""
    longest_out_ms = now_ms - min(breaker.opened_at_ms for breaker in out)
    return max(health.CHECK_PAUSE_MS, min(longest_out_ms // 8, READ_EVERY_MS))
