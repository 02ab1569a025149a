"""What the walk of every format shares: the limits, the words of a refusal, and what comes out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

PIXELS_LIMIT: Final = 50_000_000
"""Beyond what any camera or any provider's model uses; decoded, it is what a worker's memory is measured for."""

SIDE_LIMIT_PX: Final = 16_384
"""The longest side that WebP can express, and 2.7 times what any provider takes."""

DECODED_LIMIT_BYTES: Final = 400_000_000
"""50 megapixels of four 16-bit samples. A decoder holds them at once."""

CHUNKS_LIMIT: Final = 5_000
"""Chunks, segments and blocks that are not picture data. Honest files have some dozens, those with 20 MB of XMP some hundreds."""

DATA_CHUNKS_LIMIT: Final = 65_536
"""Pieces of picture data (IDAT chunks, TIFF strips and tiles). Encoders write 4 KiB or more in a piece, so 20 MiB are
5,120 of them; each costs the walk about a microsecond."""

SUB_BLOCKS_LIMIT: Final = 262_144
"""Sub-blocks of a GIF, of at most 255 bytes each: three times what 20 MiB need when they are full."""

SCANS_LIMIT: Final = 64
"""Encoders write about ten. Each scan of a progressive JPEG makes the decoder go over all coefficients again."""

FRAMES_LIMIT: Final = 256
"""Frames of a GIF, pages of a TIFF. Only the first is used."""

TAGS_LIMIT: Final = 1_000
"""Entries of one TIFF directory; there are fewer than 300 registered tags in use."""

PROFILE_LIMIT_BYTES: Final = 4 * 1024 * 1024
"""Of a colour profile, inflated. The largest printer profiles in use are around 3 MB."""


class Rule(StrEnum):
    """Why an image is refused. A closed set: metrics and `check-image` are keyed by it."""

    UNKNOWN_FORMAT = "unknown_format"
    """The first bytes are those of no format that is known."""
    FORMAT_NOT_TAKEN = "format_not_taken"
    """A known format that this storefront does not take."""
    TOO_MANY_BYTES = "too_many_bytes"
    """The file is larger than the storefront's limit."""
    EMPTY = "empty"
    """No bytes, no picture, or a side of zero."""
    SIDE_TOO_LONG = "side_too_long"
    """A side of more than SIDE_LIMIT_PX."""
    TOO_MANY_PIXELS = "too_many_pixels"
    """More than PIXELS_LIMIT, or more than DECODED_LIMIT_BYTES once decoded."""
    TRUNCATED = "truncated"
    """The file ends before what it announced, or a picture lacks a part."""
    BAD_CHECKSUM = "bad_checksum"
    """A checksum differs from what it covers."""
    BAD_FRAMING = "bad_framing"
    """The parts of the file are not what or where they must be."""
    BAD_HEADER = "bad_header"
    """A header holds a value, or a combination of values, that the format does not have."""
    SIZE_MISMATCH = "size_mismatch"
    """Two places of the file disagree on the size of the picture."""
    UNSUPPORTED_CODING = "unsupported_coding"
    """A legal but rare variant of the format that providers and browsers do not read either."""
    ANIMATED = "animated"
    """More than one frame or page, where only single pictures are taken."""
    TOO_MANY_CHUNKS = "too_many_chunks"
    """More parts than any honest file has."""
    TOO_MANY_SCANS = "too_many_scans"
    """More than SCANS_LIMIT."""
    TOO_MANY_FRAMES = "too_many_frames"
    """More than FRAMES_LIMIT."""
    UNDECODABLE = "undecodable"
    """The container is sound, but a full decode failed: the second stage's only word."""


class ImageRefused(Exception):
    """The image is not taken. `rule` is a value of Rule; the text is for operators and holds nothing of the image."""

    def __init__(self, rule: str, detail: str = "") -> None:
        super().__init__(f"{rule}: {detail}" if detail else str(rule))
        self.rule = str(rule)

    def __reduce__(self) -> tuple[type[ImageRefused], tuple[str, str]]:
        return ImageRefused, (self.rule, str(self).partition(": ")[2])


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What one storefront takes: the formats by name, and how many bytes one image may have."""

    formats: frozenset[str]
    bytes: int
    first_frame_of_animations: bool = False


@dataclass(frozen=True, slots=True)
class Walked:
    """A container that was found sound.

    `width` and `height` are as coded: an orientation is not applied. `pieces`, joined, are the rewritten file, and are
    views of the content that was walked; None means that the decoded first frame is to be encoded as PNG.
    """

    format: str
    width: int
    height: int
    animated: bool
    pieces: tuple[memoryview | bytes, ...] | None


class Pieces:
    """Parts of a file that are kept, as views of it; neighbours become one view."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._ranges: list[tuple[int, int]] = []

    def keep(self, start: int, end: int) -> None:
        if self._ranges and self._ranges[-1][1] == start:
            self._ranges[-1] = (self._ranges[-1][0], end)
        else:
            self._ranges.append((start, end))

    def views(self) -> list[memoryview]:
        return [self._view[start:end] for start, end in self._ranges]


def check_size(width: int, height: int, bytes_per_pixel: int) -> None:
    """Raises ImageRefused for a picture that has no pixels or too many; `bytes_per_pixel` is what a decoder needs."""
    if width <= 0 or height <= 0:
        raise ImageRefused(Rule.EMPTY, "a side of the picture is zero")
    if max(width, height) > SIDE_LIMIT_PX:
        raise ImageRefused(Rule.SIDE_TOO_LONG, f"a side is longer than {SIDE_LIMIT_PX} pixels")
    if width * height > PIXELS_LIMIT:
        raise ImageRefused(Rule.TOO_MANY_PIXELS, f"more than {PIXELS_LIMIT} pixels")
    if width * height * bytes_per_pixel > DECODED_LIMIT_BYTES:
        raise ImageRefused(Rule.TOO_MANY_PIXELS, f"more than {DECODED_LIMIT_BYTES} bytes once decoded")


def check_animated(animated: bool, limits: ImageLimits) -> None:
    """Raises ImageRefused for an animation where only single pictures are taken."""
    if animated and not limits.first_frame_of_animations:
        raise ImageRefused(Rule.ANIMATED, "more than one frame or page")


def starts(view: memoryview, prefix: bytes) -> bool:
    return bytes(view[: len(prefix)]) == prefix
