"""How a chart looks: colours, type, and the few shapes that everything in it is made of."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Final

from PIL import Image, ImageDraw, ImageFont

from services.provider_pool.adapters.sandbox.caption import Font, wrap
from services.provider_pool.adapters.sandbox.layers import mix
from services.provider_pool.adapters.sandbox.scene import Colour

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Look:
    """Colours of the ground, of cards on it, of text and quiet text, of lines, and of the data."""

    ground: Colour
    card: Colour
    ink: Colour
    quiet: Colour
    rule: Colour
    data: tuple[Colour, ...]
    band: Colour | None = None
    band_ink: Colour = (255, 255, 255)
    rounded: float = 0.2

    def colour(self, place: int) -> Colour:
        """The colour of the n-th number; after the last they come again, paler."""
        plain = self.data[place % len(self.data)]
        return mix(plain, self.ground, 0.35 * (place // len(self.data)))


def _colours(text: str) -> tuple[Colour, ...]:
    return tuple((int(one[:2], 16), int(one[2:4], 16), int(one[4:], 16)) for one in text.split())


def _look(plain: str, data: str, *, band: Colour | None = None, rounded: float = 0.2) -> Look:
    ground, card, ink, quiet, rule = _colours(plain)
    return Look(ground, card, ink, quiet, rule, _colours(data), band=band, rounded=rounded)


_CLEAN: Final = _look(
    "f7f8fb ffffff 1b2333 68738a e1e5ee",
    "3b6cf6 12b5a6 f5a524 e5484d 8b5cf6 0ea5e9 65a30d db2777",
)
_BOLD: Final = _look(
    "fff6e6 ffffff 20142f 6b5b7b ead9c0",
    "ff4d3d 5b2be0 00a88f ffb000 ff2e8a 1f7ae0 7bb518 8a4b2a",
    band=(91, 43, 224),
    rounded=0.35,
)
_DARK: Final = _look(
    "10151f 192130 f1f5fb 93a1b8 2b3648",
    "4cc9f0 f72585 b8f34a ffb703 9d7bff 3ddc97 ff7b54 e0e1dd",
)
_PAPER: Final = _look(
    "f4eee1 fbf7ee 2f2a24 7c7263 dcd2bf",
    "9c4a2f 3d6b5c c99a3b 4f5d8a 8a6d8f 6b7f3a b56a5a 5a7d8c",
    rounded=0.0,
)
LOOKS: Final = {"clean": _CLEAN, "bold": _BOLD, "dark": _DARK, "paper": _PAPER}


# Units of type: the least that can be read, and the steps down to it.
_SMALLEST: Final = 1.4
_SMALLER: Final = 0.1


@functools.cache
def font(size_px: int) -> Font:
    """Type of about this height."""
    return ImageFont.load_default(max(8, size_px))


class Sheet:
    """The paper that a chart is drawn on: twice as large as it will be, so that edges come out smooth."""

    def __init__(self, width: int, height: int, look: Look) -> None:
        self.image = Image.new("RGB", (width, height), look.ground)
        self.pen = ImageDraw.Draw(self.image)
        self.look = look
        self.unit = min(width, height) / 100
        """A hundredth of the shorter side: all sizes are told in it."""

    def text(
        self,
        x: float,
        y: float,
        said: str,
        size: float,
        colour: Colour,
        *,
        anchor: str = "la",
        bold: bool = False,
    ) -> None:
        """One line; `size` in units, `anchor` as Pillow names it."""
        drawn = font(round(size * self.unit))
        weight = round(size * self.unit * 0.035) if bold else 0
        self.pen.text((x, y), said, colour, drawn, anchor=anchor, stroke_width=weight, stroke_fill=colour)

    def width(self, said: str, size: float) -> float:
        """Pixels that a line takes."""
        return float(font(round(size * self.unit)).getlength(said))

    def lines(self, said: str, size: float, width_px: float, most: int) -> list[str]:
        """A text in at most so many lines of this width."""
        return wrap(said, font(round(size * self.unit)), width_px, most)[0]

    def fitted(self, said: str, size: float, width_px: float) -> str:
        """One line of this width, cut short if it must be."""
        return self.lines(said, size, width_px, 1)[0]

    def size_of(self, said: str, size: float, width_px: float) -> float:
        """The largest type up to `size` in which a line has this width: a number that is cut is another number."""
        while size > _SMALLEST and self.width(said, size) > width_px:
            size -= _SMALLER
        return size

    def card(self, box: Box, colour: Colour) -> None:
        """A rectangle, with the look's corners."""
        left, top, right, bottom = box
        radius = self.look.rounded * min(right - left, bottom - top) * 0.5
        if right - left >= 1 and bottom - top >= 1:
            self.pen.rounded_rectangle(box, min(radius, 2.2 * self.unit), colour)

    def rule(self, x: float, y: float, length: float, colour: Colour) -> None:
        """A thin line to the right."""
        self.pen.line((x, y, x + length, y), colour, max(1, round(self.unit * 0.2)))
