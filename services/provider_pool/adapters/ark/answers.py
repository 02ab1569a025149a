"""Ark's answers: tasks, and errors in the pool's classes. Pure; no message of the provider's is repeated, for it may quote a prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from services.provider_pool.adapters import answer_reading as reading
from services.provider_pool.adapters.calls import HttpAnswer
from services.provider_pool.adapters.interface import (
    AccountRestricted,
    AuthFailed,
    ConcurrencyLimited,
    ContentBlocked,
    GenerationDied,
    GenerationFailed,
    InsufficientBalance,
    InvalidRequest,
    ModelNotEnabled,
    OutputRef,
    Overloaded,
    ProtocolViolation,
    ProviderError,
    RateLimited,
    Role,
    Snapshot,
    SubmissionUnknown,
    TaskNotFound,
    TaskState,
    TransientFailure,
)


class Fault(msgspec.Struct, frozen=True):
    """What the provider says went wrong."""

    code: str = ""
    message: str = ""


class _Refusal(msgspec.Struct, frozen=True):
    error: Fault


class _Content(msgspec.Struct, frozen=True):
    video_url: str | None = None
    last_frame_url: str | None = None


class _Usage(msgspec.Struct, frozen=True):
    completion_tokens: int | None = None


class Task(msgspec.Struct, frozen=True):
    """One task, of an answer, of a list, or of a callback."""

    id: str
    status: str
    model: str = ""
    error: Fault | None = None
    created_at: int = 0
    content: _Content | None = None
    usage: _Usage | None = None
    seed: int | None = None
    resolution: str | None = None
    ratio: str | None = None
    duration: int | None = None
    safety_identifier: str | None = None


class Named(msgspec.Struct, frozen=True):
    """A task of which nothing else can be read."""

    id: str


class Page(msgspec.Struct, frozen=True):
    """A page of a list."""

    items: list[object]
    total: int = 0


class _Created(msgspec.Struct, frozen=True):
    id: str


_BLOCKED: Final = "SensitiveContentDetected"
_CODES: Final[Mapping[str, type[ProviderError]]] = {
    "InvalidEndpoint.ClosedEndpoint": ModelNotEnabled,
    "AuthenticationError": AuthFailed,
    "InvalidAccountStatus": AuthFailed,
    "AccountOverdueError": InsufficientBalance,
    "ServiceOverdue": InsufficientBalance,
    "AccessDenied": AccountRestricted,
    "ServiceNotOpen": AccountRestricted,
    "ModelNotOpen": ModelNotEnabled,
    "InvalidEndpointOrModel.NotFound": ModelNotEnabled,
    # The free trial of one model is used up, or a limit that the owner set for it: the account may have others.
    "QuotaExceeded": ModelNotEnabled,
    "SetLimitExceeded": ModelNotEnabled,
    "ServerOverloaded": Overloaded,
    "ModelLoadingError": Overloaded,
    "RequestBurstTooFast": RateLimited,
    "MissingParameter": InvalidRequest,
    "InvalidParameter": InvalidRequest,
}
_FAMILIES: Final[tuple[tuple[str, type[ProviderError]], ...]] = (
    ("InvalidParameter.", InvalidRequest),
    ("OperationDenied", AccountRestricted),
    ("RateLimitExceeded", RateLimited),
    ("ModelAccountRpm", RateLimited),
    ("ModelAccountTpm", RateLimited),
    ("APIAccountRpm", RateLimited),
    ("ResourceNotFound", TaskNotFound),
)
_STATUSES: Final[Mapping[int, type[ProviderError]]] = {
    401: AuthFailed,
    402: InsufficientBalance,
    403: AccountRestricted,
    429: RateLimited,
}
# Of a task that had begun: the provider's own trouble, and only what succeeded is charged.
_DIED: Final = frozenset(
    {"", "InternalServiceError", "InternalError", "ServerOverloaded", "ModelLoadingError"}
)

_WAITING: Final[Mapping[str, TaskState]] = {"queued": TaskState.QUEUED}


def created(answer: HttpAnswer) -> str:
    """The id of the task that was begun. Raises SubmissionUnknown where the answer cannot be read."""
    return reading.task_id(reading.accepted(answer, _Created).id)


def submit_error(answer: HttpAnswer, now_ms: int) -> ProviderError:
    """Why nothing was begun; where that is not certain, SubmissionUnknown."""
    known = _classified(answer, now_ms)
    if known is not None:
        return InvalidRequest("ark: no such path") if isinstance(known, TaskNotFound) else known
    if not reading.is_refusal(answer.status):
        return SubmissionUnknown(f"ark answered {answer.status}", charged="maybe")
    return InvalidRequest(f"ark answered {answer.status}")


def read_error(answer: HttpAnswer, now_ms: int) -> ProviderError:
    """Why a question was not answered."""
    known = _classified(answer, now_ms)
    if known is not None:
        return known
    if answer.status == 404:
        return TaskNotFound("ark knows no such task")
    if answer.status >= 500 or answer.status == 408:
        wait_s = reading.retry_after_s(answer.headers, now_ms)
        return TransientFailure(f"ark answered {answer.status}", retry_after_s=wait_s)
    return ProtocolViolation(f"ark answered {answer.status}")


def snapshot(task: Task, poll_after_ms: int, cost_of: Callable[[Task], int | None]) -> Snapshot:
    """Where a task stands; `cost_of` tells what one that succeeded was charged. A state nobody knows counts as running."""
    match task.status:
        case "succeeded":
            return _succeeded(task, cost_of(task))
        case "failed":
            return Snapshot(TaskState.FAILED, cost_millis=0, error=_failure(task.error or Fault()))
        case "expired":
            return Snapshot(TaskState.FAILED, cost_millis=0, error=GenerationDied("ark: the task expired"))
        case "cancelled":
            return Snapshot(TaskState.FAILED, cost_millis=0, error=GenerationFailed("ark: cancelled"))
        case status:
            return Snapshot(_WAITING.get(status, TaskState.RUNNING), poll_after_ms=poll_after_ms)


def fault_of(answer: HttpAnswer) -> Fault:
    """What an answer says went wrong; an empty one where it is not of the documented shape."""
    try:
        return reading.shaped(answer, _Refusal).error
    except ProtocolViolation:
        return Fault()


def _succeeded(task: Task, cost_millis: int | None) -> Snapshot:
    content = task.content or _Content()
    if not content.video_url:
        error = GenerationFailed("ark: succeeded without a video", charged="yes")
        return Snapshot(TaskState.FAILED, cost_millis=cost_millis, error=error)
    outputs = [OutputRef(Role.PRIMARY, content.video_url, "video/mp4")]
    if content.last_frame_url:
        outputs.append(OutputRef(Role.LAST_FRAME, content.last_frame_url))
    return Snapshot(TaskState.SUCCEEDED, 100, outputs=tuple(outputs), cost_millis=cost_millis)


def _failure(fault: Fault) -> ProviderError:
    code = reading.word(fault.code)
    text = f"ark: {code or 'failed'}"
    if _BLOCKED in code:
        return ContentBlocked(text)
    if code.startswith(("InvalidParameter", "MissingParameter")):
        return InvalidRequest(text)
    return GenerationDied(text) if code in _DIED else GenerationFailed(text)


def _classified(answer: HttpAnswer, now_ms: int) -> ProviderError | None:
    fault = fault_of(answer)
    code = reading.word(fault.code)
    found = _class_of(code, fault.message.lower(), answer.status) or reading.by_status(answer, _STATUSES)
    if found is None:
        return None
    wait_s = reading.retry_after_s(answer.headers, now_ms)
    return found(f"ark answered {answer.status} {code}".rstrip(), retry_after_s=wait_s)


def _class_of(code: str, message: str, status: int) -> type[ProviderError] | None:
    if _BLOCKED in code:
        return ContentBlocked
    if status == 429 and "concurren" in f"{code.lower()} {message}":
        return ConcurrencyLimited
    if code in _CODES:
        return _CODES[code]
    return next((found for start, found in _FAMILIES if code.startswith(start)), None)
