"""The pool's leases on two replicas, under everything that can happen to them: a model over the real rules and store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import replace

from services.chassis import group_commit
from services.provider_pool.adapters.sandbox.adapter import SandboxAdapter
from services.provider_pool.attempts import states as attempts
from services.provider_pool.catalog import Catalog
from services.provider_pool.selection import capacity, pool
from services.provider_pool.selection.leases import Lease
from services.provider_pool.selection.pool import Account, AccountState, Choice, Policy, Request
from services.provider_pool.settings import MIGRATIONS
from tests.models.ground import Ground, bounded, explore, searching
from tests.models.pool_machine import PoolMachine
from tests.models.pool_world import CEILING_MILLIS, PoolWorld

pytestmark = pytest.mark.timeout(1800)
# Of the profile's examples: this file takes under 25 seconds.
SHARE = 0.2


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    """The sandbox; and nobody waits by the wall's clock for what the model's clock decides."""
    monkeypatch.setattr(group_commit, "FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(capacity, "_ELSEWHERE_S", 0.0)
    return Catalog([SandboxAdapter(tmp_path / "sandbox", workers=1)])


def test_no_account_is_promised_beyond_its_balance_and_its_slots(ground: Ground, catalog: Catalog) -> None:
    ground.prepare(MIGRATIONS)
    explore(partial(PoolMachine, ground, catalog), bounded(SHARE))


def test_what_an_ended_lease_leaves_to_be_paid_is_not_promised_again_in_the_same_batch(
    ground: Ground, catalog: Catalog
) -> None:
    ground.prepare(MIGRATIONS)
    world = PoolWorld(ground, catalog)
    replica = world.replicas[0]

    async def story() -> tuple[object, Account]:
        terms = {"concurrency_limit": 2, "balance_millis": CEILING_MILLIS}
        account_id = await replica.open_account("just enough", **terms)
        await replica.lease("job_1:1")
        await replica.attempts.begin(replica.beginning("job_1:1"))
        _, answer = await asyncio.gather(replica.leasing.release("job_1:1"), replica.lease("job_2:1"))
        return answer, (await replica.accounts.get(account_id)).account

    answer, account = world.run(story())
    world.end()
    assert not isinstance(answer, Lease)
    assert account.available_millis == 0


def without_slots(account: Account) -> Account:
    return replace(account, concurrency_limit=99)


def without_balance(account: Account) -> Account:
    return replace(account, balance_millis=10**9)


def without_breakers(account: Account) -> Account:
    return replace(account, breakers={})


def without_state(account: Account) -> Account:
    return replace(account, state=AccountState.ACTIVE)


@pytest.mark.parametrize("forget", [without_slots, without_balance, without_breakers, without_state])
def test_a_choice_that_forgets_something_of_an_account_is_found(
    sqlite_ground: Ground,
    catalog: Catalog,
    monkeypatch: pytest.MonkeyPatch,
    forget: Callable[[Account], Account],
) -> None:
    choose = pool.choose

    def forgetful(
        requests: Sequence[Request], accounts: Iterable[Account], policy: Policy, now_ms: int
    ) -> list[Choice]:
        return choose(requests, [forget(account) for account in accounts], policy, now_ms)

    monkeypatch.setattr(pool, "choose", forgetful)
    sqlite_ground.prepare(MIGRATIONS)
    with pytest.raises(AssertionError):
        explore(partial(PoolMachine, sqlite_ground, catalog), searching(100))


def test_an_end_that_is_not_booked_is_found(
    sqlite_ground: Ground, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "may_still_cost", lambda attempt: False)
    sqlite_ground.prepare(MIGRATIONS)
    with pytest.raises(AssertionError):
        explore(partial(PoolMachine, sqlite_ground, catalog), searching(100))
