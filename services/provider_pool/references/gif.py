"""The walk of GIF: every block to the trailer. It is not rewritten: what goes on is the first frame, as PNG."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from services.provider_pool.references.walked import (
    CHUNKS_LIMIT,
    FRAMES_LIMIT,
    SUB_BLOCKS_LIMIT,
    ImageLimits,
    ImageRefused,
    Rule,
    Walked,
    check_animated,
    check_size,
)

_SCREEN: Final = struct.Struct("<6xHHBxx")
_PLACE: Final = struct.Struct("<HHHHB")
_HAS_TABLE: Final = 0x80
_EXTENSION: Final = 0x21
_FRAME: Final = 0x2C
_TRAILER: Final = 0x3B
# LZW starts with one code for each colour; a GIF has at most 256.
_CODE_SIZES: Final = range(1, 9)
_BYTES_PER_PIXEL: Final = 4


@dataclass(slots=True)
class _File:
    """Where the walk is, and what it has counted."""

    view: memoryview
    width: int
    height: int
    at: int
    frames: int = 0
    extensions: int = 0
    sub_blocks: int = 0


def walk(view: memoryview, limits: ImageLimits) -> Walked:
    file = _screen(view)
    while (introducer := _byte(file)) != _TRAILER:
        if introducer == _EXTENSION:
            _extension(file)
        elif introducer == _FRAME:
            _frame(file)
        else:
            raise ImageRefused(Rule.BAD_FRAMING, "a block of no known kind")
    if not file.frames:
        raise ImageRefused(Rule.EMPTY, "no frame")
    check_animated(file.frames > 1, limits)
    return Walked("gif", file.width, file.height, file.frames > 1, None)


def _screen(view: memoryview) -> _File:
    if len(view) < _SCREEN.size:
        raise ImageRefused(Rule.TRUNCATED, "no screen descriptor")
    width, height, flags = _SCREEN.unpack_from(view)
    check_size(width, height, _BYTES_PER_PIXEL)
    return _File(view, width, height, _SCREEN.size + _table_bytes(flags))


def _table_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & _HAS_TABLE else 0


def _byte(file: _File) -> int:
    """The next byte, which is then behind us."""
    if file.at >= len(file.view):
        raise ImageRefused(Rule.TRUNCATED, "no trailer")
    file.at += 1
    return file.view[file.at - 1]


def _extension(file: _File) -> None:
    file.extensions += 1
    if file.extensions > CHUNKS_LIMIT:
        raise ImageRefused(Rule.TOO_MANY_CHUNKS, f"more than {CHUNKS_LIMIT} extensions")
    _byte(file)  # which extension it is does not matter: nothing of them is kept
    _skip_sub_blocks(file)


def _frame(file: _File) -> None:
    file.frames += 1
    if file.frames > FRAMES_LIMIT:
        raise ImageRefused(Rule.TOO_MANY_FRAMES, f"more than {FRAMES_LIMIT} frames")
    if file.at + _PLACE.size > len(file.view):
        raise ImageRefused(Rule.TRUNCATED, "a frame without its descriptor")
    left, top, width, height, flags = _PLACE.unpack_from(file.view, file.at)
    if not width or not height:
        raise ImageRefused(Rule.EMPTY, "a side of a frame is zero")
    if left + width > file.width or top + height > file.height:
        raise ImageRefused(Rule.SIZE_MISMATCH, "a frame reaches out of the screen")
    file.at += _PLACE.size + _table_bytes(flags)
    if _byte(file) not in _CODE_SIZES:
        raise ImageRefused(Rule.BAD_HEADER, "an LZW code size that there is not")
    if not _skip_sub_blocks(file):
        raise ImageRefused(Rule.TRUNCATED, "a frame without data")


def _skip_sub_blocks(file: _File) -> int:
    """Goes behind the empty sub-block that ends a sequence; how many there were before it."""
    number = 0
    while length := _byte(file):
        file.at += length
        number += 1
        if file.sub_blocks + number > SUB_BLOCKS_LIMIT:
            raise ImageRefused(Rule.TOO_MANY_CHUNKS, f"more than {SUB_BLOCKS_LIMIT} sub-blocks")
    file.sub_blocks += number
    return number
