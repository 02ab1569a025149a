from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import pytest

from services.billing.bookkeeper import Bookkeeper
from services.billing.ledger import Receipt
from services.billing.operations import Operation
from services.billing.settings import MIGRATIONS
from services.billing.spending import SpendLimits
from services.billing.store import spending
from services.billing.verification import verify
from services.chassis.database import Database, migrate
from services.chassis.errors import ServiceError
from tests.clocks import HandClock
from tests.conformance.billing_house import add_customers
from tests.unit.billing_books import BEN, T0_MS, adjust, capture, hold, release, top_up

Told = list[Receipt | BaseException]


@asynccontextmanager
async def replicas(url: str, number: int) -> AsyncIterator[list[Bookkeeper]]:
    """Bookkeepers, each with a database connection of its own, over one wallet of three hundred; audited at the end."""
    await migrate(url, MIGRATIONS)
    databases = [await Database.open(url, application_name=f"replica-{n}") for n in range(number)]
    keepers = [Bookkeeper(database, HandClock(T0_MS)) for database in databases]
    try:
        await databases[0].write(add_customers)
        await keepers[0].submit(top_up("start", 300))
        yield keepers
        assert (await verify(partial(databases[-1].read, snapshot=True))).findings == []
    finally:
        for keeper in keepers:
            await keeper.close()
        for database in databases:
            await database.close()


async def _asked_everywhere(keepers: Sequence[Bookkeeper], operations: Sequence[Operation]) -> list[Told]:
    """Every operation sent to every replica at once; the answers by operation."""
    calls = [keeper.submit(operation) for operation in operations for keeper in keepers]
    told = await asyncio.gather(*calls, return_exceptions=True)
    return [told[n : n + len(keepers)] for n in range(0, len(told), len(keepers))]


def _firsts(told: Told) -> int:
    return sum(isinstance(answer, Receipt) and not answer.replayed for answer in told)


def _content(answer: Receipt | BaseException) -> object:
    if isinstance(answer, Receipt):
        return replace(answer, replayed=False)
    return (answer.reason, tuple(answer.metadata.items())) if isinstance(answer, ServiceError) else answer


@pytest.mark.parametrize("number", [2, 4])
async def test_the_same_keys_sent_to_every_replica_happen_once(postgres_url: str, number: int) -> None:
    async with replicas(postgres_url, number) as keepers:
        held = await _asked_everywhere(keepers, [hold(f"j{n}", 3) for n in range(120)])
        # All replicas tell the same, and a hundred holds of three are what three hundred pay for.
        assert [len({_content(answer) for answer in told}) for told in held] == [1] * 120
        assert Counter(map(_firsts, held)) == {1: 100, 0: 20}
        made = [n for n, told in enumerate(held) if _firsts(told)]
        captures: list[Operation] = [capture(f"j{n}", 2) for n in made]
        grants: list[Operation] = [*(top_up(f"k{n}", 1) for n in range(20)), adjust("down", -1)]
        ended = await _asked_everywhere(keepers, captures + grants)
        assert [_firsts(told) for told in ended] == [1] * 121
        assert [len({_content(answer) for answer in told}) for told in ended] == [1] * 121


@pytest.mark.parametrize("number", [2, 4])
async def test_replicas_that_end_one_hold_differently_agree_on_its_end(
    postgres_url: str, number: int
) -> None:
    async with replicas(postgres_url, number) as keepers:
        await asyncio.gather(*(keepers[0].submit(hold(f"j{n}", 3)) for n in range(60)))
        calls = [
            keeper.submit(release(f"j{n}") if turn % 2 else capture(f"j{n}", 3))
            for n in range(60)
            for turn, keeper in enumerate(keepers)
        ]
        told = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(isinstance(answer, Receipt) and not answer.replayed for answer in told) == 60
        lost = {answer.reason for answer in told if isinstance(answer, ServiceError)}
        assert lost <= {"HOLD_CAPTURED", "HOLD_RELEASED"}


async def test_two_replicas_given_one_job_for_two_customers_hold_it_once(postgres_url: str) -> None:
    async with replicas(postgres_url, 2) as keepers:
        await keepers[1].submit(top_up("b", 900, BEN))
        pairs = [(keepers[0], hold(f"j{n}", 1)) for n in range(50)]
        pairs += [(keepers[1], hold(f"j{n}", 1, BEN)) for n in reversed(range(50))]
        answers = await asyncio.gather(*(k.submit(op) for k, op in pairs), return_exceptions=True)
        refusals = {answer.reason for answer in answers if isinstance(answer, ServiceError)}
        assert sum(isinstance(answer, Receipt) for answer in answers) == 50
        assert refusals == {"IDEMPOTENCY_KEY_CONFLICT"}


async def test_replicas_keep_one_spend_limit_together(postgres_url: str) -> None:
    async with replicas(postgres_url, 3) as keepers:
        operator = await Database.open(postgres_url, application_name="operator")
        await operator.write(lambda c: spending.limit(c, "ann", SpendLimits(60, 0), T0_MS))
        await operator.close()
        calls = [keepers[n % 3].submit(hold(f"j{n}", 1)) for n in range(150)]
        told = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(isinstance(answer, Receipt) for answer in told) == 60
        refused = {answer.reason for answer in told if isinstance(answer, ServiceError)}
        assert refused == {"SPEND_LIMIT_REACHED"}
