"""Replicate's answers: predictions, pages of them, and errors in the pool's classes. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Final

import msgspec

from services.provider_pool.adapters import answer_reading as reading
from services.provider_pool.adapters.calls import HttpAnswer
from services.provider_pool.adapters.interface import (
    AccountRestricted,
    AuthFailed,
    Cancellation,
    ContentBlocked,
    GenerationDied,
    GenerationFailed,
    InsufficientBalance,
    InvalidRequest,
    ModelNotEnabled,
    OutputRef,
    OutputUnavailable,
    ProtocolViolation,
    ProviderError,
    RateLimited,
    Role,
    Snapshot,
    TaskNotFound,
    TaskState,
    TransientFailure,
)
from services.provider_pool.adapters.pace import poll_after_ms


class Prediction(msgspec.Struct):
    """A task. `output` is an address, a list of them, or an object, as the model has it."""

    id: str
    status: str
    model: str | None = None
    input: object = None
    output: object = None
    error: object = None
    logs: str | None = None
    created_at: str | None = None
    started_at: str | None = None
    data_removed: bool = False


class Page(msgspec.Struct):
    """Predictions, newest first. `next`: the address of the page before them in time."""

    results: list[object]
    next: str | None = None


class Uploaded(msgspec.Struct):
    """A file that Replicate keeps."""

    class Urls(msgspec.Struct):
        get: str

    urls: Urls
    expires_at: str | None = None


class WebhookSecret(msgspec.Struct):
    """What an account's webhooks are signed with."""

    key: str


_UNDER_WAY: Final[Mapping[str, TaskState]] = {
    "starting": TaskState.QUEUED,
    "processing": TaskState.RUNNING,
}
_BY_STATUS: Final[Mapping[int, type[ProviderError]]] = {
    401: AuthFailed,
    402: InsufficientBalance,
    403: AccountRestricted,
    408: TransientFailure,
    429: RateLimited,
}
_SENSITIVE: Final = re.compile(r"flagged as sensitive|\be005\b|\bnsfw\b|content polic|moderation")
# Replicate could not start it: it never ran.
_NOT_STARTED: Final = re.compile(r"\be6716\b")
_CODE: Final = re.compile(r"\bE\d{3,5}\b")
_PROGRESS: Final = re.compile(r"(\d{1,3})%\|")
# "Your rate limit resets in ~30s."
_RESETS: Final = re.compile(r"resets in ~?(\d{1,5}(?:\.\d+)?)\s*s")
# Logs may be long, and the last bar is what counts.
_LOG_TAIL: Final = 2_000


def snapshot(told: Prediction, elapsed_ms: int) -> Snapshot:
    """Where a prediction stands. Raises ProtocolViolation."""
    state = _UNDER_WAY.get(told.status)
    if state is not None:
        pause_ms = poll_after_ms(elapsed_ms)
        return Snapshot(state, progress=_progress(told.logs), poll_after_ms=pause_ms)
    if told.status == "succeeded":
        outputs = _outputs(told.output)
        if not outputs and told.data_removed:
            gone = OutputUnavailable("replicate has removed the output", charged="yes")
            return Snapshot(TaskState.FAILED, error=gone)
        return Snapshot(TaskState.SUCCEEDED, 100, outputs=outputs)
    return Snapshot(TaskState.FAILED, error=_failure(told))


def is_whole(told: Prediction) -> bool:
    """Whether a listed prediction can be believed without asking for itself: lists may leave outputs out."""
    return told.status != "succeeded" or bool(_outputs(told.output))


def cancellation(told: Prediction) -> Cancellation:
    """What is paid for a prediction that was to stop."""
    if told.status in ("canceled", "aborted") and told.started_at is None:
        return Cancellation("no", 0)
    return Cancellation("yes" if told.status == "succeeded" else "maybe")


def submit_error(answer: HttpAnswer, now_ms: int) -> ProviderError:
    """What the answer to a billable call that was not taken says."""
    if answer.status == 404:
        return ModelNotEnabled(_described(answer))
    if not reading.is_refusal(answer.status):
        return reading.unclear(answer, "replicate")
    return _by_status(answer, now_ms) or InvalidRequest(_described(answer))


def read_error(answer: HttpAnswer, now_ms: int) -> ProviderError:
    """What an error says in answer to a call that costs nothing."""
    if answer.status in (404, 410):
        return TaskNotFound(_described(answer))
    known = _by_status(answer, now_ms)
    if known is not None:
        return known
    described = _described(answer)
    return TransientFailure(described) if answer.status >= 500 else ProtocolViolation(described)


def at_ms(text: str | None) -> int:
    """A time of theirs in milliseconds; 0 where it is none."""
    try:
        return round(datetime.fromisoformat(text or "").timestamp() * 1000)
    except (ValueError, OverflowError):
        return 0


def _failure(told: Prediction) -> ProviderError:
    if told.status == "aborted":
        return GenerationDied("replicate: the deadline passed before it began")
    if told.status == "canceled":
        return GenerationFailed("replicate: canceled", charged="no" if told.started_at is None else "maybe")
    if told.status != "failed":
        raise ProtocolViolation(f"replicate knows a state {reading.word(told.status)}")
    text = told.error if isinstance(told.error, str) else ""
    # Their texts may quote the prompt; their codes do not.
    code = found[0] if (found := _CODE.search(text)) else "without a code"
    if _SENSITIVE.search(text.lower()):
        return ContentBlocked(f"replicate: {code}", charged="maybe")
    if _NOT_STARTED.search(text.lower()):
        return GenerationDied(f"replicate: {code}")
    return GenerationFailed(f"replicate: {code}", charged="maybe")


def _by_status(answer: HttpAnswer, now_ms: int) -> ProviderError | None:
    kind = reading.by_status(answer, _BY_STATUS)
    if kind is None:
        return None
    if issubclass(kind, RateLimited):
        wait_s = reading.retry_after_s(answer.headers, now_ms)
        return kind(_described(answer), retry_after_s=_told_wait_s(answer) if wait_s is None else wait_s)
    return kind(_described(answer))


def _told_wait_s(answer: HttpAnswer) -> float | None:
    try:
        body = answer.json()
    except ProtocolViolation:
        return None
    detail = body.get("detail") if isinstance(body, dict) else None
    found = _RESETS.search(detail) if isinstance(detail, str) else None
    return None if found is None else min(float(found[1]), reading.WAIT_LIMIT_S)


def _outputs(output: object) -> tuple[OutputRef, ...]:
    if isinstance(output, Mapping):
        output = output.get("url") or output.get("video")
    first = output[0] if isinstance(output, list) and output else output
    if isinstance(first, str) and first.startswith(("https://", "http://")):
        return (OutputRef(Role.PRIMARY, first),)
    return ()


def _progress(logs: str | None) -> int:
    bars = _PROGRESS.findall((logs or "")[-_LOG_TAIL:])
    return min(int(bars[-1]), 99) if bars else 0


def _described(answer: HttpAnswer) -> str:
    return f"replicate answered {answer.status}"
