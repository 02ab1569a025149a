"""What the provider pool answers about an attempt, and what follows from it for the job."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from services.jobs import job as rules
from services.jobs import schedule
from services.jobs.job import FailureReason, Job, JobState


class AttemptState(IntEnum):
    """Where an attempt stands; the values are the proto's."""

    UNSPECIFIED = 0
    SUBMITTING = 1
    UNKNOWN = 2
    RUNNING = 3
    SUCCEEDED = 4
    FAILED = 5
    ABANDONED = 6


class NextStep(IntEnum):
    """What the pool advises about a failure; the values are the proto's."""

    UNSPECIFIED = 0
    FAIL = 1
    RETRY = 2
    ROTATE = 3
    RECONCILE = 4


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt failed. `detail` is for operators only."""

    reason: FailureReason
    next_step: NextStep
    retry_after_ms: int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class AttemptStatus:
    """Where an attempt stands, as the pool last knew."""

    state: AttemptState
    progress: int = 0
    # When to ask next, from now; 0: no opinion.
    poll_after_ms: int = 0
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Granted:
    """An account is held for the attempt."""

    account_id: str


class Busy:
    """Some account can take the attempt later."""


# The customer's own answer: another account would say the same, or must not be asked.
_FINAL_REASONS = frozenset(
    {
        FailureReason.CONTENT_REFUSED,
        FailureReason.REQUEST_REJECTED,
        FailureReason.INVALID_REFERENCE,
        FailureReason.REFERENCE_UNAVAILABLE,
    }
)
_REFUSALS = frozenset({FailureReason.PROVIDER_UNAVAILABLE, FailureReason.REFERENCE_UNSUITABLE})


def after_answer(job: Job, status: AttemptStatus, now_ms: int, jitter: float) -> Job | None:
    """The job's next state given the pool's answer, or None where it stays as it is. `jitter` is in [0, 1)."""
    match status.state:
        case AttemptState.SUCCEEDED:
            return rules.moved(job, JobState.COLLECTING, now_ms, progress=max(job.progress, 99))
        case AttemptState.FAILED:
            failure = status.failure or Failure(FailureReason.GENERATION_FAILED, NextStep.FAIL)
            return after_failure(job, failure, now_ms, jitter)
        case AttemptState.ABANDONED:
            # Advice to try again is the operator's leave to send it once more, at the risk of paying twice.
            given_up = Failure(FailureReason.SUBMISSION_UNKNOWN, NextStep.FAIL)
            return after_failure(job, status.failure or given_up, now_ms, jitter)
        case AttemptState.RUNNING:
            progress = max(job.progress, min(status.progress, 99))
            return (
                None
                if job.state is JobState.RUNNING
                else rules.moved(job, JobState.RUNNING, now_ms, progress=progress)
            )
        case _:
            return None if job.state is JobState.UNKNOWN else rules.moved(job, JobState.UNKNOWN, now_ms)


def after_failure(job: Job, failure: Failure, now_ms: int, jitter: float) -> Job | None:
    """Fail, try again, try elsewhere, or find out first (None where the job is finding out already)."""
    step = NextStep.FAIL if failure.reason in _FINAL_REASONS else failure.next_step
    if step is NextStep.RECONCILE and job.state is JobState.LEASED:
        # Nothing has left yet, so that there is nothing to find out.
        step = NextStep.RETRY
    if step is NextStep.RECONCILE:
        return None if job.state is JobState.UNKNOWN else rules.moved(job, JobState.UNKNOWN, now_ms)
    if step not in (NextStep.RETRY, NextStep.ROTATE) or not _may_try_again(job, failure.reason, step):
        return rules.failing(job, failure.reason or FailureReason.GENERATION_FAILED, failure.detail, now_ms)
    rotate = step is NextStep.ROTATE
    wait_ms = 0 if rotate else schedule.retry_after_ms(failure.retry_after_ms, job.attempt_number, jitter)
    return rules.requeued(
        job,
        now_ms,
        not_before_ms=now_ms + wait_ms,
        avoid=job.account_id if rotate else "",
        reason=failure.reason,
    )


def _may_try_again(job: Job, reason: FailureReason, step: NextStep) -> bool:
    # Accounts that would not have it cost nothing and do not count, each once: the next may be the one that is not dead,
    # or of a provider that takes larger references.
    is_refusal = step is NextStep.ROTATE and reason in _REFUSALS
    if is_refusal and job.account_id not in job.avoid_account_ids:
        return job.attempt_number < rules.MAX_REFUSALS
    return reason is not FailureReason.REFERENCE_UNSUITABLE and job.attempt_number < rules.MAX_ATTEMPTS
