"""Whether what a provider gave is what was asked for, as far as its bytes tell.

Kind and format are never something else. Pictures have exactly the pixels asked for. Films may be off by what encoders and
providers round: by 3 % on each side, or to another size of the same class, which is one whose area is within 10 % and whose
ratio within 5 % of what was asked for: a 480p film of 16:9 is 854 x 480 here and 864 x 496 there, and never one of 720p.
Where lines and a ratio were asked for, it is what makers of films have for them: for 720 x 720 the 1:1 of 720p, 960 x 960.
Durations may be off by a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from services.provider_pool.adapters.frames import TABLES
from services.provider_pool.adapters.interface import Generation, Kind, OutputUnavailable, Role
from services.provider_pool.media.probe import Probe

DURATION_TOLERANCE_MS: Final = 1_000
"""Films end with their last frame or audio block, and providers round; a second more or less is what was asked for."""

SIDE_TOLERANCE_PERCENT: Final = 3
"""Encoders take sides in blocks of 16 pixels: of a film's 720 lines 704 may be left."""

AREA_TOLERANCE_PERCENT: Final = 10
"""Between sizes of one class; from a class to the next the area doubles."""

RATIO_TOLERANCE_PERCENT: Final = 5
"""Between sizes of one name; from a ratio to the next it is a fifth at least."""

_TYPES: Final[Mapping[Kind, str]] = {
    Kind.IMAGE: "image/",
    Kind.INFOGRAPHIC: "image/",
    Kind.VIDEO: "video/",
    Kind.VOICE: "audio/",
    Kind.MUSIC: "audio/",
    Kind.TEXT: "text/plain",
}

_FILMS: Final = TABLES["seedance-2-4k"]
"""All sizes of films that have names."""

_EXTENSIONS: Final[Mapping[str, str]] = {"jpeg": "jpg"}
"""Of formats whose files are called otherwise."""


def check(generation: Generation, role: Role, found: Probe) -> None:
    """Raises OutputUnavailable where bytes are not what was asked for. What a header does not tell is not held against it."""
    if role is not Role.PRIMARY:
        if not found.content_type.startswith("image/"):
            raise OutputUnavailable(f"{role} is {found.content_type}", charged="yes")
        return
    if not found.content_type.startswith(_TYPES[generation.kind]):
        raise OutputUnavailable(f"asked for {generation.kind}, got {found.content_type}", charged="yes")
    extension = _EXTENSIONS.get(generation.format, generation.format)
    if extension and extension != found.extension:
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
    asked = (generation.width, generation.height)
    if generation.kind is not Kind.VIDEO:
        return got == asked
    if generation.adaptive_ratio:
        # A square as wide as the 16:9 film of a class: any ratio may come, and no larger film.
        within = all(
            100 * side <= (100 + SIDE_TOLERANCE_PERCENT) * limit
            for side, limit in zip(got, asked, strict=True)
        )
        return within or 16 * _area(got) * 100 <= 9 * _area(asked) * (100 + AREA_TOLERANCE_PERCENT)
    named = _FILMS.by_lines(*asked)
    if _has_sides(got, asked) or (named is not None and _has_sides(got, (named.width, named.height))):
        return True
    return _near(_area(got), _area(asked), AREA_TOLERANCE_PERCENT) and _near(
        got[0] * asked[1], asked[0] * got[1], RATIO_TOLERANCE_PERCENT
    )


def _has_sides(got: tuple[int, int], asked: tuple[int, int]) -> bool:
    return all(_near(side, wanted, SIDE_TOLERANCE_PERCENT) for side, wanted in zip(got, asked, strict=True))


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]


def _near(value: int, wanted: int, percent: int) -> bool:
    return 100 * abs(value - wanted) <= percent * wanted
