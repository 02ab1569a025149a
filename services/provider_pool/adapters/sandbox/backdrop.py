"""What references do to a drawing: the scene takes over their colours, and they are blended with it as its backdrop.

One reference fills the frame; several are hung side by side with a little of the scene between them. In a film each of
them is slowly approached.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, cast

import numpy as np
from PIL import Image, ImageDraw

from services.provider_pool.adapters.sandbox.layers import mix
from services.provider_pool.adapters.sandbox.reference_print import read_clip_print, read_print
from services.provider_pool.adapters.sandbox.render_order import RenderOrder, RenderReference, Strength
from services.provider_pool.adapters.sandbox.scene import Colour, Palette

_OPACITY: Final[dict[Strength, float]] = {"low": 0.36, "mid": 0.6, "high": 0.85}
"""How much of a pixel is the reference's; the rest is the scene's."""

_TAKEN_OVER: Final[dict[Strength, float]] = {"low": 0.55, "mid": 0.8, "high": 0.95}
"""How far the scene's colours go towards the reference's."""

# How much closer a film is to a reference at its end than at its beginning, and by how much of that it wanders.
APPROACH: Final = 1.14
_WANDERINGS: Final = ((0.5, 0.35), (0.8, 0.5), (0.2, 0.5), (0.5, 0.75))
_GUTTER: Final = 1.6
_CORNER: Final = 1.4
# Numbers of pictures in each column (of a wide frame) or row (of a tall one).
_HANGINGS: Final = (
    (1,),
    (1, 1),
    (1, 2),
    (2, 2),
    (1, 2, 2),
    (2, 2, 2),
    (2, 3, 2),
    (2, 3, 3),
    (3, 3, 3),
    (3, 4, 3),
    (4, 4, 3),
    (4, 4, 4),
)
# A picture that has a column for itself gets more room.
_ALONE: Final = 1.45
_SAMPLE_PX: Final = 40

Area = tuple[int, int, int, int]


@dataclass(frozen=True)
class Print:
    """One reference: its picture, where it hangs, how opaque it is there, and what the film approaches in it."""

    picture: Image.Image
    mask: Image.Image
    area: Area
    target: tuple[float, float]

    def box(self, progress: float) -> tuple[float, float, float, float]:
        """The part of the picture that is seen at `progress` (0 to 1) of a film; all of it at the beginning."""
        share = 1 / (1 + (APPROACH - 1) * progress)
        width, height = self.picture.width * share, self.picture.height * share
        left = (self.picture.width - width) * self.target[0]
        top = (self.picture.height - height) * self.target[1]
        return left, top, left + width, top + height


def seen(order: RenderOrder) -> list[RenderReference]:
    """The references that hang in the frame: pictures and films; given frames are shown in their time only."""
    return [reference for reference in order.references if reference.role in ("image", "video")]


def hang(order: RenderOrder) -> list[Print]:
    """Read an order's pictures and films into prints for its frame; a film's are larger, since it approaches them.

    Raises ReferenceUnusable.
    """
    film = order.kind == "video"
    shown = seen(order)
    areas = _areas(len(shown), order.width, order.height)
    prints = []
    for place, (reference, area) in enumerate(zip(shown, areas, strict=True)):
        width, height = area[2] - area[0], area[3] - area[1]
        if film:
            width, height = _even(width * APPROACH), _even(height * APPROACH)
        read = read_clip_print if reference.role == "video" else read_print
        picture = read(reference.path, width, height)
        opacity = _OPACITY[reference.strength]
        mask = _mask(order, area, opacity, framed=len(areas) > 1)
        prints.append(Print(picture, mask, area, _WANDERINGS[place % len(_WANDERINGS)]))
    return prints


def lay(frame: Image.Image, prints: Sequence[Print]) -> None:
    """Blend the prints with a still picture of the scene."""
    for hung in prints:
        picture = hung.picture
        if picture.size != hung.mask.size:
            picture = picture.resize(hung.mask.size, Image.Resampling.BILINEAR)
        frame.paste(picture, hung.area[:2], hung.mask)


def taken_over(palette: Palette, prints: Sequence[Print], strengths: Sequence[Strength]) -> Palette:
    """The palette moved towards the colours of the prints."""
    found = _colours([hung.picture for hung in prints])
    share = max(_TAKEN_OVER[strength] for strength in strengths)
    dark, light = found[0], found[-1]
    vivid = sorted(found, key=_vividness)
    sky = (found[2], found[4], mix(light, (255, 255, 255), 0.12))

    def moved(old: Colour, new: Colour) -> Colour:
        return mix(old, new, share)

    return replace(
        palette,
        sky=(moved(palette.sky[0], sky[0]), moved(palette.sky[1], sky[1]), moved(palette.sky[2], sky[2])),
        light=moved(palette.light, mix(light, (255, 255, 255), 0.45)),
        far=moved(palette.far, found[len(found) // 2]),
        near=moved(palette.near, mix(dark, (0, 0, 0), 0.35)),
        accent=moved(palette.accent, vivid[-1]),
        accent2=moved(palette.accent2, vivid[-2]),
    )


def _colours(pictures: Sequence[Image.Image]) -> list[Colour]:
    """Eight colours that stand for the pictures, from dark to light."""
    sheet = Image.new("RGB", (_SAMPLE_PX, _SAMPLE_PX * len(pictures)))
    for row, picture in enumerate(pictures):
        sheet.paste(picture.resize((_SAMPLE_PX, _SAMPLE_PX), Image.Resampling.BOX), (0, row * _SAMPLE_PX))
    counted = sheet.quantize(8, Image.Quantize.MEDIANCUT).convert("RGB").getcolors(sheet.width * sheet.height)
    # Of an RGB picture every colour is a triple, which Pillow's types do not say.
    found = sorted((cast("Colour", colour) for _, colour in counted or ()), key=_brightness)
    # A picture of few colours lends each of them more often.
    return [found[index * len(found) // 8] for index in range(8)]


def _brightness(colour: Colour) -> float:
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def _vividness(colour: Colour) -> float:
    _, lightness, saturation = colorsys.rgb_to_hls(*(level / 255 for level in colour))
    return saturation * (1 - abs(2 * lightness - 1))


def _areas(count: int, width: int, height: int) -> list[Area]:
    """Where each of `count` pictures hangs."""
    if count == 0:
        return []
    if count == 1:
        return [(0, 0, width, height)]
    hanging = _HANGINGS[count - 1]
    gutter = _even(min(width, height) * _GUTTER / 100)
    along, across = (width, height) if width >= height else (height, width)
    shares = [_ALONE if number == 1 and len(set(hanging)) > 1 else 1.0 for number in hanging]
    areas: list[Area] = []
    for (start, end), number in zip(_cut(along, shares, gutter), hanging, strict=True):
        for low, high in _cut(across, [1.0] * number, gutter):
            areas.append((start, low, end, high) if width >= height else (low, start, high, end))
    return areas


def _cut(length: int, shares: Sequence[float], gutter: int) -> list[tuple[int, int]]:
    """Pieces of a length in these proportions, with gutters between and around them; all numbers are even."""
    usable, total = length - gutter * (len(shares) + 1), sum(shares)
    pieces, place = [], float(gutter)
    for share in shares:
        pieces.append((_even(place), _even(place + usable * share / total)))
        place += usable * share / total + gutter
    return pieces


def _even(number: float) -> int:
    return max(2, round(number / 2) * 2)


def _mask(order: RenderOrder, area: Area, opacity: float, *, framed: bool) -> Image.Image:
    width, height = area[2] - area[0], area[3] - area[1]
    # The scene comes forward towards the foot of the frame, where its nearest things stand.
    rows = np.linspace(area[1] / order.height, area[3] / order.height, height, dtype=np.float32)
    depth = opacity + (1 - opacity) * opacity * 0.5 * (1 - 2 * rows)
    levels = np.broadcast_to((depth * 255).clip(0, 255)[:, None], (height, width))
    mask = Image.fromarray(np.rint(levels).astype(np.uint8))
    if framed:
        shape = Image.new("L", (width * 2, height * 2))
        radius = min(order.width, order.height) * _CORNER / 50
        ImageDraw.Draw(shape).rounded_rectangle((0, 0, width * 2 - 1, height * 2 - 1), radius, fill=255)
        mask.paste(0, (0, 0), shape.reduce(2).point([255 - level for level in range(256)]))
    return mask
