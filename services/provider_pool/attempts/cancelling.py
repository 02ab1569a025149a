"""Tells providers to stop tasks that nobody wants any more: a courtesy that saves money, and never a condition."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from services.chassis import crash_points
from services.chassis.clock import Clock
from services.chassis.errors import ServiceError
from services.provider_pool import meters
from services.provider_pool.accounts.registry import Accounts
from services.provider_pool.accounts.vault import SealBroken
from services.provider_pool.adapters.interface import Cancellation, Feature, ProviderError
from services.provider_pool.attempts import codec
from services.provider_pool.attempts.states import Attempt, AttemptState
from services.provider_pool.catalog import Catalog

log = logging.getLogger(__name__)

_CANCELS_AT_ONCE: Final = 16


class Cancelling:
    """Cancels at the provider, where the provider can be told."""

    def __init__(self, accounts: Accounts, catalog: Catalog, clock: Clock) -> None:
        self._accounts = accounts
        self._catalog = catalog
        self._clock = clock
        self._turns = asyncio.Semaphore(_CANCELS_AT_ONCE)

    async def cancel(self, attempt: Attempt, until_s: float) -> Cancellation | None:
        """What the provider says to it; None where it cannot be told, or did not answer until then (by the loop's time)."""
        adapter = self._catalog.adapters.get(attempt.provider)
        if attempt.state is not AttemptState.RUNNING or adapter is None:
            return None
        if Feature.CANCEL not in adapter.features:
            return None
        answer: Cancellation | None = None
        try:
            async with asyncio.timeout_at(until_s), self._turns:
                account = await self._accounts.access(attempt.account_id)
                crash_points.reached("provider", "cancel", "before", subject=attempt.attempt_id)
                answer = await adapter.cancel(
                    self._catalog.context(account, self._clock), account, codec.read_task(attempt.task)
                )
                crash_points.reached("provider", "cancel", "after", subject=attempt.attempt_id)
        except (ProviderError, ServiceError, SealBroken, TimeoutError, OSError) as error:
            log.info("attempt.not_cancelled", extra={"attempt_id": attempt.attempt_id, "cause": str(error)})
        except Exception:
            log.exception("attempt.adapter_failed", extra={"attempt_id": attempt.attempt_id})
        outcome = "unanswered" if answer is None else f"charged_{answer.charged}"
        meters.CANCELLED.labels(attempt.provider, outcome).inc()
        return answer
