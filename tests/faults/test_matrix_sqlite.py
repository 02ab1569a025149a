"""kill -9 at every point of a job's life, on SQLite."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from services.jobs.job import JobState
from tests.faults.matrix import DEATHS, SHORT_COMMITS, Death
from tests.faults.matrix_stage import Stage

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with Stage("sqlite", tmp_path_factory.mktemp("certificates")) as built:
        yield built


async def test_the_slice_touches_every_state_and_every_service() -> None:
    committed = {death.point.split(".")[1] for death in SHORT_COMMITS if death.process == "jobs"}
    assert {state.value for state in JobState} <= committed
    assert {death.process for death in DEATHS if death.short} == {
        "gateway",
        "jobs",
        "billing",
        "provider_pool",
    }


async def test_the_matrix_lists_exactly_the_points_that_are_passed(stage: Stage) -> None:
    unlisted, never_passed = await stage.census()
    assert not unlisted, f"passed, and nobody dies there: {unlisted}"
    assert not never_passed, f"listed, and never passed: {never_passed}"


@pytest.mark.parametrize(
    "death",
    [pytest.param(d, id=d.name, marks=() if d.short else pytest.mark.faults_full) for d in DEATHS],
)
async def test_nothing_is_lost_or_paid_twice_when_a_process_dies_at(stage: Stage, death: Death) -> None:
    await stage.dies(death)
