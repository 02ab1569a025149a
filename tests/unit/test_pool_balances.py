"""What is believed of an account after its provider told something, whatever was booked meanwhile."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from services.provider_pool.accounts import headroom
from services.provider_pool.adapters.interface import AccountStatus
from services.provider_pool.selection.balances import RECENT_MS, RecentCeilings, told
from services.provider_pool.selection.health import Breaker
from services.provider_pool.selection.market import Market, Provider
from services.provider_pool.selection.pool import Account, AccountState, booked

SEEN = Account("a", "ark", concurrency_limit=9, balance_millis=1_000)
ASKED_MS = 1_000_000


def test_a_balance_that_is_told_replaces_what_was_believed() -> None:
    after = told(SEEN, SEEN, AccountStatus(ok=True, balance_millis=700), ASKED_MS)
    assert (after.balance_millis, after.balance_read_at_ms) == (700, ASKED_MS)


def test_what_was_booked_after_the_question_was_sent_stays_off_the_balance() -> None:
    meanwhile = booked(booked(SEEN, 100), -30)
    after = told(meanwhile, SEEN, AccountStatus(ok=True, balance_millis=700), ASKED_MS)
    assert after.balance_millis == 630


def test_an_operator_s_or_another_replica_s_correction_is_not_taken_for_something_booked() -> None:
    corrected = replace(SEEN, balance_millis=400, balance_read_at_ms=ASKED_MS - 1)
    assert told(corrected, SEEN, AccountStatus(ok=True, balance_millis=700), ASKED_MS).balance_millis == 700


def test_an_answer_to_an_older_question_never_replaces_one_to_a_newer() -> None:
    newer = replace(SEEN, balance_millis=400, balance_read_at_ms=ASKED_MS + 1)
    assert told(newer, SEEN, AccountStatus(ok=True, balance_millis=700), ASKED_MS) == newer


def test_what_a_provider_does_not_tell_stays_as_it_was() -> None:
    assert told(SEEN, SEEN, AccountStatus(ok=True), ASKED_MS) == SEEN
    status = AccountStatus(ok=True, renews_at_ms=5, concurrency_limit=4)
    after = told(SEEN, SEEN, status, ASKED_MS)
    assert (after.renews_at_ms, after.slots, after.concurrency_limit) == (5, 4, 9)


def test_numbers_that_no_column_holds_are_bounded() -> None:
    status = AccountStatus(ok=True, balance_millis=10**30, renews_at_ms=-5, concurrency_limit=10**30)
    after = told(SEEN, SEEN, status, ASKED_MS)
    assert (after.balance_millis, after.renews_at_ms, after.concurrency_told) == (10**15, 0, 10**6)


jobs = st.lists(st.tuples(st.integers(1, 50), st.integers(0, 20), st.integers(1, 20)), max_size=12).map(
    lambda found: [(cost, begins, begins + lasts) for cost, begins, lasts in found]
)
moments = st.tuples(st.integers(0, 20), st.integers(0, 10), st.integers(0, 10))


@given(jobs, moments)
def test_a_correction_never_promises_money_that_is_gone_or_spoken_for(
    jobs: list[tuple[int, int, int]], moments: tuple[int, int, int]
) -> None:
    """Each job is charged by the provider before it is booked, and has a lease until then; all at any moment."""
    asked, answered_after, noted_after = moments
    answered = asked + answered_after
    noted = answered + noted_after
    upstream, believed, seen, answer = 1_000, SEEN, SEEN, 1_000
    for now in range(45):
        upstream -= sum(cost for cost, charged, _ in jobs if charged == now)
        if now == asked:
            seen = believed
        if now == answered:
            answer = upstream
        for cost, _, booked_at in jobs:
            if booked_at == now:
                believed = booked(believed, cost)
        if now == noted:
            believed = told(believed, seen, AccountStatus(ok=True, balance_millis=answer), ASKED_MS)
        claimed = sum(cost for cost, _, booked_at in jobs if booked_at > now)
        owed = sum(cost for cost, charged, _ in jobs if charged > now)
        assert believed.balance_millis - claimed <= upstream - owed


def test_the_largest_ceiling_is_remembered_for_ten_minutes_at_least() -> None:
    recent = RecentCeilings()
    recent.note({"ark": 500}, 0)
    recent.note({"ark": 300, "fal": 7}, 1)
    assert (recent.largest_millis("ark"), recent.largest_millis("fal")) == (500, 7)
    recent.note({"ark": 300}, RECENT_MS)
    assert recent.largest_millis("ark") == 500
    recent.note({"ark": 200}, 2 * RECENT_MS)
    assert recent.largest_millis("ark") == 300
    assert recent.largest_millis("runway") == 0


MARKET = Market(
    {"ark": Provider(usd_micros_per_unit=1_000_000), "runway": Provider(usd_micros_per_unit=10_000)}
)
OFFERS = {"ark": ["film"], "runway": ["film", "picture"]}


def test_headroom_adds_up_what_accounts_have_in_one_currency_and_divides_by_an_hour_s_spending() -> None:
    accounts = [
        Account("a", "ark", balance_millis=30_000, leased_millis=10_000),
        Account("b", "runway", balance_millis=1_000_000),
        Account("c", "runway", state=AccountState.DRAINING, balance_millis=1_000_000),
        Account("d", "runway", balance_millis=1_000_000, breakers={"": Breaker(1, 1, 0)}),
        Account("e", "ark", serves_live=False, balance_millis=10**9),
    ]
    spent = {("ark", "film"): 2_000, ("runway", "film"): 100_000}
    film, picture = headroom.of_models(accounts, OFFERS, spent, MARKET)
    assert (film.model, film.accounts, film.available_usd_micros) == ("film", 2, 30_000_000)
    assert (film.spent_usd_micros, film.minutes) == (3_000_000, 600)
    assert (picture.model, picture.accounts, picture.minutes) == ("picture", 1, None)


def test_a_model_whose_accounts_are_all_gone_has_no_headroom_left() -> None:
    (film,) = headroom.of_models([], OFFERS, {("ark", "film"): 2_000}, MARKET)
    assert (film.accounts, film.minutes) == (0, 0)
