"""The walk of JPEG: every segment, every scan to the EOI that ends the primary image; tables and scans are kept as they are."""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Callable
from typing import Final

from services.provider_pool.references import exif, icc
from services.provider_pool.references.walked import (
    CHUNKS_LIMIT,
    PROFILE_LIMIT_BYTES,
    SCANS_LIMIT,
    ImageLimits,
    ImageRefused,
    Pieces,
    Rule,
    Walked,
    check_size,
    starts,
)

_SOI: Final = b"\xff\xd8"
_EOI: Final = 0xD9
_SOS: Final = 0xDA
_DQT: Final = 0xDB
_DNL: Final = 0xDC
_DRI: Final = 0xDD
_DHT: Final = 0xC4
_PROGRESSIVE: Final = 0xC2
_FRAMES: Final = {0xC0, 0xC1, _PROGRESSIVE}  # baseline, extended, progressive: all with Huffman coding
# Lossless, hierarchical and arithmetic frames, JPEG-LS, and what only they use (DAC, DHP, EXP, JPGn).
_UNSUPPORTED: Final = {0xC3, *range(0xC5, 0xD0), 0xDE, 0xDF, *range(0xF0, 0xFE)}
_APP0: Final = 0xE0
_APP1: Final = 0xE1
_APP2: Final = 0xE2
_APP14: Final = 0xEE
_DROPPED: Final = {
    *range(0xE0, 0xF0),
    0xFE,
    _DNL,
}  # DNL: the height is in the frame header, and decoders go by that

# Some cameras round segments up with zeros, and decoders go over them.
_FILL: Final = re.compile(rb"\x00*+\xff+")
# A marker inside picture data: FF that is followed neither by a stuffed zero, nor a restart, nor another FF. One pair at
# a time, so that a run of FF costs no more than its length.
_MARKER: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")

_JFIF: Final = b"JFIF\0"
_JFIF_BYTES: Final = 14
_ADOBE: Final = b"Adobe"
_ADOBE_BYTES: Final = 12
_PROFILE: Final = b"ICC_PROFILE\0"
_PROFILE_HEAD_BYTES: Final = 14
_PROFILE_PART_BYTES: Final = 65_533 - _PROFILE_HEAD_BYTES
_COMPONENTS: Final = {1, 3, 4}


def walk(view: memoryview, limits: ImageLimits) -> Walked:
    del limits  # a JPEG has one frame
    picture = _Picture(view)
    at, segments = len(_SOI), 0
    while True:
        marker, at = _marker(view, at)
        if marker == _EOI:
            break
        _check_kind(marker)
        start, end = _segment(view, at)
        segments += 1
        if segments > CHUNKS_LIMIT:
            raise ImageRefused(Rule.TOO_MANY_CHUNKS, f"more than {CHUNKS_LIMIT} segments")
        picture.take(marker, start, end)
        at = picture.scan(end) if marker == _SOS else end
    picture.check_whole()
    return Walked("jpeg", picture.width, picture.height, False, picture.pieces())


def _marker(view: memoryview, at: int) -> tuple[int, int]:
    """The marker at `at`, and where what belongs to it starts. Any number of zeros and FF may stand before it."""
    fill = _FILL.match(view, at)
    if fill is None:
        if at >= len(view):
            raise ImageRefused(Rule.TRUNCATED, "no EOI")
        raise ImageRefused(Rule.BAD_FRAMING, "no marker where one must be")
    if fill.end() == len(view):
        raise ImageRefused(Rule.TRUNCATED, "no EOI")
    return view[fill.end()], fill.end() + 1


def _check_kind(marker: int) -> None:
    """Raises ImageRefused for a marker that no segment of a JPEG that is taken starts with."""
    if marker in _UNSUPPORTED:
        raise ImageRefused(Rule.UNSUPPORTED_CODING, "an arithmetic, lossless or hierarchical JPEG")
    if marker not in _DROPPED and marker not in _TABLES:
        raise ImageRefused(Rule.BAD_FRAMING, "a marker where none may be")


def _segment(view: memoryview, at: int) -> tuple[int, int]:
    """Start and end of the data of a segment whose length is at `at`."""
    length = int.from_bytes(view[at : at + 2], "big")
    if at + 2 > len(view) or at + length > len(view):
        raise ImageRefused(Rule.TRUNCATED, "a segment is cut short")
    if length < 2:
        raise ImageRefused(Rule.BAD_FRAMING, "a segment shorter than its own length")
    return at + 2, at + length


class _Picture:
    """What is known and kept of a file while its segments go by."""

    def __init__(self, view: memoryview) -> None:
        self.width = 0
        self.height = 0
        self._view = view
        self._kept = Pieces(view)
        self._frame = 0
        # Counted, for there are encoders that give all components one name.
        self._components: Counter[int] = Counter()
        self._scanned: Counter[int] = Counter()
        self._scans = 0
        self._jfif: bytes | None = None
        self._adobe: bytes | None = None
        self._orientation: int | None = None
        self._profile: dict[int, memoryview] = {}
        self._profile_parts: int | None = None
        self._profile_sound = True

    def take(self, marker: int, start: int, end: int) -> None:
        """The next segment. Raises ImageRefused where it may not stand, or makes no sense."""
        data = self._view[start:end]
        if marker in _DROPPED:
            # Decoders have made up their minds about colours and orientation when the first scan starts.
            if marker in _DESCRIBED and not self._scans:
                _DESCRIBED[marker](self, data)
            return
        if marker in _FRAMES:
            if self._frame:
                raise ImageRefused(Rule.BAD_FRAMING, "a second frame header")
            self._frame = marker
        _TABLES[marker](self, data)
        self._kept.keep(start - 4, end)

    def scan(self, start: int) -> int:
        """Keeps the picture data at `start`; where the marker is that ends it."""
        found = _MARKER.search(self._view, start)
        if found is None:
            raise ImageRefused(Rule.TRUNCATED, "no EOI")
        if found.start() == start:
            raise ImageRefused(Rule.TRUNCATED, "a scan without data")
        self._kept.keep(start, found.start())
        return found.start()

    def check_whole(self) -> None:
        """Raises ImageRefused where the file has ended without a picture."""
        if not self._frame or self._scanned != self._components:
            raise ImageRefused(Rule.TRUNCATED, "EOI comes before the whole picture")

    def pieces(self) -> tuple[memoryview | bytes, ...]:
        turned = self._orientation or exif.UPRIGHT
        described = [_SOI]
        if self._jfif is not None:
            described.append(_made(_APP0, self._jfif))
        if turned != exif.UPRIGHT:
            described.append(_made(_APP1, exif.PREFIX + exif.only(turned)))
        described.extend(_made(_APP2, part) for part in self._profile_segments())
        if self._adobe is not None:
            described.append(_made(_APP14, self._adobe))
        return (b"".join(described), *self._kept.views(), b"\xff\xd9")

    def take_jfif(self, data: memoryview) -> None:
        if starts(data, _JFIF) and len(data) >= _JFIF_BYTES:
            self._jfif = bytes(data[: _JFIF_BYTES - 2]) + b"\0\0"  # no thumbnail

    def take_adobe(self, data: memoryview) -> None:
        if starts(data, _ADOBE) and len(data) >= _ADOBE_BYTES:
            self._adobe = bytes(data[:_ADOBE_BYTES])

    def take_exif(self, data: memoryview) -> None:
        if self._orientation is None and starts(data, exif.PREFIX):
            self._orientation = exif.orientation(data)

    def take_profile(self, data: memoryview) -> None:
        if not starts(data, _PROFILE) or len(data) < _PROFILE_HEAD_BYTES:
            return
        number, parts = data[len(_PROFILE)], data[len(_PROFILE) + 1]
        if number in self._profile or not 1 <= number <= parts or self._profile_parts not in {None, parts}:
            self._profile_sound = False
        self._profile_parts = parts
        self._profile[number] = data[_PROFILE_HEAD_BYTES:]

    def _profile_segments(self) -> list[bytes]:
        """The profile in segments of our own; none if a part is missing, or the whole is no profile."""
        if not self._profile_sound or len(self._profile) != self._profile_parts:
            return []
        if sum(map(len, self._profile.values())) > PROFILE_LIMIT_BYTES:
            return []
        profile = icc.sound(b"".join(self._profile[number] for number in sorted(self._profile)))
        if profile is None:
            return []
        parts = [profile[at : at + _PROFILE_PART_BYTES] for at in range(0, len(profile), _PROFILE_PART_BYTES)]
        return [_PROFILE + bytes((number, len(parts))) + part for number, part in enumerate(parts, 1)]

    def take_frame(self, data: memoryview) -> None:
        if len(data) < 6:
            raise ImageRefused(Rule.BAD_FRAMING, "a frame header that is too short")
        precision, self.height, self.width, number = struct.unpack_from(">BHHB", data)
        if precision != 8 or number not in _COMPONENTS:
            raise ImageRefused(Rule.UNSUPPORTED_CODING, "samples that are not 8 bits, or 2 components")
        if len(data) != 6 + 3 * number:
            raise ImageRefused(Rule.BAD_FRAMING, "a frame header of another length than its components")
        check_size(self.width, self.height, number)
        for _, sampling, table in struct.iter_unpack("BBB", data[6:]):
            if not 1 <= sampling >> 4 <= 4 or not 1 <= sampling & 15 <= 4 or table > 3:
                raise ImageRefused(Rule.BAD_HEADER, "a component's sampling or table")
        self._components = Counter(data[6::3])

    def take_scan(self, data: memoryview) -> None:
        if not self._frame:
            raise ImageRefused(Rule.BAD_FRAMING, "a scan before the frame header")
        self._scans += 1
        if self._scans > SCANS_LIMIT:
            raise ImageRefused(Rule.TOO_MANY_SCANS, f"more than {SCANS_LIMIT} scans")
        number = data[0] if data else 0
        if not 1 <= number <= 4 or len(data) != 4 + 2 * number:
            raise ImageRefused(Rule.BAD_FRAMING, "a scan header of another length than its components")
        chosen = Counter(data[1 : 1 + 2 * number : 2])
        tables = set(data[2 : 2 + 2 * number : 2])
        if not chosen <= self._components or any(t & 0xCC for t in tables):
            raise ImageRefused(Rule.BAD_HEADER, "a scan of components or tables that there are not")
        first, last, approximation = data[-3:]
        if self._frame == _PROGRESSIVE and not (
            first <= last <= 63 and approximation >> 4 <= 13 and approximation & 15 <= 13
        ):
            raise ImageRefused(Rule.BAD_HEADER, "a scan of coefficients that there are not")
        self._scanned |= chosen


def _check_quantization(_: _Picture, data: memoryview) -> None:
    """Raises ImageRefused unless the segment is whole tables of 64 values of one or two bytes."""
    at = 0
    while at < len(data):
        wide, name = divmod(data[at], 16)
        if wide > 1 or name > 3:
            raise ImageRefused(Rule.BAD_HEADER, "a quantization table")
        at += 1 + 64 * (wide + 1)
    if at != len(data) or not at:
        raise ImageRefused(Rule.BAD_FRAMING, "a quantization table of another length")


def _check_huffman(_: _Picture, data: memoryview) -> None:
    """Raises ImageRefused unless the segment is whole tables: 16 counts, and as many values."""
    at = 0
    while at < len(data):
        values = sum(data[at + 1 : at + 17])
        if data[at] & ~0x13 or values > 256:
            raise ImageRefused(Rule.BAD_HEADER, "a Huffman table")
        at += 17 + values
    if at != len(data) or not at:
        raise ImageRefused(Rule.BAD_FRAMING, "a Huffman table of another length")


def _check_restart(_: _Picture, data: memoryview) -> None:
    if len(data) != 2:
        raise ImageRefused(Rule.BAD_FRAMING, "a restart interval of another length")


# Outside the class: bound methods kept by an instance would be a circle, and hold on to the file until it is collected.
_DESCRIBED: Final[dict[int, Callable[[_Picture, memoryview], None]]] = {
    _APP0: _Picture.take_jfif,
    _APP1: _Picture.take_exif,
    _APP2: _Picture.take_profile,
    _APP14: _Picture.take_adobe,
}
_TABLES: Final[dict[int, Callable[[_Picture, memoryview], None]]] = {
    _DQT: _check_quantization,
    _DHT: _check_huffman,
    _DRI: _check_restart,
    _SOS: _Picture.take_scan,
    **dict.fromkeys(_FRAMES, _Picture.take_frame),
}


def _made(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data
