"""Generations in ElevenLabs' words: an address, what is asked in it, and a body. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from services.chassis.settings import Secret
from services.provider_pool.adapters import answer_reading as reading
from services.provider_pool.adapters.elevenlabs.answers import Item
from services.provider_pool.adapters.interface import (
    AccountAccess,
    Generation,
    InvalidRequest,
    Kind,
    ModelSpec,
    Prepared,
)

OFFICIAL: Final = "https://api.elevenlabs.io"

# Of the formats that are sold; the history may have another than what was answered with.
_CONTENT_TYPES: Final[Mapping[str, frozenset[str]]] = {
    "mp3": frozenset({"audio/mpeg", "audio/mp3"}),
    "wav": frozenset({"audio/wav", "audio/x-wav", "audio/wave"}),
}

# Written by people who want nobody to sing.
_INSTRUMENTAL: Final = re.compile(
    r"\binstrumental\b|\b(?:no|without) (?:vocals?|singing|lyrics)\b", re.IGNORECASE
)
_NOT_INSTRUMENTAL: Final = re.compile(r"\b(?:not|non|no)[ -]instrumental\b", re.IGNORECASE)


def body_of(generation: Generation, spec: ModelSpec) -> dict[str, object]:
    """What goes over the wire. The voice and the format are in the address: see `path_of` and `query_of`."""
    if generation.kind is Kind.VOICE:
        body: dict[str, object] = {"text": generation.prompt, "model_id": spec.upstream}
        if generation.seed is not None and spec.capability.seeds is not None:
            body["seed"] = generation.seed
        return body
    return {
        "prompt": generation.prompt,
        "music_length_ms": generation.duration_s * 1000,
        "model_id": spec.upstream,
        "force_instrumental": is_instrumental(generation.prompt),
    }


def is_instrumental(prompt: str) -> bool:
    """Whether the words ask for music that nobody sings to."""
    return bool(_INSTRUMENTAL.search(_NOT_INSTRUMENTAL.sub("", prompt)))


def path_of(generation: Generation, spec: ModelSpec, account: AccountAccess) -> str:
    """Below the account's address. The option `voice_<name>` puts a voice of the account's own in the place of the usual one."""
    if generation.kind is not Kind.VOICE:
        return "/v1/music"
    return f"/v1/text-to-speech/{quote(voice_of(generation, spec, account), safe='')}"


def voice_of(generation: Generation, spec: ModelSpec, account: AccountAccess) -> str:
    """The account's own, or the usual one."""
    return account.options.get(f"voice_{generation.voice}") or _of(spec, "voices", generation.voice)


def query_of(generation: Generation, spec: ModelSpec) -> list[tuple[str, str]]:
    """The format, said also where it is what is usual."""
    return [("output_format", _of(spec, "formats", generation.format))]


def is_this(item: Item, prepared: Prepared, account: AccountAccess) -> bool:
    """Whether the history's item is what was asked for, word for word, in a file of the format that was asked for."""
    generation, spec = prepared.generation, prepared.spec
    kind = (item.content_type or "").partition(";")[0].strip().lower()
    return (
        bool(reading.word(item.request_id))
        and item.state in (None, "created")
        and item.text == prepared.body["text"]
        and item.model_id == spec.upstream
        and item.voice_id == voice_of(generation, spec, account)
        and kind in _CONTENT_TYPES[generation.format or "mp3"]
    )


def file_name_of(generation: Generation) -> str:
    """What the output is kept as."""
    return f"0.{generation.format or 'mp3'}"


def headers_of(account: AccountAccess) -> dict[str, str | Secret]:
    """Credentials."""
    return {"xi-api-key": account.secrets["api_key"]}


def _of(spec: ModelSpec, table: str, name: str) -> str:
    words = spec.extras.get(table)
    found = words.get(name or "default") if isinstance(words, Mapping) else None
    if not isinstance(found, str):
        raise InvalidRequest(f"{spec.upstream} has no such word in its {table}")
    return found
