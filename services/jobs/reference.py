"""What an output is to follow, as a job keeps it: a URL or the id of something staged, never the medium itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum


class Role(IntEnum):
    """What a reference is for; the values are the proto's."""

    IMAGE = 1


class Strength(IntEnum):
    """How closely the output follows it; the values are the proto's."""

    LOW = 1
    MID = 2
    HIGH = 3


@dataclass(frozen=True, slots=True)
class Reference:
    """One medium: one of `url` and `reference_id` is set."""

    role: Role
    strength: Strength
    # Its query may be a credential.
    url: str = field(default="", repr=False)
    reference_id: str = ""


@dataclass(frozen=True, slots=True)
class ReferenceLimits:
    """What the storefront takes; `image_bytes` bounds one image, `images` how many a request has."""

    image_formats: tuple[str, ...]
    image_bytes: int
    images: int
    first_frame_of_animations: bool = False
