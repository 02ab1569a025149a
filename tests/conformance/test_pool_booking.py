"""What attempts take off their account's balance: each its cost, once, however and whenever it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.chassis.database import Database, migrate
from services.provider_pool.adapters.sandbox.adapter import SandboxAdapter
from services.provider_pool.attempts.states import AttemptState
from services.provider_pool.catalog import Catalog
from services.provider_pool.settings import MIGRATIONS
from tests.clocks import HandClock
from tests.conformance.test_pool_store import PICTURE_MILLIS, TTL_MS, Replica


@pytest.fixture
async def replica(engine_url: str, tmp_path: Path) -> AsyncIterator[Replica]:
    await migrate(engine_url, MIGRATIONS)
    database = await Database.open(engine_url, application_name="conformance")
    catalog = Catalog([SandboxAdapter(tmp_path / "sandbox", workers=1)])
    replica = Replica(database, catalog, HandClock())
    yield replica
    await replica.close()
    await database.close()


async def test_a_cost_is_taken_off_the_balance_once(replica: Replica) -> None:
    account_id = await replica.account()
    attempt = await replica.running("job_1:1", "task_1")
    await replica.attempts.change(
        replica.change(attempt, to=AttemptState.SUCCEEDED, expected_cost_millis=300)
    )
    booking = replica.change(attempt, collected="[]", cost_millis=300)
    await asyncio.gather(*(replica.attempts.change(booking) for _ in range(5)))
    assert (await replica.accounts.get(account_id)).account.balance_millis == 1_000_000 - 300


async def balance(replica: Replica, account_id: str) -> int:
    return (await replica.accounts.get(account_id)).account.balance_millis


async def test_an_attempt_whose_lease_ends_before_it_does_is_taken_off_the_balance(replica: Replica) -> None:
    account_id = await replica.account(concurrency_limit=5)
    attempt = await replica.running("job_1:1", "task_1")
    await replica.begun("job_2:1")
    await replica.lease("job_3:1")
    for job in (1, 2, 3):
        await replica.leasing.release(f"job_{job}:1")
    assert await balance(replica, account_id) == 1_000_000 - 2 * PICTURE_MILLIS
    booking = replica.change(attempt, to=AttemptState.SUCCEEDED, expected_cost_millis=300)
    await replica.attempts.change(booking)
    assert await balance(replica, account_id) == 1_000_000 - 2 * PICTURE_MILLIS


async def test_an_expired_lease_of_a_running_attempt_is_taken_off_the_balance(replica: Replica) -> None:
    account_id = await replica.account()
    await replica.running("job_1:1", "task_1")
    replica.clock.at_ms += TTL_MS
    await replica.leasing.sweep()
    await replica.leasing.sweep()
    assert await balance(replica, account_id) == 1_000_000 - PICTURE_MILLIS


async def test_what_is_learnt_after_the_lease_ended_makes_up_the_difference(replica: Replica) -> None:
    account_id = await replica.account(concurrency_limit=5)
    collected, failed = await replica.running("job_1:1", "task_1"), await replica.running("job_2:1", "task_2")
    for attempt in (collected, failed):
        await replica.leasing.release(attempt.attempt_id)
    await replica.attempts.change(
        replica.change(collected, to=AttemptState.SUCCEEDED, expected_cost_millis=300)
    )
    for _ in range(2):
        await replica.attempts.change(replica.change(collected, collected="[]", cost_millis=300))
        await replica.attempts.change(replica.change(failed, to=AttemptState.FAILED, cost_millis=0))
    assert await balance(replica, account_id) == 1_000_000 - 300


async def test_an_attempt_that_failed_meanwhile_is_not_collected(replica: Replica) -> None:
    await replica.account()
    attempt = await replica.running("job_1:1", "task_1")
    await replica.attempts.change(replica.change(attempt, to=AttemptState.SUCCEEDED))
    await replica.attempts.change(
        replica.change(attempt, to=AttemptState.FAILED, cost_millis=0, seen=AttemptState.SUCCEEDED)
    )
    after = await replica.attempts.change(replica.change(attempt, collected="[1]", cost_millis=0))
    assert (after.state, after.collected) == (AttemptState.FAILED, "")
