"""What the answers to errors have in common on every contract: which pass, and which headers go with them."""

from __future__ import annotations

from services.chassis.errors import Kind, ServiceError

# Whoever did not answer, did not answer in time or is full: the request may be repeated.
_PASSING = frozenset(
    {Kind.UNAVAILABLE, Kind.DEADLINE_EXCEEDED, Kind.RESOURCE_EXHAUSTED, Kind.ABORTED, Kind.CANCELLED}
)


def passes(error: ServiceError) -> bool:
    """Whether what no table names may go well when it is tried again."""
    return error.kind in _PASSING


def headers_of(status: int, error: ServiceError, retry_after_s: int) -> dict[str, str]:
    """The headers of an error that is answered with `status`. retry_after_s: where the error does not say; 0: none."""
    headers = {}
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
