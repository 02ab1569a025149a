"""Errors: one table from what happened to what the contract says, and the one place that spells it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from msgspec import UNSET

from services.chassis.errors import ServiceError
from services.gateway.contract import Answer, ErrorCode, Route
from services.gateway.contracts.seedancee2.wire import ErrorBody, ErrorDetail
from services.gateway.error_answers import headers_of, passes

# Where in a list a fault is says the message; what is wrong is the parameter.
_PLACE: Final = re.compile(r"\[[^]]*\].*")

_REQUEST: Final = "invalid_request_error"
_API: Final = "api_error"


@dataclass(frozen=True, slots=True)
class _Row:
    status: int
    code: str
    type: str
    # The edge's own messages are written for customers; those of other services are never shown.
    message: str = ""
    # The part that is wrong, where the error does not say.
    param: str = ""


_INVALID_KEY: Final = _Row(
    401, "invalid_api_key", "authentication_error", "The API key is missing, unknown, revoked or inactive."
)
_TOO_POOR: Final = _Row(
    402, "insufficient_credits", "billing_error", "Your credit balance is too low. Please top up."
)
_UNAVAILABLE: Final = _Row(
    503, "service_unavailable", _API, "The request cannot be served right now. Please try again in a moment."
)
_INTERNAL: Final = _Row(
    500, "internal_error", _API, "Something went wrong on our side. Please try again later."
)
_NOT_FOUND: Final = _Row(404, "task_not_found", _REQUEST, "There is no video with that id.")

_TABLE: Final[Mapping[str, _Row]] = {
    "MALFORMED_REQUEST": _Row(400, "invalid_request", _REQUEST),
    "IDEMPOTENCY_KEY_MISSING": _Row(
        400,
        "invalid_request",
        _REQUEST,
        "The Idempotency-Key header must be one value of 1 to 255 printable ASCII characters.",
        "Idempotency-Key",
    ),
    "REFERENCE_IMAGE_REFUSED": _Row(400, "invalid_request", _REQUEST),
    "WEBHOOK_ADDRESS_REFUSED": _Row(
        400, "invalid_request", _REQUEST, "callback_url must be a public HTTPS address.", "callback_url"
    ),
    "MODEL_NOT_FOUND": _Row(
        404, "model_not_found", _REQUEST, "There is no such model: it is pro, fast or mini."
    ),
    "MODEL_NOT_ALLOWED": _Row(
        404, "model_not_found", _REQUEST, "This API key may not be used for that model.", "model"
    ),
    "API_KEY_MISSING": _INVALID_KEY,
    "INVALID_API_KEY": _INVALID_KEY,
    "NETWORK_NOT_ALLOWED": _INVALID_KEY,
    "CUSTOMER_INACTIVE": _INVALID_KEY,
    "INSUFFICIENT_CREDITS": _TOO_POOR,
    "SPEND_LIMIT_REACHED": _Row(
        402,
        "insufficient_credits",
        "billing_error",
        "The spend limit of this account or API key is reached for now.",
    ),
    "JOB_NOT_FOUND": _NOT_FOUND,
    "JOB_OF_ANOTHER_CUSTOMER": _NOT_FOUND,
    "MEDIA_GONE": _NOT_FOUND,
    "NO_SUCH_PATH": _Row(404, "not_found", _REQUEST),
    "METHOD_NOT_ALLOWED": _Row(405, "method_not_allowed", _REQUEST),
    "IDEMPOTENCY_KEY_CONFLICT": _Row(
        409,
        "idempotency_key_conflict",
        _REQUEST,
        "The Idempotency-Key was used before with another request.",
    ),
    "PAYLOAD_TOO_LARGE": _Row(413, "payload_too_large", _REQUEST),
    "RATE_LIMITED": _Row(429, "rate_limited", "rate_limit_error"),
    "QUEUE_FULL": _Row(
        429, "rate_limited", "rate_limit_error", "As many videos are waiting as this account may have."
    ),
    "CONCURRENCY_LIMITED": _Row(
        429, "rate_limited", "rate_limit_error", "As many videos are being made as this account may have."
    ),
    "PROVIDER_UNAVAILABLE": _UNAVAILABLE,
    "STATUS_UNAVAILABLE": _UNAVAILABLE,
}

ERROR_CODES: Final = (
    ErrorCode(
        400, "invalid_request", "The request is not valid; `error.param` names the part that is wrong."
    ),
    ErrorCode(401, "invalid_api_key", "The API key is missing, unknown, revoked or inactive."),
    ErrorCode(
        402, "insufficient_credits", "The video costs more than is available, or than may be spent for now."
    ),
    ErrorCode(404, "model_not_found", "There is no such model, or the API key may not use it."),
    ErrorCode(404, "task_not_found", "There is no such video of this key."),
    ErrorCode(404, "not_found", "There is nothing at this path."),
    ErrorCode(405, "method_not_allowed", "The path exists, but not with this method; see the Allow header."),
    ErrorCode(409, "idempotency_key_conflict", "The Idempotency-Key was used before with another request."),
    ErrorCode(413, "payload_too_large", "The request body is too large."),
    ErrorCode(
        429,
        "rate_limited",
        "Too many requests in the last minute, or too many videos at once; see Retry-After.",
    ),
    ErrorCode(500, "internal_error", "Something went wrong on our side."),
    ErrorCode(
        503,
        "service_unavailable",
        "The request cannot be served now. See Retry-After; with the same Idempotency-Key it is never charged twice.",
    ),
)
_TYPES: Final = {row.code: row.type for row in (*_TABLE.values(), _INTERNAL)}


def render_error(error: ServiceError, route: Route | None, request_id: str) -> Answer:
    """Spells any error. What no table names is `internal_error`, and says nothing else."""
    row = _row(error)
    param = row.param or _PLACE.sub("", error.metadata.get("field", ""))
    told = row.status == 400 or row.code == "model_not_found"
    detail = ErrorDetail(
        code=row.code,
        message=row.message or error.message,
        type=row.type,
        param=param if told and param else UNSET,
    )
    return Answer(row.status, ErrorBody(detail), headers_of(row.status, error))


def _row(error: ServiceError) -> _Row:
    row = _TABLE.get(error.reason)
    if row is not None:
        return row
    return _UNAVAILABLE if passes(error) else _INTERNAL


def error_example(row: ErrorCode) -> dict[str, Any]:
    """How the documentation shows one code."""
    detail = {"code": row.code, "message": row.meaning, "type": _TYPES[row.code]}
    if row.code == "invalid_request":
        detail |= {"message": "input.prompt is required.", "param": "input.prompt"}
    if row.code == "insufficient_credits":
        detail["message"] = _TOO_POOR.message
    if row.code == "model_not_found":
        detail["param"] = "model"
    return {"error": detail}
