"""The JSON texts in an attempt's record, and back."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec

from services.provider_pool.adapters.interface import (
    Generation,
    OutputRef,
    ReferenceFile,
    Role,
    TaskRef,
)


@dataclass(frozen=True, slots=True)
class Stored:
    """One output in the media store. Pixels and length are 0 where the type has none.

    `text` is what a written output says. It is never recorded: the store alone has it.
    """

    role: Role
    object_key: str
    content_type: str
    size_bytes: int
    sha256: str
    width: int
    height: int
    duration_ms: int
    text: str = field(default="", repr=False)


_ENCODER: Final = msgspec.json.Encoder(order="deterministic")
_AS_TOLD: Final = msgspec.json.Encoder()

# Fields that came after the first release, with what they are where nothing is said.
_ADDED: Final[Mapping[str, object]] = {
    "adaptive_ratio": False,
    "watermark": False,
    "last_frame": False,
    "voice": "",
    "format": "",
    "style": "",
    "max_words": 0,
}
_ADDED_TO_REFERENCES: Final[Mapping[str, object]] = {"role": "image"}
_ADDED_TO_LIMITS: Final[Mapping[str, object]] = {
    "videos": 0,
    "video_bytes": 0,
    "audios": 0,
    "audio_bytes": 0,
}


def fingerprint(generation: Generation, files: Sequence[ReferenceFile | None] = ()) -> str:
    """SHA-256, in hex, of everything that is asked for.

    `files`: one for each reference, None where it is not there. The same image under two names is the same question.
    """
    return hashlib.sha256(_AS_TOLD.encode(_first_edition(named_by_content(generation, files)))).hexdigest()


def _first_edition(generation: Generation) -> dict[str, Any]:
    # Without what was added since and is not asked for: the fingerprints in older records stay what they were.
    told: dict[str, Any] = msgspec.to_builtins(generation, order="deterministic")
    _drop(told, _ADDED)
    for reference in told["references"]:
        _drop(reference, _ADDED_TO_REFERENCES)
    if told["reference_limits"] is not None:
        _drop(told["reference_limits"], _ADDED_TO_LIMITS)
    return told


def _drop(told: dict[str, Any], added: Mapping[str, object]) -> None:
    for name, usual in added.items():
        if told[name] == usual:
            del told[name]


def named_by_content(generation: Generation, files: Sequence[ReferenceFile | None]) -> Generation:
    """The same generation with the hashes of its references in the place of their names, as far as they are there."""
    references = tuple(
        reference if file is None else replace(reference, url="", reference_id=file.sha256)
        for reference, file in zip(generation.references, files, strict=True)
    )
    return replace(generation, references=references)


def references_fingerprint(generation: Generation) -> str:
    """SHA-256, in hex, of the references and the limits they come under."""
    return hashlib.sha256(_ENCODER.encode([generation.references, generation.reference_limits])).hexdigest()


def generation_text(generation: Generation) -> str:
    """With the prompt and the URLs: for as long as the attempt may have to be looked for."""
    return _ENCODER.encode(generation).decode()


def without_prompt(text: str) -> str:
    """The same generation when nobody needs its words any more, nor the URLs, which may hold credentials."""
    generation = read_generation(text)
    references = tuple(replace(reference, url="") for reference in generation.references)
    return generation_text(replace(generation, prompt="", references=references))


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
    return _ENCODER.encode([replace(one, text="") for one in stored]).decode()


def read_stored(text: str) -> list[Stored]:
    return msgspec.json.decode(text, type=list[Stored])
