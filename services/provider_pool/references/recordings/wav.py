"""The walk of WAV: chunks side by side, one of which says what the samples are."""

from __future__ import annotations

from typing import Final

from services.provider_pool.references.recordings.judgement import (
    CHANNELS_LIMIT,
    RATE_LIMIT_HZ,
    Budget,
    RecordingRefused,
    Rule,
    Walked,
    check_duration,
)

_WHOLE, _FRACTIONS, _EXTENSIBLE = 1, 3, 0xFFFE
_DEPTHS: Final = {_WHOLE: (8, 16, 24, 32), _FRACTIONS: (32, 64)}
# What whoever writes as it records puts in the place of a size that is not known yet.
_OPEN: Final = 0xFFFF_FFFF


def walk(view: memoryview) -> Walked:
    """Raises RecordingRefused, and nothing else whatever the content."""
    budget = Budget()
    announced = int.from_bytes(view[4:8], "little")
    end = len(view) if announced == _OPEN else announced + 8
    if end > len(view):
        raise RecordingRefused(Rule.TRUNCATED, "the file is cut off")
    place, rate_bytes, data_bytes = 12, 0, None
    while place + 8 <= end:
        budget.spend()
        kind, size = bytes(view[place : place + 4]), int.from_bytes(view[place + 4 : place + 8], "little")
        place += 8
        if kind == b"data" and size == _OPEN:
            size = end - place
        if size > end - place:
            raise RecordingRefused(Rule.TRUNCATED, "a chunk is cut off")
        if kind == b"fmt ":
            rate_bytes = _bytes_a_second(view[place : place + size])
        elif kind == b"data" and data_bytes is None:
            data_bytes = size
        place += size + (size & 1)
    if not rate_bytes:
        raise RecordingRefused(Rule.NO_STREAM, "nothing says what the samples are")
    if not data_bytes:
        raise RecordingRefused(Rule.EMPTY, "no samples")
    return Walked("wav", duration_ms=check_duration(data_bytes, rate_bytes))


def _bytes_a_second(view: memoryview) -> int:
    if len(view) < 16:
        raise RecordingRefused(Rule.BAD_FRAMING, "a chunk is too short for what it holds")
    coding, channels, rate, _, frame_bytes, depth = (
        int.from_bytes(view[start:end], "little")
        for start, end in ((0, 2), (2, 4), (4, 8), (8, 12), (12, 14), (14, 16))
    )
    if coding == _EXTENSIBLE:
        coding = int.from_bytes(view[24:26], "little")
    if coding not in _DEPTHS or depth not in _DEPTHS[coding]:
        raise RecordingRefused(Rule.UNSUPPORTED_CODING, "samples that are not plain numbers")
    if not 1 <= channels <= CHANNELS_LIMIT or not 1 <= rate <= RATE_LIMIT_HZ:
        raise RecordingRefused(Rule.BAD_HEADER, "channels or a rate that no recorder has")
    if frame_bytes != channels * depth // 8:
        raise RecordingRefused(Rule.BAD_HEADER, "samples of two sizes")
    return rate * frame_bytes
