"""OpenAI's answers: results, what they cost, and errors in the pool's classes. Pure."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec

from services.provider_pool.adapters import answer_reading as reading
from services.provider_pool.adapters.calls import HttpAnswer
from services.provider_pool.adapters.interface import (
    AccountRestricted,
    AuthFailed,
    ContentBlocked,
    GenerationFailed,
    InsufficientBalance,
    InvalidRequest,
    ModelNotEnabled,
    Overloaded,
    ProtocolViolation,
    ProviderError,
    RateLimited,
    SubmissionUnknown,
    TransientFailure,
)


class _Usage(msgspec.Struct):
    input_tokens: int = 0
    output_tokens: int = 0
    input_tokens_details: Mapping[str, object] | None = None


class _Picture(msgspec.Struct):
    b64_json: str


class _Pictures(msgspec.Struct):
    data: list[_Picture]
    # A result is not given up for tokens in another shape.
    usage: object = None


class _Message(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


class _TextUsage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Completion(msgspec.Struct):
    choices: list[_Choice]
    usage: object = None


class _Fault(msgspec.Struct):
    code: str | int | None = None
    type: str | None = None
    message: str | None = None


class _Refusal(msgspec.Struct):
    error: _Fault


_U = TypeVar("_U", _Usage, _TextUsage)


@dataclass(frozen=True, slots=True)
class Result:
    """What was made, and the tokens that it took, by their kind; none where they are not told."""

    content: bytes
    tokens: Mapping[str, int]


# The exact words come before the status: an empty purse is a 429 here, and a refused content a 400.
_BY_WORD: Final[Mapping[str, type[ProviderError]]] = {
    "moderation_blocked": ContentBlocked,
    "content_policy_violation": ContentBlocked,
    "content_filter": ContentBlocked,
    "billing_hard_limit_reached": InsufficientBalance,
    "insufficient_quota": InsufficientBalance,
    "credit_balance_exhausted": InsufficientBalance,
    "organization_spend_limit_exceeded": InsufficientBalance,
    "project_spend_limit_exceeded": InsufficientBalance,
    "organization_usage_limit_exceeded": InsufficientBalance,
    "invalid_api_key": AuthFailed,
    "model_not_found": ModelNotEnabled,
    "rate_limit_exceeded": RateLimited,
    "slow_down": RateLimited,
    "server_is_overloaded": Overloaded,
    "service_unavailable_error": Overloaded,
}
_BY_STATUS: Final[Mapping[int, type[ProviderError]]] = {
    401: AuthFailed,
    402: InsufficientBalance,
    403: AccountRestricted,
    404: ModelNotEnabled,
    408: TransientFailure,
    409: TransientFailure,
    429: RateLimited,
}
# With their status: a complaint about the request may quote the prompt, and puts no account out of service.
_BY_MESSAGE: Final[tuple[tuple[int, re.Pattern[str], type[ProviderError]], ...]] = (
    (403, re.compile(r"organization must be verified"), ModelNotEnabled),
    (
        401,
        re.compile(r"must be a member of an organization|ip (?:address )?(?:is )?not authorized"),
        AuthFailed,
    ),
)


def picture(answer: HttpAnswer) -> Result:
    """The picture of an answer of 200. Raises SubmissionUnknown where it cannot be read: it is paid for all the same."""
    told = reading.accepted(answer, _Pictures)
    try:
        contents = [base64.b64decode(one.b64_json, validate=True) for one in told.data]
    except (binascii.Error, ValueError):
        contents = []
    if len(contents) != 1 or not contents[0]:
        raise SubmissionUnknown("openai answered without a picture", charged="yes")
    return Result(contents[0], _picture_tokens(told.usage))


def text(answer: HttpAnswer, max_words: int) -> Result:
    """The text of an answer of 200, of at most so many words.

    Raises ContentBlocked, GenerationFailed (there is no text), SubmissionUnknown (the answer cannot be read).
    """
    told = reading.accepted(answer, _Completion)
    if not told.choices:
        raise SubmissionUnknown("openai answered without a text", charged="yes")
    choice = told.choices[0]
    if choice.message.refusal or choice.finish_reason == "content_filter":
        raise ContentBlocked("openai refused the content", charged="yes")
    content = _shortened((choice.message.content or "").strip(), max_words)
    if not content:
        raise GenerationFailed(f"openai wrote nothing ({reading.word(choice.finish_reason)})", charged="yes")
    return Result(content.encode(), _text_tokens(told.usage))


def submit_error(answer: HttpAnswer, now_ms: int) -> ProviderError:
    """What the answer to a billable call that was not taken says."""
    found = _classified(answer, now_ms)
    # Of a server that failed, only that it was too busy to begin is believed.
    if found is not None and (reading.is_refusal(answer.status) or isinstance(found, Overloaded)):
        return found
    if reading.is_refusal(answer.status):
        return InvalidRequest(_described(answer, _fault(answer)))
    return reading.unclear(answer, "openai")


def read_error(answer: HttpAnswer, now_ms: int) -> ProviderError:
    """What an error says in answer to a call that costs nothing."""
    found = _classified(answer, now_ms)
    if found is not None:
        return found
    described = _described(answer, _fault(answer))
    return TransientFailure(described) if answer.status >= 500 else ProtocolViolation(described)


def _classified(answer: HttpAnswer, now_ms: int) -> ProviderError | None:
    fault = _fault(answer)
    described = _described(answer, fault)
    if fault is None and answer.status >= 500:
        return None
    kind = None if fault is None else _kind_of(fault, answer.status)
    kind = kind or reading.by_status(answer, _BY_STATUS)
    if kind is None:
        return None
    if issubclass(kind, RateLimited | Overloaded):
        return kind(described, retry_after_s=_wait_s(answer.headers, now_ms))
    return kind(described)


def _kind_of(fault: _Fault, status: int) -> type[ProviderError] | None:
    for told in (fault.code, fault.type):
        if isinstance(told, str) and told in _BY_WORD:
            return _BY_WORD[told]
    message = (fault.message or "").lower()
    known = (kind for at, pattern, kind in _BY_MESSAGE if at == status and pattern.search(message))
    return next(known, None)


def _fault(answer: HttpAnswer) -> _Fault | None:
    try:
        return reading.shaped(answer, _Refusal).error
    except ProtocolViolation:
        return None


def _described(answer: HttpAnswer, fault: _Fault | None) -> str:
    # Their messages may quote the key and the prompt; their words and ids do not.
    told = () if fault is None else (reading.word(fault.code), reading.word(fault.type))
    request_id = reading.word(answer.headers.get("x-request-id"))
    return " ".join(filter(None, (f"openai answered {answer.status}", *told, request_id)))


def _wait_s(headers: Mapping[str, str], now_ms: int) -> float | None:
    asked = reading.retry_after_s(headers, now_ms)
    if asked is not None:
        return asked
    # Of the two budgets, the one that is used up says when to come back.
    spans = [
        reading.span_s(headers.get(f"x-ratelimit-reset-{what}", ""))
        for what in ("requests", "tokens")
        if headers.get(f"x-ratelimit-remaining-{what}", "0") == "0"
    ]
    return max((span for span in spans if span is not None), default=None)


def _text_tokens(told: object) -> dict[str, int]:
    usage = _usage(told, _TextUsage)
    return {} if usage is None else {"text_in": usage.prompt_tokens, "text_out": usage.completion_tokens}


def _picture_tokens(told: object) -> dict[str, int]:
    usage = _usage(told, _Usage)
    if usage is None:
        return {}
    details = usage.input_tokens_details or {}
    text_in, image_in = details.get("text_tokens"), details.get("image_tokens")
    if not isinstance(text_in, int) or not isinstance(image_in, int):
        # The dearer kind, where they are not told apart.
        text_in, image_in = 0, usage.input_tokens
    return {"text_in": text_in, "image_in": image_in, "image_out": usage.output_tokens}


def _usage(told: object, shape: type[_U]) -> _U | None:
    if told is None:
        return None
    try:
        return reading.shaped_value(told, shape)
    except ProtocolViolation:
        return None


def _shortened(written: str, max_words: int) -> str:
    words = list(re.finditer(r"\S+", written))
    return written if len(words) <= max_words else written[: words[max_words - 1].end()]
