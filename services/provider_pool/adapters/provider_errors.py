"""What can go wrong at a provider, classified: what an error says something about, and what may be done after it."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, Literal

Charged = Literal["no", "maybe", "yes"]
"""Whether the provider took money for an attempt."""


class Scope(StrEnum):
    """What an error says something about."""

    REQUEST = "request"
    JOB = "job"
    MODEL = "account_model"
    ACCOUNT = "account"
    PROVIDER = "provider"


class Next(StrEnum):
    """What may be done after an error."""

    FAIL = "fail"
    RETRY = "retry"
    ROTATE = "rotate"
    RECONCILE = "reconcile"


class ProviderError(Exception):
    """A classified failure. The message is for operators and logs, and never reaches a customer.

    `retry_after_s` is what the provider asked for; `charged` whether it took money for this attempt.
    """

    scope: ClassVar[Scope] = Scope.PROVIDER
    next: ClassVar[Next] = Next.FAIL
    code: ClassVar[str] = "provider_error"

    def __init__(self, message: str, *, retry_after_s: float | None = None, charged: Charged = "no") -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.charged: Charged = charged


class InvalidRequest(ProviderError):
    """The same request would be refused on every account."""

    scope, next, code = Scope.REQUEST, Next.FAIL, "invalid_request"


class ReferenceRejected(InvalidRequest):
    """The provider does not take one of the references, whatever account it comes from."""

    code = "reference_rejected"


class ContentBlocked(ProviderError):
    """The provider refused the content; the customer's answer, never tried elsewhere."""

    scope, next, code = Scope.REQUEST, Next.FAIL, "content_blocked"


class AuthFailed(ProviderError):
    """401: the credentials are wrong or withdrawn."""

    scope, next, code = Scope.ACCOUNT, Next.ROTATE, "auth_failed"


class InsufficientBalance(ProviderError):
    """402: the account cannot pay."""

    scope, next, code = Scope.ACCOUNT, Next.ROTATE, "insufficient_balance"


class AccountRestricted(ProviderError):
    """403: the provider closed or limited the account."""

    scope, next, code = Scope.ACCOUNT, Next.ROTATE, "account_restricted"


class ModelNotEnabled(ProviderError):
    """This account may not use this model; it may use others."""

    scope, next, code = Scope.MODEL, Next.ROTATE, "model_not_enabled"


class RateLimited(ProviderError):
    """429: too many requests or running tasks on the account."""

    scope, next, code = Scope.ACCOUNT, Next.ROTATE, "rate_limited"


class ConcurrencyLimited(RateLimited):
    """429: as many tasks as the account may have are running; nothing is wrong with its pace."""

    code = "concurrency_limited"


class Overloaded(ProviderError):
    """The provider says that it is too busy, on whatever account: certainly not accepted."""

    scope, next, code = Scope.PROVIDER, Next.ROTATE, "overloaded"


class ProtocolViolation(ProviderError):
    """An answer that is not of the documented shape. Of a submission nobody knows then what it did: SubmissionUnknown."""

    scope, next, code = Scope.PROVIDER, Next.FAIL, "protocol_violation"


class TransientFailure(ProviderError):
    """5xx, or a connection that failed before the request was sent: certainly not accepted."""

    scope, next, code = Scope.PROVIDER, Next.ROTATE, "transient"


class GenerationFailed(ProviderError):
    """Accepted, ran, and died."""

    scope, next, code = Scope.JOB, Next.FAIL, "generation_failed"


class GenerationDied(GenerationFailed):
    """Accepted, ran, and died of the provider's own trouble: another account may do better. Only where it was not charged."""

    next, code = Next.ROTATE, "generation_died"


class SubmissionUnknown(ProviderError):
    """The connection broke after the body may have been sent: nobody knows whether it was accepted."""

    scope, next, code = Scope.JOB, Next.RECONCILE, "submission_unknown"


class TaskNotFound(ProviderError):
    """The provider does not know the task (any more)."""

    scope, next, code = Scope.JOB, Next.FAIL, "task_not_found"


class OutputUnavailable(ProviderError):
    """The output is gone, or what came is not the output."""

    scope, next, code = Scope.JOB, Next.FAIL, "output_unavailable"
