"""ElevenLabs' answers: what a result cost, what an account has left, and errors in the pool's classes. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final

import msgspec

from services.provider_pool.adapters import answer_reading as reading
from services.provider_pool.adapters.calls import HttpAnswer
from services.provider_pool.adapters.interface import (
    AccountRestricted,
    AccountStatus,
    AuthFailed,
    ConcurrencyLimited,
    ContentBlocked,
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

# Credits, or seconds of some thirty thousand years.
_NUMBER_LIMIT: Final = 10**12


class _Subscription(msgspec.Struct):
    tier: str
    character_count: int
    character_limit: int
    next_character_count_reset_unix: int | None = None
    status: str = "active"


class Item(msgspec.Struct, frozen=True):
    """Something that was spoken. `request_id`: of the request that it was the answer to."""

    id: str = msgspec.field(name="history_item_id")
    date_s: Annotated[int, msgspec.Meta(ge=0, le=_NUMBER_LIMIT)] = msgspec.field(name="date_unix")
    text: str | None = None
    voice_id: str | None = None
    model_id: str | None = None
    request_id: str | None = None
    content_type: str | None = None
    state: str | None = None
    characters_before: int | None = msgspec.field(default=None, name="character_count_change_from")
    characters_after: int | None = msgspec.field(default=None, name="character_count_change_to")


class _History(msgspec.Struct, frozen=True):
    history: list[object]
    last_id: str | None = msgspec.field(default=None, name="last_history_item_id")
    has_more: bool = False


_BY_WORD: Final[Mapping[str, type[ProviderError]]] = {
    "invalid_api_key": AuthFailed,
    "missing_permissions": AuthFailed,
    "needs_authorization": AuthFailed,
    # An empty purse is a 401 here.
    "quota_exceeded": InsufficientBalance,
    "payment_required": InsufficientBalance,
    "insufficient_credits": InsufficientBalance,
    "detected_unusual_activity": AccountRestricted,
    # Voices belong to accounts: another one may have it.
    "voice_not_found": ModelNotEnabled,
    "model_not_found": ModelNotEnabled,
    "max_character_limit_exceeded": InvalidRequest,
    "invalid_parameters": InvalidRequest,
    "bad_prompt": ContentBlocked,
    "bad_composition_plan": ContentBlocked,
    "content_policy_violation": ContentBlocked,
    "content_against_policy": ContentBlocked,
    "concurrent_limit_exceeded": ConcurrencyLimited,
    "too_many_concurrent_requests": ConcurrencyLimited,
    "rate_limit_exceeded": RateLimited,
    "system_busy": Overloaded,
}
_BY_STATUS: Final[Mapping[int, type[ProviderError]]] = {
    401: AuthFailed,
    402: InsufficientBalance,
    403: AccountRestricted,
    429: RateLimited,
}
# Their words for a content that they do not want change, and none of them is about the account.
_CONTENT: Final = re.compile(r"moderat|violat|content_(?:policy|against|block|filter)")
_REFUSED: Final = frozenset({400, 403, 422})
_PAYS: Final = frozenset({"active", "trialing", "free"})
# Requests at once, by plan; headers tell it only in answers that are paid for.
_CONCURRENCY: Final[Mapping[str, int]] = {
    "free": 2,
    "starter": 3,
    "creator": 5,
    "pro": 10,
    "scale": 15,
    "business": 15,
}


def sound(answer: HttpAnswer) -> bytes:
    """The sound of an answer of 200. Raises SubmissionUnknown where there is none: it is paid for all the same."""
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not answer.body or not (kind.startswith("audio/") or kind in ("", "application/octet-stream")):
        raise SubmissionUnknown("elevenlabs answered without a sound", charged="maybe")
    return answer.body


def cost_millis(answer: HttpAnswer) -> int | None:
    """Thousandths of a credit, where the answer tells."""
    return reading.cost_millis(answer.headers.get("character-cost"))


def request_id(answer: HttpAnswer) -> str:
    """What the request is called in the history; empty where the answer does not tell."""
    return reading.word(answer.headers.get("request-id"))


def history(answer: HttpAnswer) -> tuple[list[Item], str | None]:
    """A page of what was spoken, and behind which item the next begins. Raises ProtocolViolation."""
    page = reading.shaped(answer, _History)
    items = [item for item in reading.readable(page.history, Item) if reading.word(item.id)]
    return items, reading.word(page.last_id) or None if page.has_more else None


def is_since(item: Item, since_ms: int) -> bool:
    """Whether it may have been spoken since then: its date is in whole seconds."""
    return (item.date_s + 1) * 1000 > since_ms


def cost_of(item: Item) -> int | None:
    """Thousandths of a credit, where the item tells."""
    if item.characters_before is None or item.characters_after is None:
        return None
    return reading.cost_millis(item.characters_after - item.characters_before) or None


def is_not_permitted(answer: HttpAnswer) -> bool:
    """Whether the key may do other things, and not this."""
    return answer.status in (401, 403) and "missing_permissions" in _words(answer)


def subscription(answer: HttpAnswer) -> AccountStatus:
    """What is left of the plan. Raises ProtocolViolation."""
    told = reading.shaped(answer, _Subscription)
    renews_at_s = told.next_character_count_reset_unix
    if max(abs(told.character_limit), abs(told.character_count), renews_at_s or 0) > _NUMBER_LIMIT:
        raise ProtocolViolation("elevenlabs: a subscription that cannot be one")
    return AccountStatus(
        ok=told.status in _PAYS,
        balance_millis=(told.character_limit - told.character_count) * 1000,
        detail=f"plan {reading.word(told.tier)}, {reading.word(told.status)}",
        renews_at_ms=None if renews_at_s is None else renews_at_s * 1000,
        concurrency_limit=_CONCURRENCY.get(told.tier),
    )


def submit_error(answer: HttpAnswer, now_ms: int) -> ProviderError:
    """What the answer to a billable call that was not taken says."""
    found = _classified(answer, now_ms)
    # Of a server that failed, only that it was too busy to begin is believed.
    if found is not None and (reading.is_refusal(answer.status) or isinstance(found, Overloaded)):
        return found
    if reading.is_refusal(answer.status):
        return InvalidRequest(_described(answer))
    return reading.unclear(answer, "elevenlabs")


def read_error(answer: HttpAnswer, now_ms: int) -> ProviderError:
    """What an error says in answer to a call that costs nothing."""
    found = _classified(answer, now_ms)
    if found is not None:
        return found
    described = _described(answer)
    return TransientFailure(described) if answer.status >= 500 else ProtocolViolation(described)


def _classified(answer: HttpAnswer, now_ms: int) -> ProviderError | None:
    known = (_BY_WORD[told] for told in _words(answer) if told in _BY_WORD)
    kind = next(known, None)
    if kind is None and answer.status in _REFUSED and any(map(_CONTENT.search, _words(answer))):
        kind = ContentBlocked
    kind = kind or reading.by_status(answer, _BY_STATUS)
    if kind is None:
        return None
    if issubclass(kind, RateLimited | Overloaded):
        return kind(_described(answer), retry_after_s=reading.retry_after_s(answer.headers, now_ms))
    return kind(_described(answer))


def _words(answer: HttpAnswer) -> list[str]:
    """What the error is called: by today's name, by the older one, by its type."""
    try:
        body = answer.json()
    except ProtocolViolation:
        return []
    detail = body.get("detail") if isinstance(body, dict) else None
    if not isinstance(detail, dict):
        return []
    return [told for told in (reading.word(detail.get(key)) for key in ("code", "status", "type")) if told]


def _described(answer: HttpAnswer) -> str:
    # Their messages may quote the text and the key; their words do not.
    return " ".join((f"elevenlabs answered {answer.status}", *_words(answer)))
