"""The folder of references: what is there is whole, and goes when it is told to or a day later."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from services.chassis.ids import new_id
from services.provider_pool.adapters.interface import Strength
from services.provider_pool.references.store import KEPT_S, Kept, Record, ReferenceStore
from services.provider_pool.upkeep import sweep_references

DAY_S = 86_400.0


def record(content: bytes = b"one image", sha256: str = "a" * 64, source: str = "") -> Record:
    return Record("image/png", "png", len(content), sha256, 640, 480, len(content) + 100, source)


async def keep(
    store: ReferenceStore, name: str, content: bytes = b"one image", sha256: str = "a" * 64
) -> Kept:
    part = store.new_part()
    part.parent.mkdir(parents=True, exist_ok=True)
    part.write_bytes(content)
    return await store.publish(name, part, record(content, sha256))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "references"


@pytest.fixture
def store(folder: Path) -> ReferenceStore:
    return ReferenceStore(folder)


def everything(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def age(folder: Path, seconds: float) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, (time.time() - seconds,) * 2)


async def test_a_reference_is_found_with_its_type_and_size(store: ReferenceStore) -> None:
    name = new_id("ref")
    assert await store.find(name) is None
    await keep(store, name)
    kept = await store.find(name)
    assert kept is not None
    file = kept.file(Strength.HIGH)
    assert file.path.read_bytes() == b"one image"
    assert (file.content_type, file.size_bytes, file.sha256) == ("image/png", 9, "a" * 64)
    assert (file.width, file.height, file.strength) == (640, 480, Strength.HIGH)


async def test_replicas_that_share_the_folder_find_each_other_s(store: ReferenceStore, folder: Path) -> None:
    await keep(store, "job_1-0")
    assert await ReferenceStore(folder).find("job_1-0") == await store.find("job_1-0")


async def test_a_dropped_reference_leaves_nothing_and_may_be_dropped_again(
    store: ReferenceStore, folder: Path
) -> None:
    await keep(store, "job_1-0")
    assert await store.drop(["job_1-0", "job_1-1"]) == 1
    assert await store.drop(["job_1-0"]) == 0
    assert everything(folder) == []


async def test_a_later_one_takes_the_place_of_an_earlier(store: ReferenceStore, folder: Path) -> None:
    await keep(store, "job_1-0")
    await keep(store, "job_1-0", b"another", "b" * 64)
    found = await store.find("job_1-0")
    assert found is not None
    assert found.path.read_bytes() == b"another"
    assert len(everything(folder)) == 2


async def test_without_its_record_or_whole_file_a_reference_is_not_there(
    store: ReferenceStore, folder: Path
) -> None:
    for name in ("job_1-0", "job_1-1", "job_1-2"):
        await keep(store, name)
    (folder / "job_1-0.json").write_bytes(b'{"content_type":"image')
    next(folder.glob("job_1-1.*.png")).unlink()
    next(folder.glob("job_1-2.*.png")).write_bytes(b"one")
    assert [await store.find(name) for name in ("job_1-0", "job_1-1", "job_1-2")] == [None, None, None]


async def test_a_record_that_was_tampered_with_leads_nowhere_else(
    store: ReferenceStore, folder: Path
) -> None:
    await keep(store, "job_1-0")
    path = folder / "job_1-0.json"
    path.write_text(path.read_text().replace('"png"', '"../../x"'))
    assert await store.find("job_1-0") is None


@pytest.mark.parametrize(
    "name", ["", "..", "../x-1", "a/b-1", "job_1", "ref_1", "job_1-0\n", "job_1-100", "ref_" + "A" * 26]
)
async def test_what_is_no_reference_s_name_never_becomes_a_path(store: ReferenceStore, name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        await store.find(name)
    with pytest.raises(ValueError, match="name"):
        await store.drop([name])


async def test_what_is_older_than_a_day_is_swept_and_the_rest_stays(
    store: ReferenceStore, folder: Path
) -> None:
    staged, fetched = new_id("ref"), "job_1-0"
    await keep(store, staged)
    await keep(store, fetched)
    (folder / ".incoming" / "part_of_a_crash").write_bytes(b"half")
    age(folder, DAY_S + 3_700)
    await keep(store, "job_2-0")
    await sweep_references(store)
    assert await store.find(staged) is None
    assert await store.find(fetched) is None
    assert await store.find("job_2-0") is not None
    assert len(everything(folder)) == 2


async def test_a_file_outlives_its_record(store: ReferenceStore, folder: Path) -> None:
    await keep(store, "job_1-0")
    age(folder, KEPT_S + 60)
    await store.sweep()
    assert [Path(name).suffix for name in everything(folder)] == [".png"]


async def test_an_empty_or_missing_folder_is_swept_in_peace(store: ReferenceStore) -> None:
    assert await store.sweep() == (0, 0)
    await store.check()
    assert await store.sweep() == (0, 0)


async def test_what_is_let_go_of_while_it_is_written_does_not_come_back(
    store: ReferenceStore, folder: Path
) -> None:
    part = store.new_part()
    part.parent.mkdir(parents=True)

    def write_slowly() -> None:
        time.sleep(0.2)
        part.write_bytes(b"a piece")

    writing = asyncio.create_task(store.run(write_slowly))
    await asyncio.sleep(0.05)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await store.discard([part])
    await asyncio.sleep(0.3)
    assert everything(folder) == []
