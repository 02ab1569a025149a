"""The JSON texts in an attempt's record, and back."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from services.provider_pool.adapters.interface import Generation, OutputRef, Role, TaskRef


@dataclass(frozen=True, slots=True)
class Stored:
    """One output in the media store. Pixels and length are 0 where the type has none."""

    role: Role
    object_key: str
    content_type: str
    size_bytes: int
    sha256: str
    width: int
    height: int
    duration_ms: int


_ENCODER: Final = msgspec.json.Encoder(order="deterministic")


def fingerprint(generation: Generation) -> str:
    """SHA-256, in hex, of everything that is asked for."""
    return hashlib.sha256(_ENCODER.encode(generation)).hexdigest()


def generation_text(generation: Generation) -> str:
    """With the prompt: for as long as the attempt may have to be looked for."""
    return _ENCODER.encode(generation).decode()


def without_prompt(text: str) -> str:
    """The same generation when nobody needs its words any more."""
    return generation_text(replace(read_generation(text), prompt=""))


def read_generation(text: str) -> Generation:
    return msgspec.json.decode(text, type=Generation)


def task_text(task: TaskRef) -> str:
    return _ENCODER.encode(task).decode()


def read_task(text: str) -> TaskRef:
    return msgspec.json.decode(text, type=TaskRef)


def outputs_text(outputs: Sequence[OutputRef]) -> str:
    return _ENCODER.encode(list(outputs)).decode()


def read_outputs(text: str) -> list[OutputRef]:
    return msgspec.json.decode(text, type=list[OutputRef])


def stored_text(stored: Sequence[Stored]) -> str:
    return _ENCODER.encode(list(stored)).decode()


def read_stored(text: str) -> list[Stored]:
    return msgspec.json.decode(text, type=list[Stored])
