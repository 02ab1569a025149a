"""Films and sounds behind URLs, from a server that does what it likes, through the real door into the real jail."""

from __future__ import annotations

import itertools
import struct
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from services.provider_pool.adapters.interface import (
    Reference,
    ReferenceLimits,
    ReferenceRole,
    Strength,
)
from services.provider_pool.references import fetching
from services.provider_pool.references.container import FORMATS
from services.provider_pool.references.fetching import Fetching, Unavailable
from services.provider_pool.references.inspector import Inspector
from services.provider_pool.references.intake import Allowance, ContentRefused, Inspectors, Intake
from services.provider_pool.references.recordings.inspector import RecordingInspector
from services.provider_pool.references.store import Kept, ReferenceStore
from tests.corpus import recordings as made
from tests.corpus.recordings import box, cluster, element
from tests.egress.certificates import Credentials
from tests.egress.evil_server import EvilServer, Scene
from tests.egress.scenes import OK, answer, chunked, endless, raw, slowly, then_silence
from tests.egress.street import Street, street

LIMITS = ReferenceLimits(FORMATS, 100_000, 9, True, 3, 1_000_000, 3, 100_000)
FILM = made.recorded("mp4")
INDEX_LAST = FILM
INDEX_FIRST = made.recorded("mp4", movflags="faststart")
LENGTH = b"Content-Length: %d"
YEAR = made.patched(FILM, b"moov/mvhd", 16, struct.pack(">I", 2**32 - 2))
ELSEWHERE = made.patched(FILM, b"moov/trak/mdia/minf/dinf/dref", 16, bytes(4))


@dataclass
class Road:
    """What fetches, and the server at its other end."""

    street: Street
    fetching: Fetching
    folder: Path

    def __post_init__(self) -> None:
        self._jobs = itertools.count()

    async def get(
        self, scene: Scene, role: ReferenceRole = ReferenceRole.VIDEO, all_bytes: int = 10**7
    ) -> Kept:
        self.street.server.scenes["/recording"] = scene
        reference = Reference(url=self.street.url("/recording"), role=role)
        allowance = Allowance(all_bytes, "too_many_bytes_in_all")
        return await self.fetching.get(f"job_{next(self._jobs)}", 0, reference, LIMITS, allowance)

    def left(self) -> list[Path]:
        return [path for path in self.folder.rglob("*") if path.is_file()]


@pytest.fixture(scope="session")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Credentials:
    return Credentials(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
async def road(credentials: Credentials, tmp_path: Path) -> AsyncIterator[Road]:
    async with AsyncExitStack() as stack:
        here = await stack.enter_async_context(street(credentials, EvilServer(credentials.good)))
        images, recordings = Inspector(workers=1), RecordingInspector(workers=1)
        store = ReferenceStore(tmp_path / "references")
        stack.callback(store.close)
        for inspector in (images, recordings):
            stack.push_async_callback(inspector.close)
        intake = Intake(store, Inspectors(images, recordings))
        yield Road(here, Fetching(here.egress, intake, store), tmp_path / "references")


@pytest.mark.parametrize(
    "content", [INDEX_LAST, INDEX_FIRST], ids=["with its index last", "with its index first"]
)
async def test_a_film_behind_a_url_is_kept_as_a_copy(road: Road, content: bytes) -> None:
    kept = await road.get(answer(content, "Content-Type: text/html"))
    assert (kept.record.content_type, kept.record.width, kept.record.height) == ("video/mp4", 64, 48)
    assert 950 <= kept.record.duration_ms <= 1_100
    assert kept.path.suffix == ".mp4"
    assert made.TITLE.encode() not in kept.path.read_bytes()
    file = kept.file(Strength.MID, ReferenceRole.VIDEO)
    assert (file.role, file.duration_ms) == (ReferenceRole.VIDEO, kept.record.duration_ms)


async def test_a_sound_behind_a_url_is_kept_as_a_copy(road: Road) -> None:
    kept = await road.get(
        raw(b"Transfer-Encoding: chunked", chunked(made.recorded("mp3"))), ReferenceRole.AUDIO
    )
    assert (kept.record.content_type, kept.record.width) == ("audio/mpeg", 0)


async def test_first_and_last_frames_are_images(road: Road) -> None:
    with pytest.raises(ContentRefused) as refused:
        await road.get(answer(FILM), ReferenceRole.LAST_FRAME)
    assert refused.value.rule == "unknown_format"


INVALID: dict[str, tuple[Scene, str]] = {
    "a page": (answer(b"<!doctype html>" + bytes(5_000)), "unknown_format"),
    "a playlist": (answer(b"#EXTM3U\nhttps://example.com/1.ts\n" * 9), "unknown_format"),
    "no end, and the wrong beginning": (endless(OK + b"\r\n", b"<script>" * 999), "unknown_format"),
    "a page behind a film's first bytes": (answer(FILM[:32] + b"<script>" * 999), "truncated"),
    "cut off, and said to be whole": (answer(INDEX_FIRST[:-99]), "truncated"),
    "no index": (answer(FILM[: FILM.index(b"moov") - 4]), "truncated"),
    "a year long": (answer(YEAR), "too_long"),
    "data at an address": (answer(ELSEWHERE), "outside_data"),
    "a million boxes": (answer(INDEX_FIRST + box(b"free") * 110_000), "too_many_chunks"),
    "elements packed with zlib": (
        answer(made.webm(cluster(), track=element(0x6D80, bytes(99)))),
        "unsupported_coding",
    ),
    "too long by its length": (raw(LENGTH % 10**18, FILM), "too_many_bytes"),
    "no end": (endless(OK + b"\r\n" + FILM, bytes(100_000)), "too_many_bytes"),
    "a sound": (answer(made.recorded("ipod")), "no_stream"),
}
UNAVAILABLE: dict[str, Scene] = {
    "less than its length": raw(LENGTH % (len(FILM) + 9), FILM),
    "silence": then_silence(answer(FILM)[:400]),
    "a drop at a time": slowly(answer(FILM)),
    "packed on the way": answer(FILM, "Content-Encoding: gzip"),
    "not there": answer(FILM, status="404 Not Found"),
}


@pytest.mark.parametrize("name", INVALID)
async def test_what_is_no_film_that_is_taken_is_refused_and_leaves_nothing(road: Road, name: str) -> None:
    scene, rule = INVALID[name]
    with pytest.raises(ContentRefused) as refused:
        await road.get(scene)
    assert refused.value.rule == rule
    assert road.left() == []


@pytest.mark.parametrize("name", UNAVAILABLE)
async def test_a_film_that_does_not_come_is_unavailable_and_leaves_nothing(
    road: Road, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "FILM_FETCH_S", 1.0)
    with pytest.raises(Unavailable):
        await road.get(UNAVAILABLE[name])
    assert road.left() == []


async def test_all_media_of_a_request_share_one_allowance(road: Road) -> None:
    with pytest.raises(ContentRefused) as refused:
        await road.get(answer(FILM), all_bytes=len(FILM) - 1)
    assert refused.value.rule == "too_many_bytes_in_all"
    assert road.left() == []


async def test_a_large_film_is_never_in_memory_as_a_whole(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.integration.test_recording_fetches.LIMITS", replace(LIMITS, video_bytes=10**8))
    mebibyte, count = bytes(1024 * 1024), 32

    async def scene() -> AsyncIterator[bytes]:
        padding = struct.pack(">I4s", 8 + count * len(mebibyte), b"free")
        yield OK + LENGTH % (len(FILM) + 8 + count * len(mebibyte)) + b"\r\n\r\n" + FILM + padding
        for _ in range(count):
            yield mebibyte

    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kept = await road.get(scene, all_bytes=10**8)
        peak_bytes = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert kept.record.received_bytes > count * len(mebibyte)
    assert kept.record.size_bytes < 2 * len(FILM)
    # The server is in this process as well.
    assert peak_bytes < 8 * len(mebibyte)
