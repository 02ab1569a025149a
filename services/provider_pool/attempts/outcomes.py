"""What a provider's answer changes of an attempt's record. Pure: an answer in, a Change out."""

from __future__ import annotations

from services.provider_pool import failures
from services.provider_pool.adapters.interface import (
    Cancellation,
    GenerationFailed,
    Next,
    OutputUnavailable,
    ProviderError,
    Scope,
    Snapshot,
    Submission,
    TaskState,
    TransientFailure,
)
from services.provider_pool.attempts import codec
from services.provider_pool.attempts import states as rules
from services.provider_pool.attempts.history import Event
from services.provider_pool.attempts.records import Change, Signal
from services.provider_pool.attempts.states import Attempt, AttemptState
from services.provider_pool.selection.pool import WHOLE_ACCOUNT


def accepted(
    attempt: Attempt, submission: Submission, expected_millis: int, sent_at_ms: int, now_ms: int
) -> Change:
    """The provider took the task, and may have done it already. What it tells of the cost counts before what was expected."""
    done = submission.done
    due_millis = expected_millis if submission.cost_millis is None else submission.cost_millis
    ending = None if done is None else ended(attempt, done, due_millis, now_ms)
    return Change(
        attempt.attempt_id,
        attempt.account_id,
        now_ms,
        to=AttemptState.RUNNING if ending is None else ending.to,
        task_id=submission.task.task_id,
        task=codec.task_text(submission.task),
        submitted_at_ms=submission.task.submitted_at_ms,
        generation=codec.without_prompt(attempt.generation),
        outputs=None if ending is None else ending.outputs,
        failure=None if ending is None else ending.failure,
        expected_cost_millis=due_millis if ending is None else ending.expected_cost_millis,
        cost_millis=None if ending is None else ending.cost_millis,
        signals=_answered_well(attempt, sent_at_ms),
    )


def refused(
    attempt: Attempt,
    error: ProviderError,
    expected_millis: int,
    sent_at_ms: int,
    now_ms: int,
    *,
    left: bool = True,
    uploading: bool = False,
) -> Change:
    """The submission failed: certainly, or perhaps after all not.

    `left`: whether it was sent to the provider; `uploading`: only a reference was, which it has refused or lost.
    """
    failure = failures.failure_of(error)
    in_doubt = error.next is Next.RECONCILE
    return Change(
        attempt.attempt_id,
        attempt.account_id,
        now_ms,
        to=AttemptState.UNKNOWN if in_doubt else AttemptState.FAILED,
        # In doubt, the prompt is what it will be looked for by.
        generation=None if in_doubt else codec.without_prompt(attempt.generation),
        failure=failure,
        expected_cost_millis=expected_millis if in_doubt else None,
        cost_millis=None
        if in_doubt
        else rules.booked_millis(AttemptState.FAILED, failure, expected_millis, None),
        signals=_refusals(attempt, error, sent_at_ms, left=left, uploading=uploading),
    )


def ended(attempt: Attempt, snapshot: Snapshot, expected_millis: int, now_ms: int) -> Change | None:
    """The task came to its end, well or badly; None while it has not."""
    if snapshot.state is TaskState.SUCCEEDED and not snapshot.outputs:
        return failed(
            attempt, OutputUnavailable("a success without output", charged="yes"), expected_millis, now_ms
        )
    if snapshot.state is TaskState.SUCCEEDED:
        return Change(
            attempt.attempt_id,
            attempt.account_id,
            now_ms,
            to=AttemptState.SUCCEEDED,
            outputs=codec.outputs_text(snapshot.outputs),
            # Taken off the balance when the outputs are collected.
            expected_cost_millis=rules.booked_millis(
                AttemptState.SUCCEEDED, None, expected_millis, snapshot.cost_millis
            ),
        )
    if snapshot.state is TaskState.FAILED:
        error = snapshot.error or GenerationFailed("the provider gave no reason")
        return failed(attempt, error, expected_millis, now_ms, snapshot.cost_millis)
    return None


def failed(
    attempt: Attempt, error: ProviderError, expected_millis: int, now_ms: int, told_millis: int | None = None
) -> Change:
    """A task that was taken did not give what was asked for."""
    failure = failures.failure_of(error)
    return Change(
        attempt.attempt_id,
        attempt.account_id,
        now_ms,
        to=AttemptState.FAILED,
        failure=failure,
        cost_millis=rules.booked_millis(AttemptState.FAILED, failure, expected_millis, told_millis),
        signals=_faults(attempt, error, now_ms),
        seen=attempt.state,
    )


def given_up(attempt: Attempt, resubmit: bool, expected_millis: int, now_ms: int, why: str) -> Change:
    """In doubt, looked for, and not found."""
    failure = rules.abandoned(resubmit, why)
    return Change(
        attempt.attempt_id,
        attempt.account_id,
        now_ms,
        to=AttemptState.ABANDONED,
        generation=codec.without_prompt(attempt.generation),
        failure=failure,
        cost_millis=rules.booked_millis(AttemptState.ABANDONED, failure, expected_millis, None),
    )


def closed(
    attempt: Attempt, expected_millis: int, now_ms: int, cancellation: Cancellation | None = None
) -> Change:
    """Its job has ended without it: whatever the provider still does for it, nobody wants, and it may have been paid for.

    `cancellation`: what the provider says of that, if it was told and answered.
    """
    told = cancellation or Cancellation("maybe")
    in_doubt = attempt.state is AttemptState.UNKNOWN
    reason = rules.FailureReason.SUBMISSION_UNKNOWN if in_doubt else rules.FailureReason.TIMED_OUT
    return Change(
        attempt.attempt_id,
        attempt.account_id,
        now_ms,
        to=AttemptState.ABANDONED if in_doubt else AttemptState.FAILED,
        generation=codec.without_prompt(attempt.generation),
        failure=rules.Failure(
            reason, rules.NextStep.FAIL, charged=rules.Charged(told.charged), detail="its job had ended"
        ),
        cost_millis=_closing_millis(attempt, expected_millis, told),
    )


def overdue(
    attempt: Attempt, cancellation: Cancellation | None, ran_ms: int, now_ms: int, *, unheard: bool = False
) -> Change:
    """It ran for longer than such tasks do, and was given up; elsewhere only where it certainly costs nothing here.

    `cancellation`: what the provider says of that, if it was told and answered.
    """
    told = cancellation or Cancellation("maybe")
    step = rules.NextStep.ROTATE if told.charged == "no" else rules.NextStep.FAIL
    detail = f"{'not heard of' if unheard else rules.STILL_RUNNING} after {ran_ms // 1000} s"
    events = [Event(now_ms, "overdue", detail)]
    if cancellation is not None:
        events.append(Event(now_ms, "cancelled", f"charged: {cancellation.charged}"))
    stuck = TransientFailure(detail)
    return Change(
        attempt.attempt_id,
        attempt.account_id,
        now_ms,
        to=AttemptState.FAILED,
        failure=rules.Failure(
            rules.FailureReason.TIMED_OUT, step, charged=rules.Charged(told.charged), detail=detail
        ),
        cost_millis=_closing_millis(attempt, attempt.cost_millis, told),
        # Sent when the task was: of many that got stuck together, the breaker counts one.
        signals=_faults(attempt, stuck, max(attempt.submitted_at_ms, attempt.created_at_ms)),
        events=tuple(events),
    )


def _closing_millis(attempt: Attempt, expected_millis: int, told: Cancellation) -> int:
    if told.charged == "no":
        return 0
    if told.cost_millis is not None:
        return told.cost_millis
    # What was booked with the end of its lease stays as it is.
    return attempt.cost_millis if attempt.booked else attempt.cost_millis or expected_millis


def not_answered(attempt: Attempt, error: ProviderError, sent_at_ms: int, now_ms: int) -> Change:
    """Asking failed: nothing is known of the attempt, perhaps something of the account."""
    signals = _faults(attempt, error, sent_at_ms)
    return Change(attempt.attempt_id, attempt.account_id, now_ms, signals=signals)


def _refusals(
    attempt: Attempt, error: ProviderError, sent_at_ms: int, *, left: bool, uploading: bool
) -> tuple[Signal, ...]:
    if left:
        return _signals(attempt, error, sent_at_ms)
    # An account that cannot pay takes uploads all the same: they speak against it, and never for it.
    return (_faults if uploading else _own_faults)(attempt, error, sent_at_ms)


def _signals(attempt: Attempt, error: ProviderError, sent_at_ms: int) -> tuple[Signal, ...]:
    faults = _faults(attempt, error, sent_at_ms)
    if faults or error.scope not in (Scope.REQUEST, Scope.JOB):
        return faults
    # A refusal of the content is a good answer, as far as the account is concerned.
    return _answered_well(attempt, sent_at_ms)


def _own_faults(attempt: Attempt, error: ProviderError, sent_at_ms: int) -> tuple[Signal, ...]:
    # Where nothing was sent, nothing is known of the provider, neither good nor bad; credentials that do not open are ours.
    return _faults(attempt, error, sent_at_ms) if error.scope is Scope.ACCOUNT else ()


def _faults(attempt: Attempt, error: ProviderError, sent_at_ms: int) -> tuple[Signal, ...]:
    found = failures.fault_of(error, attempt.model, sent_at_ms)
    if found is None:
        return ()
    breaker, fault = found
    return (Signal(attempt.account_id, breaker, sent_at_ms, fault),)


def _answered_well(attempt: Attempt, sent_at_ms: int) -> tuple[Signal, ...]:
    return tuple(Signal(attempt.account_id, model, sent_at_ms) for model in (WHOLE_ACCOUNT, attempt.model))
