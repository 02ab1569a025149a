"""What a media file is, told by its bytes: type, pixels, length. Reads headers only, and trusts nothing in them."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Final

from services.provider_pool.media.sound_probe import mp3_duration_ms, wav_duration_ms

TEXT_LIMIT_BYTES: Final = 64 * 1024
"""Of a written output; two thousand words are a quarter of that."""

_HEAD_BYTES: Final = 64
# Boxes inside boxes inside a film's index; real files have three levels and a few dozen boxes.
_BOX_LIMIT: Final = 10_000
_JPEG_SEGMENT_LIMIT: Final = 1_000
# Letters, signs and white space, and no character that steers something.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
# An error page of a provider's is no text that anybody asked for.
_MARKUP: Final = ("<!doctype", "<html", "<?xml", "<svg", "\ufeff<")
# Start-of-frame markers; the gaps are tables and markers of other meaning.
_JPEG_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


class UnknownMedia(Exception):
    """The bytes are no file of a kind that is stored, or a broken one."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Pixels and length are 0 where the type has none or they are not in its header."""

    content_type: str
    extension: str
    width: int = 0
    height: int = 0
    duration_ms: int = 0


def probe(path: Path) -> Probe:
    """Look at a file. Raises UnknownMedia."""
    with path.open("rb") as file:
        return _probe(file)


def probe_bytes(content: bytes) -> Probe:
    """The same of a file that is in memory."""
    return _probe(BytesIO(content))


def _probe(file: BinaryIO) -> Probe:
    head = file.read(_HEAD_BYTES)
    try:
        found = _recognise(head, file)
    except (struct.error, IndexError, ValueError) as error:
        raise UnknownMedia(f"a broken file: {error}") from error
    if found is None:
        raise UnknownMedia("not a file of a known type")
    return found


def _recognise(head: bytes, file: BinaryIO) -> Probe | None:
    if head.startswith(b"\x89PNG\r\n\x1a\n") and head[12:16] == b"IHDR":
        _check_png_end(file)
        return Probe("image/png", "png", *struct.unpack(">II", head[16:24]))
    if head.startswith(b"\xff\xd8\xff"):
        return Probe("image/jpeg", "jpg", *_jpeg_size(file))
    if head[4:8] == b"ftyp":
        return _film(file)
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return Probe("image/webp", "webp")
    if head.startswith(b"RIFF") and head[8:12] == b"WAVE":
        return Probe("audio/wav", "wav", duration_ms=wav_duration_ms(file))
    if head.startswith(b"ID3") or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2):
        return Probe("audio/mpeg", "mp3", duration_ms=mp3_duration_ms(file))
    return _text(file)


def _text(file: BinaryIO) -> Probe | None:
    """Plain text, if that is all it is: bytes of no other type that are words, and no page or document in markup."""
    file.seek(0)
    content = file.read(TEXT_LIMIT_BYTES + 1)
    if len(content) > TEXT_LIMIT_BYTES:
        return None
    try:
        words = content.decode()
    except UnicodeDecodeError:
        return None
    if _CONTROL.search(words) or not words.strip() or words.lstrip().lower().startswith(_MARKUP):
        return None
    return Probe("text/plain", "txt")


def _check_png_end(file: BinaryIO) -> None:
    file.seek(-12, 2)
    if file.read(8)[4:] != b"IEND":
        raise ValueError("a picture that is cut off")


def _jpeg_size(file: BinaryIO) -> tuple[int, int]:
    file.seek(2)
    for _ in range(_JPEG_SEGMENT_LIMIT):
        start, marker = file.read(2)
        if start != 0xFF:
            break
        while marker == 0xFF:
            # Any number of them may stand before a marker.
            (marker,) = file.read(1)
        (length,) = struct.unpack(">H", file.read(2))
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack(">xHH", file.read(5))
            return width, height
        file.seek(length - 2, 1)
    raise ValueError("a picture without a frame")


def _film(file: BinaryIO) -> Probe:
    file.seek(0, 2)
    boxes = _boxes(file, 0, file.tell())
    moov = next(((at, end) for name, at, end in boxes if name == b"moov"), None)
    if moov is None:
        raise ValueError("a film without an index")
    duration_ms = width = height = 0
    for name, at, end in _boxes(file, *moov):
        if name == b"mvhd":
            duration_ms = _movie_duration_ms(file, at)
        elif name == b"trak" and not width:
            width, height = _track_size(file, at, end)
    return Probe("video/mp4", "mp4", width, height, duration_ms)


def _boxes(file: BinaryIO, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(name, start of content, end) of the boxes between two offsets."""
    for _ in range(_BOX_LIMIT):
        if at + 8 > end:
            return
        file.seek(at)
        size, name = struct.unpack(">I4s", file.read(8))
        header = 8
        if size == 1:
            (size,) = struct.unpack(">Q", file.read(8))
            header = 16
        elif size == 0:
            size = end - at
        if size < header or at + size > end:
            raise ValueError("a box that reaches beyond its parent")
        yield name, at + header, at + size
        at += size


def _movie_duration_ms(file: BinaryIO, at: int) -> int:
    file.seek(at)
    version = file.read(4)[0]
    layout = ">16xIQ" if version == 1 else ">8xII"
    timescale, duration = struct.unpack(layout, file.read(struct.calcsize(layout)))
    return round(duration * 1000 / timescale) if timescale else 0


def _track_size(file: BinaryIO, at: int, end: int) -> tuple[int, int]:
    for name, start, stop in _boxes(file, at, end):
        if name == b"tkhd":
            # Width and height, in 16.16 fixed point, are the last eight bytes in both versions of this box.
            file.seek(max(start, stop - 8))
            width, height = struct.unpack(">II", file.read(8))
            return width >> 16, height >> 16
    return 0, 0
