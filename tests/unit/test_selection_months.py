from __future__ import annotations

from dataclasses import asdict
from typing import Final

import pytest

from tests.bench.selection_run import Result, played
from tests.bench.selection_ways import WAYS, Kind
from tests.bench.selection_world import MONTH_MS, Scenario, World, world

_WAYS: Final = {way.name: way for way in WAYS}
# Few jobs, so that a month is played within a fraction of a second.
_QUIET: Final = Scenario("quiet", 0.1)


@pytest.fixture(scope="module")
def month() -> World:
    return world(_QUIET, 1)


def of(month: World, way: str) -> Result:
    return played(month, _WAYS[way], 1)


def test_a_seed_is_always_the_same_month(month: World) -> None:
    again = world(_QUIET, 1)
    assert (again.plots, again.batches) == (month.plots, month.batches)
    assert world(_QUIET, 2).batches != month.batches


def test_jobs_come_in_the_order_of_the_days_and_within_the_month(month: World) -> None:
    moments = [batch[0].at_ms for batch in month.batches]
    assert moments == sorted(moments)
    assert 0 <= moments[0] < moments[-1] < MONTH_MS


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_a_month_is_played_the_same_way_twice(month: World, way: Kind) -> None:
    assert asdict(played(month, way, 1)) == asdict(played(month, way, 1))


def test_what_ends_soonest_is_used_first(month: World) -> None:
    assert of(month, "soonest_expiry").expired_share < of(month, "spread").expired_share


def test_only_without_memory_a_dead_account_is_used_again_and_again(month: World) -> None:
    remembering, forgetful = of(month, "round-robin"), of(month, "round-robin without memory")
    assert remembering.leaving_longest_s < 60 < forgetful.leaving_longest_s
    assert remembering.to_the_dead < forgetful.to_the_dead
