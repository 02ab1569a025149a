"""Errors: one table from what happened to what the contract says, and the one place that spells it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from services.chassis.errors import ServiceError
from services.gateway.contract import Answer, ErrorCode, Route
from services.gateway.contracts.loova.wire import ErrorBody
from services.gateway.error_answers import headers_of, passes, sentence_of

_HEX_ID: Final = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class _Row:
    status: int
    # The edge's own messages are written for customers; those of other services are never shown.
    message: str = ""


_INVALID_KEY: Final = _Row(401, "Invalid API key")
_INSUFFICIENT: Final = _Row(402, "Insufficient API credits")
_NOT_FOUND: Final = _Row(404, "Task not found")
_UNAVAILABLE: Final = _Row(503, "The service cannot take the request right now. Please try again.")
_INTERNAL: Final = _Row(500, "Internal server error")

_TABLE: Final[Mapping[str, _Row]] = {
    "MALFORMED_REQUEST": _Row(400),
    "IDEMPOTENCY_KEY_MISSING": _Row(
        400, "Idempotency-Key must be one value of 1 to 255 printable ASCII characters."
    ),
    "REFERENCE_IMAGE_REFUSED": _Row(400),
    "MODEL_NOT_ALLOWED": _Row(400, "model is not one that this API key may use."),
    "WEBHOOK_ADDRESS_REFUSED": _Row(400, "The webhook address is not one that can be used."),
    "API_KEY_MISSING": _INVALID_KEY,
    "INVALID_API_KEY": _INVALID_KEY,
    "NETWORK_NOT_ALLOWED": _INVALID_KEY,
    "CUSTOMER_INACTIVE": _INVALID_KEY,
    "INSUFFICIENT_CREDITS": _INSUFFICIENT,
    "SPEND_LIMIT_REACHED": _INSUFFICIENT,
    "JOB_NOT_FOUND": _NOT_FOUND,
    "JOB_OF_ANOTHER_CUSTOMER": _NOT_FOUND,
    "MEDIA_GONE": _Row(404),
    "NO_SUCH_PATH": _Row(404),
    "METHOD_NOT_ALLOWED": _Row(405),
    "IDEMPOTENCY_KEY_CONFLICT": _Row(409, "The Idempotency-Key was used before with another request."),
    "PAYLOAD_TOO_LARGE": _Row(413),
    "RATE_LIMITED": _Row(429),
    "QUEUE_FULL": _Row(429, "As many tasks are waiting as this account may have."),
    "CONCURRENCY_LIMITED": _Row(429, "As many tasks are running as this account may have."),
    "PROVIDER_UNAVAILABLE": _UNAVAILABLE,
    "STATUS_UNAVAILABLE": _UNAVAILABLE,
}

# The contract has no words for its errors: `code` is the HTTP status, and so is the name here.
ERROR_CODES: Final = (
    ErrorCode(400, "400", "The request is not valid; `message` names the field that is wrong."),
    ErrorCode(401, "401", "Invalid API key"),
    ErrorCode(402, "402", "Insufficient API credits"),
    ErrorCode(404, "404", "Task not found"),
    ErrorCode(405, "405", "The path exists, but not with this method; see the Allow header."),
    ErrorCode(409, "409", "The Idempotency-Key was used before with another request."),
    ErrorCode(413, "413", "The request body is too large."),
    ErrorCode(429, "429", "Too many requests, or too many tasks waiting or running; see Retry-After."),
    ErrorCode(500, "500", "Something went wrong on our side."),
    ErrorCode(
        503,
        "503",
        "The request cannot be taken now. See Retry-After; with the same Idempotency-Key it is never charged twice.",
    ),
)


def trace_id(request_id: str) -> str:
    """32 hexadecimal digits for a request: its id, if that is such, else the same ones for the same id."""
    if _HEX_ID.fullmatch(request_id):
        return request_id
    return hashlib.blake2b(request_id.encode(), digest_size=16).hexdigest()


def render_error(error: ServiceError, route: Route | None, request_id: str) -> Answer:
    """Spells any error. What no table names is 500, and says nothing else."""
    row = _row(error)
    message = row.message or sentence_of(error)
    body = ErrorBody(code=row.status, trace_id=trace_id(request_id), message=message, data=None)
    return Answer(row.status, body, headers_of(row.status, error))


def _row(error: ServiceError) -> _Row:
    row = _TABLE.get(error.reason)
    if row is not None:
        return row
    return _UNAVAILABLE if passes(error) else _INTERNAL


def error_example(row: ErrorCode) -> dict[str, Any]:
    """How the documentation shows one code."""
    message = "duration: expected integer >= 4." if row.status == 400 else row.meaning
    return {
        "code": row.status,
        "trace_id": "45c30d76f06549b199a3775544523689",
        "message": message,
        "data": None,
    }
