"""Whether what a provider gave is what was asked for, as far as its bytes tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from services.provider_pool.adapters.interface import Generation, Kind, OutputUnavailable, Role
from services.provider_pool.media_probe import Probe

DURATION_TOLERANCE_MS: Final = 1_000
"""Films end with their last frame or audio block, and providers round; a second more or less is what was asked for."""

_TYPES: Final[Mapping[Kind, str]] = {
    Kind.IMAGE: "image/",
    Kind.INFOGRAPHIC: "image/",
    Kind.VIDEO: "video/",
    Kind.VOICE: "audio/",
    Kind.MUSIC: "audio/",
    Kind.TEXT: "text/plain",
}


def check(generation: Generation, role: Role, found: Probe) -> None:
    """Raises OutputUnavailable where bytes are not what was asked for. What a header does not tell is not held against it."""
    if role is not Role.PRIMARY:
        if not found.content_type.startswith("image/"):
            raise OutputUnavailable(f"{role} is {found.content_type}", charged="yes")
        return
    if not found.content_type.startswith(_TYPES[generation.kind]):
        raise OutputUnavailable(f"asked for {generation.kind}, got {found.content_type}", charged="yes")
    if generation.format and generation.format != found.extension:
        raise OutputUnavailable(f"asked for {generation.format}, got {found.extension}", charged="yes")
    asked, got = (generation.width, generation.height), (found.width, found.height)
    if all(asked) and all(got) and not _fits(generation, got):
        raise OutputUnavailable(f"asked for {asked} pixels, got {got}", charged="yes")
    off_ms = abs(found.duration_ms - generation.duration_s * 1000)
    if generation.duration_s and off_ms > DURATION_TOLERANCE_MS:
        raise OutputUnavailable(
            f"asked for {generation.duration_s} s, got {found.duration_ms} ms", charged="yes"
        )


def _fits(generation: Generation, got: tuple[int, int]) -> bool:
    if generation.adaptive_ratio:
        return got[0] <= generation.width and got[1] <= generation.height
    return got == (generation.width, generation.height)
