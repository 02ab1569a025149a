"""Errors: one table from what happened to what the contract says, and the one place that spells it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from msgspec import UNSET

from services.chassis.errors import ServiceError
from services.gateway.contract import Answer, ErrorCode, Route
from services.gateway.contracts.leonardo.wire import Credits, ErrorBody, ErrorDetail
from services.gateway.error_answers import credits_told, headers_of, passes

# Long enough for a job to end or a slot to come free, short enough that a client that obeys does not idle.
_LIMIT_RETRY_AFTER_S: Final = 5
_UNAVAILABLE_RETRY_AFTER_S: Final = 5
# The default poll interval: asking earlier gives the same answer.
_STATUS_RETRY_AFTER_S: Final = 2


@dataclass(frozen=True, slots=True)
class _Row:
    status: int
    code: str
    # The edge's own messages are written for customers; those of other services are never shown.
    message: str = ""
    retry_after_s: int = 0


_INVALID_KEY: Final = _Row(401, "invalid_api_key", "The API key is missing, unknown, revoked or inactive.")
_UNAVAILABLE: Final = _Row(
    503,
    "provider_unavailable",
    "The request cannot be taken right now. Please try again, with the same Idempotency-Key.",
    _UNAVAILABLE_RETRY_AFTER_S,
)
_STATUS_UNAVAILABLE: Final = _Row(
    503,
    "job_status_unavailable",
    "The answer is not available right now. Please try again.",
    _STATUS_RETRY_AFTER_S,
)
_INTERNAL: Final = _Row(500, "internal_error", "Something went wrong on our side. Please try again later.")

_TABLE: Final[Mapping[str, _Row]] = {
    "MALFORMED_REQUEST": _Row(400, "invalid_request"),
    "IDEMPOTENCY_KEY_MISSING": _Row(400, "idempotency_key_required"),
    "REFERENCE_IMAGE_REFUSED": _Row(400, "invalid_reference_image"),
    "API_KEY_MISSING": _Row(401, "invalid_api_key"),
    "INVALID_API_KEY": _INVALID_KEY,
    "CUSTOMER_INACTIVE": _INVALID_KEY,
    "NETWORK_NOT_ALLOWED": _INVALID_KEY,
    "MODEL_NOT_ALLOWED": _Row(400, "invalid_request"),
    "SPEND_LIMIT_REACHED": _Row(
        402, "insufficient_credits", "The spend limit of this account or key is reached for now."
    ),
    "INSUFFICIENT_CREDITS": _Row(402, "insufficient_credits", "There are not enough credits for this job."),
    "JOB_NOT_FOUND": _Row(404, "job_not_found", "There is no job with that id."),
    "MEDIA_GONE": _Row(404, "job_not_found"),
    "NO_SUCH_PATH": _Row(404, "not_found"),
    "METHOD_NOT_ALLOWED": _Row(405, "method_not_allowed"),
    "IDEMPOTENCY_KEY_CONFLICT": _Row(
        409, "idempotency_key_conflict", "The Idempotency-Key was used before with another request."
    ),
    "JOB_NOT_COMPLETE": _Row(409, "job_not_complete", retry_after_s=_STATUS_RETRY_AFTER_S),
    "JOB_FAILED": _Row(409, "job_failed"),
    "PAYLOAD_TOO_LARGE": _Row(413, "payload_too_large"),
    "RATE_LIMITED": _Row(429, "rate_limited"),
    "QUEUE_FULL": _Row(
        429, "queue_full", "As many jobs are waiting as this account may have.", _LIMIT_RETRY_AFTER_S
    ),
    "CONCURRENCY_LIMITED": _Row(
        429, "concurrency_limited", "As many jobs are running as this account may have.", _LIMIT_RETRY_AFTER_S
    ),
    "PROVIDER_UNAVAILABLE": _UNAVAILABLE,
    "STATUS_UNAVAILABLE": _STATUS_UNAVAILABLE,
}

ERROR_CODES: Final = (
    ErrorCode(
        400, "invalid_request", "The request is not valid; `error.field` names the part that is wrong."
    ),
    ErrorCode(400, "idempotency_key_required", "The Idempotency-Key header is missing or malformed."),
    ErrorCode(
        400,
        "invalid_reference_image",
        "The reference image cannot be used: its URL is not one that is fetched, or what is inline is not an image that is "
        "taken.",
    ),
    ErrorCode(401, "invalid_api_key", "The API key is missing, unknown, revoked or inactive."),
    ErrorCode(
        402, "insufficient_credits", "The job costs more than is available; see `required` and `available`."
    ),
    ErrorCode(404, "job_not_found", "There is no such job of this key, or its media are no longer kept."),
    ErrorCode(404, "not_found", "There is nothing at this path."),
    ErrorCode(405, "method_not_allowed", "The path exists, but not with this method; see the Allow header."),
    ErrorCode(409, "idempotency_key_conflict", "The Idempotency-Key was used before with another request."),
    ErrorCode(409, "job_not_complete", "The job has not ended yet; see Retry-After."),
    ErrorCode(409, "job_failed", "The job failed, so there is no result. Its credits were returned."),
    ErrorCode(413, "payload_too_large", "The request body is too large."),
    ErrorCode(429, "rate_limited", "Too many requests in the last minute; see Retry-After."),
    ErrorCode(429, "queue_full", "Too many jobs are waiting; see Retry-After."),
    ErrorCode(429, "concurrency_limited", "Too many jobs are running; see Retry-After."),
    ErrorCode(500, "internal_error", "Something went wrong on our side."),
    ErrorCode(
        503,
        "provider_unavailable",
        "The job cannot be taken now. See Retry-After; with the same Idempotency-Key it is never charged twice.",
    ),
    ErrorCode(503, "job_status_unavailable", "The answer is not available right now; see Retry-After."),
)


def render_error(error: ServiceError, route: Route | None, request_id: str) -> Answer:
    """Spells any error. What no table names is `internal_error`, and says nothing else."""
    row = _row(error, route)
    detail = ErrorDetail(
        code=row.code,
        message=row.message or error.message,
        field=error.metadata.get("field", UNSET) if row.status == 400 else UNSET,
        required=credits_told(error, "required_millis") if row.status == 402 else UNSET,
        available=credits_told(error, "available_millis") if row.status == 402 else UNSET,
    )
    return Answer(
        row.status,
        ErrorBody(ok=False, error=detail, request_id=request_id),
        headers_of(row.status, error, row.retry_after_s),
    )


def _row(error: ServiceError, route: Route | None) -> _Row:
    row = _TABLE.get(error.reason)
    if row is not None:
        return row
    if passes(error):
        return _UNAVAILABLE if route is None or route.creates else _STATUS_UNAVAILABLE
    return _INTERNAL


def error_example(row: ErrorCode) -> dict[str, Any]:
    """How the documentation shows one code."""
    detail: dict[str, str | Credits] = {"code": row.code, "message": row.meaning}
    if row.code == "invalid_request":
        detail = {**detail, "message": "prompt is required.", "field": "prompt"}
    if row.code == "insufficient_credits":
        detail = {
            **detail,
            "message": "There are not enough credits for this job.",
            "required": 20,
            "available": 10,
        }
    return {"ok": False, "error": detail, "requestId": "req_01jz8b7q4x8k2p9w3m5c6n7r8s"}
