"""fal's answers: places in the queue, results, lists, and errors in the pool's classes. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import ROUND_FLOOR
from typing import Final

import msgspec

from services.provider_pool.adapters import answer_reading as reading
from services.provider_pool.adapters.calls import HttpAnswer
from services.provider_pool.adapters.interface import (
    AccountRestricted,
    AuthFailed,
    ContentBlocked,
    GenerationDied,
    GenerationFailed,
    InsufficientBalance,
    InvalidRequest,
    ModelNotEnabled,
    OutputRef,
    ProtocolViolation,
    ProviderError,
    RateLimited,
    ReferenceRejected,
    Role,
    TaskNotFound,
    TransientFailure,
)


class Queued(msgspec.Struct):
    """A request that was taken."""

    request_id: str
    status_url: str = ""
    response_url: str = ""
    cancel_url: str = ""


class Status(msgspec.Struct):
    """Where a request stands. `error_type` is set where it came to a bad end."""

    status: str
    queue_position: int | None = None
    error: object = None
    error_type: str | None = None


class Listed(msgspec.Struct):
    """A request that has ended, in fal's list."""

    request_id: str
    sent_at: str = ""
    json_input: object = None


class Page(msgspec.Struct):
    """A page of the list."""

    items: list[object]
    next_cursor: str | None = None
    has_more: bool = False


class Billing(msgspec.Struct):
    """What is left."""

    class Credits(msgspec.Struct):
        current_balance: float

    credits: Credits


class Presigned(msgspec.Struct):
    """Where a file may be put, and where it lies afterwards."""

    upload_url: str
    file_url: str


class _File(msgspec.Struct):
    url: str
    content_type: str | None = None
    width: int | None = None
    height: int | None = None


class _Output(msgspec.Struct):
    video: _File | None = None
    images: list[_File] | None = None
    has_nsfw_concepts: list[bool] | None = None


# What went wrong while a model ran. Of several, a refused content counts, or the first that is listed here.
_BY_TYPE: Final[Mapping[str, type[ProviderError]]] = {
    "content_policy_violation": ContentBlocked,
    "no_media_generated": GenerationFailed,
    "internal_server_error": GenerationDied,
    "generation_timeout": GenerationDied,
    "downstream_service_error": GenerationDied,
    "downstream_service_unavailable": GenerationDied,
    # Of the queue and its machines, before or after a model.
    "request_timeout": GenerationDied,
    "startup_timeout": GenerationDied,
    "runner_scheduling_failure": GenerationDied,
    "runner_connection_timeout": GenerationDied,
    "runner_disconnected": GenerationDied,
    "runner_connection_refused": GenerationDied,
    "runner_connection_error": GenerationDied,
    "runner_incomplete_response": GenerationDied,
    "runner_server_error": GenerationDied,
    "internal_error": GenerationDied,
    "client_disconnected": GenerationFailed,
    "client_cancelled": GenerationFailed,
    "bad_request": InvalidRequest,
    "auth_error": GenerationFailed,
    "not_found": GenerationFailed,
    "url_error": GenerationFailed,
    "feature_not_supported": InvalidRequest,
    "missing": InvalidRequest,
    "one_of": InvalidRequest,
}
# The open sets: new names of these forms are to be expected.
_BY_FORM: Final[tuple[tuple[re.Pattern[str], type[ProviderError]], ...]] = (
    (
        re.compile(r"(?:file|image|video|audio)_\w+|unsupported_(?:image|video|audio)_format"),
        ReferenceRejected,
    ),
    (
        re.compile(r"\w+_type|(?:greater|less)_than\w*|sequence_too_\w+|string_\w+|value_error\w*"),
        InvalidRequest,
    ),
)
# Not charged: the request never ran, or the fault was fal's own.
_FREE: Final = frozenset({"request_timeout", "startup_timeout", "client_cancelled"})
_BY_STATUS: Final[Mapping[int, type[ProviderError]]] = {
    401: AuthFailed,
    402: InsufficientBalance,
    403: AccountRestricted,
    404: ModelNotEnabled,
    408: TransientFailure,
    429: RateLimited,
}
_ABOUT_THE_ACCOUNT: Final = frozenset({401, 402, 403, 404, 408, 429})
_EXHAUSTED: Final = re.compile(r"exhausted balance|insufficient (?:balance|credit)|top up your balance")


def result(answer: HttpAnswer) -> tuple[OutputRef, ...] | ProviderError:
    """The output of a request that ended well, or why there is none. Raises ProtocolViolation."""
    told = reading.shaped(answer, _Output)
    if any(told.has_nsfw_concepts or ()):
        return ContentBlocked("fal withheld the output", charged="maybe")
    files = [told.video] if told.video is not None else (told.images or [])[:1]
    return tuple(
        OutputRef(Role.PRIMARY, file.url, file.content_type or "", file.width or 0, file.height or 0)
        for file in files
        if file.url
    )


def failure(status: Status, answer: HttpAnswer) -> ProviderError | None:
    """Why a request that is over came to nothing; None where the answer to the question for its result is not about that.

    A refusal in the middle of the queue's machinery is told by the status, one of the model by the result.
    """
    body = _body(answer)
    types = [name for name in (*_types(body), reading.word(status.error_type)) if name]
    if answer.status in _ABOUT_THE_ACCOUNT or not (types or status.error or 400 <= answer.status < 500):
        return None
    if answer.status >= 500 and not (
        status.error or status.error_type or isinstance(body.get("detail"), list)
    ):
        # A model's errors are a list. Here nothing went wrong but the reading of the result, which is asked for again.
        return None
    kind, named = _classified(types)
    kind = kind or GenerationFailed
    free = answer.status >= 500 or named in _FREE or (answer.status == 200 and kind is GenerationDied)
    if issubclass(kind, GenerationFailed):
        told = answer.headers.get("x-fal-retryable", "").lower()
        died = told == "true" or (kind is GenerationDied and told != "false")
        kind = GenerationDied if died and free else GenerationFailed
    described = " ".join(("fal:", *types, f"({answer.status})"))
    return kind(described, charged="no" if free else "maybe")


def submit_error(answer: HttpAnswer, now_ms: int) -> ProviderError:
    """What the answer to a billable call that was not taken says."""
    body = _body(answer)
    if answer.status == 422 or (answer.status == 400 and body):
        kind, _ = _classified(_types(body))
        kind = kind if kind in (ContentBlocked, ReferenceRejected) else InvalidRequest
        return kind(_described(answer))
    if not reading.is_refusal(answer.status):
        return reading.unclear(answer, "fal")
    return _by_status(answer, now_ms) or InvalidRequest(_described(answer))


def read_error(answer: HttpAnswer, now_ms: int) -> ProviderError:
    """What an error says in answer to a call that costs nothing and is about the account."""
    known = _by_status(answer, now_ms)
    if known is not None:
        return known
    described = _described(answer)
    return TransientFailure(described) if answer.status >= 500 else ProtocolViolation(described)


def task_error(answer: HttpAnswer, now_ms: int) -> ProviderError:
    """The same of a call about one request."""
    if answer.status in (404, 410):
        return TaskNotFound(_described(answer))
    return read_error(answer, now_ms)


def upload_error(answer: HttpAnswer) -> ProviderError:
    """Why the storage did not take a file; nothing of that is about the account."""
    return TransientFailure(f"fal's storage answered {answer.status}")


def balance_millis(answer: HttpAnswer) -> int | None:
    """Thousandths of a dollar. Raises ProtocolViolation."""
    return reading.millis(reading.shaped(answer, Billing).credits.current_balance, rounding=ROUND_FLOOR)


def at_ms(text: str) -> int:
    """A time of the list's in milliseconds; 0 where it is none."""
    try:
        return round(datetime.fromisoformat(text).timestamp() * 1000)
    except (ValueError, OverflowError):
        return 0


def _by_status(answer: HttpAnswer, now_ms: int) -> ProviderError | None:
    kind = reading.by_status(answer, _BY_STATUS)
    if answer.status == 403 and _EXHAUSTED.search(str(_body(answer).get("detail", "")).lower()):
        kind = InsufficientBalance
    if kind is None:
        return None
    if issubclass(kind, RateLimited):
        return kind(_described(answer), retry_after_s=reading.retry_after_s(answer.headers, now_ms))
    return kind(_described(answer))


def _classified(types: Sequence[str]) -> tuple[type[ProviderError] | None, str]:
    for name in sorted(types, key=lambda name: name != "content_policy_violation"):
        if name in _BY_TYPE:
            return _BY_TYPE[name], name
    for pattern, kind in _BY_FORM:
        for name in types:
            if pattern.fullmatch(name):
                return kind, name
    return None, ""


def _body(answer: HttpAnswer) -> Mapping[str, object]:
    try:
        body = answer.json()
    except ProtocolViolation:
        return {}
    return body if isinstance(body, dict) else {}


def _types(body: Mapping[str, object]) -> list[str]:
    return [name for name in map(reading.word, _raw_types(body)) if name]


def _raw_types(body: Mapping[str, object]) -> Iterator[object]:
    detail = body.get("detail")
    if isinstance(detail, list):
        yield from (one.get("type") for one in detail if isinstance(one, dict))
    yield body.get("error_type")


def _described(answer: HttpAnswer) -> str:
    # Their messages quote the input; the types do not.
    told = _types(_body(answer)) or [reading.word(answer.headers.get("x-fal-error-type"))]
    return " ".join(filter(None, (f"fal answered {answer.status}", *told)))
