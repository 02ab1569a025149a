"""What nobody asks about any more: attempts in doubt and tasks that run, whose job has ended or whose owner is dead.

Owners of jobs ask every few seconds, so that whatever is left well after its time has no owner.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Final

from services.chassis.clock import Clock
from services.chassis.database import Database
from services.chassis.errors import ServiceError
from services.provider_pool import meters
from services.provider_pool.adapters.interface import Terms
from services.provider_pool.attempts.log import AttemptLog
from services.provider_pool.attempts.overdue import Overdue, end_unheard
from services.provider_pool.attempts.patience import SHORTEST_MS
from services.provider_pool.attempts.polling import Polled, Polling
from services.provider_pool.attempts.resolution import Resolution
from services.provider_pool.catalog import Catalog
from services.provider_pool.store import durations
from services.provider_pool.store.durations import OpenTask

log = logging.getLogger(__name__)

DOUBTS_S: Final = 15.0
TASKS_S: Final = 30.0
DOUBT_GRACE_MS: Final = 15_000
"""After the provider's window an owner, who asks every two seconds, has had its answer."""
TASK_GRACE_MS: Final = 30_000
"""After its patience an owner, who asks every five seconds, has had the answer that ends it."""
UNHEARD_S: Final = 600.0
"""Asked about by this process after its patience. A provider that does not answer for so long has lost the task, or its
account is closed; a pool that was away itself knows nothing of that at its first look."""

_DOUBTS_AT_ONCE: Final = 4
_PAGE: Final = 500
_TASKS_A_ROUND: Final = 2_000
_POLL_WITHIN_S: Final = 10.0


class LooseEnds:
    """The rounds that end them."""

    def __init__(
        self,
        database: Database,
        attempts: AttemptLog,
        resolution: Resolution,
        polling: Polling,
        overdue: Overdue,
        catalog: Catalog,
        clock: Clock,
    ) -> None:
        self._database = database
        self._attempts = attempts
        self._resolution = resolution
        self._polling = polling
        self._overdue = overdue
        self._catalog = catalog
        self._clock = clock
        self._turns = asyncio.Semaphore(_DOUBTS_AT_ONCE)
        # Since when those that were asked about in the last round were not answered.
        self._silent_since_s: dict[str, float] = {}

    async def resolve_doubts(self) -> float:
        """Look for attempts in doubt whose window is over; returns how long to wait, in seconds."""
        now_ms = self._clock.now_ms()
        found = await self._database.read(
            lambda connection: durations.load_in_doubt(connection, now_ms - DOUBT_GRACE_MS, _PAGE)
        )
        late = [one for one in found if now_ms >= self._window_ends_ms(one) + DOUBT_GRACE_MS]
        await asyncio.gather(*(self._resolve(one) for one in late))
        return DOUBTS_S

    async def end_tasks(self) -> float:
        """Ask about tasks that have outrun their patience, which ends them; returns how long to wait, in seconds."""
        late: list[OpenTask] = []
        async for page in self._running():
            late += [one for one in page if self._late_ms(one) > TASK_GRACE_MS]
        silent: list[str] = []
        for start in range(0, min(len(late), _TASKS_A_ROUND), _PAGE):
            silent += await self._silent_of([one.attempt_id for one in late[start : start + _PAGE]])
        await self._end_unheard(silent)
        return TASKS_S

    async def _silent_of(self, late: list[str]) -> list[str]:
        max_age_ms = int(TASKS_S * 1000)
        since_ms = self._clock.now_ms() - max_age_ms
        answers = await self._polling.poll_many(late, max_age_ms, _POLL_WITHIN_S)
        return [name for name, answer in zip(late, answers, strict=True) if not _answered(answer, since_ms)]

    async def _end_unheard(self, silent: list[str]) -> None:
        now_s, since_s = self._clock.monotonic_s(), self._silent_since_s
        self._silent_since_s = {name: since_s.get(name, now_s) for name in silent}
        unheard = [name for name, at_s in self._silent_since_s.items() if now_s - at_s >= UNHEARD_S]
        if unheard:
            found = await self._attempts.get_many(unheard)
            ended = await end_unheard(self._attempts, self._overdue, list(found.values()))
            log.warning("attempts.unheard", extra={"attempts": ended})

    async def _running(self) -> AsyncIterator[list[OpenTask]]:
        before_ms, after = self._clock.now_ms() - SHORTEST_MS, ""
        while True:
            page = await self._page(before_ms, after)
            if not page:
                return
            yield page
            after = page[-1].attempt_id

    async def _page(self, before_ms: int, after: str) -> list[OpenTask]:
        return await self._database.read(
            lambda connection: durations.load_running(connection, before_ms, after, _PAGE)
        )

    async def _resolve(self, doubt: OpenTask) -> None:
        async with self._turns:
            try:
                await self._resolution.resolve(doubt.attempt_id)
                meters.LOOSE_ENDS.labels(doubt.provider, "in_doubt").inc()
            except ServiceError as error:
                told = {"attempt_id": doubt.attempt_id, "reason": error.reason}
                log.warning("attempt.not_resolved", extra=told)

    def _late_ms(self, task: OpenTask) -> int:
        return self._overdue.late_since_ms(task.provider, task.model, task.since_ms)

    def _window_ends_ms(self, doubt: OpenTask) -> int:
        known = doubt.provider in self._catalog.adapters
        terms = self._catalog.terms(doubt.provider) if known else Terms()
        return doubt.since_ms + round(terms.unknown_window_s * 1000)


def _answered(answer: Polled | ServiceError, since_ms: int) -> bool:
    # Where the provider takes too long, what it said long ago is told again.
    return isinstance(answer, Polled) and answer.answered_at_ms >= since_ms
