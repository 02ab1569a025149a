"""Debts: each is asked for again until it is acknowledged, and none keeps the others from being paid."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from services.chassis.clock import SystemClock
from services.chassis.errors import Kind, ServiceError
from services.jobs.debts import Debts


class ToyCreditor:
    """Acknowledges all debts but those of `deaf_to`."""

    def __init__(self, *deaf_to: str) -> None:
        self.deaf_to = set(deaf_to)
        self.asked: Counter[str] = Counter()

    async def pay(self, debt: str) -> None:
        self.asked[debt] += 1
        if debt in self.deaf_to:
            raise ServiceError(Kind.UNAVAILABLE, "UNAVAILABLE", "away")


async def test_debts_that_are_never_acknowledged_do_not_delay_the_others() -> None:
    creditor = ToyCreditor("deaf_1", "deaf_2", "deaf_3")
    debts = Debts(creditor.pay, SystemClock(), name="test", at_once=2)
    for name in ("deaf_1", "deaf_2", "deaf_3", *(f"owed_{n}" for n in range(20))):
        debts.add(name)
    async with asyncio.timeout(2):
        while len(debts) > 3:
            await asyncio.sleep(0.01)
    assert max(creditor.asked.values()) < 20
    await debts.close(0)


@pytest.mark.parametrize("at_once", [1, 10])
async def test_a_debt_is_asked_for_again_until_it_is_acknowledged(at_once: int) -> None:
    creditor = ToyCreditor("late")
    debts = Debts(creditor.pay, SystemClock(), name="test", at_once=at_once)
    debts.add("late")
    async with asyncio.timeout(5):
        while creditor.asked["late"] < 2:
            await asyncio.sleep(0.01)
        creditor.deaf_to.clear()
        while debts:
            await asyncio.sleep(0.01)
