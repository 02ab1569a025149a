"""Polls of many jobs: one timer, one question for those that are due together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from services.chassis.errors import Kind, ServiceError
from services.jobs.active import Active
from services.jobs.answers import AttemptState, AttemptStatus
from services.jobs.polls import Polls
from services.jobs.ports import PollAnswer
from services.jobs.schedule import Timing
from tests.jobs_rows import a_job

GOES_ON: PollAnswer = (AttemptStatus(AttemptState.RUNNING), 1)


class ToyPool:
    """Answers every question alike, when the test lets it."""

    def __init__(self) -> None:
        self.questions: list[list[str]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.failure: Exception | None = None

    async def poll_many(
        self, attempt_ids: Sequence[str], max_age_ms: int, max_wait_s: float
    ) -> list[PollAnswer | ServiceError]:
        self.questions.append(list(attempt_ids))
        await self.open.wait()
        if self.failure is not None:
            raise self.failure
        return [GOES_ON] * len(attempt_ids)


class ToyOwnership:
    """Gives leave at once, unless the worker fences itself."""

    def __init__(self) -> None:
        self.alive = asyncio.Event()
        self.alive.set()

    async def permission(self) -> None:
        await self.alive.wait()


class Scene:
    def __init__(self) -> None:
        self.pool, self.ownership = ToyPool(), ToyOwnership()
        self.told: list[tuple[str, PollAnswer | ServiceError]] = []
        pool: Any = self.pool
        ownership: Any = self.ownership
        self.polls = Polls(
            pool, ownership, Timing(), lambda one, said: self.told.append((one.job.job_id, said))
        )

    def waiting(self, *delays_s: float) -> list[Active]:
        jobs = [Active(a_job(f"job_{turn}", attempt_number=1), 0.0) for turn in range(len(delays_s))]
        for active, delay_s in zip(jobs, delays_s, strict=True):
            self.polls.wait(active, delay_s)
        return jobs

    async def until_told(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.told) < count:
                await asyncio.sleep(0.005)


@pytest.fixture
async def scene() -> Scene:
    return Scene()


async def test_jobs_due_together_are_asked_about_together(scene: Scene) -> None:
    scene.waiting(*[0.005] * 600)
    await scene.until_told(600)
    assert len(scene.pool.questions) <= 6
    assert max(map(len, scene.pool.questions)) <= 250
    assert {name for question in scene.pool.questions for name in question} == {
        f"job_{n}:1" for n in range(600)
    }


async def test_each_is_asked_about_when_it_is_due_and_not_before(scene: Scene) -> None:
    scene.waiting(0.3, 0.05, 10.0)
    await scene.until_told(1)
    assert [job_id for job_id, _ in scene.told] == ["job_1"]
    await scene.until_told(2)
    assert [job_id for job_id, _ in scene.told] == ["job_1", "job_0"]


async def test_a_job_that_rests_is_not_asked_about(scene: Scene) -> None:
    resting, _ = scene.waiting(0.02, 0.02)
    resting.rest()
    await scene.until_told(1)
    assert scene.pool.questions == [["job_1:1"]]


async def test_an_answer_to_a_job_that_went_on_meanwhile_is_not_told(scene: Scene) -> None:
    scene.pool.open.clear()
    gone, _ = scene.waiting(0.02, 0.02)
    async with asyncio.timeout(5):
        while not scene.pool.questions:
            await asyncio.sleep(0.005)
    gone.rest()
    # It waits again: this question is none of its own.
    scene.polls.wait(gone, 30.0)
    scene.pool.open.set()
    await scene.until_told(1)
    assert [job_id for job_id, _ in scene.told] == ["job_1"]


async def test_nothing_is_asked_while_the_worker_fences_itself(scene: Scene) -> None:
    scene.ownership.alive.clear()
    scene.waiting(0.01)
    await asyncio.sleep(0.1)
    assert scene.pool.questions == []
    scene.ownership.alive.set()
    await scene.until_told(1)


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (ServiceError(Kind.UNAVAILABLE, "UNAVAILABLE", "away"), Kind.UNAVAILABLE),
        (RuntimeError("a bug"), Kind.INTERNAL),
    ],
    ids=str,
)
async def test_a_question_that_fails_is_told_to_each_of_its_jobs(
    scene: Scene, failure: Exception, kind: Kind
) -> None:
    scene.pool.failure = failure
    scene.waiting(0.01, 0.01, 0.01)
    await scene.until_told(3)
    assert [said.kind for _, said in scene.told if isinstance(said, ServiceError)] == [kind] * 3


async def test_after_a_stop_nothing_is_asked_or_told(scene: Scene) -> None:
    scene.pool.open.clear()
    scene.waiting(0.01, 0.2)
    async with asyncio.timeout(5):
        while not scene.pool.questions:
            await asyncio.sleep(0.005)
    await scene.polls.stop()
    scene.pool.open.set()
    await asyncio.sleep(0.3)
    assert (len(scene.pool.questions), scene.told) == (1, [])


async def test_a_job_that_waits_long_is_asked_about_at_once_when_somebody_hints(scene: Scene) -> None:
    waits, other = scene.waiting(30.0, 30.0)
    scene.polls.hasten(waits)
    await scene.until_told(1)
    assert scene.pool.questions == [[waits.job.attempt_id]]
    assert other.slot > 0


async def test_a_hint_during_a_question_is_followed_by_one_more_and_not_by_two(scene: Scene) -> None:
    scene.pool.open.clear()
    (asked,) = scene.waiting(0.0)
    async with asyncio.timeout(5):
        while not scene.pool.questions:
            await asyncio.sleep(0.005)
    scene.polls.hasten(asked)
    scene.polls.hasten(asked)
    scene.pool.open.set()
    await scene.until_told(1)
    scene.polls.wait(asked, 30.0)
    await scene.until_told(2)
    scene.polls.wait(asked, 30.0)
    await asyncio.sleep(0.1)
    assert len(scene.pool.questions) == 2


async def test_a_hint_for_a_job_that_waits_for_nothing_here_changes_nothing(scene: Scene) -> None:
    idle = Active(a_job("job_idle", attempt_number=1), 0.0)
    scene.polls.hasten(idle)
    await asyncio.sleep(0.05)
    assert scene.pool.questions == []
