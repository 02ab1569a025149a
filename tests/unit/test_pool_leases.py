from __future__ import annotations

import pytest

from services.chassis.errors import ServiceError
from services.provider_pool.selection import leases, pool
from services.provider_pool.selection.health import Breaker
from services.provider_pool.selection.leases import Batch, Expire, GiveBack, Lease, LeaseState, Renew, Take
from services.provider_pool.selection.pool import Account, Mode, Policy, Refusal

NOW_MS = 1_000_000
TTL_MS = 30_000


def batch(*open_leases: Lease, limit: int = 2, breaker: Breaker | None = None) -> Batch:
    account = Account(
        "a",
        "sandbox",
        concurrency_limit=limit,
        balance_millis=1_000,
        leases=len(open_leases),
        leased_millis=100 * len(open_leases),
        breakers={} if breaker is None else {"": breaker},
    )
    return Batch({"a": account}, {lease.attempt_id: lease for lease in open_leases}, NOW_MS)


def held(attempt_id: str, expires_at_ms: int = NOW_MS + 10) -> Lease:
    return Lease(attempt_id, "job_1", "a", 100, LeaseState.OPEN, NOW_MS - 10, expires_at_ms)


def take(attempt_id: str, ceiling_millis: int = 100) -> Take:
    return Take(pool.Request(attempt_id, Mode.LIVE, "m", {"sandbox": ceiling_millis}), "job_1", TTL_MS)


def run(found: Batch, *items: leases.Item) -> list[leases.Answer]:
    return leases.apply(items, found, Policy.SPREAD)


def test_a_lease_keeps_a_slot_and_its_ceiling() -> None:
    found = batch()
    (lease,) = run(found, take("job_1:1"))
    assert lease == Lease("job_1:1", "job_1", "a", 100, LeaseState.OPEN, NOW_MS, NOW_MS + TTL_MS, model="m")
    account = found.accounts["a"]
    assert (account.leases, account.leased_millis, account.last_leased_at_ms) == (1, 100, NOW_MS)


def test_taking_again_repeats_the_answer_and_takes_nothing() -> None:
    found = batch(held("job_1:1"))
    assert run(found, take("job_1:1")) == [held("job_1:1")]
    assert not found.changed_leases
    assert found.accounts["a"].leases == 1


def test_the_same_lease_twice_in_a_batch_is_taken_once() -> None:
    found = batch()
    first, second = run(found, take("job_1:1"), take("job_1:1"))
    assert first == second
    assert found.accounts["a"].leases == 1


def test_a_lease_after_its_return_is_refused() -> None:
    found = batch(held("job_1:1"))
    answers = run(found, take("job_1:1"), GiveBack("job_1:1"))
    assert isinstance(answers[0], ServiceError)
    assert answers[0].reason == "LEASE_ENDED"
    assert answers[1] is False


def test_a_return_before_the_lease_leaves_a_tombstone_that_refuses_it() -> None:
    found = batch()
    assert run(found, GiveBack("job_1:1")) == [True]
    (late,) = run(found, take("job_1:1"))
    assert isinstance(late, ServiceError)
    assert late.reason == "LEASE_ENDED"
    assert run(found, GiveBack("job_1:1")) == [True]


def test_a_return_gives_the_slot_to_whoever_asks_in_the_same_batch() -> None:
    found = batch(held("job_1:1"), limit=1)
    answers = run(found, take("job_2:1"), GiveBack("job_1:1"))
    assert isinstance(answers[0], Lease)
    assert found.accounts["a"].leases == 1


def test_giving_back_twice_frees_once() -> None:
    found = batch(held("job_1:1"), held("job_2:1"))
    assert run(found, GiveBack("job_1:1"), GiveBack("job_1:1")) == [False, False]
    assert (found.accounts["a"].leases, found.accounts["a"].leased_millis) == (1, 100)


def test_a_full_account_is_busy_and_changes_nothing() -> None:
    found = batch(held("job_1:1"), limit=1)
    assert run(found, take("job_2:1")) == [Refusal.BUSY]
    assert not found.changed_accounts


def test_what_nobody_could_ever_take_is_refused_and_leaves_no_row() -> None:
    found = batch()
    (refusal,) = run(found, take("job_1:1", ceiling_millis=1_001))
    assert isinstance(refusal, ServiceError)
    assert refusal.reason == "NO_CAPABLE_ACCOUNT"
    assert not found.changed_leases


def test_renewing_moves_the_expiry_and_names_what_is_not_open() -> None:
    found = batch(held("job_1:1"))
    assert run(found, Renew(("job_1:1", "job_2:1"), TTL_MS)) == [("job_2:1",)]
    assert found.leases["job_1:1"].expires_at_ms == NOW_MS + TTL_MS


def test_renewing_never_shortens_a_lease() -> None:
    found = batch(held("job_1:1", NOW_MS + 60_000))
    run(found, Renew(("job_1:1",), TTL_MS))
    assert found.leases["job_1:1"].expires_at_ms == NOW_MS + 60_000


@pytest.mark.parametrize(("expires_at_ms", "ended"), [(NOW_MS, True), (NOW_MS + 1, False)])
def test_a_lease_expires_when_its_time_is_over(expires_at_ms: int, ended: bool) -> None:
    found = batch(held("job_1:1", expires_at_ms))
    assert run(found, Expire("job_1:1")) == [ended]
    assert found.accounts["a"].leases == (0 if ended else 1)


def test_a_trial_is_noted_and_forgotten_when_its_lease_ends() -> None:
    found = batch(breaker=Breaker(1, 1, 2))
    run(found, take("job_1:1"), take("job_2:1"))
    assert found.changed_breakers["a", ""].trial_attempt_id == "job_1:1"
    run(found, GiveBack("job_1:1"))
    assert found.changed_breakers["a", ""].trial_attempt_id == ""
