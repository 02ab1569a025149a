"""What may be a reference film or sound, in numbers, and why one is refused."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

DURATION_LIMIT_MS: Final = 60_000
"""What contracts promise."""

DURATION_TOLERANCE_MS: Final = 500
"""Encoders pad: a minute of sound becomes a minute and some frames."""

SIDE_LIMIT_PX: Final = 4_096
"""The longest side of a film; what is called 4K has it."""

PARTS_LIMIT: Final = 100_000
"""Boxes, elements, chunks, pages. A minute of 120 pictures a second with sound, each part a fragment of its own, has 80,000;
each costs a walk about two microseconds."""

TRACKS_LIMIT: Final = 16
"""Phones write up to seven: film, sound, and some of positions and movements."""

RATE_LIMIT_HZ: Final = 192_000
"""The fastest that any recorder writes."""

CHANNELS_LIMIT: Final = 8
"""Of one sound."""


class Rule(StrEnum):
    """Why a recording is refused. A closed set: metrics are keyed by it."""

    UNKNOWN_FORMAT = "unknown_format"
    """The first bytes are those of no format that is known."""
    FORMAT_NOT_TAKEN = "format_not_taken"
    """A known format in the wrong place: a sound where a film is wanted, or the other way round."""
    TOO_MANY_BYTES = "too_many_bytes"
    """The file is larger than the storefront's limit."""
    EMPTY = "empty"
    """No bytes, or a length or a side of zero."""
    TRUNCATED = "truncated"
    """The file ends before what it announced."""
    BAD_FRAMING = "bad_framing"
    """The parts of the file are not what or where they must be."""
    BAD_HEADER = "bad_header"
    """A header holds a value that the format does not have."""
    TOO_MANY_CHUNKS = "too_many_chunks"
    """More parts than any honest file has."""
    TOO_MANY_STREAMS = "too_many_streams"
    """More tracks than any honest file has."""
    NO_STREAM = "no_stream"
    """A film without pictures, or a sound without sound."""
    TOO_LONG = "too_long"
    """More than DURATION_LIMIT_MS."""
    SIDE_TOO_LONG = "side_too_long"
    """A side of more than SIDE_LIMIT_PX."""
    OUTSIDE_DATA = "outside_data"
    """A part of it is said to lie in another file or at an address."""
    UNSUPPORTED_CODING = "unsupported_coding"
    """Encrypted, compressed twice, with files attached, or coded in a way that providers do not read."""
    UNDECODABLE = "undecodable"
    """The container is sound, but it could not be opened and copied."""


class RecordingRefused(Exception):
    """The recording is not taken. `rule` is a value of Rule; the text is for operators and holds nothing of the recording."""

    def __init__(self, rule: str, detail: str = "") -> None:
        super().__init__(f"{rule}: {detail}" if detail else str(rule))
        self.rule = str(rule)


@dataclass(frozen=True, slots=True)
class RecordingLimits:
    """What is wanted, "video" or "audio", and how many bytes it may have."""

    medium: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Walked:
    """A container that was found sound. What it does not say of itself is 0."""

    format: str
    width: int = 0
    height: int = 0
    duration_ms: int = 0


class Budget:
    """How many parts a file may still have."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = PARTS_LIMIT

    def spend(self) -> None:
        """Raises RecordingRefused when there is none left."""
        self._left -= 1
        if self._left < 0:
            raise RecordingRefused(Rule.TOO_MANY_CHUNKS, f"more than {PARTS_LIMIT} parts")


def check_duration(count: float, per_s: float) -> int:
    """`count` units, `per_s` of them a second, in milliseconds. Raises RecordingRefused for too many or senseless ones."""
    if not per_s > 0 or not count >= 0:
        raise RecordingRefused(Rule.BAD_HEADER, "a length in no unit")
    # Compared before it is made a whole number: it may be infinite.
    if count > per_s * (DURATION_LIMIT_MS + DURATION_TOLERANCE_MS) / 1000:
        raise RecordingRefused(Rule.TOO_LONG, f"more than {DURATION_LIMIT_MS} ms")
    return round(count * 1000 / per_s)


def check_sides(width: int, height: int) -> None:
    """Raises RecordingRefused for pictures without pixels, or with too many."""
    if width <= 0 or height <= 0:
        raise RecordingRefused(Rule.EMPTY, "a side of the picture is zero")
    if max(width, height) > SIDE_LIMIT_PX:
        raise RecordingRefused(Rule.SIDE_TOO_LONG, f"a side is longer than {SIDE_LIMIT_PX} pixels")
