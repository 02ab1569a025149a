from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.provider_pool.adapters.interface import OutputUnavailable
from services.provider_pool.adapters.result_files import KEPT_S, ResultFiles

ATTEMPT = "job_01h:1"
LIMIT_BYTES = 1_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.fixture
def results(folder: Path) -> Iterator[ResultFiles]:
    results = ResultFiles(folder, limit_bytes=LIMIT_BYTES)
    yield results
    results.close()


async def read(results: ResultFiles, location: str) -> bytes:
    async with results.open(location) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def test_results_are_found_in_the_order_of_their_names_once_they_are_sealed(
    results: ResultFiles, folder: Path
) -> None:
    locations = [await results.keep(ATTEMPT, name, name.encode() * 9) for name in ("1.png", "0.png")]
    assert await results.found(ATTEMPT) == []
    await results.seal(ATTEMPT)
    another = ResultFiles(folder, limit_bytes=LIMIT_BYTES)
    assert await another.found(ATTEMPT) == sorted(locations)
    assert await read(another, locations[1]) == b"0.png" * 9
    assert await another.found("job_01h:2") == []
    another.close()


async def test_a_result_kept_again_is_replaced(results: ResultFiles) -> None:
    await results.keep(ATTEMPT, "0.png", b"first")
    location = await results.keep(ATTEMPT, "0.png", b"second")
    await results.seal(ATTEMPT)
    assert await results.found(ATTEMPT) == [location]
    assert await read(results, location) == b"second"


async def test_a_large_result_arrives_whole(results: ResultFiles) -> None:
    content = os.urandom(LIMIT_BYTES)
    assert await read(results, await results.keep(ATTEMPT, "0.bin", content)) == content


async def test_of_results_that_were_not_all_kept_none_is_found(
    results: ResultFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    await results.keep(ATTEMPT, "0.png", b"first")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        await results.keep(ATTEMPT, "1.png", b"second")
    assert await results.found(ATTEMPT) == []


async def test_what_a_crash_left_half_written_is_not_found(results: ResultFiles, folder: Path) -> None:
    await results.keep(ATTEMPT, "0.png", b"first")
    (place,) = folder.iterdir()
    (place / ".part_01h").write_bytes(b"half")
    await results.seal(ATTEMPT)
    assert len(await results.found(ATTEMPT)) == 1


async def test_an_attempt_keeps_no_more_than_its_limit(results: ResultFiles) -> None:
    await results.keep(ATTEMPT, "0.png", bytes(LIMIT_BYTES - 10))
    with pytest.raises(OutputUnavailable):
        await results.keep(ATTEMPT, "1.png", bytes(11))
    await results.keep(ATTEMPT, "0.png", bytes(LIMIT_BYTES))


async def test_what_is_forgotten_is_gone_and_may_be_forgotten_again(
    results: ResultFiles, folder: Path
) -> None:
    location = await results.keep(ATTEMPT, "0.png", b"first")
    await results.seal(ATTEMPT)
    await results.forget(ATTEMPT)
    await results.forget(ATTEMPT)
    assert await results.found(ATTEMPT) == []
    assert list(folder.iterdir()) == []
    with pytest.raises(OutputUnavailable):
        await read(results, location)


@pytest.mark.parametrize(
    "location",
    ["", "../../etc/passwd", "0.png", f"{'a' * 64}/../x.png", f"{'a' * 64}/.sealed", "/etc/passwd"],
)
async def test_a_location_leads_nowhere_else(results: ResultFiles, location: str) -> None:
    with pytest.raises(OutputUnavailable):
        await read(results, location)


@pytest.mark.parametrize("name", ["", "a", "../a.png", "a/b.png", ".sealed", "A.png", "a.png\n"])
async def test_a_name_is_a_plain_one(results: ResultFiles, name: str) -> None:
    with pytest.raises(ValueError, match="not a name"):
        await results.keep(ATTEMPT, name, b"x")


async def test_whatever_an_attempt_is_called_it_stays_in_the_folder(
    results: ResultFiles, folder: Path
) -> None:
    for reference in ("../../evil", "/etc", "ü", "a" * 5_000):
        await results.keep(reference, "0.png", b"x")
    assert len(list(folder.iterdir())) == 4


async def test_after_a_day_nobody_comes_for_it(results: ResultFiles, folder: Path) -> None:
    await results.keep("old", "0.png", b"x")
    (old,) = folder.iterdir()
    long_ago_s = time.time() - KEPT_S - 60
    os.utime(old, (long_ago_s, long_ago_s))
    await results.keep("young", "0.png", b"x")
    await results.seal("young")
    assert sum(await asyncio.gather(results.sweep(), results.sweep())) >= 1
    assert len(await results.found("young")) == 1
    assert not old.exists()


async def test_a_folder_that_is_not_there_has_nothing_to_sweep(results: ResultFiles) -> None:
    assert await results.sweep() == 0
    await results.check()
