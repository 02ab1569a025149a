"""A pool that was asked to stop: what is being sent ends, nothing else begins."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from services.chassis.database import Database, migrate
from services.chassis.errors import ServiceError
from services.chassis.settings import load
from services.provider_pool.adapters import interface
from services.provider_pool.adapters.interface import Generation, ReferenceFile, Submission, TaskRef
from services.provider_pool.attempts.states import AttemptState
from services.provider_pool.attempts.submission import ANSWER_MARGIN_S
from services.provider_pool.providers import adapters_of
from services.provider_pool.selection.pool import Mode
from services.provider_pool.settings import MIGRATIONS, Settings
from tests.integration.pool_process import environment
from tests.unit.test_pool_calls import PICTURE, Parts, ToyAdapter


class Slow(ToyAdapter):
    """A provider that answers when it is told to."""

    terms: ClassVar[interface.Terms] = interface.Terms(submit_timeout_s=30.0)

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()
        self.answer = asyncio.Event()
        self.submitting = self.answers

    async def answers(self, reference: str) -> Submission:
        self.asked.set()
        await self.answer.wait()
        return Submission(TaskRef(f"task of {reference}", 1))


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    url = f"sqlite:///{tmp_path / 'pool.db'}"
    await migrate(url, MIGRATIONS)
    database = await Database.open(url, application_name="test")
    yield database
    await database.close()


@pytest.fixture
async def parts(database: Database) -> AsyncIterator[Parts]:
    parts = Parts(database, Slow())
    await parts.account()
    yield parts
    await parts.close()


def provider_of(parts: Parts) -> Slow:
    assert isinstance(parts.adapter, Slow)
    return parts.adapter


async def test_a_drain_lasts_until_what_is_being_sent_is_recorded(parts: Parts) -> None:
    caller = asyncio.create_task(parts.submit("job_1:1"))
    await provider_of(parts).asked.wait()
    parts.submissions.take_no_more()
    draining = asyncio.create_task(parts.submissions.drained())
    await asyncio.sleep(0.05)
    assert not draining.done()
    provider_of(parts).answer.set()
    await draining
    assert (await parts.attempts.get("job_1:1", fresh=True)).state is AttemptState.RUNNING
    assert await caller is AttemptState.RUNNING


async def test_a_drain_does_not_need_the_callers(parts: Parts) -> None:
    caller = asyncio.create_task(parts.submit("job_1:1"))
    await provider_of(parts).asked.wait()
    caller.cancel()
    parts.submissions.take_no_more()
    provider_of(parts).answer.set()
    await parts.submissions.drained()
    assert (await parts.attempts.get("job_1:1", fresh=True)).state is AttemptState.RUNNING


async def test_a_drain_of_what_sends_nothing_is_over_at_once(parts: Parts) -> None:
    parts.submissions.take_no_more()
    await asyncio.wait_for(parts.submissions.drained(), 1)


async def test_while_it_drains_nothing_is_sent_and_callers_are_told_so(parts: Parts) -> None:
    await parts.lease("job_1:1")
    parts.submissions.take_no_more()
    with pytest.raises(ServiceError) as refused:
        await parts.submissions.submit("job_1:1", "job_1", PICTURE)
    assert refused.value.reason == "SHUTTING_DOWN"
    assert provider_of(parts).submitted == []


async def test_while_it_drains_callers_still_hear_what_became_of_a_submission(parts: Parts) -> None:
    provider_of(parts).answer.set()
    await parts.submit("job_1:1")
    parts.submissions.take_no_more()
    told = await parts.submissions.submit("job_1:1", "job_1", PICTURE)
    assert told.state is AttemptState.RUNNING
    assert provider_of(parts).submitted == ["job_1:1"]


async def test_what_is_only_being_made_ready_is_left_to_others_without_a_trace(database: Database) -> None:
    reading = asyncio.Event()

    async def files(job_id: str, generation: Generation) -> Sequence[ReferenceFile | None]:
        reading.set()
        await asyncio.Event().wait()
        return []

    parts = Parts(database, Slow(), files)
    await parts.account()
    caller = asyncio.create_task(parts.submit("job_1:1"))
    await reading.wait()
    parts.submissions.take_no_more()
    await asyncio.wait_for(parts.submissions.drained(), 1)
    with pytest.raises(ServiceError) as refused:
        await caller
    assert refused.value.reason == "SHUTTING_DOWN"
    with pytest.raises(ServiceError) as unknown:
        await parts.attempts.get("job_1:1", fresh=True)
    assert unknown.value.reason == "ATTEMPT_NOT_FOUND"
    await parts.close()


async def test_what_is_cut_off_is_in_doubt_for_the_next_process(parts: Parts, database: Database) -> None:
    caller = asyncio.create_task(parts.submit("job_1:1"))
    await provider_of(parts).asked.wait()
    await parts.submissions.close()
    with pytest.raises(ServiceError) as cut:
        await caller
    assert cut.value.reason == "SHUTTING_DOWN"
    heir = Parts(database, Slow())
    assert await heir.attempts.mark_orphans(heir.submissions.answer_by_ms) == ["job_1:1"]
    await heir.close()


async def test_while_it_drains_jobs_wait_and_those_that_nobody_can_make_are_still_refused(
    parts: Parts,
) -> None:
    async def lease(attempt_id: str, generation: Generation) -> object:
        return await parts.leasing.lease(
            attempt_id, "job", Mode.LIVE, generation, ttl_ms=60_000, behind_others=False, avoid=frozenset()
        )

    held = await lease("job_1:1", PICTURE)
    assert held is not None
    parts.leasing.take_no_more()
    assert await lease("job_2:1", PICTURE) is None
    assert await lease("job_1:1", PICTURE) == held
    with pytest.raises(ServiceError) as refused:
        await lease("job_3:1", Generation(PICTURE.kind, "unheard-of", "a cat"))
    assert refused.value.reason == "NO_CAPABLE_ACCOUNT"


def test_a_drain_is_by_default_as_long_as_the_slowest_submission_may_take(tmp_path: Path) -> None:
    settings = load(Settings, environment(tmp_path))
    slowest_s = max(adapter.terms.submit_timeout_s for adapter in adapters_of(settings))
    assert settings.drain_s >= slowest_s + ANSWER_MARGIN_S
