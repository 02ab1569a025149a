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
    `total`: of all media together; the other numbers that are 0 by default bound nothing then.
    `videos_total_ms`, `audios_total_ms`: what all videos, all sounds may last together.
    `ratios_percent`: of an image, its width in hundredths of its height. `video_pixels`: of a frame, all of them.
    `video_types`, `audio_types`: content types; none for any.
    """

    images: int = 0
    sides_px: Range = Range(1, 16_384)
    videos: int = 0
    video_sides_px: Range = Range(1, 4_096)
    audios: int = 0
    durations_ms: Range = Range(0, 60_500)
    frames: bool = False
    total: int = 0
    frames_exclude_references: bool = False
    last_needs_first: bool = False
    audio_needs_picture: bool = False
    videos_total_ms: int = 0
    audios_total_ms: int = 0
    ratios_percent: Range | None = None
    image_bytes: int = 0
    video_bytes: int = 0
    audio_bytes: int = 0
    total_bytes: int = 0
    video_types: frozenset[str] = frozenset()
    audio_types: frozenset[str] = frozenset()
    video_pixels: Range | None = None

    def takes(self, references: Sequence[Reference]) -> bool:
        """Whether the model takes so many of such roles."""
        if not references:
            return True
        roles = Counter(reference.role for reference in references)
        media = Counter(reference.role.medium for reference in references)
        framed = roles[ReferenceRole.FIRST_FRAME] + roles[ReferenceRole.LAST_FRAME]
        return (
            media[Medium.IMAGE] <= self.images
            and media[Medium.VIDEO] <= self.videos
            and media[Medium.AUDIO] <= self.audios
            and (not self.total or len(references) <= self.total)
            and (self.frames or not framed)
            and not (self.frames_exclude_references and framed and framed < len(references))
            and not (
                self.last_needs_first and roles[ReferenceRole.LAST_FRAME] > roles[ReferenceRole.FIRST_FRAME]
            )
            and not (self.audio_needs_picture and media[Medium.AUDIO] == len(references))
        )

    def suit(self, files: Sequence[ReferenceFile]) -> bool:
        """Whether the model takes each of these files, and all of them together."""
        lasting = Counter[Medium]()
        for file in files:
            lasting[file.role.medium] += file.duration_ms
        return (
            all(map(self.suits, files))
            and _at_most(sum(file.size_bytes for file in files), self.total_bytes)
            and (not self.videos_total_ms or lasting[Medium.VIDEO] <= self.videos_total_ms)
            and (not self.audios_total_ms or lasting[Medium.AUDIO] <= self.audios_total_ms)
        )

    def suits(self, file: ReferenceFile) -> bool:
        """Whether the model takes a file of this size and length."""
        match file.role.medium:
            case Medium.AUDIO:
                return (
                    file.duration_ms in self.durations_ms
                    and _at_most(file.size_bytes, self.audio_bytes)
                    and _among(file.content_type, self.audio_types)
                )
            case Medium.VIDEO:
                sides_px = self.video_sides_px
                return (
                    file.width in sides_px
                    and file.height in sides_px
                    and (self.video_pixels is None or file.width * file.height in self.video_pixels)
                    and file.duration_ms in self.durations_ms
                    and _at_most(file.size_bytes, self.video_bytes)
                    and _among(file.content_type, self.video_types)
                )
            case _:
                return (
                    file.width in self.sides_px
                    and file.height in self.sides_px
                    and _at_most(file.size_bytes, self.image_bytes)
                    and (
                        self.ratios_percent is None or file.width * 100 // file.height in self.ratios_percent
                    )
                )


def _at_most(value: int, limit: int) -> bool:
    return not limit or value <= limit


def _among(value: str, known: frozenset[str]) -> bool:
    return not known or value in known
