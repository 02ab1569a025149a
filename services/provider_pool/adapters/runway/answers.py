"""Runway's answers: tasks, uploads, the organization, and errors in the pool's classes. Pure; no text of its is repeated."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from services.provider_pool.adapters import answer_reading as reading
from services.provider_pool.adapters.calls import FormPart, HttpAnswer
from services.provider_pool.adapters.interface import (
    AccountRestricted,
    AccountStatus,
    AuthFailed,
    Cancellation,
    Charged,
    ContentBlocked,
    GenerationDied,
    GenerationFailed,
    InsufficientBalance,
    InvalidRequest,
    OutputRef,
    ProtocolViolation,
    ProviderError,
    RateLimited,
    ReferenceFile,
    ReferenceRejected,
    Role,
    Snapshot,
    SubmissionUnknown,
    TaskNotFound,
    TaskState,
    TransientFailure,
)


class _Credits(msgspec.Struct, frozen=True):
    credits: float | None = None


class Task(msgspec.Struct, frozen=True, rename="camel"):
    """One task."""

    id: str
    status: str
    progress: float | None = None
    output: list[str] | None = None
    cost: _Credits | None = None
    failure_code: str | None = None


class _Created(msgspec.Struct, frozen=True):
    id: str


class _Upload(msgspec.Struct, frozen=True, rename="camel"):
    upload_url: str
    runway_uri: str
    fields: dict[str, str]


class _ModelTier(msgspec.Struct, frozen=True, rename="camel"):
    max_concurrent_generations: int | None = None


class _Tier(msgspec.Struct, frozen=True):
    models: dict[str, _ModelTier] = {}


class _Organization(msgspec.Struct, frozen=True, rename="camel"):
    credit_balance: float
    tier: _Tier | None = None


# Texts of refusals, lower-case; the first that is found in a message decides. They may quote a prompt: what puts an account
# out of service has to be what a text begins with.
_TEXTS: Final[tuple[tuple[re.Pattern[str], type[ProviderError]], ...]] = (
    (
        re.compile(
            r"^(?:(?:you|your organization) (?:do|does)(?: not|n't) have enough|insufficient|not enough) credits"
        ),
        InsufficientBalance,
    ),
    (re.compile(r"asset\.invalid"), ReferenceRejected),
)
_STATUSES: Final[Mapping[int, type[ProviderError]]] = {
    401: AuthFailed,
    402: InsufficientBalance,
    403: AccountRestricted,
    429: RateLimited,
}
# In the provider's own words, that it did not begin; who gave up waiting for it (504) does not know that.
_NOT_NOW: Final = frozenset({502, 503})
# A limit of a day is not over in a minute.
_DAILY_WAIT_S: Final = 1_800.0

_UNFIT: Final = frozenset({400, 413, 415, 422})
# A thousand million credits.
_BALANCE_LIMIT_MILLIS: Final = 10**12

_BLOCKED: Final = ("SAFETY", "INPUT_PREPROCESSING.SAFETY")
_DIED: Final = ("INTERNAL", "INPUT_PREPROCESSING.INTERNAL", "THIRD_PARTY")
_STATES: Final[Mapping[str, TaskState]] = {"PENDING": TaskState.QUEUED, "THROTTLED": TaskState.QUEUED}


def created(answer: HttpAnswer) -> str:
    """The id of the task that was begun. Raises SubmissionUnknown where the answer cannot be read."""
    return reading.task_id(reading.accepted(answer, _Created).id)


def submit_error(answer: HttpAnswer, now_ms: int) -> ProviderError:
    """Why nothing was begun; where that is not certain, SubmissionUnknown."""
    message = _message(answer)
    known = _classified(answer, message, now_ms)
    if known is not None:
        return known
    text = f"runway answered {answer.status}"
    if answer.status in _NOT_NOW and message:
        return TransientFailure(text, retry_after_s=reading.retry_after_s(answer.headers, now_ms))
    if not reading.is_refusal(answer.status):
        return SubmissionUnknown(text, charged="maybe")
    return InvalidRequest(text)


def read_error(answer: HttpAnswer, now_ms: int) -> ProviderError:
    """Why a question was not answered."""
    known = _classified(answer, _message(answer), now_ms)
    if known is not None:
        return known
    text = f"runway answered {answer.status}"
    if answer.status == 404:
        return TaskNotFound("runway knows no such task")
    if answer.status >= 500 or answer.status == 408:
        return TransientFailure(text, retry_after_s=reading.retry_after_s(answer.headers, now_ms))
    return ProtocolViolation(text)


def upload_error(answer: HttpAnswer, now_ms: int) -> ProviderError:
    """Why a reference was not taken."""
    if answer.status in _UNFIT:
        return ReferenceRejected(f"runway answered {answer.status}")
    return read_error(answer, now_ms)


def snapshot(task: Task, poll_after_ms: int) -> Snapshot:
    """Where a task stands. A state nobody knows counts as running."""
    match task.status:
        case "SUCCEEDED":
            return _succeeded(task)
        case "FAILED":
            return Snapshot(TaskState.FAILED, cost_millis=cost_millis(task), error=_failure(task))
        case "CANCELLED":
            error = GenerationFailed("runway: cancelled", charged=_charged(task))
            return Snapshot(TaskState.FAILED, cost_millis=cost_millis(task), error=error)
        case status:
            progress = min(int(min(max(task.progress or 0.0, 0.0), 1.0) * 100), 99)
            return Snapshot(_STATES.get(status, TaskState.RUNNING), progress, poll_after_ms)


def cancellation(task: Task) -> Cancellation:
    """What a task that was to stop is charged."""
    return Cancellation(_charged(task), cost_millis(task))


def is_over(task: Task) -> bool:
    """Whether nothing happens to it any more."""
    return task.status in ("SUCCEEDED", "FAILED", "CANCELLED")


def cost_millis(task: Task) -> int | None:
    """Thousandths of a credit; None while the provider does not tell."""
    return reading.cost_millis(task.cost.credits) if task.cost is not None else None


def upload_form(answer: HttpAnswer, file: ReferenceFile, file_name: str) -> tuple[str, str, list[FormPart]]:
    """What the file is called there, where its bytes go, and the form in which: the fields as they came, the file last."""
    told = reading.shaped(answer, _Upload)
    parts = [FormPart(name, value) for name, value in told.fields.items()]
    last = FormPart("file", path=file.path, file_name=file_name, content_type=file.content_type)
    return told.runway_uri, told.upload_url, [*parts, last]


def account_status(answer: HttpAnswer, upstreams: Iterable[str]) -> AccountStatus:
    """Balance, and as many tasks at once as the most generous of these models may have."""
    told = reading.shaped(answer, _Organization)
    models = told.tier.models if told.tier else {}
    limits = [models[name].max_concurrent_generations for name in upstreams if name in models]
    known = [limit for limit in limits if limit is not None]
    if abs(told.credit_balance) * 1000 > _BALANCE_LIMIT_MILLIS:
        raise ProtocolViolation("runway: a balance that cannot be one")
    return AccountStatus(
        ok=True,
        # What is left of a credit's thousandth cannot be spent.
        balance_millis=int(told.credit_balance * 1000),
        concurrency_limit=max(known) if known and len(known) == len(limits) else None,
    )


def _succeeded(task: Task) -> Snapshot:
    if not task.output:
        error = GenerationFailed("runway: succeeded without an output", charged="yes")
        return Snapshot(TaskState.FAILED, cost_millis=cost_millis(task), error=error)
    outputs = (OutputRef(Role.PRIMARY, task.output[0], "video/mp4"),)
    return Snapshot(TaskState.SUCCEEDED, 100, outputs=outputs, cost_millis=cost_millis(task))


def _failure(task: Task) -> ProviderError:
    code = reading.word(task.failure_code)
    charged = _charged(task)
    text = f"runway: {code or 'failed'}"
    if code.startswith(_BLOCKED):
        return ContentBlocked(text, charged=charged)
    if code == "ASSET.INVALID":
        return ReferenceRejected(text, charged=charged)
    if charged == "no" and (not code or code.startswith(_DIED)):
        return GenerationDied(text)
    return GenerationFailed(text, charged=charged)


def _charged(task: Task) -> Charged:
    cost = cost_millis(task)
    if cost is None:
        return "maybe"
    return "yes" if cost else "no"


def _classified(answer: HttpAnswer, message: str, now_ms: int) -> ProviderError | None:
    found = next((known for text, known in _TEXTS if text.search(message) and answer.status < 500), None)
    found = found or reading.by_status(answer, _STATUSES)
    if found is None:
        return None
    wait_s = reading.retry_after_s(answer.headers, now_ms)
    if found is RateLimited and wait_s is None and "daily" in message:
        wait_s = _DAILY_WAIT_S
    return found(f"runway answered {answer.status}", retry_after_s=wait_s)


def _message(answer: HttpAnswer) -> str:
    """The lower-case text of a refusal; empty where it is not of the documented shape."""
    try:
        body = answer.json()
    except ProtocolViolation:
        return ""
    told = body.get("error") if isinstance(body, Mapping) else None
    return told.lower() if isinstance(told, str) else ""
