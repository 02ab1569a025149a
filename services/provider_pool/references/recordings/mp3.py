"""The walk of MP3: frame after frame, each of which says how long it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from services.provider_pool.references.recordings.judgement import (
    Budget,
    RecordingRefused,
    Rule,
    Walked,
    check_duration,
)

# Thousands of bits a second, by the four bits that say it; 0 is "free" and 15 is nothing.
_RATES_1: Final = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_RATES_2: Final = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_SAMPLING_HZ: Final = (44_100, 48_000, 32_000)
# Version 1 halves for 2, and again for 2.5, which is 0.
_HALVINGS: Final = {3: 0, 2: 1, 0: 2}
# One frame may be chance; nobody means so short a sound.
_FEWEST_FRAMES: Final = 2
_TAGS: Final = (b"TAG", b"APETAGEX", b"LYRICSBEGIN", b"ID3")
_TAG_HEAD: Final = 10


@dataclass(frozen=True, slots=True)
class _Frame:
    size_bytes: int
    samples: int
    rate_hz: int


def walk(view: memoryview) -> Walked:
    """Raises RecordingRefused, and nothing else whatever the content."""
    budget = Budget()
    place = _after_tags(view, budget)
    frames, seconds = 0, 0.0
    while place < len(view):
        budget.spend()
        frame = _frame(view, place)
        if frame is None:
            _check_rest(view[place:])
            break
        if frame.size_bytes > len(view) - place:
            # Recorders stop in the middle of a frame.
            break
        frames += 1
        seconds += frame.samples / frame.rate_hz
        check_duration(seconds, 1.0)
        place += frame.size_bytes
    if frames < _FEWEST_FRAMES:
        raise RecordingRefused(Rule.TRUNCATED if frames else Rule.NO_STREAM, "no frames")
    return Walked("mp3", duration_ms=check_duration(seconds, 1.0))


def is_frame(head: bytes) -> bool:
    """Whether these four bytes can begin a frame."""
    return _frame(memoryview(head), 0) is not None


def _after_tags(view: memoryview, budget: Budget) -> int:
    place = 0
    while bytes(view[place : place + 3]) == b"ID3":
        budget.spend()
        head = bytes(view[place : place + _TAG_HEAD])
        if len(head) < _TAG_HEAD or any(byte & 0x80 for byte in head[6:]):
            raise RecordingRefused(Rule.BAD_FRAMING, "a tag without a size")
        size = 0
        for byte in head[6:]:
            size = size << 7 | byte
        place += _TAG_HEAD + size + (_TAG_HEAD if head[5] & 0x10 else 0)
        if place > len(view):
            raise RecordingRefused(Rule.TRUNCATED, "a tag is cut off")
    # Some writers leave room behind a tag.
    while place < len(view) and not view[place]:
        place = _after_zeros(view, place)
    return place


def _after_zeros(view: memoryview, place: int) -> int:
    piece = bytes(view[place : place + 4096])
    return place + len(piece) - len(piece.lstrip(b"\0"))


def _frame(view: memoryview, place: int) -> _Frame | None:
    """The frame whose head is at `place`; None if there is no head of the third layer."""
    if len(view) - place < 4:
        return None
    head = int.from_bytes(view[place : place + 4], "big")
    version, layer = head >> 19 & 3, head >> 17 & 3
    rate_index, sampling_index = head >> 12 & 15, head >> 10 & 3
    if head >> 21 != 0x7FF or version == 1 or layer != 1 or rate_index in (0, 15) or sampling_index == 3:
        return None
    first = version == 3
    bits_a_second = (_RATES_1 if first else _RATES_2)[rate_index] * 1000
    rate_hz = _SAMPLING_HZ[sampling_index] >> _HALVINGS[version]
    samples = 1152 if first else 576
    return _Frame(samples // 8 * bits_a_second // rate_hz + (head >> 9 & 1), samples, rate_hz)


def _check_rest(rest: memoryview) -> None:
    """What may stand behind the last frame."""
    if bytes(rest[:16]).startswith(_TAGS) or len(rest) < 4:
        return
    place = 0
    while place < len(rest) and not rest[place]:
        place = _after_zeros(rest, place)
    if place < len(rest) and not bytes(rest[place : place + 16]).startswith(_TAGS):
        raise RecordingRefused(Rule.BAD_FRAMING, "something that is no frame")
