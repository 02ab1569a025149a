from __future__ import annotations

import asyncio
import os
import resource
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.provider_pool.adapters.sandbox import instant
from services.provider_pool.media.probe import UnknownMedia, probe
from services.provider_pool.media.store import MediaStore, TooLarge

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
    assert probed(tmp_path, JPEG.replace(b"\xff\xc0", b"\xff\xff\xff\xc0")) == ("image/jpeg", 5, 3, 0)
    assert probed(tmp_path, instant.film(64, 32, 7)) == ("video/mp4", 64, 32, 7_000)
    assert probed(tmp_path, b"RIFF\x00\x00\x00\x00WEBPVP8 ")[0] == "image/webp"
    assert probed(tmp_path, "Ein Brief über\nnichts.".encode()) == ("text/plain", 0, 0, 0)


def test_a_sound_s_length_is_that_of_its_samples_and_frames(tmp_path: Path) -> None:
    assert probed(tmp_path, instant.wav(7)) == ("audio/wav", 0, 0, 7_000)
    assert probed(tmp_path, instant.mp3(9)) == ("audio/mpeg", 0, 0, 9_000)
    tagged = (
        b"ID3\x04\x00\x00\x00\x00\x02\x00"
        + b"\xff\xfb\x90" * 85
        + b"\x00"
        + instant.mp3(9)
        + b"TAG"
        + bytes(125)
    )
    assert probed(tmp_path, tagged) == ("audio/mpeg", 0, 0, 9_000)


def test_a_streamed_sound_that_does_not_know_its_length_is_as_long_as_it_is(tmp_path: Path) -> None:
    sound = instant.wav(3)
    for unknown in (b"\x00" * 4, b"\xff" * 4):
        assert probed(tmp_path, sound[:40] + unknown + sound[44:]) == ("audio/wav", 0, 0, 3_000)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<!doctype html>",
        b"\n <HTML><body>502",
        b"words\x00and more",
        b"half a character \xc3",
        b" \n\t ",
        b"long " * 20_000,
        b"ID3\x04" + b"\x00" * 20,
        b"\xff\xfb\x90\xc4" + b"\x01" * 10,
        b"RIFF\x00\x00\x00\x00WAVEfmt ",
        instant.wav(3)[:-1],
        b"RIFF\x00\x00\x00\x00WAVE" + b"LIST\x00\x00\x00\x00" * 2_000,
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
    store, content = MediaStore(tmp_path / "media", limit_bytes=10_000_000), instant.mp3(3_000)
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


async def test_objects_of_the_first_release_are_removed_by_the_age_of_their_job_s_folder(
    store: MediaStore, tmp_path: Path
) -> None:
    for job in ("job_1", "job_2"):
        await store.publish(await store.stage(chunks(PICTURE)), f"{job}/primary.png")
    long_ago_s = time.time() - 1_000
    os.utime(tmp_path / "media/job_1", (long_ago_s, long_ago_s))
    assert await store.sweep(500) == 1
    assert files(tmp_path) == {"job_2/primary.png"}


async def test_objects_are_removed_when_they_are_old_and_empty_days_with_them(
    store: MediaStore, tmp_path: Path
) -> None:
    keys = ["images/2026/01/02/job_1.png", "images/2026/01/03/job_2.png", "images/2026/01/03/job_3.png"]
    for key in keys:
        await store.publish(await store.stage(chunks(PICTURE)), key)
    for key in keys[:2]:
        os.utime(tmp_path / "media" / key, (time.time() - 1_000, time.time() - 1_000))
    assert await store.sweep(500) == 2
    assert files(tmp_path) == {keys[2]}
    assert not (tmp_path / "media/images/2026/01/02").exists()


async def test_a_day_that_is_not_over_yet_is_not_looked_into(store: MediaStore, tmp_path: Path) -> None:
    key = "videos/2999/12/31/job_1.png"
    await store.publish(await store.stage(chunks(PICTURE)), key)
    os.utime(tmp_path / "media" / key, (0, 0))
    assert await store.sweep(500) == 0
    assert files(tmp_path) == {key}


async def test_an_object_is_published_into_a_day_that_was_swept_away(
    store: MediaStore, tmp_path: Path
) -> None:
    key = "images/2026/01/02/job_1.png"
    for _ in range(2):
        await store.publish(await store.stage(chunks(PICTURE)), key)
        assert files(tmp_path) == {key}
        os.utime(tmp_path / "media" / key, (0, 0))
        await store.sweep(500)
        assert files(tmp_path) == set()


async def test_deleting_removes_what_is_there_and_is_repeatable(store: MediaStore, tmp_path: Path) -> None:
    keys = ["videos/2026/01/02/job_1.mp4", "job_2/primary.png", "video-posters/2026/01/02/job_1-last.jpg"]
    for key in keys:
        await store.publish(await store.stage(chunks(PICTURE)), key)
    assert await store.delete(keys[:2]) == 2
    assert files(tmp_path) == {keys[2]}
    assert not (tmp_path / "media/job_2").exists()
    assert await store.delete(keys) == 1
    assert files(tmp_path) == set()


HOSTILE_KEYS = (
    "",
    "..",
    "../secret.png",
    "/etc/passwd",
    "videos/2026/01/02/../../../../x.mp4",
    "videos/2026/01/02/.hidden.mp4",
    "videos/2026/01/02/a/b.mp4",
    "videos/2026/1/2/a.mp4",
    "secrets/2026/01/02/a.mp4",
    "videos/2026/01/02/a.mp4\n",
    "videos/primary.png",
    ".incoming/part_1",
    "job_1/other.png",
    "job_1/primary.png/x",
    "job_1\x00/primary.png",
)


@pytest.mark.parametrize("key", HOSTILE_KEYS, ids=repr)
async def test_a_key_that_the_store_never_gave_deletes_nothing(
    store: MediaStore, tmp_path: Path, key: str
) -> None:
    await store.publish(await store.stage(chunks(PICTURE)), "job_1/primary.png")
    with pytest.raises(ValueError, match="never given"):
        await store.delete(["job_1/primary.png", key])
    assert files(tmp_path) == {"job_1/primary.png"}


async def test_reading_gives_the_first_bytes_and_nothing_of_what_is_gone(store: MediaStore) -> None:
    await store.publish(await store.stage(chunks(b"some words")), "texts/2026/01/02/job_1.txt")
    assert await store.read("texts/2026/01/02/job_1.txt", 4) == b"some"
    assert await store.read("texts/2026/01/02/job_2.txt", 4) == b""


async def test_a_large_film_that_is_broken_inside_is_unknown_and_leaves_nothing(tmp_path: Path) -> None:
    store = MediaStore(tmp_path / "media", limit_bytes=1_000_000)
    whole = instant.film(64, 32, 7)
    place = whole.index(b"moov") - 4
    size = int.from_bytes(whole[place : place + 4], "big")
    torn = b"\x7f\xff\xff\xffudta"
    index = (size + 8 + len(torn)).to_bytes(4, "big") + whole[place + 4 : place + size]
    index += (8 + len(torn)).to_bytes(4, "big") + b"mvex" + torn
    rest = (8 + 300_000).to_bytes(4, "big") + b"mdat" + bytes(300_000)
    with pytest.raises(UnknownMedia):
        await store.stage(chunks(whole[:place] + index + whole[place + size :] + rest, 10_000))
    assert files(tmp_path) == set()
    store.close()


async def test_an_object_that_does_not_fit_on_the_disk_gets_no_key(tmp_path: Path) -> None:
    store, content = MediaStore(tmp_path / "media", limit_bytes=10_000_000), instant.mp3(200)
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
