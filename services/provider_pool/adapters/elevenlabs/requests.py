"""Generations in ElevenLabs' words: an address, what is asked in it, and a body. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from services.chassis.settings import Secret
from services.provider_pool.adapters.interface import (
    AccountAccess,
    Generation,
    InvalidRequest,
    Kind,
    ModelSpec,
)

OFFICIAL: Final = "https://api.elevenlabs.io"

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
    voice = account.options.get(f"voice_{generation.voice}") or _of(spec, "voices", generation.voice)
    return f"/v1/text-to-speech/{quote(voice, safe='')}"


def query_of(generation: Generation, spec: ModelSpec) -> list[tuple[str, str]]:
    """The format, said also where it is what is usual."""
    return [("output_format", _of(spec, "formats", generation.format))]


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
