"""Colour profiles: kept if they are what they say, else dropped. Nobody here interprets them."""

from __future__ import annotations

from typing import Final

from services.provider_pool.references.walked import PROFILE_LIMIT_BYTES

_HEADER_BYTES: Final = 128


def sound(profile: bytes) -> bytes | None:
    """The profile, cut at the size that its header names; None if it is no profile, is cut short, or is too large."""
    if not _HEADER_BYTES <= len(profile) <= PROFILE_LIMIT_BYTES or profile[36:40] != b"acsp":
        return None
    size = int.from_bytes(profile[:4], "big")
    return profile[:size] if _HEADER_BYTES <= size <= len(profile) else None
