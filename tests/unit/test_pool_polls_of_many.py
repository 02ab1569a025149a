"""Many attempts in one poll: one question for all of an account, and nobody waits for what another provider does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.chassis.database import Database, migrate
from services.chassis.errors import ServiceError
from services.provider_pool.adapters import interface
from services.provider_pool.adapters.interface import Snapshot, TaskRef, TaskState
from services.provider_pool.attempts.log import AttemptLog
from services.provider_pool.attempts.poll_budget import PollBudget
from services.provider_pool.attempts.polling import Polled, Polling
from services.provider_pool.attempts.states import AttemptState
from services.provider_pool.catalog import Catalog
from services.provider_pool.settings import MIGRATIONS
from tests.unit.test_pool_calls import ListingAdapter, Parts, ToyAdapter


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


@pytest.fixture
async def listing(database: Database) -> AsyncIterator[Parts]:
    parts = Parts(database, ListingAdapter())
    await parts.account()
    yield parts
    await parts.close()


async def test_many_attempts_are_answered_in_order_with_one_question(listing: Parts) -> None:
    adapter = listing.adapter
    assert isinstance(adapter, ListingAdapter)
    names = [f"job_{turn}:1" for turn in range(20)]
    for name in names:
        await listing.submit(name)
    answers = await listing.polling.poll_many([*names, "job_99:1", names[0]], 0, 5.0)
    told = [one.attempt.attempt_id if isinstance(one, Polled) else one.reason for one in answers]
    assert told == [*names, "ATTEMPT_NOT_FOUND", names[0]]
    assert adapter.questions == [20]


async def test_attempts_of_an_earlier_life_are_read_with_one_statement(
    listing: Parts, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"job_{turn}:1" for turn in range(20)]
    for name in names:
        await listing.submit(name)
    reborn, reads = AttemptLog(database, listing.clock, listing.capacity), []
    read = database.read

    async def counted(*arguments: Any, **named: Any) -> Any:
        reads.append(arguments)
        return await read(*arguments, **named)

    monkeypatch.setattr(database, "read", counted)
    assert sorted(await reborn.get_many([*names, "job_99:1"])) == sorted(names)
    assert len(await reborn.get_many(names)) == 20
    assert len(reads) == 1


async def test_who_asks_about_many_waits_for_no_slow_provider(toy: Parts) -> None:
    await toy.submit("job_1:1")
    (first,) = await toy.polling.poll_many(["job_1:1"], 0, 5.0)
    answered = asyncio.Event()

    async def slow(task: TaskRef) -> Snapshot:
        await answered.wait()
        return Snapshot(TaskState.RUNNING, progress=60)

    toy.adapter.polling = slow
    await asyncio.sleep(0.002)
    assert await toy.polling.poll_many(["job_1:1"], 0, 0.01) == [first]
    answered.set()
    (later,) = await toy.polling.poll_many(["job_1:1"], 0, 5.0)
    assert isinstance(later, Polled)
    # The question that was under way is the one that is answered.
    assert (later.progress, len(toy.adapter.polled)) == (60, 2)


async def test_what_was_never_answered_is_told_as_of_no_time(toy: Parts) -> None:
    await toy.submit("job_1:1")
    never = asyncio.Event()

    async def silent(task: TaskRef) -> Snapshot:
        await never.wait()
        raise AssertionError

    toy.adapter.polling = silent
    (answer,) = await toy.polling.poll_many(["job_1:1"], 0, 0.01)
    assert isinstance(answer, Polled)
    assert (answer.attempt.state, answer.progress, answer.answered_at_ms) == (AttemptState.RUNNING, 0, 0)


async def test_one_attempt_that_cannot_be_asked_about_takes_no_other_with_it(toy: Parts) -> None:
    for name in ("job_1:1", "job_2:1"):
        await toy.submit(name)

    async def half(task: TaskRef) -> Snapshot:
        if task.task_id == "task of job_1:1":
            raise interface.TransientFailure("503")
        return Snapshot(TaskState.RUNNING, progress=60)

    toy.adapter.polling = half
    first, second = await toy.polling.poll_many(["job_1:1", "job_2:1"], 0, 5.0)
    assert isinstance(first, ServiceError)
    assert isinstance(second, Polled)
    assert (first.reason, second.progress) == ("PROVIDER_UNREACHABLE", 60)


async def test_an_end_that_was_polled_stays_known_however_much_runs(
    toy: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.provider_pool.attempts.log.CACHED_ATTEMPTS", 1)
    monkeypatch.setattr("services.provider_pool.attempts.polling.NEW_TASK_MS", 0)
    for name in ("job_1:1", "job_2:1"):
        await toy.submit(name)

    async def unknown(task: TaskRef) -> Snapshot:
        raise interface.TaskNotFound("404")

    toy.adapter.polling = unknown
    for _ in range(2):
        answers = await toy.polling.poll_many(["job_1:1", "job_2:1"], 0, 5.0)
        assert [one.attempt.state for one in answers if isinstance(one, Polled)] == [AttemptState.FAILED] * 2
    assert len(toy.adapter.polled) == 2


async def test_a_bug_over_one_attempt_takes_no_other_with_it(toy: Parts) -> None:
    for name in ("job_1:1", "job_2:1"):
        await toy.submit(name)

    async def half(task: TaskRef) -> Snapshot:
        if task.task_id == "task of job_1:1":
            raise KeyError("status")
        return Snapshot(TaskState.RUNNING, progress=60)

    toy.adapter.polling = half
    first, second = await toy.polling.poll_many(["job_1:1", "job_2:1"], 0, 5.0)
    assert isinstance(first, ServiceError)
    assert isinstance(second, Polled)
    assert (first.reason, second.progress) == ("PROVIDER_UNREACHABLE", 60)


async def test_an_attempt_of_a_provider_that_is_gone_is_answered(toy: Parts) -> None:
    await toy.submit("job_1:1")
    without = Polling(toy.attempts, toy.accounts, Catalog([]), toy.overdue, toy.clock)
    for _ in range(2):
        async with asyncio.timeout(5):
            with pytest.raises(ServiceError, match="PROVIDER_UNREACHABLE"):
                await without.poll("job_1:1", 0)


async def test_who_waits_is_answered_when_the_asking_stops(
    toy: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    await toy.submit("job_1:1")
    monkeypatch.setattr(PollBudget, "take", asyncio.Event().wait)
    caller = asyncio.create_task(toy.polling.poll("job_1:1", 0))
    await asyncio.sleep(0.05)
    await toy.polling.close()
    async with asyncio.timeout(5):
        with pytest.raises(ServiceError, match="PROVIDER_UNREACHABLE"):
            await caller


async def test_a_clock_that_was_set_back_makes_no_answer_newer(
    toy: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    await toy.submit("job_1:1")
    await toy.polling.poll("job_1:1", 0)
    monkeypatch.setattr(toy.clock, "now_ms", lambda: time.time_ns() // 1_000_000 - 3_600_000)
    await toy.polling.poll("job_1:1", 1_000)
    assert len(toy.adapter.polled) == 2


async def test_nor_for_those_who_ask_about_many(toy: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    await toy.submit("job_1:1")
    await toy.polling.poll("job_1:1", 0)
    monkeypatch.setattr(toy.clock, "now_ms", lambda: time.time_ns() // 1_000_000 - 3_600_000)
    await toy.polling.poll_many(["job_1:1"], 1_000, 5.0)
    assert len(toy.adapter.polled) == 2


async def test_tasks_that_are_asked_about_one_by_one_keep_to_the_budget(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ToyAdapter, "terms", interface.Terms(polls_per_second=10, poll_burst=8))
    toy = Parts(database, ToyAdapter())
    await toy.account()
    names = [f"job_{turn}:1" for turn in range(24)]
    for name in names:
        await toy.submit(name)
    start_s = time.monotonic()
    await toy.polling.poll_many(names, 0, 0.5)
    asked, passed_s = len(toy.adapter.polled), time.monotonic() - start_s
    assert 8 <= asked <= 8 + 10 * passed_s
    await toy.close()
