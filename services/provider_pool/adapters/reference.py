"""References as the pool and an adapter know them: what a generation names, what a storefront and a model take, what was made of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final


class Strength(StrEnum):
    """How closely the output follows a reference."""

    LOW = "low"
    MID = "mid"
    HIGH = "high"


class ReferenceRole(StrEnum):
    """What a reference is for."""

    IMAGE = "image"
    VIDEO = "video"
    AUDIO = "audio"
    FIRST_FRAME = "first_frame"
    LAST_FRAME = "last_frame"

    @property
    def medium(self) -> Medium:
        """What the reference is."""
        return _MEDIA.get(self, Medium.IMAGE)


class Medium(StrEnum):
    """What can be a reference."""

    IMAGE = "image"
    VIDEO = "video"
    AUDIO = "audio"


_MEDIA: Final[Mapping[ReferenceRole, Medium]] = {
    ReferenceRole.VIDEO: Medium.VIDEO,
    ReferenceRole.AUDIO: Medium.AUDIO,
}


@dataclass(frozen=True, slots=True)
class Reference:
    """A medium that the output is to follow, as the caller named it: one of `url` and `reference_id` is set."""

    strength: Strength = Strength.MID
    url: str = field(default="", repr=False)
    reference_id: str = ""
    role: ReferenceRole = ReferenceRole.IMAGE


@dataclass(frozen=True, slots=True)
class ReferenceLimits:
    """What the storefront takes as references.

    `image_bytes`, `video_bytes` and `audio_bytes` bound one file, `images`, `videos` and `audios` how many a request has.
    """

    image_formats: frozenset[str]
    image_bytes: int
    images: int
    first_frame_of_animations: bool = False
    videos: int = 0
    video_bytes: int = 0
    audios: int = 0
    audio_bytes: int = 0

    def bytes_of(self, medium: Medium) -> int:
        """How many bytes one file of this medium may have."""
        by_medium = {Medium.VIDEO: self.video_bytes, Medium.AUDIO: self.audio_bytes}
        return by_medium.get(medium, self.image_bytes)


@dataclass(frozen=True, slots=True)
class ReferenceFile:
    """A reference as a provider gets it: checked, rewritten, with its true type and size. Gone once its job has ended.

    A sound has no pixels, an image no duration: they are 0.
    """

    path: Path
    content_type: str
    size_bytes: int
    sha256: str
    width: int
    height: int
    strength: Strength
    role: ReferenceRole = ReferenceRole.IMAGE
    duration_ms: int = 0


@dataclass(frozen=True, slots=True)
class Range:
    """Whole numbers from `low` to `high`, both included, in steps from `low`."""

    low: int
    high: int
    step: int = 1

    def __contains__(self, value: int) -> bool:
        return self.low <= value <= self.high and (value - self.low) % self.step == 0


@dataclass(frozen=True, slots=True)
class ReferenceCapability:
    """How many references a model takes, of which sides in pixels, and of which length.

    `frames`: whether images may be the film's first and last frame; these count as images.
    """

    images: int = 0
    sides_px: Range = Range(1, 16_384)
    videos: int = 0
    video_sides_px: Range = Range(1, 4_096)
    audios: int = 0
    durations_ms: Range = Range(0, 60_500)
    frames: bool = False

    def takes(self, references: Sequence[Reference]) -> bool:
        """Whether the model takes so many of such roles."""
        counted = Counter(reference.role.medium for reference in references)
        framed = any(
            reference.role in (ReferenceRole.FIRST_FRAME, ReferenceRole.LAST_FRAME)
            for reference in references
        )
        return (
            counted[Medium.IMAGE] <= self.images
            and counted[Medium.VIDEO] <= self.videos
            and counted[Medium.AUDIO] <= self.audios
            and (self.frames or not framed)
        )

    def suits(self, file: ReferenceFile) -> bool:
        """Whether the model takes a file of this size and length."""
        match file.role.medium:
            case Medium.AUDIO:
                return file.duration_ms in self.durations_ms
            case Medium.VIDEO:
                sides_px = self.video_sides_px
                return (
                    file.width in sides_px
                    and file.height in sides_px
                    and file.duration_ms in self.durations_ms
                )
            case _:
                return file.width in self.sides_px and file.height in self.sides_px
