"""The walk of WebP: the RIFF frame, the one picture in it, and a VP8X header that says what is kept."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from services.provider_pool.references import exif, icc
from services.provider_pool.references.walked import (
    CHUNKS_LIMIT,
    PROFILE_LIMIT_BYTES,
    ImageLimits,
    ImageRefused,
    Rule,
    Walked,
    check_animated,
    check_size,
)

_HEAD_BYTES: Final = 12
_FRAME: Final = struct.Struct("<4sI")
_PICTURES: Final = {b"VP8 ", b"VP8L"}
_ANIMATION: Final = {b"ANIM", b"ANMF"}
_EXTENDED_BYTES: Final = 10
_PLACE_BYTES: Final = 16

_HAS_PROFILE: Final = 0x20
_HAS_ALPHA: Final = 0x10
_HAS_EXIF: Final = 0x08
_HAS_ANIMATION: Final = 0x02

_START_CODE: Final = b"\x9d\x01\x2a"
_BYTES_PER_PIXEL: Final = 4


@dataclass(slots=True)
class _Picture:
    """One coded picture: its size as the bitstream has it, and where its chunks' data are."""

    width: int = 0
    height: int = 0
    transparent: bool = False
    name: bytes = b""
    data: memoryview | None = None
    alpha: memoryview | None = None


@dataclass(slots=True)
class _File:
    """What is known and kept of a file while its chunks go by."""

    picture: _Picture
    canvas: tuple[int, int] | None = None
    flags: int = 0
    chunks: int = 0
    frames: int = 0
    profile: bytes | None = None
    orientation: int | None = None


def walk(view: memoryview, limits: ImageLimits) -> Walked:
    file = _File(_Picture())
    for name, data in _chunks(_body(view)):
        _count(file)
        if file.chunks == 1 and name != b"VP8X" and name not in _PICTURES:
            raise ImageRefused(Rule.BAD_FRAMING, "the first chunk is neither a picture nor a header")
        _take(file, name, data, limits)
    if file.flags & _HAS_ANIMATION:
        return _animated(file)
    picture = file.picture
    _check_whole(picture, file.canvas)
    return Walked("webp", picture.width, picture.height, False, _pieces(file))


def _count(file: _File) -> None:
    """One chunk more, of the file or of a frame in it."""
    file.chunks += 1
    if file.chunks > CHUNKS_LIMIT:
        raise ImageRefused(Rule.TOO_MANY_CHUNKS, f"more than {CHUNKS_LIMIT} chunks")


def _body(view: memoryview) -> memoryview:
    """The chunks: what RIFF counts, and nothing that follows."""
    size = int.from_bytes(view[4:8], "little")
    if size < 4 or 8 + size > len(view):
        raise ImageRefused(Rule.TRUNCATED, "the file is shorter than it says")
    return view[_HEAD_BYTES : 8 + size]


def _chunks(body: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    at = 0
    while at < len(body):
        if at + _FRAME.size > len(body):
            raise ImageRefused(Rule.TRUNCATED, "a chunk is cut short")
        name, length = _FRAME.unpack_from(body, at)
        start = at + _FRAME.size
        if start + length > len(body):
            raise ImageRefused(Rule.TRUNCATED, "a chunk is cut short")
        yield name, body[start : start + length]
        # Of the last chunk some writers leave out the byte that makes it even.
        at = start + length + length % 2


def _take(file: _File, name: bytes, data: memoryview, limits: ImageLimits) -> None:
    """The next chunk. What the header does not announce is not there for decoders, nor for us."""
    if name == b"VP8X":
        _take_header(file, data, limits)
    elif name in _PICTURES or (name == b"ALPH" and file.flags & _HAS_ALPHA):
        _take_picture(file.picture, name, data)
    elif name in _ANIMATION:
        if not file.flags & _HAS_ANIMATION:
            raise ImageRefused(Rule.BAD_FRAMING, "frames of an animation in a single picture")
        if name == b"ANMF":
            _take_frame(file, data)
    elif name == b"ICCP" and file.flags & _HAS_PROFILE and file.profile is None:
        file.profile = icc.sound(bytes(data)) if len(data) <= PROFILE_LIMIT_BYTES else None
    elif name == b"EXIF" and file.flags & _HAS_EXIF and file.orientation is None:
        file.orientation = exif.orientation(data)


def _take_header(file: _File, data: memoryview, limits: ImageLimits) -> None:
    if file.canvas is not None or file.picture.name or len(data) != _EXTENDED_BYTES:
        raise ImageRefused(Rule.BAD_FRAMING, "a second header, or one of another length")
    file.flags = data[0]
    file.canvas = (_three(data, 4) + 1, _three(data, 7) + 1)
    check_size(*file.canvas, _BYTES_PER_PIXEL)
    check_animated(bool(file.flags & _HAS_ANIMATION), limits)


def _take_picture(picture: _Picture, name: bytes, data: memoryview) -> None:
    if name == b"ALPH":
        if picture.alpha is not None or not data:
            raise ImageRefused(Rule.BAD_FRAMING, "a second alpha channel, or an empty one")
        picture.alpha = None if picture.name else data  # it stands before its picture
        return
    if picture.name:
        raise ImageRefused(Rule.BAD_FRAMING, "a second picture")
    picture.name, picture.data = name, data
    if name == b"VP8 ":
        picture.width, picture.height = _lossy_size(data)
        picture.transparent = picture.alpha is not None
    else:
        picture.width, picture.height, picture.transparent = _lossless_size(data)
        picture.alpha = None  # it has its own
    check_size(picture.width, picture.height, _BYTES_PER_PIXEL)


def _lossy_size(data: memoryview) -> tuple[int, int]:
    if len(data) < 10:
        raise ImageRefused(Rule.TRUNCATED, "a picture without its header")
    tag = _three(data, 0)
    if tag & 1 or bytes(data[3:6]) != _START_CODE:
        raise ImageRefused(Rule.BAD_HEADER, "a picture that is no key frame")
    if tag >> 1 & 7 > 3 or not tag >> 4 & 1:
        raise ImageRefused(Rule.BAD_HEADER, "a picture of no known profile, or not to be shown")
    if 10 + (tag >> 5) > len(data):
        raise ImageRefused(Rule.TRUNCATED, "a picture's first partition is cut short")
    width, height = struct.unpack_from("<HH", data, 6)
    return width & 0x3FFF, height & 0x3FFF


def _lossless_size(data: memoryview) -> tuple[int, int, bool]:
    if len(data) < 6:
        raise ImageRefused(Rule.TRUNCATED, "a picture without its header")
    if data[0] != 0x2F:
        raise ImageRefused(Rule.BAD_HEADER, "a lossless picture without its signature")
    bits = int.from_bytes(data[1:5], "little")
    if bits >> 29:
        raise ImageRefused(Rule.BAD_HEADER, "a lossless picture of a version that there is not")
    return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bool(bits >> 28 & 1)


def _take_frame(file: _File, data: memoryview) -> None:
    """A frame of an animation: inside the canvas, and of the size that its own picture has."""
    if len(data) < _PLACE_BYTES or file.canvas is None:
        raise ImageRefused(Rule.TRUNCATED, "a frame without its header")
    left, top = 2 * _three(data, 0), 2 * _three(data, 3)
    size = (_three(data, 6) + 1, _three(data, 9) + 1)
    if left + size[0] > file.canvas[0] or top + size[1] > file.canvas[1]:
        raise ImageRefused(Rule.SIZE_MISMATCH, "a frame reaches out of the canvas")
    picture = _Picture()
    for name, part in _chunks(data[_PLACE_BYTES:]):
        _count(file)
        if name == b"ALPH" or name in _PICTURES:
            _take_picture(picture, name, part)
    _check_whole(picture, size)
    file.frames += 1


def _check_whole(picture: _Picture, size: tuple[int, int] | None) -> None:
    if not picture.name:
        raise ImageRefused(Rule.TRUNCATED, "no picture data")
    if size not in {None, (picture.width, picture.height)}:
        raise ImageRefused(Rule.SIZE_MISMATCH, "the picture has another size than its header says")


def _animated(file: _File) -> Walked:
    if file.canvas is None or not file.frames or file.picture.name:
        raise ImageRefused(Rule.BAD_FRAMING, "an animation without frames, or with a picture beside them")
    return Walked("webp", *file.canvas, animated=True, pieces=None)


def _pieces(file: _File) -> tuple[memoryview | bytes, ...]:
    picture = file.picture
    assert picture.data is not None
    if file.canvas is None:
        return _riff(_chunk(picture.name, picture.data))
    turned = file.orientation or exif.UPRIGHT
    # Decoders go by this flag, and not by the picture.
    flags = file.flags & _HAS_ALPHA
    parts: list[memoryview | bytes] = []
    if file.profile is not None:
        flags |= _HAS_PROFILE
        parts += _chunk(b"ICCP", file.profile)
    if picture.alpha is not None:
        parts += _chunk(b"ALPH", picture.alpha)
    parts += _chunk(picture.name, picture.data)
    if turned != exif.UPRIGHT:
        flags |= _HAS_EXIF
        parts += _chunk(b"EXIF", exif.only(turned))
    if picture.alpha is not None or flags != (_HAS_ALPHA if picture.transparent else 0):
        size = (picture.width - 1).to_bytes(3, "little") + (picture.height - 1).to_bytes(3, "little")
        parts = [*_chunk(b"VP8X", bytes((flags, 0, 0, 0)) + size), *parts]
    return _riff(parts)


def _riff(parts: list[memoryview | bytes]) -> tuple[memoryview | bytes, ...]:
    return (b"RIFF" + (4 + sum(map(len, parts))).to_bytes(4, "little") + b"WEBP", *parts)


def _chunk(name: bytes, data: memoryview | bytes) -> list[memoryview | bytes]:
    return [_FRAME.pack(name, len(data)), data, *([b"\0"] if len(data) % 2 else [])]


def _three(data: memoryview, at: int) -> int:
    return int.from_bytes(data[at : at + 3], "little")
