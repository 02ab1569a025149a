"""The walk of OGG: pages of one stream, whose first packet says what it is."""

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

_HEAD_BYTES: Final = 27
_BEGINS: Final = 2
# No packet ends on the page.
_NO_TIME: Final = 0xFFFF_FFFF_FFFF_FFFF
_OPUS_HZ: Final = 48_000


def walk(view: memoryview) -> Walked:
    """Raises RecordingRefused, and nothing else whatever the content."""
    budget = Budget()
    place, serial, rate_hz, skipped, latest = 0, b"", 0, 0, 0
    while place < len(view):
        budget.spend()
        head = bytes(view[place : place + _HEAD_BYTES])
        if len(head) < _HEAD_BYTES:
            raise RecordingRefused(Rule.TRUNCATED, "a page is cut off")
        if head[:5] != b"OggS\0":
            raise RecordingRefused(Rule.BAD_FRAMING, "something that is no page")
        sizes = bytes(view[place + _HEAD_BYTES : place + _HEAD_BYTES + head[26]])
        start = place + _HEAD_BYTES + head[26]
        place = start + sum(sizes)
        if len(sizes) < head[26] or place > len(view):
            raise RecordingRefused(Rule.TRUNCATED, "a page is cut off")
        if bool(head[5] & _BEGINS) is not (serial == b"") or serial not in (b"", head[14:18]):
            raise RecordingRefused(Rule.TOO_MANY_STREAMS, "not one stream")
        if not serial:
            serial = head[14:18]
            rate_hz, skipped = _stream(bytes(view[start : min(place, start + 64)]))
        time = int.from_bytes(head[6:14], "little")
        if time != _NO_TIME:
            latest = max(latest, time)
    if not rate_hz or latest <= skipped:
        raise RecordingRefused(Rule.EMPTY, "no sound")
    return Walked("ogg", duration_ms=check_duration(latest - skipped, rate_hz))


def _stream(first: bytes) -> tuple[int, int]:
    """The ticks a second, and how many of them come before the sound."""
    if first.startswith(b"OpusHead") and len(first) >= 19:
        channels, rate_hz, skipped = first[9], _OPUS_HZ, int.from_bytes(first[10:12], "little")
    elif first.startswith(b"\x01vorbis") and len(first) >= 30:
        channels, rate_hz, skipped = first[11], int.from_bytes(first[12:16], "little"), 0
    elif first.startswith(b"\x7fFLAC") and len(first) >= 51 and first[9:13] == b"fLaC":
        packed = int.from_bytes(first[27:35], "big")
        channels, rate_hz, skipped = (packed >> 41 & 7) + 1, packed >> 44, 0
    else:
        raise RecordingRefused(Rule.UNSUPPORTED_CODING, "a stream of something else")
    if not 1 <= channels <= CHANNELS_LIMIT or not 1 <= rate_hz <= RATE_LIMIT_HZ:
        raise RecordingRefused(Rule.BAD_HEADER, "channels or a rate that no recorder has")
    return rate_hz, skipped
