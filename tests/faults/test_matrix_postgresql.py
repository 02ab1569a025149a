"""kill -9 at every point of a job's life, on PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.faults.matrix import DEATHS, SHORT_COMMITS, Death
from tests.faults.matrix_stage import Stage

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]

CERTAIN = [death for death in DEATHS if not death.doubtful]
# Another replica might be sending what a dead one has begun, so that each of these takes the pool most of a minute; together
# they take no longer.
DOUBTFUL = [death for death in DEATHS if death.doubtful]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with Stage("postgresql", tmp_path_factory.mktemp("certificates")) as built:
        yield built


@pytest.mark.parametrize(
    "death",
    [
        pytest.param(d, id=d.name, marks=() if d in SHORT_COMMITS else pytest.mark.faults_full)
        for d in CERTAIN
    ],
)
async def test_nothing_is_lost_or_paid_twice_when_a_process_dies_at(stage: Stage, death: Death) -> None:
    await stage.dies(death)


@pytest.mark.faults_full
@pytest.mark.timeout(360)
@pytest.mark.parametrize("turn", range(2))
async def test_nothing_is_lost_or_paid_twice_when_submissions_are_left_in_doubt(
    stage: Stage, turn: int
) -> None:
    await stage.dies(*DOUBTFUL[turn::2])
