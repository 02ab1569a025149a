"""The walk of a recording's container, before any decoder sees a byte of it, and again after one has written it anew.

In plain Python, in one pass, with next to no memory. What a refusal can be is the closed set `Rule`.
"""

from __future__ import annotations

from mmap import mmap
from typing import Final

from services.provider_pool.references.recordings import ebml, isobmff, mp3, ogg, wav
from services.provider_pool.references.recordings.judgement import (
    RecordingLimits,
    RecordingRefused,
    Rule,
    Walked,
)

__all__ = ["HEAD_BYTES", "RecordingLimits", "RecordingRefused", "Rule", "Walked", "sniff", "walk"]

HEAD_BYTES: Final = 16
"""How much of a file `sniff` looks at."""

# Which container may be which medium; whether it is one, the walk knows.
_MEDIA: Final = {
    "isobmff": ("video", "audio"),
    "ebml": ("video",),
    "mp3": ("audio",),
    "wav": ("audio",),
    "ogg": ("audio",),
}


def sniff(head: bytes) -> str | None:
    """The container that a file's first HEAD_BYTES announce; None for any other, or for fewer bytes than it takes to know."""
    if head[4:8] == b"ftyp":
        return "isobmff"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "ebml"
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return "wav"
    if head.startswith(b"OggS"):
        return "ogg"
    if head.startswith(b"ID3") or mp3.is_frame(head[:4]):
        return "mp3"
    return None


def check_head(head: bytes, medium: str) -> str:
    """The container, which is one that may hold the medium. Raises RecordingRefused."""
    if not head:
        raise RecordingRefused(Rule.EMPTY, "no bytes")
    found = sniff(head)
    if found is None:
        raise RecordingRefused(Rule.UNKNOWN_FORMAT, "the first bytes are those of no format that is known")
    if medium not in _MEDIA[found]:
        raise RecordingRefused(Rule.FORMAT_NOT_TAKEN, found)
    return found


def walk(content: memoryview | mmap | bytes, limits: RecordingLimits) -> Walked:
    """Judges a recording. Takes time in proportion to the content. Raises RecordingRefused, and nothing else whatever the content."""
    view = memoryview(content).cast("B")
    if len(view) > limits.bytes:
        raise RecordingRefused(Rule.TOO_MANY_BYTES, f"more than {limits.bytes} bytes")
    match check_head(bytes(view[:HEAD_BYTES]), limits.medium):
        case "isobmff":
            return isobmff.walk(view, limits.medium)
        case "ebml":
            return ebml.walk(view, limits.medium)
        case "mp3":
            return mp3.walk(view)
        case "wav":
            return wav.walk(view)
        case _:
            return ogg.walk(view)
