"""The bodies of webhooks: JSON documents with named places, filled in from a job. docs/WEBHOOKS.md lists the places.

What is filled in is text and never read again as a document, so nothing that a customer gave can become a place.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple, NoReturn

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from services.chassis.clock import rfc3339, rfc3339_s
from services.jobs.job import Job, JobState, Output
from services.jobs.webhooks.signatures import LegacySignature

DOCUMENT_LIMIT_BYTES: Final = 16 * 1024
_DEPTH_LIMIT: Final = 16
_KEPT: Final = "$"
_LEFT_OUT: Final = "$?"
_MEDIA: Final = "media:"
_ECHO: Final = "echo."
# What a blob that is no JSON raises, or JSON that is nested too deep: neither may keep a job from ending.
_UNREADABLE: Final = (msgspec.DecodeError, RecursionError)
_ROLES: Final[Mapping[str, int]] = {"primary": 1, "preview": 2, "last_frame": 3}


class Form(Struct, frozen=True):
    """How a storefront spells its webhooks. completed, failed: a JSON document each.

    failure_messages, failure_codes: by the number of the reason; 0 is for those that are not named.
    """

    storefront: str
    completed: str
    failed: str
    failure_messages: dict[int, str]
    failure_codes: dict[int, str]
    legacy: LegacySignature | None = None
    # What links to media begin with; empty: the service's own address.
    public_url: str = ""

    @property
    def form_id(self) -> str:
        """The same for the same content, and for no other."""
        return f"whf_{hashlib.sha256(self.encoded()).hexdigest()[:32]}"

    def encoded(self) -> bytes:
        """As it is stored: the same text for the same content."""
        in_order = {
            name: dict(sorted(getattr(self, name).items())) for name in ("failure_messages", "failure_codes")
        }
        return msgspec.json.encode(replace(self, **in_order))

    @classmethod
    def decoded(cls, text: str) -> Form:
        """What `encoded` made."""
        return msgspec.json.decode(text, type=cls)


class _Place(NamedTuple):
    name: str
    left_out: bool


_Node = dict[str, Any] | list[Any] | str | int | float | bool | None | _Place
Filled = list[str]
"""Text, object key, text, object key, …, text: a key stands where the signed link to it belongs."""


def read_document(text: str) -> dict[str, Any]:
    """A document, its places found. Raises ValueError with a sentence that says what is wrong."""
    if len(text.encode()) > DOCUMENT_LIMIT_BYTES:
        raise ValueError(f"is longer than {DOCUMENT_LIMIT_BYTES} bytes")
    try:
        read = json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError(f"is nested deeper than {_DEPTH_LIMIT}") from None
    except json.JSONDecodeError as fault:
        raise ValueError(f"is not JSON: {fault}") from None
    if not isinstance(read, dict):
        raise ValueError("is not an object")  # noqa: TRY004 - whatever is wrong with it, it is the document
    if _depth(read) > _DEPTH_LIMIT:
        raise ValueError(f"is nested deeper than {_DEPTH_LIMIT}")
    return read


# Two for each contract; nobody changes what was read.
_read = lru_cache(maxsize=128)(read_document)


def _object(members: list[tuple[str, Any]]) -> _Node:
    names = [name for name, _ in members]
    if len(set(names)) < len(names):
        raise ValueError("names a member twice")
    if not any(name.startswith("$") for name in names):
        return dict(members)
    if len(members) > 1 or names[0] not in {_KEPT, _LEFT_OUT}:
        raise ValueError("has a member beginning with $ that is no place: a place is alone in its object")
    name = members[0][1]
    if not isinstance(name, str) or not is_place(name):
        raise ValueError(f"names a place that there is not: {name!r}")
    return _Place(name, names[0] == _LEFT_OUT)


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"holds {word}, which is no JSON")


def _depth(node: _Node) -> int:
    if isinstance(node, _Place) or not isinstance(node, dict | list):
        return 1
    children = node.values() if isinstance(node, dict) else node
    return 1 + max(map(_depth, children), default=0)


def is_place(name: str) -> bool:
    """Whether there is a place of this name."""
    if name.startswith(_ECHO):
        return len(name) > len(_ECHO)
    return name in _VALUES or (name.removeprefix(_MEDIA) in _ROLES and name.startswith(_MEDIA))


def fill(form: Form, job: Job) -> Filled:
    """The body that tells of this job's end, with everything in it but the links to its media."""
    document = _read(form.completed if _ended_well(job) else form.failed)
    filled = [""]
    for piece in _pieces(document, form, job):
        if isinstance(piece, str):
            filled[-1] += piece
        else:
            filled += [piece.object_key, ""]
    return filled


def with_links(filled: Filled, link: Callable[[str], str]) -> bytes:
    """The whole body, each object key replaced by its link."""
    texts = (_text(link(piece)) if place % 2 else piece for place, piece in enumerate(filled))
    return "".join(texts).encode()


def _pieces(node: _Node, form: Form, job: Job) -> Iterator[str | Output]:
    if isinstance(node, _Place):
        yield _value(node.name, form, job) or "null"
    elif isinstance(node, dict):
        yield "{"
        yield from _members(node, form, job)
        yield "}"
    elif isinstance(node, list):
        yield "["
        kept = [item for item in node if not _is_left_out(item, form, job)]
        for number, item in enumerate(kept):
            yield "," if number else ""
            yield from _pieces(item, form, job)
        yield "]"
    else:
        yield _text(node)


def _members(members: Mapping[str, _Node], form: Form, job: Job) -> Iterator[str | Output]:
    kept = {name: node for name, node in members.items() if not _is_left_out(node, form, job)}
    for number, (name, node) in enumerate(kept.items()):
        yield f"{',' if number else ''}{_text(name)}:"
        yield from _pieces(node, form, job)


def _is_left_out(node: _Node, form: Form, job: Job) -> bool:
    return isinstance(node, _Place) and node.left_out and _value(node.name, form, job) is None


def _value(name: str, form: Form, job: Job) -> str | Output | None:
    """The JSON text of a place, an output where its link belongs, or None where there is no value."""
    if name.startswith(_MEDIA):
        return _output(job, _ROLES[name.removeprefix(_MEDIA)])
    if name.startswith(_ECHO):
        return _echoed(job).get(name.removeprefix(_ECHO))
    return _VALUES[name](form, job)


def _output(job: Job, role: int) -> Output | None:
    if not _ended_well(job):
        return None
    return next((output for output in job.outputs if output.role == role), None)


def _ended_well(job: Job) -> bool:
    return job.state is JobState.COMPLETED


def _echoed(job: Job) -> dict[str, str]:
    """The members of the blob that the storefront wanted back, each as the text it was; none where it is no object."""
    try:
        members = msgspec.json.decode(job.echo or "{}", type=dict[str, msgspec.Raw])
    except _UNREADABLE:
        return {}
    return {name: bytes(raw).decode() for name, raw in members.items()}


def _whole_echo(form: Form, job: Job) -> str | None:
    try:
        return bytes(msgspec.json.decode(job.echo, type=msgspec.Raw)).decode() if job.echo else None
    except _UNREADABLE:
        return None


_Value = Callable[[Form, Job], str | None]


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _some(value: str | int) -> str | None:
    return _text(value) if value else None


def _of_job(read: Callable[[Job], str | int]) -> _Value:
    return lambda form, job: _some(read(job))


def _of_primary(read: Callable[[Output], str | int]) -> _Value:
    def value(form: Form, job: Job) -> str | None:
        primary = _output(job, _ROLES["primary"])
        return None if primary is None else _some(read(primary))

    return value


def _duration(form: Form, job: Job) -> str | None:
    primary = _output(job, _ROLES["primary"])
    return _decimal(primary.duration_ms) if primary is not None and primary.duration_ms else None


def _failed_with(table: Callable[[Form], Mapping[int, str]]) -> _Value:
    def value(form: Form, job: Job) -> str | None:
        words = table(form)
        found = words.get(int(job.failure), words.get(0, ""))
        return None if _ended_well(job) else _some(found)

    return value


def _decimal(thousandths: int) -> str:
    """12.0, 12.5, 12.345."""
    whole, rest = divmod(thousandths, 1000)
    return f"{whole}.{f'{rest:03d}'.rstrip('0') or '0'}"


def _credits(thousandths: int) -> str:
    """12 where it is whole, else 12.5."""
    return _decimal(thousandths).removesuffix(".0")


def _moments(name: str, read: Callable[[Job], int]) -> Iterable[tuple[str, _Value]]:
    yield name, lambda form, job: _text(rfc3339(read(job))) if read(job) else None
    yield f"{name}_s", lambda form, job: _text(rfc3339_s(read(job))) if read(job) else None
    yield f"{name}_ms", lambda form, job: _some(read(job))


def _amounts(name: str, read: Callable[[Job], int]) -> Iterable[tuple[str, _Value]]:
    yield name, lambda form, job: _credits(read(job))
    yield f"{name}_decimal", lambda form, job: _decimal(read(job))


_VALUES: Final[Mapping[str, _Value]] = {
    "job_id": _of_job(lambda job: job.job_id),
    # 32 hexadecimal digits, the same at every attempt.
    "trace_id": _of_job(lambda job: hashlib.blake2b(job.job_id.encode(), digest_size=16).hexdigest()),
    "public_number": _of_job(lambda job: job.public_number),
    "public_model": _of_job(lambda job: job.public_model),
    "model": _of_job(lambda job: job.generation.model),
    "kind": _of_job(lambda job: job.generation.kind.name.lower()),
    "project_id": _of_job(lambda job: job.project_id),
    "echo": _whole_echo,
    "progress": lambda form, job: _text(job.progress),
    **dict(_moments("created_at", lambda job: job.created_at_ms)),
    **dict(_moments("updated_at", lambda job: job.updated_at_ms)),
    **dict(_moments("ended_at", lambda job: job.ended_at_ms)),
    **dict(_amounts("quoted_credits", lambda job: job.quoted_millis)),
    **dict(_amounts("charged_credits", lambda job: job.charged_millis)),
    **dict(_amounts("refunded_credits", lambda job: job.refunded_millis)),
    "failure_message": _failed_with(lambda form: form.failure_messages),
    "failure_code": _failed_with(lambda form: form.failure_codes),
    "width": _of_primary(lambda output: output.width),
    "height": _of_primary(lambda output: output.height),
    "duration_s": _duration,
    "content_type": _of_primary(lambda output: output.content_type),
    "text": _of_primary(lambda output: output.text),
}
PLACES: Final = frozenset(_VALUES) | {f"{_MEDIA}{role}" for role in _ROLES}
"""Every name but those of `echo.<name>`."""
