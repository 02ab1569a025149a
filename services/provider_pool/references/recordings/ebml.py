"""The walk of WebM: elements in elements, judged by their sizes and headers, without a look at any picture."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from services.provider_pool.references.recordings.judgement import (
    TRACKS_LIMIT,
    Budget,
    RecordingRefused,
    Rule,
    Walked,
    check_duration,
    check_sides,
)

_HEADER: Final = 0x1A45DFA3
_DOCUMENT_TYPE: Final = 0x4282
_SEGMENT: Final = 0x18538067
_INFO: Final = 0x1549A966
_SCALE: Final = 0x2AD7B1
_DURATION: Final = 0x4489
_TRACKS: Final = 0x1654AE6B
_TRACK: Final = 0xAE
_TRACK_TYPE: Final = 0x83
_CODINGS: Final = 0x6D80
_PICTURE: Final = 0xE0
_WIDTH: Final = 0xB0
_HEIGHT: Final = 0xBA
_CLUSTER: Final = 0x1F43B675
_TIMESTAMP: Final = 0xE7
_ATTACHMENTS: Final = 0x1941A469
# Where one of these begins, a cluster of unknown size has ended.
_TOP: Final = frozenset(
    {_INFO, _TRACKS, _CLUSTER, _ATTACHMENTS, 0x114D9B74, 0x1C53BB6B, 0x1254C367, 0x1043A770}
)
_VIDEO, _AUDIO = 1, 2
# Nanoseconds in a tick where the file does not say.
_USUAL_SCALE: Final = 1_000_000
_NS: Final = 1_000_000_000


@dataclass(slots=True)
class _Found:
    scale: int = _USUAL_SCALE
    duration: float = 0.0
    latest: int = 0
    tracks: int = 0
    width: int = 0
    height: int = 0
    pictures: int = 0
    clusters: int = 0


@dataclass(frozen=True, slots=True)
class _Element:
    """`view` of one of unknown size is all that follows."""

    kind: int
    view: memoryview
    sized: bool


def walk(view: memoryview, medium: str) -> Walked:
    """Raises RecordingRefused, and nothing else whatever the content."""
    budget = Budget()
    elements = _elements(view, budget)
    header = next(elements, None)
    if header is None or header.kind != _HEADER or not header.sized:
        raise RecordingRefused(Rule.BAD_FRAMING, "no header")
    kinds = [bytes(inner.view) for inner in _elements(header.view, budget) if inner.kind == _DOCUMENT_TYPE]
    if [kind.rstrip(b"\0") for kind in kinds] != [b"webm"]:
        raise RecordingRefused(Rule.FORMAT_NOT_TAKEN, "not a WebM document")
    segment = next(elements, None)
    if segment is None or segment.kind != _SEGMENT:
        raise RecordingRefused(Rule.TRUNCATED, "no segment")
    if segment.sized and next(elements, None) is not None:
        raise RecordingRefused(Rule.BAD_FRAMING, "something behind the segment")
    found = _Found()
    _read_segment(segment.view, found, budget)
    return _walked(found, medium)


def _walked(found: _Found, medium: str) -> Walked:
    if medium != "video":
        raise RecordingRefused(Rule.FORMAT_NOT_TAKEN, "webm")
    if not found.pictures:
        raise RecordingRefused(Rule.NO_STREAM, "no pictures")
    if not found.clusters:
        raise RecordingRefused(Rule.TRUNCATED, "no data")
    if not found.scale:
        raise RecordingRefused(Rule.BAD_HEADER, "ticks of no length")
    check_duration(found.latest, _NS / found.scale)
    duration_ms = check_duration(found.duration, _NS / found.scale)
    return Walked("webm", found.width, found.height, duration_ms)


def _read_segment(view: memoryview, found: _Found, budget: Budget) -> None:
    place = 0
    while place < len(view):
        element, after = _element(view, place, budget)
        if not element.sized and element.kind != _CLUSTER:
            raise RecordingRefused(Rule.BAD_FRAMING, "an element of unknown size")
        if element.kind == _CLUSTER:
            found.clusters += 1
            after = after - len(element.view) + _read_cluster(element, found, budget)
        elif element.kind == _INFO:
            _read_info(element.view, found, budget)
        elif element.kind == _TRACKS:
            _read_tracks(element.view, found, budget)
        elif element.kind == _ATTACHMENTS:
            raise RecordingRefused(Rule.UNSUPPORTED_CODING, "files are attached")
        place = after


def _read_cluster(cluster: _Element, found: _Found, budget: Budget) -> int:
    """Where it ends: by its size, or where something begins that is in no cluster."""
    place = 0
    while place < len(cluster.view):
        element, after = _element(cluster.view, place, budget)
        if not cluster.sized and element.kind in _TOP:
            return place
        if not element.sized:
            raise RecordingRefused(Rule.BAD_FRAMING, "an element of unknown size")
        if element.kind == _TIMESTAMP:
            found.latest = max(found.latest, _number(element.view))
        place = after
    return place


def _read_info(view: memoryview, found: _Found, budget: Budget) -> None:
    for element in _elements(view, budget):
        if element.kind == _SCALE:
            found.scale = _number(element.view)
        elif element.kind == _DURATION:
            found.duration = _decimal(element.view)


def _read_tracks(view: memoryview, found: _Found, budget: Budget) -> None:
    for track in _elements(view, budget):
        if track.kind != _TRACK:
            continue
        found.tracks += 1
        if found.tracks > TRACKS_LIMIT:
            raise RecordingRefused(Rule.TOO_MANY_STREAMS, f"more than {TRACKS_LIMIT} tracks")
        _read_track(track.view, found, budget)


def _read_track(view: memoryview, found: _Found, budget: Budget) -> None:
    kind, width, height = 0, 0, 0
    for element in _elements(view, budget):
        if element.kind == _CODINGS:
            raise RecordingRefused(Rule.UNSUPPORTED_CODING, "it is compressed twice, or encrypted")
        if element.kind == _TRACK_TYPE:
            kind = _number(element.view)
        elif element.kind == _PICTURE:
            sides = {inner.kind: inner.view for inner in _elements(element.view, budget)}
            width, height = (_number(sides.get(side, view[:0])) for side in (_WIDTH, _HEIGHT))
    if kind == _VIDEO:
        check_sides(width, height)
        if not found.pictures:
            found.width, found.height = width, height
        found.pictures += 1


def _elements(view: memoryview, budget: Budget) -> Iterator[_Element]:
    place = 0
    while place < len(view):
        element, place = _element(view, place, budget)
        yield element


def _element(view: memoryview, place: int, budget: Budget) -> tuple[_Element, int]:
    """The element at `place`, and where the next one begins."""
    budget.spend()
    kind, place, _ = _variable(view, place, 4, keep_marker=True)
    size, place, unknown = _variable(view, place, 8, keep_marker=False)
    if unknown:
        return _Element(kind, view[place:], sized=False), len(view)
    if size > len(view) - place:
        raise RecordingRefused(Rule.TRUNCATED, "an element is cut off")
    return _Element(kind, view[place : place + size], sized=True), place + size


def _variable(view: memoryview, place: int, longest: int, *, keep_marker: bool) -> tuple[int, int, bool]:
    """A number of variable length, where it ends, and whether all of its bits are set."""
    if place >= len(view):
        raise RecordingRefused(Rule.TRUNCATED, "an element is cut off")
    length = 9 - view[place].bit_length()
    if length > longest:
        raise RecordingRefused(Rule.BAD_FRAMING, "a number that is too long")
    if length > len(view) - place:
        raise RecordingRefused(Rule.TRUNCATED, "an element is cut off")
    number = int.from_bytes(view[place : place + length], "big")
    low = (1 << 7 * length) - 1
    return number if keep_marker else number & low, place + length, number & low == low


def _number(view: memoryview) -> int:
    if len(view) > 8:
        raise RecordingRefused(Rule.BAD_FRAMING, "a number that is too long")
    return int.from_bytes(view, "big")


def _decimal(view: memoryview) -> float:
    if len(view) not in (4, 8):
        raise RecordingRefused(Rule.BAD_FRAMING, "a number of no known length")
    number: float = struct.unpack(">f" if len(view) == 4 else ">d", view)[0]
    return number
