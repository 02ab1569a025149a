"""Films and sounds on their way through an inspector: what is copied, what is left behind, and what is refused."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.provider_pool.references import decode_process
from services.provider_pool.references.recordings.inspector import (
    RecordingInspector,
    RecordingsUnread,
    default_workers,
)
from services.provider_pool.references.recordings.judgement import RecordingLimits, RecordingRefused
from tests.corpus import recordings as made
from tests.corpus.recordings import PLACE, TITLE, Recording
from tests.unit import lying_decode_worker
from tests.unit.inspections import PATIENCE_S, put, refusals

LIMIT_BYTES = 20 * 1024 * 1024
VIDEO = RecordingLimits("video", LIMIT_BYTES)
AUDIO = RecordingLimits("audio", LIMIT_BYTES)
SAMPLES = made.honest()
TURNED = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)


@pytest.fixture
async def inspector() -> AsyncIterator[RecordingInspector]:
    running = RecordingInspector(workers=1, deadline_s=PATIENCE_S)
    yield running
    await running.close()


async def refusal(
    running: RecordingInspector, folder: Path, content: bytes, limits: RecordingLimits = VIDEO
) -> str:
    source, target = put(folder, content), folder / "target"
    with pytest.raises(RecordingRefused) as caught:
        await running.inspect(source, target, limits)
    assert list(folder.iterdir()) == [source]
    return caught.value.rule


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
async def test_a_recording_is_copied_without_what_it_tells_of_its_maker(
    inspector: RecordingInspector, tmp_path: Path, sample: Recording
) -> None:
    source, target = put(tmp_path, sample.content), tmp_path / "target"
    found = await inspector.inspect(source, target, RecordingLimits(sample.medium, LIMIT_BYTES))
    copy = target.read_bytes()
    before, after = made.seen(sample.content), made.seen(copy)
    assert (after.frames, after.kinds) == (before.frames, before.kinds)
    assert found.format == sample.format
    assert (found.width, found.height) == ((64, 48) if sample.medium == "video" else (0, 0))
    assert 950 <= found.duration_ms <= 1_200
    assert found.size_bytes == len(copy)
    for canary in (TITLE, PLACE, PLACE[:8]):
        assert canary.encode() not in copy
        assert canary not in str(after.told)


async def test_the_same_recording_becomes_the_same_file(
    inspector: RecordingInspector, tmp_path: Path
) -> None:
    source = put(tmp_path, made.recorded("webm"))
    hashes = {(await inspector.inspect(source, tmp_path / name, VIDEO)).sha256 for name in ("one", "two")}
    assert len(hashes) == 1


async def test_a_film_that_lies_on_its_side_still_does(inspector: RecordingInspector, tmp_path: Path) -> None:
    film = made.patched(made.recorded("mov"), b"moov/trak/tkhd", 40, TURNED)
    await inspector.inspect(put(tmp_path, film), tmp_path / "target", VIDEO)
    assert made.seen(film).rotation == made.seen((tmp_path / "target").read_bytes()).rotation == -90


async def test_what_is_neither_pictures_nor_sound_is_left_behind(
    inspector: RecordingInspector, tmp_path: Path
) -> None:
    hidden = made.box(b"uuid", b"canary-0815" * 9) + made.box(b"free", b"canary-0815" * 9)
    # What was a sound is now, as cameras write them, a track of positions.
    film = made.recorded("mov").replace(b"soun", b"meta").replace(b"mp4a", b"mebx") + hidden
    assert made.seen(film).kinds == ["video", "data"]
    await inspector.inspect(put(tmp_path, film), tmp_path / "target", VIDEO)
    copy = (tmp_path / "target").read_bytes()
    assert made.seen(copy).kinds == ["video"]
    assert b"canary-0815" not in copy


async def test_pictures_that_cannot_be_decoded_are_refused(
    inspector: RecordingInspector, tmp_path: Path
) -> None:
    film = made.changed(made.recorded("mp4"), b"mdat", lambda data: b"\xa5" * len(data))
    counted = refusals("undecodable")
    assert await refusal(inspector, tmp_path, film) == "undecodable"
    assert refusals("undecodable") == counted + 1


async def test_a_rare_coding_is_refused(inspector: RecordingInspector, tmp_path: Path) -> None:
    film = made.recorded("mp4", film="mpeg2video")
    assert await refusal(inspector, tmp_path, film) == "unsupported_coding"


async def test_a_film_that_is_longer_than_it_says_is_refused(
    inspector: RecordingInspector, tmp_path: Path
) -> None:
    film = made.recorded("mp4", seconds=64)
    assert await refusal(inspector, tmp_path, film) == "too_long"
    shortened = made.patched(film, b"moov/mvhd", 16, struct.pack(">I", 1_000))
    assert await refusal(inspector, tmp_path, shortened) == "too_long"


async def test_a_film_that_is_larger_than_it_says_is_refused(
    inspector: RecordingInspector, tmp_path: Path
) -> None:
    film = made.recorded("mp4", width=4_112, height=16, seconds=0.5)
    assert await refusal(inspector, tmp_path, film) == "side_too_long"
    at = film.index(b"avc1", film.index(b"stsd")) + 4 + 24
    smaller = film[:at] + struct.pack(">HH", 64, 48) + film[at + 4 :]
    assert await refusal(inspector, tmp_path, smaller) == "side_too_long"


async def test_a_sound_is_no_film_and_a_film_no_sound(inspector: RecordingInspector, tmp_path: Path) -> None:
    assert await refusal(inspector, tmp_path, made.recorded("ipod")) == "no_stream"
    assert await refusal(inspector, tmp_path, made.recorded("mp4"), AUDIO) == "format_not_taken"


async def test_what_takes_too_long_is_no_recording(tmp_path: Path) -> None:
    running = RecordingInspector(workers=1, deadline_s=0.0)
    try:
        assert await refusal(running, tmp_path, made.recorded("mp4")) == "undecodable"
    finally:
        await running.close()


@pytest.mark.parametrize("lie", range(1, len(lying_decode_worker.LIES) + 2))
async def test_whatever_a_fork_that_was_taken_over_says_nothing_is_taken(
    inspector: RecordingInspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lie: int
) -> None:
    monkeypatch.setattr(decode_process, "_MODULE", lying_decode_worker.__name__)
    assert await refusal(inspector, tmp_path, made.wav(), RecordingLimits("audio", lie)) in {
        "undecodable",
        "empty",
    }


async def test_what_a_fork_that_was_taken_over_wrote_is_walked_by_another(
    inspector: RecordingInspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, start = put(tmp_path, made.wav()), decode_process.DecodeProcess.examine

    async def taken_over(process, order, files):  # type: ignore[no-untyped-def]
        ended = await start(process, order, files)
        if order.copies:
            (tmp_path / "target").write_bytes(b"<script>alert(1)</script>")
        return ended

    monkeypatch.setattr(decode_process.DecodeProcess, "examine", taken_over)
    with pytest.raises(RecordingRefused) as caught:
        await inspector.inspect(source, tmp_path / "target", AUDIO)
    assert caught.value.rule == "unknown_format"
    assert list(tmp_path.iterdir()) == [source]


def test_without_its_library_nothing_can_be_examined() -> None:
    with pytest.raises(RecordingsUnread):
        RecordingInspector(workers=1, installed=lambda: False).check()
    RecordingInspector(workers=1).check()


def test_there_are_never_more_processes_for_films_than_for_images() -> None:
    assert [default_workers(images) for images in (1, 2, 4, 8)] == [1, 1, 2, 2]
