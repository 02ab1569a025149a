"""What adapters read of an answer in the same way: its shape, the words in it that may be repeated, how long to wait."""

from __future__ import annotations

import contextlib
import email.utils
import math
import re
from collections.abc import Iterable, Mapping
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from typing import Final, TypeVar

import msgspec

from services.provider_pool.adapters.calls import HttpAnswer
from services.provider_pool.adapters.interface import (
    ProtocolViolation,
    ProviderError,
    SubmissionUnknown,
    TransientFailure,
)

T = TypeVar("T")

WAIT_LIMIT_S: Final = 3_600.0
"""Longer waits are not believed: an account that is out for longer is looked at by its balance and its breaker."""

COST_LIMIT_MILLIS: Final = 1_000_000_000
"""A million of any provider's unit: no task costs as much, and no sum of such costs leaves the range of the books."""

_WORD: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_SPAN: Final = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")


def shaped(answer: HttpAnswer, shape: type[T]) -> T:
    """The body as a value of this type; what the type does not name is not looked at. Raises ProtocolViolation."""
    return shaped_value(answer.json(), shape, answer.status)


def shaped_value(value: object, shape: type[T], status: int = 200) -> T:
    """The same of a part of a body."""
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError:
        # Its message may quote the body.
        raise ProtocolViolation(f"an answer of status {status} in another shape than documented") from None


def readable(items: Iterable[object], shape: type[T]) -> list[T]:
    """Those of a list that are of this type: one that is not, perhaps of another product, must not hide the others."""
    found: list[T] = []
    for item in items:
        with contextlib.suppress(ProtocolViolation):
            found.append(shaped_value(item, shape))
    return found


def accepted(answer: HttpAnswer, shape: type[T]) -> T:
    """The body of the answer to a billable call that was taken. Raises SubmissionUnknown where it cannot be read."""
    try:
        return shaped(answer, shape)
    except ProtocolViolation as violation:
        raise SubmissionUnknown(str(violation), charged="maybe") from None


def task_id(value: str) -> str:
    """The id of a task that was taken. Raises SubmissionUnknown where it is nothing that could be asked about."""
    if not word(value)[:1].isalnum():
        raise SubmissionUnknown("a task with an id that nobody could use", charged="maybe")
    return value


def word(value: object) -> str:
    """A provider's own short name for something, fit for logs; empty where it is anything longer or stranger."""
    return value if isinstance(value, str) and _WORD.fullmatch(value) else ""


def retry_after_s(headers: Mapping[str, str], now_ms: int) -> float | None:
    """How long the provider asks to wait: `retry-after-ms`, `retry-after` in seconds or as a date; None if it does not."""
    told = _number(headers.get("retry-after-ms", ""))
    if told is not None:
        return _bounded(told / 1000)
    text = headers.get("retry-after", "").strip()
    told = _number(text)
    if told is not None:
        return _bounded(told)
    try:
        at = email.utils.parsedate_to_datetime(text)
        return _bounded(at.timestamp() - now_ms / 1000)
    except (ValueError, OverflowError, TypeError, IndexError):
        return None


def span_s(text: str) -> float | None:
    """A length of time as in "6m0s", "1s" or "250ms", in seconds; None where it is none."""
    found = _SPAN.fullmatch(text.strip())
    if found is None or not any(found.groups()) or len(text) > 32:
        return None
    hours, minutes, seconds, milliseconds = (float(part or 0) for part in found.groups())
    return _bounded(hours * 3600 + minutes * 60 + seconds + milliseconds / 1000)


def millis(amount: object, *, rounding: str = ROUND_CEILING) -> int | None:
    """An amount of money or credits, a number or its text, in thousandths; None where it is none.

    What is paid is rounded up, what is left (ROUND_FLOOR) is not.
    """
    if isinstance(amount, bool) or not isinstance(amount, (int, float, str, Decimal)):
        return None
    try:
        value = Decimal(str(amount))
    except InvalidOperation:
        return None
    if not value.is_finite() or abs(value) > 10**12:
        return None
    return int((value * 1000).to_integral_value(rounding))


def cost_millis(amount: object) -> int | None:
    """What a provider says that something cost, in thousandths, rounded up; None where that is not to be believed."""
    told = millis(amount)
    return told if told is not None and 0 <= told <= COST_LIMIT_MILLIS else None


def is_refusal(status: int) -> bool:
    """Whether a billable call that was answered so was certainly not taken: a time that ran out may have run out behind it."""
    return 400 <= status < 500 and status != 408


def by_status(answer: HttpAnswer, classes: Mapping[int, type[ProviderError]]) -> type[ProviderError] | None:
    """What a status alone says. A page for people with 403 is from a gate before the provider, which looks at requests.

    What one request looks like must not put an account out of service, nor every other that it is given to afterwards.
    """
    if answer.status == 403 and answer.body.lstrip()[:1] == b"<":
        return TransientFailure
    return classes.get(answer.status)


def unclear(answer: HttpAnswer, provider: str) -> ProviderError:
    """A billable call was answered with an error that nobody documents: what it did, nobody knows."""
    return SubmissionUnknown(f"{provider} answered {answer.status}", charged="maybe")


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _bounded(wait_s: float) -> float:
    return min(max(wait_s, 0.0), WAIT_LIMIT_S)
