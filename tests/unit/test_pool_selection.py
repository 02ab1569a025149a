from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from services.provider_pool.selection import pool
from services.provider_pool.selection.health import Breaker
from services.provider_pool.selection.pool import (
    Account,
    AccountState,
    Granted,
    Mode,
    Policy,
    Refusal,
    Request,
    choose,
)

NOW_MS = 1_000_000
MODEL = "gpt-image-2"


def account(name: str = "a", **changes: Any) -> Account:
    sound = Account(name, "sandbox", serves_test=True, concurrency_limit=2, balance_millis=1_000)
    return replace(sound, **changes)


def request(turn: int = 1, **changes: Any) -> Request:
    plain = Request(f"job_{turn}:1", Mode.LIVE, MODEL, {"sandbox": 100})
    return replace(plain, **changes)


def choice(wanted: Request, *accounts: Account, policy: Policy = Policy.SPREAD) -> pool.Choice:
    return choose([wanted], accounts, policy, NOW_MS)[0]


def chosen(*accounts: Account, policy: Policy = Policy.SPREAD) -> str:
    found = choice(request(), *accounts, policy=policy)
    assert isinstance(found, Granted)
    return found.account_id


@pytest.mark.parametrize(
    "changes",
    [
        {"provider": "other"},
        {"state": AccountState.DRAINING},
        {"state": AccountState.DISABLED},
        {"models": frozenset({"another-model"})},
        {"serves_live": False},
        {"concurrency_limit": 0},
        {"balance_millis": 99},
        {"breakers": {"": Breaker(1, NOW_MS, 0)}},
        {"breakers": {MODEL: Breaker(1, NOW_MS, 0)}},
    ],
    ids=str,
)
def test_a_request_that_the_only_account_could_not_take_even_when_idle_is_incapable(
    changes: dict[str, Any],
) -> None:
    assert choice(request(), account(**changes)) is Refusal.INCAPABLE


def test_no_account_at_all_is_incapable() -> None:
    assert choice(request()) is Refusal.INCAPABLE


@pytest.mark.parametrize(
    "changes",
    [
        {"leases": 2, "leased_millis": 200},
        {"leases": 1, "leased_millis": 901},
        {"breakers": {"": Breaker(1, NOW_MS, NOW_MS + 1)}},
        {"breakers": {MODEL: Breaker(1, NOW_MS, NOW_MS + 1)}},
        {"breakers": {"": Breaker(1, 1, 2, trial_attempt_id="job_9:1")}},
    ],
    ids=str,
)
def test_a_request_that_the_only_account_can_take_later_is_busy(changes: dict[str, Any]) -> None:
    assert choice(request(), account(**changes)) is Refusal.BUSY


def test_a_breaker_of_another_model_does_not_matter() -> None:
    assert isinstance(choice(request(), account(breakers={"other": Breaker(1, NOW_MS, 0)})), Granted)


def test_a_list_of_models_with_the_model_on_it_serves_it() -> None:
    assert isinstance(choice(request(), account(models=frozenset({MODEL}))), Granted)


def test_test_jobs_run_on_sandbox_accounts_that_serve_test_only() -> None:
    wanted = request(mode=Mode.TEST, ceilings={"sandbox": 100, "other": 100})
    real = account("r", provider="other", serves_test=True)
    assert choice(wanted, real, account("s", serves_test=False)) is Refusal.INCAPABLE
    found = choice(wanted, real, account("s", serves_live=False))
    assert isinstance(found, Granted)
    assert found.account_id == "s"


def test_who_waits_behind_others_is_never_granted_but_still_told_what_cannot_be() -> None:
    assert choice(request(behind_others=True), account()) is Refusal.BUSY
    assert choice(request(behind_others=True)) is Refusal.INCAPABLE


def test_an_avoided_account_is_used_only_where_no_other_can_take_the_job_at_all() -> None:
    avoiding = request(avoid=frozenset({"a"}))
    assert choice(avoiding, account("a"), account("b", leases=2)) is Refusal.BUSY
    found = choice(avoiding, account("a"), account("b", state=AccountState.DISABLED))
    assert isinstance(found, Granted)
    assert found.account_id == "a"


def test_a_half_open_breaker_lets_one_job_of_a_batch_through_and_names_it_a_trial() -> None:
    half_open = account(breakers={"": Breaker(1, 1, 2)})
    answers = choose([request(1), request(2)], [half_open], Policy.SPREAD, NOW_MS)
    assert answers == [Granted("a", 100, ("",)), Refusal.BUSY]


def test_spread_takes_the_lowest_load_then_the_least_recently_used() -> None:
    assert chosen(account("a", leases=1), account("b")) == "b"
    assert chosen(account("a", leases=1, concurrency_limit=4), account("b", leases=1)) == "a"
    assert chosen(account("a", last_leased_at_ms=9), account("b", last_leased_at_ms=8)) == "b"
    assert chosen(account("b"), account("a")) == "a"


def test_weight_makes_an_account_count_as_larger() -> None:
    assert chosen(account("a", leases=1), account("b", leases=1, weight=3)) == "b"


def test_spread_shares_a_batch_evenly() -> None:
    accounts = [account(name, concurrency_limit=4) for name in "abc"]
    answers = choose([request(turn) for turn in range(6)], accounts, Policy.SPREAD, NOW_MS)
    assert Counter(one.account_id for one in answers if isinstance(one, Granted)) == {"a": 2, "b": 2, "c": 2}


def test_soonest_expiry_spends_what_renews_first_and_what_never_renews_last() -> None:
    accounts = (account("a"), account("b", renews_at_ms=NOW_MS + 9), account("c", renews_at_ms=NOW_MS + 5))
    assert chosen(*accounts, policy=Policy.SOONEST_EXPIRY) == "c"
    assert chosen(*accounts[:2], policy=Policy.SOONEST_EXPIRY) == "b"


def test_drain_first_empties_the_account_with_the_least_left() -> None:
    accounts = (account("a"), account("b", balance_millis=500), account("c", balance_millis=99))
    assert chosen(*accounts, policy=Policy.DRAIN_FIRST) == "b"


def test_priority_takes_the_highest_and_among_equals_spreads() -> None:
    accounts = (account("a", priority=1), account("b", priority=2, leases=1), account("c", priority=2))
    assert chosen(*accounts, policy=Policy.PRIORITY) == "c"


def test_free_slots_follow_the_breakers_and_the_balance() -> None:
    assert pool.free_slots(account(leases=1), MODEL, NOW_MS) == 1
    assert pool.free_slots(account(leases=5), MODEL, NOW_MS) == 0
    assert pool.free_slots(account(breakers={"": Breaker(1, 1, 2)}), MODEL, NOW_MS) == 1
    assert pool.free_slots(account(breakers={MODEL: Breaker(1, 1, NOW_MS + 1)}), MODEL, NOW_MS) == 0
    assert pool.free_slots(account(leased_millis=1_000), MODEL, NOW_MS) == 0


def test_rooms_count_slots_for_each_wallet() -> None:
    accounts = [account("a"), account("b", serves_test=False), account("c", state=AccountState.DRAINING)]
    found = pool.rooms(accounts, {"sandbox": [MODEL]}, NOW_MS)
    assert found == {(Mode.LIVE, MODEL): 4, (Mode.TEST, MODEL): 2}


breakers = st.builds(
    Breaker,
    failures=st.integers(1, 3),
    opened_at_ms=st.just(1),
    reopens_at_ms=st.sampled_from([0, 2, NOW_MS + 1]),
    trial_attempt_id=st.sampled_from(["", "job_x:1"]),
)


@st.composite
def crowds(draw: st.DrawFn) -> list[Account]:
    crowd = []
    for name in draw(st.lists(st.sampled_from("abcdef"), unique=True, max_size=6)):
        limit = draw(st.integers(0, 5))
        leases = draw(st.integers(0, limit))
        balance_millis = draw(st.integers(0, 1_000))
        crowd.append(
            account(
                name,
                concurrency_limit=limit,
                leases=leases,
                balance_millis=balance_millis,
                leased_millis=draw(st.integers(0, balance_millis)) if leases else 0,
                priority=draw(st.integers(0, 2)),
                weight=draw(st.integers(0, 3)),
                renews_at_ms=draw(st.sampled_from([0, 1, 2])),
                last_leased_at_ms=draw(st.integers(0, 3)),
                breakers=draw(st.dictionaries(st.sampled_from(["", MODEL]), breakers)),
            )
        )
    return crowd


crowd_requests = st.lists(st.integers(1, 500), max_size=25).map(
    lambda costs: [request(turn, ceilings={"sandbox": cost}) for turn, cost in enumerate(costs)]
)


@given(crowds(), crowd_requests, st.sampled_from(list(Policy)))
def test_no_account_goes_below_its_balance_or_over_its_concurrency(
    crowd: list[Account], wanted: list[Request], policy: Policy
) -> None:
    answers = choose(wanted, crowd, policy, NOW_MS)
    for one in crowd:
        given_here = [
            found for found in answers if isinstance(found, Granted) and found.account_id == one.account_id
        ]
        assert one.leases + len(given_here) <= one.concurrency_limit
        assert one.leased_millis + sum(found.ceiling_millis for found in given_here) <= one.balance_millis


@given(crowds(), crowd_requests, st.sampled_from(list(Policy)), st.randoms(use_true_random=False))
def test_the_order_in_which_accounts_are_listed_does_not_matter(
    crowd: list[Account], wanted: list[Request], policy: Policy, rng: random.Random
) -> None:
    shuffled = rng.sample(crowd, len(crowd))
    assert choose(wanted, crowd, policy, NOW_MS) == choose(wanted, shuffled, policy, NOW_MS)


@given(crowds(), crowd_requests, st.sampled_from(list(Policy)))
def test_nobody_is_refused_while_an_account_is_free_for_them(
    crowd: list[Account], wanted: list[Request], policy: Policy
) -> None:
    answers = choose(wanted, crowd, policy, NOW_MS)
    after = {one.account_id: one for one in crowd}
    for answer in answers:
        if isinstance(answer, Granted):
            one = after[answer.account_id]
            after[answer.account_id] = replace(
                one, leases=one.leases + 1, leased_millis=one.leased_millis + answer.ceiling_millis
            )
    for asked, answer in zip(wanted, answers, strict=True):
        if not isinstance(answer, Granted):
            free = [
                one
                for one in after.values()
                if one.leases < one.concurrency_limit
                and one.balance_millis - one.leased_millis >= asked.ceilings["sandbox"]
                and not one.breakers
            ]
            assert free == []
