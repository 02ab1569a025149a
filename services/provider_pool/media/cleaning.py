"""Takes out of an output what its provider wrote beside picture, film and sound: names, addresses, prompts, provenance.

Without loss: samples and picture data stay as they are. In films boxes are emptied where they lie, so that no offset moves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from mmap import mmap
from typing import Final

from services.provider_pool.media.probe import UnknownMedia
from services.provider_pool.media.sound_probe import LENGTHS_UNKNOWN, mp3_frames
from services.provider_pool.references.container import ImageLimits, ImageRefused, walk

Content = bytes | mmap
Parts = list[memoryview | bytes]

_FORMATS: Final = frozenset({"jpeg", "png", "webp"})
# Real films have some hundred boxes outside of their tables.
_BOXES_LIMIT: Final = 100_000
_CHUNKS_LIMIT: Final = 10_000

# What a player needs, by the box that holds it; everything else is emptied.
_KEPT_BOXES: Final[Mapping[bytes, frozenset[bytes]]] = {
    b"": frozenset({b"ftyp", b"styp", b"moov", b"mdat", b"moof", b"mfra", b"sidx"}),
    b"moov": frozenset({b"mvhd", b"trak", b"mvex", b"iods"}),
    b"mvex": frozenset({b"mehd", b"trex", b"leva"}),
    b"trak": frozenset({b"tkhd", b"edts", b"mdia", b"tref"}),
    b"edts": frozenset({b"elst"}),
    b"mdia": frozenset({b"mdhd", b"hdlr", b"minf"}),
    b"minf": frozenset({b"vmhd", b"smhd", b"nmhd", b"dinf", b"stbl"}),
    b"dinf": frozenset({b"dref"}),
    b"stbl": frozenset(
        b"stsd stts ctts cslg stsc stsz stz2 stco co64 stss stsh stps stdp sdtp sbgp sgpd subs padb".split()
    ),
    b"moof": frozenset({b"mfhd", b"traf"}),
    b"traf": frozenset({b"tfhd", b"tfdt", b"trun", b"sdtp", b"sbgp", b"sgpd", b"subs"}),
}
# Version, flags, type and reserved fields come first; what follows in a handler is its name.
_HANDLER_NAME_AT: Final = 24
# Version and flags come first, in a table of entries their number as well.
_FLAGS_BYTES: Final = 4
_TABLE_HEAD_BYTES: Final = 8
_KEPT_WAVE_CHUNKS: Final = frozenset({b"fmt ", b"data", b"fact"})


def cleaned(content: Content, content_type: str) -> Parts | None:
    """What is to be kept of a medium, piece by piece; None where all of it is. Raises UnknownMedia for a broken one.

    The parts are views of `content`, which must stay as it is until they are let go of.
    """
    clean = _CLEANERS.get(content_type)
    if clean is None:
        return None
    view = memoryview(content)
    try:
        parts = clean(view)
    except ImageRefused as refused:
        raise UnknownMedia(f"a picture that is not sound: {refused.rule}") from None
    # Every cleaner either leaves out or overwrites, and says so by having more than one part.
    return None if len(parts) == 1 and len(parts[0]) == len(view) else parts


def _picture(view: memoryview) -> Parts:
    walked = walk(view, ImageLimits(_FORMATS, len(view)))
    if walked.pieces is None:
        raise UnknownMedia("a picture of a format that is not stored")
    return list(walked.pieces)


# Films.


def _film(view: memoryview) -> Parts:
    """The film with zeros in the place of what is taken out."""
    parts: Parts = []
    at = 0
    for start, end, filling in sorted(_film_gaps(view, 0, len(view), b"")):
        if start > at:
            parts.append(view[at:start])
        parts.append(filling + bytes(end - start - len(filling)))
        at = end
    if at < len(view):
        parts.append(view[at:])
    return parts


def _film_gaps(view: memoryview, at: int, end: int, parent: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(start, end, what comes first in its place) of everything that is overwritten below one box."""
    for start, content, stop, name in _boxes(view, at, end):
        if name not in _KEPT_BOXES[parent]:
            if name != b"free" or any(view[content:stop]):
                # The size stays, also where it takes sixteen bytes; only the name changes.
                yield start + 4, stop, b"free" + bytes(view[start + 8 : content])
        elif name in _KEPT_BOXES:
            yield from _film_gaps(view, content, stop, name)
        elif name in _NAMES_IN:
            for gap_start, gap_end in _NAMES_IN[name](view, content, stop):
                if any(view[gap_start:gap_end]):
                    yield gap_start, gap_end, b""


def _handler_name(view: memoryview, at: int, end: int) -> Iterator[tuple[int, int]]:
    yield at + _HANDLER_NAME_AT, end


def _addresses(view: memoryview, at: int, end: int) -> Iterator[tuple[int, int]]:
    """Where the samples lie when they are not in the film: in a film that is whole, nowhere."""
    for _, content, stop, _ in _boxes(view, at + _TABLE_HEAD_BYTES, end):
        yield content + _FLAGS_BYTES, stop


def _coder_names(view: memoryview, at: int, end: int) -> Iterator[tuple[int, int]]:
    """The names that encoders leave in the description of a picture track: 32 bytes at a fixed place."""
    for _, entry, stop, kind in _boxes(view, at + _TABLE_HEAD_BYTES, end):
        place = entry + 42
        if kind in _PICTURE_ENTRIES and place + 32 <= stop:
            yield place, place + 32


_NAMES_IN: Final[Mapping[bytes, Callable[[memoryview, int, int], Iterator[tuple[int, int]]]]] = {
    b"hdlr": _handler_name,
    b"dref": _addresses,
    b"stsd": _coder_names,
}
_PICTURE_ENTRIES: Final = frozenset({b"avc1", b"avc3", b"hvc1", b"hev1", b"av01", b"vp09", b"mp4v"})


def _boxes(view: memoryview, at: int, end: int) -> Iterator[tuple[int, int, int, bytes]]:
    """(start, start of content, end, name) of each box between two offsets."""
    for _ in range(_BOXES_LIMIT):
        if at == end:
            return
        if at + 8 > end:
            raise UnknownMedia("a film with bytes between its boxes")
        size, name, header = int.from_bytes(view[at : at + 4]), bytes(view[at + 4 : at + 8]), 8
        if size == 1:
            size, header = int.from_bytes(view[at + 8 : at + 16]), 16
        elif size == 0:
            size = end - at
        if size < header or at + size > end:
            raise UnknownMedia("a film with a box that reaches beyond its parent")
        yield at, at + header, at + size, name
        at += size
    raise UnknownMedia("a film of too many boxes")


# Sounds.


def _mp3(view: memoryview) -> Parts:
    """The frames, without whatever stands before and behind them."""
    start, end = mp3_frames(view)
    return [view[start:end]]


def _wave(view: memoryview) -> Parts:
    """Format and samples alone."""
    kept: Parts = []
    at = 12
    for _ in range(_CHUNKS_LIMIT):
        if at + 8 > len(view):
            break
        name, size = bytes(view[at : at + 4]), int.from_bytes(view[at + 4 : at + 8], "little")
        if name == b"data" and size in LENGTHS_UNKNOWN:
            # Written while it was made: all the rest is sound, and now its length is known.
            kept += [name + (len(view) - at - 8).to_bytes(4, "little"), view[at + 8 :]]
            break
        stop = min(len(view), at + 8 + size + size % 2)
        if name in _KEPT_WAVE_CHUNKS:
            kept.append(view[at:stop])
        at = stop
    length = sum(map(len, kept))
    whole = [b"RIFF" + (length + 4).to_bytes(4, "little") + b"WAVE", *kept]
    untouched = length + 12 == len(view) and all(isinstance(part, memoryview) for part in kept)
    return [view] if untouched else whole


_CLEANERS: Final[Mapping[str, Callable[[memoryview], Parts]]] = {
    "image/png": _picture,
    "image/jpeg": _picture,
    "image/webp": _picture,
    "video/mp4": _film,
    "audio/mpeg": _mp3,
    "audio/wav": _wave,
}
