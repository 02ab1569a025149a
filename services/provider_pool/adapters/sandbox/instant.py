"""Files that are right in size and length and hold nothing else: for load tests, where drawing would be the load."""

from __future__ import annotations

import struct
import zlib
from functools import lru_cache
from typing import Final

_TIMESCALE: Final = 1000
_IDENTITY: Final = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)


@lru_cache(maxsize=64)
def picture(width: int, height: int) -> bytes:
    """A grey PNG of this size: some hundred bytes."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = (b"\x00" + b"\x55" * ((width + 7) // 8)) * height
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(name, body) for name, body in chunks)


@lru_cache(maxsize=64)
def film(width: int, height: int, duration_s: int) -> bytes:
    """An MP4 that announces one video track of this size and length and holds no frame."""
    units = duration_s * _TIMESCALE
    movie = struct.pack(">4xIIII", 0, 0, _TIMESCALE, units) + struct.pack(">IH10x", 0x10000, 0x100)
    movie += _IDENTITY + struct.pack(">24xI", 2)
    track = struct.pack(">IIIIII", 7, 0, 0, 1, 0, units) + struct.pack(">8xHHH2x", 0, 0, 0)
    track += _IDENTITY + struct.pack(">II", width << 16, height << 16)
    brand = _box(b"ftyp", b"isom" + struct.pack(">I", 0x200) + b"isomiso2mp41")
    return brand + _box(b"moov", _box(b"mvhd", movie) + _box(b"trak", _box(b"tkhd", track)))


STILL_SIDE_PX: Final = 16
STILL: Final = bytes.fromhex(
    "ffd8ffe000104a46494600010100000100010000ffdb004300100b0c0e0c0a100e0d0e1211101318281a181616183123251d283a333d"
    "3c3933383740485c4e404457453738506d51575f626768673e4d71797064785c656763ffc0000b080010001001011100ffc400150001"
    "0100000000000000000000000000000005ffc40014100100000000000000000000000000000000ffda0008010100003f009203ffd9"
)
"""A grey JPEG of this side: the poster of every film."""

TEXT: Final = b"This is what a load test writes.\n"

FRAME_MS: Final = 36
# MPEG-2 layer III, 8 kbit/s, 16 kHz, mono; without a bit of sound in it.
_SILENT_FRAME: Final = bytes.fromhex("fff318c4") + bytes(32)
_WAV_HZ: Final = 8_000


@lru_cache(maxsize=64)
def mp3(duration_s: int) -> bytes:
    """Silence of this length, but for the part of a frame."""
    return _SILENT_FRAME * round(duration_s * 1000 / FRAME_MS)


@lru_cache(maxsize=16)
def wav(duration_s: int) -> bytes:
    """Silence of exactly this length."""
    size = duration_s * _WAV_HZ
    form = struct.pack("<HHIIHH", 1, 1, _WAV_HZ, _WAV_HZ, 1, 8)
    head = b"RIFF" + struct.pack("<I", 36 + size) + b"WAVEfmt " + struct.pack("<I", 16) + form
    return head + b"data" + struct.pack("<I", size) + b"\x80" * size


def _png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _box(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body) + 8) + name + body
