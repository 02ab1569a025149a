"""Requests as they come in: every field checked, then in the service's own types. Raises INVALID_REQUEST, naming the field."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from services.chassis.settings import Secret
from services.gen.provider_pool.v1 import provider_pool_pb2 as pb
from services.provider_pool import errors
from services.provider_pool.accounts import registry as accounts
from services.provider_pool.adapters.interface import Generation, Kind
from services.provider_pool.attempts.states import AttemptState
from services.provider_pool.media.object_keys import is_ours
from services.provider_pool.references import requests
from services.provider_pool.selection.pool import AccountState, Mode

_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,100}")
_ATTEMPT_ID: Final = re.compile(r"([A-Za-z0-9_-]{1,100}):[0-9]{1,6}")
_NAME: Final = re.compile(r"[A-Za-z0-9_.:/-]{1,100}")
_LABEL: Final = re.compile(r"[^\x00-\x1f\x7f]{1,100}")

PROMPT_LIMIT_CHARACTERS: Final = 100_000
"""Above every model's own limit; beyond it a prompt is an attack on the database."""

TTL_LIMIT_MS: Final = 3_600_000
"""A lease that nobody renews for an hour has no owner."""

MAX_AGE_LIMIT_MS: Final = 3_600_000
AMOUNT_LIMIT_MILLIS: Final = 10**15
COUNT_LIMIT: Final = 1_000_000
IDS_LIMIT: Final = 10_000
POLLED_LIMIT: Final = 1_000
MAX_WAIT_LIMIT_MS: Final = 10_000
PAIRS_LIMIT: Final = 50
VALUE_LIMIT_CHARACTERS: Final = 10_000
HINT_LIMIT_BYTES: Final = 1024 * 1024
HINT_HEADERS_LIMIT: Final = 100
PAGE: Final = 100
PAGE_LIMIT: Final = 1_000

MODES: Final[Mapping[pb.Mode.ValueType, Mode]] = {pb.MODE_LIVE: Mode.LIVE, pb.MODE_TEST: Mode.TEST}
KINDS: Final[Mapping[pb.Kind.ValueType, Kind]] = {
    pb.KIND_IMAGE: Kind.IMAGE,
    pb.KIND_VIDEO: Kind.VIDEO,
    pb.KIND_VOICE: Kind.VOICE,
    pb.KIND_MUSIC: Kind.MUSIC,
    pb.KIND_INFOGRAPHIC: Kind.INFOGRAPHIC,
    pb.KIND_TEXT: Kind.TEXT,
}
ACCOUNT_STATES: Final[Mapping[pb.AccountState.ValueType, AccountState]] = {
    pb.ACCOUNT_STATE_ACTIVE: AccountState.ACTIVE,
    pb.ACCOUNT_STATE_DRAINING: AccountState.DRAINING,
    pb.ACCOUNT_STATE_DISABLED: AccountState.DISABLED,
}
ATTEMPT_STATES: Final[Mapping[pb.AttemptState.ValueType, AttemptState]] = {
    pb.ATTEMPT_STATE_SUBMITTING: AttemptState.SUBMITTING,
    pb.ATTEMPT_STATE_UNKNOWN: AttemptState.UNKNOWN,
    pb.ATTEMPT_STATE_RUNNING: AttemptState.RUNNING,
    pb.ATTEMPT_STATE_SUCCEEDED: AttemptState.SUCCEEDED,
    pb.ATTEMPT_STATE_FAILED: AttemptState.FAILED,
    pb.ATTEMPT_STATE_ABANDONED: AttemptState.ABANDONED,
}

_PLAIN: Final = frozenset({"priority", "serves_live", "serves_test"})
_BOUNDS: Final[Mapping[str, tuple[int, int]]] = {
    "concurrency_limit": (0, COUNT_LIMIT),
    "balance_millis": (-AMOUNT_LIMIT_MILLIS, AMOUNT_LIMIT_MILLIS),
    "renews_at_ms": (0, AMOUNT_LIMIT_MILLIS),
    "weight": (1, COUNT_LIMIT),
}


def attempt_id(value: str, field: str = "attempt_id") -> str:
    """`<job_id>:<n>`."""
    if not _ATTEMPT_ID.fullmatch(value):
        raise errors.invalid_request(field, "must be '<job_id>:<n>'")
    return value


def attempt_of_job(attempt: str, job: str) -> tuple[str, str]:
    """The two ids, which must belong together."""
    found = _ATTEMPT_ID.fullmatch(attempt)
    if found is None:
        raise errors.invalid_request("attempt_id", "must be '<job_id>:<n>'")
    if found[1] != job:
        raise errors.invalid_request("job_id", "must be the job of the attempt")
    return attempt, job


def attempt_ids(values: Iterable[str]) -> list[str]:
    """A bounded number of attempts."""
    listed = [attempt_id(value, "attempt_ids") for value in values]
    if len(listed) > IDS_LIMIT:
        raise errors.invalid_request("attempt_ids", f"holds more than {IDS_LIMIT}")
    return listed


def polled_ids(values: Sequence[str]) -> list[str]:
    """Attempts that are asked about together."""
    if len(values) > POLLED_LIMIT:
        raise errors.invalid_request("attempt_ids", f"holds more than {POLLED_LIMIT}")
    return [attempt_id(value, "attempt_ids") for value in values]


def closed_ids(values: Iterable[str]) -> list[str]:
    """As many attempts as a page of them holds."""
    listed = attempt_ids(values)
    if len(listed) > PAGE_LIMIT:
        raise errors.invalid_request("attempt_ids", f"holds more than {PAGE_LIMIT}")
    return listed


def object_keys(values: Sequence[str]) -> list[str]:
    """Outputs in the media store, by the keys that it gives them."""
    if len(values) > PAGE_LIMIT:
        raise errors.invalid_request("object_keys", f"holds more than {PAGE_LIMIT}")
    for value in values:
        if not is_ours(value):
            raise errors.invalid_request("object_keys", "holds one that is no output's")
    return list(dict.fromkeys(values))


def account_id(value: str) -> str:
    """An id of ours."""
    if not _ID.fullmatch(value):
        raise errors.invalid_request("account_id", "is not an account's id")
    return value


def account_ids(values: Iterable[str]) -> frozenset[str]:
    """A bounded number of accounts."""
    listed = frozenset(account_id(value) for value in values)
    if len(listed) > COUNT_LIMIT:
        raise errors.invalid_request("avoid_account_ids", "holds too many")
    return listed


def mode(value: pb.Mode.ValueType) -> Mode:
    """The wallet."""
    if value not in MODES:
        raise errors.invalid_request("mode", "must be live or test")
    return MODES[value]


def ttl_ms(value: int) -> int:
    """How long a lease lives."""
    return number("ttl_ms", value, 1, TTL_LIMIT_MS)


def max_age_ms(value: int) -> int:
    """How old an answer may be."""
    return number("max_age_ms", value, 0, MAX_AGE_LIMIT_MS)


def max_wait_s(value_ms: int) -> float:
    """How long providers are waited for, in seconds."""
    return number("max_wait_ms", value_ms, 0, MAX_WAIT_LIMIT_MS) / 1000


def generation(message: pb.Generation) -> Generation:
    """What is to be made; whether any provider can make it is the catalog's to say."""
    if message.kind not in KINDS:
        raise errors.invalid_request("generation.kind", "is missing")
    if len(message.prompt) > PROMPT_LIMIT_CHARACTERS or "\x00" in message.prompt:
        raise errors.invalid_request("generation.prompt", "is too long or holds a NUL")
    if len(message.quality) > 100:
        raise errors.invalid_request("generation.quality", "is too long")
    references, limits = requests.references(message)
    return Generation(
        kind=KINDS[message.kind],
        model=name("generation.model", message.model),
        prompt=message.prompt,
        width=message.width,
        height=message.height,
        duration_s=message.duration_s,
        audio=message.audio,
        quality=message.quality,
        seed=message.seed if message.HasField("seed") else None,
        references=references,
        reference_limits=limits,
        adaptive_ratio=message.adaptive_ratio,
        watermark=message.watermark,
        last_frame=message.last_frame,
        voice=word("generation.voice", message.voice),
        format=word("generation.format", message.format),
        style=word("generation.style", message.style),
        max_words=message.max_words,
    )


def new_account(request: pb.CreateAccountRequest) -> accounts.Terms:
    """What the operator sets of a new account. No weight is the weight of one; no limit is what the provider says."""
    return accounts.Terms(
        state=AccountState.ACTIVE,
        models=_models(request.models),
        serves_live=request.serves_live,
        serves_test=request.serves_test,
        concurrency_limit=number("concurrency_limit", request.concurrency_limit, 0, COUNT_LIMIT),
        balance_millis=_amount(request.balance_millis),
        renews_at_ms=number("renews_at_ms", request.renews_at_ms, 0, AMOUNT_LIMIT_MILLIS),
        priority=request.priority,
        weight=number("weight", request.weight, 0, COUNT_LIMIT) or 1,
        options=pairs("options", request.options),
    )


def account_changes(request: pb.UpdateAccountRequest) -> accounts.Terms:
    """What the operator changes of an account."""
    # Every field but the id has presence: a field that is set to its zero value is listed all the same.
    given = {field.name for field, _ in request.ListFields()}
    changes: dict[str, Any] = {field: getattr(request, field) for field in given & _PLAIN}
    for field, (lowest, highest) in _BOUNDS.items():
        if field in given:
            changes[field] = number(field, getattr(request, field), lowest, highest)
    if "state" in given:
        if request.state not in ACCOUNT_STATES:
            raise errors.invalid_request("state", "must be active, draining or disabled")
        changes["state"] = ACCOUNT_STATES[request.state]
    if "models" in given:
        changes["models"] = _models(request.models.models)
    if "options" in given:
        changes["options"] = pairs("options", request.options.options)
    return accounts.Terms(**changes)


def credentials(values: Mapping[str, str]) -> dict[str, Secret]:
    """Wrapped before anything else can print them."""
    return {key: Secret(value) for key, value in pairs("credentials", values).items()}


def label(value: str) -> str:
    """The operator's own name for an account."""
    if not _LABEL.fullmatch(value.strip()):
        raise errors.invalid_request("label", "must be 1 to 100 printable characters")
    return value.strip()


def name(field: str, value: str) -> str:
    """A model or a provider."""
    if not _NAME.fullmatch(value):
        raise errors.invalid_request(field, "must be 1 to 100 letters, digits or any of _.:/-")
    return value


def word(field: str, value: str) -> str:
    """One of the few words that a model knows, or none; which of them are good is the catalog's to say."""
    return name(field, value) if value else ""


def number(field: str, value: int, lowest: int, highest: int) -> int:
    """A whole number within bounds."""
    if not lowest <= value <= highest:
        raise errors.invalid_request(field, f"must be {lowest} to {highest}")
    return value


def pairs(field: str, values: Mapping[str, str]) -> dict[str, str]:
    """A bounded map of short texts."""
    if len(values) > PAIRS_LIMIT:
        raise errors.invalid_request(field, f"holds more than {PAIRS_LIMIT} entries")
    for key, value in values.items():
        # The value is not repeated: it may be a credential.
        if not _NAME.fullmatch(key) or len(value) > VALUE_LIMIT_CHARACTERS or "\x00" in value:
            raise errors.invalid_request(field, "holds a name or a value that cannot be used")
    return dict(values)


def page(limit: int) -> int:
    """How many to list."""
    return min(limit, PAGE_LIMIT) or PAGE


def attempt_state(value: pb.AttemptState.ValueType) -> AttemptState | None:
    """A state to list, or None for all."""
    return ATTEMPT_STATES.get(value)


def after(value: str) -> str:
    """Where a list goes on: empty, or the last id of the page before."""
    return value if not value else attempt_id(value, "after_attempt_id")


def job_id(value: str) -> str:
    """A job, or empty for all."""
    if value and not _ID.fullmatch(value):
        raise errors.invalid_request("job_id", "is not a job's id")
    return value


def _amount(value: int) -> int:
    return number("balance_millis", value, -AMOUNT_LIMIT_MILLIS, AMOUNT_LIMIT_MILLIS)


def _models(values: Iterable[str]) -> frozenset[str]:
    listed = frozenset(name("models", value) for value in values)
    if len(listed) > COUNT_LIMIT:
        raise errors.invalid_request("models", "holds too many")
    return listed


def hint(request: pb.TakeHintRequest) -> tuple[dict[str, str], bytes]:
    """The headers and the body of what a provider sent, by lower-case names."""
    if len(request.headers) > HINT_HEADERS_LIMIT:
        raise errors.invalid_request("headers", f"must be at most {HINT_HEADERS_LIMIT}")
    if len(request.body) > HINT_LIMIT_BYTES:
        raise errors.invalid_request("body", f"must have at most {HINT_LIMIT_BYTES} bytes")
    return {name.lower(): value for name, value in request.headers.items()}, request.body
