"""What is to be made, in Atelier's own words; no contract's and no provider's."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from services.provider_pool.adapters.reference import Reference, ReferenceLimits


class Kind(StrEnum):
    """What comes out of a generation."""

    IMAGE = "image"
    VIDEO = "video"
    VOICE = "voice"
    MUSIC = "music"
    INFOGRAPHIC = "infographic"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Generation:
    """What is to be made, in Atelier's own words; no contract's and no provider's."""

    kind: Kind
    model: str
    prompt: str = field(repr=False)
    width: int = 0
    height: int = 0
    duration_s: int = 0
    audio: bool = False
    quality: str = ""
    seed: int | None = None
    references: tuple[Reference, ...] = ()
    reference_limits: ReferenceLimits | None = None
    adaptive_ratio: bool = False
    watermark: bool = False
    last_frame: bool = False
    voice: str = ""
    format: str = ""
    style: str = ""
    max_words: int = 0
