"""Work that shares trips to a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from functools import partial

import pytest

from services.provider_pool.media.disk_trips import DiskTrips, one_by_one


async def test_whoever_comes_during_a_trip_shares_the_next() -> None:
    batches: list[list[int]] = []
    gate = threading.Event()

    def work(batch: Sequence[int]) -> list[int | Exception]:
        gate.wait(5)
        batches.append(list(batch))
        return [number * 10 for number in batch]

    trips: DiskTrips[int, int] = DiskTrips(work)
    first = asyncio.create_task(trips.run(0))
    await asyncio.sleep(0.01)
    others = [asyncio.create_task(trips.run(number)) for number in range(1, 6)]
    await asyncio.sleep(0.01)
    gate.set()
    assert await asyncio.gather(first, *others) == [0, 10, 20, 30, 40, 50]
    assert batches == [[0], [1, 2, 3, 4, 5]]


async def test_one_after_the_other_none_is_forgotten() -> None:
    trips: DiskTrips[int, int] = DiskTrips(list)
    for number in range(200):
        assert await asyncio.wait_for(trips.run(number), 5) == number


async def test_a_failure_is_its_own() -> None:
    def refuse() -> int:
        raise FileNotFoundError("gone")

    trips: DiskTrips[Callable[[], int], int] = DiskTrips(one_by_one)
    pieces: list[Callable[[], int]] = [partial(int, 1), refuse, partial(int, 3)]
    found = await asyncio.gather(*map(trips.run, pieces), return_exceptions=True)
    assert found[::2] == [1, 3]
    assert isinstance(found[1], FileNotFoundError)


async def test_work_that_fails_as_a_whole_fails_for_all_and_the_next_goes_on() -> None:
    broken = [True]

    def work(batch: Sequence[int]) -> Sequence[int]:
        if broken.pop() if broken else False:
            raise OSError("no disk")
        return batch

    trips: DiskTrips[int, int] = DiskTrips(work)
    found = await asyncio.gather(trips.run(1), trips.run(2), return_exceptions=True)
    assert [type(one) for one in found] == [OSError, OSError]
    assert await trips.run(3) == 3


async def test_a_caller_that_leaves_takes_no_other_with_it() -> None:
    gate = threading.Event()

    def work(batch: Sequence[int]) -> Sequence[int]:
        gate.wait(5)
        return batch

    trips: DiskTrips[int, int] = DiskTrips(work)
    leaver, stayer = asyncio.create_task(trips.run(1)), asyncio.create_task(trips.run(2))
    await asyncio.sleep(0.01)
    leaver.cancel()
    gate.set()
    assert await stayer == 2
    with pytest.raises(asyncio.CancelledError):
        await leaver
