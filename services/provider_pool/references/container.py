"""The walk of an image's container, before any decoder sees a byte of it.

In plain Python, in one pass, with no more memory than a list of the parts that are kept: limits, framing, checksums and
counts are judged, and JPEG, PNG and WebP are rewritten without loss: the same picture data, with orientation and a valid
colour profile, without metadata and without anything after the end. GIF, BMP and TIFF are judged only.

What a refusal can be is the closed set `Rule`, one sentence each; the limits and their reasons are in `walked`.
"""

from __future__ import annotations

from collections.abc import Callable
from mmap import mmap
from typing import Final

from services.provider_pool.references import bmp, gif, jpeg, png, tiff, webp
from services.provider_pool.references.walked import (
    CHUNKS_LIMIT,
    DATA_CHUNKS_LIMIT,
    DECODED_LIMIT_BYTES,
    FRAMES_LIMIT,
    PIXELS_LIMIT,
    PROFILE_LIMIT_BYTES,
    SCANS_LIMIT,
    SIDE_LIMIT_PX,
    ImageLimits,
    ImageRefused,
    Rule,
    Walked,
)

__all__ = [
    "CHUNKS_LIMIT",
    "DATA_CHUNKS_LIMIT",
    "DECODED_LIMIT_BYTES",
    "FORMATS",
    "FRAMES_LIMIT",
    "HEAD_BYTES",
    "PIXELS_LIMIT",
    "PROFILE_LIMIT_BYTES",
    "SCANS_LIMIT",
    "SIDE_LIMIT_PX",
    "ImageLimits",
    "ImageRefused",
    "Rule",
    "Walked",
    "sniff",
    "walk",
]

HEAD_BYTES: Final = 16
"""How much of a file `sniff` looks at."""

_WALKS: Final[dict[str, Callable[[memoryview, ImageLimits], Walked]]] = {
    "jpeg": jpeg.walk,
    "png": png.walk,
    "webp": webp.walk,
    "gif": gif.walk,
    "bmp": bmp.walk,
    "tiff": tiff.walk,
}

FORMATS: Final = frozenset(_WALKS)
"""Every format that is known; a storefront takes some of them."""


def sniff(head: bytes) -> str | None:
    """The format that a file's first HEAD_BYTES announce; None for any other, or for fewer bytes than it takes to know."""
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "tiff"
    # Two letters are too few to tell a picture from a text: the size of the second header is looked at as well.
    if head.startswith(b"BM") and int.from_bytes(head[14:16], "little") in bmp.HEADER_SIZES:
        return "bmp"
    return None


def walk(content: memoryview | mmap | bytes, limits: ImageLimits) -> Walked:
    """Judges and rewrites an image. `pieces` of the answer refer to `content`, which must stay as it is.

    Takes time in proportion to the content and memory for the parts that are kept. Raises ImageRefused, and nothing else
    whatever the content.
    """
    view = memoryview(content).cast("B")
    if len(view) > limits.bytes:
        raise ImageRefused(Rule.TOO_MANY_BYTES, f"more than {limits.bytes} bytes")
    if not view:
        raise ImageRefused(Rule.EMPTY, "no bytes")
    kind = sniff(bytes(view[:HEAD_BYTES]))
    if kind is None:
        raise ImageRefused(Rule.UNKNOWN_FORMAT, "the first bytes are those of no format that is known")
    if kind not in limits.formats:
        raise ImageRefused(Rule.FORMAT_NOT_TAKEN, kind)
    return _WALKS[kind](view, limits)
