"""How long an MP3 or WAV file is, told by its frames or its chunks: headers only, and nothing in them is trusted."""

from __future__ import annotations

import struct
from typing import BinaryIO, Final

_CHUNK_LIMIT: Final = 1_000
# Half a day of the shortest frames; a file of the largest size allowed holds fewer.
_FRAME_LIMIT: Final = 2_000_000
# What may lie between tags and the first frame: padding, as some encoders leave it.
_SEARCHED_BYTES: Final = 64 * 1024
_READ_BYTES: Final = 1024**2
_TAG_HEAD_BYTES: Final = 10

# By (is MPEG-1): kilobits a second of layer III, by the header's index; and samples a second of MPEG-1.
_KBITS: Final = {
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES_HZ: Final = (44_100, 48_000, 32_000)
# By the header's version: MPEG-2.5, none, MPEG-2, MPEG-1.
_RATE_SHARES: Final = (4, 0, 2, 1)
LENGTHS_UNKNOWN: Final = (0, 2**32 - 1)
"""What the chunk of samples says of itself in a WAV that was written while it was made."""

_INFO_TAGS: Final = (b"Xing", b"Info", b"VBRI")


def wav_duration_ms(file: BinaryIO) -> int:
    """Raises ValueError and struct.error where the file is broken or cut off."""
    file.seek(0, 2)
    end, at, bytes_per_s = file.tell(), 12, 0
    for _ in range(_CHUNK_LIMIT):
        file.seek(at)
        name, size = struct.unpack("<4sI", file.read(8))
        if name == b"fmt ":
            (bytes_per_s,) = struct.unpack("<8xI", file.read(12))
        elif name == b"data":
            size = end - at - 8 if size in LENGTHS_UNKNOWN else size
            if not bytes_per_s or not size or at + 8 + size > end:
                raise ValueError("a sound that is cut off")
            return round(size * 1000 / bytes_per_s)
        at += 8 + size + size % 2
    raise ValueError("a sound without samples")


def mp3_duration_ms(file: BinaryIO) -> int:
    """Walks all frames, because a header may say anything. Raises ValueError where there are none."""
    file.seek(0, 2)
    end, at = file.tell(), _after_tags(file)
    at = _first_frame(file, at)
    length_ms, frames = 0.0, 0
    while frames < _FRAME_LIMIT:
        file.seek(at)
        block = file.read(_READ_BYTES)
        walked = 0
        while (found := _frame(block[walked : walked + 4])) is not None and frames < _FRAME_LIMIT:
            size, frame_ms = found
            if at + walked + size > end:
                # A last frame that is cut off holds no sound that anybody would hear.
                break
            # The first frame may hold no sound but notes about it.
            is_sound = frames > 0 or not any(tag in block[:size][:200] for tag in _INFO_TAGS)
            length_ms += frame_ms if is_sound else 0.0
            frames, walked = frames + 1, walked + size
        if not walked:
            break
        at += walked
    if frames < 1 or not length_ms:
        raise ValueError("a sound without frames")
    return round(length_ms)


def mp3_frames(view: memoryview) -> tuple[int, int]:
    """Where the frames begin and end. Raises ValueError where there are none."""
    at = _tag_bytes(bytes(view[:_TAG_HEAD_BYTES]))
    start = end = at + _first_of(bytes(view[at : at + _SEARCHED_BYTES + 4]))
    for _ in range(_FRAME_LIMIT):
        found = _frame(bytes(view[end : end + 4]))
        if found is None or end + found[0] > len(view):
            break
        end += found[0]
    return start, end


def _after_tags(file: BinaryIO) -> int:
    file.seek(0)
    return _tag_bytes(file.read(_TAG_HEAD_BYTES))


def _tag_bytes(head: bytes) -> int:
    if not head.startswith(b"ID3"):
        return 0
    size = 0
    for byte in head[6:10]:
        size = size << 7 | byte & 0x7F
    return _TAG_HEAD_BYTES + size


def _first_frame(file: BinaryIO, at: int) -> int:
    file.seek(at)
    return at + _first_of(file.read(_SEARCHED_BYTES + 4))


def _first_of(block: bytes) -> int:
    place = block.find(b"\xff")
    while 0 <= place < _SEARCHED_BYTES:
        if (found := _frame(block[place : place + 4])) is not None:
            follows = block[place + found[0] : place + found[0] + 4]
            if not follows or len(follows) < 4 or _frame(follows) is not None:
                return place
        place = block.find(b"\xff", place + 1)
    raise ValueError("a sound without frames")


def _frame(header: bytes) -> tuple[int, float] | None:
    """Bytes and milliseconds of the frame with this header, or None where it is none of layer III."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return None
    version, kbits_index, rate_index = header[1] >> 3 & 3, header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or kbits_index in (0, 15) or rate_index == 3:
        return None
    mpeg_1 = version == 3
    rate_hz = _RATES_HZ[rate_index] // _RATE_SHARES[version]
    samples = 1152 if mpeg_1 else 576
    size = samples // 8 * _KBITS[mpeg_1][kbits_index] * 1000 // rate_hz + (header[2] >> 1 & 1)
    return size, samples * 1000 / rate_hz
