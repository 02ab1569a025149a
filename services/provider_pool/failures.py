"""What an adapter's error means: for the attempt, for the owner of the job, and for the account's breakers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from services.provider_pool.adapters import interface
from services.provider_pool.adapters.interface import ProviderError, Scope
from services.provider_pool.attempts.states import Charged, Failure, FailureReason, NextStep
from services.provider_pool.selection.health import Fault, FaultKind
from services.provider_pool.selection.pool import WHOLE_ACCOUNT

DETAIL_LIMIT_CHARACTERS: Final = 500
"""Some providers answer with whole HTML pages; the first lines say what an operator needs."""

RETRY_AFTER_LIMIT_S: Final = 86_400.0
"""A provider that wants to be left alone for longer than a day is as good as gone."""

_STEPS: Final[Mapping[interface.Next, NextStep]] = {
    interface.Next.FAIL: NextStep.FAIL,
    interface.Next.RETRY: NextStep.RETRY,
    interface.Next.ROTATE: NextStep.ROTATE,
    interface.Next.RECONCILE: NextStep.RECONCILE,
}


class ReferenceMissing(ProviderError):
    """A reference that was ready is gone; nothing was sent."""

    scope, next, code = Scope.JOB, interface.Next.FAIL, "reference_missing"


_REASONS: Final[Mapping[type[ProviderError], FailureReason]] = {
    interface.ContentBlocked: FailureReason.CONTENT_REFUSED,
    interface.InvalidRequest: FailureReason.REQUEST_REJECTED,
    interface.GenerationFailed: FailureReason.GENERATION_FAILED,
    interface.SubmissionUnknown: FailureReason.SUBMISSION_UNKNOWN,
    interface.TaskNotFound: FailureReason.PROVIDER_UNAVAILABLE,
    interface.OutputUnavailable: FailureReason.OUTPUT_UNUSABLE,
    ReferenceMissing: FailureReason.REFERENCE_UNAVAILABLE,
}

_OUT: Final = (
    interface.AuthFailed,
    interface.InsufficientBalance,
    interface.AccountRestricted,
    interface.ModelNotEnabled,
)


CREDENTIAL_CAUSES: Final = frozenset({interface.AuthFailed.code, interface.AccountRestricted.code})
"""Causes of breakers that other credentials may mend."""


def failure_of(error: ProviderError) -> Failure:
    """What the owner of the job is told. Errors of the account, the provider or the network have one common reason."""
    reason = next(
        (named for kind, named in _REASONS.items() if isinstance(error, kind)),
        FailureReason.PROVIDER_UNAVAILABLE,
    )
    return Failure(
        reason, _STEPS[error.next], _retry_after_ms(error), Charged(error.charged), detail_of(error)
    )


def detail_of(error: ProviderError) -> str:
    """One line for operators."""
    return f"{error.code}: {error}"[:DETAIL_LIMIT_CHARACTERS]


def fault_of(error: ProviderError, model: str, sent_at_ms: int) -> tuple[str, Fault] | None:
    """What the error says of the account: of which breaker (a model's name, or WHOLE_ACCOUNT), and how it is answered.

    None if the account did its part.
    """
    kind = _kind_of(error)
    if kind is None:
        return None
    whole = error.scope is Scope.ACCOUNT
    return WHOLE_ACCOUNT if whole else model, Fault(kind, error.code, sent_at_ms, _retry_after_ms(error))


def _retry_after_ms(error: ProviderError) -> int:
    # What a provider asks for may be any number, also one that is none, and it goes into a column.
    asked_s = error.retry_after_s or 0.0
    return round(min(asked_s, RETRY_AFTER_LIMIT_S) * 1000) if asked_s > 0 else 0


def _kind_of(error: ProviderError) -> FaultKind | None:
    if isinstance(error, _OUT):
        return FaultKind.OUT
    if isinstance(error, interface.ConcurrencyLimited):
        return FaultKind.CROWDED
    if isinstance(error, interface.RateLimited):
        return FaultKind.COOL_DOWN
    in_doubt = isinstance(error, interface.SubmissionUnknown)
    return FaultKind.TRANSIENT if in_doubt or error.scope is Scope.PROVIDER else None
