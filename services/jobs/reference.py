"""What an output is to follow, as a job keeps it: a URL or the id of something staged, never the medium itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Final

from msgspec import Struct


class Role(IntEnum):
    """What a reference is for; the values are the proto's."""

    IMAGE = 1
    VIDEO = 2
    AUDIO = 3
    FIRST_FRAME = 4
    LAST_FRAME = 5


class Strength(IntEnum):
    """How closely the output follows it; the values are the proto's."""

    LOW = 1
    MID = 2
    HIGH = 3


class Reference(Struct, frozen=True, gc=False):
    """One medium: one of `url` and `reference_id` is set."""

    role: Role
    strength: Strength
    url: str = ""
    reference_id: str = ""

    def __repr__(self) -> str:
        # A URL's query may be a credential.
        return f"Reference(role={self.role!r}, reference_id={self.reference_id!r})"


class ReferenceLimits(Struct, frozen=True, gc=False):
    """What the storefront takes: `…_bytes` bounds one file of a medium, `images`, `videos`, `audios` how many there are."""

    image_formats: tuple[str, ...]
    image_bytes: int
    images: int
    first_frame_of_animations: bool = False
    videos: int = 0
    video_bytes: int = 0
    audios: int = 0
    audio_bytes: int = 0

    def allow(self, references: Iterable[Reference]) -> bool:
        """Whether there are no more of each medium than it takes; first and last frames are images."""
        counted = Counter(_COUNTED_AS.get(reference.role, Role.IMAGE) for reference in references)
        return (
            counted[Role.IMAGE] <= self.images
            and counted[Role.VIDEO] <= self.videos
            and counted[Role.AUDIO] <= self.audios
        )


_COUNTED_AS: Final[Mapping[Role, Role]] = {Role.VIDEO: Role.VIDEO, Role.AUDIO: Role.AUDIO}
