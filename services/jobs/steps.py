"""The steps of a job: each asks one of the others one thing and says what follows. None of them knows the engine.

Every step may run again after a crash: its effect is keyed by the job's or the attempt's id.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from services.chassis.clock import Clock
from services.chassis.errors import Kind, ServiceError
from services.jobs import answers, schedule
from services.jobs import job as rules
from services.jobs.answers import AttemptState, AttemptStatus
from services.jobs.job import FailureReason, Job, JobState, Settlement
from services.jobs.ports import Billing, Pool
from services.jobs.reference import Role
from services.jobs.schedule import Timing

log = logging.getLogger(__name__)

# Nobody knows whether the call was served, or it was not: it is made again under the same key.
TRANSIENT: Final = frozenset(
    {
        Kind.UNAVAILABLE,
        Kind.DEADLINE_EXCEEDED,
        Kind.CANCELLED,
        Kind.INTERNAL,
        Kind.ABORTED,
        Kind.RESOURCE_EXHAUSTED,
    }
)
# A job whose outputs cannot be copied is kept so long beyond its deadline: they are paid for already.
COLLECT_PATIENCE_MS: Final = 10 * 60_000
_UNKNOWN_POLL_S: Final = 5.0
# The pool gives up on an image or a sound after 15 s, on a film after 60 s, and may have to wait for a turn; beyond that it
# is asked again.
_PREPARE_EACH_S: Final = 20.0
_PREPARE_FILM_S: Final = 75.0
_PREPARE_LIMIT_S: Final = 120.0
# The lease ended before the attempt was submitted: nothing has left under it, and nothing will.
_NEVER_BEGUN: Final = frozenset({"LEASE_ENDED", "ATTEMPT_NOT_FOUND"})


@dataclass(frozen=True, slots=True)
class Clients:
    """Whom a step may ask."""

    billing: Billing
    pool: Pool


@dataclass(frozen=True, slots=True)
class View:
    """What a step may know: the job as committed, the time, how often this step failed or was asked, and chance."""

    job: Job
    clock: Clock
    failures: int
    polls: int
    jitter: float
    timing: Timing

    @property
    def now_ms(self) -> int:
        """Asked for again after every wait: a step may take minutes."""
        return self.clock.now_ms()


@dataclass(frozen=True, slots=True)
class Move:
    """Commit `after`, then go on; at once, or after `wait_s`."""

    after: Job
    wait_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing is known that was not known before: ask again after `delay_s`."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class Heard:
    """The provider answered and the job goes on as it was."""

    progress: int
    answered_at_ms: int
    delay_s: float


Outcome = Move | Wait | Heard
Step = Callable[[View, Clients], Awaitable[Outcome]]


async def step(view: View, clients: Clients) -> Outcome:
    """The next thing to do for this job. Raises nothing but bugs: failures of others are outcomes."""
    job, now_ms = view.job, view.now_ms
    given_up = rules.canceling(job, now_ms) or rules.overdue(job, now_ms) or rules.poisoned(job, now_ms)
    if given_up is not None:
        return Move(given_up)
    return await _STEPS[view.job.state](view, clients)


async def prepare(view: View, clients: Clients) -> Outcome:
    """References are made ready first. The intent to submit is committed before the request may leave."""
    if view.job.generation.references:
        unready = await _unready(view, clients)
        if unready is not None:
            return unready
    return Move(rules.moved(view.job, JobState.SUBMITTING, view.now_ms))


async def _unready(view: View, clients: Clients) -> Outcome | None:
    """None once all references are ready. Repeated under the same attempt: what is ready is not fetched again."""
    job = view.job
    try:
        failure = await clients.pool.prepare_references(job, _prepare_timeout_s(view))
    except ServiceError as error:
        if error.reason in _NEVER_BEGUN:
            return Move(_again(view))
        if error.kind in TRANSIENT:
            return _backoff(view)
        return Move(rules.failing(job, FailureReason.REQUEST_REJECTED, error.reason, view.now_ms))
    if failure is None:
        return None
    after = answers.after_failure(job, failure, view.now_ms, view.jitter)
    return _backoff(view) if after is None else Move(after)


def _prepare_timeout_s(view: View) -> float:
    job = view.job
    each_s = (
        _PREPARE_FILM_S if reference.role is Role.VIDEO else _PREPARE_EACH_S
        for reference in job.generation.references
    )
    allowed_s = min(_PREPARE_LIMIT_S, sum(each_s))
    # What becomes ready after the job's own deadline is of no use.
    return min(allowed_s, (job.run_deadline_ms - view.now_ms) / 1000)


async def submit(view: View, clients: Clients) -> Outcome:
    """Repeated under the same attempt id until the pool answers: the pool sends it at most once."""
    try:
        status = await clients.pool.submit(view.job)
    except ServiceError as error:
        if error.reason in _NEVER_BEGUN:
            return Move(_again(view))
        if error.reason == "ATTEMPT_STATE":
            return Move(rules.moved(view.job, JobState.UNKNOWN, view.now_ms))
        if error.kind in TRANSIENT:
            return _backoff(view)
        return Move(rules.failing(view.job, FailureReason.REQUEST_REJECTED, error.reason, view.now_ms))
    after = answers.after_answer(view.job, status, view.now_ms, view.jitter)
    return _backoff(view) if after is None else Move(after, _wait_s(view, after, status))


async def poll(view: View, clients: Clients) -> Outcome:
    """Where the attempt stands; nothing is written unless that changes."""
    max_age_ms = int(view.timing.poll_interval_s * 500)
    try:
        status, answered_at_ms = await clients.pool.poll(view.job.attempt_id, max_age_ms)
    except ServiceError as error:
        return after_no_answer(view, error)
    return after_poll(view, status, answered_at_ms)


def after_no_answer(view: View, error: ServiceError) -> Outcome:
    """What follows from a poll that was refused, whoever made it."""
    if error.reason == "ATTEMPT_NOT_FOUND":
        detail = "the pool does not know the attempt"
        return Move(rules.failing(view.job, FailureReason.PROVIDER_UNAVAILABLE, detail, view.now_ms))
    return _backoff(view)


def after_poll(view: View, status: AttemptStatus, answered_at_ms: int) -> Outcome:
    """What follows from a poll, whoever made it."""
    after = answers.after_answer(view.job, status, view.now_ms, view.jitter)
    if after is not None:
        return Move(after, _wait_s(view, after, status))
    return Heard(min(status.progress, 99), answered_at_ms, _poll_delay_s(view, status))


async def resolve(view: View, clients: Clients) -> Outcome:
    """Looks for an attempt in doubt. It is never sent again before its absence is certain."""
    try:
        status = await clients.pool.resolve_unknown(view.job.attempt_id)
    except ServiceError as error:
        if error.reason == "ATTEMPT_NOT_FOUND":
            # The pool records an attempt before anything leaves, so nothing has left.
            return Move(_again(view))
        return _backoff(view)
    after = answers.after_answer(view.job, status, view.now_ms, view.jitter)
    if after is not None:
        return Move(after, _wait_s(view, after, status))
    return Wait(schedule.poll_delay_s(status.poll_after_ms, 2, _UNKNOWN_POLL_S / 5, view.jitter))


async def collect(view: View, clients: Clients) -> Outcome:
    """Copies the outputs; repeating it repeats the answer."""
    try:
        outputs, retention_ms = await clients.pool.collect(view.job)
    except ServiceError as error:
        if error.kind in TRANSIENT and view.now_ms < view.job.run_deadline_ms + COLLECT_PATIENCE_MS:
            return _backoff(view)
        return Move(rules.failing(view.job, FailureReason.OUTPUT_UNUSABLE, error.reason, view.now_ms))
    if not outputs:
        return Move(rules.failing(view.job, FailureReason.OUTPUT_UNUSABLE, "no outputs", view.now_ms))
    return Move(rules.succeeding(view.job, outputs, retention_ms, view.now_ms))


async def settle(view: View, clients: Clients) -> Outcome:
    """Charges or gives back what was decided, until billing has answered; only then does the job end."""
    job = view.job
    try:
        charged_millis = await _settled(job, clients)
    except ServiceError as error:
        if error.kind in TRANSIENT:
            return _backoff(view)
        # The hold ended otherwise. The customer's job still ends; an operator reads why it was not as decided.
        log.exception("job.settlement_refused", extra={"job_id": job.job_id, "reason": error.reason})
        charged_millis = job.quoted_millis if error.reason == "HOLD_CAPTURED" else 0
    return Move(rules.finished(job, charged_millis, view.now_ms))


async def _settled(job: Job, clients: Clients) -> int:
    if job.settlement is Settlement.CAPTURE:
        return await clients.billing.capture(job, job.settle_millis)
    await clients.billing.release(job.job_id, job.customer_id, job.mode)
    return 0


def _again(view: View) -> Job:
    job = view.job
    if job.attempt_number >= rules.MAX_ATTEMPTS:
        reason = job.failure or FailureReason.PROVIDER_UNAVAILABLE
        return rules.failing(job, reason, "leases ended before use", view.now_ms)
    return rules.requeued(job, view.now_ms, not_before_ms=view.now_ms, avoid="", reason=job.failure)


def _backoff(view: View) -> Wait:
    return Wait(schedule.backoff_s(view.failures, view.jitter))


def _wait_s(view: View, after: Job, status: AttemptStatus) -> float:
    waits = after.state in (JobState.RUNNING, JobState.UNKNOWN) and status.state is not AttemptState.SUCCEEDED
    return _poll_delay_s(view, status) if waits else 0.0


def _poll_delay_s(view: View, status: AttemptStatus) -> float:
    return schedule.poll_delay_s(status.poll_after_ms, view.polls, view.timing.poll_interval_s, view.jitter)


_STEPS: Final[dict[JobState, Step]] = {
    JobState.LEASED: prepare,
    JobState.SUBMITTING: submit,
    JobState.UNKNOWN: resolve,
    JobState.RUNNING: poll,
    JobState.COLLECTING: collect,
    JobState.SETTLING: settle,
}
