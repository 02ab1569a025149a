"""Runs the jobs that this worker owns: one task while a job does something, none while it waits.

A poll is never a database event. What is in memory here is a copy of the row plus what the provider said last;
losing it loses nothing.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
from collections import Counter
from collections.abc import Callable

from msgspec.structs import replace

from services.chassis import call_context
from services.chassis.clock import Clock
from services.chassis.errors import ServiceError
from services.jobs import job as rules
from services.jobs import measures, schedule
from services.jobs.active import Active
from services.jobs.answers import AttemptStatus
from services.jobs.changes import Changes
from services.jobs.commits import Commits
from services.jobs.dispatcher import Dispatcher
from services.jobs.errors import LeaseLostError
from services.jobs.job import Job, JobState
from services.jobs.ownership import Ownership
from services.jobs.polls import Polls
from services.jobs.ports import PollAnswer
from services.jobs.returns import Returns
from services.jobs.schedule import Timing
from services.jobs.steps import Clients, Heard, Move, Outcome, View, Wait, after_no_answer, after_poll, step
from services.jobs.wishes import Wishes

log = logging.getLogger(__name__)

# In the row it is for restarts and other replicas only; nine writes in a job's life are enough for that.
_PROGRESS_STEP = 10
# What is asked in these states may be asked again or left unasked. A submission is waited for: its answer says whether
# there is something to be cancelled.
_MAY_BE_STOPPED = frozenset({JobState.LEASED, JobState.UNKNOWN, JobState.RUNNING, JobState.COLLECTING})


class Runner:
    """Drives every active job of this worker from step to step."""

    def __init__(
        self,
        clients: Clients,
        commits: Commits,
        dispatcher: Dispatcher,
        returns: Returns,
        ownership: Ownership,
        wishes: Wishes,
        changes: Changes,
        clock: Clock,
        timing: Timing,
    ) -> None:
        self._clients = clients
        self._commits = commits
        self._dispatcher = dispatcher
        self._returns = returns
        self._ownership = ownership
        self._wishes = wishes
        self._changes = changes
        self._clock = clock
        self._timing = timing
        self._undo: Callable[[Job], None] = lambda job: None
        self._active: dict[str, Active] = {}
        self._polls = Polls(clients.pool, ownership, timing, self._answered)
        self._resting: dict[str, asyncio.TimerHandle] = {}
        self._states: Counter[JobState] = Counter()
        self._leaving = False

    def undoes(self, undo: Callable[[Job], None]) -> None:
        """What is done with an admission that its worker did not live to answer."""
        self._undo = undo

    def adopt(self, jobs: list[Job]) -> None:
        """Takes over jobs that were just claimed."""
        for job in jobs:
            if job.state is JobState.ADMITTING:
                self._undo(job)
            elif job.state is JobState.QUEUED:
                self._line_up(job, front=job.attempt_number > 0)
            else:
                # Thousands that are claimed together are not all asked about in the same moment.
                spread_s = _chance() * schedule.longest_rhythm_s(self._timing.poll_interval_s)
                self._begin(job, spread_s if job.state is JobState.RUNNING else 0.0)

    def start(self, job: Job) -> None:
        """Drives a committed job from the state it is in."""
        self._begin(job, self._timing.first_step_s if job.state is JobState.LEASED else 0.0)

    def _begin(self, job: Job, delay_s: float) -> None:
        known = self._active.get(job.job_id)
        if known is not None:
            if known.job.epoch >= job.epoch:
                return
            # Claimed anew: what is here belongs to a life of this worker that is over, and may not write.
            self._forget(known)
            if known.task is not None:
                known.task.cancel()
        active = self._active[job.job_id] = Active(job, self._clock.monotonic_s())
        self._states[job.state] += 1
        unwanted = self._is_to_end(active) or rules.poisoned(job, self._clock.now_ms()) is not None
        if delay_s > 0 and not unwanted:
            self._after(active, delay_s)
        else:
            self._go(active)

    def end(self, job_id: str) -> None:
        """Ends a job that was asked to end, wherever it is here, as soon as its request is not on its way."""
        active = self._active.get(job_id)
        if active is None:
            timer = self._resting.pop(job_id, None)
            if timer is None:
                self._dispatcher.end(job_id)
            else:
                timer.cancel()
                self._dispatcher.end_unplaced(job_id)
        elif self._leaving or not self._is_to_end(active):
            return
        elif active.task is None:
            self._go(active)
        elif active.asking:
            active.asking = False
            active.cut_short = True
            active.task.cancel()

    def knows(self, job_id: str) -> bool:
        """Whether the job is active here, or rests before its next attempt."""
        return job_id in self._active or job_id in self._resting

    def jobs(self) -> list[Job]:
        """The active jobs, as committed."""
        return [active.job for active in self._active.values()]

    def shown(self, job_id: str) -> Job | None:
        """The job as it is to be shown, with progress that is not in the row yet; None if it is not active here."""
        active = self._active.get(job_id)
        # Without a young heartbeat somebody else may have taken the job further: only the row knows.
        if active is None or not self._ownership.may_act():
            return None
        return self._current(active)

    def answered_at_ms(self, job_id: str) -> int:
        """When the provider was last heard about this job; 0 if never, or if it is not active here."""
        active = self._active.get(job_id)
        return 0 if active is None else active.answered_at_ms

    def heard(self, job_id: str, attempt_id: str, status: AttemptStatus, answered_at_ms: int) -> None:
        """Somebody else asked the provider about a job of ours: what it said counts as a poll."""
        active = self._active.get(job_id)
        if active is None or active.task is not None or self._leaving:
            return
        if active.job.state is not JobState.RUNNING or active.job.attempt_id != attempt_id:
            return
        outcome = after_poll(self._view(active), status, answered_at_ms)
        if isinstance(outcome, Heard):
            active.answered_at_ms = max(active.answered_at_ms, answered_at_ms)
            self._note_progress(active, outcome)
        else:
            self._go(active, outcome)

    def hinted(self, attempt_id: str) -> bool:
        """A provider says that something has happened: asks soon, if the attempt is one of a job that waits for it here."""
        active = self._active.get(attempt_id.rpartition(":")[0])
        if active is None or self._leaving or active.job.attempt_id != attempt_id:
            return False
        if active.job.state is JobState.RUNNING and active.task is None:
            self._polls.hasten(active)
            return True
        if active.job.state is JobState.UNKNOWN and active.timer is not None:
            self._go(active)
            return True
        return False

    def drop_all(self) -> None:
        """Forgets every job at once: somebody else owns them."""
        self._wake_nobody()
        for active in list(self._active.values()):
            self._forget(active)
            if active.task is not None:
                active.task.cancel()

    async def stop(self, patience_s: float) -> None:
        """Begins no further step, lets those under way end for `patience_s`, then cancels them."""
        self._leaving = True
        self._wake_nobody()
        tasks = [active.task for active in self._active.values() if active.task is not None]
        for active in self._active.values():
            active.rest()
        await self._polls.stop()
        if tasks:
            await asyncio.wait(tasks, timeout=patience_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def measure(self) -> None:
        """Refreshes the gauges."""
        for state in JobState:
            count = len(self._dispatcher.room) if state is JobState.QUEUED else self._states[state]
            measures.OWNED.labels(state.value).set(count)

    # One job.

    def _go(self, active: Active, known: Outcome | None = None) -> None:
        active.rest()
        # An empty context: the job belongs to no one request and to no one's deadline.
        active.task = asyncio.create_task(
            self._run(active, known), name=active.job.job_id, context=contextvars.Context()
        )

    def _after(self, active: Active, delay_s: float) -> None:
        if self._leaving or self._active.get(active.job.job_id) is not active:
            return
        if active.job.state is JobState.RUNNING:
            self._polls.wait(active, delay_s)
        else:
            active.timer = asyncio.get_running_loop().call_later(delay_s, self._go, active)

    def _answered(self, active: Active, answer: PollAnswer | ServiceError) -> None:
        try:
            self._go_by(active, answer)
        except Exception:
            # A bug must not end a job, nor keep from their answers those that were asked about with it.
            log.exception("job.answer_failed", extra={"job_id": active.job.job_id})
            self._go(active)

    def _go_by(self, active: Active, answer: PollAnswer | ServiceError) -> None:
        """Most answers change nothing: then the job waits again, without a task of its own."""
        view = self._view(active)
        outcome = (
            after_no_answer(view, answer) if isinstance(answer, ServiceError) else after_poll(view, *answer)
        )
        if isinstance(outcome, Move):
            self._go(active, outcome)
        elif active.job.run_deadline_ms <= self._clock.now_ms():
            self._go(active)
        elif isinstance(outcome, Wait):
            active.failures += 1
            self._after(active, outcome.delay_s)
        elif self._is_worth_writing(active, outcome):
            self._go(active, outcome)
        else:
            self._hear(active, outcome)
            self._after(active, self._until_next(active, outcome))

    async def _run(self, active: Active, known: Outcome | None) -> None:
        delay_s: float | None
        try:
            delay_s = await self._advance(active, known)
        except LeaseLostError:
            log.warning("job.lease_lost", extra={"job_id": active.job.job_id})
            measures.LEASES_LOST.inc()
            self._forget(active)
            delay_s = None
        except Exception:
            # A bug must not end a job that nobody else would take up; its deadline still does.
            log.exception("job.step_failed", extra={"job_id": active.job.job_id, "state": active.job.state})
            active.failures += 1
            delay_s = schedule.backoff_s(active.failures, _chance())
        finally:
            active.task = None
        if delay_s is not None:
            self._after(active, delay_s)

    async def _advance(self, active: Active, known: Outcome | None) -> float | None:
        """Steps until the job waits; returns for how long, or None when it is not active any more."""
        while True:
            await self._ownership.permission()
            outcome = known or await self._next(active)
            known = None
            if isinstance(outcome, Wait):
                active.failures += 1
                delay_s = outcome.delay_s
            elif isinstance(outcome, Heard):
                delay_s = await self._keep(active, outcome)
            elif outcome is None:
                delay_s = 0.0
            elif not await self._move(active, outcome):
                return None
            else:
                delay_s = outcome.wait_s
            if delay_s > 0 and not self._is_to_end(active):
                return delay_s
            if self._leaving:
                return None

    async def _next(self, active: Active) -> Outcome | None:
        """What the next step says; None where it was stopped because somebody wants the job to end."""
        active.asking = active.job.state in _MAY_BE_STOPPED
        try:
            with call_context.fenced(active.job.epoch, active.job.job_id):
                return await step(self._view(active), self._clients)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not active.cut_short or task is None or task.uncancel() > 0:
                raise
            return None
        finally:
            active.asking = active.cut_short = False

    def _is_to_end(self, active: Active) -> bool:
        return rules.canceling(self._current(active), self._clock.now_ms()) is not None

    def _current(self, active: Active) -> Job:
        """The job with what is known of it beside the row as it was read."""
        job = active.job
        # The step after a poll writes the progress that was only in memory until then.
        if active.progress > job.progress:
            job = replace(job, progress=active.progress)
        asked_at_ms = self._wishes.asked_at_ms(job)
        return job if asked_at_ms == job.cancel_asked_at_ms else replace(job, cancel_asked_at_ms=asked_at_ms)

    def _view(self, active: Active) -> View:
        job = self._current(active)
        return View(job, self._clock, active.failures, active.polls, _chance(), self._timing)

    async def _move(self, active: Active, move: Move) -> bool:
        """Commits; False when the job has left this place."""
        before, after = active.job, self._parked(move.after)
        if after.ended:
            # First: a crash between the two is followed by both again, and after the last commit by nothing.
            await self._returns.drop_references_now(after)
        after = await self._commits.commit(before, after)
        self._states[before.state] -= 1
        self._states[after.state] += 1
        active.job = after
        active.failures = active.polls = 0
        active.progress = after.progress
        if after.state is JobState.RUNNING:
            # Only the provider's word leads here.
            active.answered_at_ms = after.updated_at_ms
        if after.ended:
            told = {"job_id": after.job_id, "customer_id": after.customer_id, "state": after.state}
            log.info("job.ended", extra=told | {"failure": after.failure.name.lower()})
            self._forget(active)
            self._returns.give_back(after.attempt_id)
            self._returns.close_attempt(after)
            self._dispatcher.eased((after.customer_id, after.mode))
            return False
        if after.state is JobState.QUEUED:
            # Known until it lines up: a worker that is declared dead meanwhile must not ask for it any more.
            await self._returns.give_back_now(before.attempt_id)
            self._forget(active)
            if after.owner is not None:
                self._line_up(after, front=True)
            return False
        return True

    def _parked(self, job: Job) -> Job:
        """A long wait is nobody's: the row remembers when it is over."""
        long = job.run_at_ms - self._clock.now_ms() > self._timing.park_after_s * 1000
        parked = job.state is JobState.QUEUED and long and not self._wishes.asked_at_ms(job)
        return rules.released(job) if parked else job

    def _line_up(self, job: Job, *, front: bool) -> None:
        wait_s = (job.run_at_ms - self._clock.now_ms()) / 1000
        if self._wishes.asked_at_ms(job):
            self._dispatcher.end_unplaced(job.job_id)
        elif wait_s > 0:
            loop = asyncio.get_running_loop()
            self._resting[job.job_id] = loop.call_later(wait_s, self._rested, job)
        elif front and job.attempt_number > 0:
            self._dispatcher.offer_at_once(job)
        else:
            self._dispatcher.enqueue(job)

    def _rested(self, job: Job) -> None:
        del self._resting[job.job_id]
        self._dispatcher.offer_at_once(job)

    def _wake_nobody(self) -> None:
        for timer in self._resting.values():
            timer.cancel()
        self._resting.clear()

    async def _keep(self, active: Active, heard: Heard) -> float:
        written = self._is_worth_writing(active, heard)
        self._hear(active, heard)
        if written:
            active.saved_s = self._clock.monotonic_s()
            after = rules.touched(active.job, self._clock.now_ms(), progress=active.progress)
            active.job = await self._commits.commit(active.job, after)
        return self._until_next(active, heard)

    def _is_worth_writing(self, active: Active, heard: Heard) -> bool:
        grown = max(heard.progress, active.progress) - active.job.progress >= _PROGRESS_STEP
        old = self._clock.monotonic_s() - active.saved_s >= self._timing.progress_s
        # An answer is a step done: written once after a claim, so that restarts do not make a long job look poisonous.
        return (grown and old) or active.job.idle_claims > 0

    def _hear(self, active: Active, heard: Heard) -> None:
        active.failures = 0
        active.polls += 1
        active.answered_at_ms = max(active.answered_at_ms, heard.answered_at_ms)
        self._note_progress(active, heard)

    def _until_next(self, active: Active, heard: Heard) -> float:
        left_s = max(0.0, (active.job.run_deadline_ms - self._clock.now_ms()) / 1000)
        return min(heard.delay_s, left_s + 0.01)

    def _note_progress(self, active: Active, heard: Heard) -> None:
        if heard.progress > active.progress:
            active.progress = heard.progress
            self._changes.publish(active.job.job_id)

    def _forget(self, active: Active) -> None:
        active.rest()
        if self._active.get(active.job.job_id) is active:
            del self._active[active.job.job_id]
            self._states[active.job.state] -= 1


def _chance() -> float:
    return random.random()  # noqa: S311 - jitter, not a secret
