"""Limits of accounts, models, paces and providers in the database, on both engines and with two replicas."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
from msgspec import structs

from services.chassis.database import Database, migrate, write_together
from services.provider_pool.accounts.headroom import Headroom
from services.provider_pool.adapters import interface
from services.provider_pool.adapters.interface import AccountStatus, ModelSpec
from services.provider_pool.adapters.sandbox.adapter import SandboxAdapter
from services.provider_pool.attempts.records import Signal
from services.provider_pool.attempts.states import AttemptState
from services.provider_pool.catalog import Catalog
from services.provider_pool.selection.concurrency import SUCCESSES_TO_RAISE
from services.provider_pool.selection.health import Fault, FaultKind
from services.provider_pool.selection.pool import Account
from services.provider_pool.settings import MIGRATIONS
from services.provider_pool.store import accounts as account_rows
from services.provider_pool.store import spending
from tests.clocks import T0_MS, HandClock
from tests.conformance.test_pool_store import PICTURE, Replica

OF_MODEL, AT_ONCE, PER_MINUTE = 3, 7, 120


class StrictSandbox(SandboxAdapter):
    """The sandbox, as strict as a real provider is."""

    terms: ClassVar[interface.Terms] = replace(
        SandboxAdapter.terms, tasks_at_once=AT_ONCE, submits_per_minute=PER_MINUTE
    )

    def models(self) -> Sequence[ModelSpec]:
        return [replace(spec, concurrency_limit=OF_MODEL) for spec in super().models()]


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog([StrictSandbox(tmp_path / "sandbox", workers=1)])


@pytest.fixture
async def replica(engine_url: str, catalog: Catalog) -> AsyncIterator[Replica]:
    await migrate(engine_url, MIGRATIONS)
    database = await Database.open(engine_url, application_name="conformance")
    replica = Replica(database, catalog, HandClock())
    yield replica
    await replica.close()
    await database.close()


async def shown(replica: Replica, account_id: str) -> Account:
    return (await replica.accounts.get(account_id)).account


async def test_leases_are_counted_by_model_until_they_end(replica: Replica) -> None:
    account_id = await replica.account(concurrency_limit=9)
    answers = await asyncio.gather(*(replica.lease(f"job_{turn}:1") for turn in range(5)))
    held = [lease.attempt_id for lease in answers if lease is not None]
    assert len(held) == OF_MODEL
    assert (await shown(replica, account_id)).leases_by_model == {PICTURE.model: OF_MODEL}
    await asyncio.gather(*(replica.leasing.release(attempt_id) for attempt_id in held))
    assert (await shown(replica, account_id)).leases_by_model == {}


async def test_counts_that_another_release_left_wrong_are_put_right_at_a_start(replica: Replica) -> None:
    account_id = await replica.account(concurrency_limit=9)
    await replica.lease("job_1:1")
    right = await shown(replica, account_id)
    wrong = structs.replace(right, leases_by_model={PICTURE.model: 3, "another": 1})
    await replica.database.write(
        lambda connection: write_together(connection, (account_rows.loads_step([wrong]),))
    )
    await replica.leasing.recount()
    assert await shown(replica, account_id) == right


async def test_a_reset_forgets_how_few_tasks_at_once_an_account_seemed_to_have(replica: Replica) -> None:
    account_id = await replica.account(concurrency_limit=3)
    attempt = await replica.begun("job_1:1")
    crowded = Signal(account_id, "", T0_MS, Fault(FaultKind.CROWDED, "concurrency_limited", T0_MS))
    await replica.attempts.change(replica.change(attempt, signals=(crowded,)))
    assert (await shown(replica, account_id)).slots == 1
    assert (await replica.accounts.reset(account_id)).account.slots == 3


async def test_a_pace_that_is_used_up_is_announced_when_it_opens_again(replica: Replica) -> None:
    account_id = await replica.account(concurrency_limit=9)
    burst = 0
    while (lease := await replica.lease(f"job_{burst}:1")) is not None:
        await replica.leasing.release(lease.attempt_id)
        burst += 1
    assert burst == PER_MINUTE // 10
    pace = replica.catalog.market.provider("sandbox").pace
    assert pace is not None
    opens_at_ms = pace.opens_at_ms((await shown(replica, account_id)).pace_at_ms, replica.clock.now_ms())
    assert 0 < opens_at_ms - T0_MS <= 1_000
    replica.clock.at_ms = opens_at_ms - 1
    assert await replica.lease("job_98:1") is None
    replica.clock.at_ms = opens_at_ms
    assert await replica.lease("job_99:1") is not None


async def test_refusals_for_concurrency_lower_what_is_believed_and_open_no_breaker(replica: Replica) -> None:
    account_id = await replica.account(concurrency_limit=3)
    attempt = await replica.begun("job_1:1")

    async def told(fault: Fault | None) -> Account:
        signal = Signal(account_id, "", T0_MS, fault)
        await replica.attempts.change(replica.change(attempt, signals=(signal,)))
        return await shown(replica, account_id)

    await replica.lease("job_2:1")
    crowded = Fault(FaultKind.CROWDED, "concurrency_limited", T0_MS)
    account = await told(crowded)
    assert (account.slots, account.breakers) == (1, {})
    for _ in range(SUCCESSES_TO_RAISE):
        account = await told(None)
    assert (account.slots, account.successes) == (2, 0)
    assert (await told(crowded)).breakers == {}
    # There is nothing left to take off: somebody else uses the account.
    account = await told(crowded)
    assert (account.slots, account.breakers[""].cause) == (1, "concurrency_limited")


async def test_a_cost_and_what_was_learnt_may_come_in_one_batch(replica: Replica) -> None:
    account_id = await replica.account(concurrency_limit=3)
    attempt = await replica.begun("job_1:1")
    crowded = Signal(account_id, "", T0_MS, Fault(FaultKind.CROWDED, "concurrency_limited", T0_MS))
    await replica.attempts.change(
        replica.change(attempt, to=AttemptState.FAILED, cost_millis=300, signals=(crowded,))
    )
    account = await shown(replica, account_id)
    assert (account.balance_millis, account.booked_millis, account.slots) == (999_700, 300, 1)


async def test_what_a_provider_tells_is_kept_and_corrects_the_balance(replica: Replica) -> None:
    account_id = await replica.account(concurrency_limit=3)
    seen = await shown(replica, account_id)
    attempt = await replica.running("job_1:1", "task_1")
    await replica.attempts.change(replica.change(attempt, to=AttemptState.FAILED, cost_millis=300))
    status = AccountStatus(ok=True, balance_millis=5_000, renews_at_ms=77, concurrency_limit=2)
    await replica.accounts.passed(seen, status, T0_MS + 1)
    account = await shown(replica, account_id)
    assert (account.balance_millis, account.balance_read_at_ms) == (4_700, T0_MS + 1)
    assert (account.renews_at_ms, account.slots, account.concurrency_limit) == (77, 2, 3)


async def test_headroom_is_worked_out_from_what_ended_in_the_last_hour(replica: Replica) -> None:
    await replica.account(concurrency_limit=3)
    for job, cost_millis in ((1, 400_000), (2, 100_000)):
        attempt = await replica.running(f"job_{job}:1", f"task_{job}")
        await replica.attempts.change(
            replica.change(attempt, to=AttemptState.FAILED, cost_millis=cost_millis)
        )
        await replica.leasing.release(f"job_{job}:1")
        replica.clock.at_ms += 1_900_000
    spent = await replica.database.read(
        lambda connection: spending.booked_since(connection, T0_MS + 1_900_000)
    )
    assert spent == {("sandbox", PICTURE.model): 100_000}
    found = await Headroom(replica.database, replica.catalog, replica.clock).look()
    by_model = {one.model: one for one in found}
    assert by_model[PICTURE.model].minutes == 5 * 60
    assert by_model["seedance-2.0"].minutes is None


async def test_two_replicas_keep_every_limit_between_them(postgres_url: str, catalog: Catalog) -> None:
    await migrate(postgres_url, MIGRATIONS)
    databases = [await Database.open(postgres_url, application_name=f"replica-{turn}") for turn in range(2)]
    replicas = [Replica(database, catalog, HandClock()) for database in databases]
    accounts = [
        await replicas[0].account(concurrency_limit=limit, balance_millis=10**9) for limit in (2, 4, 9)
    ]
    taken = 0

    async def customer(number: int) -> None:
        """Leases and gives back, through both replicas, and looks at the limits all the time."""
        nonlocal taken
        for turn in range(6):
            one, attempt_id = replicas[(number + turn) % 2], f"job_{number}x{turn}:1"
            lease = await one.lease(attempt_id)
            found = await one.accounts.load()
            assert sum(account.leases for account in found.values()) <= AT_ONCE
            for account in found.values():
                assert account.leases_by_model.get(PICTURE.model, 0) == account.leases
                assert account.leases <= min(OF_MODEL, account.concurrency_limit)
            if lease is not None:
                taken += 1
                await replicas[number % 2].leasing.release(attempt_id)

    await asyncio.gather(*map(customer, range(40)))
    # The clock stands still: each account may begin with a tenth of a minute's submissions, and then none.
    assert 0 < taken <= len(accounts) * PER_MINUTE // 10
    left = (await replicas[0].accounts.load()).values()
    assert [(one.leases, one.leased_millis, one.leases_by_model) for one in left] == [(0, 0, {})] * 3
    for one, database in zip(replicas, databases, strict=True):
        await one.close()
        await database.close()
