"""What a customer is told about a job: as committed, and, where asked for, as the provider sees it this moment."""

from __future__ import annotations

import asyncio
import contextvars
from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import Final

from msgspec.structs import replace

from services.chassis import call_context
from services.chassis.clock import Clock
from services.chassis.errors import ServiceError
from services.jobs import errors
from services.jobs.answers import AttemptState, AttemptStatus
from services.jobs.changes import Changes
from services.jobs.job import Job, JobState
from services.jobs.ports import Pool
from services.jobs.runner import Runner
from services.jobs.schedule import Timing
from services.jobs.store import JobStore, PublicNumber
from services.jobs.wishes import Wishes

# Collecting and settling usually take less, and then the answer shows the end already.
_END_WAIT_S: Final = 1.0
# How long a reader waits for the provider; the last known answer is better than a long wait.
_ASK_LIMIT_S: Final = 5.0
# A watcher of a job that another replica drives looks at the row so often.
_LOOK_AGAIN_S: Final = 1.0
# Answers about other replicas' jobs that are remembered.
_REMEMBERED: Final = 10_000
_Answer = tuple[AttemptStatus, int]


class Status:
    """Reads that never write."""

    def __init__(
        self,
        store: JobStore,
        runner: Runner,
        pool: Pool,
        wishes: Wishes,
        changes: Changes,
        clock: Clock,
        timing: Timing,
    ) -> None:
        self._store = store
        self._runner = runner
        self._pool = pool
        self._wishes = wishes
        self._changes = changes
        self._clock = clock
        self._timing = timing
        self._questions: dict[str, asyncio.Task[_Answer]] = {}
        self._answers: OrderedDict[str, _Answer] = OrderedDict()

    async def get(
        self,
        name: str | PublicNumber,
        customer_id: str,
        mode: str,
        *,
        sync: bool,
        tell_of_others_in: str = "",
    ) -> Job:
        """Raises JOB_NOT_FOUND; with `sync` also STATUS_UNAVAILABLE.

        `tell_of_others_in`: the storefront whose other customers' jobs raise JOB_OF_ANOTHER_CUSTOMER; empty for none.
        """
        job = await self._visible(name, customer_id, mode, tell_of_others_in)
        if sync and job.state is JobState.RUNNING:
            return await self._synchronised(job)
        return job

    async def watch(self, job_id: str, customer_id: str, mode: str) -> AsyncIterator[Job]:
        """The job now, then after every change, until it has ended or the server drains. Raises JOB_NOT_FOUND."""
        draining = call_context.drain_signal()
        with self._changes.watching(job_id) as changed:
            shown: Job | None = None
            while draining is None or not draining.is_set():
                changed.clear()
                job = await self._visible(job_id, customer_id, mode)
                if shown is None or (job.version, job.progress) != (shown.version, shown.progress):
                    yield job
                    shown = job
                if job.ended:
                    return
                try:
                    async with asyncio.timeout(_LOOK_AGAIN_S):
                        await changed.wait()
                except TimeoutError:
                    continue

    async def _visible(
        self, name: str | PublicNumber, customer_id: str, mode: str, tell_of_others_in: str = ""
    ) -> Job:
        job = await self._found(name)
        if job is None or job.mode != mode or job.state is JobState.ADMITTING or job.deleted_at_ms:
            raise errors.job_not_found()
        if job.customer_id != customer_id:
            if tell_of_others_in and job.storefront == tell_of_others_in:
                raise errors.job_of_another_customer()
            raise errors.job_not_found()
        return job

    async def _found(self, name: str | PublicNumber) -> Job | None:
        """The job as its owner in this process knows it, or else as its row does."""
        if isinstance(name, str):
            here = None if self._wishes.hides(name) else self._runner.shown(name)
            return here or await self._store.job(name)
        job = await self._store.numbered(name)
        if job is None or job.deleted_at_ms:
            return None
        return self._runner.shown(job.job_id) or job

    async def _synchronised(self, job: Job) -> Job:
        now_ms = self._clock.now_ms()
        known_at_ms = max(self._runner.answered_at_ms(job.job_id), self._remembered(job)[1])
        if now_ms - known_at_ms <= self._timing.sync_interval_s * 1000:
            return self._with_progress(job)
        try:
            async with asyncio.timeout(min(_ASK_LIMIT_S, call_context.remaining_s(_ASK_LIMIT_S) * 0.8)):
                status, answered_at_ms = await asyncio.shield(self._question(job))
        except (ServiceError, TimeoutError):
            # What was committed was known, too.
            if now_ms - max(known_at_ms, job.updated_at_ms) > self._timing.stale_after_s * 1000:
                raise errors.status_unavailable() from None
            return self._with_progress(job)
        self._runner.heard(job.job_id, job.attempt_id, status, answered_at_ms)
        if status.state in (AttemptState.SUCCEEDED, AttemptState.FAILED, AttemptState.ABANDONED):
            return await self._soon_ended(job)
        return self._with_progress(job)

    def _question(self, job: Job) -> asyncio.Task[_Answer]:
        attempt_id = job.attempt_id
        question = self._questions.get(attempt_id)
        if question is None:
            # An empty context: the question outlives the impatience of the first who asked.
            question = self._questions[attempt_id] = asyncio.create_task(
                self._ask(attempt_id), context=contextvars.Context()
            )
            question.add_done_callback(lambda done: self._asked(attempt_id, done))
        return question

    async def _ask(self, attempt_id: str) -> _Answer:
        return await self._pool.poll(attempt_id, int(self._timing.sync_interval_s * 1000))

    def _asked(self, attempt_id: str, question: asyncio.Task[_Answer]) -> None:
        self._questions.pop(attempt_id, None)
        if question.cancelled() or question.exception() is not None:
            return
        self._answers[attempt_id] = question.result()
        self._answers.move_to_end(attempt_id)
        while len(self._answers) > _REMEMBERED:
            self._answers.popitem(last=False)

    def _remembered(self, job: Job) -> _Answer:
        return self._answers.get(job.attempt_id, (AttemptStatus(AttemptState.UNSPECIFIED), 0))

    def _with_progress(self, job: Job) -> Job:
        job = self._runner.shown(job.job_id) or job
        status, answered_at_ms = self._remembered(job)
        if job.ended or answered_at_ms == 0:
            return job
        return replace(job, progress=max(job.progress, min(status.progress, 99)))

    async def _soon_ended(self, job: Job) -> Job:
        """The provider is done with it: the end may be told already if it comes soon."""
        wait_s = min(_END_WAIT_S, call_context.remaining_s(_END_WAIT_S * 2) / 2)
        with self._changes.watching(job.job_id) as changed:
            try:
                async with asyncio.timeout(wait_s):
                    while not (found := await self._visible(job.job_id, job.customer_id, job.mode)).ended:
                        await changed.wait()
                        changed.clear()
                    return found
            except TimeoutError:
                return await self._visible(job.job_id, job.customer_id, job.mode)
