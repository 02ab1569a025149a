"""How long a task may run, and how old one is by a clock that people set."""

from __future__ import annotations

import pytest

from services.provider_pool.attempts.patience import (
    SEEN_KEPT,
    SEEN_NEEDED,
    SHORTEST_MS,
    Ages,
    Patience,
    allowed_ms,
    percentile_99,
)

CEILING_S = 1800
PAIR = ("toy", "film")


def taught(durations_ms: list[int], longest_s: int = 3600) -> Patience:
    patience = Patience({PAIR: longest_s} if longest_s else {}, CEILING_S)
    for duration_ms in durations_ms:
        patience.saw(*PAIR, duration_ms)
    return patience


@pytest.mark.parametrize(
    ("durations", "expected"), [([], 0), ([7], 7), (list(range(1, 101)), 99), (list(range(1, 501)), 495)]
)
def test_a_p99_is_the_nearest_rank(durations: list[int], expected: int) -> None:
    assert percentile_99(durations) == expected


@pytest.mark.parametrize(
    ("longest_s", "expected_s"),
    [(0, CEILING_S), (600, 600), (3600, CEILING_S)],
    ids=["none", "own", "beyond"],
)
def test_until_enough_was_seen_the_model_s_own_limit_counts_and_never_more_than_the_ceiling(
    longest_s: int, expected_s: int
) -> None:
    few = [1] * (SEEN_NEEDED - 1)
    assert allowed_ms(few, longest_s, CEILING_S) == expected_s * 1000
    assert taught(few, longest_s).allowed_ms(*PAIR) == expected_s * 1000


@pytest.mark.parametrize(
    ("usual_ms", "expected_ms"),
    [(1_000, SHORTEST_MS), (100_000, 300_000), (900_000, CEILING_S * 1000)],
    ids=["never below a minute", "three times the p99", "never above the ceiling"],
)
def test_what_was_seen_decides_once_it_is_enough(usual_ms: int, expected_ms: int) -> None:
    assert taught([usual_ms] * SEEN_NEEDED).allowed_ms(*PAIR) == expected_ms


def test_a_model_without_a_limit_of_its_own_has_the_ceiling_whatever_was_seen() -> None:
    assert taught([1_000] * SEEN_KEPT, 0).allowed_ms(*PAIR) == CEILING_S * 1000


def test_a_model_s_own_limit_holds_whatever_was_seen() -> None:
    assert taught([400_000] * SEEN_NEEDED, 600).allowed_ms(*PAIR) == 600_000


def test_only_the_last_successes_count() -> None:
    patience = taught([500_000] * SEEN_KEPT + [30_000] * SEEN_KEPT)
    assert (patience.allowed_ms(*PAIR), patience.seen(*PAIR)) == (90_000, SEEN_KEPT)


def test_a_provider_that_has_become_slower_is_waited_for_again_after_a_few_lost_tasks() -> None:
    patience, takes_ms, lost = taught([30_000] * SEEN_KEPT), 300_000, 0
    while (given_ms := patience.allowed_ms(*PAIR)) < takes_ms:
        patience.outran(*PAIR, given_ms)
        lost += 1
        assert lost < 20
    assert patience.allowed_ms(*PAIR) < CEILING_S * 1000


def test_of_another_model_nothing_is_learnt() -> None:
    patience = taught([30_000] * SEEN_KEPT)
    assert patience.allowed_ms("toy", "picture") == CEILING_S * 1000
    assert patience.seen("toy", "picture") == 0


def test_durations_that_a_set_clock_made_count_for_nothing() -> None:
    assert taught([0, -5, -3_600_000]).seen(*PAIR) == 0


def test_a_database_teaches_what_it_remembers_and_takes_nothing_away() -> None:
    patience = taught([100_000] * 60)
    patience.learn({PAIR: [30_000] * 10})
    assert (patience.seen(*PAIR), patience.allowed_ms(*PAIR)) == (60, 300_000)
    patience.learn({PAIR: [0, 30_000] * 70, ("toy", "song"): [40_000]})
    assert (patience.seen(*PAIR), patience.allowed_ms(*PAIR)) == (70, 90_000)
    assert patience.seen("toy", "song") == 1


def test_things_age_with_the_clock() -> None:
    ages = Ages(1_000_000, 50.0)
    assert ages.age_ms(1_000_000, 1_030_000, 80.0) == 30_000


def test_a_clock_that_is_set_forward_makes_nothing_old_that_was_there_before() -> None:
    ages = Ages(1_000_000, 50.0)
    hour_ms = 3_600_000
    assert ages.age_ms(1_000_000, 1_010_000 + hour_ms, 60.0) == 10_000
    # What begins after the step ages as it should, and so does what was there.
    began_ms = 1_010_000 + hour_ms
    assert ages.age_ms(began_ms, began_ms + 20_000, 80.0) == 20_000
    assert ages.age_ms(1_000_000, began_ms + 20_000, 80.0) == 30_000


def test_a_clock_that_is_set_back_makes_everything_younger_and_nothing_old() -> None:
    ages = Ages(10_000_000, 50.0)
    assert ages.age_ms(10_000_000, 6_400_000, 60.0) < 0
    # And when it is right again, nothing has grown older than it is.
    assert ages.age_ms(10_000_000, 10_020_000, 70.0) <= 20_000


def test_a_clock_that_only_drifts_was_not_set() -> None:
    ages = Ages(0, 0.0)
    for second in range(1, 1_000):
        ages.look(second * 1_001, float(second))
    assert ages.age_ms(0, 1_001_000, 1_000.0) == 1_001_000
