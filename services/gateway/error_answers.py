"""What the answers to errors have in common on every contract: which pass, and which headers go with them."""

from __future__ import annotations

from typing import Final

from msgspec import UNSET, UnsetType

from services.chassis.errors import Kind, ServiceError
from services.gateway.credits import credits_of

# Whoever did not answer, did not answer in time or is full: the request may be repeated.
_PASSING: Final = frozenset(
    {Kind.UNAVAILABLE, Kind.DEADLINE_EXCEEDED, Kind.RESOURCE_EXHAUSTED, Kind.ABORTED, Kind.CANCELLED}
)
# Long enough for a job to end or a slot to come free, short enough that a client that obeys does not idle.
_RETRY_AFTER_S: Final = 5


def passes(error: ServiceError) -> bool:
    """Whether what no table names may go well when it is tried again."""
    return error.kind in _PASSING


def sentence_of(error: ServiceError) -> str:
    """The edge's message, with the field in front of it where it does not name that."""
    field = error.metadata.get("field", "")
    return error.message if field in error.message else f"{field}: {error.message}"


def credits_told(error: ServiceError, name: str) -> int | float | UnsetType:
    """An amount that the error tells in thousandths, as customers read it."""
    millis = error.metadata.get(name, "")
    return credits_of(int(millis)) if millis.isdigit() else UNSET


def headers_of(status: int, error: ServiceError, retry_after_s: int | None = None) -> dict[str, str]:
    """The headers of an error that is answered with `status`.

    retry_after_s: where the error itself does not say; 0: no such header; None: the usual, of 429 and 503.
    """
    headers = {}
    if retry_after_s is None:
        retry_after_s = _RETRY_AFTER_S if status in {429, 503} else 0
    waits_s = error.metadata.get("retry_after_s", "") if status == 429 else ""
    if waits_s or retry_after_s:
        headers["Retry-After"] = waits_s or str(retry_after_s)
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status == 405:
        headers["Allow"] = error.metadata.get("allow", "")
    # Of the rate the edge tells on every answer.
    if status == 429 and error.reason != "RATE_LIMITED" and "limit" in error.metadata:
        headers["RateLimit-Limit"] = error.metadata["limit"]
        headers["RateLimit-Remaining"] = "0"
        headers["RateLimit-Reset"] = headers["Retry-After"]
    return headers
