"""The walk of TIFF: every directory, and of the first page every strip or tile. It is not rewritten: what goes on is the
first page, as PNG.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from services.provider_pool.references.walked import (
    DATA_CHUNKS_LIMIT,
    FRAMES_LIMIT,
    SIDE_LIMIT_PX,
    TAGS_LIMIT,
    ImageLimits,
    ImageRefused,
    Rule,
    Walked,
    check_animated,
    check_size,
)

_ORDERS: Final = {b"II": "<", b"MM": ">"}
_HEADER_BYTES: Final = 8
_CLASSIC: Final = 42
_ENTRY_BYTES: Final = 12
# Bytes of one value, by kind: BYTE, ASCII, SHORT, LONG, RATIONAL, their signed ones, FLOAT, DOUBLE, IFD.
_KINDS: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_WHOLE: Final = {1: "B", 3: "H", 4: "I"}

_WIDTH: Final = 256
_HEIGHT: Final = 257
_BITS: Final = 258
_COMPRESSION: Final = 259
_PHOTOMETRIC: Final = 262
_STRIP_OFFSETS: Final = 273
_SAMPLES: Final = 277
_ROWS_PER_STRIP: Final = 278
_STRIP_BYTES: Final = 279
_PLANES: Final = 284
_TILE_WIDTH: Final = 322
_TILE_HEIGHT: Final = 323
_TILE_OFFSETS: Final = 324
_TILE_BYTES: Final = 325
_SAMPLE_FORMAT: Final = 339

_RAW: Final = 1
# None, LZW, Deflate (two numbers), PackBits: lossless, of one strip at a time, and all that photo tools write besides
# JPEG. The others bring a decoder of their own into libtiff's (fax, JPEG, LZMA, Zstandard, WebP, LERC), which
# no reference image is worth.
_COMPRESSIONS: Final = {_RAW, 5, 8, 32946, 32773}
_PHOTOMETRICS: Final = {
    0: 1,
    1: 1,
    2: 3,
    3: 1,
    5: 4,
}  # fewest samples of: grey (two ways up), RGB, palette, CMYK
_DEPTHS: Final = {1, 2, 4, 8, 16}
_SAMPLES_LIMIT: Final = 5  # CMYK and alpha


@dataclass(frozen=True, slots=True)
class _Entry:
    kind: int
    count: int
    start: int


@dataclass(frozen=True, slots=True)
class _Blocks:
    """How a page is cut into strips or tiles of at most `width` by `height`; `planes` times, if samples are apart."""

    width: int
    height: int
    planes: int
    number: int


@dataclass(frozen=True, slots=True)
class _Page:
    view: memoryview
    order: str
    entries: dict[int, _Entry]

    def values(self, tag: int, limit: int) -> Sequence[int]:
        """A tag's numbers, or none. Raises ImageRefused if they are not whole numbers, or more than `limit`."""
        entry = self.entries.get(tag)
        if entry is None:
            return ()
        if entry.kind not in _WHOLE or not entry.count:
            raise ImageRefused(Rule.BAD_HEADER, "a tag that is not of whole numbers")
        if entry.count > limit:
            raise ImageRefused(Rule.TOO_MANY_CHUNKS, "a tag of too many values")
        return struct.unpack_from(f"{self.order}{entry.count}{_WHOLE[entry.kind]}", self.view, entry.start)

    def value(self, tag: int, default: int | None = None) -> int:
        found = self.values(tag, 1)
        if not found and default is None:
            raise ImageRefused(Rule.BAD_HEADER, "a tag is missing that every page has")
        return found[0] if found else default or 0


def walk(view: memoryview, limits: ImageLimits) -> Walked:
    order = _ORDERS[bytes(view[:2])]
    if len(view) < _HEADER_BYTES:
        raise ImageRefused(Rule.TRUNCATED, "no header")
    magic, at = struct.unpack_from(order + "2xHI", view)
    if magic != _CLASSIC:
        raise ImageRefused(Rule.UNSUPPORTED_CODING, "BigTIFF")
    first: _Page | None = None
    seen: set[int] = set()
    while at:
        if at in seen:
            raise ImageRefused(Rule.BAD_FRAMING, "directories in a circle")
        seen.add(at)
        if len(seen) > FRAMES_LIMIT:
            raise ImageRefused(Rule.TOO_MANY_FRAMES, f"more than {FRAMES_LIMIT} pages")
        entries, at = _directory(view, order, at)
        first = first or _Page(view, order, entries)
    if first is None:
        raise ImageRefused(Rule.EMPTY, "no page")
    width, height = _check_page(first)
    check_animated(len(seen) > 1, limits)
    return Walked("tiff", width, height, len(seen) > 1, None)


def _directory(view: memoryview, order: str, at: int) -> tuple[dict[int, _Entry], int]:
    """The entries of the directory at `at` with all their values inside the file, and where the next directory is."""
    if at + 2 > len(view):
        raise ImageRefused(Rule.TRUNCATED, "a directory outside the file")
    (count,) = struct.unpack_from(order + "H", view, at)
    start, end = at + 2, at + 2 + count * _ENTRY_BYTES
    if count > TAGS_LIMIT:
        raise ImageRefused(Rule.TOO_MANY_CHUNKS, f"more than {TAGS_LIMIT} tags in a page")
    if at < _HEADER_BYTES or not count:
        raise ImageRefused(Rule.BAD_FRAMING, "a directory within the header, or an empty one")
    if end + 4 > len(view):
        raise ImageRefused(Rule.TRUNCATED, "a directory is cut short")
    entries: dict[int, _Entry] = {}
    for number, (tag, kind, values, offset) in enumerate(struct.iter_unpack(order + "HHII", view[start:end])):
        length = _KINDS.get(kind, 0) * values  # a kind that is not known is skipped, as the standard asks
        place = offset if length > 4 else start + number * _ENTRY_BYTES + 8
        if place + length > len(view):
            raise ImageRefused(Rule.TRUNCATED, "a tag's values are outside the file")
        if tag in entries:
            raise ImageRefused(Rule.BAD_FRAMING, "a tag is repeated")
        entries[tag] = _Entry(kind, values, place)
    (following,) = struct.unpack_from(order + "I", view, end)
    return entries, following


def _check_page(page: _Page) -> tuple[int, int]:
    """Width and height of a page whose pixels are all there. Raises ImageRefused otherwise."""
    width, height = page.value(_WIDTH), page.value(_HEIGHT)
    samples = page.value(_SAMPLES, 1)
    compression = page.value(_COMPRESSION, _RAW)
    bits = set(page.values(_BITS, _SAMPLES_LIMIT)) or {1}
    if compression not in _COMPRESSIONS:
        raise ImageRefused(Rule.UNSUPPORTED_CODING, "a compression that is not taken")
    fewest = _PHOTOMETRICS.get(page.value(_PHOTOMETRIC))
    if fewest is None or set(page.values(_SAMPLE_FORMAT, _SAMPLES_LIMIT)) - {1}:
        raise ImageRefused(Rule.UNSUPPORTED_CODING, "samples that are not grey, RGB, CMYK or a palette")
    if not fewest <= samples <= _SAMPLES_LIMIT or len(bits) != 1 or not bits <= _DEPTHS:
        raise ImageRefused(Rule.BAD_HEADER, "samples or bits that the format does not have")
    depth = bits.pop()
    check_size(width, height, samples * (2 if depth == 16 else 1))
    blocks = _blocks(page, width, height, samples)
    _check_blocks(page, blocks, depth * samples // blocks.planes if compression == _RAW else 0, height)
    return width, height


def _blocks(page: _Page, width: int, height: int, samples: int) -> _Blocks:
    layout = page.value(_PLANES, 1)
    if layout not in {1, 2}:
        raise ImageRefused(Rule.BAD_HEADER, "samples neither together nor apart")
    planes = samples if layout == 2 else 1
    if _TILE_WIDTH in page.entries:
        across, down = page.value(_TILE_WIDTH), page.value(_TILE_HEIGHT)
        if not 1 <= across <= SIDE_LIMIT_PX or not 1 <= down <= SIDE_LIMIT_PX:
            raise ImageRefused(Rule.BAD_HEADER, "tiles of an impossible size")
        check_size(across, down, 2 * samples)
    else:
        across, down = width, min(page.value(_ROWS_PER_STRIP, height), height)
        if not down:
            raise ImageRefused(Rule.BAD_HEADER, "strips without rows")
    return _Blocks(across, down, planes, -(-width // across) * -(-height // down) * planes)


def _check_blocks(page: _Page, blocks: _Blocks, raw_bits: int, height: int) -> None:
    """Raises ImageRefused unless all blocks are inside the file, and hold their pixels (`raw_bits` each; 0: compressed)."""
    if blocks.number > DATA_CHUNKS_LIMIT:
        raise ImageRefused(Rule.TOO_MANY_CHUNKS, f"more than {DATA_CHUNKS_LIMIT} strips or tiles")
    tiled = _TILE_WIDTH in page.entries
    offsets = page.values(_TILE_OFFSETS if tiled else _STRIP_OFFSETS, DATA_CHUNKS_LIMIT)
    lengths = page.values(_TILE_BYTES if tiled else _STRIP_BYTES, DATA_CHUNKS_LIMIT)
    if not len(offsets) == len(lengths) == blocks.number:
        raise ImageRefused(Rule.BAD_HEADER, "more or fewer strips or tiles than the picture has")
    if any(offset + length > len(page.view) for offset, length in zip(offsets, lengths, strict=True)):
        raise ImageRefused(Rule.TRUNCATED, "a strip or tile is outside the file")
    # Strips that share their bytes would make a small file a large amount of work.
    if sum(lengths) > len(page.view):
        raise ImageRefused(Rule.BAD_FRAMING, "strips or tiles overlap")
    row = (raw_bits * blocks.width + 7) // 8
    down = -(-height // blocks.height)
    for number, length in enumerate(lengths):
        # The last strip of a picture has the rows that are left over; a tile is always whole.
        short = not tiled and number % down == down - 1
        rows = height - (down - 1) * blocks.height if short else blocks.height
        if length < max(1, row * rows):
            raise ImageRefused(Rule.TRUNCATED, "a strip or tile without all its pixels")
