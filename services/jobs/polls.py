"""When running jobs are asked about, and asking: one timer for all of them, one question for those due together.

Twenty thousand jobs with a task, a timer and a call each would keep a processor busy with nothing but waiting.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import logging
import math
from collections.abc import Callable, Sequence

from services.chassis.errors import ServiceError, internal_error
from services.jobs import measures
from services.jobs.active import Active
from services.jobs.ownership import Ownership
from services.jobs.ports import PollAnswer, Pool
from services.jobs.schedule import Timing

log = logging.getLogger(__name__)

# Jobs due within so short a time are asked about together: nobody sees the difference, and a call carries dozens.
_SLOT_S = 0.02
# In one question; the pool takes 1000.
_QUESTION_LIMIT = 250
# The slowest of the providers in a question keeps the answers of the others waiting no longer.
_MAX_WAIT_S = 2.0
# A timer may ring a little before its time.
_EARLY_S = 0.001


class Polls:
    """Asks about jobs when they are due, and tells `told` what the pool answered."""

    def __init__(
        self,
        pool: Pool,
        ownership: Ownership,
        timing: Timing,
        told: Callable[[Active, PollAnswer | ServiceError], None],
    ) -> None:
        self._pool = pool
        self._ownership = ownership
        self._max_age_ms = int(timing.poll_interval_s * 500)
        self._told = told
        self._slots: dict[int, list[Active]] = {}
        # The slots in use, the next one first.
        self._order: list[int] = []
        self._timer: asyncio.TimerHandle | None = None
        self._asking: set[asyncio.Task[None]] = set()

    def wait(self, active: Active, delay_s: float) -> None:
        """Asks about the job after `delay_s`, unless it rests before."""
        if active.hinted:
            active.hinted, delay_s = False, 0.0
        loop = asyncio.get_running_loop()
        active.due_s = loop.time() + delay_s
        active.slot = slot = math.ceil(active.due_s / _SLOT_S)
        waiting = self._slots.get(slot)
        if waiting is not None:
            waiting.append(active)
            return
        self._slots[slot] = [active]
        heapq.heappush(self._order, slot)
        if self._order[0] == slot:
            self._set_timer()

    def hasten(self, active: Active) -> None:
        """Asks about a job that waits as soon as it can; about one that is being asked about, once more after that."""
        if active.slot:
            self.wait(active, 0.0)
        elif active.question is not None:
            active.hinted = True

    async def stop(self) -> None:
        """Asks nothing more, and tells nothing more."""
        if self._timer is not None:
            self._timer.cancel()
        self._slots.clear()
        self._order.clear()
        for asking in self._asking:
            asking.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(self._order[0] * _SLOT_S, self._ring)

    def _ring(self) -> None:
        now = (asyncio.get_running_loop().time() + _EARLY_S) / _SLOT_S
        due: list[Active] = []
        while self._order and self._order[0] <= now:
            slot = heapq.heappop(self._order)
            due += [active for active in self._slots.pop(slot) if active.slot == slot]
        for start in range(0, len(due), _QUESTION_LIMIT):
            self._begin(due[start : start + _QUESTION_LIMIT])
        self._timer = None
        if self._order:
            self._set_timer()

    def _begin(self, asked: list[Active]) -> None:
        question = object()
        for active in asked:
            active.slot = 0
            active.question = question
        # An empty context: the question is no one request's, and under no one's deadline.
        asking = asyncio.create_task(self._ask(question, asked), name="poll", context=contextvars.Context())
        self._asking.add(asking)
        asking.add_done_callback(self._asking.discard)

    async def _ask(self, question: object, asked: list[Active]) -> None:
        await self._ownership.permission()
        # A worker that was declared dead while it waited has dropped these, and asks about none of them.
        asked = [active for active in asked if active.question is question]
        if not asked:
            return
        for active, answer in zip(asked, await self._answers(asked), strict=True):
            # Somebody else may have heard of the job's end meanwhile, or it is another worker's by now.
            if active.question is question:
                active.question = None
                self._told(active, answer)

    async def _answers(self, asked: list[Active]) -> Sequence[PollAnswer | ServiceError]:
        now_s = asyncio.get_running_loop().time()
        for active in asked:
            measures.POLL_LAG_SECONDS.observe(max(0.0, now_s - active.due_s))
        names = [active.job.attempt_id for active in asked]
        try:
            return await self._pool.poll_many(names, self._max_age_ms, _MAX_WAIT_S)
        except ServiceError as error:
            return [error] * len(asked)
        except Exception:
            # A bug must not leave jobs that nobody asks about ever again.
            log.exception("poll.failed")
            return [internal_error()] * len(asked)
