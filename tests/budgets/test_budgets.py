"""Budgets are upper bounds: whoever needs more has made every request dearer, and says so by raising the number here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import aiohttp
import pytest

from tests.budgets.spending import Spending, spending
from tests.house import Answer, Customer, House, inside, running_house
from tests.postgres import Postgres

Engine = Literal["sqlite", "postgresql"]
Budget = Mapping[str, Mapping[str, float]]

ALONE: Final = 10
AT_ONCE: Final = 64
BURSTS: Final = 3
# What 64 at once cost each, against one alone. A machine that hands them out in a trickle makes more batches than it
# must; a house without batches would spend as much as one alone.
SHARE: Final = 0.5
# A job's end is spread over its polls, so that fewer of them fall into one batch.
FINISHED_SHARE: Final = 0.6

# Accepted jobs stay where they are, so that only the create itself is counted.
_RESTING: Final = {"ATELIER_JOBS_FIRST_STEP_S": "3600", "ATELIER_JOBS_IMAGE_DEADLINE_S": "7200"}
# What runs by itself is not what a request costs.
_CALM: Final = {"ATELIER_JOBS_RECONCILE_S": "3000"}
_LIMITS: Final = {"queued_jobs": 100_000, "running_jobs": 100_000, "requests_per_minute": 100_000}

CREATE: Final[Budget] = {
    "commits": {
        "billing billing_ledger": 1,
        "jobs admissions": 1,
        "jobs transitions": 1,
        "provider_pool leases": 1,
    },
    "statements": {
        "billing billing_ledger": 6,
        "jobs admissions": 5,
        "jobs transitions": 4,
        "provider_pool leases": 5,
    },
    "calls": {"billing Hold": 1, "jobs CreateJob": 1, "provider_pool Lease": 1},
    "messages": {"gateway jobs": 1, "jobs billing": 1, "jobs provider_pool": 1},
    # Ids, prompts and amounts of other lengths are no change of the protocol. The model in the storefront's words, the form of
    # its webhooks and the key whose spend limit counts travel with each.
    "bytes": {
        "gateway jobs sent": 285,
        "gateway jobs received": 150,
        "jobs billing sent": 180,
        "jobs billing received": 60,
        "jobs provider_pool sent": 190,
        "jobs provider_pool received": 60,
    },
}
READ: Final[Budget] = {
    "calls": {"jobs GetJob": 1},
    "messages": {"gateway jobs": 1},
    "bytes": {"gateway jobs sent": 140, "gateway jobs received": 320},
}
# From the request to the end, without the customer's own reads; the sandbox answers at its first poll.
FINISHED: Final[Budget] = {
    "commits": {
        "billing billing_ledger": 2,
        "jobs admissions": 1,
        "jobs transitions": 6,
        "provider_pool attempts": 4,
        "provider_pool leases": 2,
    },
    "statements": {
        "billing billing_ledger": 12,
        "jobs admissions": 5,
        # With the end: usage by day, and whoever is to be told of it.
        "jobs transitions": 22,
        "provider_pool attempts": 17,
        "provider_pool leases": 11,
    },
    "calls": {
        "billing Hold": 1,
        "billing Capture": 1,
        "jobs CreateJob": 1,
        "provider_pool Lease": 1,
        "provider_pool Submit": 1,
        "provider_pool PollMany": 1,
        "provider_pool Collect": 1,
        "provider_pool ReleaseLease": 1,
    },
    "messages": {"jobs billing": 2, "jobs provider_pool": 5},
    "bytes": {
        "jobs billing sent": 305,
        "jobs billing received": 100,
        "jobs provider_pool sent": 560,
        "jobs provider_pool received": 290,
    },
}


# Nothing is asked of the house meanwhile, so its counters rest soon.
_PATIENCE_S = 30.0


@dataclass
class Scene:
    house: House
    session: aiohttp.ClientSession
    customer: Customer
    numbers: int = 0
    first: Answer | None = None

    async def create(self) -> Answer:
        self.numbers += 1
        answer = await self.customer.image(f"key-{self.numbers}", "a boat")
        assert answer.status == 202
        return answer

    async def finish(self) -> dict[str, Any]:
        ended = await self.customer.ended((await self.create()).json["jobId"])
        assert ended["status"] == "complete"
        return ended

    async def spent(self) -> Spending:
        """As soon as nothing is under way any more: a lease is given back a moment after its job's end is told."""
        spent = await spending(self.house, self.session)
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                await asyncio.sleep(0.1)
                before, spent = spent, await spending(self.house, self.session)
                if spent == before:
                    return spent


@asynccontextmanager
async def a_scene(folder: Path, engine: Engine, *, pace_ms: int, **changes: str) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        if engine == "postgresql":
            changes["ATELIER_DATABASE_URL"] = stack.enter_context(Postgres()).url("atelier")
        house = await stack.enter_async_context(running_house(folder / "var", **_CALM, **changes))
        services = await stack.enter_async_context(inside(house))
        await services.set_account_options(render="instant", pace_ms=str(pace_ms))
        await services.set_concurrency(10_000)
        _, key, _ = await services.customer(900_000_000, limits=_LIMITS)
        session = await stack.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        )
        scene = Scene(house, session, Customer(session, house.base_url, key))
        # The first of its kind opens streams and compiles statements.
        scene.first = await scene.create()
        yield scene


def over(spent: Spending, budget: Budget, share: float = 1.0) -> dict[str, float]:
    """What was spent beyond the budget; of commits and statements, a share of the budget.

    How many requests come in one message depends on how close together their customers send them.
    """
    shared = {"commits", "statements"}
    found = {}
    for kind, allowed in budget.items():
        factor = share if kind in shared else 1.0
        for whose, amount in spent.of(kind).items():
            if whose in allowed and amount > allowed[whose] * factor:
                found[f"{kind}: {whose}"] = amount
    return found


def strangers(spent: Spending, budget: Budget) -> set[str]:
    """Whoever spent commits or statements without being in the budget at all."""
    kinds = ("commits", "statements")
    return {
        f"{kind}: {whose}" for kind in kinds for whose in spent.of(kind) if whose not in budget.get(kind, {})
    }


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_a_create_keeps_to_its_budget_alone_and_among_many(tmp_path: Path, engine: Engine) -> None:
    async with a_scene(tmp_path, engine, pace_ms=3000, **_RESTING) as scene:
        begun = await scene.spent()
        for _ in range(ALONE):
            await scene.create()
        alone = await scene.spent()
        for _ in range(BURSTS):
            await asyncio.gather(*(scene.create() for _ in range(AT_ONCE)))
        among_many = await scene.spent()
    each_alone, each_of_many = alone.each(begun, ALONE), among_many.each(alone, BURSTS * AT_ONCE)
    assert over(each_alone, CREATE) == {}
    assert over(each_of_many, CREATE, SHARE) == {}
    assert strangers(each_alone, CREATE) | strangers(each_of_many, CREATE) == set()
    # A budget that nothing is spent of would hold for ever.
    assert each_alone.total("commits") == sum(CREATE["commits"].values())


async def test_a_status_read_of_a_running_job_costs_one_call_and_no_statement(tmp_path: Path) -> None:
    async with a_scene(tmp_path, "sqlite", pace_ms=3_600_000) as scene:
        job_id = (await scene.create()).json["jobId"]
        while (await scene.customer.call("GET", f"/v1/jobs/{job_id}")).json["status"] != "processing":
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)

        async def read() -> None:
            assert (await scene.customer.call("GET", f"/v1/jobs/{job_id}")).status == 200

        begun = await scene.spent()
        for _ in range(ALONE):
            await read()
        alone = await scene.spent()
        for _ in range(BURSTS):
            await asyncio.gather(*(read() for _ in range(AT_ONCE)))
        among_many = await scene.spent()
    for each in (alone.each(begun, ALONE), among_many.each(alone, BURSTS * AT_ONCE)):
        assert over(each, READ) == {}
        assert each.of("commits") == each.of("statements") == {}
        assert each.by["calls"]["jobs GetJob"] == 1


async def test_a_finished_job_keeps_to_its_budget_alone_and_among_many(tmp_path: Path) -> None:
    async with a_scene(tmp_path, "sqlite", pace_ms=50) as scene:
        assert scene.first is not None
        await scene.customer.ended(scene.first.json["jobId"])
        begun = await scene.spent()
        for _ in range(ALONE):
            await scene.finish()
        alone = await scene.spent()
        for _ in range(BURSTS):
            await asyncio.gather(*(scene.finish() for _ in range(AT_ONCE)))
        among_many = await scene.spent()
    each_alone, each_of_many = alone.each(begun, ALONE), among_many.each(alone, BURSTS * AT_ONCE)
    assert over(each_alone, FINISHED) == {}
    assert over(each_of_many, FINISHED, FINISHED_SHARE) == {}
    assert strangers(each_alone, FINISHED) | strangers(each_of_many, FINISHED) == set()
    assert each_alone.total("commits") == sum(FINISHED["commits"].values())
