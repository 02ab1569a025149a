"""The walk of BMP: both headers, the palette, the pixels. It is not rewritten: what goes on is the picture, as PNG."""

from __future__ import annotations

import struct
from typing import Final

from services.provider_pool.references.walked import ImageLimits, ImageRefused, Rule, Walked, check_size

_FILE_BYTES: Final = 14
_OS2_BYTES: Final = 12
_BITMAP_BYTES: Final = 40
HEADER_SIZES: Final = frozenset({_OS2_BYTES, _BITMAP_BYTES, 52, 56, 64, 108, 124})
"""Sizes of the second header: OS/2 1 and 2, Windows 3 with and without masks, 4, 5."""

_RAW: Final = 0
_RLE8: Final = 1
_RLE4: Final = 2
_MASKS: Final = 3
_BITS: Final = {_RAW: {1, 4, 8, 16, 24, 32}, _RLE8: {8}, _RLE4: {4}, _MASKS: {16, 32}}
_RUN_LENGTH: Final = {_RLE8, _RLE4}
_MASK_BYTES: Final = 12


def walk(view: memoryview, limits: ImageLimits) -> Walked:
    del limits  # a BMP has one frame
    if len(view) < _FILE_BYTES + _OS2_BYTES:
        raise ImageRefused(Rule.TRUNCATED, "no header")
    offset, size = struct.unpack_from("<10xII", view)
    if size not in HEADER_SIZES:
        raise ImageRefused(Rule.BAD_HEADER, "a header of no known size")
    if len(view) < _FILE_BYTES + size:
        raise ImageRefused(Rule.TRUNCATED, "the header is cut short")
    width, height, bits, coding, colours = _fields(view, size)
    if height < 0 and coding in _RUN_LENGTH:
        raise ImageRefused(Rule.BAD_HEADER, "runs from the top down")
    check_size(width, abs(height), 4)
    pixels = _pixels_start(size, bits, coding, colours)
    if offset < pixels:
        raise ImageRefused(Rule.BAD_FRAMING, "the pixels start within what stands before them")
    # Runs have no length of their own; how many there must be is seen when they are decoded.
    needed = 1 if coding in _RUN_LENGTH else (bits * width + 31) // 32 * 4 * abs(height)
    if offset + needed > len(view):
        raise ImageRefused(Rule.TRUNCATED, "the pixels are cut short")
    return Walked("bmp", width, abs(height), False, None)


def _fields(view: memoryview, size: int) -> tuple[int, int, int, int, int]:
    """Width, height, bits of a pixel, coding, and colours of the palette (0: as many as there can be)."""
    coding = colours = 0
    if size == _OS2_BYTES:
        width, height, planes, bits = struct.unpack_from("<HHHH", view, _FILE_BYTES + 4)
    else:
        width, height, planes, bits, coding = struct.unpack_from("<iiHHI", view, _FILE_BYTES + 4)
        (colours,) = struct.unpack_from("<I", view, _FILE_BYTES + 32)
    if coding not in _BITS:
        raise ImageRefused(Rule.UNSUPPORTED_CODING, "a BMP that wraps another coding")
    if planes != 1 or bits not in _BITS[coding]:
        raise ImageRefused(Rule.BAD_HEADER, "planes or bits that the format does not have")
    return width, height, bits, coding, colours


def _pixels_start(size: int, bits: int, coding: int, colours: int) -> int:
    """The first place where pixels can be: behind the headers, the masks and the palette."""
    start = _FILE_BYTES + size
    if coding == _MASKS and size == _BITMAP_BYTES:
        start += _MASK_BYTES
    if bits > 8:
        return start  # a palette there is advice for displays of 256 colours
    if colours > 1 << bits:
        raise ImageRefused(Rule.BAD_HEADER, "more colours than a pixel can name")
    # OS/2 1 does not say how many there are, and files with fewer than all are in use.
    return start if size == _OS2_BYTES else start + 4 * (colours or 1 << bits)
