"""Leonardo's answers: generations, uploads, balances, and errors in the pool's classes. Pure.

An error may come with status 200, as a list. No text of the provider's is repeated: it may quote a prompt.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from services.provider_pool.adapters import answer_reading as reading
from services.provider_pool.adapters.calls import FormPart, HttpAnswer
from services.provider_pool.adapters.interface import (
    AccountRestricted,
    AccountStatus,
    AuthFailed,
    ConcurrencyLimited,
    ContentBlocked,
    GenerationFailed,
    InsufficientBalance,
    InvalidRequest,
    Kind,
    ModelNotEnabled,
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


class Picture(msgspec.Struct, frozen=True):
    """One output of a generation; of a film, its still."""

    url: str | None = None
    motion: str | None = msgspec.field(default=None, name="motionMP4URL")


class Item(msgspec.Struct, frozen=True):
    """One generation, asked about by its id or found in the list."""

    id: str
    status: str
    created_at: str = msgspec.field(default="", name="createdAt")
    prompt: str | None = None
    model_id: str | None = msgspec.field(default=None, name="modelId")
    width: int | None = msgspec.field(default=None, name="imageWidth")
    height: int | None = msgspec.field(default=None, name="imageHeight")
    seed: object = None
    pictures: list[dict[str, Any]] | None = msgspec.field(default=None, name="generated_images")


class _Poll(msgspec.Struct, frozen=True):
    item: Item | None = msgspec.field(name="generations_by_pk")


class _List(msgspec.Struct, frozen=True):
    generations: list[object]


class _Cost(msgspec.Struct, frozen=True):
    amount: object = None
    unit: object = None


class _Begun(msgspec.Struct, frozen=True):
    id: str = msgspec.field(name="generationId")
    # What was taken is not given up for a price in another shape.
    cost: object = None
    tokens: object = msgspec.field(default=None, name="apiCreditCost")


class _Envelope(msgspec.Struct, frozen=True):
    first: _Begun | None = msgspec.field(default=None, name="sdGenerationJob")
    second: _Begun | None = msgspec.field(default=None, name="generate")


class _UploadForm(msgspec.Struct, frozen=True):
    id: str
    fields: str
    url: str


class _Upload(msgspec.Struct, frozen=True):
    form: _UploadForm = msgspec.field(name="uploadInitImage")


class User(msgspec.Struct, frozen=True):
    """Whose generations are listed."""

    id: str


class _Details(msgspec.Struct, frozen=True):
    user: User
    paid: float | None = msgspec.field(default=None, name="apiPaidTokens")
    subscribed: float | None = msgspec.field(default=None, name="apiSubscriptionTokens")
    slots: int | None = msgspec.field(default=None, name="apiConcurrencySlots")
    renews: str | None = msgspec.field(default=None, name="apiPlanTokenRenewalDate")


class _Me(msgspec.Struct, frozen=True):
    details: list[_Details] = msgspec.field(name="user_details")


class _Hook(msgspec.Struct, frozen=True):
    class Data(msgspec.Struct, frozen=True):
        object: dict[str, Any]

    data: Data


@dataclass(frozen=True, slots=True)
class Begun:
    """A generation that was taken. `cost_millis`: thousandths of a US dollar, None where no cost was told."""

    task_id: str
    cost_millis: int | None


# Texts of errors, lower-case, as far as they are documented; the first that is found in a message decides. They may quote a
# prompt: what puts an account out of service has to be what a text begins with.
_TEXTS: Final[tuple[tuple[re.Pattern[str], type[ProviderError]], ...]] = (
    (re.compile(r"^invalid response from authorization hook", re.MULTILINE), AuthFailed),
    (re.compile(r"^authentication hook unauthorized", re.MULTILINE), AuthFailed),
    (re.compile(r"^not enough api tokens", re.MULTILINE), InsufficientBalance),
    (re.compile(r"^\S+ is not supported within the production api", re.MULTILINE), ModelNotEnabled),
    (re.compile(r"inappropriate content|content moderation filter"), ContentBlocked),
    (re.compile(r"(?:prompt|image)_moderation_blocked"), ContentBlocked),
    (re.compile(r"invalid init image id|couldn't access image"), ReferenceRejected),
)
_CODES: Final[Mapping[str, type[ProviderError]]] = {
    "access-denied": AuthFailed,
    "validation-failed": InvalidRequest,
    "validation_error": InvalidRequest,
    "bad-request": InvalidRequest,
    "prompt_moderation_blocked": ContentBlocked,
    "image_moderation_blocked": ContentBlocked,
}
_STATUSES: Final[Mapping[int, type[ProviderError]]] = {
    401: AuthFailed,
    402: InsufficientBalance,
    403: AccountRestricted,
    429: RateLimited,
}


# A thousand million dollars.
_BALANCE_LIMIT_MILLIS: Final = 10**12
_UNFIT: Final = frozenset({400, 413, 415, 422})
_NOT_NOW: Final = frozenset({500, 503})
# Codes beside those that are known; of any other, nobody knows how far its request came.
_BAD: Final = re.compile(r"bad[-_]|invalid|validation")


def begun(answer: HttpAnswer, token_usd_micros: int) -> Begun:
    """What was begun, in any of the three documented shapes; a token is worth so many millionths of a dollar.

    Raises SubmissionUnknown where it is none of them.
    """
    told = _enveloped(answer) or reading.accepted(answer, _Begun)
    task_id = reading.task_id(told.id)
    cost = reading.shaped_value(told.cost, _Cost) if isinstance(told.cost, Mapping) else _Cost()
    if cost.unit == "DOLLARS":
        return Begun(task_id, reading.cost_millis(cost.amount))
    token_millis = reading.cost_millis(cost.amount if cost.unit == "CREDITS" else told.tokens)
    return Begun(task_id, None if token_millis is None else -(-token_millis * token_usd_micros // 1_000_000))


def is_error(answer: HttpAnswer) -> bool:
    """Whether something was refused, whatever the status says."""
    return answer.status != 200 or answer.body.lstrip()[:1] == b"["


def submit_error(answer: HttpAnswer, now_ms: int) -> ProviderError:
    """Why nothing was begun; where that is not certain, SubmissionUnknown."""
    code, message = _told(answer)
    known = _classified(answer, code, message, now_ms)
    if known is not None:
        return known
    if answer.status in _NOT_NOW and message.startswith("service error"):
        # The provider's own words for "not now". What stands before it does not know them, and may have let it through.
        return TransientFailure(_text(answer, code), retry_after_s=_wait_s(answer, now_ms))
    if answer.status < 400 and _BAD.match(code.lower()):
        return InvalidRequest(_text(answer, code))
    if not reading.is_refusal(answer.status):
        return SubmissionUnknown(_text(answer, code), charged="maybe")
    return InvalidRequest(_text(answer, code))


def read_error(answer: HttpAnswer, now_ms: int) -> ProviderError:
    """Why a question was not answered."""
    code, message = _told(answer)
    known = _classified(answer, code, message, now_ms)
    if known is not None and type(known) is not InvalidRequest:
        return known
    if answer.status == 404:
        return TaskNotFound("leonardo knows no such generation")
    if answer.status >= 500 or answer.status == 408:
        return TransientFailure(_text(answer, code), retry_after_s=_wait_s(answer, now_ms))
    return ProtocolViolation(_text(answer, code))


def upload_error(answer: HttpAnswer, now_ms: int) -> ProviderError:
    """Why a reference was not taken."""
    if answer.status in _UNFIT:
        return ReferenceRejected(_text(answer, _told(answer)[0]))
    return read_error(answer, now_ms)


def polled(answer: HttpAnswer) -> Item:
    """The generation that was asked about. Raises TaskNotFound, ProtocolViolation."""
    item = reading.shaped(answer, _Poll).item
    if item is None:
        raise TaskNotFound("leonardo knows no such generation")
    return item


def listed(answer: HttpAnswer) -> tuple[list[Item], int]:
    """A page of a user's generations, in the provider's order, and how many there are on it. Raises ProtocolViolation."""
    page = reading.shaped(answer, _List).generations
    return reading.readable(page, Item), len(page)


def snapshot(item: Item, kind: Kind, poll_after_ms: int, cost_millis: int | None) -> Snapshot:
    """Where a generation stands. It was paid for when it was begun; whether that comes back is not documented."""
    if item.status == "FAILED":
        error: ProviderError = GenerationFailed("leonardo: failed", charged="maybe")
        return Snapshot(TaskState.FAILED, cost_millis=cost_millis, error=error)
    if item.status != "COMPLETE":
        return Snapshot(TaskState.RUNNING, poll_after_ms=poll_after_ms)
    if not item.pictures:
        error = GenerationFailed("leonardo: complete without an output", charged="yes")
        return Snapshot(TaskState.FAILED, cost_millis=cost_millis, error=error)
    location = _location(item.pictures[0], kind)
    if location is None:
        error = ProtocolViolation("leonardo: complete, and no address of the output", charged="yes")
        return Snapshot(TaskState.FAILED, cost_millis=cost_millis, error=error)
    outputs = (OutputRef(Role.PRIMARY, location),)
    return Snapshot(TaskState.SUCCEEDED, 100, outputs=outputs, cost_millis=cost_millis)


def created_at_ms(item: Item) -> int | None:
    """When the generation was begun; None where that cannot be read. Times without a zone are UTC."""
    return _moment_ms(item.created_at)


def upload_form(answer: HttpAnswer, file: ReferenceFile, extension: str) -> tuple[str, str, list[FormPart]]:
    """The image's id, where its bytes go, and the form in which: the fields as they came, the file last."""
    form = reading.shaped(answer, _Upload).form
    try:
        fields = msgspec.json.decode(form.fields, type=dict[str, str])
    except msgspec.DecodeError:
        raise ProtocolViolation("leonardo: an upload form of another shape than documented") from None
    parts = [FormPart(name, value) for name, value in fields.items()]
    last = FormPart(
        "file", path=file.path, file_name=f"reference.{extension}", content_type=file.content_type
    )
    return form.id, form.url, [*parts, last]


def account_status(answer: HttpAnswer, token_usd_micros: int) -> AccountStatus:
    """Balance, slots and renewal; a token of the balance is worth so many millionths of a dollar."""
    told = _details(answer)
    known = [tokens for tokens in (told.paid, told.subscribed) if tokens is not None]
    micros = sum(known) * token_usd_micros
    if abs(micros) > _BALANCE_LIMIT_MILLIS * 1000:
        raise ProtocolViolation("leonardo: a balance that cannot be one")
    return AccountStatus(
        ok=True,
        balance_millis=int(micros) // 1000 if known else None,
        renews_at_ms=_moment_ms(told.renews or ""),
        concurrency_limit=told.slots,
    )


def user_id(answer: HttpAnswer) -> str:
    """Whose key it is. Raises ProtocolViolation."""
    found = reading.word(_details(answer).user.id)
    if not found:
        raise ProtocolViolation("leonardo: a user id of another shape than documented")
    return found


def hinted(body: bytes) -> str | None:
    """The generation that a webhook is about. The body has credentials in it, and nothing else of it is kept."""
    try:
        told = msgspec.json.decode(body, type=_Hook)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return reading.word(told.data.object.get("id")) or None


def _enveloped(answer: HttpAnswer) -> _Begun | None:
    envelope = reading.accepted(answer, _Envelope)
    return envelope.first or envelope.second


def _details(answer: HttpAnswer) -> _Details:
    details = reading.shaped(answer, _Me).details
    if not details:
        raise ProtocolViolation("leonardo: an account without details")
    return details[0]


def _location(told: Mapping[str, object], kind: Kind) -> str | None:
    picture = next(iter(reading.readable([told], Picture)), Picture())
    if kind is Kind.VIDEO:
        return picture.motion or None
    if kind is not Kind.MUSIC:
        return picture.url or None
    # Where a sound's address is found is not documented: in one of the known places, or in one that says so.
    named = [value for name, value in told.items() if "url" in name.lower() and "audio" in name.lower()]
    places = [*named, picture.motion, picture.url]
    return next((place for place in places if isinstance(place, str) and place), None)


def _told(answer: HttpAnswer) -> tuple[str, str]:
    """The code and the lower-case message of an error, as far as it has the documented shapes."""
    try:
        body = answer.json()
    except ProtocolViolation:
        return "", ""
    if isinstance(body, list):
        body = body[0] if body else {}
    if not isinstance(body, Mapping):
        return "", ""
    extensions = body.get("extensions")
    told = extensions if isinstance(extensions, Mapping) else {}
    details = told.get("details")
    texts = [body.get("error"), body.get("message"), told.get("message")]
    texts += [details.get("message")] if isinstance(details, Mapping) else [details]
    # A line for each text: a line of a prompt that is quoted in one is none of them.
    message = "\n".join(" ".join(text.split()) for text in texts if isinstance(text, str)).lower()
    return reading.word(body.get("code") or told.get("code")), message


def _classified(answer: HttpAnswer, code: str, message: str, now_ms: int) -> ProviderError | None:
    found = next((known for text, known in _TEXTS if text.search(message)), None)
    if found is None and answer.status == 429 and "concurren" in message:
        found = ConcurrencyLimited
    found = found or _CODES.get(code.lower()) or reading.by_status(answer, _STATUSES)
    return found(_text(answer, code), retry_after_s=_wait_s(answer, now_ms)) if found else None


def _text(answer: HttpAnswer, code: str) -> str:
    return f"leonardo answered {answer.status} {code}".rstrip()


def _wait_s(answer: HttpAnswer, now_ms: int) -> float | None:
    return reading.retry_after_s(answer.headers, now_ms)


def _moment_ms(text: str) -> int | None:
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        return None
    zoned = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    return int(zoned.timestamp() * 1000)
