"""What both media stores promise: the folder, and the bucket at a real store of objects."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.chassis.egress_objects import ObjectStore, ObjectsUnusable
from services.chassis.object_place import ObjectPlace
from services.provider_pool.adapters.sandbox import instant
from services.provider_pool.media.object_media import ObjectMedia
from services.provider_pool.media.output_store import OutputStore
from services.provider_pool.media.store import MediaStore, Staged, TooLarge
from tests.object_server import ObjectServer

PICTURE = instant.picture(40, 30)
SOUND = instant.mp3(3_000)
KEY = "images/2026/01/02/job_1.png"
LARGE_KEY = "audio/2026/01/02/job_1.mp3"


@dataclass
class Shelf:
    """A store, with what a test may see of it beside."""

    store: OutputStore
    folder: Path
    keys: Callable[[], Awaitable[set[str]]]
    content: Callable[[str], Awaitable[bytes]]

    async def put(self, content: bytes, key: str) -> Staged:
        staged = await self.store.stage(chunks(content))
        await self.store.publish(staged, key)
        return staged


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@asynccontextmanager
async def on_folder(folder: Path) -> AsyncIterator[Shelf]:
    store = MediaStore(folder, limit_bytes=10_000_000)

    async def keys() -> set[str]:
        return {name for name in files(folder) if not name.startswith(".")}

    async def content(key: str) -> bytes:
        return (folder / key).read_bytes()

    yield Shelf(store, folder, keys, content)
    store.close()


@asynccontextmanager
async def on_bucket(folder: Path, place: ObjectPlace) -> AsyncIterator[Shelf]:
    async with ObjectStore(place, total_s=10) as objects:
        store = ObjectMedia(objects, folder, limit_bytes=10_000_000)

        async def keys() -> set[str]:
            return {one.key async for page in objects.pages("") for one in page}

        async def content(key: str) -> bytes:
            return await objects.read(key, 10_000_000) or b""

        yield Shelf(store, folder, keys, content)
        store.close()
        await objects.delete(sorted(await keys()))


@pytest.fixture(scope="module")
def place(object_server: ObjectServer) -> ObjectPlace:
    return object_server.bucket()


@pytest.fixture
async def bucket(place: ObjectPlace, tmp_path: Path) -> AsyncIterator[Shelf]:
    async with on_bucket(tmp_path / "media", place) as shelf:
        yield shelf


@pytest.fixture(params=["folder", "bucket"])
async def shelf(request: pytest.FixtureRequest, place: ObjectPlace, tmp_path: Path) -> AsyncIterator[Shelf]:
    folder = tmp_path / "media"
    async with on_folder(folder) if request.param == "folder" else on_bucket(folder, place) as shelf:
        yield shelf


async def chunks(content: bytes, size: int = 100_000) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


@pytest.mark.parametrize("content,key", [(PICTURE, KEY), (SOUND, LARGE_KEY)], ids=["small", "large"])
async def test_an_object_appears_whole_under_its_key_and_nothing_is_left_beside(
    shelf: Shelf, content: bytes, key: str
) -> None:
    staged = await shelf.store.stage(chunks(content))
    assert await shelf.keys() == set()
    await shelf.store.publish(staged, key)
    assert await shelf.keys() == {key}
    assert await shelf.content(key) == content
    assert {name for name in files(shelf.folder) if name.startswith(".")} == set()


@pytest.mark.parametrize("content,key", [(PICTURE, KEY), (SOUND, LARGE_KEY)], ids=["small", "large"])
async def test_publishing_may_be_repeated_after_a_crash_at_any_line(
    shelf: Shelf, content: bytes, key: str
) -> None:
    for _ in range(3):
        await shelf.put(content, key)
    assert await shelf.keys() == {key}
    assert await shelf.content(key) == content
    assert {name for name in files(shelf.folder) if name.startswith(".")} == set()


async def test_many_publish_the_same_object_at_once(shelf: Shelf) -> None:
    await asyncio.gather(*(shelf.put(PICTURE, KEY) for _ in range(5)))
    assert await shelf.content(KEY) == PICTURE


async def test_bytes_of_a_collection_that_was_never_answered_are_replaced(shelf: Shelf) -> None:
    await shelf.put(instant.picture(1, 1), KEY)
    await shelf.put(PICTURE, KEY)
    assert await shelf.content(KEY) == PICTURE


async def test_what_is_too_large_is_not_taken(shelf: Shelf) -> None:
    with pytest.raises(TooLarge):
        await shelf.store.stage(chunks(b"\x89PNG" + bytes(10_000_000)))
    assert files(shelf.folder) == set()


async def test_what_is_discarded_is_gone(shelf: Shelf) -> None:
    await shelf.store.discard(await shelf.store.stage(chunks(SOUND)))
    assert (files(shelf.folder), await shelf.keys()) == (set(), set())


async def test_deleting_removes_what_is_there_and_is_repeatable(shelf: Shelf) -> None:
    keys = ["videos/2026/01/02/job_1.mp4", "job_2/primary.png", "video-posters/2026/01/02/job_1-last.jpg"]
    for key in keys:
        await shelf.put(PICTURE, key)
    assert await shelf.store.delete(keys[:2]) == 2
    assert await shelf.keys() == {keys[2]}
    assert await shelf.store.delete(keys) == 1
    assert await shelf.keys() == set()
    assert await shelf.store.delete([]) == 0


@pytest.mark.parametrize("key", ["", "../secret.png", "secrets/2026/01/02/a.mp4", ".incoming/part_1"])
async def test_a_key_that_the_store_never_gave_deletes_nothing(shelf: Shelf, key: str) -> None:
    await shelf.put(PICTURE, KEY)
    with pytest.raises(ValueError, match="never given"):
        await shelf.store.delete([KEY, key])
    assert await shelf.keys() == {KEY}


async def test_reading_gives_the_first_bytes_and_nothing_of_what_is_gone(shelf: Shelf) -> None:
    await shelf.put(b"some words", "texts/2026/01/02/job_1.txt")
    assert await shelf.store.read("texts/2026/01/02/job_1.txt", 4) == b"some"
    assert await shelf.store.read("texts/2026/01/02/job_2.txt", 4) == b""


async def test_old_objects_are_swept_young_ones_and_days_to_come_are_not(shelf: Shelf) -> None:
    keys = {KEY, LARGE_KEY, "videos/2026/01/02/job_1.mp4", "videos/2999/12/31/job_2.mp4"}
    for key in keys:
        await shelf.put(PICTURE, key)
    assert await shelf.store.sweep(500) == 0
    assert await shelf.keys() == keys
    # As if five seconds had passed that are not kept.
    assert await shelf.store.sweep(-5) == 3
    assert await shelf.keys() == {"videos/2999/12/31/job_2.mp4"}


async def test_a_store_that_can_be_used_says_so(shelf: Shelf) -> None:
    await shelf.store.check()
    assert files(shelf.folder) == set()


async def test_what_others_put_into_the_bucket_stays(bucket: Shelf, place: ObjectPlace) -> None:
    others = {"videos/readme.txt", "videos/2026/01/02/notes/a.mp4", "backups/2026/01/02/a.mp4"}
    async with ObjectStore(place) as objects:
        for key in others:
            digest = hashlib.sha256(b"x").hexdigest()
            await objects.put(key, b"x", size_bytes=1, sha256=digest, content_type="text/plain")
    await bucket.put(PICTURE, KEY)
    assert await bucket.store.sweep(-5) == 1
    assert await bucket.keys() == others


async def test_an_object_says_what_it_is_and_what_it_holds(bucket: Shelf, place: ObjectPlace) -> None:
    staged = await bucket.put(PICTURE, KEY)
    async with ObjectStore(place) as objects:
        facts = await objects.head(KEY)
    assert facts is not None
    assert (facts.sha256, facts.size_bytes) == (staged.sha256, staged.size_bytes)


async def test_a_bucket_that_cannot_be_used_is_an_error_of_the_store(
    object_server: ObjectServer, tmp_path: Path
) -> None:
    wrong = object_server.place("bucket-1", secret_key="wrong")
    async with on_bucketless(tmp_path / "media", wrong) as store:
        staged = await store.stage(chunks(SOUND))
        for call in (
            store.check(),
            store.publish(staged, LARGE_KEY),
            store.read(KEY, 5),
            store.delete([KEY]),
            store.sweep(5),
        ):
            with pytest.raises(ObjectsUnusable):
                await call
        # Nothing is lost: whoever staged it may publish it later.
        assert staged.path.read_bytes() == SOUND


@asynccontextmanager
async def on_bucketless(folder: Path, place: ObjectPlace) -> AsyncIterator[OutputStore]:
    async with ObjectStore(place, total_s=3) as objects:
        store = ObjectMedia(objects, folder, limit_bytes=10_000_000)
        yield store
        store.close()
