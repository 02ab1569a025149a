"""What the pool does by itself: rounds, and telling when there is room."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from services.chassis.clock import SystemClock
from services.chassis.database import Database, migrate
from services.chassis.errors import Kind, ServiceError
from services.chassis.rounds import again_and_again
from services.provider_pool.accounts.registry import Terms
from services.provider_pool.settings import MIGRATIONS
from tests.unit.test_pool_calls import Parts, ToyAdapter


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    url = f"sqlite:///{tmp_path / 'pool.db'}"
    await migrate(url, MIGRATIONS)
    database = await Database.open(url, application_name="test")
    yield database
    await database.close()


@pytest.fixture
async def toy(database: Database) -> AsyncIterator[Parts]:
    parts = Parts(database, ToyAdapter())
    await parts.account()
    yield parts
    await parts.close()


async def test_a_round_ends_when_its_driver_answers_cancellation_with_an_error() -> None:
    started = asyncio.Event()

    async def interrupted() -> float:
        started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise OSError("the connection was closed in the middle of an operation") from None
        return 0.0

    task = asyncio.create_task(again_and_again("round", SystemClock(), interrupted))
    await started.wait()
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=1)
    assert done == {task}


async def test_a_change_that_could_not_be_looked_at_is_told_later(
    toy: Parts, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    news = toy.capacity.watch()
    await anext(news)
    await toy.capacity.run()
    read = database.read

    async def away(work: object) -> None:
        raise ServiceError(Kind.UNAVAILABLE, "DATABASE_UNAVAILABLE", "away")

    monkeypatch.setattr(database, "read", away)
    toy.capacity.improved()
    with pytest.raises(ServiceError):
        await toy.capacity.run()
    monkeypatch.setattr(database, "read", read)
    async with asyncio.timeout(2):
        await toy.capacity.run()
        await anext(news)
    await news.aclose()


async def test_an_old_picture_of_the_rooms_never_replaces_a_newer_one(
    toy: Parts, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    (account,) = await toy.accounts.load()
    read, held, go_on = database.read, asyncio.Event(), asyncio.Event()
    first = toy.capacity.watch()
    assert set((await anext(first)).values()) == {0, 100}
    monkeypatch.setattr(database, "read", slow_read(read, held, go_on))
    second = toy.capacity.watch()
    asked = asyncio.ensure_future(anext(second))
    await held.wait()
    monkeypatch.setattr(database, "read", read)
    await toy.accounts.update(account, Terms(concurrency_limit=50))
    round_ = asyncio.create_task(toy.capacity.run())
    await asyncio.sleep(0.1)
    go_on.set()
    await asyncio.gather(round_, asked)
    assert set((await anext(first)).values()) == {0, 50}
    await asyncio.gather(first.aclose(), second.aclose())


def slow_read(
    read: Callable[..., Awaitable[object]], held: asyncio.Event, go_on: asyncio.Event
) -> Callable[..., Awaitable[object]]:
    async def slow(work: object) -> object:
        found = await read(work)
        held.set()
        await go_on.wait()
        return found

    return slow
