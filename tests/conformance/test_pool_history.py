"""What happened to attempts beside the ordinary road is written with it, on both engines, and forgotten with them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace as with_fields
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from services.chassis.database import Database, migrate
from services.provider_pool.adapters.interface import TaskRef
from services.provider_pool.adapters.sandbox.adapter import SandboxAdapter
from services.provider_pool.attempts import outcomes
from services.provider_pool.attempts.history import EVENTS_KEPT, Event
from services.provider_pool.attempts.states import (
    Attempt,
    AttemptState,
    Charged,
    Failure,
    FailureReason,
    NextStep,
)
from services.provider_pool.catalog import Catalog
from services.provider_pool.schema import ATTEMPT_EVENTS
from services.provider_pool.settings import MIGRATIONS
from services.provider_pool.store import durations, open_attempts
from tests.clocks import T0_MS, HandClock
from tests.conformance.test_pool_store import PICTURE, Replica

ROTATES = Failure(FailureReason.PROVIDER_UNAVAILABLE, NextStep.ROTATE, detail="transient: 503")
GIVEN_UP = Failure(FailureReason.SUBMISSION_UNKNOWN, NextStep.FAIL, charged=Charged.MAYBE, detail="not found")
MINUTE_MS = 60_000


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog([SandboxAdapter(tmp_path / "sandbox", workers=1)])


@pytest.fixture
async def replica(engine_url: str, catalog: Catalog) -> AsyncIterator[Replica]:
    await migrate(engine_url, MIGRATIONS)
    database = await Database.open(engine_url, application_name="conformance")
    replica = Replica(database, catalog, HandClock())
    await replica.account(concurrency_limit=1000, balance_millis=10**9)
    yield replica
    await replica.close()
    await database.close()


async def written(replica: Replica) -> int:
    statement = select(func.count()).select_from(ATTEMPT_EVENTS)
    return await replica.database.read(lambda connection: connection.execute(statement).scalar_one())


async def told(replica: Replica, attempt_id: str = "job_1:1") -> list[tuple[int, str]]:
    _, events = await replica.attempts.history(attempt_id)
    return [(event.at_ms - T0_MS, event.what) for event in events]


async def in_doubt(replica: Replica, attempt_id: str = "job_1:1") -> Attempt:
    attempt = await replica.begun(attempt_id)
    replica.clock.at_ms += 1
    return await replica.attempts.change(replica.change(attempt, to=AttemptState.UNKNOWN))


async def test_the_ordinary_road_writes_nothing_and_is_told_from_the_attempt_itself(replica: Replica) -> None:
    attempt = await replica.begun("job_1:1")
    running: dict[str, Any] = {"to": AttemptState.RUNNING, "task_id": "task_1", "submitted_at_ms": T0_MS + 5}
    await replica.attempts.change(replica.change(attempt, **running))
    replica.clock.at_ms += 9
    await replica.attempts.change(replica.change(attempt, to=AttemptState.SUCCEEDED))
    await replica.attempts.change(replica.change(attempt, collected="[]", cost_millis=7))
    failed = await replica.begun("job_2:1")
    failure = Failure(FailureReason.CONTENT_REFUSED, NextStep.FAIL, detail="no")
    await replica.attempts.change(replica.change(failed, to=AttemptState.FAILED, failure=failure))
    assert await written(replica) == 0
    assert await told(replica) == [(0, "begun"), (5, "submitted"), (9, "ended")]


async def test_the_way_through_doubt_is_written_with_each_change_and_outlives_the_process(
    replica: Replica,
) -> None:
    attempt = await in_doubt(replica)
    for turn in range(4):
        replica.clock.at_ms = T0_MS + 10 + turn
        replica.attempts.note("job_1:1", "looked_for", f"look {turn}")
    assert await written(replica) == 1
    replica.clock.at_ms = T0_MS + 20
    await replica.attempts.adopt(attempt, [TaskRef("task_1", T0_MS + 3)])
    again = Replica(replica.database, replica.catalog, replica.clock)
    expected = [
        (0, "begun"),
        (1, "in_doubt"),
        (3, "submitted"),
        (10, "looked_for"),
        (13, "looked_for"),
        (20, "found"),
    ]
    assert await told(again) == await told(replica) == expected
    _, events = await again.attempts.history("job_1:1")
    details = [event.detail for event in events if event.what == "looked_for"]
    assert details == ["look 0", "look 3 (the last of 4)"]
    await again.close()


async def test_a_change_that_is_not_made_is_not_written(replica: Replica) -> None:
    attempt = await replica.running("job_1:1", "task_1")
    await replica.attempts.change(replica.change(attempt, to=AttemptState.SUCCEEDED))
    late = replica.change(attempt, to=AttemptState.FAILED, failure=ROTATES, events=(Event(T0_MS, "overdue"),))
    await replica.attempts.change(late)
    assert await written(replica) == 0


async def test_giving_up_says_what_it_may_have_cost_and_moving_on_says_why(replica: Replica) -> None:
    attempt = await in_doubt(replica)
    change = replica.change(attempt, to=AttemptState.ABANDONED, failure=GIVEN_UP, cost_millis=756)
    await replica.attempts.change(change)
    moving = await replica.begun("job_2:1")
    await replica.attempts.change(replica.change(moving, to=AttemptState.FAILED, failure=ROTATES))
    _, events = await replica.attempts.history("job_1:1")
    assert events[-2].what == "abandoned"
    assert "756 thousandths" in events[-2].detail
    _, events = await replica.attempts.history("job_2:1")
    assert ("moved", "transient: 503") in [(event.what, event.detail) for event in events]


async def test_an_attempt_whose_sender_is_gone_says_so(replica: Replica) -> None:
    await replica.lease("job_1:1")
    await replica.attempts.begin(replica.beginning("job_1:1", "sender_gone/1"))
    replica.clock.at_ms += 45_000
    assert await replica.attempts.mark_orphans(lambda provider: 45_000) == ["job_1:1"]
    assert await told(replica) == [(0, "begun"), (45_000, "in_doubt")]


async def test_a_history_is_bounded_and_in_the_order_in_which_it_happened(replica: Replica) -> None:
    attempt = await replica.running("job_1:1", "task_1")
    for start in range(0, EVENTS_KEPT + 30, 10):
        events = tuple(Event(T0_MS + start + turn, "hinted") for turn in range(10))
        await replica.attempts.change(replica.change(attempt, events=events))
    found = [at_ms for at_ms, what in await told(replica) if what == "hinted"]
    assert found == list(range(EVENTS_KEPT))


async def test_what_a_provider_said_cannot_break_or_fill_a_history(replica: Replica) -> None:
    attempt = await replica.begun("job_1:1")
    failure = Failure(FailureReason.SUBMISSION_UNKNOWN, NextStep.RECONCILE, detail="\x00" + "ä" * 10_000)
    unknown = replica.change(attempt, to=AttemptState.UNKNOWN)
    events = (Event(T0_MS, "looked_for", "x"),)
    after = await replica.attempts.change(
        type(unknown)(
            attempt.attempt_id,
            attempt.account_id,
            T0_MS,
            to=AttemptState.UNKNOWN,
            failure=failure,
            events=events,
        )
    )
    assert after.state is AttemptState.UNKNOWN
    _, found = await replica.attempts.history("job_1:1")
    assert max(len(event.detail) for event in found) == 300


async def test_histories_are_forgotten_with_their_attempts(replica: Replica) -> None:
    for name in ("job_1:1", "job_2:1"):
        attempt = await in_doubt(replica, name)
        await replica.attempts.change(replica.change(attempt, to=AttemptState.ABANDONED, failure=GIVEN_UP))
        replica.clock.at_ms += MINUTE_MS
    assert await written(replica) == 4
    before_ms = T0_MS + MINUTE_MS
    forgotten = await replica.database.write(
        lambda connection: open_attempts.forget_ended(connection, before_ms, 10)
    )
    assert (forgotten, await written(replica)) == (1, 2)
    assert (1 + MINUTE_MS + 1, "in_doubt") in await told(replica, "job_2:1")


async def test_a_task_from_before_another_was_sent_is_adopted_at_once(replica: Replica) -> None:
    attempt = await in_doubt(replica)
    replica.clock.at_ms += 30_000
    await replica.begun("job_2:1")
    tasks = [TaskRef("task_1", T0_MS + 100)]
    adopted = await replica.attempts.adopt(attempt, tasks)
    assert adopted is not None
    assert adopted.task_id == "task_1"


async def test_a_task_is_not_adopted_while_another_model_s_request_that_may_be_its_own_is_sent(
    replica: Replica,
) -> None:
    # Two of our models may be one model of the provider's, whose list does not tell them apart.
    attempt = await in_doubt(replica)
    await replica.lease("job_2:1")
    beginning = with_fields(replica.beginning("job_2:1"), model="another-name-of-it")
    await replica.attempts.begin(beginning)
    waiting = await replica.attempts.adopt(attempt, [TaskRef("task_1", T0_MS + 100)])
    assert waiting is not None
    assert waiting.state is AttemptState.UNKNOWN


async def test_a_task_that_carries_the_attempt_s_own_name_is_nobody_else_s(replica: Replica) -> None:
    attempt = await in_doubt(replica)
    await replica.begun("job_2:1")
    adopted = await replica.attempts.adopt(attempt, [TaskRef("job_1:1", T0_MS + 100)])
    assert adopted is not None
    assert adopted.state is AttemptState.RUNNING


async def ran(replica: Replica, attempt_id: str, duration_ms: int, to: AttemptState) -> None:
    attempt = await replica.begun(attempt_id)
    begun_ms = replica.clock.at_ms
    running = {"to": AttemptState.RUNNING, "task_id": f"task of {attempt_id}", "submitted_at_ms": begun_ms}
    await replica.attempts.change(replica.change(attempt, **running))
    replica.clock.at_ms += duration_ms
    await replica.attempts.change(replica.change(attempt, to=to))


async def test_durations_are_learnt_from_successes_oldest_first(replica: Replica) -> None:
    for turn, duration_ms in enumerate((30, 10, 20)):
        await ran(replica, f"job_{turn}:1", duration_ms, AttemptState.SUCCEEDED)
    await ran(replica, "job_9:1", 500, AttemptState.FAILED)
    await replica.running("job_8:1", "task of job_8")
    found = await replica.database.read(durations.load_durations)
    assert found == {("sandbox", PICTURE.model): [30, 10, 20]}


async def test_what_was_given_up_while_it_ran_is_remembered_as_having_taken_so_long(replica: Replica) -> None:
    await ran(replica, "job_1:1", 30, AttemptState.SUCCEEDED)
    running, unheard = [await replica.running(f"job_{turn}:1", f"task_{turn}") for turn in (2, 3)]
    replica.clock.at_ms += 500
    await replica.attempts.change(outcomes.overdue(running, None, 500, replica.clock.at_ms))
    await replica.attempts.change(outcomes.overdue(unheard, None, 900, replica.clock.at_ms, unheard=True))
    found = await replica.database.read(durations.load_durations)
    assert found == {("sandbox", PICTURE.model): [30, 500]}


async def test_open_tasks_and_doubts_are_found_by_their_age(replica: Replica) -> None:
    await replica.running("job_1:1", "task_1")
    await ran(replica, "job_2:1", 5, AttemptState.SUCCEEDED)
    await in_doubt(replica, "job_3:1")
    replica.clock.at_ms += MINUTE_MS
    await replica.running("job_4:1", "task_4")
    await in_doubt(replica, "job_5:1")

    async def running(before_ms: int, after: str = "") -> list[str]:
        found = await replica.database.read(
            lambda connection: durations.load_running(connection, before_ms, after, 10)
        )
        return [one.attempt_id for one in found]

    async def doubts(before_ms: int) -> list[str]:
        found = await replica.database.read(
            lambda connection: durations.load_in_doubt(connection, before_ms, 10)
        )
        return [one.attempt_id for one in found]

    now_ms = replica.clock.at_ms + 1
    assert await running(now_ms) == ["job_1:1", "job_4:1"]
    assert await running(now_ms, "job_1:1") == ["job_4:1"]
    assert await running(T0_MS + MINUTE_MS) == ["job_1:1"]
    assert await doubts(now_ms) == ["job_3:1", "job_5:1"]
    assert await doubts(T0_MS + MINUTE_MS) == ["job_3:1"]


async def test_two_replicas_never_adopt_one_task_for_two_attempts(
    postgres_url: str, catalog: Catalog
) -> None:
    await migrate(postgres_url, MIGRATIONS)
    replicas: list[Replica] = []
    for _ in range(2):
        database = await Database.open(postgres_url, application_name="conformance")
        replicas.append(Replica(database, catalog, HandClock()))
    await replicas[0].account(concurrency_limit=50, balance_millis=10**9)
    twins = [await in_doubt(replicas[0], f"job_{turn}:1") for turn in range(8)]
    tasks = [TaskRef(f"task_{turn}", T0_MS + turn) for turn in range(5)]
    adopted = await asyncio.gather(
        *(replica.attempts.adopt(twin, tasks) for twin in twins for replica in replicas)
    )
    found = {(one.attempt_id, one.task_id) for one in adopted if one is not None}
    assert sorted(task_id for _, task_id in found) == [task.task_id for task in tasks]
    assert len({attempt_id for attempt_id, _ in found}) == len(tasks)
    for replica in replicas:
        await replica.close()
        await replica.database.close()
