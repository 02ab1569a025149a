from __future__ import annotations

import asyncio
import os
import resource
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.provider_pool.adapters.sandbox import instant
from services.provider_pool.media_probe import UnknownMedia, probe
from services.provider_pool.media_store import MediaStore, TooLarge

PICTURE = instant.picture(40, 30)
JPEG = bytes.fromhex("ffd8ffe000104a46494600010100000100010000ffc0000b080003000501011100ffd9")


async def chunks(content: bytes, size: int = 7) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def broken_stream() -> AsyncIterator[bytes]:
    yield PICTURE[:10]
    raise ConnectionResetError


@pytest.fixture
def store(tmp_path: Path) -> MediaStore:
    return MediaStore(tmp_path / "media", limit_bytes=10_000)


def files(tmp_path: Path) -> set[str]:
    return {str(path.relative_to(tmp_path / "media")) for path in tmp_path.rglob("*") if path.is_file()}


def probed(tmp_path: Path, content: bytes) -> tuple[str, int, int, int]:
    (tmp_path / "file").write_bytes(content)
    found = probe(tmp_path / "file")
    return found.content_type, found.width, found.height, found.duration_ms


def test_a_type_is_decided_by_the_bytes(tmp_path: Path) -> None:
    assert probed(tmp_path, PICTURE) == ("image/png", 40, 30, 0)
    assert probed(tmp_path, JPEG) == ("image/jpeg", 5, 3, 0)
    assert probed(tmp_path, instant.film(64, 32, 7)) == ("video/mp4", 64, 32, 7_000)
    assert probed(tmp_path, b"RIFF\x00\x00\x00\x00WAVEfmt ")[0] == "audio/wav"
    assert probed(tmp_path, b"RIFF\x00\x00\x00\x00WEBPVP8 ")[0] == "image/webp"
    assert probed(tmp_path, b"ID3\x04" + b"\x00" * 20)[0] == "audio/mpeg"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<!doctype html>",
        PICTURE[:-1],
        PICTURE[:20],
        JPEG[:22],
        instant.film(64, 32, 7)[:-4],
        instant.film(64, 32, 7)[:40],
        b"\x00\x00\x00\x08ftyp",
        b"\x00\x00\x00\x10ftypisom\x00\x00\x00\x00" + b"\x00\x00\x00\x01moov",
    ],
    ids=lambda content: repr(content[:12]),
)
def test_a_file_that_is_cut_off_or_something_else_is_unknown(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UnknownMedia):
        probed(tmp_path, content)


async def test_an_object_appears_under_its_key_with_its_hash(store: MediaStore, tmp_path: Path) -> None:
    staged = await store.stage(chunks(PICTURE))
    assert files(tmp_path) == set()
    await store.publish(staged, "job_1/primary.png")
    assert files(tmp_path) == {"job_1/primary.png"}
    assert (tmp_path / "media/job_1/primary.png").read_bytes() == PICTURE
    assert (staged.size_bytes, len(staged.sha256)) == (len(PICTURE), 64)


async def test_a_large_object_lies_beside_the_store_until_it_gets_its_key(tmp_path: Path) -> None:
    store, content = MediaStore(tmp_path / "media", limit_bytes=10_000_000), b"ID3\x04" + b"\x01" * 3_000_000
    staged, other = [await store.stage(chunks(content, 100_000)) for _ in range(2)]
    assert files(tmp_path) == {f".incoming/{one.path.name}" for one in (staged, other)}
    await store.discard(other)
    await store.publish(staged, "job_1/primary.mp3")
    assert files(tmp_path) == {"job_1/primary.mp3"}
    assert (tmp_path / "media/job_1/primary.mp3").read_bytes() == content


async def test_what_is_published_together_succeeds_and_fails_apart(store: MediaStore, tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    (tmp_path / "media/job_3").write_text("no folder")
    staged = [await store.stage(chunks(PICTURE)) for _ in range(6)]
    keys = [f"job_{number}/primary.png" for number in range(6)]
    outcomes = await asyncio.gather(*map(store.publish, staged, keys), return_exceptions=True)
    assert [isinstance(one, OSError) for one in outcomes] == [number == 3 for number in range(6)]
    assert files(tmp_path) == {key for key in keys if "job_3" not in key} | {"job_3"}


async def test_the_same_bytes_twice_are_one_object(store: MediaStore, tmp_path: Path) -> None:
    for _ in range(2):
        await store.publish(await store.stage(chunks(PICTURE)), "job_1/primary.png")
    assert files(tmp_path) == {"job_1/primary.png"}


async def test_bytes_of_a_collection_that_was_never_answered_are_replaced(
    store: MediaStore, tmp_path: Path
) -> None:
    await store.publish(await store.stage(chunks(instant.picture(1, 1))), "job_1/primary.png")
    await store.publish(await store.stage(chunks(PICTURE)), "job_1/primary.png")
    assert (tmp_path / "media/job_1/primary.png").read_bytes() == PICTURE
    assert files(tmp_path) == {"job_1/primary.png"}


async def test_what_is_too_large_is_not_taken(store: MediaStore, tmp_path: Path) -> None:
    with pytest.raises(TooLarge):
        await store.stage(chunks(b"\x89PNG" + b"x" * 10_000, 1_000))
    assert files(tmp_path) == set()


async def test_a_stream_that_breaks_leaves_nothing(store: MediaStore, tmp_path: Path) -> None:
    with pytest.raises(ConnectionResetError):
        await store.stage(broken_stream())
    assert files(tmp_path) == set()


async def test_old_jobs_are_removed_and_others_stay(store: MediaStore, tmp_path: Path) -> None:
    for job in ("job_1", "job_2"):
        await store.publish(await store.stage(chunks(PICTURE)), f"{job}/primary.png")
    long_ago_s = time.time() - 1_000
    os.utime(tmp_path / "media/job_1", (long_ago_s, long_ago_s))
    assert await store.sweep(500) == 1
    assert files(tmp_path) == {"job_2/primary.png"}


async def test_an_object_that_does_not_fit_on_the_disk_gets_no_key(tmp_path: Path) -> None:
    store, content = MediaStore(tmp_path / "media", limit_bytes=10_000_000), b"ID3\x04" + b"\x01" * 200_000
    staged = await store.stage(chunks(content, 100_000))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # As on a disk that is nearly full, a write takes what still fits.
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            await store.publish(staged, "job_1/primary.mp3")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files(tmp_path) == set()
    await store.publish(staged, "job_1/primary.mp3")
    assert (tmp_path / "media/job_1/primary.mp3").read_bytes() == content
