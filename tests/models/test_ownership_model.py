"""The model of ownership, searched to the end; docs/models says what that proves and what it does not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import settings

from tests.models.ownership_model import Bounds, Rules, Search

pytestmark = pytest.mark.timeout(3600)


def _thorough() -> bool:
    # The profile is chosen with pytest's option; its number of examples is how it is told.
    return settings().max_examples >= 1000


def bounds() -> Bounds:
    """Wider with `--hypothesis-profile=thorough`."""
    return Bounds(lives=3, claims=3) if _thorough() else Bounds()


def test_no_order_of_events_breaks_a_promise() -> None:
    search = Search(Rules(), bounds())
    assert search.run() is None
    assert search.states > 20_000


def test_clocks_that_lie_cost_hand_overs_and_break_no_promise_of_the_rows() -> None:
    late = bounds().late if _thorough() else 0
    assert Search(Rules(honest_clocks=False), replace(bounds(), late=late)).run() is None


@pytest.mark.parametrize(
    ("rules", "broken"),
    [
        (Rules(fence=False), "a write landed under a claim that was over"),
        (Rules(new_epoch=False, new_id=False), "a write landed under a claim that was over"),
        (Rules(self_fence=False), "a worker began something for a job that was not its own"),
        (Rules(no_return=False), "a worker began something for a job that was not its own"),
        (Rules(frees=False), "a job is owned by nobody who lives"),
    ],
    ids=["fence", "epoch and id", "self-fence", "no return", "frees"],
)
def test_without_a_rule_a_promise_breaks(rules: Rules, broken: str) -> None:
    history = Search(rules, Bounds()).run()
    assert history is not None
    assert history[-1].endswith(broken)


def test_without_the_version_a_commit_that_arrives_twice_undoes_the_next_one() -> None:
    history = Search(Rules(version=False), Bounds(lives=1, claims=1, steps=3)).run()
    assert history is not None
    assert history[-1].endswith("a job went back")


@pytest.mark.parametrize("rules", [Rules(new_epoch=False), Rules(new_id=False)], ids=["epoch", "id"])
def test_a_new_epoch_and_a_new_id_back_each_other_up(rules: Rules) -> None:
    assert Search(rules, Bounds(late=0)).run() is None
