"""The walk of PNG: every chunk's frame and checksum, the header's combinations, the order; what is not the picture goes."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from services.provider_pool.references import exif, icc
from services.provider_pool.references.walked import (
    CHUNKS_LIMIT,
    DATA_CHUNKS_LIMIT,
    PROFILE_LIMIT_BYTES,
    ImageLimits,
    ImageRefused,
    Pieces,
    Rule,
    Walked,
    check_animated,
    check_size,
    starts,
)

_SIGNATURE_BYTES: Final = 8
_FRAME: Final = struct.Struct(">I4s")
_FRAME_BYTES: Final = 12  # length and type before the data, the checksum after it
_LENGTH_LIMIT: Final = 0x7FFF_FFFF
_HEADER: Final = struct.Struct(">IIBBBBB")

_GREY: Final = 0
_COLOUR: Final = 2
_PALETTE: Final = 3
_GREY_ALPHA: Final = 4
_COLOUR_ALPHA: Final = 6
_CHANNELS: Final = {_GREY: 1, _COLOUR: 3, _PALETTE: 1, _GREY_ALPHA: 2, _COLOUR_ALPHA: 4}
_DEPTHS: Final = {
    _GREY: {1, 2, 4, 8, 16},
    _COLOUR: {8, 16},
    _PALETTE: {1, 2, 4, 8},
    _GREY_ALPHA: {8, 16},
    _COLOUR_ALPHA: {8, 16},
}

# What says how the samples are to be shown, with its one length. All but the last stand before the palette, too. One that
# is out of place, of another length or repeated is dropped: decoders ignore it, and so it says the same to all.
_SHOWN: Final = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"cICP": 4, b"pHYs": 9}
_SIGNIFICANT_BITS: Final = {_GREY: 1, _COLOUR: 3, _PALETTE: 3, _GREY_ALPHA: 2, _COLOUR_ALPHA: 4}
_BEFORE_PALETTE: Final = {b"gAMA", b"cHRM", b"sRGB", b"cICP", b"sBIT", b"iCCP"}
_TRANSPARENT: Final = {_GREY: 2, _COLOUR: 6}

_PROFILE_NAME_LIMIT: Final = 79
_PROFILE_NAME: Final = b"ICC\0\0"  # a name of our own, and the one compression there is
# Where ImageMagick and exiv2 have put EXIF since before there was a chunk for it.
_EXIF_KEYWORD: Final = b"Raw profile type exif\0"
# The orientation is among the first hundreds of bytes; whole EXIF is at most twice this.
_EXIF_TEXT_LIMIT: Final = 65_536
_END: Final = b"\0\0\0\0IEND\xaeB`\x82"


@dataclass(frozen=True, slots=True)
class _Header:
    width: int
    height: int
    depth: int
    colour: int


def walk(view: memoryview, limits: ImageLimits) -> Walked:
    header = _header(view)
    picture = _Picture(view, header)
    for name, start, end in _chunks(view):
        picture.take(name, start, end)
    picture.check_whole()
    check_animated(picture.animated, limits)
    return Walked("png", header.width, header.height, picture.animated, picture.pieces())


def _header(view: memoryview) -> _Header:
    """What the first chunk says. Its checksum is judged later, with those of the others."""
    at = _SIGNATURE_BYTES
    if len(view) < at + _FRAME_BYTES + _HEADER.size:
        raise ImageRefused(Rule.TRUNCATED, "no header")
    length, name = _FRAME.unpack_from(view, at)
    if name == b"CgBI":
        raise ImageRefused(Rule.UNSUPPORTED_CODING, "a PNG of Apple's own kind")
    if name != b"IHDR" or length != _HEADER.size:
        raise ImageRefused(Rule.BAD_FRAMING, "the first chunk is no header")
    width, height, depth, colour, compression, filtering, interlace = _HEADER.unpack_from(view, at + 8)
    if depth not in _DEPTHS.get(colour, ()) or compression or filtering or interlace > 1:
        raise ImageRefused(Rule.BAD_HEADER, "IHDR combines values that the format does not have")
    check_size(width, height, _CHANNELS[colour] * (2 if depth == 16 else 1))
    return _Header(width, height, depth, colour)


def _chunks(view: memoryview) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of the data of every chunk through IEND. What follows IEND is not looked at."""
    at = _SIGNATURE_BYTES
    name = b""
    while name != b"IEND":
        if at + _FRAME_BYTES > len(view):
            raise ImageRefused(Rule.TRUNCATED, "no IEND")
        length, name = _FRAME.unpack_from(view, at)
        if length > _LENGTH_LIMIT or not name.isalpha():
            raise ImageRefused(Rule.BAD_FRAMING, "no chunk where one must be")
        end = at + _FRAME_BYTES + length
        if end > len(view):
            raise ImageRefused(Rule.TRUNCATED, "a chunk is cut short")
        if zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise ImageRefused(Rule.BAD_CHECKSUM, "a chunk's checksum")
        yield name, at + 8, end - 4
        at = end


class _Picture:
    """What is known and kept of a file while its chunks go by."""

    def __init__(self, view: memoryview, header: _Header) -> None:
        self._view = view
        self._header = header
        self._before: list[memoryview | bytes] = [view[:_SIGNATURE_BYTES]]
        self._data = Pieces(view)
        self._data_bytes = 0
        self._data_chunks = 0
        self._other_chunks = 0
        self._seen: set[bytes] = set()
        self._last = b""
        self._palette_entries = 0
        self._orientation: int | None = None
        self._text_orientation: int | None = None
        self._announced_frames = 0
        self._frames = 0
        self._picture_is_frame = False

    def take(self, name: bytes, start: int, end: int) -> None:
        """The next chunk. Raises ImageRefused where it may not stand, or is critical and unknown."""
        if name != b"IDAT":
            self._other_chunks += 1
            if self._other_chunks > CHUNKS_LIMIT:
                raise ImageRefused(Rule.TOO_MANY_CHUNKS, f"more than {CHUNKS_LIMIT} chunks besides IDAT")
        handler = _HANDLERS.get(name)
        if handler is not None:
            handler(self, name, start, end)
        elif name[:1].isupper():
            raise ImageRefused(Rule.UNSUPPORTED_CODING, "a critical chunk that is not known")
        self._seen.add(name)
        self._last = name

    @property
    def animated(self) -> bool:
        """Whether there is more than the picture to be seen. An animation may have one frame, which is the picture."""
        one = self._announced_frames == self._frames == 1 and self._picture_is_frame
        return b"acTL" in self._seen and not one

    def check_whole(self) -> None:
        """Raises ImageRefused where the file has ended without a picture."""
        if not self._data_bytes:
            raise ImageRefused(Rule.TRUNCATED, "no picture data")

    def pieces(self) -> tuple[memoryview | bytes, ...]:
        turned = self._orientation or self._text_orientation or exif.UPRIGHT
        extra = [] if turned == exif.UPRIGHT else [_chunk(b"eXIf", exif.only(turned))]
        return (*self._before, *extra, *self._data.views(), _END)

    def _keep(self, start: int, end: int) -> None:
        self._before.append(self._view[start - 8 : end + 4])

    def _keep_entries(self, name: bytes, start: int, end: int, entry_bytes: int) -> None:
        """Keeps of a chunk as many entries as a sample can name. Some encoders write 256, whatever the depth."""
        nameable = start + (entry_bytes << self._header.depth)
        if end <= nameable:
            self._keep(start, end)
        else:
            self._before.append(_chunk(name, bytes(self._view[start:nameable])))

    def _once(self, name: bytes, *before: bytes) -> None:
        if name in self._seen or any(other in self._seen for other in before):
            raise ImageRefused(Rule.BAD_FRAMING, "a chunk is repeated or out of order")

    def take_header(self, name: bytes, start: int, end: int) -> None:
        self._once(name)
        self._keep(start, end)

    def take_palette(self, name: bytes, start: int, end: int) -> None:
        self._once(name, b"IDAT", b"tRNS")
        entries, rest = divmod(end - start, 3)
        if self._header.colour in {_GREY, _GREY_ALPHA} or rest or not 1 <= entries <= 256:
            raise ImageRefused(Rule.BAD_HEADER, "a palette that does not belong to the header")
        if self._header.colour != _PALETTE:
            return  # advice for displays of 256 colours
        self._palette_entries = entries
        self._keep_entries(name, start, end, 3)

    def take_data(self, name: bytes, start: int, end: int) -> None:
        if name in self._seen and self._last != name:
            raise ImageRefused(Rule.BAD_FRAMING, "picture data with something in between")
        if self._header.colour == _PALETTE and not self._palette_entries:
            raise ImageRefused(Rule.BAD_FRAMING, "no palette")
        self._data_chunks += 1
        if self._data_chunks > DATA_CHUNKS_LIMIT:
            raise ImageRefused(Rule.TOO_MANY_CHUNKS, f"more than {DATA_CHUNKS_LIMIT} IDAT chunks")
        self._data_bytes += end - start
        self._data.keep(start - 8, end + 4)

    def take_end(self, name: bytes, start: int, end: int) -> None:
        if start != end:
            raise ImageRefused(Rule.BAD_FRAMING, "IEND is not empty")

    def take_transparency(self, name: bytes, start: int, end: int) -> None:
        colour, length = self._header.colour, end - start
        if colour in {_GREY_ALPHA, _COLOUR_ALPHA}:
            return  # means nothing beside an alpha channel
        self._once(name, b"IDAT")
        sound = 1 <= length <= self._palette_entries if colour == _PALETTE else length == _TRANSPARENT[colour]
        if not sound:
            raise ImageRefused(Rule.BAD_HEADER, "tRNS does not belong to the header")
        if colour == _PALETTE:
            self._keep_entries(name, start, end, 1)
        else:
            self._keep(start, end)

    def take_shown(self, name: bytes, start: int, end: int) -> None:
        expected = _SIGNIFICANT_BITS[self._header.colour] if name == b"sBIT" else _SHOWN[name]
        if end - start == expected and self._in_place(name):
            self._keep(start, end)

    def _in_place(self, name: bytes) -> bool:
        late = {name, b"IDAT", b"PLTE"} if name in _BEFORE_PALETTE else {name, b"IDAT"}
        return not late & self._seen

    def take_profile(self, name: bytes, start: int, end: int) -> None:
        if self._in_place(name) and (profile := _profile(self._view[start:end])) is not None:
            self._before.append(_chunk(b"iCCP", _PROFILE_NAME + zlib.compress(profile)))

    def take_orientation(self, name: bytes, start: int, end: int) -> None:
        if self._orientation is None:
            self._orientation = exif.orientation(self._view[start:end])

    def take_text(self, name: bytes, start: int, end: int) -> None:
        if self._text_orientation is None and (text := _exif_text(name, self._view[start:end])) is not None:
            self._text_orientation = exif.orientation_in_text(text)

    # The frames of an animation go; what stays is the default image, which every decoder of single pictures shows.

    def take_animation(self, name: bytes, start: int, end: int) -> None:
        self._announced_frames = int.from_bytes(self._view[start : min(end, start + 4)], "big")

    def take_frame(self, name: bytes, start: int, end: int) -> None:
        self._frames += 1
        self._picture_is_frame |= b"IDAT" not in self._seen


# Outside the class: bound methods kept by an instance would be a circle, and hold on to the file until it is collected.
_HANDLERS: Final[dict[bytes, Callable[[_Picture, bytes, int, int], None]]] = {
    b"IHDR": _Picture.take_header,
    b"PLTE": _Picture.take_palette,
    b"IDAT": _Picture.take_data,
    b"IEND": _Picture.take_end,
    b"tRNS": _Picture.take_transparency,
    b"iCCP": _Picture.take_profile,
    b"eXIf": _Picture.take_orientation,
    b"acTL": _Picture.take_animation,
    b"fcTL": _Picture.take_frame,
    b"tEXt": _Picture.take_text,
    b"zTXt": _Picture.take_text,
    b"sBIT": _Picture.take_shown,
    **dict.fromkeys(_SHOWN, _Picture.take_shown),
}


def _profile(data: memoryview) -> bytes | None:
    """The profile in an iCCP chunk, inflated within its limit; None if there is none."""
    name = bytes(data[: _PROFILE_NAME_LIMIT + 1]).find(b"\0")
    # What is longer than the limit before it is inflated is not looked into: deflate does not lengthen by more.
    if name < 1 or bytes(data[name + 1 : name + 2]) != b"\0" or len(data) > PROFILE_LIMIT_BYTES + 65_536:
        return None
    inflating = zlib.decompressobj()
    try:
        profile = inflating.decompress(data[name + 2 :], PROFILE_LIMIT_BYTES + 1)
    except zlib.error:
        return None
    return icc.sound(profile) if inflating.eof else None


def _exif_text(name: bytes, data: memoryview) -> bytes | None:
    """The start of a text that holds EXIF, inflated within its limit; None for any other text."""
    if not starts(data, _EXIF_KEYWORD):
        return None
    text = data[len(_EXIF_KEYWORD) :][:_EXIF_TEXT_LIMIT]
    if name == b"tEXt":
        return bytes(text)
    try:
        return zlib.decompressobj().decompress(text[1:], _EXIF_TEXT_LIMIT) if starts(text, b"\0") else b""
    except zlib.error:
        return b""


def _chunk(name: bytes, data: bytes) -> bytes:
    return _FRAME.pack(len(data), name) + data + zlib.crc32(data, zlib.crc32(name)).to_bytes(4, "big")
