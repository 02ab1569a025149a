"""Reads a reference into a print: the part of it that fills a box, upright, opaque, RGB."""

from __future__ import annotations

from typing import Final

import numpy as np
from PIL import Image

from services.provider_pool.adapters.sandbox.render_order import ReferenceUnusable

# The types that the pool hands on; no other of Pillow's decoders is ever run.
_FORMATS: Final = ("JPEG", "PNG", "WEBP")
# What is transparent stands before a grey on which both black and white drawings can be seen.
_GROUND: Final = (164, 163, 160)
_ORIENTATION_TAG: Final = 0x0112
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ON_ITS_SIDE: Final = frozenset({5, 6, 7, 8})

Box = tuple[float, float, float, float]


def read_print(path: str, width: int, height: int) -> Image.Image:
    """The middle of the picture in `path`, as much of it as fills `width` x `height` pixels.

    Raises ReferenceUnusable.
    """
    try:
        with Image.open(path, formats=_FORMATS) as image:
            return _printed(image, width, height)
    except FileNotFoundError:
        raise ReferenceUnusable("a reference is gone") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise ReferenceUnusable("a reference cannot be decoded") from None


def read_clip_print(path: str, width: int, height: int) -> Image.Image:
    """The same of a film, from near its beginning. Raises ReferenceUnusable."""
    # Only here, so that a worker of pictures never loads the libraries of films.
    from services.provider_pool.adapters.sandbox.reference_clip import picture_of

    return _printed(picture_of(path), width, height)


def _printed(image: Image.Image, width: int, height: int) -> Image.Image:
    orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    size = (height, width) if orientation in _ON_ITS_SIDE else (width, height)
    _decode_small(image, size)
    left, top, right, bottom = _covering(image.size, size)
    outer = int(left), int(top), min(image.width, int(right) + 1), min(image.height, int(bottom) + 1)
    # Cut before any conversion: of the largest picture each further copy is 200 MB.
    part = _opaque(image.crop(outer))
    inner = (
        left - outer[0],
        top - outer[1],
        min(right - outer[0], part.width),
        min(bottom - outer[1], part.height),
    )
    small = part.resize(size, Image.Resampling.BICUBIC, inner, reducing_gap=3.0)
    return small.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else small


def _decode_small(image: Image.Image, size: tuple[int, int]) -> None:
    """Let a JPEG be decoded at a half, a quarter or an eighth, where that is still enough."""
    share = max(size[0] / image.width, size[1] / image.height)
    if share < 1:
        image.draft(None, (int(image.width * share) + 1, int(image.height * share) + 1))


def _covering(source: tuple[int, int], size: tuple[int, int]) -> Box:
    """The largest box of the shape of `size` in the middle of `source`."""
    share = min(source[0] / size[0], source[1] / size[1])
    # Rounding must not make the box larger than the picture.
    width, height = min(size[0] * share, source[0]), min(size[1] * share, source[1])
    left, top = (source[0] - width) / 2, (source[1] - height) / 2
    return left, top, left + width, top + height


def _opaque(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    drawn = image.convert("RGBA")
    ground = Image.new("RGB", drawn.size, _GROUND)
    ground.paste(drawn, (0, 0), drawn)
    return ground
