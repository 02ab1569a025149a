"""Tasks that run for longer than such tasks do: whether one is, and telling the provider to stop it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from services.chassis.clock import Clock
from services.chassis.database import Database
from services.provider_pool import meters
from services.provider_pool.adapters.interface import Cancellation
from services.provider_pool.attempts import outcomes
from services.provider_pool.attempts.cancelling import Cancelling
from services.provider_pool.attempts.log import AttemptLog
from services.provider_pool.attempts.patience import Ages, Patience
from services.provider_pool.attempts.records import Change
from services.provider_pool.attempts.states import Attempt, AttemptState
from services.provider_pool.store import durations

log = logging.getLogger(__name__)

LEARN_S: Final = 600.0

_CANCEL_WITHIN_S: Final = 5.0
"""Whoever asked about the task waits so long; most providers answer a cancellation as fast as a poll."""


class Overdue:
    """Patience applied to running attempts. Only a provider's own answer that a task still runs ends it here."""

    def __init__(self, database: Database, patience: Patience, cancelling: Cancelling, clock: Clock) -> None:
        self._database = database
        self.patience = patience
        self._cancelling = cancelling
        self._clock = clock
        self._ages = Ages(clock.now_ms(), clock.monotonic_s())

    def late_ms(self, attempt: Attempt) -> int:
        """By how much the attempt has outrun its patience; negative while it has not."""
        return self.late_since_ms(attempt.provider, attempt.model, since_ms(attempt))

    def late_since_ms(self, provider: str, model: str, since_ms: int) -> int:
        """The same of any task that has run since then."""
        age_ms = self._ages.age_ms(since_ms, self._clock.now_ms(), self._clock.monotonic_s())
        return age_ms - self.patience.allowed_ms(provider, model)

    def saw(self, attempt: Attempt) -> None:
        """The attempt has just succeeded."""
        self.patience.saw(attempt.provider, attempt.model, attempt.ended_at_ms - since_ms(attempt))

    async def cancel(self, attempt: Attempt) -> Cancellation | None:
        """Tell its provider to stop it; what it says."""
        until_s = asyncio.get_running_loop().time() + _CANCEL_WITHIN_S
        return await self._cancelling.cancel(attempt, until_s)

    def ending(self, attempt: Attempt, cancellation: Cancellation | None, *, unheard: bool = False) -> Change:
        """What is recorded of it. `unheard`: its provider has not been heard of for so long."""
        now_ms = self._clock.now_ms()
        ran_ms = now_ms - since_ms(attempt)
        if not unheard:
            self.patience.outran(attempt.provider, attempt.model, ran_ms)
        change = outcomes.overdue(attempt, cancellation, ran_ms, now_ms, unheard=unheard)
        charged = "maybe" if change.failure is None else change.failure.charged.value
        meters.OVERDUE.labels(attempt.provider, charged).inc()
        told = {"attempt_id": attempt.attempt_id, "provider": attempt.provider, "model": attempt.model}
        log.warning("attempt.overdue", extra=told | {"ran_s": ran_ms // 1000, "charged": charged})
        return change

    async def learn(self) -> float:
        """Learn from the attempts of all replicas; returns how long to wait, in seconds."""
        self.patience.learn(await self._database.read(durations.load_durations))
        return LEARN_S


def since_ms(attempt: Attempt) -> int:
    """Since when it runs. Never before it was begun here: a provider's clock may be wrong by hours."""
    return max(attempt.submitted_at_ms, attempt.created_at_ms)


async def end_unheard(attempts: AttemptLog, overdue: Overdue, unheard: Sequence[Attempt]) -> int:
    """End these, whose provider has not answered for so long that nobody will want their results; how many."""
    ended = 0
    for attempt in unheard:
        if attempt.state is AttemptState.RUNNING:
            after = await attempts.change(overdue.ending(attempt, None, unheard=True))
            ended += after.state is AttemptState.FAILED
    return ended
