"""The walk of MP4, MOV and M4A: boxes in boxes, judged by their sizes and tables, without a look at any picture."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from services.provider_pool.references.recordings.judgement import (
    PARTS_LIMIT,
    TRACKS_LIMIT,
    Budget,
    RecordingRefused,
    Rule,
    Walked,
    check_duration,
    check_sides,
)

_FILMS: Final = b"vide"
_SOUNDS: Final = b"soun"
# A movie that is packed with zlib, and one that names other movies.
_PACKED: Final = frozenset({b"cmov", b"rmra", b"rmda"})
_ENCRYPTED: Final = frozenset({b"encv", b"enca", b"enct", b"encs", b"drms", b"drmi"})
# The bytes of one entry in the tables of samples, behind a count.
_TABLES: Final = {b"stts": 8, b"ctts": 8, b"stsc": 12, b"stco": 4, b"co64": 8, b"stss": 4}
_UNKNOWN_32: Final = 0xFFFF_FFFF
_UNKNOWN_64: Final = 0xFFFF_FFFF_FFFF_FFFF
_SELF_CONTAINED: Final = 1
# Of a run of samples: which numbers it has for each of them.
_SAMPLE_FIELDS: Final = 0xF00


@dataclass(slots=True)
class _Track:
    handler: bytes = b""
    width: int = 0
    height: int = 0
    sample_bytes: int = 0


@dataclass(slots=True)
class _Movie:
    duration_ms: int = 0
    fragmented: bool = False
    tracks: list[_Track] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Box:
    kind: bytes
    view: memoryview


def walk(view: memoryview, medium: str) -> Walked:
    """Raises RecordingRefused, and nothing else whatever the content."""
    budget = Budget()
    movie: _Movie | None = None
    brand, data_bytes = b"", 0
    for place, box in enumerate(_boxes(view, budget, Rule.TRUNCATED, may_be_open=True)):
        if (place == 0) != (box.kind == b"ftyp"):
            raise RecordingRefused(Rule.BAD_FRAMING, "it does not begin with its type, or has two")
        if box.kind == b"ftyp":
            brand = bytes(_at(box.view, 0, 4))
        elif box.kind == b"mdat":
            data_bytes += len(box.view)
        elif box.kind == b"moov":
            if movie is not None:
                raise RecordingRefused(Rule.BAD_FRAMING, "two movies")
            movie = _movie(box.view, budget)
        elif box.kind == b"moof":
            _fragment(box.view, budget)
    if movie is None or not data_bytes:
        raise RecordingRefused(Rule.TRUNCATED, "no movie, or no data")
    if sum(track.sample_bytes for track in movie.tracks) > data_bytes:
        raise RecordingRefused(Rule.TRUNCATED, "more samples than data")
    return _walked(movie, medium, "mov" if brand == b"qt  " else "mp4")


def _walked(movie: _Movie, medium: str, film_format: str) -> Walked:
    films = [track for track in movie.tracks if track.handler == _FILMS]
    sounds = [track for track in movie.tracks if track.handler == _SOUNDS]
    if not movie.duration_ms and not movie.fragmented:
        raise RecordingRefused(Rule.EMPTY, "no length")
    if medium == "audio":
        if films:
            raise RecordingRefused(Rule.FORMAT_NOT_TAKEN, film_format)
        if not sounds:
            raise RecordingRefused(Rule.NO_STREAM, "no sound")
        return Walked("m4a", duration_ms=movie.duration_ms)
    if not films:
        raise RecordingRefused(Rule.NO_STREAM, "no pictures")
    for film in films:
        check_sides(film.width, film.height)
    return Walked(film_format, films[0].width, films[0].height, movie.duration_ms)


def _movie(view: memoryview, budget: Budget) -> _Movie:
    movie = _Movie()
    for box in _boxes(view, budget):
        if box.kind in _PACKED:
            raise RecordingRefused(Rule.UNSUPPORTED_CODING, "a movie that is packed, or in pieces elsewhere")
        if box.kind == b"mvhd":
            movie.duration_ms = _duration_ms(box.view)
        elif box.kind == b"trak":
            movie.tracks.append(_track(box.view, budget))
            if len(movie.tracks) > TRACKS_LIMIT:
                raise RecordingRefused(Rule.TOO_MANY_STREAMS, f"more than {TRACKS_LIMIT} tracks")
        elif box.kind == b"mvex":
            movie.fragmented = True
    return movie


def _duration_ms(header: memoryview) -> int:
    long = _number(header, 0, 1) == 1
    scale = _number(header, 20 if long else 12, 4)
    duration = _number(header, 24, 8) if long else _number(header, 16, 4)
    if duration == (_UNKNOWN_64 if long else _UNKNOWN_32):
        return 0
    return check_duration(duration, scale)


def _track(view: memoryview, budget: Budget) -> _Track:
    track = _Track()
    for box in _boxes(view, budget):
        if box.kind == b"mdia":
            _media(box.view, track, budget)
    return track


def _media(view: memoryview, track: _Track, budget: Budget) -> None:
    tables: memoryview | None = None
    for box in _boxes(view, budget):
        if box.kind == b"hdlr":
            track.handler = bytes(_at(box.view, 8, 4))
        elif box.kind == b"minf":
            for inner in _boxes(box.view, budget):
                if inner.kind == b"dinf":
                    _check_places(inner.view, budget)
                elif inner.kind == b"stbl":
                    tables = inner.view
    # Only now is it known what the track is.
    if tables is not None:
        _read_tables(tables, track, budget)


def _check_places(view: memoryview, budget: Budget) -> None:
    for box in _boxes(view, budget):
        if box.kind != b"dref":
            continue
        for entry in _boxes(_at(box.view, 8, len(box.view) - 8), budget):
            if not _number(entry.view, 0, 4) & _SELF_CONTAINED:
                raise RecordingRefused(Rule.OUTSIDE_DATA, "a track lies elsewhere")


def _read_tables(view: memoryview, track: _Track, budget: Budget) -> None:
    for box in _boxes(view, budget):
        if box.kind == b"stsd":
            _read_codings(box.view, track, budget)
        elif box.kind in (b"stsz", b"stz2"):
            track.sample_bytes += _sample_bytes(box)
        elif box.kind in _TABLES and _number(box.view, 4, 4) * _TABLES[box.kind] > len(box.view) - 8:
            raise RecordingRefused(Rule.TRUNCATED, "a table is shorter than it says")


def _read_codings(view: memoryview, track: _Track, budget: Budget) -> None:
    for entry in _boxes(_at(view, 8, len(view) - 8), budget):
        if entry.kind in _ENCRYPTED:
            raise RecordingRefused(Rule.UNSUPPORTED_CODING, "it is encrypted")
        if track.handler == _FILMS:
            track.width = max(track.width, _number(entry.view, 24, 2))
            track.height = max(track.height, _number(entry.view, 26, 2))


def _sample_bytes(box: _Box) -> int:
    count = _number(box.view, 8, 4)
    if box.kind == b"stz2":
        width_bits = _number(box.view, 7, 1)
        if width_bits not in (4, 8, 16) or count * width_bits > (len(box.view) - 12) * 8:
            raise RecordingRefused(Rule.TRUNCATED, "a table is shorter than it says")
        # Such small samples cannot sum up to much, and hardly anybody writes this table.
        return 0
    each = _number(box.view, 4, 4)
    if each:
        return each * count
    if count * 4 > len(box.view) - 12:
        raise RecordingRefused(Rule.TRUNCATED, "a table is shorter than it says")
    sizes = array("I", bytes(_at(box.view, 12, count * 4)))
    if sys.byteorder == "little":
        sizes.byteswap()
    return sum(sizes)


def _fragment(view: memoryview, budget: Budget) -> None:
    for box in _boxes(view, budget):
        if box.kind == b"traf":
            for run in _boxes(box.view, budget):
                if run.kind == b"trun":
                    _check_run(run.view)


def _check_run(view: memoryview) -> None:
    each_bytes = 4 * (_number(view, 1, 3) & _SAMPLE_FIELDS).bit_count()
    count = _number(view, 4, 4)
    if count > PARTS_LIMIT or count * each_bytes > len(view) - 8:
        raise RecordingRefused(Rule.TRUNCATED, "a table is shorter than it says")


def _boxes(
    view: memoryview, budget: Budget, short: Rule = Rule.BAD_FRAMING, *, may_be_open: bool = False
) -> Iterator[_Box]:
    """All boxes side by side in `view`. The last one of a file may be open: it goes on to the end."""
    place, end = 0, len(view)
    while place < end:
        budget.spend()
        # QuickTime ends a list with four zeros.
        if end - place < 8:
            if not any(view[place:end]):
                return
            raise RecordingRefused(short, "a box is cut off")
        head, size = 8, int.from_bytes(view[place : place + 4], "big")
        kind = bytes(view[place + 4 : place + 8])
        if size == 1:
            head, size = 16, _number(view, place + 8, 8)
        elif size == 0 and may_be_open:
            size = end - place
        if size < head:
            raise RecordingRefused(Rule.BAD_FRAMING, "a box that is smaller than its head")
        if size > end - place:
            raise RecordingRefused(short, "a box is cut off")
        yield _Box(kind, view[place + head : place + size])
        place += size


def _number(view: memoryview, start: int, length: int) -> int:
    return int.from_bytes(_at(view, start, length), "big")


def _at(view: memoryview, start: int, length: int) -> memoryview:
    if length < 0 or start + length > len(view):
        raise RecordingRefused(Rule.BAD_FRAMING, "a box is too short for what it holds")
    return view[start : start + length]
