"""Every refusal of the jobs service, in one place. Messages may be shown to customers; numbers travel as metadata."""

from __future__ import annotations

from services.chassis.errors import Kind, ServiceError

# About the time in which one image ends and its slot is free again.
PROVIDER_RETRY_AFTER_S = 30


class LeaseLostError(Exception):
    """Another worker owns the job now: whoever sees this drops it at once and touches nothing."""


def invalid_request(field: str, problem: str) -> ServiceError:
    """`field` of the request is missing or out of range; `problem` continues the sentence."""
    return ServiceError(Kind.INVALID_ARGUMENT, "INVALID_REQUEST", f"{field} {problem}.", {"field": field})


def idempotency_key_conflict() -> ServiceError:
    """The key was used before, with another request."""
    return ServiceError(
        Kind.ALREADY_EXISTS,
        "IDEMPOTENCY_KEY_CONFLICT",
        "The idempotency key was used before with another request.",
    )


def queue_full(limit: int, current: int) -> ServiceError:
    """The customer has as many jobs waiting as it may."""
    return ServiceError(
        Kind.RESOURCE_EXHAUSTED,
        "QUEUE_FULL",
        f"{current} jobs are waiting and {limit} may.",
        {"limit": str(limit), "current": str(current)},
    )


def concurrency_limited(limit: int, current: int) -> ServiceError:
    """The customer has as many jobs running as it may."""
    return ServiceError(
        Kind.RESOURCE_EXHAUSTED,
        "CONCURRENCY_LIMITED",
        f"{current} jobs are running and {limit} may.",
        {"limit": str(limit), "current": str(current)},
    )


def provider_unavailable() -> ServiceError:
    """No account could take the job; nothing is held and the idempotency key is free again."""
    return ServiceError(
        Kind.UNAVAILABLE,
        "PROVIDER_UNAVAILABLE",
        "This cannot be generated at the moment; try again later.",
        {"retry_after_s": str(PROVIDER_RETRY_AFTER_S)},
    )


def job_not_found() -> ServiceError:
    """No such job of this customer in this mode."""
    return ServiceError(Kind.NOT_FOUND, "JOB_NOT_FOUND", "There is no such job.")


def job_of_another_customer() -> ServiceError:
    """The job belongs to another customer of the same storefront, which may be told."""
    return ServiceError(
        Kind.PERMISSION_DENIED, "JOB_OF_ANOTHER_CUSTOMER", "The job belongs to another customer."
    )


def status_unavailable() -> ServiceError:
    """The provider could not be asked, and the last answer is too old to give."""
    return ServiceError(
        Kind.UNAVAILABLE,
        "STATUS_UNAVAILABLE",
        "The job's status cannot be told at the moment; try again shortly.",
    )


def unavailable() -> ServiceError:
    """A part of the house did not answer; nothing was accepted."""
    return ServiceError(
        Kind.UNAVAILABLE, "UNAVAILABLE", "The service is temporarily unavailable; try again shortly."
    )


def webhook_address_refused(field: str, sentence: str) -> ServiceError:
    """`field` is not an address that webhooks are sent to; `sentence` says which rule it breaks."""
    message = f"{field} is not an address that webhooks are sent to. {sentence}"
    return ServiceError(Kind.INVALID_ARGUMENT, "WEBHOOK_ADDRESS_REFUSED", message, {"field": field})


def delivery_not_found() -> ServiceError:
    """No such delivery, or its log is no longer kept."""
    return ServiceError(Kind.NOT_FOUND, "DELIVERY_NOT_FOUND", "There is no such delivery.")


def unknown_webhook_form() -> ServiceError:
    """The form was never made known: whoever names it puts it first."""
    return ServiceError(
        Kind.FAILED_PRECONDITION, "UNKNOWN_WEBHOOK_FORM", "The form of the webhooks is not known."
    )


def webhooks_off() -> ServiceError:
    """This process was not given the keys that webhooks need."""
    return ServiceError(
        Kind.FAILED_PRECONDITION,
        "WEBHOOKS_OFF",
        "This house was not set up for webhooks; see docs/WEBHOOKS.md.",
    )
