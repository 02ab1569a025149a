"""Errors: one table from what happened to what the contract says, and the one place that spells it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from msgspec import UNSET

from services.chassis.errors import ServiceError
from services.gateway.contract import Answer, ErrorCode, Route
from services.gateway.contracts.seedance2pro.wire import ErrorBody
from services.gateway.error_answers import credits_told, headers_of, passes, sentence_of


@dataclass(frozen=True, slots=True)
class _Row:
    status: int
    message: str
    # The edge's own sentence follows, which is written for customers.
    explained: bool = False


_REQUEST: Final = "Invalid request parameters"
_INPUTS: Final = "Invalid inputs for model"
_INVALID_KEY: Final = _Row(401, "Invalid API Key")
_NOT_FOUND: Final = _Row(404, "Task not found")
_BUSY: Final = _Row(429, "Concurrency limit reached")
_UNAVAILABLE: Final = _Row(503, "Model temporarily unavailable")
_INTERNAL: Final = _Row(500, "Internal server error")

_TABLE: Final[Mapping[str, _Row]] = {
    "MALFORMED_REQUEST": _Row(400, _REQUEST, explained=True),
    "IDEMPOTENCY_KEY_MISSING": _Row(
        400, f"{_REQUEST}: Idempotency-Key must be one value of 1 to 255 printable ASCII characters."
    ),
    "REFERENCE_IMAGE_REFUSED": _Row(400, _INPUTS, explained=True),
    "WEBHOOK_ADDRESS_REFUSED": _Row(400, f"{_REQUEST}: callBackUrl must be a public HTTPS address."),
    "UNSUPPORTED_WORKFLOW": _Row(400, "Unsupported NewAPI workflow"),
    "TASK_ID_MISSING": _Row(400, "Missing taskId parameter"),
    "API_KEY_MISSING": _Row(401, "Missing Authorization header"),
    "INVALID_API_KEY": _INVALID_KEY,
    "NETWORK_NOT_ALLOWED": _INVALID_KEY,
    "INSUFFICIENT_CREDITS": _Row(402, "Insufficient credits"),
    "SPEND_LIMIT_REACHED": _Row(
        402, "Insufficient credits: the spend limit of this account or key is reached for now."
    ),
    "JOB_OF_ANOTHER_CUSTOMER": _Row(403, "Access denied"),
    "CUSTOMER_INACTIVE": _Row(403, "API access not enabled for this account"),
    "MODEL_NOT_ALLOWED": _Row(403, "Access denied: model is not one that this API key may use."),
    "JOB_NOT_FOUND": _NOT_FOUND,
    "MEDIA_GONE": _NOT_FOUND,
    "NO_SUCH_PATH": _Row(404, "Not found"),
    "METHOD_NOT_ALLOWED": _Row(405, "Method not allowed"),
    "IDEMPOTENCY_KEY_CONFLICT": _Row(409, "Idempotency key already used with different parameters"),
    "PAYLOAD_TOO_LARGE": _Row(413, "Payload too large", explained=True),
    "RATE_LIMITED": _Row(429, "Rate limit exceeded"),
    "QUEUE_FULL": _BUSY,
    "CONCURRENCY_LIMITED": _BUSY,
    "PROVIDER_UNAVAILABLE": _UNAVAILABLE,
    "STATUS_UNAVAILABLE": _UNAVAILABLE,
}

# The contract has no codes; its messages are what clients compare.
ERROR_CODES: Final = (
    ErrorCode(400, _REQUEST, "The request is not valid; what is wrong follows."),
    ErrorCode(400, _INPUTS, "Something within `inputs` is not valid; what is wrong follows."),
    ErrorCode(
        400, "Unsupported NewAPI workflow", "The top-level `model` is not a workflow; its name follows."
    ),
    ErrorCode(400, "Missing taskId parameter", "The query has no `taskId`."),
    ErrorCode(401, "Missing Authorization header", "No API key was sent."),
    ErrorCode(401, "Invalid API Key", "The API key is unknown, revoked or expired."),
    ErrorCode(402, "Insufficient credits", "See `required` and `available`."),
    ErrorCode(403, "Access denied", "The task is another customer's, or the key may not use the model."),
    ErrorCode(403, "API access not enabled for this account", "The account is not active."),
    ErrorCode(404, "Task not found", "There is no such task."),
    ErrorCode(404, "Not found", "There is nothing at this path."),
    ErrorCode(405, "Method not allowed", "The path exists, but not with this method; see the Allow header."),
    ErrorCode(
        409,
        "Idempotency key already used with different parameters",
        "The Idempotency-Key was used before with another request.",
    ),
    ErrorCode(413, "Payload too large", "The request body is too large."),
    ErrorCode(429, "Concurrency limit reached", "As many tasks are in progress as may be; see `limit`."),
    ErrorCode(429, "Rate limit exceeded", "Too many requests in the last minute; see Retry-After."),
    ErrorCode(500, "Internal server error", "Something went wrong on our side."),
    ErrorCode(
        503,
        "Model temporarily unavailable",
        "See Retry-After; with the same Idempotency-Key nothing is charged twice.",
    ),
)


def render_error(error: ServiceError, route: Route | None, request_id: str) -> Answer:
    """Spells any error. What no table names is 500, and says nothing else."""
    row = _row(error)
    body = ErrorBody(
        message=_message(row, error),
        required=credits_told(error, "required_millis") if row.status == 402 else UNSET,
        available=credits_told(error, "available_millis") if row.status == 402 else UNSET,
        limit=_number(error, "limit") if row is _BUSY else UNSET,
        current=_number(error, "current") if row is _BUSY else UNSET,
    )
    return Answer(row.status, body, headers_of(row.status, error))


def _row(error: ServiceError) -> _Row:
    row = _TABLE.get(error.reason)
    if row is not None:
        return row
    return _UNAVAILABLE if passes(error) else _INTERNAL


def _message(row: _Row, error: ServiceError) -> str:
    if error.reason == "UNSUPPORTED_WORKFLOW":
        return f"{row.message}: {error.metadata.get('workflow', '')}"
    if row is _BUSY and {"limit", "current"} <= error.metadata.keys():
        limit, current = error.metadata["limit"], error.metadata["current"]
        return f"{row.message} ({limit}). You have {current} tasks in progress."
    if not row.explained:
        return row.message
    within = error.reason == "MALFORMED_REQUEST" and error.metadata.get("field", "").startswith("inputs.")
    return f"{_INPUTS if within else row.message}: {sentence_of(error)}"


def _number(error: ServiceError, name: str) -> Any:
    value = error.metadata.get(name, "")
    return int(value) if value.isdigit() else UNSET


def error_example(row: ErrorCode) -> dict[str, Any]:
    """How the documentation shows one message."""
    details: dict[str, dict[str, Any]] = {
        _REQUEST: {"message": f"{_REQUEST}: model is required."},
        _INPUTS: {"message": f"{_INPUTS}: inputs.prompt is required."},
        "Unsupported NewAPI workflow": {
            "message": "Unsupported NewAPI workflow: seedance20-video-generation"
        },
        "Insufficient credits": {"required": 200, "available": 10},
        "Concurrency limit reached": {
            "message": "Concurrency limit reached (3). You have 3 tasks in progress.",
            "limit": 3,
            "current": 3,
        },
    }
    return {"message": row.code, **details.get(row.code, {})}
