"""Sizes that a model can make and no others: named tables of exact pixels, with the names that providers have for them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from services.provider_pool.adapters.generation import Generation
from services.provider_pool.adapters.reference import Medium, ReferenceFile


@dataclass(frozen=True, slots=True)
class Size:
    """Pixels, and what providers call them: a resolution ("720p") and a ratio ("16:9")."""

    width: int
    height: int
    resolution: str = ""
    ratio: str = ""

    @property
    def pixels(self) -> int:
        """Width by height."""
        return self.width * self.height


@dataclass(frozen=True)
class SizeTable:
    """The sizes of one family of models. Some contracts name them by lines and ratio: 720x720 is the 1:1 of "720p".

    Where the ratio is to follow a picture, a generation names a square as wide as the 16:9 size of a resolution, which
    the output has to fit into.
    """

    sizes: tuple[Size, ...]

    def find(self, width: int, height: int) -> Size | None:
        """The size of exactly so many pixels."""
        return next((size for size in self.sizes if (size.width, size.height) == (width, height)), None)

    def by_lines(self, width: int, height: int) -> Size | None:
        """The size of the resolution with as many lines as the shorter side has pixels, and of exactly this ratio."""
        resolution, ratio = f"{min(width, height)}p", _ratio(width, height)
        return next(
            (size for size in self.sizes if (size.resolution, size.ratio) == (resolution, ratio)), None
        )

    def within(self, width: int, height: int) -> tuple[Size, ...]:
        """What an adaptive generation of this square may become; nothing where it is not the square of a resolution."""
        wide = next((size for size in self.sizes if size.ratio == "16:9" and size.width == width), None)
        if wide is None or width != height:
            return ()
        return tuple(
            size
            for size in self.sizes
            if size.resolution == wide.resolution and size.width <= width and size.height <= height
        )

    def takes(self, generation: Generation) -> bool:
        """Whether the generation's size can be made."""
        return bool(self.possible(generation))

    def possible(self, generation: Generation) -> tuple[Size, ...]:
        """Every size that the generation may have: one, unless its ratio is to follow a picture."""
        if generation.adaptive_ratio:
            return self.within(generation.width, generation.height)
        asked = (generation.width, generation.height)
        size = self.find(*asked) or self.by_lines(*asked)
        return () if size is None else (size,)

    def chosen(self, generation: Generation, references: Sequence[ReferenceFile]) -> Size | None:
        """The generation's size; where it follows a picture, the one whose ratio is nearest to the first picture's."""
        possible = self.possible(generation)
        seen = next((file for file in references if file.role.medium is not Medium.AUDIO), None)
        if not possible or not generation.adaptive_ratio:
            return next(iter(possible), None)
        if seen is None or not seen.width or not seen.height:
            return next(size for size in possible if size.ratio == "16:9")
        aim = math.log(seen.width / seen.height)
        return min(possible, key=lambda size: abs(math.log(size.width / size.height) - aim))


def sizes_of(words: Iterable[str]) -> SizeTable:
    """A table of sizes that have no names, as "1024x1024". Raises ValueError."""
    sizes = []
    for word in words:
        width, _, height = word.partition("x")
        if not (width.isdecimal() and height.isdecimal()):
            raise ValueError(f"{word!r} is not a size such as '1024x1024'")
        sizes.append(Size(int(width), int(height), "", _ratio(int(width), int(height))))
    return SizeTable(tuple(sizes))


def _ratio(width: int, height: int) -> str:
    divisor = math.gcd(width, height) or 1
    return f"{width // divisor}:{height // divisor}"


_RATIOS: Final = ("21:9", "16:9", "4:3", "1:1", "3:4", "9:16")
_SEEDANCE: Final[Mapping[str, tuple[str, ...]]] = {
    "480p": ("992x432", "864x496", "752x560", "640x640", "560x752", "496x864"),
    "720p": ("1470x630", "1280x720", "1112x834", "960x960", "834x1112", "720x1280"),
    "1080p": ("2206x946", "1920x1080", "1664x1248", "1440x1440", "1248x1664", "1080x1920"),
    "4k": ("3840x1646", "3840x2160", "3840x2880", "3840x3840", "2880x3840", "2160x3840"),
}


def _seedance(*resolutions: str) -> SizeTable:
    return SizeTable(
        tuple(
            Size(size.width, size.height, resolution, ratio)
            for resolution in resolutions
            for size, ratio in zip(sizes_of(_SEEDANCE[resolution]).sizes, _RATIOS, strict=True)
        )
    )


TABLES: Final[Mapping[str, SizeTable]] = {
    "seedance-2": _seedance("480p", "720p", "1080p"),
    "seedance-2-4k": _seedance("480p", "720p", "1080p", "4k"),
    "seedance-2-fast": _seedance("480p", "720p"),
}
"""By the name that model files know them by."""
