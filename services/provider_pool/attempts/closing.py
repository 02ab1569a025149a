"""Ends attempts whose job has ended without them: nobody will ask about them, so that nothing else ever would.

What still runs is cancelled at its provider, where that is possible: a courtesy that saves money, and never a condition.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.errors import ServiceError
from services.provider_pool import meters
from services.provider_pool.attempts import codec, outcomes
from services.provider_pool.attempts.cancelling import Cancelling
from services.provider_pool.attempts.log import AttemptLog
from services.provider_pool.attempts.states import TERMINAL, Attempt, AttemptState
from services.provider_pool.attempts.submission import Submissions
from services.provider_pool.catalog import Catalog
from services.provider_pool.store import open_attempts as store
from services.provider_pool.store.open_attempts import OpenAttempt

log = logging.getLogger(__name__)

CANCEL_WITHIN_S: Final = 2.0
"""For all cancellations of one call together: whoever closes attempts has other work, and a provider that hangs is common."""


class Closing:
    """Lists open attempts and closes those it is told to. The pool itself asks nobody whose job has ended."""

    def __init__(
        self,
        database: Database,
        attempts: AttemptLog,
        submissions: Submissions,
        cancelling: Cancelling,
        catalog: Catalog,
        clock: Clock,
    ) -> None:
        self._database = database
        self._attempts = attempts
        self._cancelling = cancelling
        self._submissions = submissions
        self._catalog = catalog
        self._clock = clock

    async def list_open(self, created_before_ms: int, after_attempt_id: str, limit: int) -> list[OpenAttempt]:
        """Attempts that have not ended, in the order of their ids."""
        return await self._database.read(
            lambda connection: store.load_open(connection, created_before_ms, after_attempt_id, limit)
        )

    async def close_attempts(self, attempt_ids: Sequence[str]) -> list[str]:
        """Close these; the ones that are being sent at this moment, and stay open until a later call."""
        until_s = asyncio.get_running_loop().time() + CANCEL_WITHIN_S
        closed = await asyncio.gather(*(self._closed(one, until_s) for one in dict.fromkeys(attempt_ids)))
        return [one.attempt_id for one in closed if one is not None and one.state not in TERMINAL]

    async def _closed(self, attempt_id: str, until_s: float) -> Attempt | None:
        try:
            attempt = await self._attempts.get(attempt_id, fresh=True)
        except ServiceError as error:
            if error.reason == "ATTEMPT_NOT_FOUND":
                return None
            raise
        # One that nobody is sending any more is in doubt from here on, and can be closed.
        attempt = await self._submissions.settle(attempt)
        if attempt.state in TERMINAL or attempt.state is AttemptState.SUBMITTING:
            return attempt
        generation = codec.read_generation(attempt.generation)
        expected_millis = self._catalog.estimate(attempt.provider, generation).expected_millis
        cancellation = await self._cancelling.cancel(attempt, until_s)
        change = outcomes.closed(attempt, expected_millis, self._clock.now_ms(), cancellation)
        after = await self._attempts.change(change)
        log.info("attempt.closed", extra={"attempt_id": attempt_id, "was": attempt.state.value})
        meters.CLOSED.labels(attempt.provider, attempt.state.value).inc()
        return after
