"""What providers allow and ask for, in selection: paces, limits of models and of whole providers, prices, retired models."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from services.provider_pool.adapters.interface import ModelSpec
from services.provider_pool.catalog import Catalog
from services.provider_pool.selection import concurrency, pool
from services.provider_pool.selection.health import Breaker
from services.provider_pool.selection.leases import Batch, GiveBack, Lease, LeaseState, Take, apply
from services.provider_pool.selection.market import Market, Provider, band_of
from services.provider_pool.selection.pace import Pace, pace_of
from services.provider_pool.selection.pool import Account, Granted, Mode, Policy, Refusal, Request, choose
from tests.unit.test_pool_calls import PICTURE, ToyAdapter

NOW_MS = 1_000_000
MODEL = "seedance-2.0"


def account(name: str = "a", provider: str = "ark", **changes: Any) -> Account:
    return replace(Account(name, provider, concurrency_limit=50, balance_millis=10**6), **changes)


def request(turn: int, **changes: Any) -> Request:
    return replace(Request(f"job_{turn}:1", Mode.LIVE, MODEL, {"ark": 100}), **changes)


def granted(count: int, accounts: list[Account], market: Market, **changes: Any) -> list[str]:
    answers = choose(
        [request(turn, **changes) for turn in range(count)], accounts, Policy.SPREAD, NOW_MS, market
    )
    return [answer.account_id for answer in answers if isinstance(answer, Granted)]


def test_a_model_s_limit_holds_on_each_account_and_for_that_model_only() -> None:
    market = Market(model_limits={("ark", MODEL): 3})
    accounts = [account("a", leases=2, leases_by_model={MODEL: 2}), account("b")]
    assert sorted(granted(9, accounts, market)) == ["a", "b", "b", "b"]
    assert len(granted(9, accounts, market, model="seedream-5.0-lite")) == 9


def test_a_provider_never_runs_more_than_it_allows_over_all_accounts() -> None:
    market = Market({"ark": Provider(tasks_at_once=5)})
    accounts = [account("a", leases=2), account("b"), account("c", provider="fal", concurrency_limit=1)]
    assert len(granted(9, accounts, market)) == 3
    both = {"ark": 100, "fal": 100}
    assert granted(9, accounts, market, ceilings=both).count("c") == 1


def test_an_account_that_has_used_up_its_pace_is_busy_until_the_next_one_may_go() -> None:
    pace = Pace(2, 1_000)
    market = Market({"ark": Provider(pace=pace)})
    accounts = [account(pace_at_ms=NOW_MS + 1_000)]
    assert granted(3, accounts, market) == ["a"]
    assert pool.opens_at_ms(accounts, NOW_MS, market) == 0
    used_up = [account(pace_at_ms=NOW_MS + 2_000)]
    assert choose([request(1)], used_up, Policy.SPREAD, NOW_MS, market) == [Refusal.BUSY]
    assert pool.opens_at_ms(used_up, NOW_MS, market) == NOW_MS + 1_000
    assert isinstance(choose([request(1)], used_up, Policy.SPREAD, NOW_MS + 1_000, market)[0], Granted)


@given(st.integers(1, 600), st.lists(st.integers(0, 3_000), max_size=300))
def test_no_minute_sees_more_submissions_than_a_provider_allows(per_minute: int, pauses: list[int]) -> None:
    pace = pace_of(per_minute)
    assert pace is not None
    now_ms, pace_at_ms, sent = 0, 0, []
    for pause_ms in pauses:
        now_ms += pause_ms
        if pace.room(pace_at_ms, now_ms) > 0:
            pace_at_ms = pace.after(pace_at_ms, now_ms)
            sent.append(now_ms)
    for begin_ms in sent:
        assert sum(begin_ms <= at_ms < begin_ms + 60_000 for at_ms in sent) <= per_minute


@pytest.mark.parametrize("back_ms", [1_000, 30_000, 59_000, 61_000, 3_600_000, 10 * 366 * 86_400_000])
def test_a_clock_that_is_set_back_delays_a_paced_account_by_a_minute_at_most(back_ms: int) -> None:
    pace = Pace(2, 1_000)
    market = Market({"ark": Provider(pace=pace)})
    was_ms = 1_800_000_000_000
    set_ms = was_ms - back_ms
    # Used up a moment before the clock was set.
    accounts = [account(pace_at_ms=was_ms + 2_000)]
    within_ms = set_ms + 60_000 + 2_000
    assert pool.opens_at_ms(accounts, set_ms, market) <= within_ms
    assert isinstance(choose([request(1)], accounts, Policy.SPREAD, within_ms, market)[0], Granted)
    # What is counted from there on is counted by the new clock.
    assert pace.after(accounts[0].pace_at_ms, within_ms) <= within_ms + 2_000


def test_replicas_whose_clocks_differ_still_keep_one_pace_between_them() -> None:
    pace = pace_of(60)
    assert pace is not None
    pace_at_ms, sent = 0, 0
    for true_ms in range(0, 60_000, 100):
        # One of the two is half a minute ahead.
        for now_ms in (true_ms + 30_000, true_ms):
            while pace.room(pace_at_ms, now_ms) > 0:
                pace_at_ms, sent = pace.after(pace_at_ms, now_ms), sent + 1
    assert sent <= 60


def test_a_pace_is_as_fast_as_it_is_allowed_to_be() -> None:
    pace = pace_of(60)
    assert pace is not None
    pace_at_ms, sent = 0, 0
    for now_ms in range(0, 10 * 60_000, 100):
        while pace.room(pace_at_ms, now_ms) > 0:
            pace_at_ms, sent = pace.after(pace_at_ms, now_ms), sent + 1
    assert sent >= 0.9 * 600 - 60
    assert pace_of(0) is None


def test_a_lease_moves_the_pace_and_counts_its_model_until_it_ends() -> None:
    market = Market({"ark": Provider(pace=Pace(2, 1_000))})
    batch = Batch({"a": account()}, {}, NOW_MS)
    (lease,) = apply([Take(request(1), "job_1", 1_000)], batch, Policy.SPREAD, market)
    assert isinstance(lease, Lease)
    after = batch.accounts["a"]
    assert (after.pace_at_ms, after.leases_by_model) == (NOW_MS + 1_000, {MODEL: 1})
    apply([GiveBack("job_1:1")], batch, Policy.SPREAD, market)
    # The slot comes back, what was submitted stays submitted.
    assert (batch.accounts["a"].pace_at_ms, batch.accounts["a"].leases_by_model) == (NOW_MS + 1_000, {})


def test_a_lease_from_before_models_were_counted_leaves_the_counts_alone() -> None:
    old = Lease("job_1:1", "job_1", "a", 100, LeaseState.OPEN, NOW_MS, NOW_MS + 1)
    batch = Batch({"a": account(leases=1, leased_millis=100)}, {"job_1:1": old}, NOW_MS)
    apply([GiveBack("job_1:1")], batch, Policy.SPREAD)
    assert (batch.accounts["a"].leases, batch.accounts["a"].leases_by_model) == (0, {})


PRICED = Market(
    {"ark": Provider(usd_micros_per_unit=1_000_000), "runway": Provider(usd_micros_per_unit=10_000)},
    price_band=band_of(0.1),
)


def shares(ark_millis: int, runway_millis: int, policy: Policy = Policy.SPREAD, **changes: Any) -> set[str]:
    accounts = [account("a", priority=1), account("r", provider="runway", **changes)]
    wanted = [
        request(turn, ceilings={"ark": ark_millis, "runway": runway_millis}, model=MODEL) for turn in range(8)
    ]
    answers = choose(wanted, accounts, policy, NOW_MS, PRICED)
    return {answer.account_id for answer in answers if isinstance(answer, Granted)}


def test_accounts_within_the_price_band_share_the_work_and_dearer_ones_have_none() -> None:
    assert shares(100, 10_000) == {"a", "r"}
    assert shares(100, 11_000) == {"a", "r"}
    assert shares(100, 11_010) == {"a"}
    assert shares(112, 10_000) == {"r"}


def test_prices_are_what_a_job_is_expected_to_cost_and_not_what_it_may_cost_at_most() -> None:
    accounts = [account("a"), account("r", provider="runway")]
    # The same price, and of one of them nobody knows it well.
    doubtful = {"ceilings": {"ark": 300, "runway": 10_000}, "prices": {"ark": 100, "runway": 10_000}}
    dearer = {"ceilings": {"ark": 100, "runway": 10_000}, "prices": {"ark": 100, "runway": 5_000}}
    for costs, chosen in ((doubtful, {"a", "r"}), (dearer, {"r"})):
        wanted = [request(turn, **costs) for turn in range(8)]
        answers = choose(wanted, accounts, Policy.SPREAD, NOW_MS, PRICED)
        granted = [one for one in answers if isinstance(one, Granted)]
        assert {one.account_id for one in granted} == chosen
        assert {one.ceiling_millis for one in granted} <= set(costs["ceilings"].values())


def test_a_dearer_account_works_when_no_cheaper_one_is_ready() -> None:
    assert shares(100, 20_000) == {"a"}
    accounts = [account("a", leases=50), account("r", provider="runway")]
    wanted = request(1, ceilings={"ark": 100, "runway": 20_000})
    assert choose([wanted], accounts, Policy.SPREAD, NOW_MS, PRICED) == [Granted("r", 20_000)]


def test_the_operator_s_priority_wins_over_price() -> None:
    assert shares(100, 50_000, Policy.PRIORITY, priority=2) == {"r"}
    assert shares(100, 50_000, Policy.PRIORITY, priority=1) == {"a"}


def test_a_provider_that_fails_on_most_accounts_spares_the_rest_while_another_can_work() -> None:
    cooling = {MODEL: Breaker(1, 1, NOW_MS + 1)}
    ailing = [account(name, breakers=cooling) for name in "abc"] + [account(name) for name in "de"]
    other = account("r", provider="runway", concurrency_limit=2)
    wanted = [request(turn, ceilings={"ark": 100, "runway": 90_000}) for turn in range(4)]
    answers = choose(wanted, [*ailing, other], Policy.SPREAD, NOW_MS, PRICED)
    assert [one.account_id for one in answers if isinstance(one, Granted)] == ["r", "r", "d", "e"]
    few = [account("a", breakers=cooling), account("b", breakers=cooling), *map(account, "cde")]
    answers = choose(wanted, [*few, other], Policy.SPREAD, NOW_MS, PRICED)
    assert [one.account_id for one in answers if isinstance(one, Granted)] == ["c", "d", "e", "c"]


def test_an_ailing_provider_comes_back_by_its_trials() -> None:
    trial = {MODEL: Breaker(1, 1, NOW_MS)}
    ailing = [account("a", breakers=trial), account("b", breakers=trial), account("c")]
    wanted = request(1, ceilings={"ark": 100, "runway": 90_000})
    other = account("r", provider="runway", concurrency_limit=2)
    assert choose([wanted], [*ailing, other], Policy.SPREAD, NOW_MS, PRICED) == [Granted("a", 100, (MODEL,))]


def test_what_the_provider_says_and_refusals_taught_never_raises_the_operator_s_limit() -> None:
    assert account(concurrency_limit=5, concurrency_told=3).slots == 3
    assert account(concurrency_limit=5, concurrency_told=30).slots == 5
    assert account(concurrency_limit=5, concurrency_told=4, concurrency_learnt=2).slots == 2
    assert account(concurrency_limit=2, concurrency_learnt=4).slots == 2
    told = account(concurrency_told=3, leases=1)
    assert len(granted(9, [told], Market())) == 2


def test_each_refusal_for_concurrency_takes_one_slot_and_one_is_always_left() -> None:
    crowded = account(leases=12)
    for left in (11, 10, 9):
        crowded = concurrency.after_refusal(crowded)
        assert crowded.slots == left
    assert concurrency.after_refusal(account(leases=1)).slots == 1
    assert concurrency.after_refusal(account(concurrency_limit=1)).slots == 1


def test_fifty_successes_in_a_row_give_one_slot_back_until_nothing_learnt_is_left() -> None:
    taught = account(concurrency_limit=3, concurrency_learnt=1)
    for _ in range(concurrency.SUCCESSES_TO_RAISE - 1):
        taught = concurrency.after_success(taught)
    assert taught.slots == 1
    taught = concurrency.after_success(taught)
    assert (taught.slots, taught.successes) == (2, 0)
    broken_off = concurrency.after_refusal(replace(taught, successes=49, leases=3))
    assert (broken_off.concurrency_learnt, broken_off.successes) == (1, 0)
    for _ in range(concurrency.SUCCESSES_TO_RAISE):
        taught = concurrency.after_success(taught)
    assert (taught.slots, taught.concurrency_learnt) == (3, 0)


def test_an_account_of_which_nothing_was_learnt_is_not_changed_by_success() -> None:
    assert concurrency.after_success(account()) == account()


@pytest.mark.parametrize(
    ("changes", "market", "free"),
    [
        ({"leases": 48}, Market(), 2),
        ({"concurrency_told": 7}, Market(), 7),
        ({"leases_by_model": {MODEL: 1}}, Market(model_limits={("ark", MODEL): 3}), 2),
        ({}, Market({"ark": Provider(tasks_at_once=4)}), 4),
        ({"pace_at_ms": NOW_MS + 1_000}, Market({"ark": Provider(pace=Pace(3, 1_000))}), 2),
        ({"pace_at_ms": NOW_MS + 9_000}, Market({"ark": Provider(pace=Pace(3, 1_000))}), 0),
    ],
)
def test_the_rooms_that_are_announced_know_of_every_limit(
    changes: dict[str, Any], market: Market, free: int
) -> None:
    found = pool.rooms([account(**changes)], {"ark": [MODEL]}, NOW_MS, market)
    assert found[Mode.LIVE, MODEL] == free


crowds = st.lists(
    st.builds(
        account,
        st.sampled_from("abcdef"),
        st.sampled_from(["ark", "fal"]),
        leases=st.integers(0, 3),
        concurrency_told=st.integers(0, 6),
        concurrency_learnt=st.integers(0, 4),
        pace_at_ms=st.integers(NOW_MS - 5_000, NOW_MS + 5_000),
    ),
    unique_by=lambda one: one.account_id,
    max_size=6,
).map(
    lambda crowd: [replace(one, leases_by_model={MODEL: one.leases} if one.leases else {}) for one in crowd]
)


@given(crowds, st.integers(0, 25), st.integers(1, 4), st.integers(1, 12), st.sampled_from(list(Policy)))
def test_no_choice_breaks_any_limit_and_nobody_waits_while_all_limits_have_room(
    crowd: list[Account], count: int, of_model: int, at_once: int, policy: Policy
) -> None:
    market = Market(
        {"ark": Provider(at_once, Pace(2, 1_000)), "fal": Provider(usd_micros_per_unit=1)},
        {("ark", MODEL): of_model},
    )
    wanted = [request(turn, ceilings={"ark": 10, "fal": 10}) for turn in range(count)]
    answers = choose(wanted, crowd, policy, NOW_MS, market)
    given_to = [answer.account_id for answer in answers if isinstance(answer, Granted)]
    room = 0
    for provider in ("ark", "fal"):
        own = [one for one in crowd if one.provider == provider]
        new = sum(given_to.count(one.account_id) for one in own)
        if provider == "ark":
            assert new == 0 or new + sum(one.leases for one in own) <= at_once
        free = pool.rooms(own, {provider: [MODEL]}, NOW_MS, market)[Mode.LIVE, MODEL]
        assert new <= free
        room += free
        for one in own:
            mine = given_to.count(one.account_id)
            assert mine == 0 or one.leases + mine <= one.slots
    assert len(given_to) == min(count, room)


class RetiringAdapter(ToyAdapter):
    """A provider that stops serving its one model."""

    def models(self) -> Sequence[ModelSpec]:
        return [dataclasses.replace(spec, retires_at_ms=NOW_MS) for spec in super().models()]


def test_a_model_is_offered_until_the_moment_its_provider_retires_it() -> None:
    catalog = Catalog([RetiringAdapter()])
    assert catalog.ceilings(PICTURE, NOW_MS - 1) == {"toy": 100}
    assert catalog.on_offer(NOW_MS - 1) == {"toy": ["picture"]}
    assert (catalog.ceilings(PICTURE, NOW_MS), catalog.on_offer(NOW_MS)) == ({}, {"toy": []})
