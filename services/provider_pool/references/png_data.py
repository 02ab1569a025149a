"""The picture data of a PNG: as many as its header says, no more and no fewer. A decoder stops early in both cases, and is content."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Final

from services.provider_pool.references.container import ImageRefused, Rule

_SIGNATURE_BYTES: Final = 8
_CHUNK: Final = struct.Struct(">I4s")
_CHECKSUM_BYTES: Final = 4
_HEADER_AT: Final = 16
_SAMPLES: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_WHOLE: Final = ((0, 0, 1, 1),)
# The passes of an interlaced picture: the first column and row, and the steps between them.
_INTERLACED: Final = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
# Inflated at once, and forgotten.
_PIECE_BYTES: Final = 1024**2


def check_data(content: bytes) -> None:
    """`content` is a PNG that the walk has passed. Raises ImageRefused, zlib.error."""
    left = _announced_bytes(content)
    inflater = zlib.decompressobj()
    for data in _data(content):
        packed: memoryview | bytes = data
        while packed and not inflater.eof:
            left -= len(inflater.decompress(packed, _PIECE_BYTES))
            if left < 0:
                raise ImageRefused(Rule.UNDECODABLE, "more picture data than the picture has")
            packed = inflater.unconsumed_tail
        if inflater.unused_data or (inflater.eof and packed):
            raise ImageRefused(Rule.UNDECODABLE, "something follows the picture data")
    if left or not inflater.eof:
        raise ImageRefused(Rule.UNDECODABLE, "less picture data than the picture has")


def _announced_bytes(content: bytes) -> int:
    width, height, depth, colour, interlaced = struct.unpack_from(">IIBBxxB", content, _HEADER_AT)
    bits = depth * _SAMPLES[colour]
    total = 0
    for left, top, across, down in _INTERLACED if interlaced else _WHOLE:
        columns, rows = -((left - width) // across), -((top - height) // down)
        if columns > 0 and rows > 0:
            # Each row starts with the number of its filter.
            total += rows * (1 + (columns * bits + 7) // 8)
    return total


def _data(content: bytes) -> Iterator[memoryview]:
    view, at = memoryview(content), _SIGNATURE_BYTES
    while at < len(view):
        length, name = _CHUNK.unpack_from(view, at)
        start = at + _CHUNK.size
        if name == b"IDAT":
            yield view[start : start + length]
        at = start + length + _CHECKSUM_BYTES
