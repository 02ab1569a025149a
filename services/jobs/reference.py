"""What an output is to follow, as a job keeps it: a URL or the id of something staged, never the medium itself."""

from __future__ import annotations

from enum import IntEnum

from msgspec import Struct


class Role(IntEnum):
    """What a reference is for; the values are the proto's."""

    IMAGE = 1


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
    """What the storefront takes; `image_bytes` bounds one image, `images` how many a request has."""

    image_formats: tuple[str, ...]
    image_bytes: int
    images: int
    first_frame_of_animations: bool = False
