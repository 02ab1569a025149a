"""What the edge itself refuses. Each contract spells these, and the services' errors, in its own shape."""

from __future__ import annotations

from collections.abc import Iterable

from services.chassis.errors import Kind, ServiceError


def api_key_missing() -> ServiceError:
    """No credential was sent at all."""
    return ServiceError(
        Kind.UNAUTHENTICATED,
        "API_KEY_MISSING",
        "An API key is required: send it as 'Authorization: Bearer <key>'.",
    )


def invalid_api_key() -> ServiceError:
    """Malformed, unknown, revoked, expired, of another storefront, or of an inactive customer: all look alike."""
    return ServiceError(Kind.UNAUTHENTICATED, "INVALID_API_KEY", "The API key is not valid.")


def network_not_allowed() -> ServiceError:
    """The key may be used from other networks only; to a stranger it looks like no key at all."""
    return ServiceError(Kind.UNAUTHENTICATED, "NETWORK_NOT_ALLOWED", "The API key is not valid.")


def model_not_allowed(model: str) -> ServiceError:
    """The key may be used for other models only."""
    return ServiceError(
        Kind.PERMISSION_DENIED,
        "MODEL_NOT_ALLOWED",
        "This API key may not be used for that model.",
        {"model": model},
    )


def model_not_found(field: str) -> ServiceError:
    """The storefront knows no such model; `field` is where it was named."""
    return ServiceError(Kind.NOT_FOUND, "MODEL_NOT_FOUND", "There is no such model.", {"field": field})


def unsupported_workflow(name: str) -> ServiceError:
    """The storefront knows no such workflow."""
    return ServiceError(
        Kind.INVALID_ARGUMENT, "UNSUPPORTED_WORKFLOW", "There is no such workflow.", {"workflow": name}
    )


def task_id_missing() -> ServiceError:
    """A task was asked for without its id."""
    return ServiceError(Kind.INVALID_ARGUMENT, "TASK_ID_MISSING", "The taskId parameter is missing.")


def rate_limited(limit: int, retry_after_s: int) -> ServiceError:
    """More requests in the last 60 seconds than the customer may make."""
    return ServiceError(
        Kind.RESOURCE_EXHAUSTED,
        "RATE_LIMITED",
        f"Too many requests: {limit} a minute are allowed. Try again in {retry_after_s} s.",
        {"limit": str(limit), "retry_after_s": str(retry_after_s)},
    )


def overloaded() -> ServiceError:
    """This process serves as many requests as it may; the caller should come back."""
    return ServiceError(Kind.UNAVAILABLE, "OVERLOADED", "The service is busy. Try again in a moment.")


def payload_too_large(limit_bytes: int) -> ServiceError:
    """The body is longer than its endpoint takes."""
    return ServiceError(
        Kind.INVALID_ARGUMENT,
        "PAYLOAD_TOO_LARGE",
        f"The request body is larger than {limit_bytes:,} bytes.",
        {"limit_bytes": str(limit_bytes)},
    )


def payload_too_large_beside_media(limit_bytes: int) -> ServiceError:
    """What is left of the body without its long strings is longer than a body without media may be."""
    return ServiceError(
        Kind.INVALID_ARGUMENT,
        "PAYLOAD_TOO_LARGE",
        f"The request body is larger than {limit_bytes:,} bytes beside inline images.",
        {"limit_bytes": str(limit_bytes)},
    )


def malformed_request(message: str, field: str = "") -> ServiceError:
    """The request is not what the contract describes; `field` is the public name of the part that is wrong."""
    return ServiceError(
        Kind.INVALID_ARGUMENT, "MALFORMED_REQUEST", message, {"field": field} if field else {}
    )


def idempotency_key_missing() -> ServiceError:
    """The header is absent, sent twice, too long or not printable ASCII."""
    return ServiceError(
        Kind.INVALID_ARGUMENT,
        "IDEMPOTENCY_KEY_MISSING",
        "The Idempotency-Key header is required: one value of 1 to 255 printable ASCII characters.",
    )


def reference_image_refused(message: str, field: str) -> ServiceError:
    """A reference image fails a check that can be made at once: it is no good URL, or what is inline is not taken."""
    return ServiceError(Kind.INVALID_ARGUMENT, "REFERENCE_IMAGE_REFUSED", message, {"field": field})


def webhook_address_refused() -> ServiceError:
    """Too long or too odd to be looked at; the jobs service says the same of what breaks its rules."""
    return ServiceError(
        Kind.INVALID_ARGUMENT, "WEBHOOK_ADDRESS_REFUSED", "The address is not one that webhooks are sent to."
    )


def job_not_found() -> ServiceError:
    """No such job, somebody else's, of the other mode, or not an id at all: all look alike."""
    return ServiceError(Kind.NOT_FOUND, "JOB_NOT_FOUND", "There is no job with that id.")


def media_gone() -> ServiceError:
    """The job ended well, but its media have left the store."""
    return ServiceError(
        Kind.NOT_FOUND,
        "MEDIA_GONE",
        "The media of this job are no longer kept: their retention time has passed.",
    )


def job_not_complete(status: str) -> ServiceError:
    """The result was asked for before the job ended."""
    return ServiceError(
        Kind.FAILED_PRECONDITION,
        "JOB_NOT_COMPLETE",
        f"The job is not complete yet: it is {status}.",
        {"status": status},
    )


def job_failed(message: str) -> ServiceError:
    """The result was asked for, and there is none."""
    return ServiceError(Kind.FAILED_PRECONDITION, "JOB_FAILED", message)


def no_such_path() -> ServiceError:
    """Nothing is served at this path."""
    return ServiceError(Kind.NOT_FOUND, "NO_SUCH_PATH", "There is nothing at this path.")


def link_not_valid() -> ServiceError:
    """A media link that this service did not sign, or whose file is gone."""
    return ServiceError(Kind.NOT_FOUND, "NO_SUCH_PATH", "There is nothing at this link.")


def media_unreachable() -> ServiceError:
    """The store that holds what a good link leads to does not answer."""
    return ServiceError(
        Kind.UNAVAILABLE, "MEDIA_UNREACHABLE", "The media cannot be read right now. Try again in a moment."
    )


def link_expired() -> ServiceError:
    """A media link that was good once."""
    return ServiceError(
        Kind.NOT_FOUND, "NO_SUCH_PATH", "This link has expired. Read the job's result again for a fresh one."
    )


def method_not_allowed(allowed: Iterable[str]) -> ServiceError:
    """The path exists, but not with this method; `allowed` become the Allow header."""
    methods = ", ".join(sorted(allowed))
    return ServiceError(
        Kind.UNIMPLEMENTED, "METHOD_NOT_ALLOWED", f"This path answers {methods} only.", {"allow": methods}
    )
