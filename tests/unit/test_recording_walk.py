"""The walk of films and sounds: honest ones are taken, and each way to be another is refused by its rule."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import pytest

from services.provider_pool.references.recordings.container import (
    RecordingLimits,
    RecordingRefused,
    Rule,
    sniff,
    walk,
)
from services.provider_pool.references.recordings.judgement import PARTS_LIMIT
from tests.corpus import recordings as made
from tests.corpus.recordings import Recording, box, cluster, element, page, webm

LIMIT_BYTES = 20 * 1024 * 1024
FILM = made.recorded("mp4")
SOUND = made.recorded("ipod")
DATA = box(b"mdat", b"data")
TYPE = box(b"ftyp", b"isom", bytes(4))
TABLE = struct.pack(">II", 0, 1_000)


@dataclass(frozen=True)
class Hostile:
    """A file that is not taken, and why."""

    name: str
    rule: Rule
    content: bytes
    medium: str = "video"


def mvhd(duration: int, scale: int = 1000) -> bytes:
    return box(b"mvhd", bytes(12), struct.pack(">II", scale, duration), bytes(80))


def movie(*parts: bytes, duration: int = 1000) -> bytes:
    return TYPE + box(b"moov", mvhd(duration), *parts) + DATA


def track(*tables: bytes, handler: bytes = b"vide", places: bytes = b"") -> bytes:
    named = box(b"hdlr", bytes(8), handler, bytes(12))
    return box(b"trak", box(b"mdia", named, box(b"minf", places, box(b"stbl", *tables))))


def coding(kind: bytes = b"avc1", width: int = 64, height: int = 48) -> bytes:
    entry = box(kind, bytes(24), struct.pack(">HH", width, height), bytes(50))
    return box(b"stsd", struct.pack(">II", 0, 1), entry)


def place(flags: int, kind: bytes = b"url ") -> bytes:
    entry = box(kind, struct.pack(">I", flags), b"https://example.com/film.mp4")
    return box(b"dinf", box(b"dref", struct.pack(">II", 0, 1), entry))


HOSTILE = [
    Hostile("nothing", Rule.EMPTY, b""),
    Hostile("a page", Rule.UNKNOWN_FORMAT, b"<!doctype html><video src=film.mp4>"),
    Hostile("a playlist", Rule.UNKNOWN_FORMAT, b"#EXTM3U\n#EXT-X-VERSION:3\nhttps://example.com/1.ts"),
    Hostile("a picture", Rule.UNKNOWN_FORMAT, b"\x89PNG\r\n\x1a\n" + bytes(40)),
    Hostile("an AVI film", Rule.UNKNOWN_FORMAT, b"RIFF\x40\0\0\0AVI LIST" + bytes(60)),
    Hostile("too large", Rule.TOO_MANY_BYTES, FILM + bytes(LIMIT_BYTES)),
    Hostile("a sound as a film", Rule.NO_STREAM, SOUND),
    Hostile("a film as a sound", Rule.FORMAT_NOT_TAKEN, FILM, "audio"),
    Hostile("an MP3 file as a film", Rule.FORMAT_NOT_TAKEN, made.MP3_FRAME * 4),
    Hostile("a WebM film as a sound", Rule.FORMAT_NOT_TAKEN, webm(cluster()), "audio"),
    # ---- MP4 ----
    Hostile("MP4: cut off in the data", Rule.TRUNCATED, made.recorded("mp4", movflags="faststart")[:-9]),
    Hostile("MP4: cut off before its index", Rule.TRUNCATED, FILM[: FILM.index(b"moov") - 4]),
    Hostile("MP4: no data", Rule.TRUNCATED, TYPE + box(b"moov", mvhd(1000), track(coding()))),
    Hostile("MP4: two movies", Rule.BAD_FRAMING, movie(track(coding())) + box(b"moov", mvhd(1))),
    Hostile("MP4: no type first", Rule.BAD_FRAMING, TYPE + TYPE),
    Hostile("MP4: a box of two bytes", Rule.BAD_FRAMING, TYPE + b"\0\0\0\x02moov"),
    Hostile("MP4: a box larger than its parent", Rule.BAD_FRAMING, movie(b"\0\0\xff\xfftrak")),
    Hostile("MP4: a huge declared length", Rule.TOO_LONG, movie(track(coding()), duration=2**32 - 2)),
    Hostile("MP4: just over a minute", Rule.TOO_LONG, movie(track(coding()), duration=60_501)),
    Hostile("MP4: a second of no parts", Rule.BAD_HEADER, TYPE + box(b"moov", mvhd(5, 0)) + DATA),
    Hostile("MP4: no length", Rule.EMPTY, movie(track(coding()), duration=0)),
    Hostile("MP4: a side of zero", Rule.EMPTY, movie(track(coding(width=0)))),
    Hostile("MP4: a side too long", Rule.SIDE_TOO_LONG, movie(track(coding(height=4_097)))),
    Hostile("MP4: data at an address", Rule.OUTSIDE_DATA, movie(track(coding(), places=place(0)))),
    Hostile("MP4: data in another file", Rule.OUTSIDE_DATA, movie(track(coding(), places=place(0, b"alis")))),
    Hostile("MP4: encrypted", Rule.UNSUPPORTED_CODING, movie(track(coding(b"encv")))),
    Hostile("MP4: a movie packed with zlib", Rule.UNSUPPORTED_CODING, movie(box(b"cmov", bytes(20)))),
    Hostile("MP4: a movie that names others", Rule.UNSUPPORTED_CODING, movie(box(b"rmra", bytes(20)))),
    Hostile("MP4: a short table", Rule.TRUNCATED, movie(track(coding(), box(b"stco", TABLE)))),
    Hostile(
        "MP4: sizes that are not there",
        Rule.TRUNCATED,
        movie(track(coding(), box(b"stsz", bytes(8), struct.pack(">I", 2**31)))),
    ),
    Hostile(
        "MP4: more samples than data",
        Rule.TRUNCATED,
        movie(track(coding(), box(b"stsz", bytes(4), struct.pack(">II", 1000, 2**32 - 1)))),
    ),
    Hostile(
        "MP4: a run of four billion samples",
        Rule.TRUNCATED,
        movie(track(coding()))
        + box(b"moof", box(b"traf", box(b"trun", bytes(4), struct.pack(">I", 2**32 - 1)))),
    ),
    Hostile("MP4: a million boxes", Rule.TOO_MANY_CHUNKS, movie(track(coding())) + box(b"free") * 1_000_000),
    Hostile("MP4: boxes in the movie", Rule.TOO_MANY_CHUNKS, movie(box(b"free") * (PARTS_LIMIT + 1))),
    Hostile("MP4: a hundred tracks", Rule.TOO_MANY_STREAMS, movie(track(coding()) * 100)),
    Hostile("MP4: subtitles alone", Rule.NO_STREAM, movie(track(coding(b"tx3g"), handler=b"sbtl"))),
    # ---- WebM ----
    Hostile(
        "WebM: Matroska",
        Rule.FORMAT_NOT_TAKEN,
        webm(cluster(), head=element(0x1A45DFA3, element(0x4282, b"matroska"))),
    ),
    Hostile("WebM: cut off", Rule.TRUNCATED, webm(cluster())[:-3]),
    Hostile("WebM: no pictures", Rule.NO_STREAM, webm(cluster(), kind=2)),
    Hostile("WebM: no data", Rule.TRUNCATED, webm()),
    Hostile("WebM: a year long", Rule.TOO_LONG, webm(cluster(), duration=3.2e10)),
    Hostile("WebM: infinitely long", Rule.TOO_LONG, webm(cluster(), duration=float("inf"))),
    Hostile("WebM: of no number's length", Rule.BAD_HEADER, webm(cluster(), duration=float("nan"))),
    Hostile("WebM: pictures after two minutes", Rule.TOO_LONG, webm(cluster(), cluster(120_000))),
    Hostile("WebM: a side too long", Rule.SIDE_TOO_LONG, webm(cluster(), width=16_384)),
    Hostile("WebM: packed tracks", Rule.UNSUPPORTED_CODING, webm(cluster(), track=element(0x6D80, b""))),
    Hostile("WebM: attached files", Rule.UNSUPPORTED_CODING, webm(element(0x1941A469, b""), cluster())),
    Hostile("WebM: something behind it", Rule.BAD_FRAMING, webm(cluster()) + element(0xEC, b"")),
    Hostile("WebM: a million elements", Rule.TOO_MANY_CHUNKS, webm(cluster(0, b"\xec\x80" * 1_000_000))),
    Hostile("WebM: a name without an end", Rule.BAD_FRAMING, webm(b"\0" * 40)),
    Hostile(
        "WebM: an element of unknown size",
        Rule.BAD_FRAMING,
        webm(element(0x1654AE6B, size=made.UNKNOWN_SIZE), cluster()),
    ),
    Hostile("WebM: a hundred tracks", Rule.TOO_MANY_STREAMS, webm(element(0x1654AE6B, element(0xAE) * 100))),
    # ---- sounds ----
    Hostile("WAV: cut off", Rule.TRUNCATED, made.wav()[:-1], "audio"),
    Hostile("WAV: two minutes", Rule.TOO_LONG, made.wav(120), "audio"),
    Hostile("WAV: no samples", Rule.EMPTY, made.wav(0), "audio"),
    Hostile("WAV: no format", Rule.NO_STREAM, b"RIFF\x0c\0\0\0WAVEdata\0\0\0\0", "audio"),
    Hostile(
        "WAV: packed samples",
        Rule.UNSUPPORTED_CODING,
        made.wav().replace(b"\1\0\1\0", b"\x55\0\1\0"),
        "audio",
    ),
    Hostile("WAV: too many channels", Rule.BAD_HEADER, made.wav(0.1, channels=100), "audio"),
    Hostile("WAV: a million chunks", Rule.TOO_MANY_CHUNKS, b"", "audio"),
    Hostile("MP3: two minutes", Rule.TOO_LONG, made.MP3_FRAME * 5_000, "audio"),
    Hostile("MP3: one frame", Rule.TRUNCATED, made.MP3_FRAME, "audio"),
    Hostile("MP3: a tag without sound", Rule.NO_STREAM, b"ID3\4\0\0\0\0\0\x0a" + bytes(10), "audio"),
    Hostile("MP3: a tag that is cut off", Rule.TRUNCATED, b"ID3\4\0\0\x7f\x7f\x7f\x7f" + bytes(10), "audio"),
    Hostile("MP3: a page behind it", Rule.BAD_FRAMING, made.MP3_FRAME * 4 + b"<script>alert(1)", "audio"),
    Hostile(
        "OGG: pictures", Rule.UNSUPPORTED_CODING, page(1, b"\x80theora" + bytes(40), first=True), "audio"
    ),
    Hostile(
        "OGG: two streams",
        Rule.TOO_MANY_STREAMS,
        page(1, made.OPUS_HEAD, first=True) + page(2, made.OPUS_HEAD, first=True),
        "audio",
    ),
    Hostile("OGG: no sound", Rule.EMPTY, page(1, made.OPUS_HEAD, first=True), "audio"),
    Hostile(
        "OGG: two minutes",
        Rule.TOO_LONG,
        page(1, made.OPUS_HEAD, first=True) + page(1, b"sound", time=48_000 * 120),
        "audio",
    ),
    Hostile("OGG: cut off", Rule.TRUNCATED, made.recorded("ogg")[:-3], "audio"),
    Hostile("OGG: something else", Rule.BAD_FRAMING, made.recorded("ogg") + bytes(99), "audio"),
    Hostile(
        "OGG: a million pages",
        Rule.TOO_MANY_CHUNKS,
        page(1, made.OPUS_HEAD, first=True) + page(1, b"") * (PARTS_LIMIT + 1),
        "audio",
    ),
]


def content_of(hostile: Hostile) -> bytes:
    if hostile.name == "WAV: a million chunks":
        chunks = b"junk\0\0\0\0" * 1_000_000
        return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks
    return hostile.content


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda hostile: hostile.name)
def test_what_is_not_taken_is_refused_by_its_rule(hostile: Hostile) -> None:
    with pytest.raises(RecordingRefused) as caught:
        walk(content_of(hostile), RecordingLimits(hostile.medium, LIMIT_BYTES))
    assert caught.value.rule == hostile.rule


def test_each_rule_of_the_walk_has_a_file_that_breaks_it() -> None:
    # What the library finds in the second stage has its own tests.
    assert {hostile.rule for hostile in HOSTILE} == set(Rule) - {Rule.UNDECODABLE}


@pytest.mark.parametrize("sample", made.honest(), ids=lambda sample: sample.name)
def test_an_honest_recording_is_taken_for_what_it_is(sample: Recording) -> None:
    walked = walk(sample.content, RecordingLimits(sample.medium, LIMIT_BYTES))
    assert walked.format == sample.format
    assert (walked.width, walked.height) == ((64, 48) if sample.medium == "video" else (0, 0))
    # What is written as it is recorded does not say its length.
    assert walked.duration_ms == 0 or 950 <= walked.duration_ms <= 1_100


@pytest.mark.parametrize("sample", made.honest(), ids=lambda sample: sample.name)
def test_sixteen_bytes_are_enough_to_know_a_container(sample: Recording) -> None:
    assert sniff(sample.content[:16]) is not None
    assert sniff(sample.content[:3]) in (None, "mp3")


def test_a_minute_with_an_encoders_padding_is_a_minute() -> None:
    assert walk(movie(track(coding()), duration=60_500), RecordingLimits("video", LIMIT_BYTES)).duration_ms
    assert walk(made.wav(60), RecordingLimits("audio", LIMIT_BYTES)).duration_ms == 60_000


def test_a_sound_that_was_written_as_it_was_recorded_needs_no_sizes() -> None:
    whole = made.wav()
    streamed = whole.replace(struct.pack("<I", len(whole) - 8), b"\xff" * 4).replace(
        struct.pack("<I", 16_000), b"\xff" * 4
    )
    assert walk(streamed, RecordingLimits("audio", LIMIT_BYTES)).duration_ms == 1_000


def test_a_sound_that_stops_in_the_middle_of_a_frame_is_taken() -> None:
    stopped = made.MP3_FRAME * 40 + made.MP3_FRAME[:100]
    assert walk(stopped, RecordingLimits("audio", LIMIT_BYTES)).duration_ms == 1_045
