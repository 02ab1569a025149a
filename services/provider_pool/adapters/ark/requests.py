"""Generations in Ark's words. Pure, but for reading the files that travel inside a request."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

from services.chassis.settings import Secret
from services.provider_pool.adapters import attempt_marks, mentions
from services.provider_pool.adapters.frames import Size
from services.provider_pool.adapters.interface import (
    AccountAccess,
    Generation,
    ModelSpec,
    Prepared,
    ReferenceFile,
    ReferenceRole,
)

MODEL_OPTION: Final = "model:"
"""Before a model's name: an account's option with the endpoint or model id that it is to be asked for under."""

# Volcengine sells the same models under names of its own, which the model file tells.
_VOLCENGINE: Final = ".volces.com"

# Older models take settings from the end of the text, long or short; what a customer writes is not to be one.
_SETTING: Final = re.compile(
    r"-{2,}(?=\s*(?:resolution|rs|ratio|rt|duration|dur|frames|framespersecond|fps|seed"
    r"|camera_?fixed|cf|watermark|wm|generate_?audio|draft)\b)",
    re.IGNORECASE,
)
_ROLES: Final[Mapping[ReferenceRole, tuple[str, str]]] = {
    ReferenceRole.IMAGE: ("image_url", "reference_image"),
    ReferenceRole.FIRST_FRAME: ("image_url", "first_frame"),
    ReferenceRole.LAST_FRAME: ("image_url", "last_frame"),
    ReferenceRole.AUDIO: ("audio_url", "reference_audio"),
}
# In data URLs the provider knows sounds by the ends of their files' names.
_DATA_TYPES: Final[Mapping[str, str]] = {"audio/mpeg": "audio/mp3", "audio/x-wav": "audio/wav"}
# The least that the provider takes; a task that waits for longer has lost its customer.
_EXPIRES_AFTER_S: Final = 3_600


def headers_of(account: AccountAccess) -> dict[str, str | Secret]:
    """The credentials."""
    return {"authorization": Secret(f"Bearer {account.secrets['api_key'].reveal()}")}


def upstream_of(spec: ModelSpec, account: AccountAccess) -> str:
    """The model's id there, or the account's own endpoint for it."""
    return account.options.get(f"{MODEL_OPTION}{spec.model}") or _name_of(spec, account)


def listed_as(spec: ModelSpec, account: AccountAccess) -> str:
    """What the account's tasks of a model are listed under; empty where an endpoint of its own hides that."""
    name = _name_of(spec, account)
    return name if upstream_of(spec, account) == name else ""


def body_of(generation: Generation, spec: ModelSpec, size: Size) -> dict[str, object]:
    """Everything that decides what comes out and what it costs, but for the references and what names the attempt."""
    body: dict[str, object] = {
        "model": spec.upstream,
        "content": [{"type": "text", "text": plain(mentions.in_words(generation))}],
        "resolution": size.resolution,
        "ratio": size.ratio,
        "duration": generation.duration_s,
        "watermark": generation.watermark,
        "generate_audio": generation.audio,
        "return_last_frame": generation.last_frame,
        "execution_expires_after": _EXPIRES_AFTER_S,
    }
    if generation.seed is not None:
        body["seed"] = generation.seed
    return body


def sent_body(
    prepared: Prepared, account: AccountAccess, reference: str, items: Sequence[object], callback_url: str
) -> dict[str, object]:
    """What goes over the wire: with the references, and with two marks by which the task can be found again."""
    text = prepared.body["content"]
    assert isinstance(text, list)
    body = {
        **prepared.body,
        "model": upstream_of(prepared.spec, account),
        "content": [*text, *items],
        "seed": seed_of(prepared.generation, reference),
        "safety_identifier": mark_of(reference),
    }
    return {**body, "callback_url": callback_url} if callback_url else body


def reference_items(references: Sequence[ReferenceFile]) -> list[object]:
    """The files as parts of the content. Blocks; raises OSError where a file is gone."""
    return [_item(file) for file in references]


def mark_of(reference: str) -> str:
    """A short name for an attempt that tells nobody else anything."""
    return hashlib.sha256(f"attempt {reference}".encode()).hexdigest()[:32]


def seed_of(generation: Generation, reference: str) -> int:
    """The seed that was wished for, or one that no other attempt is likely to have: the provider lists it."""
    if generation.seed is not None:
        return generation.seed
    return attempt_marks.seed_of(reference)


def plain(prompt: str) -> str:
    """The prompt without anything that older models would take for a setting."""
    return _SETTING.sub("–", prompt)


def _name_of(spec: ModelSpec, account: AccountAccess) -> str:
    host = urlsplit(account.options.get("base_url", "")).hostname or ""
    return str(spec.extras.get("volcengine", spec.upstream)) if host.endswith(_VOLCENGINE) else spec.upstream


def _item(file: ReferenceFile) -> dict[str, object]:
    kind, role = _ROLES[file.role]
    content_type = _DATA_TYPES.get(file.content_type, file.content_type)
    encoded = base64.b64encode(file.path.read_bytes()).decode()
    return {"type": kind, kind: {"url": f"data:{content_type};base64,{encoded}"}, "role": role}
