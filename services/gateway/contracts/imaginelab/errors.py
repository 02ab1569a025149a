"""Errors: one table from what happened to what the contract says, and the one place that spells it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from services.chassis.errors import Kind, ServiceError
from services.gateway.contract import Answer, ErrorCode, Route
from services.gateway.contracts.imaginelab.wire import ErrorBody
from services.gateway.error_answers import headers_of, passes, sentence_of

# Fields of accounts that billing looks at again; whatever else it finds wrong is a fault of ours.
_ACCOUNT_FIELDS: Final = frozenset({"email", "password", "full_name", "token"})


@dataclass(frozen=True, slots=True)
class _Row:
    status: int
    # The edge's own messages are written for customers; those of other services are never shown.
    detail: str = ""


_INVALID_TOKEN: Final = _Row(401, "Invalid token")
_INSUFFICIENT: Final = _Row(402, "Insufficient credits")
_NOT_FOUND: Final = _Row(404, "Generation not found")
_UNAVAILABLE: Final = _Row(503, "The service cannot take the request right now. Please try again.")
_INTERNAL: Final = _Row(500, "Internal server error")

_TABLE: Final[Mapping[str, _Row]] = {
    "MALFORMED_REQUEST": _Row(400),
    "IDEMPOTENCY_KEY_MISSING": _Row(
        400, "Idempotency-Key must be one value of 1 to 255 printable ASCII characters."
    ),
    "REFERENCE_IMAGE_REFUSED": _Row(400),
    "MODEL_NOT_ALLOWED": _Row(400, "model_name is not one that this API key may use."),
    "WEBHOOK_ADDRESS_REFUSED": _Row(400, "The webhook address is not one that can be used."),
    # Neutral: it must not tell whether the address is known.
    "SIGN_UP_REFUSED": _Row(400, "The sign-up is not possible with this email."),
    "INVALID_RESET_TOKEN": _Row(400, "token is not valid, or not any more."),
    "API_KEY_MISSING": _Row(401, "Missing token"),
    "INVALID_API_KEY": _INVALID_TOKEN,
    "NETWORK_NOT_ALLOWED": _INVALID_TOKEN,
    "CUSTOMER_INACTIVE": _INVALID_TOKEN,
    "INVALID_LOGIN": _Row(401, "Incorrect email or password"),
    "INSUFFICIENT_CREDITS": _INSUFFICIENT,
    "SPEND_LIMIT_REACHED": _INSUFFICIENT,
    "JOB_NOT_FOUND": _NOT_FOUND,
    "JOB_OF_ANOTHER_CUSTOMER": _NOT_FOUND,
    "USER_NOT_FOUND": _Row(404, "This API key belongs to no user"),
    "MEDIA_GONE": _Row(404),
    "NO_SUCH_PATH": _Row(404),
    "METHOD_NOT_ALLOWED": _Row(405),
    "IDEMPOTENCY_KEY_CONFLICT": _Row(409, "The Idempotency-Key was used before with another request."),
    "PAYLOAD_TOO_LARGE": _Row(413),
    "RATE_LIMITED": _Row(429),
    "TOO_MANY_ATTEMPTS": _Row(429),
    "CONCURRENCY_LIMITED": _Row(429, "As many generations are running as this account may have."),
    "PROVIDER_UNAVAILABLE": _UNAVAILABLE,
    "STATUS_UNAVAILABLE": _UNAVAILABLE,
}
_QUEUE_FULL: Final = _Row(429, "As many generations are waiting as this account may have.")

# The contract has no words for its errors: the HTTP status is all there is, and so it is the name here.
ERROR_CODES: Final = (
    ErrorCode(400, "400", "The request is not valid; `detail` names the field that is wrong."),
    ErrorCode(401, "401", "The token is missing or not valid, or the login is wrong."),
    ErrorCode(402, "402", "Insufficient credits"),
    ErrorCode(404, "404", "There is no such thing, or it is somebody else's."),
    ErrorCode(405, "405", "The path exists, but not with this method; see the Allow header."),
    ErrorCode(409, "409", "The Idempotency-Key was used before with another request."),
    ErrorCode(413, "413", "The request body is too large."),
    ErrorCode(429, "429", "Too many requests, logins or generations; see Retry-After."),
    ErrorCode(500, "500", "Something went wrong on our side."),
    ErrorCode(
        503,
        "503",
        "The request cannot be taken now. See Retry-After; with the same Idempotency-Key it is never charged twice.",
    ),
)


def too_many_attempts(limit: int, reset_s: int) -> ServiceError:
    """More logins or mails than are sensible, for one address or from one client."""
    return ServiceError(
        Kind.RESOURCE_EXHAUSTED,
        "TOO_MANY_ATTEMPTS",
        f"Too many attempts. Try again in {reset_s} s.",
        {"limit": str(limit), "retry_after_s": str(reset_s)},
    )


def wrong_login() -> ServiceError:
    """Nobody has such an address, or such a password; as billing says it of those that somebody could have."""
    return ServiceError(Kind.UNAUTHENTICATED, "INVALID_LOGIN", "The email address or the password is wrong.")


def render_error(error: ServiceError, route: Route | None, request_id: str) -> Answer:
    """Spells any error. What no table names is 500, and says nothing else."""
    row = _row(error, route)
    return Answer(
        row.status,
        ErrorBody(row.detail or sentence_of(error)),
        headers_of(row.status, error),
    )


def _row(error: ServiceError, route: Route | None) -> _Row:
    row = _TABLE.get(error.reason)
    if row is not None:
        return row
    if error.reason == "QUEUE_FULL" and route is not None and route.creates:
        return _QUEUE_FULL
    if error.reason == "INVALID_REQUEST" and error.metadata.get("field") in _ACCOUNT_FIELDS:
        return _Row(400, f"{error.metadata['field']} is not valid.")
    return _UNAVAILABLE if passes(error) else _INTERNAL


def error_example(row: ErrorCode) -> dict[str, Any]:
    """How the documentation shows one code."""
    details = {
        400: "settings.duration: expected integer <= 15.",
        401: "Invalid token",
        404: "Generation not found",
    }
    return {"detail": details.get(row.status, row.meaning)}
